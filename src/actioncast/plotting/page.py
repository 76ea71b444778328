"""Rows of timelines as one self-contained HTML page, with a table for those who cannot see it."""

import html
import json
import math
import string
from collections.abc import Iterator, Sequence
from importlib.resources import files

from actioncast.plotting.palette import FAINTEST, colours
from actioncast.plotting.rows import (
    TimelineRow,
    clock,
    keys_of,
    lanes,
    occurring,
    one_line,
    percent,
    pieces_of,
    shown_span,
)


def to_page(rows: Sequence[TimelineRow], title: str) -> str:
    """The template with the rows, as data for its script and as a table."""
    first, last = shown_span(rows)
    labels = rows[0].timeline.labels
    palette = colours(labels)
    data = {
        "start": first,
        "end": last,
        "faintest": FAINTEST,
        "labels": {
            str(i): {"name": one_line(labels.names[i]), "colour": palette[i]}
            for i in occurring(rows)
        },
        "rows": [
            {
                "name": one_line(row.name),
                "now": row.now if row.now is not None and math.isfinite(row.now) else None,
                "lanes": 1 + max(lanes(row.timeline), default=0),
                "segments": [
                    [s.start, s.end, s.label, s.score, lane, int(is_future)]
                    for s, lane, is_future in pieces_of(row)
                ],
            }
            for row in rows
        ],
    }
    # No "<" in a script: "</script>" in a name would end it.
    script = json.dumps(data).replace("<", "\\u003c")
    template = (files("actioncast.plotting") / "timeline.html").read_text(encoding="utf-8")
    values = {
        "title": html.escape(one_line(title) or "Timelines"),
        "keys": html.escape(" · ".join(keys_of(rows))),
        "table": "\n".join(_table_rows(rows)),
        "data": script,
    }
    # In one pass, so that a name that looks like a placeholder stays a name.
    return _Template(template).substitute(values)


class _Template(string.Template):
    delimiter = "@@"


def _table_rows(rows: Sequence[TimelineRow]) -> Iterator[str]:
    minutes = shown_span(rows)[1] > 120
    for row in rows:
        for s, _, is_future in pieces_of(row):
            cells = (
                one_line(row.name),
                clock(s.start, minutes=minutes, decimals=2),
                clock(s.end, minutes=minutes, decimals=2),
                one_line(row.timeline.labels.names[s.label]),
                percent(s.score),
                "future" if is_future else "past",
            )
            yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
