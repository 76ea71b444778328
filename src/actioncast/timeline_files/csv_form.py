"""CSV: a row for each segment, as spreadsheets write it too."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from actioncast.timeline import Timeline
from actioncast.timeline_files.contents import Contents, Row, is_forecast


def to_csv(timeline: Timeline, now: float | None) -> str:
    """The segments, exactly; *now* is only where the first future one starts."""
    lines = ["start,end,label,score,part"]
    for s in timeline:
        name = timeline.labels.names[s.label]
        # Quoted also for blanks at its edges, which readers skip outside quotes.
        if not name or name != name.strip() or re.search(r'[",;\t\r\n\0]', name):
            name = '"' + name.replace('"', '""') + '"'
        part = "" if now is None else "future" if is_forecast(s, now) else "past"
        lines.append(f"{s.start!r},{s.end!r},{name},{s.score!r},{part}")
    return "\n".join(lines) + "\n"


def from_csv(text: str, path: Path) -> Contents:
    """Read rows separated by comma, semicolon or tab; the header says which column is which."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in ("start", "end", "label") if name not in columns]:
            raise ValueError(
                f"{path}, line 1: the header must name start, end and label (and may name score "
                f"and part), got {header.strip()!r}; add {', '.join(missing)}."
            )
        rows, parts = [], []
        # A quoted label may hold line breaks: a record starts after the line where the last ended.
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(columns):
                raise ValueError(
                    f"{where}: a row must have {len(columns)} cells as the header, got "
                    f"{len(cells)}; quote labels that hold {delimiter!r}."
                )
            cell = dict(zip(columns, cells, strict=False))
            rows.append(
                Row(
                    where=where,
                    start=_number(cell, "start", where, delimiter),
                    end=_number(cell, "end", where, delimiter),
                    name=_cell(cell, "label", where),
                    score=_number({"score": "1", **_filled(cell)}, "score", where, delimiter),
                )
            )
            parts.append(cell.get("part", "").strip().lower())
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: must be CSV, got {error}; quote labels that hold "
            f"quotes or {delimiter!r}."
        ) from None
    return Contents(rows=rows, now=_now(rows, parts))


def _filled(cell: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in cell.items() if text.strip()}


def _cell(cell: dict[str, str], column: str, where: str) -> str:
    if column not in cell:
        raise ValueError(f"{where}: a row must have a {column}, got {list(cell.values())}; add it.")
    return cell[column]


def _number(cell: dict[str, str], column: str, where: str, delimiter: str) -> float:
    text = _cell(cell, column, where).strip()
    try:
        # Spreadsheets that separate by semicolon write decimal commas.
        return float(text.replace(",", ".") if delimiter != "," else text)
    except ValueError:
        raise ValueError(
            f"{where}: {column} must be a number, got {text!r}; write seconds as 12.5."
        ) from None


def _now(rows: Sequence[Row], parts: Sequence[str]) -> float | None:
    for row, part in zip(rows, parts, strict=True):
        if part not in {"", "past", "future"}:
            raise ValueError(f"{row.where}: part must be past or future, got {part!r}; correct it.")
    future = [row.start for row, part in zip(rows, parts, strict=True) if part == "future"]
    past = [row for row, part in zip(rows, parts, strict=True) if part == "past"]
    if not future:
        return max((row.end for row in past), default=None)
    if late := [row for row in past if row.start >= min(future)]:
        raise ValueError(
            f"{late[0].where}: a past segment must start before the first future one "
            f"({min(future)} s), got {late[0].start} s; correct its part."
        )
    return min(future)
