"""The text files of DARai: frames and their labels, lists of labels, and activities to read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from actioncast.data.frame_labels import read_mapping
from actioncast.timeline import LabelSpace

LABELS = ("groundTruth_img", "groundTruth")
"""Folders that may hold the frames of each recording."""
SHORTEST = 15
"""A take of so many lines, the stride of the released code, or fewer is not read."""
ACTIONS, PROCEDURES = "l2", "l3"
"""What the files call the levels."""
ACTIVITIES = "activities.txt"
"""Names the activities that are read, where there is one; else all are."""
CODE = "as the released code leaves them out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Lines of one recording whose frames follow one another: a video."""

    id: str
    file: Path
    first: int
    """Its first line among those of the recording that have labels."""
    lines: tuple[int, ...]
    """Where its lines stand in the file, from 0."""
    labels: Mapping[str, tuple[str, ...]]
    """The names of every frame, by level, as its file spells them."""
    subject: str
    session: str
    activity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """All that the frames of a folder say."""

    takes: tuple[Take, ...]
    lengths: Mapping[str, tuple[int, int]]
    """By recording, how many lines it has and how many of these have labels."""
    left_out: frozenset[str]
    """Recordings of activities that were not chosen."""
    warnings: tuple[str, ...]


def is_darai(path: Path) -> bool:
    """Whether a folder holds DARai in this layout."""
    return (path / LABELS[0]).is_dir() or _mapping_file(path, PROCEDURES).is_file()


def read_recordings(path: Path) -> Recordings:
    """Read the frames of every recording and cut them into takes.

    Raises:
        FileNotFoundError: There are none.
        ValueError: A file is named or written otherwise, a chosen activity has no recording, or
            nothing is left.
    """
    chosen = _chosen(path / ACTIVITIES)
    folder = next((path / name for name in LABELS if (path / name).is_dir()), None)
    files = sorted(folder.glob("*.txt")) if folder else []
    if folder is None or not files:
        raise FileNotFoundError(
            f"{path / LABELS[0]} must hold a file <recording>.txt with 'image, action, procedure' "
            "for every frame, got none; docs/your_own_videos.md says how they are named."
        )
    takes: list[Take] = []
    lengths: dict[str, tuple[int, int]] = {}
    left_out: dict[str, str] = {}
    unlabelled: list[tuple[str, int]] = []
    short: list[str] = []
    for file in files:
        rows = file.read_text(encoding="utf-8-sig").splitlines()
        kept = [_Line(i, *fields) for i, row in enumerate(rows) if (fields := _fields(row))]
        who = _who(file, kept[0].image) if kept else None
        if chosen and who is not None and without_blanks(who.activity) not in chosen:
            left_out[file.stem] = who.activity
            continue
        if lost := len(rows) - len(kept):
            unlabelled.append((file.stem, lost))
        if who is not None:
            lengths[file.stem] = len(rows), len(kept)
            own, too_short = _cut(file, kept, who)
            takes += own
            short += too_short
    shown = {without_blanks(take.activity) for take in takes}
    if absent := [activity for key, activity in chosen.items() if key not in shown]:
        others = ", ".join(sorted({take.activity for take in takes} | set(left_out.values())))
        raise ValueError(
            f"{path / ACTIVITIES} must name activities that recordings of more than {SHORTEST} "
            f"frames show, got {', '.join(map(repr, absent))}; there are {others or 'none'}."
        )
    if not takes:
        raise ValueError(
            f"{folder} must hold more than {SHORTEST} frames in a row, labelled 'image, action, "
            "procedure', got none."
        )
    warnings = []
    if left_out:
        warnings.append(
            f"{path / ACTIVITIES}: {len(left_out)} recordings of other activities "
            f"({', '.join(sorted(set(left_out.values())))}) are not read."
        )
    if unlabelled:
        warnings.append(
            f"{folder}: {sum(lost for _, lost in unlabelled)} lines of {len(unlabelled)} "
            f"recordings, {unlabelled[0][0]} for one, have not two labels after the image; left "
            f"out, {CODE}."
        )
    if short:
        warnings.append(
            f"{folder}: {len(short)} stretches of {SHORTEST} frames or fewer, {short[0]} for one, "
            "left out; the released code would leave out the rest of their recordings too."
        )
    return Recordings(
        takes=tuple(takes),
        lengths=lengths,
        left_out=frozenset(left_out),
        warnings=tuple(warnings),
    )


