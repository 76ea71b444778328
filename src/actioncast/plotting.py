"""Timelines as pictures: PNG, SVG, one self-contained HTML page, and text for a terminal.

Rows are stacked as in the papers' figures, the truth above. An action keeps its colour in every
row and file of one label space. The future is hatched; the less probable, the paler.
"""

import html
import io
import json
import math
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actioncast.timeline import LabelSpace, Segment, Timeline
from actioncast.timeline_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.text import Text

# Chosen one after the other in OKLab, each the farthest from those before it, from white, from
# black and from the grey below, as seen with and without deuteranopia.
PALETTE = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1", "#9c755f"),
    *("#7e0360", "#245c07", "#fea8f6", "#2838a1", "#4ffab5", "#8593fd", "#7c41ae", "#af2f02"),
    *("#704c57", "#b43875", "#4fce74", "#d07ee9", "#e5aea9", "#9fbdfc", "#a5e6e2", "#15a0ce"),
    *("#19607b", "#527446", "#af972c", "#6e68da", "#279289", "#59317c", "#04dacb", "#e78290"),
    *("#755002", "#aad388", "#cb6701", "#827f00", "#a25cc8", "#1c65c8", "#941b3b", "#745d8e"),
    *("#c7a1d2", "#2b5042", "#adee72", "#2b8a31", "#819374", "#2288e8", "#485094", "#c6916f"),
)
GREY = "#c4c8cd"
BACKGROUND_NAMES = frozenset({"background", "bg", "sil", "none", "action_start", "action_end"})
"""Names, in lower case, that are grey although their label space does not call them background."""
FAINTEST = 0.35
"""Opacity of an action of probability 0: it must still be seen."""
SUFFIXES = (".png", ".svg", ".html")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """One row of a figure: the truth, or the answer of one run."""

    name: str
    timeline: Timeline
    now: float | None = None
    """Seconds where this row's future starts; absent, the figure's. `math.inf`: it has none."""


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
    data = _page(rows, title).encode() if is_page else _picture(rows, title, suffix[1:])
    write_atomically(path, data)


def colours(labels: LabelSpace) -> tuple[str, ...]:
    """The colour of every label; background is grey, and after 48 labels colours come again."""
    grey = {name for name in labels.names if name.lower() in BACKGROUND_NAMES} | labels.background
    return tuple(
        GREY if name in grey else PALETTE[i % len(PALETTE)] for i, name in enumerate(labels.names)
    )


def lanes(timeline: Timeline) -> list[int]:
    """The lane of every segment, such that segments of one lane do not overlap."""
    ends: list[float] = []
    chosen = []
    for segment in timeline:
        lane = next((i for i, end in enumerate(ends) if end <= segment.start), len(ends))
        ends[lane : lane + 1] = [segment.end]
        chosen.append(lane)
    return chosen


def _pieces(row: TimelineRow) -> Iterator[tuple[Segment, int, bool]]:
    """Yield each segment, cut at *now*, with its lane and whether it is future."""
    now = math.inf if row.now is None else row.now
    for s, lane in zip(row.timeline, lanes(row.timeline), strict=True):
        if s.start < now < s.end:
            yield Segment(s.start, now, s.label, s.score), lane, False
            yield Segment(now, s.end, s.label, s.score), lane, True
        else:
            yield s, lane, s.start >= now


def _span(rows: Iterable[TimelineRow]) -> tuple[float, float]:
    """First and last second to show; from 0 unless the rows start late."""
    starts = [s.start for row in rows for s in row.timeline]
    ends = [s.end for row in rows for s in row.timeline]
    marks = [row.now for row in rows if row.now is not None and math.isfinite(row.now)]
    if not starts:
        return 0.0, max([*marks, 1.0])
    start, end = min(starts + marks), max(ends + marks)
    return (0.0 if 0 <= start < 0.2 * end else start), end


def _occurring(rows: Iterable[TimelineRow]) -> list[int]:
    return sorted({s.label for row in rows for s in row.timeline})


def _opacity(score: float) -> float:
    return FAINTEST + (1 - FAINTEST) * min(1.0, max(0.0, score))


def _percent(score: float) -> str:
    return f"{100 * score:.0f} %"


