"""What ActFusion and DiffAct must keep to whatever their weights are."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actioncast.data import Dataset, Split, Video
from actioncast.data.collate import collate, cut
from actioncast.features import FeatureArray
from actioncast.inference import InferenceConfig, answers
from actioncast.layers.frame_masks import Masking
from actioncast.models.actfusion import ActFusion, ActFusionConfig
from actioncast.models.diffact import DiffAct, DiffActConfig
from actioncast.models.diffusion import DiffusionAnticipator
from actioncast.protocols import HorizonSource, LongTerm, Question
from actioncast.timeline import LabelSpace, Taxonomy, Timeline
from actioncast.types import IGNORE, Observation, Prediction, Target

LABELS = LabelSpace(tuple("abcde"))
SIZES: dict[str, Any] = {
    "feature_dim": 6,
    "encoder_layers": 3,
    "encoder_dim": 8,
    "decoder_layers": 2,
    "decoder_dim": 8,
    "condition_layers": (1, 2),
    "step_dim": 16,
    "inference_steps": 4,
    "boundary_sigma": 2.0,
}
KINDS: dict[str, Any] = {
    "actfusion": ActFusionConfig,
    "diffact": DiffActConfig,
    "zero token": lambda **v: ActFusionConfig(token="zero", **v),
    "token in denoiser": lambda **v: ActFusionConfig(token_in="denoiser", **v),
    "features past the token": lambda **v: ActFusionConfig(
        token_in="denoiser", condition_features=True, **v
    ),
    "embedding": lambda **v: ActFusionConfig(positions="embedding", **v),
    "absolute": lambda **v: ActFusionConfig(positions="absolute", max_positions=80, **v),
    "features": lambda **v: ActFusionConfig(
        condition_features=True, condition_predictions=True, reconstruction_weight=1.0, **v
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def model_of(kind: str = "actfusion", **values: Any) -> DiffusionAnticipator:
    torch.manual_seed(0)
    model: DiffusionAnticipator = KINDS[kind](**{**SIZES, **values}).build(
        Taxonomy({"action": LABELS})
    )
    return model.eval()


def actfusion(**values: Any) -> ActFusion:
    model = model_of("actfusion", **values)
    assert isinstance(model, ActFusion)
    return model


def observed(steps: int, horizon: int = 0, **values: Any) -> Observation:
    features = torch.randn(steps, 6, generator=torch.Generator().manual_seed(steps))
    return replace(Observation.of_one(features, 10.0, horizon), **values)


def only(predictions: list[Prediction]) -> Prediction:
    (prediction,) = predictions
    return prediction


def future(prediction: Prediction) -> Tensor:
    assert prediction.future is not None
    return prediction.future


def past(prediction: Prediction) -> Tensor:
    assert prediction.past is not None
    return prediction.past


def test_hiding_a_frame_changes_no_visible_one() -> None:
    """What the encoder's first layer reads of visible frames is what it reads without a mask."""
    model = actfusion()
    features = torch.randn(1, 40, 6)
    visible = torch.rand(1, 40, generator=torch.Generator().manual_seed(1)) < 0.5
    with torch.no_grad():
        masked = model.encoder._embedded(features, visible, model.token)
        whole = model.encoder._embedded(features, None, None)
        alone = model.encoder._embedded(model.token.expand(1, 40, 6), None, None)
    torch.testing.assert_close(masked[..., visible[0]], whole[..., visible[0]])
    torch.testing.assert_close(masked[..., ~visible[0]], alone[..., ~visible[0]])


@every_kind
def test_nothing_hidden_is_segmentation(kind: str) -> None:
    model, features = model_of(kind), torch.randn(1, 30, 6)
    with torch.no_grad():
        seen = model.encode(features, torch.ones(1, 30, dtype=torch.bool))
        denoised = model.denoise(seen.condition, model.settings.seed)
    x = Observation(
        features=features,
        valid=torch.ones(1, 30, dtype=torch.bool),
        rate=10.0,
        horizon=torch.tensor([0]),
    )
    alone = past(only(model.predict(x)))
    # Asked for nothing beyond what is seen, and told so.
    asked = replace(x, horizon=torch.tensor([5]), video_length=torch.tensor([30]), stride=1)
    torch.testing.assert_close(alone, denoised[0].T)
    told = replace(asked, observed=torch.tensor([25]))
    both = only(model.predict(told))
    torch.testing.assert_close(torch.cat([past(both)[:25], future(both)]), alone)