def read_labels(path: Path, level: str, takes: Sequence[Take]) -> LabelSpace:
    """The user's list of the labels of a level, spelled as there, with single blanks.

    Raises:
        FileNotFoundError: There is none; the message says which labels are used.
        ValueError: A label that is used is not in it, or two of it differ in blanks alone.
    """
    file = _mapping_file(path, level)
    used = sorted({name for take in takes for name in take.labels[level]})
    if not file.is_file():
        # Of spellings that are one label, one.
        once = sorted({without_blanks(name): name for name in reversed(used)}.values())
        lines = "; ".join(f"{i} {name}" for i, name in enumerate(once[:60]))
        more = ", and so on" if len(once) > 60 else ""
        raise FileNotFoundError(
            f"{file} does not exist, and no list of DARai's labels is released; write one, 'index "
            f"name' a line. These are used: {lines}{more}."
        )
    names = read_mapping(file).names
    listed: dict[str, str] = {}
    for name in names:
        if (first := listed.setdefault(without_blanks(name), name)) != name:
            raise ValueError(
                f"{file} must list every label once, got {first!r} and {name!r}, which without "
                "their blanks are one; take one of them out."
            )
    unknown = {name for name in used if without_blanks(name) not in listed}
    for take in takes if unknown else ():
        for line, name in zip(take.lines, take.labels[level], strict=True):
            if name in unknown:
                raise ValueError(
                    f"{take.file}, line {line + 1}: unknown label {name!r}; {file} must list every "
                    f"label of {level.upper()}."
                )
    return LabelSpace(tuple(" ".join(name.split()) for name in names))


def frames_of(take: Take, level: str, labels: LabelSpace) -> Int[np.ndarray, " time"]:
    """The label of every frame at a level, found without regard to blanks."""
    known = {without_blanks(name): i for i, name in enumerate(labels.names)}
    index = {name: known[without_blanks(name)] for name in set(take.labels[level])}
    return np.array([index[name] for name in take.labels[level]])


def without_blanks(name: str) -> str:
    """What the released code compares of a name."""
    return "".join(name.split())


def _mapping_file(path: Path, level: str) -> Path:
    changed = path / f"mapping_{level}_changed.txt"
    return changed if changed.is_file() else path / f"mapping_{level}.txt"


class _Line(NamedTuple):
    """A line that has both labels."""

    number: int
    """Where it stands in the file, from 0."""
    image: str
    action: str
    procedure: str


class _Who(NamedTuple):
    """Who does what in a recording."""

    subject: str
    session: str
    activity: str


def _chosen(file: Path) -> dict[str, str]:
    """The activities to read, by their names without blanks; none where all are."""
    if not file.is_file():
        return {}
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    if not any(lines):
        raise ValueError(
            f"{file} must name an activity a line, got none; take the file away to read all."
        )
    return {without_blanks(line): line for line in lines if line}


def _fields(row: str) -> tuple[str, str, str] | None:
    """Image, action and procedure of a line; nothing where one of them is missing."""
    match [" ".join(part.split()) for part in row.split(",")]:
        case [image, action, procedure] if action and procedure:
            return image, action, procedure
    return None


def _cut(file: Path, kept: Sequence[_Line], who: _Who) -> tuple[list[Take], list[str]]:
    """The takes of a recording, and the names of those that are too short to be read."""
    numbers = [_frame(file, line) for line in kept]
    starts = [i for i in range(len(kept)) if not i or numbers[i] != numbers[i - 1] + 1]
    takes: list[Take] = []
    short: list[str] = []
    for k, (a, b) in enumerate(zip(starts, [*starts[1:], len(kept)], strict=True)):
        name, lines = f"{file.stem}_{k}", kept[a:b]
        if len(lines) <= SHORTEST:
            short.append(name)
            continue
        takes.append(
            Take(
                id=name,
                file=file,
                first=a,
                lines=tuple(line.number for line in lines),
                labels={
                    ACTIONS: tuple(line.action for line in lines),
                    PROCEDURES: tuple(line.procedure for line in lines),
                },
                subject=who.subject,
                session=who.session,
                activity=who.activity,
            )
        )
    return takes, short


def _frame(file: Path, line: _Line) -> int:
    if match := re.search(r"(\d+)$", PurePosixPath(line.image).stem):
        return int(match[1])
    raise ValueError(
        f"{file}, line {line.number + 1}: an image must end with the number of its frame, as "
        f"01_2_00150.jpg, got {line.image!r}."
    )


def _who(file: Path, image: str) -> _Who:
    """From the name of a recording or the path of its first image."""
    if match := re.fullmatch(r"([^_]+)_([^_]+)_cam_[^_]+_(.+)", file.stem):
        return _Who(match[1], match[2], match[3])
    parts, stem = PurePosixPath(image).parts, PurePosixPath(image).stem.split("_")
    if len(parts) > 2 and len(stem) == 3:
        return _Who(stem[0], stem[1], parts[-3])
    raise ValueError(
        f"{file} must be called <subject>_<session>_cam_<camera>_<activity>.txt, or its images "
        f"<activity>/<camera>/<subject>_<session>_<frame>.jpg, got {image!r}."
    )
