from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from actioncast.batches import CutVideos, Item, Variation
from actioncast.checkpoint import from_json, to_json
from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_recipes import CLIP_RECIPES
from actioncast.data import Dataset, LabelInput, Split, Video
from actioncast.data.collate import collate
from actioncast.features import FeatureArray
from actioncast.models.actionllm_config import ActionLLMConfig
from actioncast.models.base import ClipCounter, CountingAnticipator, CountsFirst, CountsLabels
from actioncast.models.clam_config import ClamConfig
from actioncast.models.diffusion import DiffusionConfig
from actioncast.models.mamba_vl import MambaVLConfig
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.optimisation import make_optimizer, parameter_groups, rate_share
from actioncast.protocols import HorizonSource
from actioncast.questions import QuestionMode
from actioncast.recipes import RECIPES, recipe
from actioncast.timeline import LabelSpace, Taxonomy, Timeline
from actioncast.training import TrainConfig, build, prepare, training_facts
from actioncast.types import IGNORE, Observation, Target, Tokens

LABELS: Mapping[str, int] = {
    "breakfast": 48,
    "50salads": 19,
    "gtea": 11,
    "cad120": 10,
    "synthetic": 13,
}
"""How many actions the data set of a recipe has; 10 where it names none."""
WIDTHS: Mapping[str, int] = {"breakfast": 2048, "50salads": 2048, "gtea": 2048}
"""How wide its features are; 32 elsewhere."""
RATES: Mapping[str, float] = {"thumos14": 4.0}
"""Frames per second of its features; 15 elsewhere."""


def stand_in(name: str) -> Dataset:
    """Three short videos that look like those of a data set."""
    num_labels, width = LABELS.get(name, 10), WIDTHS.get(name, 32)
    rate = RATES.get(name, 15.0)
    labels = LabelSpace(tuple(f"a{i}" for i in range(num_labels)))
    rng = np.random.default_rng(0)
    videos = {}
    for i in range(3):
        frames = np.repeat(rng.permutation(num_labels)[:6], rng.integers(30, 49, 6))
        videos[f"v{i}"] = Video(
            id=f"v{i}",
            timeline=Timeline.from_frames(frames, rate, labels),
            rate=rate,
            num_frames=len(frames),
            features=FeatureArray(rng.normal(size=(len(frames), width)).astype(np.float32)),
        )
    return Dataset(
        name=name or "own",
        taxonomy=Taxonomy({"action": labels}),
        rate=rate,
        videos=videos,
        splits={"1": Split(("v0", "v1"), ("v2",))},
    )


