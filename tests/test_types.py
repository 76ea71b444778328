from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from actioncast.timeline import (
    UNLABELLED,
    LabelSpace,
    Segment,
    Taxonomy,
    Timeline,
    frames_to_seconds,
    run_lengths,
    seconds_to_frames,
)
from actioncast.types import IGNORE, Observation, Prediction, Target, Task, Tokens, most_likely

TAXONOMY = Taxonomy.of("abc")
LABELS = TAXONOMY.labels


def one_hot(*labels: int) -> torch.Tensor:
    """Certainty of each label; a row of zeros for -1."""
    table = torch.cat([torch.eye(3), torch.zeros(1, 3)])
    return table[list(labels)]


def observation(**fields: object) -> Observation:
    features = torch.arange(24.0).reshape(2, 4, 3)
    known = {
        "features": features,
        "valid": torch.tensor([[True] * 4, [True, True, False, False]]),
        "rate": 10.0,
        "horizon": torch.tensor([5, 6]),
        "stride": 2,
    }
    return Observation(**(known | fields))


# Predictions


def test_a_timeline_is_cut_at_now():
    prediction = Prediction(
        taxonomy=TAXONOMY,
        rate=10.0,
        observed=4,
        past=one_hot(0, 0, 1, 1),
        future=one_hot(1, 1, 1, 2),
    )
    assert prediction.now == pytest.approx(0.4)
    found = [(s.start, s.end, s.label) for s in prediction.timeline()]
    expected = [(0.0, 0.2, 0), (0.2, 0.4, 1), (0.4, 0.7, 1), (0.7, 0.8, 2)]
    np.testing.assert_allclose(found, expected)


def test_a_timeline_starts_where_the_first_frame_lies():
    prediction = Prediction(
        taxonomy=TAXONOMY, rate=10.0, observed=2, start=60.0, past=one_hot(0, 1), future=one_hot(2)
    )
    assert prediction.now == pytest.approx(60.2)
    assert [s.start for s in prediction.timeline()] == pytest.approx([60.0, 60.1, 60.2])


def test_a_segment_is_as_sure_as_its_frames_on_average():
    probs = torch.tensor([[0.6, 0.4, 0.0], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5]])
    prediction = Prediction(taxonomy=TAXONOMY, rate=1.0, observed=0, future=probs)
    assert [s.score for s in prediction.timeline()] == pytest.approx([0.7, 0.5])


def test_rows_of_zeros_name_nothing():
    prediction = Prediction(
        taxonomy=TAXONOMY, rate=10.0, observed=0, future=one_hot(-1, 1, -1, -1, 0)
    )
    assert most_likely(prediction.future).tolist() == [UNLABELLED, 1, UNLABELLED, UNLABELLED, 0]
    found = [(s.start, s.end, s.label) for s in prediction.timeline()]
    np.testing.assert_allclose(found, [(0.1, 0.2, 1), (0.4, 0.5, 0)])


def test_a_future_of_no_frames_is_no_segment():
    prediction = Prediction(
        taxonomy=TAXONOMY, rate=10.0, observed=1, past=one_hot(2), future=torch.zeros(0, 3)
    )
    assert [s.label for s in prediction.timeline()] == [2]


def test_a_prediction_must_answer_something():
    with pytest.raises(ValueError, match="must answer a task"):
        Prediction(taxonomy=TAXONOMY, rate=10.0, observed=1)


def test_a_next_action_alone_has_no_timeline():
    prediction = Prediction(
        taxonomy=TAXONOMY, rate=10.0, observed=1, next={"action": torch.ones(3) / 3}
    )
    with pytest.raises(ValueError, match="names no frames; read `next` instead"):
        prediction.timeline()


# Observations


