"""Folders of frame labels in the MS-TCN layout: Breakfast, 50 Salads, GTEA, CAD-120, your own.

A folder holds
- `mapping.txt`: one `index name` a line;
- `groundTruth/<video>.txt`: one label a frame;
- `features/<video>.npy`, optional: (feature, time) or (time, feature);
- `splits/train.split<k>.bundle` and `splits/test.split<k>.bundle`, optional: one video a line;
- `dataset.json`, optional: `{"name": ..., "rate": ..., "background": [...]}`.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from actioncast.data.base import Dataset, Split, Video
from actioncast.features import FeatureFile, common_layout, read_header, time_axis
from actioncast.timeline import LabelSpace, Taxonomy, Timeline

LAYOUT = "see docs/your_own_videos.md for the layout of a dataset folder"
SUFFIXES = (".txt", ".npy", ".avi", ".mp4", ".mkv", ".mov", ".webm")
"""What may follow the name of a video in a bundle."""
DEFAULT_RATE = 15.0
"""Frames per second of a folder that does not say its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFolder:
    """What the files of a public set do not say."""

    rate: float
    """Frames per second of labels and features."""
    group: Callable[[str], str] | None = None
    """Who acts in a video, from its name."""
    recording: Callable[[str], str] = str
    """What was filmed, from the name of a video: one recording may have several cameras."""


KNOWN: Mapping[str, KnownFolder] = {
    "breakfast": KnownFolder(
        rate=15.0,
        group=lambda name: name.split("_")[0],
        recording=lambda name: "_".join(name.split("_")[2:]),
    ),
    "50salads": KnownFolder(rate=30.0, group=lambda name: name.split("-")[1]),
    "gtea": KnownFolder(rate=15.0, group=lambda name: name.split("_")[0]),
    "cad120": KnownFolder(rate=1.5),
}
"""The public sets in this layout, by folder name."""


