"""Datasets: their files in, annotated videos out."""

import os
from collections.abc import Callable
from pathlib import Path

from actioncast.data.base import Dataset, LabelInput, Split, Video, inner_split
from actioncast.data.darai import open_darai
from actioncast.data.darai_files import is_darai
from actioncast.data.frame_labels import open_frame_labels
from actioncast.data.hierarchies import find_hierarchy, lasting_hierarchy, with_levels
from actioncast.data.hierarchy import Hierarchy, with_hierarchy
from actioncast.data.subject_splits import subject_parts, subject_splits, write_splits
from actioncast.data.synthetic import SyntheticConfig, synthetic_dataset
from actioncast.data.thumos14 import is_thumos14, open_thumos14

DATASETS: dict[str, str] = {
    "synthetic": "people make hot drinks: an embedded grammar with a known ceiling",
    "breakfast": "Breakfast, 1712 videos, 48 actions, 4 splits by person",
    "50salads": "50 Salads, 50 videos, 19 actions, 5 splits",
    "gtea": "GTEA, 28 videos, 11 actions, 4 splits",
    "cad120": "CAD-120, 124 videos, 10 sub-activities, 4 leave-one-subject-out splits",
    "darai": "DARai, 47 procedures in 16 actions, with label lists of one's own, split by person",
    "thumos14": "THUMOS14, 200 videos to train and 213 to test, 20 sports at 4 frames a second",
}
"""Every data set by name. Any folder in the same layout works beside them."""

DATA_VARIABLE = "ACTIONCAST_DATA"


def open_dataset(
    name: str = "",
    path: Path | None = None,
    rate: float | None = None,
    level: str = "",
    hierarchy: str = "",
) -> Dataset:
    """Open a data set by name, or any folder in the MS-TCN layout, THUMOS14's or DARai's.

    Args:
        name: One of `DATASETS`; empty where `path` is the folder itself.
        path: The folder of the data set, or a folder that holds it under its name; absent,
            `$ACTIONCAST_DATA`, or `data` in the working directory.
        rate: Frames per second, where the folder does not say.
        level: Which level of a hierarchy the timelines speak: `coarse`, `fine` or its name; without
            a hierarchy, if empty.
        hierarchy: Which one: a name or a file; what the data bring, if empty.

    Raises:
        FileNotFoundError, ValueError: There is no such data set, or it breaks the layout, or has
            no such hierarchy.
    """
    folder = None
    if name == "synthetic" and path is None:
        dataset = synthetic_dataset(SyntheticConfig())
    else:
        folder = find_dataset(name, path)
        dataset = _reader(folder)(folder, rate)
    if not level:
        return dataset
    return with_levels(dataset, folder, hierarchy).at_level(level)


def holds_dataset(path: Path) -> bool:
    """Whether a folder is a data set itself, in a layout that `open_dataset` reads."""
    return (path / "groundTruth").is_dir() or is_darai(path) or is_thumos14(path)


def _reader(path: Path) -> Callable[[Path, float | None], Dataset]:
    """Who reads the layout of a folder."""
    if is_darai(path):
        return open_darai
    thumos14 = not (path / "groundTruth").is_dir() and is_thumos14(path)
    return open_thumos14 if thumos14 else open_frame_labels


def find_dataset(name: str = "", path: Path | None = None) -> Path:
    """The folder that `open_dataset` reads.

    Raises:
        FileNotFoundError: It does not exist; the message says where it was looked for.
        ValueError: Neither a name nor a path was given.
    """
    if path is not None and holds_dataset(path):
        return path
    known = os.environ.get(DATA_VARIABLE)
    if path is not None and known and holds_dataset(Path(known) / path):
        return Path(known) / path
    if not name:
        if path is None:
            raise ValueError("say which data: --data PATH with a folder of labels and features.")
        if path.is_dir() and (inside := [n for n in DATASETS if holds_dataset(path / n)]):
            raise ValueError(
                f"{path} holds several data sets ({', '.join(inside)}); give one, for example "
                f"--data {path / inside[0]}."
            )
        return path
    root = path or Path(os.environ.get(DATA_VARIABLE, "data"))
    found = root / name
    if not found.is_dir():
        raise FileNotFoundError(
            f"the data set {name} was looked for in {found} and is not there; say --data PATH, or "
            f"set {DATA_VARIABLE} to the folder that holds it. docs/your_own_videos.md says where "
            "the public sets come from."
        )
    return found


__all__ = [
    "DATASETS",
    "Dataset",
    "Hierarchy",
    "LabelInput",
    "Split",
    "SyntheticConfig",
    "Video",
    "find_dataset",
    "find_hierarchy",
    "holds_dataset",
    "inner_split",
    "is_darai",
    "lasting_hierarchy",
    "open_darai",
    "open_dataset",
    "open_frame_labels",
    "open_thumos14",
    "subject_parts",
    "subject_splits",
    "synthetic_dataset",
    "with_hierarchy",
    "with_levels",
    "write_splits",
]
