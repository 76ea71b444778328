"""Rows of EPIC-KITCHENS' CSV files, read with their places for messages."""

import ast
import csv
import gzip
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

TIME = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d)(?:\.(\d+))?")


class Row(NamedTuple):
    """The wanted columns of one row, as text."""

    values: Mapping[str, str]
    file: Path
    line: int
    """Where it stands in the file, from 1."""

    @property
    def place(self) -> str:
        """File and row, for messages."""
        return f"{self.file}, row {self.line}"

    def whole(self, name: str) -> int:
        """A column as a whole number, 0 or more."""
        text = self.values[name]
        if not text.isdecimal():
            raise ValueError(f"{self.place}: {name} must be a whole number, got {text!r}.")
        return int(text)

    def label(self, name: str, size: int) -> int:
        """A column as a class of `size`."""
        number = self.whole(name)
        if number >= size:
            raise ValueError(
                f"{self.place}: {name} must be a class of 0..{size - 1}, got {number}; the file of "
                "classes must list every one."
            )
        return number

    def number(self, name: str) -> float:
        """A column as a finite number."""
        try:
            number = float(self.values[name])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{self.place}: {name} must be a number, got {self.values[name]!r}.")
        return number

    def positive(self, name: str) -> float:
        """A column as a number above 0."""
        if not (number := self.number(name)) > 0:
            raise ValueError(
                f"{self.place}: {name} must be a positive number, got {self.values[name]!r}."
            )
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEntry:
    """One class of verbs or nouns."""

    name: str
    synonyms: tuple[str, ...]
    category: str


def read_rows(file: Path, columns: Mapping[str, str] | Sequence[str]) -> list[Row]:
    """Read the columns wanted of a CSV file.

    Args:
        file: The file; packed with gzip where its name ends in `.gz`.
        columns: By the name a row shall have them under, the header's; or, of a file without a
            header, the names of all its columns in order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A column is missing, a row is too short, there is no row, or the text is not
            UTF-8.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"the annotation needs the file {file}, which is not there; docs/next_action.md says "
            "which files there are."
        )
    try:
        with _text(file) as text:
            lines = csv.reader(text, strict=True)
            rows = [(lines.line_num, line) for line in lines if line]
    except (UnicodeDecodeError, csv.Error, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(
            f"{file} must be a UTF-8 file of comma-separated values, got {error}; save it as such."
        ) from None
    if isinstance(columns, Mapping):
        header, rows = (rows[0][1], rows[1:]) if rows else ([], [])
        if header and (missing := [name for name in columns.values() if name not in header]):
            raise ValueError(
                f"{file} must have the columns {', '.join(columns.values())}; missing are "
                f"{', '.join(missing)}."
            )
        places = [header.index(name) for name in columns.values()] if header else []
    else:
        places = list(range(len(columns)))
    if not rows:
        raise ValueError(f"{file} must hold at least one row, got none; copy it again.")
    names = tuple(columns)
    for line, cells in rows:
        if len(cells) <= max(places):
            raise ValueError(
                f"{file}, row {line}: must have at least {max(places) + 1} columns, got "
                f"{len(cells)}."
            )
    if len(places) == 1:
        return [Row({names[0]: cells[places[0]]}, file, line) for line, cells in rows]
    wanted = itemgetter(*places)
    return [Row(dict(zip(names, wanted(cells), strict=True)), file, line) for line, cells in rows]


def to_seconds(row: Row, name: str) -> float:
    """A time such as `00:02:10.48` in seconds, to the nearest float."""
    found = TIME.fullmatch(row.values[name])
    if found is None:
        raise ValueError(
            f"{row.place}: {name} must be a time such as 00:02:10.48, got {row.values[name]!r}."
        )
    hours, minutes, seconds, fraction = found.groups()
    whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return float(f"{whole}.{fraction or 0}")


def read_classes(file: Path) -> list[ClassEntry]:
    """Classes in the order of their numbers.

    Raises:
        ValueError: Numbers leave a gap or stand there twice, a name is missing or another's, or
            synonyms are no list.
    """
    columns = {"id": "id", "key": "key", "instances": "instances", "category": "category"}
    rows = read_rows(file, columns)
    found = {row.whole("id"): row for row in rows}
    if sorted(found) != list(range(len(rows))):
        raise ValueError(f"{file}: ids must run from 0 to {len(rows) - 1}, each one once.")
    entries: list[ClassEntry] = []
    named: dict[str, int] = {}
    for i in range(len(rows)):
        row = found[i]
        name = row.values["key"]
        if not name or name in named:
            raise ValueError(
                f"{row.place}: a class must have a name of its own, got "
                f"{name or 'none'!r}{f', as class {named[name]}' if name else ''}; name it."
            )
        named[name] = i
        try:
            instances = ast.literal_eval(row.values["instances"])
        except (ValueError, SyntaxError):
            instances = None
        if not isinstance(instances, list) or not all(isinstance(s, str) for s in instances):
            raise ValueError(
                f"{row.place}: instances must be a list such as ['take', 'grab'], got "
                f"{row.values['instances'][:60]!r}."
            )
        entries.append(
            ClassEntry(
                name=row.values["key"], synonyms=tuple(instances), category=row.values["category"]
            )
        )
    return entries


def read_numbers(file: Path, column: str, size: int) -> list[int]:
    """A list of classes, one a row under a header."""
    return [row.label(column, size) for row in read_rows(file, {column: column})]


def read_ids(file: Path, header: str = "") -> list[str]:
    """A list of names, one a row."""
    rows = read_rows(file, {"name": header} if header else ("name",))
    return [row.values["name"] for row in rows]


def _text(file: Path) -> io.TextIOWrapper:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")