@every_kind
def test_what_is_hidden_has_no_say(kind: str) -> None:
    model, features = model_of(kind), torch.randn(1, 20, 6)
    visible = torch.arange(20)[None] < 12
    changed = features.masked_fill(~visible[..., None], 100.0)
    if isinstance(model, DiffAct):
        # Its encoder sees what training hides; what is to come is not handed to it at all.
        features, changed = features[:, :12], changed[:, :12]
    with torch.no_grad():
        one, two = model.encode(features, visible), model.encode(changed, visible)
    torch.testing.assert_close(one.condition, two.condition, atol=0.0, rtol=0.0)


@every_kind
@pytest.mark.parametrize("source", list(HorizonSource))
def test_frames_after_the_boundary_change_nothing(kind: str, source: HorizonSource) -> None:
    """Through inference, offsets averaged: permuted features and labels after the boundary."""
    model = model_of(kind)
    protocol = LongTerm(horizon_source=source, multiple=2.0, seconds=2.0)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 6)).astype(np.float32)
    video = annotated(features, np.repeat([0, 1, 2, 3, 4], 10))
    question = protocol.question(50, 0.3, 10.0)
    after = np.concatenate([np.arange(15), 15 + rng.permutation(35)])
    other = annotated(features[after], np.repeat([0, 1, 2, 3, 4], 10)[after])
    for stride, offsets in ((1, False), (4, True)):
        running = InferenceConfig(stride=stride, offsets=offsets)
        ((_, one),) = answers(model, [(video, question)], running)
        ((_, two),) = answers(model, [(other, question)], running)
        assert future(one.prediction).equal(future(two.prediction))
        assert past(one.prediction).equal(past(two.prediction))


@every_kind
def test_without_the_leak_the_true_length_changes_nothing(kind: str) -> None:
    model = model_of(kind)
    protocol = LongTerm(horizon_source=HorizonSource.OBSERVED_MULTIPLE)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 6)).astype(np.float32)
    labels = np.repeat([0, 1, 2, 3, 4, 0], 10)
    found = []
    for length in (20, 33, 60):
        question = replace(protocol.question(60, 0.2, 10.0), observed=12)
        video = annotated(features[:length], labels[:length])
        running = InferenceConfig(stride=3, offsets=True, postprocess="median", postprocess_size=3)
        ((_, answer),) = answers(model, [(video, question)], running)
        found.append(future(answer.prediction))
    assert all(one.equal(found[0]) for one in found)
    assert len(found[0]) == 4 * 12


def test_with_the_leak_it_changes_as_published() -> None:
    model = actfusion()
    x = observed(12, 6, video_length=torch.tensor([30]))
    longer = replace(x, video_length=torch.tensor([40]))
    assert not future(only(model.predict(x))).equal(future(only(model.predict(longer))))
    model = actfusion(to_the_end=False)
    assert future(only(model.predict(x))).equal(future(only(model.predict(longer))))


def annotated(features: np.ndarray, labels: np.ndarray) -> Video:
    return Video(
        id="v",
        timeline=Timeline.from_frames(labels, 10.0, LABELS),
        rate=10.0,
        num_frames=len(labels),
        features=FeatureArray(features),
    )


def batch_of(lengths: tuple[int, ...], labels: int = 5) -> tuple[Observation, Target]:
    rng = np.random.default_rng(0)
    samples = [
        cut(
            annotated(
                rng.normal(size=(n, 6)).astype(np.float32), np.arange(n) * labels // max(n, labels)
            ),
            Question(observed=n),
            1,
            5,
        )
        for n in lengths
    ]
    return collate(samples, "action")


