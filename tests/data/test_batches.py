from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import actioncast.batches as module
from actioncast.batches import (
    CutVideos,
    Item,
    ShuffledBatches,
    Variation,
    training_batches,
    varied,
)
from actioncast.data import SyntheticConfig, synthetic_dataset
from actioncast.features import LabelFeatures
from actioncast.protocols import HorizonSource, LongTerm
from actioncast.timeline import run_lengths

DATASET = synthetic_dataset(SyntheticConfig(num_videos=14, num_people=7))
VIDEOS = list(DATASET.videos.values())
RATIOS = (0.2, 0.3, 1.0)


def sampler(jitter: float = 0.0, batch_size: int = 4, seed: int = 0) -> ShuffledBatches:
    return ShuffledBatches(VIDEOS, RATIOS, jitter, batch_size, seed)


def shown(batches: list[list[Item]]) -> list[Item]:
    return [item for batch in batches for item in batch]


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 5))
def test_every_video_is_shown_at_every_share_once_an_epoch(batch_size: int, epoch: int):
    source = sampler(batch_size=batch_size)
    batches = source.batches(epoch)
    pairs = Counter((item.video, item.observed_ratio) for item in shown(batches))
    assert pairs == {(v, r): 1 for v in range(len(VIDEOS)) for r in RATIOS}
    assert max(map(len, batches)) <= batch_size
    assert len(batches) == len(source) == len(list(source))


def test_an_epoch_is_a_function_of_seed_and_number():
    source = sampler(jitter=0.1)
    first = source.batches(3)
    source.batches(4)
    assert source.batches(3) == first == sampler(jitter=0.1).batches(3)
    assert source.batches(4) != first
    assert sampler(jitter=0.1, seed=1).batches(3) != first
    source.set_epoch(3)
    assert list(source) == first


def test_batches_hold_items_of_like_length():
    lengths = np.array([video.num_frames for video in VIDEOS])
    padding = sum(
        max(seen) * len(seen) - sum(seen)
        for batch in sampler().batches(0)
        for seen in [[lengths[item.video] * item.observed_ratio for item in batch]]
    )
    items = shown(sampler().batches(0))
    shuffled = np.random.default_rng(0).permutation(len(items))
    worse = 0.0
    for a in range(0, len(items), 4):
        seen = [lengths[items[i].video] * items[i].observed_ratio for i in shuffled[a : a + 4]]
        worse += max(seen) * len(seen) - sum(seen)
    assert padding < worse / 3


def test_offsets_are_drawn_by_seed_and_epoch_and_change_nothing_else():
    plain, drawn = sampler(jitter=0.1), ShuffledBatches(VIDEOS, RATIOS, 0.1, 4, 0, num_offsets=5)
    offsets = [item.offset for item in shown(drawn.batches(2))]
    assert set(offsets) == set(range(5))
    assert {item.offset for item in shown(plain.batches(2))} == {None}
    bare = [[replace(item, offset=None) for item in batch] for batch in drawn.batches(2)]
    assert bare == plain.batches(2)
    again = ShuffledBatches(VIDEOS, RATIOS, 0.1, 4, 0, num_offsets=5)
    assert again.batches(2) == drawn.batches(2)
    assert [item.offset for item in shown(drawn.batches(3))] != offsets


def test_an_item_is_read_from_its_offset_or_the_nearest_that_was_seen():
    source = CutVideos(VIDEOS, LongTerm(), 5, 7, Variation())
    frames = VIDEOS[0].frames()
    whole = source[Item(0, 1.0, offset=3)]
    assert whole.first == 3
    assert whole.frames.tolist() == frames[3::5].tolist()
    short = source[Item(0, 2.5 / len(frames), offset=3)]
    assert (short.question.observed, short.first) == (2, 1)
    assert source[Item(0, 1.0)].first == 0


