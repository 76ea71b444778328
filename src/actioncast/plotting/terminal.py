"""A timeline as text for a terminal: a bar *past | now | future* and a row for each segment."""

import math
import string
from itertools import pairwise
from typing import TYPE_CHECKING

from actioncast.plotting.palette import blend, colours, ink_on, opacity
from actioncast.plotting.rows import TimelineRow, clock, one_line, percent, shown_span
from actioncast.timeline import Timeline

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def print_timeline(
    timeline: Timeline,
    now: float | None = None,
    width: int | None = None,
    console: "Console | None" = None,
) -> None:
    """Print `timeline_text`, in colour where the output is a terminal, else as plain text."""
    from rich.console import Console  # noqa: PLC0415

    console = console or Console()
    text = timeline_text(timeline, now, width or console.width)
    console.print(text, soft_wrap=True, highlight=False)


def timeline_text(timeline: Timeline, now: float | None = None, width: int = 80) -> "Text":
    """A bar *past | now | future* and a row for each segment; `.plain` is it without colour.

    Each action has a letter, which stands for it in the bar; overlaps show the later segment.
    """
    from rich.cells import set_cell_size  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    row = TimelineRow(name="", timeline=timeline, now=now)
    first, last = shown_span([row])
    palette = colours(timeline.labels)
    marker = None if now is None or not math.isfinite(now) else now
    text = Text(no_wrap=True)
    cells = max(10, width) - (marker is not None)
    letters = dict(zip(_by_appearance(timeline), _letters(), strict=False))
    edges = [first + (last - first) * i / cells for i in range(cells + 1)]
    split = cells if marker is None else round((marker - first) / (last - first) * cells)
    for i, (a, b) in enumerate(pairwise(edges)):
        if i == split and marker is not None:
            text.append("│", "bold")
        middle = (a + b) / 2
        here = [s for s in timeline if s.start <= middle < s.end]
        if here:
            letter = letters.get(here[-1].label, "#")
            text.append(letter, _style(palette[here[-1].label], here[-1].score))
        else:
            text.append("·", "dim")
    if split >= cells and marker is not None:
        text.append("│", "bold")
    minutes = last > 120
    left, right = (clock(t, minutes=minutes, decimals=1) for t in (first, last))
    middle_text = "" if marker is None else f"now {clock(marker, minutes=minutes, decimals=1)}"
    text.append("\n" + _scale(left, middle_text, right, split, cells + (marker is not None)), "dim")
    pending = marker is not None
    times = len(clock(last, minutes=minutes, decimals=1))
    room = max(8, width - 2 * times - 11)
    for s in timeline:
        if pending and marker is not None and s.start >= marker:
            text.append("\n" + "── now ".ljust(max(10, width), "─"), "bold")
            pending = False
        start, end = (clock(t, minutes=minutes, decimals=1).rjust(times) for t in (s.start, s.end))
        name = one_line(timeline.labels.names[s.label])
        text.append("\n")
        text.append(letters.get(s.label, "#"), _style(palette[s.label], 1.0))
        short = name if len(name) < room else name[: room - 2] + "…"
        text.append(f" {start} {end}  ")
        text.append(set_cell_size(short, room))
        text.append(percent(s.score).rjust(6))
    return text


def _scale(left: str, middle: str, right: str, at: int, width: int) -> str:
    """Three texts below the bar, the middle one as near to its place as the others leave room."""
    room = width - len(left) - len(right) - 2
    if not middle or len(middle) > room:
        return left + right.rjust(width - len(left))
    start = min(max(at - len(middle) // 2, len(left) + 1), width - len(right) - 1 - len(middle))
    return (left.ljust(start) + middle).ljust(width - len(right)) + right


def _by_appearance(timeline: Timeline) -> list[int]:
    return list(dict.fromkeys(s.label for s in timeline))


def _letters() -> str:
    return string.ascii_lowercase + string.ascii_uppercase + string.digits


def _style(colour: str, score: float) -> str:
    face = blend(colour, opacity(score), "#000000")
    return f"{ink_on(face)} on {face}"
