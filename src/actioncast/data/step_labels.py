"""What trains the steps of a clip: the action under way at each, and the one that starts ahead."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64

from actioncast.data.video_actions import VideoActions
from actioncast.types import IGNORE

NONE = -1
"""Index of no action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLabels:
    """Labels of the steps of one clip by head; IGNORE where there is no action."""

    frames: Mapping[str, Int64[np.ndarray, " time"]]
    """The action under way that started last; of those that started at once, the last id."""
    starts: Mapping[str, Int64[np.ndarray, " time"]] = field(default_factory=dict)
    """The action that starts the anticipation time after the step; absent where none is asked."""


def whole(position: Float64[np.ndarray, " action"]) -> Float64[np.ndarray, " action"]:
    """Positions in steps to a millionth of one, so that no boundary is missed by a rounding."""
    return np.round(position, 6)


def under_way(
    begin: Float64[np.ndarray, " action"], end: Float64[np.ndarray, " action"], num_steps: int
) -> Int64[np.ndarray, " time"]:
    """The last of the actions at each step, `NONE` where there is none.

    Args:
        begin: First step of each action, in order of their starts.
        end: The step after its last.
        num_steps: How many there are; actions may begin before them and end after.
    """
    found = np.full(num_steps, NONE, np.int64)
    for i, (a, b) in enumerate(steps_of(begin, end)):
        found[a:b] = i
    return found


def first_at(steps: Float64[np.ndarray, " action"], num_steps: int) -> Int64[np.ndarray, " time"]:
    """The first of the actions that stand at each step, `NONE` where none does."""
    found = np.full(num_steps, NONE, np.int64)
    for i, step in reversed(list(enumerate(steps.astype(np.int64).tolist()))):
        if 0 <= step < num_steps:
            found[step] = i
    return found


def steps_of(
    begin: Float64[np.ndarray, " action"], end: Float64[np.ndarray, " action"]
) -> list[tuple[int, int]]:
    """First step and end of each action, none before step 0."""
    first = np.maximum(begin, 0).astype(np.int64).tolist()
    after = np.maximum(end, 0).astype(np.int64).tolist()
    return list(zip(first, after, strict=True))


def by_head(
    actions: VideoActions, told: slice, found: Int64[np.ndarray, " time"]
) -> dict[str, Int64[np.ndarray, " time"]]:
    """The labels of actions found, by head.

    Args:
        actions: Of the video.
        told: Which of them the indices count.
        found: An index a step, or `NONE`.
    """
    named = found != NONE
    return {
        head: np.where(named, labels[told][found] if named.any() else IGNORE, IGNORE)
        for head, labels in (
            ("verb", actions.verbs),
            ("noun", actions.nouns),
            ("action", actions.actions),
        )
    }
