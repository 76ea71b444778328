"""Ego4D's long-term anticipation: the released annotation, as clips of a verb and a noun.

A folder holds `fho_lta_train.json`, `fho_lta_val.json` and `fho_lta_taxonomy.json`, of version 1
(115 verbs, 478 nouns) or 2 (117, 521): sizes are those of the taxonomy. A clip of Ego4D, cut out of
a longer recording, is a video here and its recording the participant, so that clips of one
recording are never on both sides of what is held out. Times count from the start of the clip.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from actioncast.data.clips import ActionClip, ClipDataset, VideoInfo
from actioncast.timeline import LabelSpace, Taxonomy

PARTS = {"train": "fho_lta_train.json", "validation": "fho_lta_val.json"}
TAXONOMY = "fho_lta_taxonomy.json"
RATE = 30.0
"""Frames per second of Ego4D's clips."""
NAMES = ("clip_uid", "video_uid")
NUMBERS = ("action_clip_start_sec", "action_clip_end_sec")
LABELS = {"verb_label": "verbs", "noun_label": "nouns"}


def is_ego4d(path: Path) -> bool:
    """Whether a folder holds this annotation."""
    return (path / TAXONOMY).is_file()


def open_ego4d(path: Path) -> ClipDataset:
    """Read the annotation of Ego4D's long-term anticipation.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file breaks its layout; the message names it and the entry.
    """
    verbs, nouns = _taxonomy(path / TAXONOMY)
    sizes = {"verb_label": len(verbs), "noun_label": len(nouns)}
    parts = {part: _entries(path / file, sizes) for part, file in PARTS.items()}
    used = {(entry["verb_label"], entry["noun_label"]) for rows in parts.values() for entry in rows}
    pairs = tuple(sorted(used))
    numbers = {pair: i for i, pair in enumerate(pairs)}
    clips = {
        part: tuple(_clip(entry, numbers) for entry in entries) for part, entries in parts.items()
    }
    _check_parts(path, clips)
    names = (f"{verbs.names[verb]} {nouns.names[noun]}" for verb, noun in pairs)
    heads = {"verb": verbs, "noun": nouns, "action": LabelSpace(tuple(names))}
    return ClipDataset(
        name="ego4d",
        taxonomy=Taxonomy(heads, pairs=pairs),
        clips=clips,
        videos=_videos(parts),
    )


def _taxonomy(file: Path) -> tuple[LabelSpace, LabelSpace]:
    content = _json(file)
    spaces: list[LabelSpace] = []
    for kind in LABELS.values():
        names = content.get(kind) if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{file} must hold a list of names under {kind!r}, as the published taxonomy does; "
                "copy it again."
            )
        spaces.append(LabelSpace(tuple(cast(list[str], names))))
    return spaces[0], spaces[1]


def _entries(file: Path, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """The entries of a part as they stand in the file, checked."""
    content = _json(file)
    entries = content.get("clips") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f"{file} must hold a list of annotated actions under 'clips', got none; copy it again."
        )
    for i, entry in enumerate(entries):
        place = f"{file}, entry {i}"
        if not isinstance(entry, dict):
            raise ValueError(f"{place}: must be an object, got {type(entry).__name__}.")
        _check(place, cast(dict[str, Any], entry), sizes)
    return entries


def _check(place: str, entry: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    for name in NAMES:
        if not isinstance(entry.get(name), str) or not entry[name]:
            raise ValueError(f"{place}: {name} must be a name, got {entry.get(name)!r}.")
    for name in NUMBERS:
        found = entry.get(name)
        if not isinstance(found, int | float) or not math.isfinite(found) or found < 0:
            raise ValueError(f"{place}: {name} must be seconds, 0 or more, got {found!r}.")
    start, stop = (entry[name] for name in NUMBERS)
    if stop < start:
        raise ValueError(
            f"{place}: an action must not stop before it starts, got {start:.2f} to {stop:.2f} s."
        )
    whole = {"action_idx": math.inf, **sizes}
    for name, size in whole.items():
        found = entry.get(name)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < size:
            wanted = f"a class of 0..{size - 1:g}" if name in LABELS else "a whole number"
            hint = f"; {TAXONOMY} must be of the same version" if name in LABELS else ""
            raise ValueError(f"{place}: {name} must be {wanted}, got {found!r}{hint}.")


def _clip(entry: Mapping[str, Any], numbers: Mapping[tuple[int, int], int]) -> ActionClip:
    verb, noun = entry["verb_label"], entry["noun_label"]
    return ActionClip(
        id=f"{entry['clip_uid']}_{entry['action_idx']}",
        video=entry["clip_uid"],
        participant=entry["video_uid"],
        start=float(entry["action_clip_start_sec"]),
        stop=float(entry["action_clip_end_sec"]),
        verb=verb,
        noun=noun,
        action=numbers[verb, noun],
        place=entry["action_idx"],
    )


def _check_parts(path: Path, clips: Mapping[str, Sequence[ActionClip]]) -> None:
    found: dict[str, str] = {}
    videos: dict[str, str] = {}
    for part, own in clips.items():
        for clip in own:
            if clip.id in found:
                raise ValueError(
                    f"{path / PARTS[part]}: action_idx {clip.place} of clip {clip.video} stands "
                    f"in the {found[clip.id]} part already; an action must stand there once."
                )
            if videos.setdefault(clip.video, part) != part:
                raise ValueError(
                    f"{path / PARTS[part]}: clip {clip.video} must be of one part, got it in "
                    f"{videos[clip.video]} too."
                )
            found[clip.id] = part


def _videos(parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, VideoInfo]:
    """How long the clips are, where every entry says so."""
    found: dict[str, VideoInfo] = {}
    for entries in parts.values():
        for entry in entries:
            start, end = entry.get("clip_parent_start_sec"), entry.get("clip_parent_end_sec")
            if not isinstance(start, int | float) or not isinstance(end, int | float):
                return {}
            if end > start:
                found[entry["clip_uid"]] = VideoInfo(duration=float(end - start), rate=RATE)
    return found


def _json(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(
            f"the annotation needs the file {file}, which is not there; docs/next_action.md says "
            "which files there are."
        )
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} must be JSON, got {error}; copy it again.") from None