@every_kind
def test_a_batch_loses_what_its_videos_lose_one_by_one(kind: str) -> None:
    model = model_of(kind)
    x, y = batch_of((9, 21, 14))
    steps, noise = torch.tensor([5, 500, 990]), torch.randn(3, 5, 21)
    labels = y.frames["action"]
    boundaries = torch.rand(3, 21)
    visible = x.valid & (torch.rand(3, 21) < 0.6)
    together = model.video_losses(
        x.features, labels, boundaries, visible, steps, noise, valid=x.valid
    )
    alone = []
    for i, n in enumerate((9, 21, 14)):
        parts = (labels, boundaries, visible)
        alone.append(
            model.video_losses(
                x.features[i, None, :n],
                *(part[i, None, :n] for part in parts),
                steps[i, None],
                noise[i, None, :, :n],
            )
        )
    assert together.keys() == alone[0].keys()
    for name, loss in together.items():
        expected = torch.stack([one[name] for one in alone]).mean()
        torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    spoilt = x.features.masked_fill(~x.valid[..., None], 50.0)
    again = model.video_losses(spoilt, labels, boundaries, visible, steps, noise, valid=x.valid)
    for name, loss in together.items():
        torch.testing.assert_close(again[name], loss, atol=1e-6, rtol=1e-5)


def test_several_futures_come_from_several_seeds() -> None:
    # Untrained, all steps of denoising agree; a sharp head makes noise matter.
    model = actfusion(seed=3)
    with torch.no_grad():
        model.decoder.head.weight.mul_(40)
    x = observed(12, 10, num_samples=4)
    samples = only(model.predict(x)).samples
    assert samples is not None
    assert samples.shape == (4, 10)
    assert len({tuple(row.tolist()) for row in samples}) > 1
    second = actfusion(seed=5)
    second.load_state_dict(model.state_dict())
    assert future(only(second.predict(x))).argmax(1).equal(samples[1])


def test_the_encoder_can_answer_itself() -> None:
    x = observed(12, 10)
    model = actfusion(answer_of="encoder")
    found = only(model.predict(x))
    with torch.no_grad():
        visible = torch.arange(22)[None] < 12
        expected = model.encode(x.features, visible).logits.softmax(1)[0].T
    torch.testing.assert_close(past(found), expected[:12])
    torch.testing.assert_close(future(found), expected[12:])
    assert only(model.predict(replace(x, num_samples=2))).samples is None


MASKS = ("none", "all", "anticipative", "random", "boundary", "relation")


