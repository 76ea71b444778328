"""A hierarchy of one's own, in a file: what stands above labels, videos or frames.

A JSON object:
- `level`: what the labels above are called, for example `activity`;
- one of `by_label` (`{"pour_milk": "coffee", ...}`, every label), `by_video` (`{"<video>":
  "coffee", ...}`, every video of a split) and `by_frame` (a folder, beside the file if not
  absolute, with `<video>.txt`: one name a line, a line a frame);
- `names`, optional: all names of the level in the order of their labels. Absent, they are in the
  order of the alphabet;
- `background`, optional: names of the level that segment metrics leave out. So are one called
  `background`, and without being listed those that stand above background labels of the data alone
  (`by_label`) or are called as one is (`by_video`, `by_frame`).
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actioncast.data.base import Dataset
from actioncast.data.hierarchy import Hierarchy
from actioncast.timeline import FINE, LabelSpace

FILE = "hierarchy.json"
"""Such a file in the folder of a data set."""
BACKGROUND = frozenset({"background"})
Said = tuple[tuple[str, ...] | None, tuple[str, ...] | None]
"""The names of a level and which of them are background, as far as a file lists them."""
KINDS = ("by_label", "by_video", "by_frame")
EXAMPLE = '{"level": "activity", "by_label": {"pour_milk": "coffee"}}'


def read_hierarchy(file: Path, dataset: Dataset) -> Hierarchy:
    """Read the level above the labels of a data set.

    Whether nothing is left out shows when it is added to the data set.

    Raises:
        ValueError: The file breaks the format, or names labels or videos that do not exist.
        FileNotFoundError: The folder of `by_frame`, or a file in it, does not exist.
    """
    about = _read(file)
    if odd := set(about) - {"level", "names", "background", *KINDS}:
        raise ValueError(
            f"{file} may hold level, names, background, and one of {', '.join(KINDS)}, got "
            f"{', '.join(sorted(odd))}; take the rest out, for example {EXAMPLE}."
        )
    if "level" not in about:
        raise ValueError(
            f"{file}: `level` is missing; say what the labels above are called, for example "
            f"{EXAMPLE}."
        )
    level = about["level"]
    if not isinstance(level, str) or not level.strip() or level == FINE:
        raise ValueError(
            f"{file}: level must be what the labels above are called, for example activity, and "
            f"not {FINE!r}, got {level!r}."
        )
    said = [kind for kind in KINDS if kind in about]
    if len(said) != 1:
        raise ValueError(
            f"{file} must hold one of {', '.join(KINDS)}, got {', '.join(said) or 'none'}; for "
            f"example {EXAMPLE}."
        )
    names = _names(file, "names", about.get("names"))
    quiet = _names(file, "background", about.get("background"))
    if said == ["by_frame"]:
        return _by_frame(file, about["by_frame"], level, (names, quiet), dataset)
    above = _mapping(file, said[0], about[said[0]])
    known = dataset.taxonomy.labels.names if said == ["by_label"] else tuple(dataset.videos)
    if odd := set(above) - set(known):
        shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise ValueError(
            f"{file}: {said[0]} must name {said[0][3:]}s of {dataset.name} ({shown}), got "
            f"{', '.join(map(repr, sorted(odd)[:5]))}; spell them as the data do, or take them out."
        )
    labels = _labels(file, level, (names, quiet), set(above.values()))
    if said == ["by_label"]:
        return Hierarchy(level=level, labels=labels, by_label=above)
    return Hierarchy(level=level, labels=labels, by_video=above)


def _read(file: Path) -> dict[str, Any]:
    try:
        about = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, for example {EXAMPLE}, got {error}.") from None
    if not isinstance(about, dict):
        raise ValueError(
            f"{file} must hold an object, for example {EXAMPLE}, got {type(about).__name__}."
        )
    return about


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON itself would keep the last of two values and say nothing."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} twice")
        found[key] = value
    return found


def _names(file: Path, key: str, names: object) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise ValueError(
            f'{file}: {key} must be a list of names, for example ["coffee"], got {names!r}.'
        )
    return tuple(names)


def _mapping(file: Path, kind: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f'{file}: {kind} must be an object of names, for example {{"pour_milk": "coffee"}}, '
            f"got {value!r}."
        )
    for below, name in value.items():
        if not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"{file}: {kind} must give {below!r} the name of what stands above it, got "
                f"{name!r}."
            )
    return value


def _labels(file: Path, level: str, said: Said, used: set[str]) -> LabelSpace:
    names, background = said
    if names is not None and (odd := sorted(used - set(names))):
        raise ValueError(
            f"{file}: names must list every name of the level {level!r}, got none called "
            f"{', '.join(map(repr, odd[:5]))}; add them, or mend their spelling."
        )
    try:
        names = tuple(sorted(used)) if names is None else names
        labels = LabelSpace(names, BACKGROUND & set(names))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if odd := sorted(set(background or ()) - set(names)):
        raise ValueError(
            f"{file}: background must list names of the level {level!r} ({', '.join(names[:8])}"
            f"{', ...' if len(names) > 8 else ''}), got {', '.join(map(repr, odd[:5]))}; spell "
            "them as they stand there, or take them out."
        )
    return replace(labels, background=labels.background | set(background or ()))


def _by_frame(file: Path, where: object, level: str, said: Said, dataset: Dataset) -> Hierarchy:
    if not isinstance(where, str) or not where.strip():
        raise ValueError(
            f"{file}: by_frame must be a folder of files <video>.txt, one name a line, got "
            f"{where!r}."
        )
    folder = file.parent / Path(where).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; {file} says that it names every frame.")
    split = {v for s in dataset.splits.values() for v in (*s.train, *s.test)}
    lines: dict[str, list[str]] = {}
    for video in dataset.videos:
        named = folder / f"{video}.txt"
        if named.is_file():
            lines[video] = _lines(named)
        elif video in split:
            raise FileNotFoundError(
                f"{named} does not exist; {file} says that {folder} names every frame of "
                f"{dataset.name}."
            )
    if not lines:
        raise ValueError(f"{folder} must hold <video>.txt for videos of {dataset.name}, got none.")
    labels = _labels(file, level, said, {name for own in lines.values() for name in own})
    index = {name: i for i, name in enumerate(labels.names)}
    by_frame = {video: np.array([index[n] for n in own]) for video, own in lines.items()}
    return Hierarchy(level=level, labels=labels, by_frame=by_frame)


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be a UTF-8 text file, got {error}.") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if blank := next((i for i, line in enumerate(lines, 1) if not line.strip()), None):
        raise ValueError(
            f"{file}, line {blank}: must name what stands above the frame, got a blank line."
        )
    if not lines:
        raise ValueError(f"{file} must hold one name a frame, got an empty file.")
    return [line.strip() for line in lines]
