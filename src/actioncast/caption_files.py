"""Files of captions, one a video: subtitles, tables, JSON, or vectors that were made elsewhere."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from actioncast.text_vectors import UNREADABLE
from actioncast.timeline_files.webvtt import from_vtt

SUFFIXES = (".vtt", ".csv", ".json", ".npz", ".npy")
"""What a file of captions may end with; the times of an `.npy` file stand in a `.csv` beside it."""
COLUMNS = ("start", "end", "text")
LONGEST = 1e7
"""Seconds after which no caption ends: a third of a year."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaptionFile:
    """What a file says about one video, times in seconds."""

    start: Float[np.ndarray, " caption"]
    end: Float[np.ndarray, " caption"]
    texts: tuple[str, ...] = ()
    """What is written, where the captions are texts."""
    vectors: Float[np.ndarray, "caption feature"] | None = None
    """Their vectors, where they are those."""


def find_captions(folder: Path, video: str) -> Path | None:
    """The file of a video in a folder; None where there is none.

    Raises:
        ValueError: There are several.
    """
    found = [path for suffix in SUFFIXES if (path := folder / f"{video}{suffix}").is_file()]
    names = [path.suffix for path in found]
    if names == [".csv", ".npy"]:
        return found[1]
    if len(found) > 1:
        raise ValueError(
            f"{folder} must hold one file of captions for {video}, got "
            f"{', '.join(path.name for path in found)}; take all but one away."
        )
    return found[0] if found else None


def read_captions(path: Path) -> CaptionFile:
    """Read a file of captions.

    Raises:
        ValueError: It is not what its suffix promises; a time is no number of seconds of 0 or more,
            a caption ends before it starts, or says nothing.
    """
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        return _checked_vectors(path, *(_npz(path) if suffix == ".npz" else _npy(path)))
    rows = READERS[suffix](_decoded(path), path)
    for where, start, end, said in rows:
        _require_times(where, start, end)
        if not said.strip():
            raise ValueError(f"{where}: a caption must say something, got no text; delete it.")
    return CaptionFile(
        start=np.array([row[1] for row in rows], np.float64),
        end=np.array([row[2] for row in rows], np.float64),
        texts=tuple(" ".join(row[3].split()) for row in rows),
    )


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be UTF-8 text, got byte {error.object[error.start]:#04x} at offset "
            f"{error.start}; save it as UTF-8."
        ) from None


Rows = Sequence[tuple[str, float, float, str]]
"""Place in the file, seconds of start and end, and text of every caption."""


def _vtt(text: str, path: Path) -> Rows:
    return [(row.where, row.start, row.end, row.name) for row in from_vtt(text, path).rows]


def _csv(text: str, path: Path) -> Rows:
    return _table(text, path, COLUMNS)


