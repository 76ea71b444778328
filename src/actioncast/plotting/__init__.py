"""Timelines as pictures: PNG, SVG, one self-contained HTML page, and text for a terminal.

Rows are stacked as in the papers' figures, the truth above. An action keeps its colour in every
row and file of one label space. The future is hatched; the less probable, the paler.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from actioncast.files import replace_file
from actioncast.plotting.page import to_page
from actioncast.plotting.palette import GREY, PALETTE, colours
from actioncast.plotting.picture import to_picture
from actioncast.plotting.rows import TimelineRow, lanes
from actioncast.plotting.terminal import print_timeline, timeline_text

SUFFIXES = (".png", ".svg", ".html")


def draw_timelines(
    rows: Sequence[TimelineRow], path: Path | str, *, title: str = "", now: float | None = None
) -> None:
    """Draw timelines below each other; the same input gives the same bytes.

    Args:
        rows: From top to bottom; all of one label space, which gives every action its colour.
        path: Ends with one of `SUFFIXES`.
        title: Stands above the rows.
        now: Seconds where the future starts, for rows that do not say it themselves.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"a picture of timelines must end with {', '.join(SUFFIXES)}, got {path}; rename it."
        )
    if not rows:
        raise ValueError("a picture needs one timeline or more, got no rows; give one.")
    for row in rows[1:]:
        if row.timeline.labels.names != rows[0].timeline.labels.names:
            raise ValueError(
                f"all rows must share one label space to share colours, but {row.name!r} and "
                f"{rows[0].name!r} differ; read both with the same `labels`."
            )
    rows = [row if row.now is not None else replace(row, now=now) for row in rows]
    is_page = suffix == ".html"
    data = to_page(rows, title).encode() if is_page else to_picture(rows, title, suffix[1:])
    replace_file(path, data)


__all__ = [
    "GREY",
    "PALETTE",
    "SUFFIXES",
    "TimelineRow",
    "colours",
    "draw_timelines",
    "lanes",
    "print_timeline",
    "timeline_text",
]
