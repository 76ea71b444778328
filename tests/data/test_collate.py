import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from actioncast.data.base import Video
from actioncast.data.caption_track import CaptionTrack
from actioncast.data.collate import collate, cut
from actioncast.features import FeatureArray, LabelFeatures
from actioncast.protocols import HorizonSource, LongTerm, Question
from actioncast.timeline import LabelSpace, Timeline
from actioncast.types import IGNORE
from layout_folders import features

LABELS = LabelSpace(("a", "b", "c"))
END = len(LABELS)


def video(spelling: str, rate: float = 10.0) -> Video:
    frames = np.array(["abc".index(letter) for letter in spelling])
    return Video(
        id=spelling,
        timeline=Timeline.from_frames(frames, rate, LABELS),
        rate=rate,
        num_frames=len(frames),
        features=FeatureArray(features(len(frames))),
    )


def test_a_sample_holds_the_observed_steps_and_no_more():
    whole = video("aaaaabbbbbccccc")
    sample = cut(whole, Question(observed=7, horizon=6), 3, END)
    np.testing.assert_array_equal(sample.features, features(15)[[0, 3, 6]])
    assert sample.frames.tolist() == [0, 0, 1]
    assert sample.observed_labels is None


def test_the_future_starts_at_its_own_first_frame():
    sample = cut(video("aaaaabbbbbccccc"), Question(observed=7, horizon=6), 3, END)
    assert sample.future == (1, 2, END)  # frames 7 and 10
    assert sample.durations[:2] == (0.5, 0.5)
    assert math.isnan(sample.durations[2])


def test_the_end_takes_what_is_asked_beyond_the_video():
    sample = cut(video("aaaabb"), Question(observed=4, horizon=8), 1, END)
    assert sample.future == (1, END)
    assert sample.durations == (0.25, 0.75)
    strided = cut(video("aaaabb"), Question(observed=4, horizon=8), 3, END)
    assert strided.future == (1, END)
    assert strided.durations == pytest.approx((1 / 3, 2 / 3))


def test_a_video_seen_whole_has_only_its_end_ahead():
    sample = cut(video("aabb"), Question(observed=4, horizon=10), 1, END)
    assert (sample.future, sample.durations) == ((END,), (1.0,))


def test_without_a_horizon_there_is_no_future():
    sample = cut(video("aabb"), Question(observed=4), 1, END)
    assert (sample.future, sample.durations) == ((), ())


def test_observed_labels_are_cut_like_features():
    labelled = replace(video("aabbcc"), observed_labels=np.array([0, 0, 2, 2, 2, 1]))
    sample = cut(labelled, Question(observed=5), 2, END)
    assert sample.observed_labels.tolist() == [0, 2, 2]


class Lookout:
    """Says of every frame what the last one seen is, and notes how many it was shown."""

    causal = False

    def __init__(self, frames: np.ndarray) -> None:
        self.frames, self.shown = frames, []

    def read(self, observed: int) -> np.ndarray:
        self.shown.append(observed)
        return np.repeat(self.frames[observed - 1 : observed], observed)


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        (Question(observed=5, horizon=4), 5),
        # Of 4 steps a share of 0.6 is 2: frames 0 and 3, the last of which counts as seen.
        (Question(observed=6, horizon=4, video_length=10, step_ratio=0.6), 4),
    ],
)
def test_whoever_names_the_frames_sees_as_many_as_the_model(question: Question, shown: int):
    whole = video("aabbccabca")
    source = Lookout(whole.frames())
    sample = cut(replace(whole, observed_labels=source), question, 3, END)
    assert source.shown == [shown]
    assert sample.observed_labels.tolist() == [whole.frames()[shown - 1]] * 2
    assert len(sample.features) == 2


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        (Question(observed=5, horizon=4), 5),
        (Question(observed=6, horizon=4, video_length=10, step_ratio=0.6), 4),
    ],
)
def test_captions_are_told_of_as_many_frames_as_the_model_sees(question: Question, shown: int):
    """A caption ends after every frame; its vector is how many frames it needs."""
    ends = np.arange(1, 11)
    track = CaptionTrack(vectors=ends[:, None].astype(np.float32), starts=ends - 1, ends=ends)
    sample = cut(replace(video("aabbccabca"), captions=track), question, 3, END)
    assert sample.captions[:, 0].tolist() == list(range(1, shown + 1))


