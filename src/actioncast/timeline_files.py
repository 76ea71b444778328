"""Timelines as files: CSV, JSON, WebVTT and ELAN .eaf, chosen by suffix.

A segment that starts at or after *now* is the forecast. What each format keeps:

- `.json`: everything, exactly.
- `.vtt`: everything, exactly, in a NOTE block; its cues are subtitles of the video.
- `.csv`: the segments exactly; *now* is where the first future segment starts.
- `.eaf`: everything, times rounded to milliseconds, the video as an absolute path.
"""

import csv
import difflib
import html
import io
import json
import math
import mimetypes
import os
import re
import secrets
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from actioncast.timeline import LabelSpace, Segment, Timeline

SUFFIXES = (".csv", ".json", ".vtt", ".eaf")
FORMAT, VERSION = "actioncast-timeline", 1
LEAD, LINGER = 5.0, 2.0
"""Seconds before and after *now* that a subtitle announces the forecast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineFile:
    """What a timeline file holds."""

    timeline: Timeline
    now: float | None = None
    """Seconds into the video where the forecast starts; None where the file tells of none."""
    video: str | None = None
    """Path or address of the video, where the file names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A segment as read, with the place to name in an error."""

    where: str
    start: float
    end: float
    name: str
    score: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    rows: Sequence[_Row]
    names: tuple[str, ...] = ()
    background: frozenset[str] = field(default_factory=frozenset)
    now: float | None = None
    video: str | None = None


def write_timeline(
    timeline: Timeline, path: Path | str, *, now: float | None = None, video: str | None = None
) -> None:
    """Write a timeline; a failure on the way leaves the file that was there.

    Args:
        timeline: What to write.
        path: Ends with one of `SUFFIXES`.
        now: Seconds into the video; segments that start at or after it are the forecast.
        video: Path or address of the video (not kept by CSV).
    """
    path = Path(path)
    suffix = _suffix(path)
    for segment in timeline:
        _check(segment, suffix)
    if now is not None and not (math.isfinite(now) and now >= 0):
        raise ValueError(f"now must be zero or more seconds, got {now}; give None without one.")
    if suffix == ".csv":
        text = _to_csv(timeline, now)
    elif suffix == ".json":
        text = _to_json(timeline, now, video, indent=1) + "\n"
    elif suffix == ".vtt":
        text = _to_vtt(timeline, now, video)
    else:
        text = _to_eaf(timeline, now, video, path)
    write_atomically(path, text.encode())


def read_timeline(
    path: Path | str, labels: LabelSpace | None = None, *, tier: str | None = None
) -> TimelineFile:
    """Read a timeline, written by `write_timeline`, by hand or by another tool.

    Args:
        path: Ends with one of `SUFFIXES`.
        labels: The label space to read into. Absent, it is the one that the file holds, followed
            by other names in the order in which they appear.
        tier: The tier of an ELAN file to read; absent, "past" and "forecast", or the only tier.
    """
    path = Path(path)
    suffix = _suffix(path)
    if tier is not None and suffix != ".eaf":
        raise ValueError(f"tier must be left out for {path}: only .eaf files have tiers.")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be UTF-8 text, got byte {error.object[error.start]:#04x} at offset "
            f"{error.start}; save it as UTF-8."
        ) from None
    if suffix == ".csv":
        contents = _from_csv(text, path)
    elif suffix == ".json":
        contents = _from_json(text, str(path))
    elif suffix == ".vtt":
        contents = _from_vtt(text, path)
    else:
        contents = _from_eaf(text, path, tier)
    if contents.now is not None and not (math.isfinite(contents.now) and contents.now >= 0):
        raise ValueError(f"{path}: now must be zero or more seconds, got {contents.now}; fix it.")
    space = labels or _label_space(contents, path)
    segments = [_segment(row, space) for row in contents.rows]
    return TimelineFile(
        timeline=Timeline.of(segments, space), now=contents.now, video=contents.video
    )


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step: readers see the old bytes or the new, never a part of them."""
    # A link is followed, or it would be replaced by a plain file.
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"a timeline file must end with {', '.join(SUFFIXES)}, got {path}; rename it."
        )
    return suffix


