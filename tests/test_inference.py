from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actioncast.data import SyntheticConfig, Video, synthetic_dataset
from actioncast.features import FeatureArray
from actioncast.inference import InferenceConfig, answers
from actioncast.models.base import Anticipator, Losses
from actioncast.models.baselines import RepeatLastActionConfig
from actioncast.models.futr import FUTRConfig
from actioncast.postprocessing import median_filtered, restored
from actioncast.protocols import LongTerm, Question
from actioncast.timeline import Taxonomy, Timeline
from actioncast.types import Observation, Prediction, Target, Task

TAXONOMY = Taxonomy.of("abc")
Says = Callable[[torch.Tensor, int], torch.Tensor]


def video(num_frames: int) -> Video:
    """A video whose feature is the number of the frame."""
    return Video(
        id=f"v{num_frames}",
        timeline=Timeline.from_frames(np.zeros(num_frames, int), 10.0, TAXONOMY.labels),
        rate=10.0,
        num_frames=num_frames,
        features=FeatureArray(np.arange(num_frames, dtype=np.float32)[:, None]),
    )


def ramp(frames: torch.Tensor, offset: int = 0) -> torch.Tensor:
    """A row for each frame that is linear in its number, so that means can be told."""
    share = frames.float() / 1000 + offset / 100
    return torch.stack([share, 0.9 - share, torch.full_like(share, 0.1)], 1)


class Ramp(Anticipator):
    """Answers each frame with `says(frames, offset)`, past and future."""

    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})

    def __init__(self, says: Says = ramp, names_past: bool = True) -> None:
        super().__init__()
        self.taxonomy = TAXONOMY
        self.says, self.names_past = says, names_past
        self.asked: list[Observation] = []

    def losses(self, x: Observation, y: Target) -> Losses:
        raise NotImplementedError

    def predict(self, x: Observation) -> list[Prediction]:
        self.asked.append(x)
        return [self.one(single) for single in x]

    def one(self, x: Observation) -> Prediction:
        first, observed, horizon = x.first_frame(0), x.frames_observed(0), int(x.horizon[0])
        future = torch.arange(observed, observed + horizon)
        drawn = torch.full((x.num_samples, horizon), first)
        return Prediction(
            taxonomy=TAXONOMY,
            rate=x.rate,
            observed=observed,
            past=self.says(x.features[0, :, 0], first) if self.names_past else None,
            future=self.says(future, first) if horizon else None,
            samples=drawn if horizon and x.num_samples else None,
        )


class Filling(Ramp):
    """One whose answer runs to the end of a video whose length it is told."""

    answers_told_length = True


def told(
    model: Anticipator, question: Question, num_frames: int = 60, **values: object
) -> Prediction:
    config = replace(InferenceConfig(), **values)
    ((_, answer),) = answers(model, [(video(num_frames), question)], config)
    return answer.prediction


def joint(prediction: Prediction) -> torch.Tensor:
    assert prediction.past is not None
    assert prediction.future is not None
    return torch.cat([prediction.past, prediction.future])


def test_every_offset_is_read_once_in_one_batch():
    model = Ramp()
    told(model, Question(observed=30, horizon=10), stride=4, offsets=True)
    (x,) = model.asked
    assert x.first is not None
    assert x.first.tolist() == [0, 1, 2, 3]
    assert x.observed is not None
    assert x.observed.tolist() == [30] * 4
    assert x.features[:, 1, 0].tolist() == [4, 5, 6, 7]
    assert x.valid.sum(1).tolist() == [8, 8, 7, 7]


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(6, 25), st.integers(0, 20))
def test_past_and_future_are_averaged_step_by_step(stride: int, observed: int, horizon: int):
    """Step n of offset o stands for frame o + n * stride, whether it was seen or not."""
    num_frames = observed + horizon
    steps = num_frames // stride
    frames = torch.arange(steps)[:, None] * stride + torch.arange(stride)
    rows = torch.stack([ramp(frames[:, o], o) for o in range(stride)]).mean(0)
    found = told(Ramp(), Question(observed=observed, horizon=horizon), stride=stride, offsets=True)
    assert found.past is not None
    assert len(found.past) == found.observed == observed
    expected = restored(rows, stride, num_frames)
    torch.testing.assert_close(found.past, expected[:observed])
    if horizon:
        torch.testing.assert_close(found.future, expected[observed:])
    else:
        assert found.future is None


