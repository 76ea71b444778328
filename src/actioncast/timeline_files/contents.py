"""What the formats share: the content of a file as read, and where the forecast begins."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from actioncast.timeline import LabelSpace, Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A segment as read, with the place to name in an error."""

    where: str
    start: float
    end: float
    name: str
    score: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a file of any format holds, names not yet looked up."""

    rows: Sequence[Row]
    names: tuple[str, ...] = ()
    background: frozenset[str] = field(default_factory=frozenset)
    now: float | None = None
    video: str | None = None


def segment_of(row: Row, labels: LabelSpace) -> Segment:
    """Look the name up, and refuse what is no segment."""
    if row.name not in labels:
        close = difflib.get_close_matches(row.name, labels.names, 3)
        known = ", ".join(map(repr, close or labels.names[:20]))
        more = ", ..." if not close and len(labels) > 20 else ""
        raise ValueError(
            f"{row.where}: unknown action {row.name!r}; the {'closest ' if close else ''}labels "
            f"are {known}{more}. Correct the file, or read it without `labels` to take its names."
        )
    if not 0 <= row.score <= 1:
        raise ValueError(
            f"{row.where}: a score must be from 0 to 1, got {row.score}; divide percentages by 100."
        )
    if not (math.isfinite(row.start) and math.isfinite(row.end) and row.start < row.end):
        raise ValueError(
            f"{row.where}: a segment must end after it starts, got {row.start} to {row.end} s; "
            "correct or delete it."
        )
    return Segment(row.start, row.end, labels.index(row.name), row.score)


def is_forecast(segment: Segment, now: float | None) -> bool:
    """Whether a segment starts at *now* or after it."""
    return now is not None and segment.start >= now


def milliseconds(seconds: float) -> int:
    """Seconds as a whole number of milliseconds."""
    return round(seconds * 1000)