def on_a_tiny_trunk(config: TrainConfig) -> TrainConfig:
    """The same recipe on a language model that any machine holds; all else stays."""
    model = config.model
    if isinstance(model, MMAntConfig):
        return replace(config, model=replace(model, encoder="hash:8"))
    if not isinstance(model, ActionLLMConfig):
        return config
    trunk = replace(model.trunk, name="untrained:llama-tiny", num_layers=0)
    return replace(config, model=replace(model, trunk=trunk))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_and_takes_one_step(name: str) -> None:
    shown = stand_in(recipe(name).dataset).with_true_labels(LabelInput())
    config, dataset = prepare(on_a_tiny_trunk(recipe(name)), shown)
    model = build(config, dataset)
    videos = dataset.select(dataset.split("1").train)
    if isinstance(model, CountingAnticipator):
        model.fit([video.counted() for video in videos])
        assert len(model.state_dict())
        return
    assert config.model.feature_dim == dataset.num_features  # type: ignore[union-attr]
    num_labels = len(dataset.taxonomy.labels)
    if isinstance(model, CountsFirst):
        model.count([video.counted() for video in videos])
    variation = Variation(config.warp, config.relabel)
    cuts = CutVideos(videos, config.protocol(), config.stride, num_labels, variation)
    if model.trains_on_whole_videos:
        offsets = (0, config.stride - 1) if config.offsets else (None, None)
        items = [Item(i, 1.0, offset=offset) for i in range(2) for offset in offsets]
    else:
        items = [Item(i, r) for i in range(2) for r in (0.3, 0.5)]
    x, y = collate([cuts[item] for item in items], "action")
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)
    learning = {name: value for name, value in model.named_parameters() if value.requires_grad}
    before = {name: value.clone() for name, value in learning.items()}
    with torch.random.fork_rng():
        # Among the masks of this seed is one that hides steps.
        torch.manual_seed(0)
        losses = model.losses(x, y)
    assert all(loss.isfinite() for loss in losses.values())
    silent = {term for term in losses if getattr(config.model, f"{term}_weight", 1.0) == 0}
    # At the stride of a recipe a stretch of these short videos may be one step, or the only one.
    counted = {term: loss for term, loss in losses.items() if term not in ("intra", "inter")}
    assert all((loss > 0) == (term not in silent) for term, loss in counted.items())
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    still = {name for name, value in learning.items() if value.equal(before[name])}
    assert still == idle(config.model)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def idle(config: Any) -> set[str]:
    """Parameters that a first step leaves: the answer of an encoder that no loss hears, the
    biases before layers that begin at zero, and what nothing uses.
    """
    if isinstance(config, ActionLLMConfig):
        unused = ("unused_up", "unused_up_bias", "unused_router.weight", "unused_router.bias")
        left = ("down.bias", *(unused if config.unused_parameters else ()))
        return {f"tuning.{i}.{name}" for i in range(2) for name in left}
    heard = ("encoder_weight", "encoder_smoothing_weight", "encoder_boundary_weight")
    if (
        not isinstance(config, DiffusionConfig)
        or config.condition_predictions
        or any(getattr(config, name) for name in heard)
    ):
        return set()
    return {"encoder.head.weight", "encoder.head.bias"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_a_name_and_a_sentence(name: str) -> None:
    sentence, config = RECIPES[name]
    assert name == name.lower()
    assert " " not in name
    assert 20 < len(sentence) <= 90
    assert not sentence.endswith(".")
    assert isinstance(config, TrainConfig)
    assert config.model.__doc__


def test_the_published_values() -> None:
    """Gong et al., CVPR 2022, and what their code sets besides."""
    breakfast, salads = recipe("futr-breakfast"), recipe("futr-50salads")
    assert (breakfast.stride, breakfast.epochs, breakfast.batch_size) == (3, 60, 16)
    assert (salads.stride, salads.epochs, salads.batch_size) == (6, 70, 8)
    for config in (breakfast, salads):
        assert (config.lr, config.weight_decay, config.warmup_epochs) == (1e-3, 5e-3, 10)
        assert config.observed_ratios == (0.2, 0.3, 0.5)
        assert (config.ratio_jitter, config.warp, config.accumulate) == (0, 0, 1)


ACTFUSION = ("50salads", "breakfast", "gtea")


def test_the_published_values_of_actfusion() -> None:
    """Gong et al., NeurIPS 2024, Table S5; masks of Algorithm 1."""
    salads, breakfast, gtea = (recipe(f"actfusion-{name}") for name in ACTFUSION)
    assert [c.epochs for c in (salads, breakfast, gtea)] == [5000, 1000, 10_000]
    assert [c.lr for c in (salads, breakfast, gtea)] == [5e-4, 1e-4, 5e-4]
    assert [c.weight_decay for c in (salads, breakfast, gtea)] == [0, 0, 1e-6]
    assert [c.stride for c in (salads, breakfast, gtea)] == [8, 1, 1]
    assert [c.offsets for c in (salads, breakfast, gtea)] == [True, False, False]
    models = [diffusion(f"actfusion-{name}") for name in ACTFUSION]
    shapes = [(m.encoder_layers, m.encoder_dim, m.encoder_taps) for m in models]
    assert shapes == [(10, 64, 5), (12, 256, 5), (10, 64, 5)]
    shapes = [(m.decoder_layers, m.decoder_dim, m.decoder_taps) for m in models]
    assert shapes == [(8, 24, 7), (8, 128, 5), (8, 24, 5)]
    assert [m.condition_layers for m in models] == [(5, 7, 9), (5, 7, 9), (7, 9)]
    assert [m.encoder_smoothing_weight for m in models] == [0.1, 0.025, 0.1]
    assert [m.decoder_smoothing_weight for m in models] == [0.1, 0.025, 0.1]
    assert [m.masking.num_clips for m in models] == [(25, 25), (10, 10), (20, 20)]
    for model in models:
        assert (model.encoder_weight, model.decoder_weight) == (0.5, 0.5)
        assert (model.encoder_boundary_weight, model.decoder_boundary_weight) == (0.0, 0.1)
        assert model.masking.kinds == ("none", "anticipative", "random", "boundary", "relation")
        assert model.masking.observed_ratios == (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
        assert model.masking.observed_rounding == "up"
        assert (model.masking.clip_length, model.masking.boundary_below) == (10, 0.5)
        assert (model.masking.num_relations, model.masking.partial_clip) == (1, True)


def test_the_released_values_that_the_paper_does_not_name() -> None:
    """Of the configs of ActFusion (50 Salads, Breakfast) and of DiffAct (GTEA)."""
    models = [diffusion(f"actfusion-{name}") for name in ACTFUSION]
    assert [m.scale for m in models] == [1.0, 0.5, 0.5]
    assert [m.boundary_sigma for m in models] == [20.0, 3.0, 1.0]
    assert [(m.class_weights, m.soft_labels) for m in models] == [
        (True, 0.0),
        (False, 4.0),
        (False, 1.4),
    ]
    dropouts = [(m.dropout, m.channel_dropout, m.frame_dropout) for m in models]
    assert dropouts == [(0.5, 0.5, 0.5), (0.5, 0.1, 0.1), (0.5, 0.5, 0.5)]
    for model in models:
        assert (model.step_dim, model.num_steps, model.inference_steps) == (512, 1000, 25)
        assert (model.eta, model.decoder_dropout, model.to_the_end) == (1.0, 0.1, True)
    configs = [recipe(f"actfusion-{name}") for name in ACTFUSION]
    smoothed = [(config.postprocess, config.postprocess_size) for config in configs]
    assert smoothed == [("median", 30), ("median", 15), ("purge", 3)]
    assert [config.accumulate for config in configs] == [4, 16, 4]
    for config in configs:
        assert config.batch_size == 1
        assert (config.optimizer, config.schedule) == ("adam", "constant")
        assert (config.warmup_epochs, config.clip, config.warp) == (0, 0, 0)
        assert config.observed_ratios == (1.0,)


def test_what_the_released_configs_of_actfusion_have_otherwise() -> None:
    paper, code = recipe("actfusion-50salads"), recipe("actfusion-50salads-released")
    assert differing(paper, code) == {"epochs", "model.masking"}
    assert code.epochs == 7001
    masking = diffusion("actfusion-50salads-released").masking
    assert chances(masking.kinds) == {
        **dict.fromkeys(("none", "anticipative", "random", "boundary"), 1 / 6),
        "relation": 1 / 3,
    }
    assert (masking.num_clips, masking.num_relations) == ((5, 10), 2)
    assert (masking.observed_rounding, masking.partial_clip) == ("down", False)
    assert masking.boundary_below == 0.5
    paper, code = recipe("actfusion-breakfast"), recipe("actfusion-breakfast-released")
    assert differing(paper, code) == {
        "epochs",
        "model.masking",
        "model.condition_layers",
    }
    assert (code.epochs, code.accumulate) == (1001, 16)
    model = diffusion("actfusion-breakfast-released")
    assert model.condition_layers == (7, 8, 9)
    assert chances(model.masking.kinds) == chances(masking.kinds)
    assert (model.masking.num_clips, model.masking.num_relations) == ((10, 10), 1)
    assert model.masking.boundary_below == 0.3


def test_the_released_values_of_diffact() -> None:
    """Liu et al., ICCV 2023: sizes as ActFusion's, no token, no anticipative or random mask."""
    configs = [recipe(f"diffact-{name}") for name in ACTFUSION]
    assert [config.epochs for config in configs] == [5001, 1001, 10_001]
    assert [config.accumulate for config in configs] == [4, 4, 4]
    models = [diffusion(f"diffact-{name}") for name in ACTFUSION]
    assert [m.condition_layers for m in models] == [(5, 7, 9), (7, 8, 9), (5, 7, 9)]
    assert [m.masking.boundary_below for m in models] == [0.5, 0.3, 0.3]
    assert [m.masking.num_relations for m in models] == [2, 1, 1]
    for name, config, model in zip(ACTFUSION, configs, models, strict=True):
        assert chances(model.masking.kinds) == {
            "none": 0.2,
            "all": 0.2,
            "boundary": 0.2,
            "relation": 0.4,
        }
        other = recipe(f"actfusion-{name}")
        assert differing(config, other) - {"model"} <= {"epochs", "accumulate"}
        ours = {field: getattr(model, field) for field in DiffusionConfig.__dataclass_fields__}
        theirs = {field: getattr(other.model, field) for field in ours}
        apart = {field for field in ours if ours[field] != theirs[field]}
        assert apart <= {"masking", "condition_layers"}


NO_ENCODER = {"model.encoder_weight": 0.0, "model.encoder_smoothing_weight": 0.0}
NO_ENTROPY = {"model.encoder_weight": 0.0, "model.decoder_weight": 0.0}
NO_SMOOTHING = {"model.encoder_smoothing_weight": 0.0, "model.decoder_smoothing_weight": 0.0}
NO_BOUNDARY = {"model.decoder_boundary_weight": 0.0}
ROWS: Mapping[str, Mapping[str, Any]] = {
    "no-position": {"model.positions": "none"},
    "loss-to-come": {"model.decoder_counts": "hidden", **NO_ENCODER},
    "loss-denoiser": NO_ENCODER,
    "no-anticipative-mask": {"kinds": ("none", "random", "boundary", "relation")},
    "no-random-mask": {"kinds": ("none", "anticipative", "boundary", "relation")},
    "no-boundary-mask": {"kinds": ("none", "anticipative", "random", "relation")},
    "no-relation-mask": {"kinds": ("none", "anticipative", "random", "boundary")},
    "zero-token": {"model.token": "zero"},
    "token-in-denoiser": {"model.token_in": "denoiser"},
    "condition-features": {"model.condition_layers": (), "model.condition_features": True},
    "condition-predictions": {"model.condition_layers": (), "model.condition_predictions": True},
    "relative-embedding": {"model.positions": "embedding"},
    "absolute-embedding": {"model.positions": "absolute"},
    "loss-boundary": {**NO_ENTROPY, **NO_SMOOTHING},
    "loss-boundary-smoothing": NO_ENTROPY,
    "loss-entropy": {**NO_SMOOTHING, **NO_BOUNDARY},
    "loss-entropy-smoothing": NO_BOUNDARY,
    "reconstruction": {"model.reconstruction_weight": 1.0},
    **{f"{n}-clips": {"num_clips": (n, n)} for n in (10, 50, 75, 100)},
    **{f"{n}-steps": {"model.inference_steps": n} for n in (1, 2, 5, 10, 50, 100)},
}
"""What a row of the ablations changes: fields of the masking, or of what `differing` names."""


def test_every_row_of_the_ablations_has_its_recipe() -> None:
    base = "actfusion-50salads-"
    others = {"released", "rectified", "labels", "labels-rectified", "labels-full"}
    found = {name.removeprefix(base) for name in RECIPES if name.startswith(base)}
    assert found == set(ROWS) | others


@pytest.mark.parametrize("row", ROWS)
def test_an_ablation_changes_what_it_says_and_nothing_else(row: str) -> None:
    base, config = recipe("actfusion-50salads"), recipe(f"actfusion-50salads-{row}")
    fields = {field: value for field, value in ROWS[row].items() if field.startswith("model.")}
    masked = {field: value for field, value in ROWS[row].items() if field not in fields}
    assert differing(base, config) == set(fields) | ({"model.masking"} if masked else set())
    for field, value in fields.items():
        assert getattr(config.model, field.removeprefix("model.")) == value
    model: Any = config.model
    assert model.masking == replace(diffusion("actfusion-50salads").masking, **masked)


@pytest.mark.parametrize("name", [n for n in RECIPES if n.endswith("-rectified")])
def test_a_rectified_recipe_learns_and_answers_four_times_what_was_seen(name: str) -> None:
    base, config = recipe(name.removesuffix("-rectified")), recipe(name)
    assert differing(base, config) == {"horizon_source", "model.masking", "model.to_the_end"}
    assert (config.horizon_source, config.multiple) == (HorizonSource.OBSERVED_MULTIPLE, 4.0)
    model: Any = config.model
    assert not model.to_the_end
    masking = diffusion(name.removesuffix("-rectified")).masking
    asked = replace(masking, future_multiple=4.0, observed_rounding="down")
    assert model.masking == asked


ACTIONLLM_ROWS: Mapping[str, Mapping[str, Any]] = {
    "cmib-s": {"interaction": "self"},
    "cmib-c": {"interaction": "cross"},
    "cmib-n": {"interaction": "none"},
    "loss-future": {"past_text_weight": 0.0, "past_visual_weight": 0.0},
    "loss-visual": {"past_text_weight": 0.0},
    **{f"tuning-{units}": {"tuning_dim": units} for units in (2, 6, 8)},
    **{f"cmib-{width}": {"interaction_dim": width} for width in (64, 256)},
    **{f"queries-{kind}": {"queries": kind} for kind in ("zeros", "normal")},
    **{f"{count}-queries": {"num_queries": count} for count in (18, 19, 21, 22)},
}
"""Tables IV to VIII and Fig. 4 of ActionLLM, but for the full model, and what each row changes."""


def test_the_rate_of_actionllm_climbs_and_falls_as_released() -> None:
    """The sheet's check, section 6: rate 1e-3, 25 epochs of 800 steps."""
    config = recipe("actionllm-50salads-released")
    assert config.epochs == 25
    steps = 800
    wanted = {0: 0.0, 0.5: 2.5e-4, 1: 5e-4, 2: 1e-3, 13.5: 5e-4, 25: 0.0}
    for epoch, rate in wanted.items():
        share = rate_share(config, int(epoch * steps), 25 * steps, 2 * steps, config.lr)
        assert config.lr * share == pytest.approx(rate, rel=1e-9, abs=1e-12)


def test_the_published_values_of_actionllm() -> None:
    """Wang et al., TMM 2025, and their code (sheet, sections 1, 5 and 6)."""
    salads, breakfast = (recipe(f"actionllm-{name}") for name in ("50salads", "breakfast"))
    assert (salads.resample, salads.starts, salads.lr) == (8, 8, 1e-3)
    assert (breakfast.resample, breakfast.starts, breakfast.lr) == (6, 1, 1e-4)
    assert salads.observed_ratios == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert breakfast.observed_ratios == (0.2, 0.3, 0.5)
    for config, num_queries in ((salads, 20), (breakfast, 8)):
        assert (config.epochs, config.batch_size, config.accumulate) == (20, 1, 2)
        assert (config.stride, config.ratio_jitter, config.warp) == (1, 0, 0)
        assert (config.optimizer, config.beta2, config.weight_decay) == ("adamw", 0.95, 0.02)
        assert (config.schedule, config.schedule_by, config.warmup_epochs) == ("cosine", "step", 2)
        assert (config.warmup_from_zero, config.decay_biases, config.clip) == (True, False, 0.0)
        model: Any = config.model
        assert (model.num_queries, model.adapter_dim, model.interaction_dim) == (
            num_queries,
            128,
            128,
        )
        assert (model.interaction_heads, model.tuning_dim, model.tuning_groups) == (32, 4, 2)
        assert (model.dropout, model.queries, model.interaction) == (0.1, "ones", "both")
        assert (model.trunk.dtype, model.trunk.gradient_checkpointing) == ("bfloat16", True)
        assert model.trunk.attention == "bidirectional"


def test_every_row_of_actionllm_has_its_recipe() -> None:
    base = "actionllm-50salads-"
    found = {name.removeprefix(base) for name in RECIPES if name.startswith(base)}
    assert found == set(ACTIONLLM_ROWS) | {"labels", "labels-full", "released"}


@pytest.mark.parametrize("row", ACTIONLLM_ROWS)
def test_a_row_of_actionllm_changes_what_it_says_and_nothing_else(row: str) -> None:
    base, config = recipe("actionllm-50salads"), recipe(f"actionllm-50salads-{row}")
    changes = ACTIONLLM_ROWS[row]
    assert differing(base, config) == {f"model.{field}" for field in changes}
    assert {field: getattr(config.model, field) for field in changes} == changes


@pytest.mark.parametrize(
    "dataset", ["50salads", "breakfast", "50salads-labels", "breakfast-labels", "cad120"]
)
def test_llmaction_reads_features_alone(dataset: str) -> None:
    base, config = recipe(f"actionllm-{dataset}"), recipe(f"llmaction-{dataset}")
    noise = {"model.text_noise"} if dataset == "cad120" else set()
    assert differing(base, config) == {"model.modalities", "model.interaction"} | noise
    model: Any = config.model
    assert (model.modalities, model.interaction, model.text_noise) == ("vision", "none", 0)
    # Noise of a text that is not read is no fault: `--model.modalities vision` alone will do.
    replace(cast(ActionLLMConfig, base.model), modalities="vision")


@pytest.mark.parametrize("dataset", ["50salads", "breakfast"])
def test_the_full_recipe_from_labels_is_the_published_one_with_other_input(dataset: str) -> None:
    base, config = recipe(f"actionllm-{dataset}"), recipe(f"actionllm-{dataset}-labels-full")
    assert differing(base, config) == {"input"}


def test_one_task_alone_is_the_joint_recipe_without_the_other() -> None:
    joint = recipe("actfusion-cad120")
    segmenting, anticipating = (
        recipe(f"actfusion-cad120-{name}") for name in ("segmentation", "anticipation")
    )
    assert differing(joint, segmenting) == {"model.masking"}
    assert "anticipative" not in diffusion("actfusion-cad120-segmentation").masking.kinds
    assert differing(joint, anticipating) == {
        "select_by",
        "model.masking",
        "model.decoder_counts",
        *NO_ENCODER,
    }
    assert diffusion("actfusion-cad120-anticipation").masking.kinds == ("anticipative",)


def diffusion(name: str) -> DiffusionConfig:
    """The model of a recipe."""
    model = recipe(name).model
    assert isinstance(model, DiffusionConfig)
    return model


def chances(kinds: Sequence[str]) -> dict[str, float]:
    """How likely each mask is drawn."""
    return {kind: count / len(kinds) for kind, count in Counter(kinds).items()}


def differing(one: TrainConfig, other: TrainConfig) -> set[str]:
    """Fields in which two recipes differ; those of the model by `model.` and their names."""
    fields = set(one.__dataclass_fields__) - {"model"}
    found = {name for name in fields if getattr(one, name) != getattr(other, name)}
    if type(one.model) is not type(other.model):
        return {*found, "model"}
    names = one.model.__dataclass_fields__
    return found | {
        f"model.{name}" for name in names if getattr(one.model, name) != getattr(other.model, name)
    }


def test_an_unknown_recipe_names_those_called_much_the_same() -> None:
    with pytest.raises(ValueError, match="unknown recipe 'futurr'; did you mean futr") as caught:
        recipe("futurr")
    assert f"lists all {len(RECIPES) + len(CLIP_RECIPES)}" in str(caught.value)
    with pytest.raises(ValueError, match=r"unknown recipe 'xyz'; `actioncast info` lists all"):
        recipe("xyz")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    config = recipe(name)
    again = from_json(type(config.model), to_json(config.model), name)
    assert again == config.model
    assert "model" not in training_facts(config)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"observed_ratios": ()}, "observed_ratios"),
        ({"observed_ratios": (0.0,)}, "observed_ratios"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"warp": -1.0}, "warp"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(recipe("futr"), **values)


