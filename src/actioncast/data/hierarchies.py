"""The hierarchies that public data sets bring, and those of a file of one's own."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from actioncast.data.base import Dataset
from actioncast.data.hierarchy import Hierarchy
from actioncast.timeline import LabelSpace

ACTIVITIES_OF_BREAKFAST = (
    *("cereals", "coffee", "friedegg", "juice", "milk"),
    *("pancake", "salat", "sandwich", "scrambledegg", "tea"),
)
PHASES_OF_50SALADS: Mapping[str, tuple[str, ...]] = {
    "cut_and_mix_ingredients": (
        *("peel_cucumber", "cut_cucumber", "place_cucumber_into_bowl"),
        *("cut_tomato", "place_tomato_into_bowl", "cut_cheese", "place_cheese_into_bowl"),
        *("cut_lettuce", "place_lettuce_into_bowl", "mix_ingredients"),
    ),
    "prepare_dressing": ("add_oil", "add_vinegar", "add_salt", "add_pepper", "mix_dressing"),
    "serve_salad": ("serve_salad_onto_plate", "add_dressing"),
    "action_start": ("action_start",),
    "action_end": ("action_end",),
}


def find_hierarchy(dataset: Dataset, folder: Path | None, name: str = "") -> Hierarchy:
    """The hierarchy of a data set.

    Args:
        dataset: Without one.
        folder: Where its files lie; absent of data that have none.
        name: A known hierarchy of it, or a file; what the data bring, if empty.

    Raises:
        ValueError, FileNotFoundError: There is none.
    """
    known = KNOWN.get(dataset.name, {})
    if name in known or (not name and known):
        return known[name or next(iter(known))](dataset, folder)
    raise ValueError(f"{dataset.name} brings no hierarchy {name!r}.")


def _breakfast(dataset: Dataset, folder: Path | None) -> Hierarchy:  # noqa: ARG001
    return Hierarchy(
        level="activity",
        labels=LabelSpace(ACTIVITIES_OF_BREAKFAST),
        by_video={video: video.rsplit("_", 1)[-1] for video in dataset.videos},
    )


def _50salads(dataset: Dataset, folder: Path | None) -> Hierarchy:  # noqa: ARG001
    return Hierarchy(
        level="phase",
        labels=LabelSpace(tuple(PHASES_OF_50SALADS)),
        by_label={action: phase for phase, own in PHASES_OF_50SALADS.items() for action in own},
    )


def _cad120(dataset: Dataset, folder: Path | None) -> Hierarchy:
    assert folder is not None
    about = json.loads((folder / "activities.json").read_text(encoding="utf-8"))
    by_video = {
        video: str(about[video]["activity"])
        for video in dataset.videos
        if about.get(video, {}).get("activity")
    }
    return Hierarchy(
        level="activity",
        labels=LabelSpace(tuple(sorted(set(by_video.values())))),
        by_video=by_video,
    )


KNOWN: Mapping[str, Mapping[str, Callable[[Dataset, Path | None], Hierarchy]]] = {
    "breakfast": {"activity": _breakfast},
    "50salads": {"phase": _50salads},
    "cad120": {"activity": _cad120},
}
"""Hierarchies of public data sets by name, the usual one first."""
