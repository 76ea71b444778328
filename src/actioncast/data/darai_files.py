"""The text files of DARai: frames and their labels, lists of labels, and splits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from actioncast.data.base import Split
from actioncast.data.frame_labels import read_mapping
from actioncast.timeline import LabelSpace

LABELS = ("groundTruth_img", "groundTruth")
"""Folders that may hold the frames of each recording."""
SHORTEST = 15
"""A take of so many lines, the stride of the released code, or fewer is not read."""
ACTIONS, PROCEDURES = "l2", "l3"
"""What the files call the levels."""
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
    """The names of every frame, by level."""
    subject: str
    session: str
    activity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """All that the frames of a folder say."""

    takes: tuple[Take, ...]
    lengths: Mapping[str, tuple[int, int]]
    """By recording, how many lines it has and how many of these have labels."""
    warnings: tuple[str, ...]


def is_darai(path: Path) -> bool:
    """Whether a folder holds DARai in this layout."""
    return (path / LABELS[0]).is_dir() or _mapping_file(path, PROCEDURES).is_file()


def read_recordings(path: Path) -> Recordings:
    """Read the frames of every recording and cut them into takes.

    Raises:
        FileNotFoundError: There are none.
        ValueError: A file is named or written otherwise, or nothing is left.
    """
    folder = next((path / name for name in LABELS if (path / name).is_dir()), None)
    files = sorted(folder.glob("*.txt")) if folder else []
    if folder is None or not files:
        raise FileNotFoundError(
            f"{path / LABELS[0]} must hold a file <recording>.txt with 'image, action, procedure' "
            "for every frame, got none; docs/your_own_videos.md says how they are named."
        )
    takes: list[Take] = []
    lengths: dict[str, tuple[int, int]] = {}
    unlabelled: list[tuple[str, int]] = []
    short: list[str] = []
    for file in files:
        rows = file.read_text(encoding="utf-8-sig").splitlines()
        kept = [(i, *fields) for i, row in enumerate(rows) if (fields := _fields(row))]
        lengths[file.stem] = len(rows), len(kept)
        if lost := len(rows) - len(kept):
            unlabelled.append((file.stem, lost))
        numbers = [_frame(file, i, image) for i, image, _, _ in kept]
        starts = [i for i in range(len(kept)) if not i or numbers[i] != numbers[i - 1] + 1]
        for k, (a, b) in enumerate(zip(starts, [*starts[1:], len(kept)], strict=True)):
            name = f"{file.stem}_{k}"
            if b - a <= SHORTEST:
                short.append(name)
                continue
            subject, session, activity = _who(file, kept[a][1])
            labels = {
                ACTIONS: tuple(row[2] for row in kept[a:b]),
                PROCEDURES: tuple(row[3] for row in kept[a:b]),
            }
            takes.append(
                Take(
                    id=name,
                    file=file,
                    first=a,
                    lines=tuple(row[0] for row in kept[a:b]),
                    labels=labels,
                    subject=subject,
                    session=session,
                    activity=activity,
                )
            )
    if not takes:
        raise ValueError(
            f"{folder} must hold more than {SHORTEST} frames in a row, labelled 'image, action, "
            "procedure', got none."
        )
    warnings = []
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
    return Recordings(takes=tuple(takes), lengths=lengths, warnings=tuple(warnings))


def read_labels(path: Path, level: str, takes: Sequence[Take]) -> LabelSpace:
    """The user's list of the labels of a level.

    Raises:
        FileNotFoundError: There is none; the message says which labels are used.
        ValueError: A label that is used is not in it.
    """
    file = _mapping_file(path, level)
    used = sorted({name for take in takes for name in take.labels[level]})
    if not file.is_file():
        lines = "; ".join(f"{i} {name}" for i, name in enumerate(used[:60]))
        more = ", and so on" if len(used) > 60 else ""
        raise FileNotFoundError(
            f"{file} does not exist, and no list of DARai's labels is released; write one, 'index "
            f"name' a line. These are used: {lines}{more}."
        )
    names = tuple("".join(name.split()) for name in read_mapping(file).names)
    unknown = set(used) - set(names)
    for take in takes if unknown else ():
        for line, name in zip(take.lines, take.labels[level], strict=True):
            if name in unknown:
                raise ValueError(
                    f"{take.file}, line {line + 1}: unknown label {name!r}; {file} must list every "
                    f"label of {level.upper()}."
                )
    try:
        return LabelSpace(names)
    except ValueError as error:
        raise ValueError(f"{file}, spaces taken out: {error}") from None


def read_splits(path: Path, takes: Sequence[Take]) -> dict[str, Split]:
    """The splits that a folder brings, of recordings or takes; none where it brings none.

    The part to validate joins the part to train: what is held out is drawn anew.

    Raises:
        FileNotFoundError: A split has one part alone.
        ValueError: A part names nothing there is, or what another part of its split has too.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for file in sorted((path / "splits").glob("*")):
        match = re.fullmatch(
            r"(train|val|test)(?:_split)?(?:\.split(.+))?\.(txt|bundle)", file.name
        )
        if match:
            found.setdefault(match[2] or "1", {})[match[1]] = _listed(file, takes)
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


def _mapping_file(path: Path, level: str) -> Path:
    changed = path / f"mapping_{level}_changed.txt"
    return changed if changed.is_file() else path / f"mapping_{level}.txt"


def _fields(row: str) -> tuple[str, str, str] | None:
    """Image, action and procedure of a line; nothing where one of them is missing."""
    match [part.strip() for part in row.split(",")]:
        case [image, action, procedure] if action and procedure:
            return image, "".join(action.split()), "".join(procedure.split())
    return None


def _frame(file: Path, line: int, image: str) -> int:
    if match := re.search(r"(\d+)$", PurePosixPath(image).stem):
        return int(match[1])
    raise ValueError(
        f"{file}, line {line + 1}: an image must end with the number of its frame, as "
        f"01_2_00150.jpg, got {image!r}."
    )


def _who(file: Path, image: str) -> tuple[str, str, str]:
    """Subject, session and activity, from the name of a recording or the path of an image."""
    if match := re.fullmatch(r"([^_]+)_([^_]+)_cam_[^_]+_(.+)", file.stem):
        return match[1], match[2], match[3]
    parts, stem = PurePosixPath(image).parts, PurePosixPath(image).stem.split("_")
    if len(parts) > 2 and len(stem) == 3:
        return stem[0], stem[1], parts[-3]
    raise ValueError(
        f"{file} must be called <subject>_<session>_cam_<camera>_<activity>.txt, or its images "
        f"<activity>/<camera>/<subject>_<session>_<frame>.jpg, got {image!r}."
    )


def _listed(file: Path, takes: Iterable[Take]) -> list[str]:
    chosen: list[str] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not (entry := line.strip().rpartition("/")[2].removesuffix(".txt")):
            continue
        own = [take.id for take in takes if entry in (take.id, take.file.stem)]
        if not own:
            raise ValueError(
                f"{file}, line {number}: {entry!r} names no recording that has more than "
                f"{SHORTEST} labelled frames in a row; add its file or take the line out."
            )
        chosen += own
    if not chosen:
        raise ValueError(f"{file} must name at least one recording, got none.")
    return chosen
