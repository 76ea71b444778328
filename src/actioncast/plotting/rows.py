"""Rows of a figure, and what every way of showing them must know: pieces, times and names."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from actioncast.timeline import Segment, Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """One row of a figure: the truth, or the answer of one run."""

    name: str
    timeline: Timeline
    now: float | None = None
    """Seconds where this row's future starts; absent, the figure's. `math.inf`: it has none."""


def lanes(timeline: Timeline) -> list[int]:
    """The lane of every segment, such that segments of one lane do not overlap."""
    ends: list[float] = []
    chosen = []
    for segment in timeline:
        lane = next((i for i, end in enumerate(ends) if end <= segment.start), len(ends))
        ends[lane : lane + 1] = [segment.end]
        chosen.append(lane)
    return chosen


def pieces_of(row: TimelineRow) -> Iterator[tuple[Segment, int, bool]]:
    """Yield each segment, cut at *now*, with its lane and whether it is future."""
    now = math.inf if row.now is None else row.now
    for s, lane in zip(row.timeline, lanes(row.timeline), strict=True):
        if s.start < now < s.end:
            yield Segment(s.start, now, s.label, s.score), lane, False
            yield Segment(now, s.end, s.label, s.score), lane, True
        else:
            yield s, lane, s.start >= now


def shown_span(rows: Iterable[TimelineRow]) -> tuple[float, float]:
    """First and last second to show; from 0 unless the rows start late."""
    starts = [s.start for row in rows for s in row.timeline]
    ends = [s.end for row in rows for s in row.timeline]
    marks = [row.now for row in rows if row.now is not None and math.isfinite(row.now)]
    if not starts:
        return 0.0, max([*marks, 1.0])
    start, end = min(starts + marks), max(ends + marks)
    return (0.0 if 0 <= start < 0.2 * end else start), end


def marks_of(rows: Iterable[TimelineRow]) -> list[float]:
    """Where the futures of the rows start, each once."""
    return sorted({row.now for row in rows if row.now is not None and math.isfinite(row.now)})


def occurring(rows: Iterable[TimelineRow]) -> list[int]:
    """The labels that a row has, each once."""
    return sorted({s.label for row in rows for s in row.timeline})


def keys_of(rows: Sequence[TimelineRow]) -> list[str]:
    """What the reader must know of the drawing, where it occurs."""
    pieces = [piece for row in rows for piece in pieces_of(row)]
    keys = ["hatched: after now"] if any(is_future for _, _, is_future in pieces) else []
    if any(s.score < 1 for s, _, _ in pieces):
        keys.append("paler: less probable")
    return keys


def percent(score: float) -> str:
    """A share as 83 %."""
    return f"{100 * score:.0f} %"


def one_line(name: str) -> str:
    """The name on one line, without characters that steer a terminal or break XML."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def clock(seconds: float, *, minutes: bool, decimals: int = 0) -> str:
    """Seconds as 83.4, or as 1:23.4 and 1:02:03."""
    if not minutes:
        return f"{seconds:.{decimals}f}"
    sign, ticks = "-" if seconds < 0 else "", round(abs(seconds) * 10**decimals)
    whole, rest = divmod(ticks, 10**decimals)
    fraction = f".{rest:0{decimals}}" if decimals else ""
    hours, mins, secs = whole // 3600, whole // 60 % 60, whole % 60
    head = f"{hours}:{mins:02}" if hours else f"{mins}"
    return f"{sign}{head}:{secs:02}{fraction}"