@every_kind
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("length", "labels"),
    [(1, 1), (2, 1), (2, 2), (7, 1), (70, 5)],
    ids=["one frame", "one action of two", "two frames", "one action", "long"],
)
def test_odd_videos_train_and_predict(kind: str, mask: Any, length: int, labels: int) -> None:
    """One action, shorter than the kernel, longer than any seen, all masked."""
    model = model_of(kind, masking=Masking(kinds=(mask,), num_clips=(3, 3))).train()
    x, y = batch_of((length, 3), labels)
    losses = model.losses(x, y)
    assert all(loss.isfinite() for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    for one in model.predict(replace(x, horizon=torch.tensor([9, 9]))):
        torch.testing.assert_close(past(one).sum(1), torch.ones(len(past(one))))
        torch.testing.assert_close(future(one).sum(1), torch.ones(9))


def test_frames_without_a_label_have_no_say_in_losses() -> None:
    model = actfusion()
    x, y = batch_of((20,))
    unknown = torch.arange(20)[None] >= 14
    labels = y.frames["action"].masked_fill(unknown, IGNORE)
    visible = torch.ones(1, 20, dtype=torch.bool)
    noise, step = torch.randn(1, 5, 20), torch.tensor([999])
    with torch.no_grad():
        # At the noisiest step what is diffused says nothing, so that only the counting differs.
        one = model.video_losses(x.features, labels, torch.zeros(1, 20), visible, step, noise)
        logits = model.encode(x.features, visible).logits[0, :, :14].T
    entropy = torch.nn.functional.cross_entropy(logits, labels[0, :14])
    torch.testing.assert_close(one["encoder_frames"], 0.5 * entropy)


def test_rectified_training_is_asked_beyond_the_end_and_learns_to_its_end() -> None:
    masking = Masking(kinds=("anticipative",), observed_ratios=(0.5,), future_multiple=4.0)
    model = actfusion(masking=masking)
    x, y = batch_of((20,))
    shown = model._shown(x, y, 0)
    assert len(shown.visible) == 50
    assert int(shown.visible.sum()) == 10
    assert len(shown.features) == 20
    assert (shown.labels[20:] == IGNORE).all()
    short = replace(masking, observed_ratios=(0.1,))
    cropped = actfusion(masking=short)._shown(x, y, 0)
    assert len(cropped.visible) == len(cropped.features) == len(cropped.labels) == 10
    assert all(loss.isfinite() for loss in model.losses(x, y).values())


def test_a_video_longer_than_absolute_positions_is_refused_with_what_to_do() -> None:
    model = model_of("absolute")
    with pytest.raises(ValueError, match="at most 80 steps, got 81; use a larger stride"):
        model.predict(observed(81))


def test_rare_labels_weigh_more_once_they_are_counted() -> None:
    model = actfusion(class_weights=True)
    labels = np.array([0] * 90 + [1] * 10)
    model.count([annotated(np.zeros((100, 6), np.float32), labels).counted()])
    expected = 100 / (5 * (torch.tensor([90.0, 10, 0, 0, 0]) + 10))
    torch.testing.assert_close(model.label_weights, expected)
    plain = actfusion()
    plain.count([annotated(np.zeros((100, 6), np.float32), labels).counted()])
    assert plain.label_weights.eq(1).all()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"encoder_taps": 4}, "encoder_taps must be odd, got 4"),
        ({"condition_layers": (9,)}, "condition_layers must be layers of the encoder, 0 to 2"),
        ({"condition_layers": ()}, "something must condition the denoiser"),
        ({"inference_steps": 2000}, "inference_steps must be at most num_steps"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"eta": 2.0}, r"eta must be within \[0, 1\]"),
        ({"step_dim": 7}, "step_dim must be even"),
        ({"class_weights": True, "soft_labels": 1.0}, "class_weights weigh hard labels"),
        ({"decoder_weight": -1.0}, "decoder_weight must not be negative"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any], sentence: str) -> None:
    for kind in (ActFusionConfig, DiffActConfig):
        with pytest.raises(ValueError, match=sentence):
            kind(**{**SIZES, **values})


def test_diffact_is_not_asked_for_what_has_no_features_in_training() -> None:
    with pytest.raises(ValueError, match="future_multiple must be 0 for DiffAct"):
        DiffActConfig(masking=Masking(future_multiple=4.0))


def test_targets_without_frames_are_refused() -> None:
    x, y = batch_of((9,))
    with pytest.raises(ValueError, match="ActFusion learns from the frames of head 'action'"):
        actfusion().losses(x, replace(y, frames={}))


def test_boundaries_are_made_on_the_videos_own_grid() -> None:
    """At a stride a boundary between two steps is as near to each as it is in the video."""
    model = actfusion(masking=Masking(kinds=("none",)), boundary_sigma=0.0)
    video = annotated(np.zeros((24, 6), np.float32), np.repeat([0, 1], 12))
    at_start, between = (
        collate([cut(video, Question(observed=24), 4, 5, first=first)], "action")
        for first in (0, 2)
    )
    assert model._shown(*at_start, 0).boundaries.tolist() == [0, 0, 0, 1, 0, 0]
    assert model._shown(*between, 0).boundaries.tolist() == [0] * 6


