"""Dataset folders in the MS-TCN layout, written as a user might."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

NAMES = ("SIL", "pour", "stir", "drink")
WIDTH = 5


def spelt(spelling: str, names: Sequence[str] = NAMES) -> list[str]:
    """`aabb` as the names of two frames of the first action and two of the second."""
    return [names["abcdefgh".index(letter)] for letter in spelling]


def write_folder(
    folder: Path,
    videos: Mapping[str, str],
    *,
    names: Sequence[str] = NAMES,
    train: Sequence[str] | None = None,
    test: Sequence[str] = (),
    about: str = '{"rate": 10}',
) -> Path:
    """Write mapping, labels and split 1; without `train` there is no split."""
    (folder / "groundTruth").mkdir(parents=True)
    mapping = "".join(f"{i} {name}\n" for i, name in enumerate(names))
    (folder / "mapping.txt").write_text(mapping)
    for video, spelling in videos.items():
        lines = spelt(spelling, names)
        (folder / "groundTruth" / f"{video}.txt").write_text("\n".join(lines) + "\n")
    if train is not None:
        (folder / "splits").mkdir()
        for part, chosen in (("train", train), ("test", test)):
            text = "".join(f"{video}.txt\n" for video in chosen)
            (folder / "splits" / f"{part}.split1.bundle").write_text(text)
    if about:
        (folder / "dataset.json").write_text(about)
    return folder


def features(num_frames: int, width: int = WIDTH, dtype: str = "float32") -> np.ndarray:
    """Whole numbers that tell frame and column, so that no type rounds them."""
    return (np.arange(num_frames)[:, None] * 3 + np.arange(width)).astype(dtype)


def write_features(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write one .npy file a video."""
    (folder / "features").mkdir(exist_ok=True)
    for video, array in arrays.items():
        np.save(folder / "features" / f"{video}.npy", array)
