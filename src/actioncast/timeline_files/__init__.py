"""Timelines as files: CSV, JSON, WebVTT and ELAN .eaf, chosen by suffix.

A segment that starts at or after *now* is the forecast. What each format keeps:

- `.json`: everything, exactly.
- `.vtt`: everything, exactly, in a NOTE block; its cues are subtitles of the video.
- `.csv`: the segments exactly; *now* is where the first future segment starts.
- `.eaf`: everything, times rounded to milliseconds, the video as an absolute path.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from actioncast.files import replace_file
from actioncast.timeline import LabelSpace, Segment, Timeline
from actioncast.timeline_files.contents import Contents, segment_of
from actioncast.timeline_files.csv_form import from_csv, to_csv
from actioncast.timeline_files.elan import from_eaf, to_eaf
from actioncast.timeline_files.json_form import from_json, to_json
from actioncast.timeline_files.webvtt import from_vtt, to_vtt

SUFFIXES = (".csv", ".json", ".vtt", ".eaf")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineFile:
    """What a timeline file holds."""

    timeline: Timeline
    now: float | None = None
    """Seconds into the video where the forecast starts; None where the file tells of none."""
    video: str | None = None
    """Path or address of the video, where the file names it."""


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
        text = to_csv(timeline, now)
    elif suffix == ".json":
        text = to_json(timeline, now, video, indent=1) + "\n"
    elif suffix == ".vtt":
        text = to_vtt(timeline, now, video)
    else:
        text = to_eaf(timeline, now, video, path)
    replace_file(path, text.encode())


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
        contents = from_csv(text, path)
    elif suffix == ".json":
        contents = from_json(text, str(path))
    elif suffix == ".vtt":
        contents = from_vtt(text, path)
    else:
        contents = from_eaf(text, path, tier)
    if contents.now is not None and not (math.isfinite(contents.now) and contents.now >= 0):
        raise ValueError(f"{path}: now must be zero or more seconds, got {contents.now}; fix it.")
    space = labels or _label_space(contents, path)
    segments = [segment_of(row, space) for row in contents.rows]
    return TimelineFile(
        timeline=Timeline.of(segments, space), now=contents.now, video=contents.video
    )


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


def _label_space(contents: Contents, path: Path) -> LabelSpace:
    names = dict.fromkeys([*contents.names, *(row.name for row in contents.rows)])
    if not names:
        raise ValueError(
            f"{path} must hold a segment to take label names from, got none; give `labels`."
        )
    if odd := contents.background - set(names):
        raise ValueError(f"{path}: background must name labels, got {min(odd)!r}; add it to them.")
    return LabelSpace(tuple(names), contents.background)


__all__ = ["SUFFIXES", "TimelineFile", "read_timeline", "write_timeline"]