def test_a_dataset_of_one_split_goes_through_training_and_scoring(tmp_path: Any) -> None:
    """The whole way, whole videos and offsets, both tasks."""
    from actioncast.protocols import Segmentation
    from actioncast.scoring import evaluate_run
    from actioncast.training import Machine, TrainConfig, prepare, train_split

    rng = np.random.default_rng(0)
    videos = {}
    for i in range(6):
        labels = np.repeat(rng.permutation(5), rng.integers(8, 14, 5))
        features = np.eye(5)[labels] + 0.1 * rng.normal(size=(len(labels), 5))
        videos[f"v{i}"] = replace(annotated(features.astype(np.float32), labels), id=f"v{i}")
    dataset = Dataset(
        name="own",
        taxonomy=Taxonomy({"action": LABELS}),
        rate=10.0,
        videos=videos,
        splits={"1": Split(tuple(f"v{i}" for i in range(4)), ("v4", "v5"))},
    )
    config = TrainConfig(
        model=ActFusionConfig(**SIZES, class_weights=True),
        stride=2,
        offsets=True,
        observed_ratios=(1.0,),
        postprocess="median",
        postprocess_size=3,
        epochs=2,
        batch_size=2,
        optimizer="adam",
        schedule="constant",
        selection="test",
        select_by="both",
    )
    config, dataset = prepare(config, dataset)
    folder = train_split(config, dataset, "1", tmp_path / "split1", Machine(quiet=True))
    from actioncast.checkpoint import load_checkpoint
    from actioncast.runs import Loaded

    checkpoint = load_checkpoint(folder)
    assert isinstance(checkpoint.model, ActFusion)
    assert not checkpoint.model.label_weights.eq(1).all()
    loaded = [Loaded(checkpoint=checkpoint, dataset=dataset, split="1")]
    for protocol in (Segmentation(), LongTerm()):
        result = evaluate_run(loaded, protocol)
        assert result.passport.inference == "2 offsets averaged, median 3"
        assert all(0 <= value <= 100 for value in result.total.values())


def test_features_of_another_width_are_refused_with_what_to_do() -> None:
    model = actfusion()
    x = Observation.of_one(torch.zeros(9, 7), 10.0, 3)
    with pytest.raises(ValueError, match="features must be 6 wide, got 7; set feature_dim"):
        model.predict(x)


def test_frames_without_a_label_keep_their_place() -> None:
    """At the start and amid a video; alone and beside a longer one."""
    model = actfusion(masking=Masking(kinds=("none",)), boundary_sigma=0.0)
    x, y = batch_of((40, 50))
    labels = y.frames["action"].clone()
    labels[0, :5] = IGNORE
    labels[0, 18:22] = IGNORE
    spoilt = replace(y, frames={"action": labels})
    whole, gaps = model._shown(x, y, 0).boundaries, model._shown(x, spoilt, 0).boundaries
    assert len(gaps) == 40
    changes = whole.nonzero()[:, 0].tolist()
    kept = [t for t in changes if not (t < 5 or 17 <= t <= 22)]
    assert gaps.nonzero()[:, 0].tolist() == kept
    assert all(loss.isfinite() for loss in model.losses(x, spoilt).values())


def test_losses_of_what_was_hidden_count_nothing_else() -> None:
    x, y = batch_of((20,))
    visible = torch.arange(20)[None] < 12
    drawn = (x.features, y.frames["action"], torch.zeros(1, 20), visible)
    step, noise = torch.tensor([700]), torch.randn(1, 5, 20)
    hidden = actfusion(decoder_counts="hidden").video_losses(*drawn, step, noise)
    every = actfusion().video_losses(*drawn, step, noise)
    assert not hidden["decoder_frames"].isclose(every["decoder_frames"])
    torch.testing.assert_close(hidden["encoder_frames"], every["encoder_frames"])
    model = actfusion()
    with torch.no_grad():
        encoded = model.encode(x.features, visible)
        one_hot = torch.nn.functional.one_hot(y.frames["action"], 5)
        data = (2.0 * one_hot - 1).mT
        signal = model.signal[step].float()
        noisy = (signal.sqrt() * data + (1 - signal).sqrt() * noise).clamp(-1, 1) / 2 + 0.5
        projected = model.decoder.project(encoded.condition)
        logits = model.decoder(noisy, model.decoder.embed_steps(step), projected)[0].T
    entropy = torch.nn.functional.cross_entropy(logits[12:], y.frames["action"][0, 12:])
    torch.testing.assert_close(hidden["decoder_frames"], 0.5 * entropy, atol=1e-5, rtol=1e-4)


def test_samples_start_after_the_seed_of_the_answer() -> None:
    model = actfusion(seed=3)
    with torch.no_grad():
        model.decoder.head.weight.mul_(40)
        visible = torch.arange(22)[None] < 12
        x = observed(12, 10, num_samples=2)
        condition = model.encode(x.features, visible).condition
        expected = [model.denoise(condition, seed)[0].argmax(0)[12:] for seed in (4, 5)]
    samples = only(model.predict(x)).samples
    assert samples is not None
    assert all(one.equal(other) for one, other in zip(samples, expected, strict=True))
