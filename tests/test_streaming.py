import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from actioncast.inference import predict
from actioncast.models.base import Anticipator, Losses, RecurrentAnticipator
from actioncast.models.baselines import RepeatLastActionConfig
from actioncast.models.futr import FUTRConfig
from actioncast.models.online_baselines import OnlineGRUConfig, WindowTransformerConfig
from actioncast.streaming import StreamConfig, regroup, stream
from actioncast.timeline import Taxonomy
from actioncast.types import Observation, Prediction, Target, Task

TAXONOMY = Taxonomy.of(["cup", "pour", "stir", "drink"])
FEATURES, RATE = 6, 5.0
CHUNKS = [1, 3, 1000]


class Gru(RecurrentAnticipator[Tensor]):
    """Names every frame, and the last one's action for the whole horizon."""

    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})

    def __init__(self) -> None:
        super().__init__()
        self.taxonomy = TAXONOMY
        self.memory = nn.GRU(FEATURES, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def losses(self, x: Observation, y: Target) -> Losses:
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(1, batch_size, 8)

    def step(self, x: Observation, state: Tensor) -> tuple[list[Prediction], Tensor]:
        hidden, state = self.memory(x.features, state)
        probs = self.head(hidden).softmax(-1)
        horizon = int(x.horizon[0])
        return [
            Prediction(
                taxonomy=TAXONOMY,
                rate=x.rate,
                observed=x.frames_observed(0),
                past=probs[0],
                future=probs[0, -1:].repeat(horizon, 1) if horizon else None,
            )
        ], state

    def predict(self, x: Observation) -> list[Prediction]:
        return self.step(x, self.initial_state(len(x)))[0]


class Watching(Anticipator):
    """Answers nothing of use, and keeps what it was shown."""

    tasks = frozenset({Task.SEGMENTATION})

    def __init__(self) -> None:
        super().__init__()
        self.taxonomy = TAXONOMY
        self.shown: list[Observation] = []

    def losses(self, x: Observation, y: Target) -> Losses:
        raise NotImplementedError

    def predict(self, x: Observation) -> list[Prediction]:
        self.shown.append(x)
        past = torch.eye(4)[torch.zeros(x.features.shape[1], dtype=torch.long)]
        return [
            Prediction(taxonomy=TAXONOMY, rate=x.rate, observed=x.frames_observed(0), past=past)
        ]


def frames(num: int) -> Tensor:
    return torch.randn(num, FEATURES, generator=torch.Generator().manual_seed(0))


def numbered(num: int) -> Tensor:
    return torch.arange(float(num))[:, None].repeat(1, FEATURES)


def gru() -> Gru:
    torch.manual_seed(0)
    return Gru()


def futr() -> Anticipator:
    torch.manual_seed(0)
    config = FUTRConfig(feature_dim=FEATURES, hidden_dim=8, num_heads=2, max_positions=60)
    return config.build(TAXONOMY)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(("stride", "step"), [(1, 1.0), (1, 0.2), (5, 1.0), (2, 2.0)])
def test_steps_equal_the_whole_video_at_once(chunk: int, stride: int, step: float) -> None:
    model, features = gru(), frames(33)
    config = StreamConfig(step=step, horizon=2.0)
    answers = list(stream(model, features.split(chunk), RATE, config, stride))
    x = replace(
        Observation.of_one(features[::stride], RATE, 10),
        stride=stride,
        observed=torch.tensor([33]),
    )
    (whole,) = predict(model, x)
    assert whole.past is not None
    past = torch.cat([answer.past for answer in answers if answer.past is not None])
    torch.testing.assert_close(past, whole.past)
    torch.testing.assert_close(answers[-1].future, whole.future)
    assert answers[-1].now == pytest.approx(33 / RATE)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_answers_come_every_step_whatever_the_chunks(chunk: int) -> None:
    for model in (gru(), futr()):
        answers = list(stream(model, frames(33).split(chunk), RATE, StreamConfig(step=2.0)))
        assert [answer.now for answer in answers] == pytest.approx([2.0, 4.0, 6.0, 6.6])
        assert [len(answer.future) for answer in answers if answer.future is not None] == [50] * 4


def test_a_memory_answers_about_the_frames_since_its_last_answer() -> None:
    answers = list(stream(gru(), frames(12).split(12), RATE, StreamConfig()))
    assert [answer.start for answer in answers] == pytest.approx([0.0, 1.0, 2.0])
    assert [answer.observed for answer in answers] == [5, 5, 2]


def test_a_window_answers_about_all_its_frames() -> None:
    config = StreamConfig(window=2.0, step=1.0)
    answers = list(stream(futr(), frames(22).split(4), RATE, config))
    assert [answer.start for answer in answers] == pytest.approx([0.0, 0.0, 1.0, 2.0, 2.4])
    assert [answer.observed for answer in answers] == [5, 10, 10, 10, 10]
    for answer in answers:
        assert answer.past is not None
        assert len(answer.past) == answer.observed


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("stride", [1, 3])
def test_a_window_is_answered_as_if_cut_from_the_video(chunk: int, stride: int) -> None:
    model, features = futr(), frames(40)
    config = StreamConfig(window=4.0, step=1.4, horizon=3.0)
    for answer in stream(model, features.split(chunk), RATE, config, stride):
        now, start = round(answer.now * RATE), round(answer.start * RATE)
        assert start % stride == 0
        x = replace(
            Observation.of_one(features[start:now:stride], RATE, 15),
            stride=stride,
            observed=torch.tensor([now - start]),
        )
        (whole,) = predict(model, x)
        torch.testing.assert_close(answer.past, whole.past)
        torch.testing.assert_close(answer.future, whole.future)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("stride", [2, 3, 7])
def test_only_frames_on_the_grid_of_the_video_are_read(chunk: int, stride: int) -> None:
    model = Watching()
    config = StreamConfig(window=2.2, step=0.8, horizon=0.0)
    answers = list(stream(model, numbered(50).split(chunk), RATE, config, stride))
    assert len(answers) == 13
    for x, answer in zip(model.shown, answers, strict=True):
        now, start = round(answer.now * RATE), round(answer.start * RATE)
        assert now - start == answer.observed <= 11
        assert x.features[0, :, 0].tolist() == list(range(start, now, stride))
        assert answer.past is not None
        assert len(answer.past) == answer.observed


def test_empty_chunks_are_no_news() -> None:
    some, nothing = frames(10), torch.zeros(0, FEATURES)
    chunks = [nothing, some[:4], nothing, nothing, some[4:], nothing]
    answers = list(stream(gru(), chunks, RATE, StreamConfig()))
    plain = list(stream(gru(), [some], RATE, StreamConfig()))
    assert len(answers) == len(plain) == 2
    torch.testing.assert_close(answers[1].past, plain[1].past)
    assert not list(stream(gru(), [nothing], RATE, StreamConfig()))
    assert not list(stream(gru(), [], RATE, StreamConfig()))


def test_an_answer_comes_as_soon_as_its_step_is_full() -> None:
    taken = []

    def live() -> Iterator[Tensor]:
        for i, frame in enumerate(frames(20).split(1)):
            taken.append(i)
            yield frame

    for n, _ in enumerate(stream(futr(), live(), RATE, StreamConfig()), 1):
        assert len(taken) == 5 * n


def test_memory_stays_flat() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def live() -> Iterator[Tensor]:
        nonlocal most
        for _ in range(3000):
            chunk = torch.zeros(1, FEATURES)
            alive.append(weakref.ref(chunk))
            yield chunk
            most = max(most, sum(ref() is not None for ref in alive[-200:]))

    model = Watching()
    config = StreamConfig(window=4.0, step=1.0, horizon=0.0)
    for _ in stream(model, live(), RATE, config):
        (x,) = model.shown
        assert x.features.untyped_storage().nbytes() <= 25 * FEATURES * 4
        model.shown.clear()
    assert most <= 7
    assert not any(ref() for ref in alive)


def test_a_long_chunk_is_not_kept_by_its_slices() -> None:
    pieces = list(regroup([frames(100)], 30))
    assert [len(piece) for piece in pieces] == [30, 30, 30, 10]
    assert all(p.untyped_storage().nbytes() == p.numel() * 4 for p in pieces)
    torch.testing.assert_close(torch.cat(pieces), frames(100))


def test_a_stream_does_not_train() -> None:
    model = futr().train()
    first = next(stream(model, [frames(5)], RATE, StreamConfig()))
    assert not model.training
    again = next(stream(model, [frames(5)], RATE, StreamConfig()))
    torch.testing.assert_close(first.future, again.future)
    assert not torch.is_inference_mode_enabled()


def test_one_model_serves_two_streams() -> None:
    model, features = gru(), frames(20)
    alone = list(stream(model, [features], RATE, StreamConfig()))
    one = stream(model, [features], RATE, StreamConfig())
    two = stream(model, [features.flip(0)], RATE, StreamConfig())
    mixed = [answer for answer, _ in zip(one, two, strict=True)]
    for a, b in zip(alone, mixed, strict=True):
        torch.testing.assert_close(a.past, b.past)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"step": 5.0, "window": 2.0}, r"step must be at most window, got step 5 s and window 2 s"),
        ({"step": 0.0}, "window and step must be positive"),
        ({"window": -1.0}, "window and step must be positive"),
        ({"horizon": -1.0}, "horizon must not be negative"),
    ],
)
def test_wrong_configurations_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamConfig(**wrong)


