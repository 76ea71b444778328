"""A small kitchen in the published layout: five people whose actions follow a simple grammar."""

from pathlib import Path

import numpy as np

from epic_folders import NOUNS, write_official

PEOPLE = ("P01", "P02", "P03", "P04")
"""Who acts in the train part; P05 acts in the validation part alone, and P01 in both."""


def rows_of(video: str, count: int, seed: int) -> list[str]:
    """`id start stop verb noun`: things are taken, washed and put back, one after another."""
    rng = np.random.default_rng(seed)
    rows, start, verb, noun = [], 0.5, 0, 0
    for i in range(count):
        # take (0), wash (2), put (1), and then the next thing.
        verb = {0: 2, 2: 1, 1: 0}[verb] if rng.random() < 0.9 else int(rng.integers(3))
        noun = int(rng.integers(len(NOUNS))) if verb == 0 else noun
        stop = start + 1.5
        rows.append(f"{video}_{i} {_clock(start)} {_clock(stop)} {verb} {noun}")
        start += 2.0
    return rows


def _clock(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{seconds % 60:05.2f}"


def write_kitchen(folder: Path, count: int = 12) -> Path:
    """Write it: a video of `count` actions for each person, two videos to validate."""
    train = [row for i, who in enumerate(PEOPLE) for row in rows_of(f"{who}_01", count, i)]
    validation = rows_of("P01_02", count, 7) + rows_of("P05_01", count, 8)
    extra = {
        "EPIC_100_unseen_participant_ids_validation.csv": "participant_id\nP05\n",
        "EPIC_100_tail_verbs.csv": "verb\n2\n",
        "EPIC_100_tail_nouns.csv": "noun\n1\n",
    }
    return write_official(folder, train=train, validation=validation, extra=extra)
