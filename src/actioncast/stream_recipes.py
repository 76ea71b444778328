"""CLAM and what it is compared with, on streams.

The published settings read features that must be had from elsewhere, in the layouts of
docs/next_action.md and docs/protocols.md. What can be measured without them: CAD-120 with its own
features as a stream, and EPIC-KITCHENS-100 from the actions observed, four times a second.

Differs from the released training (sheet of CLAM, sections 3 and 8): warm-up starts at the first
step, the label of a clip is its own, no clip is dropped, background is ignored under mixup too.
What no source tells is ours: the warm-up of Ego4D and THUMOS14, and the width for Ego4D.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from actioncast.clip_config import ClipTrainConfig
from actioncast.data.action_history import HistoryConfig
from actioncast.models.clam_config import ClamConfig
from actioncast.models.online_baselines import OnlineGRUConfig, WindowTransformerConfig
from actioncast.protocols.online import MOMENTS
from actioncast.training import TrainConfig

SMALL = ClamConfig(hidden_dim=384, predictor_layers=2, predictor_dim=1024)
"""CLAM within 12 million parameters, for a step of a few milliseconds on a CPU."""
EK100 = ClipTrainConfig(
    model=ClamConfig(),
    input="features",
    features=Path("features"),
    feature_rate=4.0,
    span=32.0,
    num_frames=128,
    every_step=True,
    supervise="steps",
    epochs=50,
    batch_size=256,
    lr=5e-4,
    lr_end=1e-7,
    warmup_epochs=5,
    weight_decay=0.0,
    selection="last",
)
HISTORY = replace(
    EK100,
    model=ClamConfig(
        hidden_dim=128,
        num_layers=2,
        num_heads=4,
        predictor_layers=2,
        predictor_dim=512,
        asks_at="starts",
        background_output=False,
        # What is told is what was done: there is nothing to recognise, and mixing told actions
        # halves what is learned in as many steps (on held-out training participants).
        past_weight=0.0,
        mixup=0.0,
        label_smoothing=0.0,
    ),
    input="history",
    history=HistoryConfig(rate=4.0, span=32.0),
    every_step=False,
    num_frames=16,
    clip_share=0.1,
    epochs=6,
    batch_size=32,
    lr=3e-3,
    lr_end=0.0,
    warmup_epochs=1,
    schedule_by="step",
    clip=1.0,
)
EGO4D = replace(
    EK100,
    model=ClamConfig(feature_dim=2048, num_coming=20),
    dataset="ego4d",
    task="coming_actions",
    every_step=False,
    num_frames=60,
    feature_rate=1.875,
    epochs=15,
    batch_size=128,
    lr=1e-4,
)
THUMOS14 = TrainConfig(
    model=ClamConfig(
        feature_dim=3072,
        ahead=MOMENTS,
        background_output=False,
        mixup=0.0,
        equalise_below=0.0,
    ),
    dataset="thumos14",
    observed_ratios=(1.0,),
    epochs=40,
    batch_size=1,
    lr=1e-4,
    lr_end=1e-7,
    warmup_epochs=4,
    weight_decay=0.0,
    selection="last",
    select_by="online",
)
CAD120_MOMENTS = tuple(round(step * 20 / 30, 6) for step in range(2, 10))
"""1.33 to 6 s, the steps of CAD-120's features (20 frames of 30 a second) that lie there."""
CAD120 = replace(
    THUMOS14,
    model=ClamConfig(
        ahead=CAD120_MOMENTS,
        hidden_dim=64,
        num_layers=2,
        num_heads=4,
        predictor_layers=2,
        predictor_dim=128,
        background_output=False,
        equalise_below=0.0,
    ),
    dataset="cad120",
    epochs=30,
    batch_size=8,
    lr=1e-3,
    lr_end=0.0,
    warmup_epochs=3,
    schedule_by="step",
    clip=1.0,
)
"""Rates, and the sizes of what CLAM is compared with, were chosen on splits 1 and 2 with one of
their training subjects held out."""


def changed(config: Any, **values: Any) -> Any:
    """The same recipe with another model config."""
    return replace(config, model=replace(config.model, **values))


ABLATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "gru": ("Table B.10a: a GRU as the processor", {"processor": "gru"}),
    "lstm": ("Table B.10a: an LSTM as the processor", {"processor": "lstm"}),
    "without-embeddings": ("Table B.10b: no p_act, no p_mem", {"token_embeddings": False}),
    **{
        f"layers-{count}": (f"Table B.10c: {count} layers of the processor", {"num_layers": count})
        for count in (1, 2, 6)
    },
    **{
        f"width-{width}": (f"Table B.10d: a hidden width of {width}", {"hidden_dim": width})
        for width in (256, 512, 1280)
    },
    "without-memory": ("the memory left out", {"memory_queries": 0}),
    **{
        f"{choice}-{count}": (
            f"Fig. B.9: without memory, {count} tokens, "
            + ("the latest" if choice == "last" else "spread over all that was seen"),
            {"memory_queries": 0, "act_tokens": count, "act_choice": choice},
        )
        for choice in ("last", "uniform")
        for count in (1, 2, 8, 16, 32)
    },
    "sigmoid-gate": ("gates that forget within a step", {"gate_temperature": 1.0}),
    "memory-layers-2": ("two layers of memory", {"memory_layers": 2}),
    "memory-of-tokens": ("a memory of what the processor made", {"memory_reads": "tokens"}),
    "accumulated": ("positions as the released code adds them", {"positions": "accumulated"}),
}
"""The supplement's ablations, the points of Fig. B.9 ours; the last four are ours altogether."""

OWN = replace(
    changed(CAD120, ahead=(1.0, 2.0), hidden_dim=128, predictor_dim=256, mixup=0.0),
    dataset="",
    # Half a second or less at the usual rates, so that moments are whole steps; a video a step of
    # training, since a folder of one's own is small.
    stride=5,
    batch_size=1,
)
STREAM_RECIPES: Mapping[str, tuple[str, TrainConfig]] = {
    "clam": ("CLAM as a stream on your own folder, named 1 and 2 s ahead", OWN),
    "online-gru": (
        "a GRU as a stream on your own folder",
        replace(OWN, model=OnlineGRUConfig(ahead=(1.0, 2.0), hidden_dim=128)),
    ),
    "window-transformer": (
        "a transformer over a window of your own streams",
        replace(
            OWN,
            model=WindowTransformerConfig(
                ahead=(1.0, 2.0), hidden_dim=128, num_layers=2, window=64
            ),
        ),
    ),
    "clam-thumos14": (
        "CLAM on THUMOS14 with two-stream features at 4 frames a second",
        THUMOS14,
    ),
    "clam-cad120": ("CLAM on CAD-120 as a stream, named 1.3 to 6 s ahead", CAD120),
    "clam-cad120-without-memory": (
        "the same without a memory",
        changed(CAD120, memory_queries=0),
    ),
    "clam-cad120-gru": ("the same with a GRU as the processor", changed(CAD120, processor="gru")),
    "online-gru-cad120": (
        "a GRU on the same stream",
        replace(CAD120, model=OnlineGRUConfig(ahead=CAD120_MOMENTS, hidden_dim=128), lr=2e-3),
    ),
    "window-transformer-cad120": (
        "a transformer over a window of the same stream",
        replace(
            CAD120,
            model=WindowTransformerConfig(
                ahead=CAD120_MOMENTS, hidden_dim=64, num_layers=2, window=16
            ),
        ),
    ),
}
STREAM_CLIP_RECIPES: Mapping[str, tuple[str, ClipTrainConfig]] = {
    "clam-ek100": ("CLAM on EPIC-KITCHENS-100 with features at 4 frames a second", EK100),
    "clam-small-ek100": (
        "CLAM of 12 million parameters on the same",
        replace(EK100, model=SMALL),
    ),
    **{
        f"clam-ek100-{name}": (said, changed(EK100, **values))
        for name, (said, values) in ABLATIONS.items()
    },
    "clam-ego4d": ("CLAM on Ego4D: the next 20 actions in order", EGO4D),
    "clam-ek100-history": (
        "CLAM on observed actions, four times a second: minutes on a CPU",
        HISTORY,
    ),
    "clam-ek100-history-without-memory": (
        "the same without a memory",
        changed(HISTORY, memory_queries=0),
    ),
    "clam-ek100-history-full": (
        "CLAM on observed actions at the published width and schedule",
        replace(
            EK100,
            input="history",
            history=HISTORY.history,
            every_step=False,
            num_frames=16,
        ),
    ),
}