def _check(segment: Segment, suffix: str) -> None:
    if not (math.isfinite(segment.start) and math.isfinite(segment.end)):
        raise ValueError(f"a segment in a file must have finite times, got {segment}; crop it.")
    if not 0 <= segment.score <= 1:
        raise ValueError(f"a segment's score must be from 0 to 1, got {segment}; rescale it.")
    if segment.start < 0 and suffix in {".vtt", ".eaf"}:
        raise ValueError(
            f"{suffix} counts from the start of the video, got {segment}; crop the timeline at 0 "
            "or write .csv or .json."
        )


def _label_space(contents: _Contents, path: Path) -> LabelSpace:
    names = dict.fromkeys([*contents.names, *(row.name for row in contents.rows)])
    if not names:
        raise ValueError(
            f"{path} must hold a segment to take label names from, got none; give `labels`."
        )
    if odd := contents.background - set(names):
        raise ValueError(f"{path}: background must name labels, got {min(odd)!r}; add it to them.")
    return LabelSpace(tuple(names), contents.background)


def _segment(row: _Row, labels: LabelSpace) -> Segment:
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


def _is_forecast(segment: Segment, now: float | None) -> bool:
    return now is not None and segment.start >= now


# CSV


def _to_csv(timeline: Timeline, now: float | None) -> str:
    lines = ["start,end,label,score,part"]
    for s in timeline:
        name = timeline.labels.names[s.label]
        # Quoted also for blanks at its edges, which readers skip outside quotes.
        if not name or name != name.strip() or re.search(r'[",;\t\r\n\0]', name):
            name = '"' + name.replace('"', '""') + '"'
        part = "" if now is None else "future" if _is_forecast(s, now) else "past"
        lines.append(f"{s.start!r},{s.end!r},{name},{s.score!r},{part}")
    return "\n".join(lines) + "\n"


def _from_csv(text: str, path: Path) -> _Contents:
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
                _Row(
                    where=where,
                    start=_csv_number(cell, "start", where, delimiter),
                    end=_csv_number(cell, "end", where, delimiter),
                    name=_csv_cell(cell, "label", where),
                    score=_csv_number({"score": "1", **_filled(cell)}, "score", where, delimiter),
                )
            )
            parts.append(cell.get("part", "").strip().lower())
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: must be CSV, got {error}; quote labels that hold "
            f"quotes or {delimiter!r}."
        ) from None
    return _Contents(rows=rows, now=_csv_now(rows, parts))


def _filled(cell: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in cell.items() if text.strip()}


def _csv_cell(cell: dict[str, str], column: str, where: str) -> str:
    if column not in cell:
        raise ValueError(f"{where}: a row must have a {column}, got {list(cell.values())}; add it.")
    return cell[column]


def _csv_number(cell: dict[str, str], column: str, where: str, delimiter: str) -> float:
    text = _csv_cell(cell, column, where).strip()
    try:
        # Spreadsheets that separate by semicolon write decimal commas.
        return float(text.replace(",", ".") if delimiter != "," else text)
    except ValueError:
        raise ValueError(
            f"{where}: {column} must be a number, got {text!r}; write seconds as 12.5."
        ) from None


def _csv_now(rows: Sequence[_Row], parts: Sequence[str]) -> float | None:
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


# JSON


def _to_json(
    timeline: Timeline, now: float | None, video: str | None, indent: int | None = None
) -> str:
    names = timeline.labels.names
    content = {
        "format": FORMAT,
        "version": VERSION,
        "video": video,
        "now": now,
        "labels": list(names),
        "background": sorted(timeline.labels.background),
        "segments": [
            {"start": s.start, "end": s.end, "label": names[s.label], "score": s.score}
            for s in timeline
        ],
    }
    return json.dumps(content, indent=indent)


