"""ELAN .eaf: tiers of past and forecast, and their scores on tiers that depend on them."""

import mimetypes
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from actioncast.timeline import Segment, Timeline
from actioncast.timeline_files.contents import Contents, Row, is_forecast, milliseconds

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PARTS = re.compile(r"(past|forecast)(?:-\d+)?")
_VOCABULARY = "actioncast"


def to_eaf(timeline: Timeline, now: float | None, video: str | None, path: Path) -> str:
    """All of it, times in milliseconds; `path` is where the file will lie."""
    names = timeline.labels.names
    if odd := [name for name in names if _NOT_XML.search(name)]:
        raise ValueError(f"XML cannot hold the label {odd[0]!r}; rename it or write .json.")
    spans = [_span(s, now) for s in timeline]
    slots = sorted({time for span in spans for time in span})
    identity = {time: f"ts{i}" for i, time in enumerate(slots, 1)}
    tiers: dict[str, list[int]] = {}
    for part, comes in (("past", False), ("forecast", True)):
        mine = [i for i, s in enumerate(timeline) if is_forecast(s, now) is comes]
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
        *([] if video is None else [_media(video, path)]),
        *([] if now is None else [_property("actioncast:now", f"{_now(now) / 1000!r}")]),
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


def _now(now: float) -> int:
    return max(milliseconds(now), 1 if now > 0 else 0)


def _span(segment: Segment, now: float | None) -> tuple[int, int]:
    """Start and end in milliseconds; rounding carries no segment from one side of *now* over."""
    start = milliseconds(segment.start)
    if now is not None:
        start = max(start, _now(now)) if is_forecast(segment, now) else min(start, _now(now) - 1)
    return start, max(milliseconds(segment.end), start + 1)


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


def _media(video: str, path: Path) -> str:
    kind = quoteattr(mimetypes.guess_type(video)[0] or "video/mp4")
    if "://" in video:
        return f"<MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(video)} MIME_TYPE={kind}/>"
    relative = Path(os.path.relpath(video, path.parent)).as_posix()
    return (
        f"<MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(Path(video).resolve().as_uri())} "
        f"MIME_TYPE={kind} RELATIVE_MEDIA_URL={quoteattr('./' + relative)}/>"
    )


def from_eaf(text: str, path: Path, tier: str | None) -> Contents:
    """Read one tier, or those of past and forecast; other tiers stay unread."""
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
                row = _row(annotation, annotations, times, scores, path)
                rows.append(row)
                if name.startswith("forecast"):
                    starts.append(row.start)
    rows.sort(key=lambda row: (row.start, row.end))
    properties = [(item.get("NAME"), item.text or "") for item in root.iterfind("HEADER/PROPERTY")]
    now = dict(properties).get("actioncast:now")
    media = root.find("HEADER/MEDIA_DESCRIPTOR")
    own = f"CONTROLLED_VOCABULARY[@CV_ID='{_VOCABULARY}']/CV_ENTRY_ML/CVE_VALUE"
    return Contents(
        rows=rows,
        names=tuple(item.text or "" for item in root.iterfind(own)),
        background=frozenset(text for name, text in properties if name == "actioncast:background"),
        now=min(starts, default=None) if now is None else _number(now, f"{path}, now"),
        video=None if media is None else _video(media, path),
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


def _row(
    annotation: ET.Element,
    annotations: dict[str, ET.Element],
    times: dict[str | None, str | None],
    scores: dict[str | None, str],
    path: Path,
) -> Row:
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
    return Row(
        where=where,
        start=_number(start, where) / 1000,
        end=_number(end, where) / 1000,
        name=annotation.findtext("ANNOTATION_VALUE", ""),
        score=_number(scores.get(identity, "1"), where),
    )


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: must be a number, got {text!r}; correct it.") from None


def _video(media: ET.Element, path: Path) -> str | None:
    relative = media.get("RELATIVE_MEDIA_URL")
    if relative:
        return os.path.normpath(path.resolve().parent / relative)
    return media.get("MEDIA_URL")
