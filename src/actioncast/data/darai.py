"""DARai: daily activities with labels at three levels, in the layout of its released code.

Activities (level 1) hold actions (level 2), and these procedures (level 3). A folder holds
- `groundTruth_img/<recording>.txt` (or `groundTruth/`): a frame a line, `image, action, procedure`.
  A recording is `<subject>_<session>_cam_<camera>_<activity>`, an image
  `<subject>_<session>_<frame>.jpg`;
- `mapping_l2.txt` and `mapping_l3.txt` (or `mapping_l2_changed.txt`, ...): `index name` lines. No
  list of labels is released, so these are the user's own;
- `features_img/` (or `features/`), optional: (time, feature), 2048 wide as released, in
  `<recording>.npy` with a row for each line, or for each that has labels, or in `<video>.npy`;
- `splits/`, optional: `train_split.txt`, `val_split.txt` and `test_split.txt` as the code has them,
  or bundles, of recordings or videos;
- `activities.txt`, optional: an activity a line, and no recording of another is read. The code
  anticipates in seven activities of the kitchen; without the file all are read.

Read as the code reads it (sheet section 5): lines without exactly three fields or with a blank
label are left out, and labels compared without their blanks. Their names keep the blanks of the
mapping file, so that a text encoder reads words. A recording becomes videos `<recording>_<k>`,
counted from 0 [I], wherever the numbers of its frames are not consecutive. At 15 lines or fewer the
code stops reading a recording; here such a stretch alone is left out.

`UNDEFINED` (index 16 of the actions and 47 of the procedures in the released lists) is a label like
any other here: learned, answered and scored. The code leaves it out of its loss of procedures and
out of its accuracy; models of whole videos have no label that is passed over (`LabelSpace.unknown`
is of streams), and their MoC counts it as one of the labels that it is the mean of.

Labels are procedures. An action stands above every frame, since one procedure may serve several
actions, and an activity above every video. Two cameras of one session show the same acts, which the
code, splitting by files, may put on both sides: without `splits/` nobody is on both.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from actioncast.data.base import Dataset, Split, Video
from actioncast.data.darai_files import (
    ACTIONS,
    PROCEDURES,
    SHORTEST,
    Recordings,
    Take,
    frames_of,
    is_darai,
    read_labels,
    read_recordings,
)
from actioncast.data.hierarchy import Hierarchy
from actioncast.data.subject_splits import subject_splits
from actioncast.features import FeatureFile, read_header
from actioncast.timeline import LabelSpace, Taxonomy, Timeline

RATE = 15.0
"""Frames per second [I]: the code calls every 15th frame a second."""
FOLDS = 5
"""Splits that are made where the folder has none, or as many as there are people."""
FEATURES = ("features_img", "features")


@dataclass(frozen=True, slots=True)
class PartOfFeatures:
    """Consecutive vectors of a longer file."""

    file: FeatureFile
    first: int

    @property
    def num_features(self) -> int:
        """Width of a vector."""
        return self.file.num_features

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Every `stride`-th vector of the frames `[start, end)`, as float32."""
        return self.file.read(self.first + start, self.first + end, stride)