def _shown(name: str) -> str:
    """The name on one line, without characters that steer a terminal or break XML."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def _clock(seconds: float, *, minutes: bool, decimals: int = 0) -> str:
    """Seconds as 83.4, or as 1:23.4 and 1:02:03."""
    if not minutes:
        return f"{seconds:.{decimals}f}"
    sign, ticks = "-" if seconds < 0 else "", round(abs(seconds) * 10**decimals)
    whole, rest = divmod(ticks, 10**decimals)
    fraction = f".{rest:0{decimals}}" if decimals else ""
    hours, mins, secs = whole // 3600, whole // 60 % 60, whole % 60
    head = f"{hours}:{mins:02}" if hours else f"{mins}"
    return f"{sign}{head}:{secs:02}{fraction}"


# PNG and SVG: all measures in inches

WIDTH, EDGE = 12.0, 0.22
ROW, GAP = 0.46, 0.16
NAME_SIZE, LABEL_SIZE, LEGEND_SIZE = 10.5, 8.5, 9.0
INK, SOFT = "#1d2127", "#5b636d"


def _picture(rows: Sequence[TimelineRow], title: str, kind: str) -> bytes:
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
        figure = _figure(rows, _shown(title))
        figure.savefig(file, format=kind, dpi=160, metadata=metadata, facecolor="white")
    return file.getvalue()


def _figure(rows: Sequence[TimelineRow], title: str) -> "Figure":
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = [_wrapped(_shown(row.name), NAME_SIZE, 2.4, 2) for row in rows]
    left = EDGE + 0.12 + max(_width(line, NAME_SIZE) for name in names for line in name)
    inner = WIDTH - 2 * EDGE
    heading = _wrapped(title, 13, inner, 2, "bold") if title else []
    labels = rows[0].timeline.labels
    entries = [(i, _shown(labels.names[i])) for i in _occurring(rows)]
    columns = _columns([_width(name, LEGEND_SIZE) + 0.62 for _, name in entries], inner)
    keys = _keys(rows)
    marks = _marks(rows)
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


def _marks(rows: Iterable[TimelineRow]) -> list[float]:
    return sorted({row.now for row in rows if row.now is not None and math.isfinite(row.now)})


def _draw_rows(
    axes: "Axes",
    rows: Sequence[TimelineRow],
    names: Sequence[Sequence[str]],
    size: tuple[float, float],
) -> None:
    from matplotlib.collections import PolyCollection  # noqa: PLC0415

    width, body = size
    first, last = _span(rows)
    space = rows[0].timeline.labels
    palette = colours(space)
    marks = _marks(rows)
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
        for s, lane, is_future in _pieces(row):
            y = top + lane * tall
            box = [(s.start, y), (s.end, y), (s.end, y + tall), (s.start, y + tall)]
            face = _blend(palette[s.label], _opacity(s.score))
            boxes.append(box)
            faces.append(face)
            # A white line parts neighbours, unless it would hide them.
            inches = (s.end - s.start) / (last - first) * width
            edges.append(0.8 if inches > 0.05 else 0.0)
            if is_future:
                hatched[_ink(face)].append(box)
            a, b = _clear(s, marks)
            room = (b - a) / (last - first) * width - 0.08
            name = _fitting(_shown(space.names[s.label]), s.label, room, tall)
            if name:
                # The box keeps the hatching off the letters.
                plain = {"facecolor": face, "edgecolor": "none", "pad": 0.8}
                axes.text(
                    (a + b) / 2, y + tall / 2, name, fontsize=_label_size(tall),
                    color=_ink(face), ha="center", va="center", linespacing=0.95, clip_on=True,
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
    marks = _marks(rows)
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
    texts = [_clock(tick, minutes=minutes, decimals=decimals) for tick in ticks]
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
                x + 0.16, y, str(label), fontsize=7, color=_ink(face), ha="center",
                va="center_baseline",
            )  # fmt: skip
            text = _cut(name, LEGEND_SIZE, WIDTH - 2 * EDGE - x - 0.4)
            axes.text(
                x + 0.4, y, text, fontsize=LEGEND_SIZE, color=INK, va="center_baseline",
                parse_math=False,
            )  # fmt: skip


def _keys(rows: Sequence[TimelineRow]) -> list[str]:
    """What the reader must know of the drawing, where it occurs."""
    pieces = [piece for row in rows for piece in _pieces(row)]
    keys = ["hatched: after now"] if any(is_future for _, _, is_future in pieces) else []
    if any(s.score < 1 for s, _, _ in pieces):
        keys.append("paler: less probable")
    return keys


def _label_size(tall: float) -> float:
    return min(LABEL_SIZE, tall * 72 * 0.62)


def _fitting(name: str, label: int, inches: float, tall: float) -> str:
    """The name on one line or several, else the number that the legend gives it, else nothing."""
    size = _label_size(tall)
    if size < 5 or inches <= 0:
        return ""
    if _width(name, size) <= inches:
        return name
    lines = _broken(name, size, inches)
    fits = all(_width(line, size) <= inches for line in lines)
    if fits and len(lines) * size * 1.15 <= (tall - 0.04) * 72:
        return "\n".join(lines)
    return str(label) if _width(str(label), size) <= inches + 0.04 else ""


def _broken(text: str, size: float, inches: float, weight: str = "normal") -> list[str]:
    """The text on lines of at most so many inches, broken after blanks, "_" and "-"."""
    lines: list[str] = []
    for word in re.findall(r"[^\s_-]*[_-]+|[^\s_-]+| ", text):
        if lines and _width((lines[-1] + word).rstrip(), size, weight) <= inches:
            lines[-1] += word
        elif word != " ":
            lines.append(word)
    return [line.rstrip() for line in lines]


def _wrapped(text: str, size: float, inches: float, most: int, weight: str = "normal") -> list[str]:
    """The text on at most so many lines, the last one cut where it is too long."""
    lines = _broken(text, size, inches, weight)
    kept = [*lines[: most - 1], " ".join(lines[most - 1 :])] if len(lines) > most else lines
    return [_cut(line, size, inches, weight) for line in kept] or [""]


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a text takes, with a margin: hinting widens small letters."""
    return _width_of_one_point(text, weight) * size * 1.05