def test_each_video_comes_alone_and_without_padding():
    labels = torch.tensor([[0, 0, 1, 1], [2, 0, IGNORE, IGNORE]])
    x = observation(
        observed=torch.tensor([8, 3]), video_length=torch.tensor([20, 9]), labels=labels
    )
    one, other = x
    assert len(x) == 2
    assert (len(one), len(other)) == (1, 1)
    assert torch.equal(one.features, x.features[:1])
    assert torch.equal(other.features, x.features[1:, :2])
    assert other.valid.tolist() == [[True, True]]
    assert other.labels.tolist() == [[2, 0]]
    assert (other.horizon.tolist(), other.observed.tolist()) == ([6], [3])
    assert (other.video_length.tolist(), other.stride, other.rate) == ([9], 2, 10.0)
    assert other.modalities == {}
    assert other.clip is None


def test_what_comes_beside_a_video_comes_without_padding():
    words = Tokens(
        values=torch.arange(8.0).reshape(2, 2, 2),
        valid=torch.tensor([[True, True], [True, False]]),
    )
    clip = torch.rand(2, 3, 3, 4, 4)
    _, other = observation(modalities={"questions": words}, clip=clip)
    assert other.modalities["questions"].values.tolist() == [[[4, 5]]]
    assert other.modalities["questions"].valid.tolist() == [[True]]
    assert torch.equal(other.clip, clip[1:])


def test_frames_observed_follow_from_steps_where_nobody_counted_them():
    x = observation()
    assert [x.frames_observed(i) for i in (0, 1)] == [8, 4]
    counted = observation(observed=torch.tensor([7, 3]))
    assert [counted.frames_observed(i) for i in (0, 1)] == [7, 3]


def test_one_video_is_a_batch_of_one():
    x = Observation.of_one(torch.zeros(4, 3), 25.0, 50)
    assert (len(x), x.frames_observed(0), int(x.horizon[0]), x.rate) == (1, 4, 50, 25.0)


def test_every_tensor_moves_and_nothing_else_changes():
    x = observation(observed=torch.tensor([7, 3]), num_samples=3, anticipation_time=1.0)
    moved = x.to("meta")
    tensors = ("features", "valid", "horizon", "observed")
    assert all(getattr(moved, name).device.type == "meta" for name in tensors)
    assert (moved.num_samples, moved.anticipation_time, moved.labels) == (3, 1.0, None)
    assert x.features.device.type == "cpu"


def test_every_target_moves():
    y = Target(
        frames={"action": torch.zeros(2, 4, dtype=torch.long)},
        next={"action": torch.zeros(2, dtype=torch.long)},
        future=torch.zeros(2, 3, dtype=torch.long),
        durations=torch.zeros(2, 3),
    )
    moved = y.to("meta")
    assert moved.frames["action"].is_meta
    assert moved.next["action"].is_meta
    assert moved.future.is_meta
    assert moved.durations.is_meta
    assert replace(y, future=None, durations=None).to("meta").future is None


@pytest.mark.parametrize(
    "fields",
    [
        {"features": torch.zeros(2, 4)},
        {"valid": torch.ones(2, 5, dtype=torch.bool)},
        {"valid": torch.ones(2, 4)},
        {"horizon": torch.ones(3, dtype=torch.long)},
        {"horizon": torch.ones(2)},
        {"labels": torch.zeros(2, 5, dtype=torch.long)},
        {"observed": torch.ones(1, dtype=torch.long)},
        {"rate": "fast"},
    ],
    ids=str,
)
def test_a_wrong_shape_or_type_is_refused(fields):
    """So the test run checks every annotated tensor of the package."""
    with pytest.raises(TypeCheckError):
        observation(**fields)


def test_tasks_are_named_as_the_field_names_them():
    named = ["segmentation", "long_term", "next_action", "online", "coming_actions"]
    assert [str(task) for task in Task] == named


# Timelines


RATES = st.sampled_from([1.5, 5.0, 10.0, 15.0, 23.976, 29.97, 30.0, 59.94])


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=300), RATES)
def test_frames_come_back_from_their_timeline(labels: list[int], rate: float):
    frames = np.array(labels)
    timeline = Timeline.from_frames(frames, rate, LABELS)
    np.testing.assert_array_equal(timeline.to_frames(len(frames), rate), frames)
    assert len(timeline) == len(run_lengths(frames))
    assert timeline.end == pytest.approx(len(frames) / rate)


