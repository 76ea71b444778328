"""Recipes of ActFusion and DiffAct.

Published settings, and small forms for data at hand; `ablation_recipes.py` has the ablations.

"Paper" is Table S5 with Algorithm 1; "released" is what the configs of the official code hold where
they differ. GTEA has no released ActFusion config: masks are the paper's, the rest is DiffAct's.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from actioncast.data import LabelInput
from actioncast.layers.frame_masks import (
    DIFFACT_50SALADS,
    DIFFACT_BREAKFAST,
    DIFFACT_GTEA,
    PAPER_50SALADS,
    PAPER_BREAKFAST,
    PAPER_GTEA,
    RELEASED_50SALADS,
    RELEASED_BREAKFAST,
    Masking,
)
from actioncast.models import ModelConfig
from actioncast.models.actfusion import ActFusionConfig
from actioncast.models.diffact import DiffActConfig
from actioncast.models.diffusion_config import DiffusionConfig
from actioncast.protocols import HorizonSource
from actioncast.training import TrainConfig

Recipes = dict[str, tuple[str, TrainConfig]]


def _with(model: ModelConfig, **values: Any) -> ModelConfig:
    return replace(cast(Any, model), **values)


WIDE: Mapping[str, Any] = {
    "encoder_layers": 12,
    "encoder_dim": 256,
    "decoder_dim": 128,
    "decoder_taps": 5,
    "channel_dropout": 0.1,
    "frame_dropout": 0.1,
    "scale": 0.5,
    "encoder_smoothing_weight": 0.025,
    "decoder_smoothing_weight": 0.025,
    "boundary_sigma": 3.0,
    "soft_labels": 4.0,
}
"""What Breakfast's networks have otherwise than those of 50 Salads."""
SHORT: Mapping[str, Any] = {
    "decoder_taps": 5,
    "scale": 0.5,
    "boundary_sigma": 1.0,
    "soft_labels": 1.4,
}
"""What GTEA's have."""
WHOLE = TrainConfig(
    model=ActFusionConfig(),
    # Videos are shown whole; what is hidden of them is the model's business.
    observed_ratios=(1.0,),
    batch_size=1,
    accumulate=4,
    optimizer="adam",
    schedule="constant",
    warmup_epochs=0,
    weight_decay=0.0,
    selection="last",
)
ACTFUSION_50SALADS = replace(
    WHOLE,
    model=ActFusionConfig(masking=PAPER_50SALADS, class_weights=True),
    dataset="50salads",
    stride=8,
    offsets=True,
    postprocess="median",
    postprocess_size=30,
    epochs=5000,
    lr=5e-4,
)
ACTFUSION_BREAKFAST = replace(
    WHOLE,
    model=ActFusionConfig(masking=PAPER_BREAKFAST, **WIDE),
    dataset="breakfast",
    # The paper's batch size is not legible; this is the released one.
    accumulate=16,
    postprocess="median",
    postprocess_size=15,
    epochs=1000,
    lr=1e-4,
)
ACTFUSION_GTEA = replace(
    WHOLE,
    model=ActFusionConfig(masking=PAPER_GTEA, condition_layers=(7, 9), **SHORT),
    dataset="gtea",
    postprocess="purge",
    postprocess_size=3,
    epochs=10_000,
    lr=5e-4,
    weight_decay=1e-6,
)
CAD120 = replace(
    WHOLE,
    model=ActFusionConfig(
        encoder_layers=5,
        decoder_layers=4,
        decoder_dim=64,
        decoder_taps=5,
        step_dim=128,
        condition_layers=(2, 3, 4),
        dropout=0.3,
        # A step is a whole part of an action here: dropping one leaves nothing to tell it by.
        frame_dropout=0.0,
        masking=Masking(kinds=("none", "anticipative", "random"), clip_length=2, num_clips=(1, 6)),
        # Little signal: what is said of a noisy label must then come from the features.
        scale=0.03,
        boundary_sigma=1.0,
    ),
    dataset="cad120",
    epochs=60,
    batch_size=4,
    accumulate=1,
    lr=1e-3,
    warp=0.3,
    schedule="cosine",
    warmup_epochs=2,
    select_by="segmentation",
)
BREAKFAST_LABELS = replace(
    WHOLE,
    model=ActFusionConfig(
        encoder_layers=7,
        decoder_layers=7,
        decoder_dim=64,
        decoder_taps=7,
        step_dim=128,
        condition_layers=(3, 4, 6),
        dropout=0.1,
        channel_dropout=0.0,
        frame_dropout=0.1,
        masking=replace(PAPER_BREAKFAST, num_clips=(1, 4), clip_length=5),
        scale=0.05,
        boundary_sigma=15.0,
    ),
    dataset="breakfast",
    input="labels",
    labels=LabelInput(wrong_frames=0.25, wrong_run=60.0),
    stride=15,
    epochs=8,
    batch_size=8,
    accumulate=1,
    lr=2e-3,
    schedule="cosine",
    warmup_epochs=1,
)
SALADS_LABELS = replace(
    BREAKFAST_LABELS,
    model=_with(
        BREAKFAST_LABELS.model,
        encoder_layers=8,
        condition_layers=(3, 5, 7),
        masking=replace(PAPER_50SALADS, num_clips=(5, 15)),
        boundary_sigma=30.0,
    ),
    dataset="50salads",
    labels=LabelInput(wrong_frames=0.25, wrong_run=120.0),
    stride=30,
    offsets=True,
    epochs=50,
    batch_size=4,
    warmup_epochs=5,
)