# Bad frames


BAD = pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
SKIPPING = StreamConfig(step=1.0, bad_frames="skip")


def spoilt(num: int, *which: int, bad: float = float("nan")) -> Tensor:
    features = frames(num)
    for i in which:
        features[i, i % FEATURES] = bad
    return features


@BAD
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("stride", [1, 5])
def test_a_bad_frame_is_refused_by_its_number(chunk: int, bad: float, stride: int) -> None:
    features = spoilt(33, 20, bad=bad)
    for model in (gru(), futr()):
        answers = stream(model, features.split(chunk), RATE, StreamConfig(), stride)
        for _ in range(4):
            next(answers)
        with pytest.raises(ValueError, match=r"frame 20 holds NaN or infinity; mend"):
            next(answers)


def test_a_bad_frame_that_no_step_reads_is_no_matter() -> None:
    for model in (gru(), futr()):
        assert len(list(stream(model, [spoilt(20, 3, 11)], RATE, StreamConfig(), 5))) == 4


@BAD
@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_memory_leaves_skipped_frames_out(chunk: int, bad: float) -> None:
    model, features = gru(), spoilt(20, 2, 3, 9, 10, bad=bad)
    with pytest.warns(UserWarning, match="NaN or infinity"):
        answers = list(stream(model, features.split(chunk), RATE, SKIPPING))
    good = features.isfinite().all(1)
    (whole,) = predict(model, Observation.of_one(features[good], RATE, 50))
    assert whole.past is not None
    past = torch.cat([answer.past for answer in answers if answer.past is not None])
    torch.testing.assert_close(past[good], whole.past)
    torch.testing.assert_close(past[[2, 3, 9, 10]], past[[1, 1, 8, 8]])
    torch.testing.assert_close(answers[-1].future, whole.future)
    assert [answer.now for answer in answers] == pytest.approx([1.0, 2.0, 3.0, 4.0])


