"""Rows of timelines as PNG and SVG; all measures in inches."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actioncast.plotting.lettering import cut, fitting, label_size, text_width, wrapped
from actioncast.plotting.palette import blend, colours, ink_on, opacity
from actioncast.plotting.rows import (
    TimelineRow,
    clock,
    keys_of,
    lanes,
    marks_of,
    occurring,
    one_line,
    pieces_of,
    shown_span,
)
from actioncast.timeline import Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, EDGE = 12.0, 0.22
ROW, GAP = 0.46, 0.16
NAME_SIZE, LEGEND_SIZE = 10.5, 9.0
INK, SOFT = "#1d2127", "#5b636d"


def to_picture(rows: Sequence[TimelineRow], title: str, kind: str) -> bytes:
    """The bytes of a picture; `kind` is png or svg."""
    import matplotlib  # noqa: PLC0415  # slow to import, and only pictures need it

    # No locale, no date and no random ids: the same input gives the same bytes.
    settings: Any = dict(matplotlib.rcParamsDefault)
    settings |= {
        "svg.fonttype": "none",
        "svg.hashsalt": "actioncast",
        "hatch.linewidth": 0.9,
    }
    del settings["backend"]
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    file = io.BytesIO()
    with matplotlib.rc_context(settings):
        figure = _figure(rows, one_line(title))
        figure.savefig(file, format=kind, dpi=160, metadata=metadata, facecolor="white")
    return file.getvalue()


def _figure(rows: Sequence[TimelineRow], title: str) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = [wrapped(one_line(row.name), NAME_SIZE, 2.4, 2) for row in rows]
    left = EDGE + 0.12 + max(text_width(line, NAME_SIZE) for name in names for line in name)
    inner = WIDTH - 2 * EDGE
    heading = wrapped(title, 13, inner, 2, "bold") if title else []
    labels = rows[0].timeline.labels
    entries = [(i, one_line(labels.names[i])) for i in occurring(rows)]
    columns = _columns([text_width(name, LEGEND_SIZE) + 0.62 for _, name in entries], inner)
    keys = keys_of(rows)
    marks = marks_of(rows)
    top = 0.2 + 0.24 * len(heading) + (0.12 if heading else 0.0) + (0.2 if marks else 0.0)
    body = len(rows) * (ROW + GAP) + GAP
    legend = 0.26 * max(map(len, columns), default=0) + (0.3 if keys else 0.0)
    height = top + body + 0.62 + legend + 0.12
    figure = Figure(figsize=(WIDTH, height))
    if heading:
        figure.text(
            EDGE / WIDTH, 1 - 0.2 / height, "\n".join(heading), fontsize=13, fontweight="bold",
            color=INK, va="top", parse_math=False,
        )  # fmt: skip
    box = (left / WIDTH, 1 - (top + body) / height, (WIDTH - left - EDGE) / WIDTH, body / height)
    _draw_rows(figure.add_axes(box), rows, names, (WIDTH - left - EDGE, body))
    below = figure.add_axes((EDGE / WIDTH, 0.12 / height, inner / WIDTH, legend / height or 1e-6))
    below.set(xlim=(0, inner), ylim=(legend or 1, 0))
    below.set_axis_off()
    _draw_legend(below, entries, colours(labels), columns)
    below.text(0, legend - 0.08, "   ·   ".join(keys), fontsize=8.5, color=SOFT, va="center")
    return figure


def _draw_rows(
    axes: "Axes",
    rows: Sequence[TimelineRow],
    names: Sequence[Sequence[str]],
    size: tuple[float, float],
) -> None:
    from matplotlib.collections import PolyCollection  # noqa: PLC0415

    width, body = size
    first, last = shown_span(rows)
    space = rows[0].timeline.labels
    palette = colours(space)
    marks = marks_of(rows)
    axes.set(xlim=(first, last), ylim=(body, 0))
    boxes, faces, edges = [], [], []
    hatched: dict[str, list[list[tuple[float, float]]]] = {"#000000": [], "#ffffff": []}
    for i, row in enumerate(rows):
        top = GAP + i * (ROW + GAP)
        axes.text(
            -0.12 / width, 1 - (top + ROW / 2) / body, "\n".join(names[i]), fontsize=NAME_SIZE,
            color=INK, ha="right", va="center", transform=axes.transAxes, parse_math=False,
        )  # fmt: skip
        tall = ROW / (1 + max(lanes(row.timeline), default=0))
        for s, lane, is_future in pieces_of(row):
            y = top + lane * tall
            box = [(s.start, y), (s.end, y), (s.end, y + tall), (s.start, y + tall)]
            face = blend(palette[s.label], opacity(s.score))
            boxes.append(box)
            faces.append(face)
            # A white line parts neighbours, unless it would hide them.
            inches = (s.end - s.start) / (last - first) * width
            edges.append(0.8 if inches > 0.05 else 0.0)
            if is_future:
                hatched[ink_on(face)].append(box)
            a, b = _clear(s, marks)
            room = (b - a) / (last - first) * width - 0.08
            name = fitting(one_line(space.names[s.label]), s.label, room, tall)
            if name:
                # The box keeps the hatching off the letters.
                plain = {"facecolor": face, "edgecolor": "none", "pad": 0.8}
                axes.text(
                    (a + b) / 2, y + tall / 2, name, fontsize=label_size(tall),
                    color=ink_on(face), ha="center", va="center", linespacing=0.95, clip_on=True,
                    parse_math=False, zorder=4, bbox=plain if is_future else None,
                )  # fmt: skip
    axes.add_collection(
        PolyCollection(boxes, facecolors=faces, edgecolors="white", linewidths=edges, zorder=2)
    )
    for colour, chosen in hatched.items():
        axes.add_collection(
            PolyCollection(
                chosen, facecolors="none", edgecolors=colour, linewidths=0, hatch="////",
                alpha=0.42, zorder=3,
            )
        )  # fmt: skip
    _draw_now(axes, rows, (last - first) / width, body)
    _draw_axis(axes, first, last, width)


def _clear(segment: Segment, marks: Sequence[float]) -> tuple[float, float]:
    """The longer part of a segment that the line through all rows leaves for its name."""
    if len(marks) != 1 or not segment.start < marks[0] < segment.end:
        return segment.start, segment.end
    parts = (segment.start, marks[0]), (marks[0], segment.end)
    return max(parts, key=lambda part: part[1] - part[0])


def _draw_now(axes: "Axes", rows: Sequence[TimelineRow], inch: float, body: float) -> None:
    """Draw one line through all rows, or one a row where they differ; `inch` is in seconds."""
    marks = marks_of(rows)
    lines = [(mark, 0.0, body) for mark in marks]
    if len(marks) > 1:
        tops = [GAP / 2 + i * (ROW + GAP) for i in range(len(rows))]
        lines = [
            (row.now, top, top + ROW + GAP)
            for row, top in zip(rows, tops, strict=True)
            if row.now in marks and row.now is not None
        ]
    for mark, top, end in lines:
        axes.plot(
            [mark, mark], [top, end], color=INK, linewidth=1.6, zorder=5, clip_on=False,
            solid_capstyle="butt",
        )  # fmt: skip
    labelled = -math.inf
    for mark in marks:
        if mark - labelled > 0.5 * inch:
            labelled = mark
            axes.text(
                mark, -0.05, "now", fontsize=NAME_SIZE, fontweight="bold", color=INK, ha="center"
            )


def _draw_axis(axes: "Axes", first: float, last: float, width: float) -> None:
    step = _tick_step(last - first, width / 0.75)
    minutes = last > 120
    ticks = [k * step for k in range(math.ceil(first / step), math.floor(last / step + 1e-9) + 1)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    texts = [clock(tick, minutes=minutes, decimals=decimals) for tick in ticks]
    axes.set_xticks(ticks, texts, fontsize=9, color=SOFT)
    axes.set_yticks([])
    axes.set_xlabel("time (min:s)" if minutes else "time (s)", fontsize=9, color=SOFT, labelpad=3)
    axes.tick_params(color=SOFT, length=3.5, pad=2.5)
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#aab0b7")


def _tick_step(seconds: float, most: float) -> float:
    """The shortest round step that gives at most so many ticks."""
    steps: list[float] = [
        1,
        2,
        5,
        10,
        15,
        30,
        60,
        120,
        300,
        600,
        900,
        1800,
        3600,
        7200,
        10800,
        21600,
        43200,
    ]
    if seconds / most < 1:
        tens = 10.0 ** math.floor(math.log10(seconds / most))
        steps = [tens, 2 * tens, 5 * tens, 10 * tens]
    days = 86400 * math.ceil(seconds / most / 86400)
    return float(next((step for step in steps if seconds / step <= most), days))


def _columns(widths: Sequence[float], room: float) -> list[list[tuple[int, float]]]:
    """Deal entries into as many columns as fit: in each, their places and where it starts."""
    for down in range(1, len(widths) + 1):
        starts = range(0, len(widths), down)
        wide = [max(widths[i : i + down]) for i in starts]
        if sum(wide) <= room or down == len(widths):
            # Spread over the room, but not so far that a few entries drift apart.
            slack = min(0.5, max(0.0, (room - sum(wide)) / len(wide)))
            lefts = [sum(wide[:k]) + k * slack for k in range(len(wide))]
            return [
                [(i, left) for i in range(start, min(start + down, len(widths)))]
                for start, left in zip(starts, lefts, strict=True)
            ]
    return []


def _draw_legend(
    axes: "Axes",
    entries: Sequence[tuple[int, str]],
    palette: Sequence[str],
    columns: Sequence[Sequence[tuple[int, float]]],
) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    for column in columns:
        for k, (entry, x) in enumerate(column):
            label, name = entries[entry]
            y, face = k * 0.26 + 0.13, palette[label]
            axes.add_patch(Rectangle((x, y - 0.085), 0.32, 0.17, facecolor=face, linewidth=0))
            axes.text(
                x + 0.16, y, str(label), fontsize=7, color=ink_on(face), ha="center",
                va="center_baseline",
            )  # fmt: skip
            text = cut(name, LEGEND_SIZE, WIDTH - 2 * EDGE - x - 0.4)
            axes.text(
                x + 0.4, y, text, fontsize=LEGEND_SIZE, color=INK, va="center_baseline",
                parse_math=False,
            )  # fmt: skip
