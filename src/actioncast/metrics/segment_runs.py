"""Runs of one label in videos laid end to end, which edit score and segment F1 compare.

Two runs of different videos never meet, so all videos are scored at once.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True, slots=True)
class Runs:
    """Maximal runs of one label in videos laid end to end; `kept` leaves out background."""

    starts_run: Bool[np.ndarray, " time"]
    start: Int[np.ndarray, " run"]
    end: Int[np.ndarray, " run"]
    label: Int[np.ndarray, " run"]
    video: Int[np.ndarray, " run"]
    kept: Bool[np.ndarray, " run"]


def joined(
    predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray]
) -> tuple[Int[np.ndarray, " time"], Int[np.ndarray, " time"], Int[np.ndarray, " bound"]]:
    """Lay the videos end to end; video v has the frames bounds[v] to bounds[v + 1]."""
    if not len(truth) or len(predicted) != len(truth):
        raise ValueError(
            "predicted and truth must hold the same videos, at least one, got "
            f"{len(predicted)} and {len(truth)}: pass one array of labels for each video."
        )
    for video, (labels, true_labels) in enumerate(zip(predicted, truth, strict=True)):
        for name, array in (("predicted", labels), ("true", true_labels)):
            if array.dtype.kind not in "iu" or array.ndim != 1:
                raise ValueError(
                    f"{name} labels of video {video} must be integers along one axis, got "
                    f"{array.dtype} of shape {array.shape}: map names to label ids first."
                )
        if len(labels) != len(true_labels):
            raise ValueError(
                f"video {video} must have one predicted label for each true one, got {len(labels)} "
                f"and {len(true_labels)}: bring the prediction to the rate of the labels first."
            )
    bounds = np.cumsum([0, *map(len, truth)])
    # Unsigned and signed ids together would otherwise become floats.
    return (
        np.concatenate(predicted, dtype=np.int64),
        np.concatenate(truth, dtype=np.int64),
        bounds,
    )


def runs_of(
    frames: Int[np.ndarray, " time"], bounds: Int[np.ndarray, " bound"], background: Set[int]
) -> Runs:
    """Cut videos laid end to end into runs; video v has the frames bounds[v] to bounds[v + 1]."""
    starts_run = np.empty(len(frames), dtype=bool)
    np.not_equal(frames[1:], frames[:-1], out=starts_run[1:])
    starts_run[bounds[:-1][bounds[:-1] < len(frames)]] = True
    start = np.flatnonzero(starts_run)
    label = frames[start]
    return Runs(
        starts_run=starts_run,
        start=start,
        end=np.append(start[1:], len(frames))[: len(start)],
        label=label,
        video=np.searchsorted(bounds, start, side="right") - 1,
        kept=~np.isin(label, list(background)),
    )
