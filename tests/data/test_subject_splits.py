"""Splits by who acts: whatever the videos are, nobody is on both sides."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import folders
from actioncast.data import Video, open_dataset, subject_parts, subject_splits, write_splits
from actioncast.timeline import LabelSpace, Timeline

LABELS = LabelSpace(("a",))


def video(number: int, group: str, recording: str = "") -> Video:
    timeline = Timeline.from_frames(np.zeros(2, int), 1.0, LABELS)
    return Video(
        id=f"v{number}", timeline=timeline, rate=1.0, num_frames=2, group=group, recording=recording
    )


def activity(video: Video) -> str:
    return video.recording.rpartition("-")[2]


ROWS = st.lists(
    st.tuples(st.sampled_from(["", *"pqrstuvw"]), st.sampled_from(["", "x", "y", "z"])),
    min_size=1,
    max_size=40,
)
"""Who acts in each video, and what was filmed of them; some of nobody."""


def filmed(rows: list[tuple[str, str]]) -> list[Video]:
    return [
        video(i, group, f"{group}-{recording}" if recording else "")
        for i, (group, recording) in enumerate(rows)
    ]


def sets(videos: list[Video]) -> int:
    """How many videos or groups of them have nothing in common."""
    return len({v.group or v.recording or v.id for v in videos})


@given(ROWS, st.integers(2, 6), st.integers(0, 5), st.booleans())
def test_nobody_and_nothing_filmed_is_on_both_sides(
    rows: list[tuple[str, str]], folds: int, seed: int, stratified: bool
):
    videos = filmed(rows)
    assume(sets(videos) >= folds)
    splits = subject_splits(videos, folds, seed, stratum=activity if stratified else None)
    assert splits == subject_splits(videos, folds, seed, stratum=activity if stratified else None)
    by_id = {v.id: v for v in videos}
    tested: Counter[str] = Counter()
    assert list(splits) == [str(k + 1) for k in range(folds)]
    for split in splits.values():
        assert sorted((*split.train, *split.test)) == sorted(by_id)
        assert split.train
        assert split.test
        tested.update(split.test)
        train, test = ([by_id[name] for name in part] for part in (split.train, split.test))
        for said in ("group", "recording"):
            assert not {getattr(v, said) for v in train} & {getattr(v, said) for v in test} - {""}
    assert set(tested.values()) == {1}


@given(ROWS, st.lists(st.floats(0.05, 5), min_size=1, max_size=4), st.integers(0, 5))
def test_parts_hold_every_video_once(rows: list[tuple[str, str]], shares: list[float], seed: int):
    videos = filmed(rows)
    assume(sets(videos) >= len(shares))
    parts = subject_parts(videos, shares, seed)
    assert len(parts) == len(shares)
    assert all(parts)
    assert sorted(name for part in parts for name in part) == sorted(v.id for v in videos)
    groups = [{v.group for v in videos if v.id in part} - {""} for part in parts]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_recordings_of_several_people_bring_these_together():
    videos = [video(0, "p", "x"), video(1, "q", "x"), video(2, "q"), video(3, "r"), video(4, "s")]
    for split in subject_splits(videos, 3).values():
        assert len({"v0", "v1", "v2"} & set(split.test)) in (0, 3)


def test_folds_are_as_large_as_people_allow():
    people = [video(10 * p + i, f"P{p}") for p in range(10) for i in range(4)]
    sizes = [len(split.test) for split in subject_splits(people, 5).values()]
    assert sizes == [8] * 5
    parts = subject_parts(people, (0.7, 0.2, 0.1))
    assert [len(part) for part in parts] == [28, 8, 4]


def test_people_of_many_videos_are_dealt_first():
    """Dealt last, one of six videos would come on top of three that are there already."""
    videos = [video(i, "often") for i in range(6)] + [video(10 + i, f"P{i}") for i in range(6)]
    for seed in range(10):
        assert [len(split.test) for split in subject_splits(videos, 2, seed).values()] == [6, 6]


def test_a_stratum_is_as_common_in_every_fold():
    """Half the people cook and half of them clean: by count alone a fold may hold only one."""
    people = [
        video(10 * p + i, f"P{p}", f"{p}.{i}-{'cook' if p % 2 else 'clean'}")
        for p in range(8)
        for i in range(3)
    ]
    for seed in range(5):
        for split in subject_splits(people, 4, seed, stratum=activity).values():
            own = Counter(activity(v) for v in people if v.id in split.test)
            assert own == {"cook": 3, "clean": 3}


def test_the_seed_says_which_of_equal_ways():
    people = [video(p, f"P{p}") for p in range(12)]
    found = {subject_splits(people, 3, seed)["1"].test for seed in range(8)}
    assert len(found) > 4


def test_who_acts_may_be_said_by_the_caller():
    videos = [video(i, f"own{i}") for i in range(6)]
    splits = subject_splits(videos, 2, group=lambda v: str(int(v.id[1:]) // 3))
    assert {splits["1"].test, splits["2"].test} == {("v0", "v1", "v2"), ("v3", "v4", "v5")}


def test_too_few_people_are_refused():
    with pytest.raises(ValueError, match="a person for each of 3 parts, got 2"):
        subject_splits([video(0, "p"), video(1, "q"), video(2, "q")], 3)
    with pytest.raises(ValueError, match="folds must be at least 2, got 1"):
        subject_splits([video(0, "p")], 1)
    for shares in ((), (0.5, 0.0), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="shares must be positive"):
            subject_parts([video(0, "p"), video(1, "q")], shares)


def test_splits_are_written_for_a_folder_of_ones_own(tmp_path: Path):
    names = [f"P{p}_v{i}" for p in range(4) for i in range(2)]
    folder = folders.write_folder(tmp_path / "tiny", names=names, features=False)
    videos = list(open_dataset("", folder).videos.values())
    splits = subject_splits(videos, 2, group=lambda v: v.id.split("_")[0])
    write_splits(splits, folder)
    assert dict(open_dataset("", folder).splits) == splits
    with pytest.raises(ValueError, match=r"must hold no bundle, got test.split1.bundle"):
        write_splits(splits, folder)