def rectified(config: TrainConfig) -> TrainConfig:
    """The same, trained and asked for 4 times what was observed, whatever the video's length."""
    masking = replace(_model(config).masking, future_multiple=4.0, observed_rounding="down")
    model = _with(config.model, masking=masking, to_the_end=False)
    return replace(
        config, model=model, horizon_source=HorizonSource.OBSERVED_MULTIPLE, multiple=4.0
    )


def without(config: TrainConfig, *kinds: str) -> TrainConfig:
    """The same without some kinds of mask."""
    masking = _model(config).masking
    left = tuple(kind for kind in masking.kinds if kind not in kinds)
    return changed(config, masking=replace(masking, kinds=left))


def changed(config: TrainConfig, **values: Any) -> TrainConfig:
    """The same with other values of the model."""
    return replace(config, model=_with(config.model, **values))


def anticipation_only(config: TrainConfig) -> TrainConfig:
    """The same, its losses on what is to come alone."""
    masking = replace(_model(config).masking, kinds=("anticipative",))
    return changed(
        config,
        masking=masking,
        decoder_counts="hidden",
        encoder_weight=0.0,
        encoder_smoothing_weight=0.0,
    )


def _model(config: TrainConfig) -> DiffusionConfig:
    assert isinstance(config.model, DiffusionConfig)
    return config.model


def _diffact(config: TrainConfig, **values: Any) -> TrainConfig:
    """DiffAct in the place of ActFusion, at the same sizes."""
    model = _model(config)
    shared = {name: getattr(model, name) for name in DiffusionConfig.__dataclass_fields__}
    return replace(config, model=DiffActConfig(**{**shared, **values}))


