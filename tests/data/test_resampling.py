"""Data sets on the grid of every n-th frame, and later starts of training (ActionLLM's items)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from actioncast.batches import CutVideos, Item, ShuffledBatches, Variation, started
from actioncast.data import Dataset, Split, Video
from actioncast.data.collate import collate
from actioncast.features import FeatureArray
from actioncast.models.parallel_queries import ParallelQueries
from actioncast.protocols import LongTerm, Question
from actioncast.protocols.long_term import pad_queries, stride_then_cut, transcript
from actioncast.timeline import Taxonomy, Timeline
from actioncast.types import IGNORE

TAXONOMY = Taxonomy.of("abcd")
FRAMES = np.repeat([0, 1, 2, 1, 3], [5, 6, 4, 5, 3])
"""The sheet's worked case A: 23 frames."""


def video(frames: np.ndarray = FRAMES, rate: float = 15.0) -> Video:
    return Video(
        id="v",
        timeline=Timeline.from_frames(frames, rate, TAXONOMY.labels),
        rate=rate,
        num_frames=len(frames),
        features=FeatureArray(np.arange(len(frames), dtype=np.float32)[:, None]),
        observed_labels=frames,
    )


# Sheet, section 11.3: share seen and start, then frames kept, past, targets and durations.
CASES = [
    (0.2, 0, [0], [0], [0, 1, 2, 4], [0.25, 0.5, 0.25]),
    (0.3, 0, [0, 3], [0, 0], [1, 2, 1, 4], [0.5, 0.25, 0.25]),
    (0.5, 0, [0, 3, 6, 9], [0, 0, 1, 1], [2, 1, 3, 4], [0.25, 0.5, 0.25]),
    (0.3, 2, [6, 9], [1, 1], [2, 1, 3, 4], [0.25, 0.5, 0.25]),
    (0.5, 2, [6, 9, 12, 15], [1, 1, 2, 1], [1, 3, 4], [0.5, 0.5]),
]


@pytest.mark.parametrize(("share", "start", "kept", "past", "targets", "durations"), CASES)
def test_training_items_are_those_of_worked_case_a(
    share: float,
    start: int,
    kept: list[int],
    past: list[int],
    targets: list[int],
    durations: list[float],
):
    cut = CutVideos([video().resampled(3)], LongTerm(), 1, 4, Variation())
    x, y = collate([cut[Item(0, share, start=start)]], "action")
    assert x.features[0, :, 0].tolist() == kept
    assert x.labels is not None
    assert x.labels[0].tolist() == past
    assert y.frames["action"][0].tolist() == past
    queries = ParallelQueries(end=4, num_queries=6, fill="last_action", end_first="nothing")
    actions, shares = queries.targets(y, torch.zeros(1, 6))
    assert actions[0].tolist() == [*targets, *[IGNORE] * (6 - len(targets))]
    assert shares[0, : len(durations)].tolist() == pytest.approx(durations)
    assert shares[0, len(durations) :].isnan().all()


@pytest.mark.parametrize(("share", "start", "kept", "past", "targets", "durations"), CASES)
def test_they_are_what_the_released_loader_cuts(
    share: float,
    start: int,
    kept: list[int],
    past: list[int],
    targets: list[int],
    durations: list[float],
):
    item = stride_then_cut(len(FRAMES), share, 3, start)
    told = transcript(FRAMES[list(item.future)])
    assert list(item.past) == kept
    assert FRAMES[list(item.past)].tolist() == past
    assert [*told.labels, 4] == targets
    assert list(told.shares) == pytest.approx(durations)


def test_two_queries_lose_the_end_and_shares_no_longer_sum_to_one():
    cut = CutVideos([video().resampled(3)], LongTerm(), 1, 4, Variation())
    _, y = collate([cut[Item(0, 0.3)]], "action")
    queries = ParallelQueries(end=4, num_queries=2, fill="last_action", end_first="nothing")
    actions, shares = queries.targets(y, torch.zeros(1, 2))
    assert actions.tolist() == [[1, 2]]
    assert shares.tolist() == [[0.5, 0.25]]
    assert pad_queries([0.5, 0.25, 0.25], 2, 5) == [0.5, 0.25]