def test_a_video_too_long_for_the_model_is_refused() -> None:
    config = recipe("futr")
    small = replace(config, model=replace(config.model, max_positions=20))
    with pytest.raises(ValueError, match=r"raise --stride or --model\.max-positions"):
        prepare(small, stand_in(""))


def test_no_test_data_chooses_a_recipes_checkpoint() -> None:
    assert {config.selection for _, config in RECIPES.values()} <= {"validation", "last"}


def clips_of(config: ClipTrainConfig) -> tuple[Taxonomy, Observation, Target]:
    """Two clips such as a recipe would show: features, and what else it asks for."""
    sizes = {"verb": 6, "noun": 7, "action": 20}
    pairs = tuple((i % 6, i % 7) for i in range(20))
    heads = {h: LabelSpace(tuple(f"{h} {i}" for i in range(n))) for h, n in sizes.items()}
    widths = {}
    if config.objects:
        widths["objects"] = 14
    if config.questions is not QuestionMode.NONE:
        widths["questions"] = 9
    generator = torch.Generator().manual_seed(0)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    x = Observation(
        features=torch.randn(2, 3, 18, generator=generator),
        valid=valid,
        rate=1.0,
        horizon=torch.zeros(2, dtype=torch.long),
        labels=torch.tensor([[1, 2, 3], [4, IGNORE, IGNORE]]),
        modalities={
            name: Tokens(values=torch.randn(2, 3, width, generator=generator), valid=valid)
            for name, width in widths.items()
        },
    )
    labels = {head: torch.tensor([1, 2]) for head in sizes}
    coming = {head: torch.tensor([[1, 2, 0], [2, 1, IGNORE]]) for head in sizes}
    y = Target(frames={}, next=labels)
    if config.task == "coming_actions":
        y = Target(frames={}, next={}, coming=coming)
    return Taxonomy(heads, "action", pairs), x, y