def test_jitter_moves_shares_but_never_whole_videos():
    moved = shown(sampler(jitter=0.25).batches(0))
    ratios = np.array([item.observed_ratio for item in moved])
    assert (ratios == 1.0).sum() == len(VIDEOS)
    rest = ratios[ratios < 1]
    assert len(rest) == 2 * len(VIDEOS)
    assert rest.min() >= 0.02
    assert rest.max() <= 0.55
    assert len(set(rest)) > len(rest) / 2


def test_without_jitter_shares_are_those_asked_for():
    source = ShuffledBatches(VIDEOS, (0.01, 0.99), 0.0, 4, 0)
    assert {item.observed_ratio for item in shown(source.batches(0))} == {0.01, 0.99}


@pytest.mark.parametrize(("batch_size", "world"), [(4, 2), (4, 3), (42, 2), (42, 3)])
def test_processes_share_the_batches_and_take_equally_many(monkeypatch, batch_size: int, world):
    """Otherwise DDP waits for ever for a process that has nothing left."""
    source = sampler(batch_size=batch_size)
    parts = []
    for rank in range(world):
        monkeypatch.setattr(module, "_place", lambda rank=rank: (rank, world))
        parts.append(list(source))
        assert len(parts[-1]) == len(source)
    everything = source.batches(0)
    taken = [batch for part in parts for batch in part]
    assert all(batch in everything for batch in taken)
    if len(everything) >= world:
        assert len({str(batch) for batch in taken}) == len(everything) // world * world


def test_an_item_is_the_question_of_its_share():
    source = CutVideos(VIDEOS, LongTerm(), 2, len(DATASET.taxonomy.labels), Variation())
    video = VIDEOS[3]
    sample = source[Item(3, 0.3)]
    assert sample.question == LongTerm().question(video.num_frames, 0.3, video.rate)
    assert len(sample.features) == -(-sample.question.observed // 2)
    whole = source[Item(3, 1.0)]
    assert (whole.question.observed, whole.question.horizon) == (video.num_frames, 0)
    assert len(source) == len(VIDEOS)


@pytest.mark.parametrize("source", list(HorizonSource))
def test_a_small_share_of_a_short_video_still_shows_a_frame(source: HorizonSource):
    short = replace(VIDEOS[0], num_frames=8, timeline=VIDEOS[0].timeline.crop(0, 8 / 5))
    protocol = LongTerm(horizon_source=source)
    videos = CutVideos([short], protocol, 1, len(DATASET.taxonomy.labels), Variation())
    sample = videos[Item(0, 0.1)]
    assert sample.question.observed == len(sample.features) == 1


def test_the_loader_yields_every_batch():
    source = sampler(batch_size=5)
    loader = training_batches(VIDEOS, source, LongTerm(), 2, DATASET.taxonomy, 0, Variation())
    batches = list(loader)
    assert len(batches) == len(source)
    assert sum(len(x) for x, _ in batches) == len(VIDEOS) * len(RATIOS)
    assert all(set(y.frames) == {"action"} for _, y in batches)


def test_workers_read_the_same():
    source = sampler(batch_size=20)
    loaders = [
        training_batches(VIDEOS, source, LongTerm(), 2, DATASET.taxonomy, workers, Variation(0.3))
        for workers in (0, 1)
    ]
    for (x, y), (also_x, also_y) in zip(*loaders, strict=True):
        assert (x.features == also_x.features).all()
        assert (y.future == also_y.future).all()


# Variation


def labelled(video):
    source = LabelFeatures(video.frames(), len(DATASET.taxonomy.labels))
    return replace(video, features=source, observed_labels=source.frames)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_a_warped_video_does_the_same_at_another_pace(seed: int, warp: float):
    video = labelled(VIDEOS[seed % len(VIDEOS)])
    other = varied(video, Variation(warp), seed)
    frames = other.frames()
    order = [label for label, _, _ in run_lengths(video.frames())]
    assert [label for label, _, _ in run_lengths(frames)] == order
    assert len(frames) == other.num_frames
    np.testing.assert_array_equal(other.observed_labels, frames)
    np.testing.assert_array_equal(other.features.read(0, len(frames)).argmax(1), frames)
    assert (other.id, other.rate, other.group) == (video.id, video.rate, video.group)


def test_features_are_warped_as_their_labels_are():
    video = VIDEOS[0]
    other = varied(video, Variation(0.5), 3)
    vectors = video.features.read(0, video.num_frames)
    shown = other.features.read(0, other.num_frames)
    whence = np.array([np.flatnonzero((vectors == row).all(1))[0] for row in shown])
    assert (np.diff(whence) >= 0).all()
    np.testing.assert_array_equal(video.frames()[whence], other.frames())


class Lookout:
    """Says of every frame how many it has been shown."""

    causal = False

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames

    def read(self, observed: int) -> np.ndarray:
        assert observed <= self.num_frames
        return np.full(observed, observed)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.0, 1.0), st.floats(0.05, 1.0))
