import gzip
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actioncast.data.visor import (
    NUM_SCALARS,
    SeenObject,
    VisorAnnotation,
    VisorConfig,
    VisorObjects,
    read_visor,
)
from actioncast.protocols.next_action import NextAction, Recognition
from epic_folders import clip, real_epic_kitchens, real_path

HEADER = (
    "split,video,subsequence,frame,ek_frame,timestamp_s,object_id,name,class_id,exhaustive,contact,"
    "x,y,w,h,area"
)


def row(time: float, name: str, noun: int, box: str, *, contact: str = "", rate: int = 60) -> str:
    """An object of video P01_01; frames count from 1."""
    number = round(time * rate) + 1
    frame = f"frame_{number:010d}.jpg"
    return f"train,P01_01,s,P01_01_{frame},{frame},{time},{name},n,{noun},y,{contact},{box},1036800"


def write(folder: Path, rows: Sequence[str]) -> Path:
    path = folder / "visor_boxes.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *rows, ""]).encode()))
    return path


def seen(time: float, name: str, noun: int = 0) -> SeenObject:
    return SeenObject(
        id=name,
        time=time,
        noun=noun,
        center=(0.5, 0.5),
        size=(0.1, 0.2),
        area=0.01,
        touched=False,
    )


def annotation(objects: Sequence[SeenObject]) -> VisorAnnotation:
    ordered = tuple(sorted(objects, key=lambda one: (one.time, one.id)))
    return VisorAnnotation(
        videos={"P01_01": ordered}, num_nouns=3, num_frames=0, num_objects=len(ordered)
    )


ASKED = clip("P01_01_9", 10.0, 12.0)


def test_an_object_and_a_hand_on_it_by_hand(tmp_path: Path):
    rows = [
        row(4.0, "pan", 1, "480,270,960,540"),
        row(4.0, "left", 300, "0,0,10,10", contact="pan"),
        row(4.0, "tap", 0, "0,0,192,108"),
    ]
    read = read_visor(write(tmp_path, rows), num_nouns=3)
    assert (read.num_objects, read.num_frames, len(read.videos["P01_01"])) == (3, 1, 2)
    source = VisorObjects(read, NextAction())
    assert source.width == 3 + NUM_SCALARS
    # Frame 241 of 60 a second: seen at 4.0167 s, a hair after its stamp of 4 s.
    log = np.log1p(9 - 241 / 60)
    expected = [
        [0, 1, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 1, log],
        [1, 0, 0, 0.05, 0.05, 0.1, 0.1, 0.5, 0, log],
    ]
    assert source.read(ASKED) == pytest.approx(np.array(expected), abs=1e-6)
    assert [one.id for one in source.seen(ASKED)] == ["pan", "tap"]


@pytest.mark.parametrize(
    ("stamp", "frame", "time"),
    [
        (7.017, 417, 7.017),  # VISOR's frame 422: the later of both clocks
        (100.0, 6007, 6007 / 60),
        (100.0, 5001, 5001 / 50),
        (0.1, 7, 7 / 50),  # too early to tell 60 from 50: the later
    ],
)
def test_a_frame_is_seen_at_the_later_of_its_two_times(
    tmp_path: Path, stamp: float, frame: int, time: float
):
    text = row(stamp, "a", 0, "0,0,1,1").replace(
        f"frame_{round(stamp * 60) + 1:010d}", f"frame_{frame:010d}"
    )
    read = read_visor(write(tmp_path, [text]), num_nouns=3)
    assert read.videos["P01_01"][0].time == pytest.approx(time)


def test_the_latest_come_first_and_only_so_many_of_the_window():
    objects = [seen(1.0, "old"), seen(5.0, "b"), seen(5.0, "a"), seen(8.0, "c"), seen(9.0, "x")]
    config = VisorConfig(window=5.0, max_objects=2)
    told = VisorObjects(annotation(objects), NextAction(), config).seen(ASKED)
    assert [one.id for one in told] == ["c", "a"]
    wide = VisorConfig(window=5.0)
    told = VisorObjects(annotation(objects), NextAction(), wide).seen(ASKED)
    assert [one.id for one in told] == ["c", "a", "b"]