def _from_json(text: str, where: str) -> _Contents:
    try:
        content = json.loads(text, parse_int=float)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}, line {error.lineno}: must be JSON, got {error.msg}; correct it there."
        ) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(
            f'{where}: must be an object with "format": "{FORMAT}", got {text.strip()[:40]!r}; '
            "write it with write_timeline."
        )
    if content.get("version") != VERSION:
        raise ValueError(
            f"{where}: version must be {VERSION}, got {content.get('version')!r}; update "
            "actioncast to read it."
        )
    rows = []
    for i, item in enumerate(_typed(content, "segments", list, where)):
        place = f"{where}, segments[{i}]"
        if not isinstance(item, dict):
            raise ValueError(f"{place}: must be an object, got {item!r}; correct it.")
        rows.append(
            _Row(
                where=place,
                start=_typed(item, "start", float, place),
                end=_typed(item, "end", float, place),
                name=_typed(item, "label", str, place),
                score=_typed({"score": 1.0, **item}, "score", float, place),
            )
        )
    names = {
        key: _typed({key: [], **content}, key, list, where) for key in ("labels", "background")
    }
    if odd := [name for name in [*names["labels"], *names["background"]] if type(name) is not str]:
        raise ValueError(f"{where}: label names must be text, got {odd[0]!r}; quote it.")
    return _Contents(
        rows=rows,
        names=tuple(names["labels"]),
        background=frozenset(names["background"]),
        now=_typed({"now": None, **content}, "now", (float, type(None)), where),
        video=_typed({"video": None, **content}, "video", (str, type(None)), where),
    )


_KINDS = {float: "a number", str: "text", list: "a list", type(None): "null"}