def test_one_offset_is_no_average():
    question = Question(observed=20, horizon=7)
    one, other = (told(Ramp(), question, offsets=offsets) for offsets in (False, True))
    torch.testing.assert_close(joint(one), joint(other))


def test_a_video_shorter_than_its_stride_has_fewer_offsets():
    model = Ramp()
    found = told(model, Question(observed=2, horizon=1), 3, stride=8, offsets=True)
    assert len(model.asked[0]) == 2
    assert len(joint(found)) == 3
    mean = (ramp(torch.tensor([0])) + ramp(torch.tensor([1]), 1)) / 2
    torch.testing.assert_close(joint(found), mean.expand(3, 3))


def test_rows_that_name_nothing_stay_rows_of_zeros():
    def silent_after_20(frames: torch.Tensor, _: int) -> torch.Tensor:
        return ramp(frames) * (frames < 20)[:, None]

    for values in ({"postprocess": "median", "postprocess_size": 3}, {}):
        found = told(
            Ramp(silent_after_20),
            Question(observed=16, horizon=16),
            stride=4,
            offsets=True,
            **values,
        )
        rows = joint(found)
        assert rows.isfinite().all()
        torch.testing.assert_close(rows[:20].sum(1), torch.ones(20))
        assert rows[24:].eq(0).all()


def test_samples_are_those_of_the_first_offset():
    found = told(Ramp(), Question(observed=9, horizon=5), stride=3, offsets=True, num_samples=2)
    assert found.samples is not None
    assert found.samples.tolist() == [[0] * 5] * 2


# Post-processing


def spiky(frames: torch.Tensor, _: int) -> torch.Tensor:
    """Label 0, but label 1 for the two frames around the boundary at 10."""
    odd = (frames.long() == 9) | (frames.long() == 10)
    return torch.eye(3)[odd.long()] * 0.8 + 0.1


@pytest.mark.parametrize("kind", ["median", "purge", "mode"])
@pytest.mark.parametrize("offsets", [False, True])
def test_past_and_future_are_processed_as_one(kind: str, offsets: bool):
    question = Question(observed=10, horizon=10)
    plain = told(Ramp(spiky), question)
    assert joint(plain).argmax(1).tolist() == [0] * 9 + [1] * 2 + [0] * 9
    found = told(Ramp(spiky), question, offsets=offsets, postprocess=kind, postprocess_size=5)
    assert joint(found).argmax(1).tolist() == [0] * 20
    assert (len(found.past), len(found.future)) == (10, 10)


def test_a_median_counts_steps_whether_offsets_are_averaged_or_not():
    """Of a label that takes two steps, 8 frames, a window of 5 steps leaves nothing."""

    def island(frames: torch.Tensor, _: int) -> torch.Tensor:
        return torch.eye(3)[((frames >= 20) & (frames < 28)).long()]

    for offsets in (False, True):
        values = {"stride": 4, "offsets": offsets, "postprocess": "median"}
        question = Question(observed=40, horizon=8)
        gone = told(Ramp(island), question, **values, postprocess_size=5)
        kept = told(Ramp(island), question, **values, postprocess_size=1)
        assert joint(gone).argmax(1).sum() == 0
        assert joint(kept).argmax(1).sum() == 8


def test_segmentation_is_processed_alone():
    found = told(Ramp(), Question(observed=30), 30, postprocess="median", postprocess_size=4)
    assert found.future is None
    torch.testing.assert_close(found.past, median_filtered(ramp(torch.arange(30)), 4))