def test_captions_of_a_batch_are_tokens_and_a_row_may_hold_none():
    ends = np.array([3, 4])
    track = CaptionTrack(vectors=np.eye(2, dtype=np.float32), starts=ends - 3, ends=ends)
    whole = replace(video("aabbcc"), captions=track)
    samples = [cut(whole, Question(observed=n), 1, END) for n in (3, 2, 6)]
    tokens = collate(samples, "action")[0].modalities["captions"]
    assert tokens.valid.tolist() == [[True, False], [False, False], [True, True]]
    assert tokens.values[0].tolist() == [[1, 0], [0, 0]]
    assert tokens.values[1].tolist() == [[0, 0], [0, 0]]
    nothing = collate(samples[1:2], "action")[0].modalities["captions"]
    assert nothing.values.shape == (1, 0, 2)
    without = cut(video("aabbcc"), Question(observed=3), 1, END)
    assert without.captions is None
    assert not collate([samples[0], without], "action")[0].modalities


def test_labels_are_read_from_any_offset_and_for_no_later_step():
    whole = video("aabbccabca")
    told = whole.frames()
    source = Lookout(told)
    source.read = lambda observed: told[:observed]  # type: ignore[method-assign]
    labelled = replace(whole, observed_labels=source)
    samples = [cut(labelled, Question(observed=7), 3, END, first=first) for first in range(3)]
    assert [one.observed_labels.tolist() for one in samples] == [[0, 1, 0], [0, 2], [1, 2]]


def test_a_source_that_names_other_frames_than_were_seen_is_refused():
    source = Lookout(np.zeros(10, int))
    source.read = lambda observed: np.zeros(observed + 1, int)  # type: ignore[method-assign]
    odd = replace(video("aabbccabca"), observed_labels=source)
    with pytest.raises(ValueError, match="must name the 5 frames seen, got 6; mend their source"):
        cut(odd, Question(observed=5), 1, END)


def test_a_video_without_features_is_named():
    with pytest.raises(ValueError, match="video aab has no features; add them to features/, or"):
        cut(replace(video("aab"), features=None), Question(observed=2), 1, END)


def test_a_batch_is_padded_on_the_right():
    protocol = LongTerm()
    samples = [
        cut(whole, protocol.question(whole.num_frames, 0.3, 10.0), 2, END)
        for whole in (video("aaaaabbbbbccccc" * 2), video("abcabcabca"))
    ]
    x, y = collate(samples, "action")
    assert x.features.shape == (2, 5, 5)
    assert x.valid.tolist() == [[True] * 5, [True] * 2 + [False] * 3]
    assert (x.features[1, 2:] == 0).all()
    assert (x.rate, x.stride) == (10.0, 2)
    assert x.observed.tolist() == [9, 3]
    assert x.horizon.tolist() == [15, 5]
    assert x.video_length.tolist() == [30, 10]
    assert x.labels is None
    assert y.frames["action"].tolist() == [[0, 0, 0, 1, 1], [0, 2, IGNORE, IGNORE, IGNORE]]
    # Frames 9, 11, ... 23 of bbbbbccccc aaaaabbbb..., and frames 3, 5, 7 of abca...
    assert y.future.tolist() == [[1, 2, 0, 1, END], [0, 2, 1, END, IGNORE]]
    shares = torch.tensor([[1 / 8, 2 / 8, 3 / 8, 2 / 8], [1 / 3, 1 / 3, 1 / 3, math.nan]])
    torch.testing.assert_close(y.durations[:, :4], shares, equal_nan=True)
    assert y.durations[:, 4].isnan().all()


def test_a_batch_without_a_horizon_names_no_future():
    samples = [cut(video(s), Question(observed=len(s)), 1, END) for s in ("aab", "ab")]
    x, y = collate(samples, "action")
    assert x.horizon.tolist() == [0, 0]
    assert x.video_length is None
    assert y.future.shape == y.durations.shape == (2, 0)


def test_items_with_and_without_a_future_share_a_batch():
    samples = [
        cut(video("aabb"), Question(observed=2, horizon=2), 1, END),
        cut(video("aabb"), Question(observed=4), 1, END),
    ]
    _, y = collate(samples, "action")
    assert y.future.tolist() == [[1, END], [IGNORE, IGNORE]]
    assert y.durations[1].isnan().all()


