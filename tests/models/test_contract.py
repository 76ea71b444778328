"""What every model must do; a model added to `MODELS` is tested here without a change."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actioncast.checkpoint import load_checkpoint, save_checkpoint
from actioncast.data import Dataset, SyntheticConfig, Video, synthetic_dataset
from actioncast.data.collate import collate, cut
from actioncast.inference import InferenceConfig, answers
from actioncast.models import MODELS, ModelConfig
from actioncast.models.base import Anticipator, ClipCounter, CountingAnticipator
from actioncast.protocols import LongTerm, Question
from actioncast.trunks.config import TrunkConfig
from actioncast.types import Observation, Target, Task

SMALLER: dict[str, Any] = {
    "hidden_dim": 16,
    "num_heads": 2,
    "num_queries": 5,
    "max_positions": 300,
    "num_draws": 16,
    "encoder_layers": 3,
    "encoder_dim": 8,
    "decoder_layers": 2,
    "decoder_dim": 8,
    "decoder_taps": 5,
    "condition_layers": (1, 2),
    "step_dim": 16,
    "inference_steps": 4,
    "modalities": (),
    "state_dim": 4,
    "window": 6,
    "memory_queries": 3,
    "predictor_dim": 32,
    "predictor_layers": 2,
    "gate_rank": 4,
}
"""Values that make a config tiny, where it has such a field."""
SMALLER_OF: dict[str, dict[str, Any]] = {
    "actionllm": {
        "trunk": TrunkConfig(name="untrained:llama-tiny"),
        "modalities": "both",
        "adapter_dim": 16,
        "interaction_dim": 16,
        "interaction_heads": 2,
        "interaction_multiple": 16,
    },
    "mm-ant": {"encoder": "hash:8", "text_dim": 8},
}
"""Values of single models besides."""
# A bias moves a whole channel alike, that of values but for the millionth of a share that taps
# outside the video take, and the norm that follows takes a channel's mean away.
BEFORE_A_NORM = {
    f"{part}.layers.{i}.{name}.bias"
    for part, layers in (("encoder", 3), ("decoder", 2))
    for i in range(layers)
    for name in ("conv", "value")
}
NO_GRADIENT = {
    # A bias moves all raw durations alike, and they are normalised by a softmax.
    "futr": {"duration_head.bias"},
    "mm-ant": {"duration_head.bias"},
    # The memory's queries first look at one another across a stream of zeros, as in any decoder
    # whose positions are separate: what they find is one constant.
    "clam": {
        "memory.layers.0.mix.project.weight",
        "memory.layers.0.mix.out.weight",
        "memory.layers.0.mix_norm.weight",
    },
    "actfusion": BEFORE_A_NORM,
    "diffact": BEFORE_A_NORM,
    # What leads into a bottleneck waits for what leads out of it, which begins at zero.
    "actionllm": {f"tuning.{i}.down.{kind}" for i in range(2) for kind in ("weight", "bias")},
}
"""Parameters whose gradient is zero by analysis."""
# Of a model this small a step size comes from one number near zero, times others near zero.
LEAST_GRADIENT = {"mamba-vl": 1e-9}
"""What counts as a gradient, where it is not 1e-7."""
NEAR = {"atol": 1e-5, "rtol": 1e-4}

each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    made = synthetic_dataset(SyntheticConfig(num_videos=24, num_people=6, num_splits=3))
    features = {name: video.features for name, video in made.videos.items()}
    labelled = made.with_label_input(_true())
    # Features tell of the actions but are not the labels; labels stand beside them.
    videos = {n: replace(v, features=features[n]) for n, v in labelled.videos.items()}
    return replace(labelled, videos=videos)


def _true() -> Any:
    from actioncast.data import LabelInput

    return LabelInput()


def config_of(name: str, dataset: Dataset) -> ModelConfig:
    kind: Any = MODELS[name]
    known = set(kind.__dataclass_fields__)
    values = {key: value for key, value in SMALLER.items() if key in known}
    values |= SMALLER_OF.get(name, {})
    if "feature_dim" in known:
        values["feature_dim"] = dataset.num_features
    made: ModelConfig = kind(**values)
    return made


def model_of(name: str, dataset: Dataset) -> Anticipator:
    torch.manual_seed(0)
    model = config_of(name, dataset).build(dataset.taxonomy)
    if isinstance(model, CountingAnticipator):
        model.fit([video.counted() for video in seen(dataset)])
    if isinstance(model, ClipCounter):
        model.fit_clips([batch(dataset, videos=seen(dataset))])
    return model.eval()


def seen(dataset: Dataset) -> list[Video]:
    return dataset.select(dataset.split("1").train)


def unseen(dataset: Dataset) -> list[Video]:
    return dataset.select(dataset.split("1").test)


def batch(
    dataset: Dataset, stride: int = 1, videos: Sequence[Video] = (), horizon: bool = True
) -> tuple[Observation, Target]:
    chosen = list(videos) or unseen(dataset)[:4]
    asked = [LongTerm().question(v.num_frames, 0.3, v.rate) for v in chosen]
    if not horizon:
        asked = [Question(observed=q.observed) for q in asked]
    samples = [
        cut(video, question, stride, len(dataset.taxonomy.labels))
        for video, question in zip(chosen, asked, strict=True)
    ]
    x, y = collate(samples, dataset.taxonomy.primary)
    following = [int(v.frames()[q.observed]) for v, q in zip(chosen, asked, strict=True)]
    return x, replace(y, next={dataset.taxonomy.primary: torch.tensor(following)})


@each_model
def test_losses_are_finite_and_reach_every_parameter(name: str, dataset: Dataset) -> None:
    model = model_of(name, dataset).train()
    x, y = batch(dataset, videos=seen(dataset)[:6])
    losses = model.losses(x, y)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if isinstance(model, CountingAnticipator | ClipCounter):
        assert not losses
        assert not parameters
        return
    assert losses
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    least = LEAST_GRADIENT.get(name, 1e-7)
    reached = {
        n for n, p in parameters.items() if p.grad is not None and p.grad.abs().max() > least
    }
    assert parameters.keys() - reached == NO_GRADIENT.get(name, set())


@each_model
def test_it_learns_one_batch(name: str, dataset: Dataset) -> None:
    model = model_of(name, dataset)
    if isinstance(model, CountingAnticipator | ClipCounter):
        pytest.skip("a counting model has nothing to descend")
    x, y = batch(dataset)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def drawn_loss(seed: int) -> torch.Tensor:
        """Of one draw of whatever a model draws in training."""
        torch.manual_seed(seed)
        return torch.stack(list(model.losses(x, y).values())).sum()

    first = drawn_loss(0).item()
    for step in range(40):
        optimizer.zero_grad()
        drawn_loss(step).backward()
        optimizer.step()
    assert drawn_loss(0).item() < 0.5 * first


@each_model
@pytest.mark.parametrize("stride", [1, 3])
def test_it_answers_its_tasks_and_no_other(name: str, stride: int, dataset: Dataset) -> None:
    model = model_of(name, dataset)
    assert model.tasks <= frozenset(Task)
    assert model.tasks
    x, _ = batch(dataset, stride)
    num_labels = len(dataset.taxonomy.labels)
    predictions = model.predict(x)
    assert len(predictions) == len(x)
    for i, prediction in enumerate(predictions):
        assert prediction.observed == x.frames_observed(i)
        assert prediction.rate == x.rate
        assert (prediction.past is not None) == (Task.SEGMENTATION in model.tasks)
        assert (prediction.future is not None) == (Task.LONG_TERM in model.tasks)
        assert (prediction.next is not None) == (Task.NEXT_ACTION in model.tasks)
        assert prediction.samples is None
        if prediction.past is not None:
            assert prediction.past.shape == (int(x.valid[i].sum()), num_labels)
            assert_probabilities(prediction.past)
        if prediction.future is not None:
            assert prediction.future.shape == (int(x.horizon[i]), num_labels)
            assert_probabilities(prediction.future)
        for head, probs in (prediction.next or {}).items():
            assert probs.shape == (len(dataset.taxonomy.heads[head]),)
            assert_probabilities(probs[None])


def assert_probabilities(rows: torch.Tensor) -> None:
    """Rows sum to 1, or name nothing."""
    sums = rows.sum(-1)
    assert (rows >= 0).all()
    assert (torch.isclose(sums, torch.ones(()), atol=1e-4) | (sums == 0)).all()


@each_model
def test_a_question_without_a_horizon_has_no_future(name: str, dataset: Dataset) -> None:
    model = model_of(name, dataset)
    x, _ = batch(dataset, horizon=False)
    if model.tasks == {Task.LONG_TERM}:
        pytest.skip("nothing else to answer")
    for prediction in model.predict(x):
        assert prediction.future is None or len(prediction.future) == 0


@each_model
def test_samples_are_drawn_where_asked_and_the_same_again(name: str, dataset: Dataset) -> None:
    model = model_of(name, dataset)
    if Task.LONG_TERM not in model.tasks:
        pytest.skip("no future to draw")
    x, _ = batch(dataset)
    x = replace(x, num_samples=3)
    first, again = model.predict(x), model.predict(x)
    for i, (one, two) in enumerate(zip(first, again, strict=True)):
        if one.samples is None:
            assert two.samples is None
            continue
        assert two.samples is not None
        assert one.samples.shape == (3, int(x.horizon[i]))
        assert one.samples.equal(two.samples)
        assert (one.samples < len(dataset.taxonomy.labels)).all()


@each_model
def test_same_input_same_answer_whatever_the_global_seed(name: str, dataset: Dataset) -> None:
    model = model_of(name, dataset)
    x, _ = batch(dataset)
    torch.manual_seed(1)
    np.random.seed(1)
    first = model.predict(x)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    np.random.seed(2)
    again = model.predict(x)
    for one, two in zip(first, again, strict=True):
        assert_equal(one, two)
    torch.manual_seed(1)
    assert state.equal(torch.get_rng_state()), "predict must not draw from the global generator"


@each_model
def test_padding_and_batch_change_nothing(name: str, dataset: Dataset) -> None:
    model = model_of(name, dataset)
    x, _ = batch(dataset, stride=2)
    assert not x.valid.all(), "the batch must hold padding for this test to mean something"
    together = model.predict(x)
    alone = [model.predict(one)[0] for one in x]
    spoilt = replace(x, features=x.features.masked_fill(~x.valid[..., None], 7.0))
    noisy = model.predict(spoilt)
    for one, two, three in zip(together, alone, noisy, strict=True):
        assert_equal(one, two, **NEAR)
        assert_equal(one, three, **NEAR)


def assert_equal(one: Any, two: Any, **tolerance: float) -> None:
    close = tolerance or {"atol": 0.0, "rtol": 0.0}
    assert one.observed == two.observed
    for field in ("past", "future"):
        a, b = getattr(one, field), getattr(two, field)
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **close)
    for head in one.next or {}:
        torch.testing.assert_close(one.next[head], two.next[head], **close)


@each_model
def test_what_is_saved_answers_as_before(name: str, dataset: Dataset, tmp_path: Path) -> None:
    model = model_of(name, dataset)
    config = config_of(name, dataset)
    save_checkpoint(tmp_path / name, name, model, config, {"recipe": "test"})
    loaded = load_checkpoint(tmp_path / name)
    assert loaded.name == name
    assert loaded.model.config == config
    assert not loaded.model.training
    x, _ = batch(dataset)
    for one, two in zip(model.predict(x), loaded.model.predict(x), strict=True):
        assert_equal(one, two)


@each_model
@pytest.mark.parametrize("stride", [1, 3])
def test_it_answers_through_inference_on_the_videos_grid(
    name: str, stride: int, dataset: Dataset
) -> None:
    model = model_of(name, dataset)
    videos = unseen(dataset)[:5]
    protocol = LongTerm()
    asked = [(v, protocol.question(v.num_frames, 0.3, v.rate)) for v in videos]
    found = dict(answers(model, asked, InferenceConfig(stride=stride, batch_size=2)))
    assert sorted(found) == list(range(len(videos)))
    for i, (video, question) in enumerate(asked):
        prediction = found[i].prediction
        assert found[i].video is video
        assert prediction.observed == question.observed
        if prediction.past is not None:
            assert len(prediction.past) == question.observed
        if prediction.future is not None:
            assert len(prediction.future) == question.horizon
            end = (question.observed + question.horizon) / video.rate
            assert prediction.timeline().end <= end + 1e-9
        assert prediction.now == pytest.approx(question.observed / video.rate)


@each_model
def test_the_future_cannot_leak(name: str, dataset: Dataset) -> None:
    """What comes after the cut changes no answer: the observation does not hold it."""
    model = model_of(name, dataset)
    video = unseen(dataset)[0]
    question = LongTerm().question(video.num_frames, 0.3, video.rate)
    frames = video.frames().copy()
    frames[question.observed :] = (frames[question.observed :] + 1) % len(dataset.taxonomy.labels)
    timeline = type(video.timeline).from_frames(frames, video.rate, dataset.taxonomy.labels)
    changed = replace(video, timeline=timeline)
    running = InferenceConfig()
    ((_, one),) = answers(model, [(video, question)], running)
    ((_, two),) = answers(model, [(changed, question)], running)
    assert_equal(one.prediction, two.prediction)


def looks_ahead(model: Anticipator, x: Observation) -> bool:
    """Whether other features of the later half of the steps, or none, move an earlier answer."""
    half = x.features.shape[1] // 2
    generator = torch.Generator().manual_seed(0)
    other = x.features.clone()
    other[:, half:] = torch.randn(other[:, half:].shape, generator=generator)
    shorter = replace(
        x, features=x.features[:, :half], valid=x.valid[:, :half], labels=None, observed=None
    )
    (whole,), (changed,), (cut_off,) = (
        model.predict(replace(one, horizon=torch.zeros_like(x.horizon), video_length=None))
        for one in (replace(x, labels=None), replace(x, features=other, labels=None), shorter)
    )
    assert whole.past is not None
    assert changed.past is not None
    assert cut_off.past is not None
    pairs = [(whole.past[:half], changed.past[:half]), (whole.past[:half], cut_off.past)]
    return not all(torch.allclose(a, b, **NEAR) for a, b in pairs)


@each_model
def test_what_a_causal_model_says_of_a_step_never_depends_on_later_ones(
    name: str, dataset: Dataset
) -> None:
    model = model_of(name, dataset)
    if not model.causal:
        pytest.skip("it may look ahead")
    x, _ = batch(dataset, videos=seen(dataset)[:1])
    assert not looks_ahead(model, x)


def test_a_model_that_looks_ahead_is_caught(dataset: Dataset) -> None:
    """The test above can fail."""
    model = model_of("futr", dataset)
    x, _ = batch(dataset, videos=seen(dataset)[:1])
    assert not model.causal
    assert looks_ahead(model, x)


@each_model
def test_the_config_is_a_frozen_dataclass_with_sentences(name: str) -> None:
    kind = MODELS[name]
    config = kind()
    assert kind.__doc__
    with pytest.raises((AttributeError, TypeError)):
        config.__setattr__("seed", math.pi)
    with pytest.raises(TypeError):
        kind(1)  # type: ignore[call-arg]