def _table(text: str, path: Path, columns: Sequence[str]) -> Rows:
    """Rows separated by comma, semicolon or tab, under a header that names these columns."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    file = io.StringIO(text, newline="")
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
    found: list[tuple[str, float, float, str]] = []
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if twice := sorted({name for name in names if name in columns and names.count(name) > 1}):
            raise ValueError(
                f"{path}, line 1: the header must name a column once, got {', '.join(twice)} more "
                "often; take the others out."
            )
        if missing := [name for name in columns if name not in names]:
            raise ValueError(
                f"{path}, line 1: the header must name {', '.join(columns)}, got "
                f"{header.strip()!r}; add {', '.join(missing)}."
            )
        # A quoted text may hold line breaks: a row starts after the line where the last one ended.
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                raise ValueError(
                    f"{where}: a row must have {len(names)} cells as the header, got {len(cells)}; "
                    f"put texts that hold {delimiter!r} into double quotes."
                )
            cell = dict(zip(names, cells, strict=True))
            start, end = (_seconds(cell[key], where, delimiter) for key in ("start", "end"))
            found.append((where, start, end, cell.get("text", "")))
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: must be CSV, got {error}; put texts that hold quotes "
            f"or {delimiter!r} into double quotes, and double the quotes in them."
        ) from None
    return found


def _seconds(cell: str, where: str, delimiter: str) -> float:
    # Spreadsheets that separate by semicolon write decimal commas.
    text = cell.strip() if delimiter == "," else cell.strip().replace(",", ".")
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{where}: times must be numbers, got {cell!r}; write seconds as 12.5."
        ) from None


def _json(text: str, path: Path) -> Rows:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, got {error}; correct it.") from None
    if not isinstance(value, list):
        raise ValueError(
            f"{path} must be a list of captions, each with start, end and text, got "
            f"{type(value).__name__}; put brackets around them."
        )
    found: list[tuple[str, float, float, str]] = []
    for i, one in enumerate(value, 1):
        where = f"{path}, caption {i}"
        if not isinstance(one, dict) or (missing := [k for k in COLUMNS if k not in one]):
            got = f"without {', '.join(missing)}" if isinstance(one, dict) else repr(one)[:40]
            raise ValueError(f"{where}: must have start, end and text, got one {got}; add them.")
        start, end, said = (one[key] for key in COLUMNS)
        for time in (start, end):
            if isinstance(time, bool) or not isinstance(time, int | float):
                raise ValueError(
                    f"{where}: times must be numbers, got {time!r}; write seconds as 12.5."
                )
        if not isinstance(said, str):
            raise ValueError(f"{where}: text must be a string, got {said!r}; put it into quotes.")
        # An integer may be longer than any number of seconds.
        start, end = (min(time, 2 * LONGEST) for time in (start, end))
        found.append((where, float(start), float(end), said))
    return found


READERS: Mapping[str, Callable[[str, Path], Rows]] = {".vtt": _vtt, ".csv": _csv, ".json": _json}


def _require_times(where: str, start: float, end: float) -> None:
    # A comparison with what is no number is false.
    if not 0 <= start < end <= LONGEST:
        raise ValueError(
            f"{where}: a caption must start at 0 s or later, and end after it starts and within "
            f"{LONGEST:g} s, got {start:g} to {end:g} s; correct or delete it."
        )


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        with loaded as file:
            names = set(file.files)
            if missing := {"vectors", "start", "end"} - names:
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
            return file["vectors"], file["start"], file["end"]
    except UNREADABLE as error:
        raise ValueError(
            f"{path} must hold the arrays vectors, start and end, got a file that does not "
            f"({' '.join(str(error).split())[:200]}); write it with numpy.savez."
        ) from None


def _npy(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    times = path.with_name(f"{path.name.removesuffix('.npy')}.csv")
    if not times.is_file():
        raise ValueError(
            f"{path} must have the times of its vectors beside it, got no {times.name}; write one "
            "with the columns start and end in seconds, a row for each vector."
        )
    try:
        vectors = np.load(path, allow_pickle=False)
        if not isinstance(vectors, np.ndarray):
            raise ValueError("it holds several arrays")
    except UNREADABLE as error:
        raise ValueError(
            f"{path} must be a NumPy .npy file, got one that does not open ({error}); write it "
            "again with numpy.save."
        ) from None
    rows = _table(_decoded(times), times, COLUMNS[:2])
    return vectors, np.array([row[1] for row in rows]), np.array([row[2] for row in rows])


def _checked_vectors(
    path: Path, vectors: np.ndarray, start: np.ndarray, end: np.ndarray
) -> CaptionFile:
    numbers = all(array.dtype.kind in "fiu" for array in (vectors, start, end))
    one_each = start.shape == end.shape == vectors.shape[:1]
    if not (numbers and vectors.ndim == 2 and vectors.shape[1] and one_each):
        raise ValueError(
            f"{path} must hold numbers: vectors of shape (caption, feature), and for each a start "
            f"and an end in seconds, got shapes {vectors.shape}, {start.shape} and {end.shape}."
        )
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError(
            f"{path} must hold vectors that are finite in float32, got others; make them again."
        )
    for i, (a, b) in enumerate(zip(start.tolist(), end.tolist(), strict=True), 1):
        _require_times(f"{path}, caption {i}", a, b)
    return CaptionFile(
        start=start.astype(np.float64),
        end=end.astype(np.float64),
        vectors=vectors,
    )