@pytest.mark.parametrize(
    "values", [{"offsets": True}, {"postprocess": "mode", "postprocess_size": 3}]
)
def test_a_model_that_anticipates_alone_is_refused(values: dict[str, object]):
    with pytest.raises(ValueError, match="must go with a model that names the frames seen"):
        told(Ramp(names_past=False), Question(observed=10, horizon=3), **values)
    model = RepeatLastActionConfig().build(TAXONOMY)
    labelled = replace(video(20), observed_labels=np.zeros(20, int))
    asked = [(labelled, Question(observed=10, horizon=3))]
    with pytest.raises(ValueError, match="must go with a model that names the frames seen"):
        list(answers(model, asked, replace(InferenceConfig(), **values)))


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="postprocess_size must be at least 1 for purge, got 0"):
        InferenceConfig(postprocess="purge")
    with pytest.raises(ValueError, match="got anchor end; take anchor start, or no offsets"):
        InferenceConfig(offsets=True, anchor="end")


# Whole videos and rounding


def test_a_model_that_answers_to_the_end_is_asked_for_it_and_cut_last():
    question = LongTerm().question(60, 0.2, 10.0)
    median = {"postprocess": "median", "postprocess_size": 31}
    found, short = (told(model, question, **median) for model in (Filling(), Ramp()))
    assert found.future is not None
    assert len(found.future) == question.horizon == 30
    whole = median_filtered(ramp(torch.arange(60)), 31)
    torch.testing.assert_close(joint(found), whole[:42])
    torch.testing.assert_close(joint(short), median_filtered(ramp(torch.arange(42)), 31))
    drawn = told(Filling(), question, num_samples=2).samples
    assert drawn is not None
    assert drawn.shape == (2, 30)
    untold = Question(observed=12, horizon=30)
    model = Filling()
    told(model, untold)
    assert model.asked[0].horizon.tolist() == [30]


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("alpha", [0.2, 0.3])
def test_frames_shown_beyond_the_boundary_do_not_move_it(alpha: float, offsets: bool):
    """61 frames are 8 steps of 8; of them round(1.6) = 2 or round(2.4) = 2 are shown."""
    protocol = LongTerm(rounded_to_steps=True)
    model = Ramp()
    question = protocol.question(61, alpha, 10.0)
    found = told(model, question, 61, stride=8, offsets=offsets)
    assert found.observed == question.observed == int(alpha * 61)
    assert found.past is not None
    assert found.future is not None
    assert (len(found.past), len(found.future)) == (question.observed, question.horizon)
    assert model.asked[0].valid.sum(1).tolist() == [2] * (8 if offsets else 1)


def test_a_step_hidden_by_rounding_takes_the_first_row_of_the_future():
    """18 of 61 frames are observed and 2 steps of 8 shown: of frame 16 nobody speaks."""
    question = LongTerm(rounded_to_steps=True).question(61, 0.3, 10.0)
    found = told(Ramp(lambda frames, _: ramp(frames)), question, 61, stride=8, offsets=True)
    shown = torch.arange(16).reshape(2, 8)
    third = torch.arange(16, 24).clamp(min=18)
    steps = torch.stack([ramp(frames).mean(0) for frames in (*shown, third)])
    torch.testing.assert_close(joint(found)[:25], restored(steps, 8, 25))


# FUTR


@pytest.mark.parametrize("horizon", [True, False])
def test_futr_answers_as_the_mean_of_its_offsets(horizon: bool):
    dataset = synthetic_dataset(SyntheticConfig(num_videos=3, num_people=3, num_splits=3))
    torch.manual_seed(0)
    model = FUTRConfig(
        feature_dim=dataset.num_features, hidden_dim=16, num_heads=2, max_positions=600
    ).build(dataset.taxonomy)
    asked = [
        (v, LongTerm().question(v.num_frames, 0.3, v.rate) if horizon else Question(observed=50))
        for v in dataset.videos.values()
    ]
    config = InferenceConfig(stride=3, offsets=True, postprocess="median", postprocess_size=3)
    for i, answer in answers(model, asked, config):
        found, question = answer.prediction, asked[i][1]
        assert found.past is not None
        torch.testing.assert_close(found.past.sum(1), torch.ones(question.observed))
        assert (found.future is not None) is horizon
        if found.future is not None:
            assert len(found.future) == question.horizon
            assert found.future.isfinite().all()
