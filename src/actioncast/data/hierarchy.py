"""A level of labels above those of a data set: activities over actions, phases over steps.

What stands above a frame follows from its label (the phases of 50 Salads), from its video (the
activities of Breakfast and CAD-120), or was annotated frame by frame. Only the first can be told of
labels that somebody else named: an action may serve several activities.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Int

from actioncast.data.base import Dataset, Video
from actioncast.timeline import LabelSpace, Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One level above the labels of a data set; one of the three mappings says which.

    Where it is added, names that stand above background labels alone become background too.
    """

    level: str
    """What a label of it is called: `activity`, `phase`; the name of its head."""
    labels: LabelSpace
    """The names of the level."""
    by_label: Mapping[str, str] = field(default_factory=dict)
    """The name above every label."""
    by_video: Mapping[str, str] = field(default_factory=dict)
    """The name above all frames of every video."""
    by_frame: Mapping[str, Int[np.ndarray, " time"]] = field(default_factory=dict)
    """The label above every frame of every video."""

    def __post_init__(self) -> None:
        said = [kind for kind in ("by_label", "by_video", "by_frame") if getattr(self, kind)]
        if len(said) != 1:
            raise ValueError(
                f"the hierarchy {self.level!r} must say what stands above labels, videos or "
                f"frames, one of them, got {', '.join(said) or 'none'}."
            )
        for below, name in (*self.by_label.items(), *self.by_video.items()):
            if name not in self.labels:
                raise ValueError(
                    f"{below!r} must stand below one of {', '.join(self.labels.names)}, got "
                    f"{name!r}; add that to the names of the level {self.level!r}, or mend it."
                )


def with_hierarchy(dataset: Dataset, hierarchy: Hierarchy) -> Dataset:
    """The same dataset with one level above its labels, which its timelines still speak.

    Args:
        dataset: Without a hierarchy.
        hierarchy: What stands above.

    Raises:
        ValueError: A label, a video or a frame has nothing above it; the message names it.
    """
    if dataset.taxonomy.levels:
        raise ValueError(
            f"{dataset.name} must have no hierarchy before one is added, got levels "
            f"{', '.join(dataset.taxonomy.levels)}."
        )
    assert dataset.made_from is None, "a level is added before data are resampled"
    if several := [video.id for video in dataset.videos.values() if video.active is not None]:
        raise ValueError(
            f"a level stands above one action a frame, got {several[0]} of {dataset.name}, where "
            'several are done at once; say --level "".'
        )
    fine, head = dataset.taxonomy.primary, hierarchy.level
    if head in dataset.taxonomy.heads:
        raise ValueError(
            f"the level above {fine!r} must have another name than the heads of {dataset.name}, "
            f"got {head!r}."
        )
    parents = _parents(dataset, hierarchy)
    taxonomy = Taxonomy(
        {head: _with_background(hierarchy, dataset.taxonomy.labels), **dataset.taxonomy.heads},
        fine,
        levels=(head, fine),
        parents={head: parents} if parents else {},
    )
    videos: dict[str, Video] = {}
    lost: list[str] = []
    for name, video in dataset.videos.items():
        known = hierarchy.by_video or hierarchy.by_frame
        if known and name not in known and not _is_used(dataset, name):
            lost.append(name)
            continue
        videos[name] = replace(video, levels={head: _above(dataset, video, hierarchy, parents)})
    warnings = dataset.warnings
    if lost:
        warnings += (
            f"{', '.join(lost)} of {dataset.name} stands below no {head}, in no split: left out.",
        )
    return replace(
        dataset, taxonomy=taxonomy, videos=videos, warnings=warnings, without_levels=dataset
    )


def _is_used(dataset: Dataset, video: str) -> bool:
    """Whether a video trains or tests in any split."""
    return any(video in (*split.train, *split.test) for split in dataset.splits.values())


def _with_background(hierarchy: Hierarchy, below: LabelSpace) -> LabelSpace:
    """The names of a level, those of background among them.

    They are what the level says itself, names that stand above background labels alone, and, where
    names do not follow from labels, those called as a background label is.
    """
    if hierarchy.by_label:
        under = {name: set[str]() for name in hierarchy.labels.names}
        for label, name in hierarchy.by_label.items():
            under[name].add(label)
        found = frozenset(n for n, own in under.items() if own and own <= below.background)
    else:
        found = below.background & set(hierarchy.labels.names)
    return replace(hierarchy.labels, background=hierarchy.labels.background | found)


def _below(level: str) -> str:
    """The level with its article."""
    return f"below {'an' if level[:1].lower() in 'aeiou' else 'a'} {level}"


def _parents(dataset: Dataset, hierarchy: Hierarchy) -> tuple[int, ...]:
    """The label above each of the dataset's; none where it does not follow from them."""
    if not hierarchy.by_label:
        return ()
    names = dataset.taxonomy.labels.names
    if orphans := [name for name in names if name not in hierarchy.by_label]:
        raise ValueError(
            f"every label of {dataset.name} must stand {_below(hierarchy.level)}, got none above "
            f"{', '.join(map(repr, orphans[:8]))}{' and others' if len(orphans) > 8 else ''}; say "
            "what they belong to."
        )
    return tuple(hierarchy.labels.index(hierarchy.by_label[name]) for name in names)


def _above(
    dataset: Dataset, video: Video, hierarchy: Hierarchy, parents: tuple[int, ...]
) -> Int[np.ndarray, " time"]:
    if parents:
        return np.array(parents)[video.frames()]
    if hierarchy.by_video:
        if video.id not in hierarchy.by_video:
            raise ValueError(
                f"every video of {dataset.name} must stand {_below(hierarchy.level)}, got none "
                f"above {video.id}; say what it shows."
            )
        label = hierarchy.labels.index(hierarchy.by_video[video.id])
        return np.full(video.num_frames, label)
    frames = hierarchy.by_frame.get(video.id)
    if frames is None or len(frames) != video.num_frames:
        found = "none" if frames is None else str(len(frames))
        raise ValueError(
            f"the level {hierarchy.level!r} must name each of the {video.num_frames} frames of "
            f"{video.id}, got {found}; repeat or leave out labels until the rates agree."
        )
    if len(frames) and not 0 <= int(frames.min()) <= int(frames.max()) < len(hierarchy.labels):
        raise ValueError(
            f"labels above the frames of {video.id} must be within 0..{len(hierarchy.labels) - 1}, "
            f"got {int(frames.min())} to {int(frames.max())}."
        )
    return frames
