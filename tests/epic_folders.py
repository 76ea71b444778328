"""EPIC-KITCHENS folders in both layouts, written as a user might, and clips by hand."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from actioncast.data.clips import ActionClip, ClipDataset, VideoInfo
from actioncast.data.epic_kitchens import open_epic_kitchens
from actioncast.timeline import LabelSpace, Taxonomy
from real_data import ROOT

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
VERBS = ("take", "put", "wash")
NOUNS = ("tap", "pan")
TRAIN = ("P01_01_0 00:00:00.14 00:00:03.37 0 0", "P01_01_1 00:00:04.00 00:00:06.17 2 1")
VALIDATION = ("P02_01_0 00:00:01.00 00:00:02.50 1 1", "P01_02_0 00:01:00.50 00:01:02.00 0 0")


def official_row(text: str) -> str:
    """`id start stop verb noun` as a row of the published files."""
    name, start, stop, verb, noun = text.split(" ")
    video = name.rpartition("_")[0]
    return (
        f"{name},{video.partition('_')[0]},{video},,{start},{stop},,,take the pan,take,{verb},pan,"
        f"{noun},['pan'],[1]"
    )


def write_official(
    folder: Path,
    *,
    train: Sequence[str] = TRAIN,
    validation: Sequence[str] = VALIDATION,
    extra: Mapping[str, str] | None = None,
) -> Path:
    """Write the annotation, the classes and what `extra` holds by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("validation", validation)):
        lines = [HEADER, *map(official_row, rows)]
        (folder / f"EPIC_100_{part}.csv").write_text("\n".join(lines) + "\n")
    write_classes(folder)
    for name, text in (extra or {}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write_classes(folder: Path) -> None:
    """Write both class files."""
    for kind, names in (("verb", VERBS), ("noun", NOUNS)):
        rows = [f"{i},{name},\"['{name}', '{name}s']\",{kind}s" for i, name in enumerate(names)]
        text = "\n".join(["id,key,instances,category", *rows]) + "\n"
        (folder / f"EPIC_100_{kind}_classes.csv").write_text(text)


def clip(
    name: str, start: float, stop: float, verb: int = 0, noun: int = 0, video: str = "P01_01"
) -> ActionClip:
    """An action of three verbs and two nouns."""
    return ActionClip(
        id=name,
        video=video,
        participant=video[:3],
        start=start,
        stop=stop,
        verb=verb,
        noun=noun,
        action=2 * verb + noun,
    )


def clip_dataset(clips: Sequence[ActionClip], duration: float = 1000.0) -> ClipDataset:
    """All clips in the train part, all six actions known."""
    pairs = tuple((verb, noun) for verb in range(3) for noun in range(2))
    heads = {
        "verb": LabelSpace(VERBS),
        "noun": LabelSpace(NOUNS),
        "action": LabelSpace(tuple(f"{VERBS[verb]} {NOUNS[noun]}" for verb, noun in pairs)),
    }
    return ClipDataset(
        name="kitchen",
        taxonomy=Taxonomy(heads, pairs=pairs),
        clips={"train": tuple(clips), "validation": ()},
        videos={one.video: VideoInfo(duration=duration, rate=60.0) for one in clips},
    )


def real_epic_kitchens(folder: str = "") -> ClipDataset:
    """The published annotation; without it the calling test skips, or fails in CI."""
    return _opened(real_path("epic100") / folder)


def real_path(name: str) -> Path:
    """A file or folder of the public data; without it as `real_epic_kitchens`."""
    path = ROOT / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have {path}, got nothing there.")
        pytest.skip(f"no {path}; set ACTIONCAST_DATA")
    return path


@cache
def _opened(folder: Path) -> ClipDataset:
    return open_epic_kitchens(folder)