def _typed(item: dict[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = item.get(key, ...)
    if not isinstance(value, kind):
        words = " or ".join(_KINDS[k] for k in (kind if isinstance(kind, tuple) else (kind,)))
        got = "nothing" if value is ... else repr(value)
        raise ValueError(f'{where}: "{key}" must be {words}, got {got}; correct it.')
    return value


# WebVTT

_NOTE = f"NOTE {FORMAT}"
_TIME = r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)\.(\d{3})"
_TIMING = re.compile(rf"{_TIME}[ \t]+-->[ \t]+{_TIME}(?:[ \t]+.*)?")
_OWN_CUE = re.compile(r"(?:next: )?(.*?)(?: \(\d+ %\))?")


def _to_vtt(timeline: Timeline, now: float | None, video: str | None) -> str:
    # "-->" may not stand in a NOTE.
    data = _to_json(timeline, now, video).replace(">", "\\u003e")
    style = "STYLE\n::cue(.forecast) {\n  color: #ffd54a;\n  font-style: italic;\n}"
    cues = [
        f"{name}\n{_vtt_time(start)} --> {_vtt_time(end)}{settings}\n{text}"
        for name, start, end, settings, text in _vtt_cues(timeline, now)
    ]
    return "\n\n".join(["WEBVTT", style, f"{_NOTE}\n{data}", *cues]) + "\n"


def _vtt_cues(timeline: Timeline, now: float | None) -> Iterator[tuple[str, int, int, str, str]]:
    """Yield every cue as name, milliseconds of start and end, settings, and text, by start."""
    forecast = [s for s in timeline if _is_forecast(s, now)]
    announced = now is None or not forecast
    for i, s in enumerate(timeline, 1):
        if not announced and now is not None and s.start >= max(0.0, now - LEAD):
            yield _announcement(forecast, timeline.labels, now)
            announced = True
        start = _milliseconds(s.start)
        end = max(_milliseconds(s.end), start + 1)
        text = _cue_text(s, timeline.labels)
        if _is_forecast(s, now):
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
    start, end = _milliseconds(max(0.0, now - LEAD)), _milliseconds(now + LINGER)
    return "forecast", start, end, " line:0", text


def _cue_text(segment: Segment, labels: LabelSpace) -> str:
    name = " ".join(_no_controls(labels.names[segment.label]).split())
    sure = "" if segment.score == 1 else f" ({100 * segment.score:.0f} %)"
    return escape(name) + sure


def _no_controls(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _vtt_time(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"


def _from_vtt(text: str, path: Path) -> _Contents:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not re.match(r"WEBVTT(?:[ \t]|$)", lines[0]):
        raise ValueError(
            f"{path}, line 1: must be WEBVTT, got {lines[0][:40]!r}; add that line before the cues."
        )
    own, cues = None, []
    for first, block in _blocks(lines):
        where = f"{path}, line {first}"
        if block[0].startswith(_NOTE):
            own = _from_json("\n".join(block[1:]), where)
        elif first > 1 and re.match(r"(?:NOTE|STYLE|REGION)(?:[ \t]|$)", block[0]) is None:
            cues.append(_cue(block, where))
    if own is None:
        return _plain_cues(cues)
    space = LabelSpace(own.names) if own.names else None
    expected = []
    if space is not None:
        timeline = Timeline.of((_segment(row, space) for row in own.rows), space)
        expected = [(a, b, c) for _, a, b, _, c in _vtt_cues(timeline, own.now)]
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


def _plain_cues(cues: Sequence[tuple[str, str, int, int, str]]) -> _Contents:
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
        rows.append(_Row(where=where, start=start / 1000, end=end / 1000, name=label))
    return _Contents(rows=rows, now=min(starts, default=None))


# ELAN

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PARTS = re.compile(r"(past|forecast)(?:-\d+)?")
_VOCABULARY = "actioncast"


def _to_eaf(timeline: Timeline, now: float | None, video: str | None, path: Path) -> str:
    names = timeline.labels.names
    if odd := [name for name in names if _NOT_XML.search(name)]:
        raise ValueError(f"XML cannot hold the label {odd[0]!r}; rename it or write .json.")
    spans = [_eaf_span(s, now) for s in timeline]
    slots = sorted({time for span in spans for time in span})
    identity = {time: f"ts{i}" for i, time in enumerate(slots, 1)}
    tiers: dict[str, list[int]] = {}
    for part, is_forecast in (("past", False), ("forecast", True)):
        mine = [i for i, s in enumerate(timeline) if _is_forecast(s, now) is is_forecast]
        # Annotations of one ELAN tier may not overlap.
        for lane, members in enumerate(_lanes(mine, spans), 1):
            tiers[part if lane == 1 else f"{part}-{lane}"] = members
    # A fixed date: the same timeline is the same file.
    xml = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<ANNOTATION_DOCUMENT AUTHOR="actioncast" DATE="1970-01-01T00:00:00Z" FORMAT="3.0" '
        'VERSION="3.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">',
        '<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">',
        *([] if video is None else [_eaf_media(video, path)]),
        *([] if now is None else [_property("actioncast:now", f"{_eaf_now(now) / 1000!r}")]),
        *(_property("actioncast:background", name) for name in sorted(timeline.labels.background)),
        _property("lastUsedAnnotationId", str(2 * len(timeline))),
        "</HEADER>",
        "<TIME_ORDER>",
        *(f'<TIME_SLOT TIME_SLOT_ID="{identity[t]}" TIME_VALUE="{t}"/>' for t in slots),
        "</TIME_ORDER>",
    ]
    for tier, members in tiers.items():
        xml.append(f'<TIER LINGUISTIC_TYPE_REF="action" TIER_ID="{tier}">')
        for i in members:
            a, b = (identity[time] for time in spans[i])
            name = names[timeline.segments[i].label]
            xml.append(
                f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{i + 1}" TIME_SLOT_REF1="{a}" '
                f'TIME_SLOT_REF2="{b}">{_value(name)}</ALIGNABLE_ANNOTATION></ANNOTATION>'
            )
        xml.append("</TIER>")
        xml.append(f'<TIER LINGUISTIC_TYPE_REF="score" PARENT_REF="{tier}" TIER_ID="{tier} score">')
        xml.extend(
            f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a{len(timeline) + i + 1}" '
            f'ANNOTATION_REF="a{i + 1}">{_value(repr(timeline.segments[i].score))}'
            "</REF_ANNOTATION></ANNOTATION>"
            for i in members
        )
        xml.append("</TIER>")
    xml += [
        f'<LINGUISTIC_TYPE CONTROLLED_VOCABULARY_REF="{_VOCABULARY}" GRAPHIC_REFERENCES="false" '
        'LINGUISTIC_TYPE_ID="action" TIME_ALIGNABLE="true"/>',
        '<LINGUISTIC_TYPE CONSTRAINTS="Symbolic_Association" GRAPHIC_REFERENCES="false" '
        'LINGUISTIC_TYPE_ID="score" TIME_ALIGNABLE="false"/>',
        '<LANGUAGE LANG_DEF="http://cdb.iso.org/lg/CDB-00130975-001" LANG_ID="und" '
        'LANG_LABEL="undetermined (und)"/>',
        '<CONSTRAINT DESCRIPTION="1-1 association with a parent annotation" '
        'STEREOTYPE="Symbolic_Association"/>',
        f'<CONTROLLED_VOCABULARY CV_ID="{_VOCABULARY}"><DESCRIPTION LANG_REF="und"/>',
        *(
            f'<CV_ENTRY_ML CVE_ID="cve{i}"><CVE_VALUE LANG_REF="und">{_escape(name)}</CVE_VALUE>'
            "</CV_ENTRY_ML>"
            for i, name in enumerate(names)
        ),
        "</CONTROLLED_VOCABULARY>",
        "</ANNOTATION_DOCUMENT>",
    ]
    return "\n".join(xml) + "\n"


def _eaf_now(now: float) -> int:
    return max(_milliseconds(now), 1 if now > 0 else 0)


def _eaf_span(segment: Segment, now: float | None) -> tuple[int, int]:
    """Start and end in milliseconds; rounding carries no segment from one side of *now* over."""
    start = _milliseconds(segment.start)
    if now is not None:
        if _is_forecast(segment, now):
            start = max(start, _eaf_now(now))
        else:
            start = min(start, _eaf_now(now) - 1)
    return start, max(_milliseconds(segment.end), start + 1)


def _lanes(members: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    lanes: list[list[int]] = []
    for i in members:
        lane = next((lane for lane in lanes if spans[lane[-1]][1] <= spans[i][0]), None)
        if lane is None:
            lanes.append([i])
        else:
            lane.append(i)
    return lanes


def _escape(text: str) -> str:
    return escape(text, {"\r": "&#13;"})


def _value(text: str) -> str:
    return f"<ANNOTATION_VALUE>{_escape(text)}</ANNOTATION_VALUE>"


def _property(name: str, text: str) -> str:
    return f'<PROPERTY NAME="{name}">{_escape(text)}</PROPERTY>'


def _eaf_media(video: str, path: Path) -> str:
    kind = quoteattr(mimetypes.guess_type(video)[0] or "video/mp4")
    if "://" in video:
        return f"<MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(video)} MIME_TYPE={kind}/>"
    relative = Path(os.path.relpath(video, path.parent)).as_posix()
    return (
        f"<MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(Path(video).resolve().as_uri())} "
        f"MIME_TYPE={kind} RELATIVE_MEDIA_URL={quoteattr('./' + relative)}/>"
    )


def _from_eaf(text: str, path: Path, tier: str | None) -> _Contents:
    # An ELAN file has none, and entities are how XML reads other files or fills the memory.
    if "<!DOCTYPE" in text:
        raise ValueError(f"{path}: must have no DOCTYPE, got one; save it again with ELAN.")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise ValueError(
            f"{path}, line {error.position[0]}: must be XML, got {error}; save it again with ELAN."
        ) from None
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ValueError(
            f"{path}: must hold ANNOTATION_DOCUMENT, got {root.tag}; give a file that ELAN wrote."
        )
    chosen = _chosen_tiers(root, path, tier)
    times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    annotations = {
        item.get("ANNOTATION_ID", ""): item for item in root.iterfind("TIER/ANNOTATION/*")
    }
    scores = {
        item.get("ANNOTATION_REF"): item.findtext("ANNOTATION_VALUE", "")
        for scored in root.iterfind("TIER[@LINGUISTIC_TYPE_REF='score']")
        for item in scored.iter("REF_ANNOTATION")
    }
    rows, starts = [], []
    for name in chosen:
        for item in root.iterfind("TIER"):
            if item.get("TIER_ID") != name:
                continue
            for annotation in item.iterfind("ANNOTATION/*"):
                row = _eaf_row(annotation, annotations, times, scores, path)
                rows.append(row)
                if name.startswith("forecast"):
                    starts.append(row.start)
    rows.sort(key=lambda row: (row.start, row.end))
    properties = [(item.get("NAME"), item.text or "") for item in root.iterfind("HEADER/PROPERTY")]
    now = dict(properties).get("actioncast:now")
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    own = f"CONTROLLED_VOCABULARY[@CV_ID='{_VOCABULARY}']/CV_ENTRY_ML/CVE_VALUE"
    return _Contents(
        rows=rows,
        names=tuple(item.text or "" for item in root.iterfind(own)),
        background=frozenset(text for name, text in properties if name == "actioncast:background"),
        now=min(starts, default=None) if now is None else _eaf_number(now, f"{path}, now"),
        video=None if media is None else _eaf_video(media, path),
    )


def _chosen_tiers(root: ET.Element, path: Path, tier: str | None) -> list[str]:
    filled = [
        item.get("TIER_ID", "")
        for item in root.iterfind("TIER")
        if item.find("ANNOTATION") is not None
    ]
    if tier is not None:
        tiers = [item.get("TIER_ID", "") for item in root.iterfind("TIER")]
        if tier not in tiers:
            raise ValueError(f"{path}: tier must be one of {tiers}, got {tier!r}; correct it.")
        return [tier]
    if own := [name for name in filled if _PARTS.fullmatch(name)]:
        return own
    if len(filled) > 1:
        raise ValueError(
            f"{path}: must have one tier of actions, got {filled}; choose one with `tier`."
        )
    return filled


def _eaf_row(
    annotation: ET.Element,
    annotations: dict[str, ET.Element],
    times: dict[str | None, str | None],
    scores: dict[str | None, str],
    path: Path,
) -> _Row:
    identity = annotation.get("ANNOTATION_ID", "")
    where = f"{path}, annotation {identity}"
    timed, seen = annotation, {identity}
    # A tier that depends on another takes its times from there.
    while timed.tag == "REF_ANNOTATION":
        reference = timed.get("ANNOTATION_REF", "")
        if reference not in annotations or reference in seen or timed.get("PREVIOUS_ANNOTATION"):
            raise ValueError(
                f"{where}: must refer to one annotation with times, got {reference!r}; choose a "
                "tier that is aligned with time."
            )
        seen.add(reference)
        timed = annotations[reference]
    start, end = (times.get(timed.get(f"TIME_SLOT_REF{i}")) for i in (1, 2))
    if start is None or end is None:
        raise ValueError(
            f"{where}: must start and end at slots with a TIME_VALUE, got {start} and {end}; align "
            "it with time in ELAN."
        )
    return _Row(
        where=where,
        start=_eaf_number(start, where) / 1000,
        end=_eaf_number(end, where) / 1000,
        name=annotation.findtext("ANNOTATION_VALUE", ""),
        score=_eaf_number(scores.get(identity, "1"), where),
    )


def _eaf_number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: must be a number, got {text!r}; correct it.") from None


def _eaf_video(media: ET.Element, path: Path) -> str | None:
    relative = media.get("RELATIVE_MEDIA_URL")
    if relative:
        return os.path.normpath(path.resolve().parent / relative)
    return media.get("MEDIA_URL")