@pytest.mark.parametrize("name", CLIP_RECIPES)
def test_a_recipe_of_clips_builds_takes_one_step_and_answers(name: str) -> None:
    config = CLIP_RECIPES[name][1]
    taxonomy, x, y = clips_of(config)
    model_config: Any = config.model
    if isinstance(model_config, MambaVLConfig):
        others = tuple((key, tokens.values.shape[2]) for key, tokens in x.modalities.items())
        model_config = replace(model_config, feature_dim=18, modalities=others)
    if isinstance(model_config, ClamConfig):
        # Of each recipe its own choices, at a size of which forty fit into a minute.
        model_config = replace(
            model_config, feature_dim=18, hidden_dim=32, predictor_dim=32, num_heads=4
        )
    torch.manual_seed(0)
    model = model_config.build(taxonomy)
    if isinstance(model, ClipCounter):
        model.fit_clips([(x, y)])
    else:
        if isinstance(model, CountsLabels):
            model.count_labels({head: torch.tensor([1, 2]) for head in taxonomy.heads})
        optimizer = make_optimizer(parameter_groups(model, config), config)
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.stack(list(model.losses(x, y).values())).sum().backward()
        optimizer.step()
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert after.isfinite().all()
        assert (after != before).any()
    for prediction in model.eval().predict(x):
        for head in taxonomy.heads:
            said = (prediction.next or prediction.coming)[head].detach().sum(-1)
            torch.testing.assert_close(said, torch.ones_like(said), atol=1e-4, rtol=0)
    facts = {key: value for key, value in to_json(config).items() if key != "model"}
    assert replace(from_json(ClipTrainConfig, facts, name), model=config.model) == config