def test_labels_are_padded_with_what_no_metric_counts():
    labelled = []
    for spelling in ("aabbcc", "ab"):
        whole = video(spelling)
        source = LabelFeatures(whole.frames(), END)
        labelled.append(replace(whole, features=source, observed_labels=whole.frames()))
    samples = [cut(w, Question(observed=w.num_frames), 1, END) for w in labelled]
    x, _ = collate(samples, "action")
    assert x.labels.tolist() == [[0, 0, 1, 1, 2, 2], [0, 1] + [IGNORE] * 4]
    assert x.features.argmax(-1)[x.valid].tolist() == x.labels[x.valid].tolist()


@pytest.mark.parametrize("source", [HorizonSource.OBSERVED_MULTIPLE, HorizonSource.SECONDS])
def test_a_sample_tells_the_length_only_when_the_protocol_does(source: HorizonSource):
    """The same prefix of two videos gives the same observation."""
    protocol = LongTerm(horizon_source=source, seconds=1.0)
    one, other = video("aaaabbbbcc"), video("aaaabbbbccaaaaaaaaaa")
    questions = protocol.question(10, 0.3, 10.0), protocol.question(20, 0.15, 10.0)
    assert questions[0] == questions[1]
    seen = [
        collate([cut(w, q, 1, END)], "action")[0]
        for w, q in zip((one, other), questions, strict=True)
    ]
    assert torch.equal(seen[0].features, seen[1].features)
    assert seen[0].video_length is None


def test_a_stride_can_be_read_from_any_of_its_offsets():
    samples = [cut(video("aaaaabbbbbccccc"), Question(observed=7), 3, END, first=o) for o in (0, 2)]
    np.testing.assert_array_equal(samples[1].features, features(15)[[2, 5]])
    assert samples[1].frames.tolist() == [0, 1]
    x, y = collate(samples, "action")
    assert x.first.tolist() == [0, 2]
    assert x.observed.tolist() == [7, 7]
    assert x.valid.sum(1).tolist() == [3, 2]
    assert y.video_frames["action"].tolist() == [[0] * 5 + [1] * 2] * 2


def test_the_anchor_says_the_first_frame_where_the_caller_does_not():
    samples = [cut(video("aaaabbbb"), Question(observed=6), 4, END, a) for a in ("start", "end")]
    assert collate(samples, "action")[0].first.tolist() == [0, 1]


@pytest.mark.parametrize(("first", "observed"), [(-1, 7), (3, 7), (2, 2), (0, 0)])
def test_an_offset_that_was_not_observed_is_refused(first: int, observed: int):
    with pytest.raises(ValueError, match=rf"first must be a frame within.*\(3\).*got {first}"):
        cut(video("aaaaabbbbb"), Question(observed=observed), 3, END, first=first)


def test_the_frames_of_the_video_are_padded_and_absent_without_a_stride():
    samples = [cut(video(s), Question(observed=len(s)), 2, END) for s in ("aab", "abcab")]
    _, y = collate(samples, "action")
    assert y.video_frames["action"].tolist() == [[0, 0, 1, IGNORE, IGNORE], [0, 1, 2, 0, 1]]
    assert y.to("cpu").video_frames["action"].shape == (2, 5)
    _, y = collate([cut(video("aab"), Question(observed=3), 1, END)], "action")
    assert y.video_frames == {}


def test_a_share_of_all_steps_is_shown_though_the_boundary_stays():
    """Twenty frames are 7 steps of 3, of which 0.4 rounds to 3; the boundary is frame 8."""
    protocol = LongTerm(rounded_to_steps=True)
    whole = video("aaaaaaaabbbbbbbbcccc")
    question = protocol.question(20, 0.4, 10.0)
    assert (question.observed, question.horizon, question.step_ratio) == (8, 10, 0.4)
    samples = [cut(whole, question, 3, END, first=o) for o in range(3)]
    assert [len(s.features) for s in samples] == [3, 3, 3]  # 0.4 of 7 steps, from every offset
    np.testing.assert_array_equal(samples[2].features, features(20)[[2, 5, 8]])
    assert samples[2].frames.tolist() == [0, 0, 1]
    x, y = collate(samples, "action")
    assert x.observed.tolist() == [8, 8, 8]
    assert x.video_length.tolist() == [20, 20, 20]
    assert y.future[:, 0].tolist() == [1, 1, 1]
    fewer = cut(whole, protocol.question(20, 0.01, 10.0), 3, END)
    assert len(fewer.features) == 1
