"""WebVTT: cues that are subtitles of the video, and everything in a NOTE block."""

import html
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from actioncast.timeline import LabelSpace, Segment, Timeline
from actioncast.timeline_files.contents import Contents, Row, is_forecast, milliseconds, segment_of
from actioncast.timeline_files.json_form import FORMAT, from_json, to_json

LEAD, LINGER = 5.0, 2.0
"""Seconds before and after *now* that a subtitle announces the forecast."""

_NOTE = f"NOTE {FORMAT}"
_TIME = r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
_TIMING = re.compile(rf"{_TIME}[ \t]+-->[ \t]+{_TIME}(?:[ \t]+.*)?")
_OWN_CUE = re.compile(r"(?:next: )?(.*?)(?: \(\d+ %\))?")


def to_vtt(timeline: Timeline, now: float | None, video: str | None) -> str:
    """A cue for each segment, and one that announces the forecast; all of it in a NOTE block."""
    # "-->" may not stand in a NOTE.
    data = to_json(timeline, now, video).replace(">", "\\u003e")
    style = "STYLE\n::cue(.forecast) {\n  color: #ffd54a;\n  font-style: italic;\n}"
    cues = [
        f"{name}\n{_clock(start)} --> {_clock(end)}{settings}\n{text}"
        for name, start, end, settings, text in _cues(timeline, now)
    ]
    return "\n\n".join(["WEBVTT", style, f"{_NOTE}\n{data}", *cues]) + "\n"


def _cues(timeline: Timeline, now: float | None) -> Iterator[tuple[str, int, int, str, str]]:
    """Yield every cue as name, milliseconds of start and end, settings, and text, by start."""
    forecast = [s for s in timeline if is_forecast(s, now)]
    announced = now is None or not forecast
    for i, s in enumerate(timeline, 1):
        if not announced and now is not None and s.start >= max(0.0, now - LEAD):
            yield _announcement(forecast, timeline.labels, now)
            announced = True
        start = milliseconds(s.start)
        end = max(milliseconds(s.end), start + 1)
        text = _cue_text(s, timeline.labels)
        if is_forecast(s, now):
            yield f"future-{i}", start, end, "", f"<c.forecast>next: {text}</c>"
        else:
            yield f"past-{i}", start, end, "", text


def _announcement(
    forecast: Sequence[Segment], labels: LabelSpace, now: float
) -> tuple[str, int, int, str, str]:
    """The cue at the top of the picture that says at *now* what comes."""
    coming = " → ".join(_cue_text(s, labels) for s in forecast[:3])
    more = " → …" if len(forecast) > 3 else ""
    seconds = math.floor(forecast[0].start)
    at = f"from {seconds // 60}:{seconds % 60:02}"
    text = f"<c.forecast>{at}: {coming}{more}</c>"
    start, end = milliseconds(max(0.0, now - LEAD)), milliseconds(now + LINGER)
    return "forecast", start, end, " line:0", text


def _cue_text(segment: Segment, labels: LabelSpace) -> str:
    name = " ".join(_no_controls(labels.names[segment.label]).split())
    sure = "" if segment.score == 1 else f" ({100 * segment.score:.0f} %)"
    return escape(name) + sure


def _no_controls(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"


def from_vtt(text: str, path: Path) -> Contents:
    """Read the NOTE block where there is one and the cues agree with it, else the cues."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not re.match(r"WEBVTT(?:[ \t]|$)", lines[0]):
        raise ValueError(
            f"{path}, line 1: must be WEBVTT, got {lines[0][:40]!r}; add that line before the cues."
        )
    own, cues = None, []
    for first, block in _blocks(lines):
        where = f"{path}, line {first}"
        if block[0].startswith(_NOTE):
            own = from_json("\n".join(block[1:]), where)
        elif first > 1 and re.match(r"(?:NOTE|STYLE|REGION)(?:[ \t]|$)", block[0]) is None:
            cues.append(_cue(block, where))
    if own is None:
        return _plain_cues(cues)
    space = LabelSpace(own.names) if own.names else None
    expected = []
    if space is not None:
        timeline = Timeline.of((segment_of(row, space) for row in own.rows), space)
        expected = [(a, b, c) for _, a, b, _, c in _cues(timeline, own.now)]
    if expected != [(a, b, c) for _, _, a, b, c in cues]:
        raise ValueError(
            f"{path}: the cues must be those that its NOTE block was written with, got others. "
            f"Delete the block that starts with '{_NOTE}' to read the cues, or undo the edit."
        )
    return own


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the lines of each block between blank lines."""
    block: list[str] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _cue(block: Sequence[str], where: str) -> tuple[str, str, int, int, str]:
    """The place, name, milliseconds of start and end, and text of a cue."""
    at = 0 if "-->" in block[0] else 1
    timing = _TIMING.fullmatch(block[at].strip()) if at < len(block) else None
    if timing is None:
        raise ValueError(
            f"{where}: a cue must have a line as 00:00:01.000 --> 00:00:02.500, got "
            f"{block[min(at, len(block) - 1)]!r}; correct it."
        )
    h1, m1, s1, ms1, h2, m2, s2, ms2 = (int(part or 0) for part in timing.groups())
    start = ((h1 * 60 + m1) * 60 + s1) * 1000 + ms1
    end = ((h2 * 60 + m2) * 60 + s2) * 1000 + ms2
    return where, block[0] if at else "", start, end, "\n".join(block[at + 1 :])


def _plain_cues(cues: Sequence[tuple[str, str, int, int, str]]) -> Contents:
    rows, starts = [], []
    for where, name, start, end, text in cues:
        label = html.unescape(" ".join(re.sub(r"<[^>]*>", "", text).split()))
        if name == "forecast":
            continue
        if re.fullmatch(r"(?:past|future)-\d+", name) and (own := _OWN_CUE.fullmatch(label)):
            label = own[1]
            if name.startswith("future"):
                starts.append(start / 1000)
        if not label:
            raise ValueError(f"{where}: a cue must name an action, got no text; add or delete it.")
        rows.append(Row(where=where, start=start / 1000, end=end / 1000, name=label))
    return Contents(rows=rows, now=min(starts, default=None))