def test_before_the_first_good_frame_no_action_is_named() -> None:
    with pytest.warns(UserWarning, match="skipped"):
        answers = list(stream(gru(), [spoilt(10, *range(5), 5)], RATE, SKIPPING))
    assert answers[0].past is not None
    assert answers[1].past is not None
    assert not answers[0].past.any()
    assert not answers[1].past[0].any()
    assert answers[1].past[1:].sum(1).tolist() == pytest.approx([1.0] * 4)


def test_a_piece_of_bad_frames_has_the_answer_before_it() -> None:
    with pytest.warns(UserWarning, match="skipped the last 5 frame"):
        first, second = stream(gru(), [spoilt(10, *range(5, 10))], RATE, SKIPPING)
    torch.testing.assert_close(second.past, first.past[-1:].expand(5, -1))  # type: ignore[index]
    torch.testing.assert_close(second.future, first.future)
    assert second.now == pytest.approx(2.0)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_an_outage_is_named_where_it_begins_and_where_it_ends(chunk: int) -> None:
    for model in (gru(), futr()):
        with pytest.warns(UserWarning, match="frame") as caught:
            list(stream(model, spoilt(20, 2, 3, 9, 19).split(chunk), RATE, SKIPPING))
        said = [str(one.message).split(";")[0] for one in caught]
        begins = "holds NaN or infinity"
        assert said == [
            f"frame 2 (0.4 s) {begins}",
            "frame 4 (0.8 s) is good again",
            f"frame 9 (1.8 s) {begins}",
            "frame 10 (2.0 s) is good again",
            f"frame 19 (3.8 s) {begins}",
            "skipped the last 1 frame(s) of the stream.",
        ]
        assert "skipped 2 frame(s) before it" in str(caught[1].message)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("stride", [1, 3])
