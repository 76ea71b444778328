"""Tiny data set folders, recipes and command lines for tests."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actioncast.models.futr import FUTRConfig
from actioncast.training import TrainConfig

NAMES = ("pour", "stir", "drink", "wash")
"""Actions of every folder here."""
WIDTH = 6
"""Width of its feature vectors."""
TINY = FUTRConfig(
    feature_dim=WIDTH,
    hidden_dim=8,
    num_queries=4,
    num_heads=2,
    num_encoder_layers=1,
    feedforward_factor=2,
    max_positions=80,
)
"""A FUTR that trains in milliseconds."""
RECIPE = TrainConfig(
    model=TINY,
    observed_ratios=(0.3, 0.5, 1.0),
    epochs=3,
    batch_size=4,
    warmup_epochs=1,
    selection="last",
)
"""A recipe that ends in a second."""
SMALL = (
    *("--model.hidden-dim", "8"),
    *("--model.num-queries", "4"),
    *("--model.num-heads", "2"),
    *("--model.num-encoder-layers", "1"),
    *("--model.feedforward-factor", "2"),
    *("--epochs", "2"),
    *("--batch-size", "4"),
    *("--stride", "1"),
    *("--accelerator", "cpu"),
    "--quiet",
)
"""Options that make the recipe `futr` as small."""


def video(rng: np.random.Generator, scale: int = 1) -> list[str]:
    """Frame labels of 24 to 44 frames times `scale`: three or four actions."""
    order = rng.permutation(len(NAMES))[: rng.integers(3, 5)]
    return [NAMES[i] for i in order for _ in range(scale * int(rng.integers(8, 12)))]


def write_folder(
    path: Path,
    *,
    num_videos: int = 6,
    features: bool = True,
    splits: int = 0,
    about: dict[str, Any] | None = None,
    names: Sequence[str] = (),
    seed: int = 0,
    scale: int = 1,
) -> Path:
    """Write a data set folder: labels, and features that tell little of them.

    Args:
        path: The folder.
        num_videos: Videos.
        features: Whether it has features.
        splits: Split files to write; 0 leaves the folder without.
        about: Content of dataset.json; absent, a rate of 5.
        names: Of the videos.
        seed: Of labels and features.
        scale: Length of the videos.
    """
    rng = np.random.default_rng(seed)
    for part in ("groundTruth", *(["features"] if features else [])):
        (path / part).mkdir(parents=True)
    lines = [f"{i} {name}\n" for i, name in enumerate(NAMES)]
    (path / "mapping.txt").write_text("".join(lines))
    about = {"rate": 5} if about is None else about
    if about:
        (path / "dataset.json").write_text(json.dumps(about))
    videos = list(names) or [f"v{i}" for i in range(num_videos)]
    vectors = rng.normal(size=(len(NAMES), WIDTH))
    for name in videos:
        labels = video(rng, scale)
        (path / "groundTruth" / f"{name}.txt").write_text("\n".join(labels) + "\n")
        if features:
            told = vectors[[NAMES.index(label) for label in labels]]
            noisy = told + 0.5 * rng.normal(size=told.shape)
            np.save(path / "features" / f"{name}.npy", noisy.astype(np.float32))
    for k in range(splits):
        (path / "splits").mkdir(exist_ok=True)
        for part, chosen in (
            ("train", [n for i, n in enumerate(videos) if i % splits != k]),
            ("test", [n for i, n in enumerate(videos) if i % splits == k]),
        ):
            file = path / "splits" / f"{part}.split{k + 1}.bundle"
            file.write_text("".join(f"{name}.txt\n" for name in chosen))
    return path


def recipe(**values: Any) -> TrainConfig:
    """`RECIPE` with other values."""
    return replace(RECIPE, **values)


def start(*words: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Start `python -m actioncast` as a user would."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "actioncast", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run(*words: str | Path, **variables: str) -> tuple[int, str, str]:
    """Run `python -m actioncast` to its end: exit code, standard output, standard error."""
    process = start(*words, **variables)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err