def open_darai(path: Path, rate: float | None = None) -> Dataset:
    """Read DARai from a folder, its procedures as labels.

    Args:
        path: The folder.
        rate: Frames per second of labels and features; absent, 15.

    Raises:
        ValueError, FileNotFoundError: The folder breaks the layout; the message names the file.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise ValueError(f"rate must be a positive number of frames per second, got {rate}.")
    rate = rate or RATE
    found = read_recordings(path)
    warnings = list(found.warnings)
    labels = read_labels(path, PROCEDURES, found.takes)
    features = _features(path, found.takes, found.lengths)
    videos = {
        take.id: Video(
            id=take.id,
            timeline=Timeline.from_frames(frames_of(take, PROCEDURES, labels), rate, labels),
            rate=rate,
            num_frames=len(take.lines),
            features=features.get(take.id),
            group=take.subject,
            recording=f"{take.subject}_{take.session}_{take.activity}",
        )
        for take in found.takes
    }
    splits = _given(path, found)
    if splits:
        warnings += _leaks(path, splits, videos)
    else:
        activities = {take.id: take.activity for take in found.takes}
        splits = _by_person(path, list(videos.values()), activities)
        warnings.append(
            f"{path} has no splits: {len(splits)} were made, nobody on both sides of any; the "
            "paper's own list of files is not released."
        )
    return Dataset(
        name="darai",
        taxonomy=Taxonomy({"procedure": labels}, "procedure"),
        rate=rate,
        videos=videos,
        splits=splits,
        warnings=tuple(warnings),
    )


def actions_of_darai(dataset: Dataset, folder: Path | None) -> Hierarchy:
    """Actions (level 2) over procedures (level 3), frame by frame."""
    path = _folder(folder)
    takes = read_recordings(path).takes
    labels = read_labels(path, ACTIONS, takes)
    by_frame = {
        take.id: frames_of(take, ACTIONS, labels) for take in takes if take.id in dataset.videos
    }
    return Hierarchy(level="action", labels=labels, by_frame=by_frame)


def activities_of_darai(dataset: Dataset, folder: Path | None) -> Hierarchy:
    """Activities (level 1) over procedures (level 3), video by video."""
    by_video = {
        take.id: take.activity
        for take in read_recordings(_folder(folder)).takes
        if take.id in dataset.videos
    }
    labels = LabelSpace(tuple(sorted(set(by_video.values()))))
    return Hierarchy(level="activity", labels=labels, by_video=by_video)


def _folder(folder: Path | None) -> Path:
    if folder is None or not is_darai(folder):
        raise FileNotFoundError(
            f"the levels of DARai are read from its own folder, got {folder}; say --hierarchy FILE."
        )
    return folder


def _by_person(path: Path, videos: Sequence[Video], activities: dict[str, str]) -> dict[str, Split]:
    people = len({video.group for video in videos})
    if people < 2:
        raise ValueError(
            f"{path} must show two people at least, one to train and one to test, got "
            f"{videos[0].group} alone; write splits/train_split.txt and test_split.txt."
        )
    return subject_splits(videos, min(FOLDS, people), stratum=lambda video: activities[video.id])


def _given(path: Path, read: Recordings) -> dict[str, Split]:
    """The splits that a folder brings, of recordings or takes; none where it brings none.

    The part to validate joins the part to train: what is held out is drawn anew. Recordings of
    activities that were not chosen are passed over.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for file in sorted((path / "splits").glob("*")):
        match = re.fullmatch(
            r"(train|val|test)(?:_split)?(?:\.split(.+))?\.(txt|bundle)", file.name
        )
        if match:
            found.setdefault(match[2] or "1", {})[match[1]] = _listed(file, read)
    splits: dict[str, Split] = {}
    for name, parts in found.items():
        if lost := {"train", "test"} - set(parts):
            raise FileNotFoundError(
                f"{path / 'splits'} must hold a list to {sorted(lost)[0]} of split {name} beside "
                "its counterpart."
            )
        train = tuple(dict.fromkeys([*parts["train"], *parts.get("val", [])]))
        if both := sorted(set(train) & set(parts["test"])):
            raise ValueError(
                f"{path / 'splits'}: split {name} has {both[0]} in its test part and in another; "
                "take it out of one."
            )
        splits[name] = Split(train, tuple(dict.fromkeys(parts["test"])))
    return splits


def _listed(file: Path, read: Recordings) -> list[str]:
    chosen: list[str] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        entry = line.strip().rpartition("/")[2].removesuffix(".txt")
        if not entry or {entry, entry.rpartition("_")[0]} & read.left_out:
            continue
        own = [take.id for take in read.takes if entry in (take.id, take.file.stem)]
        if not own:
            raise ValueError(
                f"{file}, line {number}: {entry!r} names no recording that has more than "
                f"{SHORTEST} labelled frames in a row; add its file or take the line out."
            )
        chosen += own
    if not chosen:
        raise ValueError(f"{file} must name at least one recording that is read, got none.")
    return chosen


def _leaks(path: Path, splits: dict[str, Split], videos: dict[str, Video]) -> list[str]:
    """What to say of people and sessions that a given split has on both sides."""
    said = []
    for name, split in splits.items():
        train, test = ([videos[v] for v in part] for part in (split.train, split.test))
        people = {v.group for v in train} & {v.group for v in test}
        sessions = {v.recording for v in train} & {v.recording for v in test}
        if people:
            said.append(
                f"{path / 'splits'}: split {name} has {len(people)} people on both sides, and "
                f"{len(sessions)} sessions by another camera; take the lists away for splits by "
                "person."
            )
    return said


def _features(
    path: Path, takes: Sequence[Take], lengths: Mapping[str, tuple[int, int]]
) -> dict[str, PartOfFeatures]:
    folder = next((path / name for name in FEATURES if (path / name).is_dir()), None)
    if folder is None:
        return {}
    found: dict[str, PartOfFeatures] = {}
    for take in takes:
        recording = take.file.stem
        own, whole = folder / f"{take.id}.npy", folder / f"{recording}.npy"
        if own.is_file():
            allowed = {len(take.lines): 0}
        elif whole.is_file():
            every, labelled = lengths[recording]
            allowed = {every: take.lines[0], labelled: take.first}
        else:
            raise FileNotFoundError(
                f"{whole} does not exist, nor does {own.name}; every recording needs its features."
            )
        file = own if own.is_file() else whole
        rows, width = read_header(file).shape
        if rows not in allowed:
            hint = "; it may be transposed: time comes first" if width in allowed else ""
            wanted = " or ".join(map(str, sorted(allowed)))
            raise ValueError(
                f"{file} must have {wanted} rows, one for each line of {take.file}, got "
                f"{rows}{hint}."
            )
        first = allowed[rows]
        if rows > lengths[recording][1] and take.lines[-1] - first >= len(take.lines):
            raise ValueError(
                f"{take.file}: the lines of {take.id} must follow one another where features have "
                "a row for each line, got some between without labels; take these lines out."
            )
        # What follows the video in the file is another video's.
        file_of_take = FeatureFile(file, first + len(take.lines), 0, width)
        found[take.id] = PartOfFeatures(file_of_take, first)
    if len(widths := {source.num_features for source in found.values()}) > 1:
        raise ValueError(f"{folder} must hold features of one width, got {sorted(widths)}.")
    return found
