"""JSON: everything that a timeline file holds, exactly."""

import json
from typing import Any

from actioncast.timeline import Timeline
from actioncast.timeline_files.contents import Contents, Row

FORMAT, VERSION = "actioncast-timeline", 1
_KINDS = {float: "a number", str: "text", list: "a list", type(None): "null"}


def to_json(
    timeline: Timeline, now: float | None, video: str | None, indent: int | None = None
) -> str:
    """All of it, on one line or indented."""
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


def from_json(text: str, where: str) -> Contents:
    """Read what `to_json` wrote; `where` is the place that errors name."""
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
            Row(
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
    return Contents(
        rows=rows,
        names=tuple(names["labels"]),
        background=frozenset(names["background"]),
        now=_typed({"now": None, **content}, "now", (float, type(None)), where),
        video=_typed({"video": None, **content}, "video", (str, type(None)), where),
    )


def _typed(item: dict[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = item.get(key, ...)
    if not isinstance(value, kind):
        words = " or ".join(_KINDS[k] for k in (kind if isinstance(kind, tuple) else (kind,)))
        got = "nothing" if value is ... else repr(value)
        raise ValueError(f'{where}: "{key}" must be {words}, got {got}; correct it.')
    return value