def open_frame_labels(path: Path, rate: float | None = None) -> Dataset:
    """Read a folder in the MS-TCN layout.

    Args:
        path: The folder.
        rate: Frames per second of labels and features; absent, the folder's `dataset.json`, the
            known rate of a public set, or 15.

    Raises:
        ValueError, FileNotFoundError: The folder breaks the layout; the message names the file,
            and the line where there is one.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"the dataset folder {path} does not exist; {LAYOUT}.")
    warnings: list[str] = []
    about = _about(path)
    name = str(about.get("name", path.resolve().name))
    known = KNOWN.get(name)
    if rate is None and "rate" in about:
        rate = _number(path / "dataset.json", about["rate"])
    if rate is None and known is not None:
        rate = known.rate
    if rate is None:
        rate = DEFAULT_RATE
        warnings.append(
            f"{path} does not say its frame rate: {rate:g} frames per second assumed; "
            'say --rate, or write {"rate": ...} to its dataset.json.'
        )
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be a positive number of frames per second, got {rate}.")
    labels = _labels(path, about)
    frames = _ground_truth(path, labels)
    splits = _splits(path, sorted(frames), warnings)
    features = _features(path, {video: len(labels_) for video, labels_ in frames.items()}, warnings)
    group = known.group if known is not None and known.group is not None else None
    videos = {
        video: Video(
            id=video,
            timeline=Timeline.from_frames(labels_, rate, labels),
            rate=rate,
            num_frames=len(labels_),
            features=features.get(video),
            group=group(video) if group else _group(video, splits),
            recording=known.recording(video) if known is not None else video,
        )
        for video, labels_ in frames.items()
    }
    return Dataset(
        name=name,
        taxonomy=Taxonomy({"action": labels}),
        rate=rate,
        videos=videos,
        splits=splits,
        warnings=tuple(warnings),
    )


def read_mapping(path: Path, background: Sequence[str] = ("background",)) -> LabelSpace:
    """Read `index name` lines; names may hold spaces, indices run from 0 without gaps."""
    names: dict[int, str] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        index, name = [*line.split(None, 1), "", ""][:2]
        if not index.isdecimal() or not name.strip():
            raise ValueError(
                f"{path}, line {number}: must be 'index name', for example '0 pour_milk', "
                f"got {line.strip()!r}."
            )
        if int(index) in names:
            raise ValueError(
                f"{path}, line {number}: index {index} stands there twice; number actions from 0."
            )
        if name.strip() in names.values():
            raise ValueError(
                f"{path}, line {number}: action {name.strip()!r} stands there twice; take one out."
            )
        names[int(index)] = name.strip()
    if sorted(names) != list(range(len(names))):
        raise ValueError(
            f"{path}: indices must run from 0 to {len(names) - 1} without gaps, "
            f"got {', '.join(map(str, sorted(names)[:20]))}; number the actions anew."
        )
    if not names:
        raise ValueError(f"{path} must name at least one action, got an empty file; {LAYOUT}.")
    ordered = tuple(names[i] for i in range(len(names)))
    return LabelSpace(ordered, frozenset(background) & set(ordered))


def read_frame_labels(path: Path, labels: LabelSpace) -> Int[np.ndarray, " time"]:
    """Read one label a line; blank lines at the end are ignored.

    Raises:
        ValueError: A label is not in the mapping; the message names file and line.
    """
    lines = _lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise ValueError(
            f"{path} must hold one label a frame, got an empty file; annotate the video or take "
            "the file out."
        )
    index = {name: i for i, name in enumerate(labels.names)}
    frames = np.array([index.get(line, -1) for line in lines])
    for i in np.flatnonzero(frames < 0):
        frames[i] = index.get(lines[i].strip(), -1)
        if frames[i] < 0:
            raise ValueError(
                f"{path}, line {i + 1}: unknown label {lines[i].strip()!r}; "
                "mapping.txt must list every action."
            )
    return frames


def _about(path: Path) -> dict[str, object]:
    file = path / "dataset.json"
    if not file.exists():
        return {}
    try:
        about = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f'{file} must be JSON, for example {{"rate": 15}}, got {error}.') from None
    if not isinstance(about, dict) or (unknown := set(about) - {"name", "rate", "background"}):
        found = sorted(unknown) if isinstance(about, dict) else type(about).__name__
        raise ValueError(
            f"{file} may hold name, rate and background, got {found}; take the rest out."
        )
    return about


def _number(file: Path, value: object) -> float:
    rate = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
    if not 0 < rate < math.inf:
        raise ValueError(
            f"{file}: rate must be a positive number of frames per second, got {value!r}; write "
            'for example "rate": 15.'
        )
    return float(rate)


def _labels(path: Path, about: Mapping[str, object]) -> LabelSpace:
    background = about.get("background", ["background"])
    if not isinstance(background, list):
        raise ValueError(
            f"{path / 'dataset.json'}: background must be a list of names, got {background!r}."
        )
    file = path / "mapping.txt"
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist; {LAYOUT}.")
    labels = read_mapping(file, [str(name) for name in background])
    if "background" in about and (unknown := set(background) - labels.background):
        raise ValueError(
            f"{path / 'dataset.json'}: background must name actions of mapping.txt, got "
            f"{', '.join(map(repr, sorted(map(str, unknown))))}; spell them as it does."
        )
    return labels


def _ground_truth(path: Path, labels: LabelSpace) -> dict[str, Int[np.ndarray, " time"]]:
    folder = path / "groundTruth"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; {LAYOUT}.")
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise ValueError(f"{folder} must hold one .txt file a video, got none; {LAYOUT}.")
    return {file.stem: read_frame_labels(file, labels) for file in files}


def _splits(path: Path, videos: Sequence[str], warnings: list[str]) -> dict[str, Split]:
    folder = path / "splits"
    parts: dict[str, dict[str, tuple[str, ...]]] = {}
    for file in sorted(folder.glob("*.bundle")) if folder.is_dir() else []:
        if match := re.fullmatch(r"(train|test)(?:\.split(.+))?\.bundle", file.name):
            part, name = match[1], match[2] or "1"
            parts.setdefault(name, {})[part] = _bundle(file, videos, warnings)
    if not parts:
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(
                f"{folder} must hold train.split1.bundle and test.split1.bundle, got no bundle by "
                "such a name; rename the files, or take the folder away."
            )
        return _own_split(path, videos, warnings)
    for name, split in parts.items():
        for part in ("train", "test"):
            if part not in split:
                raise ValueError(
                    f"{folder} must hold {part}.split{name}.bundle beside its counterpart."
                )
        if both := sorted(set(split["train"]) & set(split["test"])):
            raise ValueError(
                f"{folder}: split {name} has {len(both)} videos in train and in test, {both[0]} "
                "for one; a score on them would mean nothing: take them out of one bundle."
            )
    return {
        name: Split(split["train"], split["test"])
        for name, split in sorted(parts.items(), key=lambda item: (len(item[0]), item[0]))
    }


def _bundle(file: Path, videos: Sequence[str], warnings: list[str]) -> tuple[str, ...]:
    known, found = set(videos), []
    for number, line in enumerate(_lines(file), 1):
        if not (entry := line.strip().rsplit("/", 1)[-1]):
            continue
        # Names may end with those of label files, of videos, or of both.
        bare = entry
        while bare.lower().endswith(SUFFIXES):
            bare = bare.rpartition(".")[0]
        candidates = (entry, entry.removesuffix(".txt"), bare)
        video = next((name for name in candidates if name in known), None)
        if video is None:
            raise ValueError(
                f"{file}, line {number}: {entry!r} has no groundTruth/{candidates[1]}.txt; "
                "add the file or take the line out."
            )
        found.append(video)
    if not found:
        raise ValueError(f"{file} must name at least one video, got none; write one a line.")
    if len(set(found)) < len(found):
        warnings.append(f"{file} names {len(found) - len(set(found))} videos twice; counted once.")
    return tuple(dict.fromkeys(found))


def _own_split(path: Path, videos: Sequence[str], warnings: list[str]) -> dict[str, Split]:
    if len(videos) < 2:
        raise ValueError(
            f"{path} must hold at least two videos, one to train and one to test, got one."
        )
    num_test = max(1, round(len(videos) / 5))
    warnings.append(
        f"{path} has no splits: the last {num_test} of {len(videos)} videos by name are the test "
        "part of split 1; write splits/train.split1.bundle and test.split1.bundle to choose."
    )
    return {"1": Split(tuple(videos[:-num_test]), tuple(videos[-num_test:]))}


def _features(
    path: Path, lengths: Mapping[str, int], warnings: list[str]
) -> dict[str, FeatureFile]:
    folder = path / "features"
    if not folder.is_dir():
        return {}
    files = {file.stem: file for file in folder.glob("*.npy")}
    if not files:
        raise ValueError(f"{folder} must hold one .npy file a video, got none; {LAYOUT}.")
    if missing := sorted(set(lengths) - set(files)):
        raise FileNotFoundError(
            f"{folder / missing[0]}.npy does not exist ({len(missing)} of {len(lengths)} videos "
            "have no features); every video of groundTruth/ needs its features."
        )
    headers = {video: read_header(files[video]) for video in lengths}
    width, usual = common_layout([headers[v].shape for v in lengths], list(lengths.values()))
    found: dict[str, FeatureFile] = {}
    longer = shorter = 0
    for video, num_frames in lengths.items():
        shape = headers[video].shape
        axis = time_axis(files[video], shape, num_frames, width, usual)
        longer += shape[axis] > num_frames
        shorter += shape[axis] < num_frames
        found[video] = FeatureFile(files[video], num_frames, axis, shape[1 - axis])
    if longer or shorter:
        warnings.append(
            f"{folder}: features of {longer} videos are longer than their labels (cut to the "
            f"labels), of {shorter} shorter (their last vector held)."
        )
    return found


def _group(video: str, splits: Mapping[str, Split]) -> str:
    """Where test parts partition the videos, as leave-one-subject-out does, they are the groups."""
    tests = [name for name, split in splits.items() if video in split.test]
    return f"split {tests[0]}" if len(splits) > 2 and len(tests) == 1 else video


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be a UTF-8 text file, got {error}; save it as UTF-8."
        ) from None