def test_recognition_sees_to_the_end_of_the_clip():
    source = VisorObjects(annotation([seen(11.0, "a"), seen(12.0, "b")]), Recognition())
    assert [one.id for one in source.seen(ASKED)] == ["a"]


def test_a_video_without_annotation_has_no_token():
    source = VisorObjects(annotation([seen(1.0, "a")]), NextAction())
    assert source.read(clip("P02_01_0", 9.0, 10.0, video="P02_01")).shape == (0, source.width)
    assert source.seen(clip("P02_01_0", 9.0, 10.0, video="P02_01")) == ()


OBJECTS = st.builds(
    seen, st.integers(0, 200).map(lambda n: n / 10), st.uuids().map(str), st.integers(0, 2)
)


@given(st.lists(OBJECTS, max_size=12), st.data())
def test_nothing_at_or_after_the_boundary_changes_what_is_told(
    objects: list[SeenObject], data: st.DataObject
):
    config = VisorConfig(max_objects=4)
    told = VisorObjects(annotation(objects), NextAction(), config).read(ASKED)
    past = [one for one in objects if one.time < 9.0]
    future = [one for one in objects if one.time >= 9.0]
    changed = [
        replace(one, noun=data.draw(st.integers(0, 2)), time=one.time + data.draw(st.floats(0, 9)))
        for one in future
    ]
    for others in (past, [*past, *changed], [*past, *changed, seen(9.0, "at the boundary")]):
        source = VisorObjects(annotation(others), NextAction(), config)
        spoilt = replace(ASKED, verb=2, noun=1, action=5, stop=99.0)
        assert (source.read(spoilt) == told).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (row(4.0, "a", 7, "0,0,1,1"), r"row 2: class_id must be a class of 0\.\.2, got 7"),
        (row(4.0, "a", 400, "0,0,1,1"), "row 2: class_id must be a class"),
        (row(4.0, "a", 0, "0,?,1,1"), r"row 2: y must be a number, got '\?'"),
        (row(4.0, "a", 0, "0,0,1,1").replace("frame_0", "f"), "ek_frame must be a name such as"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_visor(write(tmp_path, [text]), num_nouns=3)


def test_a_broken_archive_is_named(tmp_path: Path):
    path = tmp_path / "visor_boxes.csv.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="visor_boxes"):
        read_visor(path)


@pytest.mark.parametrize("wrong", [{"window": 0.0}, {"max_objects": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="must be"):
        VisorConfig(**wrong)  # type: ignore[arg-type]


# The published annotation


@cache
def published() -> VisorAnnotation:
    return read_visor(real_path("visor/visor_boxes.csv.gz"))


def test_published_objects_cover_98_videos_and_some_of_the_clips():
    dataset = real_epic_kitchens()
    read = published()
    assert (len(read.videos), read.num_frames, read.num_objects) == (98, 10_009, 49_503)
    assert sum(len(objects) for objects in read.videos.values()) == 33_915
    source = VisorObjects(read, NextAction())
    covered = {
        part: sum(len(source.read(one)) > 0 for one in dataset.part(part)) for part in dataset.clips
    }
    of_videos = {
        part: sum(one.video in read.videos for one in dataset.part(part)) for part in dataset.clips
    }
    assert of_videos == {"train": 5_130, "validation": 1_349}
    assert covered == {"train": 4_855, "validation": 1_212}


def test_no_published_object_lies_outside_its_video():
    dataset = real_epic_kitchens()
    for video, objects in published().videos.items():
        assert all(0 <= one.time < dataset.videos[video].duration for one in objects)
        assert all(-0.05 < axis < 1.05 for one in objects for axis in one.center)