def test_whoever_names_frames_is_shown_those_behind_a_warped_share_alone(
    seed: int, warp: float, share: float
):
    video = VIDEOS[seed % len(VIDEOS)]
    told = replace(video, observed_labels=Lookout(video.num_frames))
    other = varied(told, Variation(warp), seed)
    observed = max(1, int(share * other.num_frames))
    labels = other.labels_seen(observed)
    assert labels is not None
    # The last frame of the share, found in the video that was not warped.
    vectors = video.features.read(0, video.num_frames)
    (last,) = other.features.read(observed - 1, observed)
    assert labels.tolist() == [int(np.flatnonzero((vectors == last).all(1))[-1]) + 1] * observed
    assert not other.observed_labels.causal
    assert other.labels_seen(0).tolist() == []


def test_features_are_never_exchanged_for_labels_that_stand_beside_them():
    beside = replace(VIDEOS[0], observed_labels=VIDEOS[0].frames())
    with pytest.raises(ValueError, match=r"relabel must go with the true labels .*--input labels"):
        varied(beside, Variation(0.0, 0.5), 0)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 1.0))
def test_exchanged_labels_stand_in_input_and_target_alike(seed: int, relabel: float):
    video = labelled(VIDEOS[seed % len(VIDEOS)])
    other = varied(video, Variation(0.2, relabel), seed)
    frames = other.frames()
    assert len(frames) == other.num_frames
    np.testing.assert_array_equal(other.observed_labels, frames)
    np.testing.assert_array_equal(other.features.read(0, len(frames)).argmax(1), frames)
    paced = varied(video, Variation(0.2), seed).frames()
    assert len(paced) == len(frames)
    for _, first, end in run_lengths(paced):
        assert len(set(frames[first:end])) == 1


def test_every_segment_can_be_exchanged_and_none_need_be():
    video = labelled(VIDEOS[0])
    changed = [
        (varied(video, Variation(0.0, share), 1).frames() != video.frames()).mean()
        for share in (1.0, 1e-9)
    ]
    assert changed[0] > 0.5
    assert changed[1] == 0


@pytest.mark.parametrize(
    "video", [VIDEOS[0], replace(labelled(VIDEOS[0]), observed_labels=1 - VIDEOS[0].frames() // 9)]
)
def test_only_true_labels_can_be_exchanged(video):
    with pytest.raises(ValueError, match=r"relabel must go with the true labels .*--input labels"):
        varied(video, Variation(0.0, 0.5), 0)


def test_a_variation_is_a_function_of_its_seed():
    video = VIDEOS[0]
    lengths = [varied(video, Variation(0.5), seed).num_frames for seed in (1, 1, 2)]
    assert lengths[0] == lengths[1] != lengths[2]


def test_no_variation_changes_nothing():
    assert not Variation()
    unchanged = varied(VIDEOS[0], Variation(), 5).frames()
    np.testing.assert_array_equal(unchanged, VIDEOS[0].frames())
    source = CutVideos(VIDEOS, LongTerm(), 1, len(DATASET.taxonomy.labels), Variation())
    assert source[Item(0, 0.3, 1)].features.shape == source[Item(0, 0.3, 2)].features.shape