def test_the_published_values_of_clam() -> None:
    """Zhong et al., WACV 2026, supplement A; their code besides (sheet, sections 1 and 3)."""
    ek100, ego4d = (CLIP_RECIPES[f"clam-{name}"][1] for name in ("ek100", "ego4d"))
    thumos = recipe("clam-thumos14")
    runs = (ek100, ego4d, thumos)
    assert [(c.epochs, c.lr, c.batch_size) for c in runs] == [
        (50, 5e-4, 256),
        (15, 1e-4, 128),
        (40, 1e-4, 1),
    ]
    assert all((c.optimizer, c.weight_decay, c.schedule) == ("adamw", 0.0, "cosine") for c in runs)
    assert all((c.lr_end, c.warmup_from_zero) == (1e-7, False) for c in runs)
    assert (ek100.span, ek100.feature_rate, ek100.anticipation_time) == (32.0, 4.0, 1.0)
    assert (ego4d.span, ego4d.feature_rate, ego4d.num_actions) == (32.0, 1.875, 20)
    model: Any = ek100.model
    assert (model.hidden_dim, model.num_layers, model.act_tokens, model.memory_queries) == (
        1024,
        4,
        4,
        10,
    )
    assert (model.mixup, model.label_smoothing, model.equalise_below) == (0.8, 0.1, 1.76e-3)
    own: Any = thumos.model
    assert own.ahead == (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


def test_each_ablation_of_clam_changes_what_it_says() -> None:
    base: Any = CLIP_RECIPES["clam-ek100"][1]
    names = [name for name in CLIP_RECIPES if name.startswith("clam-ek100-")]
    changed = [name for name in names if "history" not in name]
    assert len(changed) == len({to_text(CLIP_RECIPES[name][1].model) for name in changed})
    for name in changed:
        config = CLIP_RECIPES[name][1]
        assert config.model != base.model
        assert replace(config, model=base.model) == base


def to_text(value: object) -> str:
    return repr(to_json(value))