# A figure asks for the same few names thousands of times, and a font takes its time.
@lru_cache(maxsize=4096)
def _width_of_one_point(text: str, weight: str) -> float:
    from matplotlib.font_manager import FontProperties, findfont, get_font  # noqa: PLC0415

    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    font.set_size(100, 72)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 / 100 / 72


def _cut(text: str, size: float, inches: float, weight: str = "normal") -> str:
    if _width(text, size, weight) <= inches:
        return text
    while text and _width(text + "…", size, weight) > inches:
        text = text[:-1]
    return text.rstrip() + "…"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _blend(colour: str, opacity: float, ground: str = "#ffffff") -> str:
    mixed = (
        round(a * opacity + b * (1 - opacity))
        for a, b in zip(_channels(colour), _channels(ground), strict=True)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _ink(ground: str) -> str:
    """Black or white, whichever reads better on the colour (WCAG contrast)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (value / 255 for value in _channels(ground))
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if luminance > 0.2 else "#ffffff"


# HTML


def _page(rows: Sequence[TimelineRow], title: str) -> str:
    """The template with the rows, as data for its script and as a table."""
    first, last = _span(rows)
    labels = rows[0].timeline.labels
    palette = colours(labels)
    data = {
        "start": first,
        "end": last,
        "faintest": FAINTEST,
        "labels": {
            str(i): {"name": _shown(labels.names[i]), "colour": palette[i]}
            for i in _occurring(rows)
        },
        "rows": [
            {
                "name": _shown(row.name),
                "now": row.now if row.now is not None and math.isfinite(row.now) else None,
                "lanes": 1 + max(lanes(row.timeline), default=0),
                "segments": [
                    [s.start, s.end, s.label, s.score, lane, int(is_future)]
                    for s, lane, is_future in _pieces(row)
                ],
            }
            for row in rows
        ],
    }
    # No "<" in a script: "</script>" in a name would end it.
    script = json.dumps(data).replace("<", "\\u003c")
    template = (files("actioncast") / "static" / "timeline.html").read_text(encoding="utf-8")
    values = {
        "title": html.escape(_shown(title) or "Timelines"),
        "keys": html.escape(" · ".join(_keys(rows))),
        "table": "\n".join(_table_rows(rows)),
        "data": script,
    }
    # In one pass, so that a name that looks like a placeholder stays a name.
    return _Template(template).substitute(values)


class _Template(string.Template):
    delimiter = "@@"


def _table_rows(rows: Sequence[TimelineRow]) -> Iterator[str]:
    minutes = _span(rows)[1] > 120
    for row in rows:
        for s, _, is_future in _pieces(row):
            cells = (
                _shown(row.name),
                _clock(s.start, minutes=minutes, decimals=2),
                _clock(s.end, minutes=minutes, decimals=2),
                _shown(row.timeline.labels.names[s.label]),
                _percent(s.score),
                "future" if is_future else "past",
            )
            yield "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


# Terminal


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
    first, last = _span([row])
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
    left, right = (_clock(t, minutes=minutes, decimals=1) for t in (first, last))
    middle_text = "" if marker is None else f"now {_clock(marker, minutes=minutes, decimals=1)}"
    text.append("\n" + _scale(left, middle_text, right, split, cells + (marker is not None)), "dim")
    pending = marker is not None
    times = len(_clock(last, minutes=minutes, decimals=1))
    room = max(8, width - 2 * times - 11)
    for s in timeline:
        if pending and marker is not None and s.start >= marker:
            text.append("\n" + "── now ".ljust(max(10, width), "─"), "bold")
            pending = False
        start, end = (_clock(t, minutes=minutes, decimals=1).rjust(times) for t in (s.start, s.end))
        name = _shown(timeline.labels.names[s.label])
        text.append("\n")
        text.append(letters.get(s.label, "#"), _style(palette[s.label], 1.0))
        short = name if len(name) < room else name[: room - 2] + "…"
        text.append(f" {start} {end}  ")
        text.append(set_cell_size(short, room))
        text.append(_percent(s.score).rjust(6))
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
    face = _blend(colour, _opacity(score), "#000000")
    return f"{_ink(face)} on {face}"
