"""The hierarchies that public data sets bring, and how the one that is asked for is found."""

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from actioncast.data.base import Dataset
from actioncast.data.darai import actions_of_darai, activities_of_darai
from actioncast.data.fifty_salads_annotation import (
    LOW,
    annotated_phases,
    conversion,
    with_steps,
)
from actioncast.data.hierarchy import Hierarchy, with_hierarchy
from actioncast.data.hierarchy_file import FILE, read_hierarchy
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
"""Sheet section 1, by whole names: released code looks for parts of names, in an order."""


def with_levels(dataset: Dataset, folder: Path | None, name: str = "") -> Dataset:
    """The same data set with a hierarchy; its timelines speak the finest level.

    Args:
        dataset: Without one.
        folder: Where its files lie; absent of data that have none.
        name: A known hierarchy of it, or a file; what the data bring, if empty.

    Raises:
        ValueError, FileNotFoundError: There is none, or it does not fit.
    """
    if finer := FINER.get(dataset.name, {}).get(name):
        return finer(dataset, folder)
    return with_hierarchy(dataset, find_hierarchy(dataset, folder, name))


def find_hierarchy(dataset: Dataset, folder: Path | None, name: str = "") -> Hierarchy:
    """The hierarchy above the labels of a data set.

    Args:
        dataset: Without one.
        folder: Where its files lie; absent of data that have none.
        name: A known hierarchy of it, or a file, looked for in the working directory and in
            `folder`; if empty, `hierarchy.json` of the folder, or else the usual known one.

    Raises:
        ValueError, FileNotFoundError: There is none, or its file breaks the format.
    """
    known = KNOWN.get(dataset.name, {})
    if name in known:
        return known[name](dataset, folder)
    own = None if folder is None else folder / FILE
    if not name:
        if own is not None and own.is_file():
            return read_hierarchy(own, dataset)
        if known:
            return next(iter(known.values()))(dataset, folder)
        raise ValueError(
            f"{dataset.name} brings no levels above its labels; write {own or FILE}, say "
            '--hierarchy FILE, or --level "" to do without. docs/your_own_videos.md says what such '
            "a file holds."
        )
    places = [Path(name).expanduser(), *([] if folder is None else [folder / name])]
    if found := next((path for path in places if path.is_file()), None):
        return read_hierarchy(found, dataset)
    below = FINER.get(dataset.name, {})
    if name in below:
        raise ValueError(
            f"the level {name!r} of {dataset.name} lies below its labels, not above; open the data "
            f"with hierarchy={name!r} instead."
        )
    names = [*known, *below]
    files = [] if own is None or not own.is_file() else [FILE]
    near = get_close_matches(name, [*names, *files], n=1)
    raise FileNotFoundError(
        f"--hierarchy must be a file{_listed(names, dataset.name)}, got {name!r}, which is not "
        f"there ({', '.join(map(str, places))})"
        f"{f'; did you mean {near[0]!r}?' if near else '.'}"
        f"{f' Without --hierarchy {own} is read.' if files else ''}"
    )


def _listed(names: list[str], dataset: str) -> str:
    return f", or {', '.join(names)} of {dataset}" if names else ""


def lasting_hierarchy(name: str) -> str:
    """A hierarchy as it is found from anywhere: a file by its whole path, a known one as it is."""
    return str(Path(name).resolve()) if name and Path(name).is_file() else name


def _breakfast(dataset: Dataset, folder: Path | None) -> Hierarchy:  # noqa: ARG001
    """Whose name ends with what the whole video shows."""
    return Hierarchy(
        level="activity",
        labels=LabelSpace(ACTIVITIES_OF_BREAKFAST),
        by_video={video: video.rpartition("_")[2] for video in dataset.videos},
    )


def _50salads(dataset: Dataset, folder: Path | None) -> Hierarchy:  # noqa: ARG001
    return Hierarchy(
        level="phase",
        labels=LabelSpace(tuple(PHASES_OF_50SALADS)),
        by_label={action: phase for phase, own in PHASES_OF_50SALADS.items() for action in own},
    )


def _cad120(dataset: Dataset, folder: Path | None) -> Hierarchy:
    file = (folder or Path()) / "activities.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} does not exist; it says the activity of every video of {dataset.name}, as "
            '{"<video>": {"activity": "making_cereal"}}. Put it there, or say --hierarchy FILE.'
        )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        told = {video: about[video]["activity"] for video in dataset.videos if video in about}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{file} must hold {{"<video>": {{"activity": "making_cereal"}}}}, got none ({error}).'
        ) from None
    by_video = {video: str(activity) for video, activity in told.items() if activity}
    if not by_video:
        raise ValueError(f"{file} must name activities of {dataset.name}, got none of its videos.")
    return Hierarchy(
        level="activity",
        labels=LabelSpace(tuple(sorted(set(by_video.values())))),
        by_video=by_video,
    )


def _synthetic(dataset: Dataset, folder: Path | None) -> Hierarchy:  # noqa: ARG001
    """The activity that drew a video stands in its name, `P01_coffee_001`; no model reads that."""
    by_video = {
        video: video.partition("_")[2].rpartition("_")[0] or video for video in dataset.videos
    }
    return Hierarchy(
        level="activity",
        labels=LabelSpace(tuple(sorted(set(by_video.values())))),
        by_video=by_video,
    )


KNOWN: Mapping[str, Mapping[str, Callable[[Dataset, Path | None], Hierarchy]]] = {
    "breakfast": {"activity": _breakfast},
    "50salads": {
        "phase": _50salads,
        "high": annotated_phases,
        "abstract": partial(conversion, level="abstract"),
        "eval": partial(conversion, level="eval"),
    },
    "cad120": {"activity": _cad120},
    "darai": {"action": actions_of_darai, "activity": activities_of_darai},
    "synthetic": {"activity": _synthetic},
}
"""Hierarchies above the labels of public data sets by name, the usual one first."""
FINER: Mapping[str, Mapping[str, Callable[[Dataset, Path | None], Dataset]]] = {
    "50salads": {LOW: with_steps},
}
"""Hierarchies whose finest level lies below the labels of a public data set: `low` under `mid`."""
