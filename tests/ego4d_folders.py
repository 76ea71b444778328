"""Ego4D's long-term anticipation in the released layout, made up: what is done goes round."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VERBS = ("take", "put_(place,_lay)", "wash")
NOUNS = ("tap", "pan_(pot,_wok)")
RATE = 1.875


def entries(clip: str, count: int, verb: int = 0, noun: int = 0) -> list[dict[str, Any]]:
    """Actions of 1.5 s, one every 2 s: verbs go round, a thing has its own clip."""
    return [
        {
            "video_uid": f"video-of-{clip}",
            "clip_uid": clip,
            "action_idx": i,
            "clip_parent_start_sec": 30.0,
            "clip_parent_end_sec": 30.0 + 2 * count + 1,
            "action_clip_start_sec": 2.0 * i,
            "action_clip_end_sec": 2.0 * i + 1.5,
            "verb": VERBS[(verb + i) % 3],
            "noun": NOUNS[noun],
            "verb_label": (verb + i) % 3,
            "noun_label": noun,
        }
        for i in range(count)
    ]


TRAIN = {"a": (14, 0, 0), "b": (14, 1, 1), "c": (14, 2, 0), "short": (5, 0, 1)}
VALIDATION = {"d": (12, 1, 0), "e": (14, 2, 1)}


def write_ego4d(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """Write annotation and features; a feature holds the verb and the noun under way.

    Args:
        folder: Where.
        change: Done to the first entry of the train part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part, clips in (("train", TRAIN), ("val", VALIDATION)):
        rows = [row for clip, values in clips.items() for row in entries(clip, *values)]
        if part == "train":
            change(rows[0])
        _write(folder / f"fho_lta_{part}.json", {"version": "v2", "split": part}, rows)
    taxonomy = {"verbs": list(VERBS), "nouns": list(NOUNS)}
    (folder / "fho_lta_taxonomy.json").write_text(json.dumps(taxonomy))
    (folder / "features").mkdir(exist_ok=True)
    for clip, (count, *labels) in {**TRAIN, **VALIDATION}.items():
        values = features(entries(clip, count, *labels), round((2 * count + 1) * RATE))
        np.save(folder / "features" / f"{clip}.npy", values)
    return folder


def features(rows: Sequence[Mapping[str, Any]], length: int) -> np.ndarray:
    """One column a verb and one a noun, and one that is always 1."""
    values = np.zeros((length, 6), np.float32)
    values[:, 5] = 1
    for row in rows:
        steps = np.arange(length) / RATE
        during = (steps < row["action_clip_end_sec"]) & (
            steps + 1 / RATE > row["action_clip_start_sec"]
        )
        values[during, row["verb_label"]] = 1
        values[during, 3 + row["noun_label"]] = 1
    return values


def _write(file: Path, about: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    # The order of the file says nothing: `action_idx` does.
    shuffled = np.random.default_rng(0).permutation(np.array(rows, object)).tolist()
    file.write_text(json.dumps({**about, "clips": shuffled}))