def test_in_a_window_the_last_good_frame_stands_for_a_bad_one(chunk: int, stride: int) -> None:
    model, features = Watching(), numbered(30)
    features[[0, 9, 12, 15]] = float("nan")
    config = StreamConfig(window=4.0, step=1.4, horizon=0.0, bad_frames="skip")
    with pytest.warns(UserWarning, match="skipped"):
        list(stream(model, features.split(chunk), RATE, config, stride))
    # At a stride of 3 the frame read before is three earlier.
    stands = {0: 0, 9: 9 - stride, 12: 12 - stride, 15: 15 - stride}
    if stride == 3:
        stands |= {12: 6, 15: 6}
    seen = {int(v) for x in model.shown for v in x.features[0, :, 0]}
    assert not seen & {9, 12, 15}
    last = model.shown[-1]
    start = round(30 - 20 - (30 - 20) % -stride) if stride > 1 else 10
    expected = [stands.get(i, i) for i in range(start, 30, stride)]
    assert last.features[0, :, 0].tolist() == expected
    assert features[9].isnan().all()


# Moments ahead, and states that are kept


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_model_of_moments_ahead_names_them_at_the_last_step(chunk: int) -> None:
    torch.manual_seed(0)
    sizes = {"feature_dim": FEATURES, "hidden_dim": 8, "ahead": (1.0, 2.0)}
    models = (
        OnlineGRUConfig(**sizes).build(TAXONOMY),
        WindowTransformerConfig(**sizes, num_heads=2).build(TAXONOMY),
    )
    for model in models:
        features = frames(12)
        answers = list(stream(model, features.split(chunk), RATE, StreamConfig()))
        x = replace(Observation.of_one(features, RATE), ahead=(1.0, 2.0))
        (whole,) = predict(model, x)
        for answer, end in zip(answers, (5, 10, 12), strict=True):
            assert answer.ahead is not None
            assert answer.ahead.shape == (1, 2, 4)
            torch.testing.assert_close(answer.ahead[0], whole.ahead[end - 1])  # type: ignore[index]


def test_a_stream_goes_on_from_a_state_that_was_kept() -> None:
    model, features, kept = gru(), frames(20), []
    whole = list(stream(model, [features], RATE, StreamConfig(), after=kept.append))
    rest = stream(model, [features[10:]], RATE, StreamConfig(), first=kept[1])
    for answer, right in zip(rest, whole[2:], strict=True):
        torch.testing.assert_close(answer.past, right.past)
    with pytest.raises(ValueError, match="of models with a memory alone, got Watching"):
        stream(Watching(), [], RATE, StreamConfig(), after=kept.append)


def test_a_model_that_reads_labels_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="RepeatLastAction reads the labels of the past"):
        stream(RepeatLastActionConfig().build(TAXONOMY), [], RATE, StreamConfig())


def test_times_that_make_no_frames_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"say 0\.2 s or more"):
        stream(gru(), [], RATE, StreamConfig(step=0.05))
    with pytest.raises(ValueError, match=r"whole number of strides .* got 5 frames and stride 3"):
        stream(gru(), [], RATE, StreamConfig(), stride=3)
    with pytest.raises(ValueError, match="window must be at least one stride, got 5 frames"):
        stream(futr(), [], RATE, StreamConfig(window=1.0), stride=6)
    with pytest.raises(ValueError, match="rate must be positive and stride at least 1"):
        stream(futr(), [], RATE, StreamConfig(), stride=0)


@pytest.mark.parametrize("chunk", [torch.zeros(FEATURES), torch.zeros(2, FEATURES + 1)])
def test_chunks_of_another_shape_are_refused(chunk: Tensor) -> None:
    chunks = [frames(3), chunk]
    with pytest.raises(ValueError, match=r"must have shape \(time, 6\), got"):
        list(stream(futr(), iter(chunks), RATE, StreamConfig()))
