"""Data sets out, as folders in the MS-TCN layout."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actioncast.data.base import Dataset


def write_frame_labels(dataset: Dataset, path: Path) -> None:
    """Write a data set as a folder in the MS-TCN layout, which `open_frame_labels` reads.

    Args:
        dataset: any data set; features are written where all videos have them.
        path: a folder that does not exist yet, or is empty.

    Raises:
        ValueError: the folder holds something.
    """
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"{path} must be a new or an empty folder, got one that holds files.")
    labels, videos = dataset.taxonomy.labels, dataset.videos.values()
    has_features = all(video.features is not None for video in videos)
    for name in ("groundTruth", "splits", *(["features"] if has_features else [])):
        (path / name).mkdir(parents=True, exist_ok=True)
    about = {
        "name": dataset.name,
        "rate": dataset.rate,
        "background": sorted(labels.background),
    }
    (path / "dataset.json").write_text(json.dumps(about, indent=2) + "\n")
    _write_lines(path / "mapping.txt", [f"{i} {name}" for i, name in enumerate(labels.names)])
    for video in videos:
        names = [labels.names[label] for label in video.frames()]
        _write_lines(path / "groundTruth" / f"{video.id}.txt", names)
        if has_features and video.features is not None:
            features = video.features.read(0, video.num_frames)
            np.save(path / "features" / f"{video.id}.npy", features.T)
    for name, split in dataset.splits.items():
        for part, ids in (("train", split.train), ("test", split.test)):
            file = path / "splits" / f"{part}.split{name}.bundle"
            _write_lines(file, [f"{video}.txt" for video in ids])


def _write_lines(file: Path, lines: Sequence[str]) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