@settings(deadline=None)
@given(st.integers(0, 10**6), RATES)
def test_seconds_are_frames(frames: int, rate: float):
    assert seconds_to_frames(frames_to_seconds(frames, rate), rate) == frames


@settings(deadline=None)
@given(st.lists(st.integers(-1, 2), max_size=60))
def test_runs_cover_every_frame_once_and_change_at_every_border(labels: list[int]):
    runs = run_lengths(np.array(labels, int))
    assert [label for label, a, b in runs for _ in range(a, b)] == labels
    assert all(one[0] != other[0] for one, other in pairwise(runs))


def test_unlabelled_frames_are_gaps():
    timeline = Timeline.from_frames(np.array([0, -1, -1, 1]), 1.0, LABELS)
    assert [(s.start, s.end) for s in timeline] == [(0, 1), (3, 4)]
    with pytest.raises(ValueError, match="need full coverage, got a gap at frame 1 of 4"):
        timeline.to_frames(4, 1.0)


def test_overlap_is_named_in_the_error():
    timeline = Timeline.of([Segment(0, 5, 0), Segment(4, 8, 1)], LABELS)
    with pytest.raises(ValueError, match=r"need disjoint segments, but Segment\(start=4.*overlaps"):
        timeline.to_frames(8, 1.0)


def test_segments_are_sorted_when_a_timeline_is_built():
    segments = (Segment(4, 8, 1), Segment(0, 4, 0))
    assert [s.start for s in Timeline.of(segments, LABELS)] == [0, 4]
    with pytest.raises(ValueError, match=r"must be sorted by start; use Timeline.of\(\)"):
        Timeline(segments, LABELS)


def test_labels_of_segments_are_labels():
    with pytest.raises(ValueError, match=r"label must be one of 0..2, got Segment"):
        Timeline.of([Segment(0, 1, 3)], LABELS)
    with pytest.raises(ValueError, match=r"must end after it starts, got \[2, 2\)"):
        Segment(2, 2, 0)


def test_a_crop_cuts_segments_at_its_edges():
    timeline = Timeline.of([Segment(0, 4, 0, 0.5), Segment(4, 8, 1), Segment(8, 9, 2)], LABELS)
    cropped = timeline.crop(2, 8)
    assert [(s.start, s.end, s.label) for s in cropped] == [(2, 4, 0), (4, 8, 1)]
    assert cropped.segments[0].score == 0.5
    assert len(timeline.crop(20, 30)) == 0


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=60), st.data())
def test_a_crop_of_frames_is_a_slice(labels: list[int], data):
    frames = np.array(labels)
    a = data.draw(st.integers(0, len(frames) - 1))
    b = data.draw(st.integers(a + 1, len(frames)))
    cropped = Timeline.from_frames(frames, 1.0, LABELS).crop(a, b)
    moved = [Segment(s.start - a, s.end - a, s.label) for s in cropped]
    np.testing.assert_array_equal(Timeline.of(moved, LABELS).to_frames(b - a, 1.0), frames[a:b])


# Labels


def test_an_unknown_action_lists_the_known_ones():
    assert LABELS.index("c") == 2
    assert "c" in LABELS
    assert "d" not in LABELS
    with pytest.raises(ValueError, match="unknown action 'd'; the labels are a, b, c"):
        LABELS.index("d")


@pytest.mark.parametrize(
    ("names", "background", "sentence"),
    [
        ((), (), "must hold at least one name, got none"),
        (("a", "b", "a"), (), "must be unique, got a more than once"),
        (("a",), ("b",), r"background names must be labels, got \['b'\]"),
    ],
)
def test_impossible_label_spaces_are_refused(names, background, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        LabelSpace(names, frozenset(background))


def test_the_primary_head_is_one_of_the_heads():
    with pytest.raises(ValueError, match=r"primary head 'verb' must be one of \['action'\]"):
        Taxonomy({"action": LABELS}, "verb")
    assert LabelSpace(("a", "b"), frozenset("b")).background_labels == {1}