DIFFUSION_RECIPES: Recipes = {
    "actfusion": (
        "ActFusion on your own folder of features and labels",
        replace(
            WHOLE,
            # Clips that hide a part of a short video too, not all of it.
            model=ActFusionConfig(masking=replace(PAPER_BREAKFAST, num_clips=(1, 5))),
            stride=4,
            offsets=True,
            postprocess="median",
            postprocess_size=15,
            epochs=300,
            lr=5e-4,
        ),
    ),
    "actfusion-50salads": (
        "ActFusion on 50 Salads with I3D features, as in the paper",
        ACTFUSION_50SALADS,
    ),
    "actfusion-50salads-released": (
        "ActFusion on 50 Salads with I3D features, as in the released config",
        replace(changed(ACTFUSION_50SALADS, masking=RELEASED_50SALADS), epochs=7001),
    ),
    "actfusion-50salads-rectified": (
        "ActFusion on 50 Salads, 4 times the observed anticipated, no length told",
        rectified(ACTFUSION_50SALADS),
    ),
    "actfusion-breakfast": (
        "ActFusion on Breakfast with I3D features, as in the paper",
        ACTFUSION_BREAKFAST,
    ),
    "actfusion-breakfast-released": (
        "ActFusion on Breakfast with I3D features, as in the released config",
        replace(
            changed(ACTFUSION_BREAKFAST, masking=RELEASED_BREAKFAST, condition_layers=(7, 8, 9)),
            epochs=1001,
        ),
    ),
    "actfusion-breakfast-rectified": (
        "ActFusion on Breakfast, 4 times the observed anticipated, no length told",
        rectified(ACTFUSION_BREAKFAST),
    ),
    "actfusion-gtea": (
        "ActFusion on GTEA with I3D features, as in the paper",
        ACTFUSION_GTEA,
    ),
    "diffact-50salads": (
        "DiffAct on 50 Salads with I3D features, as in the released config",
        replace(
            _diffact(ACTFUSION_50SALADS, masking=DIFFACT_50SALADS),
            epochs=5001,
        ),
    ),
    "diffact-breakfast": (
        "DiffAct on Breakfast with I3D features, as in the released config",
        replace(
            _diffact(ACTFUSION_BREAKFAST, masking=DIFFACT_BREAKFAST, condition_layers=(7, 8, 9)),
            epochs=1001,
            accumulate=4,
        ),
    ),
    "diffact-gtea": (
        "DiffAct on GTEA with I3D features, as in the released config",
        replace(
            _diffact(ACTFUSION_GTEA, masking=DIFFACT_GTEA, condition_layers=(5, 7, 9)),
            epochs=10_001,
        ),
    ),
    "actfusion-cad120": (
        "ActFusion on CAD-120 with its skeleton and object features: minutes on a CPU",
        CAD120,
    ),
    "actfusion-cad120-segmentation": (
        "the same, segmentation alone: nothing is anticipated in training",
        without(CAD120, "anticipative"),
    ),
    "actfusion-cad120-anticipation": (
        "the same, anticipation alone: losses on what is to come only",
        replace(anticipation_only(CAD120), select_by="long_term"),
    ),
    "diffact-cad120": (
        "DiffAct on CAD-120 with its skeleton and object features: minutes on a CPU",
        _diffact(CAD120, masking=replace(DIFFACT_50SALADS, num_relations=1)),
    ),
    "actfusion-breakfast-labels": (
        "ActFusion on Breakfast from labels, a quarter of them wrong: minutes on a CPU",
        BREAKFAST_LABELS,
    ),
    "actfusion-breakfast-labels-rectified": (
        "the same, 4 times the observed anticipated, no length told",
        rectified(BREAKFAST_LABELS),
    ),
    "actfusion-breakfast-labels-full": (
        "ActFusion on Breakfast from labels, a quarter of them wrong, published sizes",
        replace(
            ACTFUSION_BREAKFAST,
            input="labels",
            labels=LabelInput(wrong_frames=0.25, wrong_run=60.0),
        ),
    ),
    "actfusion-50salads-labels": (
        "ActFusion on 50 Salads from labels, a quarter of them wrong: minutes on a CPU",
        SALADS_LABELS,
    ),
    "actfusion-50salads-labels-rectified": (
        "the same, 4 times the observed anticipated, no length told",
        rectified(SALADS_LABELS),
    ),
    "actfusion-50salads-labels-full": (
        "ActFusion on 50 Salads from labels, a quarter of them wrong, published sizes",
        replace(
            ACTFUSION_50SALADS,
            input="labels",
            labels=LabelInput(wrong_frames=0.25, wrong_run=120.0),
        ),
    ),
}
"""By name."""