def test_everything_stands_on_the_coarse_grid():
    coarse = video().resampled(3)
    assert (coarse.num_frames, coarse.rate) == (8, 5.0)
    assert coarse.frames().tolist() == FRAMES[::3].tolist()
    assert coarse.features is not None
    assert coarse.features.read(2, 7, 2)[:, 0].tolist() == [6, 12, 18]
    assert coarse.features.read(3, 3).shape == (0, 1)
    assert coarse.timeline.segments[-1].end == pytest.approx(8 / 5.0)


def test_one_of_one_frames_is_the_video_itself():
    own = video()
    assert own.resampled(1) is own


def test_whoever_names_coarse_labels_sees_no_frame_after_the_last_kept():
    asked: list[int] = []

    class Teller:
        causal = False

        def read(self, observed: int) -> np.ndarray:
            asked.append(observed)
            return FRAMES[:observed]

    coarse = replace(video(), observed_labels=Teller()).resampled(3)
    told = coarse.labels_seen(4)
    assert told is not None
    assert told.tolist() == FRAMES[[0, 3, 6, 9]].tolist()
    assert asked == [10]
    assert coarse.labels_seen(0) is not None
    assert asked[-1] == 0


def test_a_resampled_data_set_is_still_known_by_its_data():
    fine = Dataset(
        name="d",
        taxonomy=TAXONOMY,
        rate=15.0,
        videos={"v": video()},
        splits={"1": Split(("v",), ("v",))},
    )
    coarse = fine.resampled(3)
    assert coarse.fingerprint() == fine.fingerprint()
    assert (coarse.rate, coarse.videos["v"].num_frames) == (5.0, 8)
    assert coarse.made_from is fine


def test_every_start_of_every_share_is_shown_once_an_epoch():
    sampler = ShuffledBatches([video(), video()], (0.2, 0.5), 0.0, 3, 0, num_starts=4)
    items = [item for batch in sampler.batches(1) for item in batch]
    shown = sorted((item.video, item.observed_ratio, item.start) for item in items)
    assert shown == [(v, r, s) for v in (0, 1) for r in (0.2, 0.5) for s in range(4)]
    assert len(sampler) == len(sampler.batches(1)) == 6


def test_one_start_shows_what_was_shown_before_there_were_several():
    one = ShuffledBatches([video(), video()], (0.2, 0.5), 0.1, 3, 7)
    assert all(item.start == 0 for batch in one.batches(0) for item in batch)


def test_a_later_start_sees_as_much_as_the_first_one():
    cut = CutVideos([video()], LongTerm(), 1, 4, Variation())
    for start in range(8):
        sample = cut[Item(0, 0.5, start=start)]
        assert len(sample.features) == 11
        assert sample.features[0, 0] == start
        assert sample.question == Question(
            observed=11, horizon=sample.question.horizon, video_length=23 - start
        )


def test_a_start_beyond_what_a_short_video_has_is_its_latest():
    short = video(np.repeat([0, 1], [2, 2]))
    sample = CutVideos([short], LongTerm(), 1, 4, Variation())[Item(0, 0.5, start=7)]
    assert sample.features[:, 0].tolist() == [1, 2]


def test_a_started_video_has_its_own_annotation():
    later = started(video(), 4)
    assert later.frames().tolist() == FRAMES[4:].tolist()
    assert later.features is not None
    assert later.features.read(0, 3)[:, 0].tolist() == [4, 5, 6]
    assert later.labels_seen(2) is not None


def test_several_actions_at_once_are_resampled_and_started_too():
    active = np.zeros((23, 4), dtype=bool)
    active[np.arange(23), FRAMES] = True
    active[9:12, 3] = True
    both = replace(video(), active=active)
    coarse, later = both.resampled(3).active, started(both, 4).active
    assert coarse is not None
    assert later is not None
    assert np.array_equal(coarse, active[::3])
    assert np.array_equal(later, active[4:])


@pytest.mark.parametrize("causal", [True, False])
def test_whoever_names_coarse_labels_looks_ahead_as_much_as_before(causal: bool):
    class Teller:
        def __init__(self) -> None:
            self.causal = causal

        def read(self, observed: int) -> np.ndarray:
            return FRAMES[:observed]

    for source in (
        replace(video(), observed_labels=Teller()).resampled(3).observed_labels,
        started(replace(video(), observed_labels=Teller()), 2).observed_labels,
    ):
        assert source is not None
        assert not isinstance(source, np.ndarray)
        assert source.causal is causal
