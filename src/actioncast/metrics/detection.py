"""Scores of online detection and short-term anticipation per frame, as on THUMOS14 and TVSeries.

Average precision is the step-wise area of scikit-learn; the calibrated one is that of De Geest et
al. (https://arxiv.org/abs/1604.06506): false positives are weighed as if there were as
many negatives as positives. A score that several frames share is one step of the curve, in both.

Anticipation follows TeSTra (https://arxiv.org/abs/2209.09236): a score belongs to the frame it is
about, not to the frame at which it was made (metrics sheet, section 5).

Differs from the evaluation scripts: calibrated average precision does not depend on the order of
frames with equal scores.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

BACKGROUND, CLIFF_DIVING, DIVING, AMBIGUOUS = 0, 5, 8, 21
"""Columns of the THUMOS14 labels with a meaning of their own."""
Alignment = Literal["target", "shifted_by_one"]
"""Which label an anticipated score is compared with. `target`: that of the frame it is about.
`shifted_by_one`: that of the frame before, and no answer of the last frames, as many as the longest
horizon has, counts; so MiniROAD's released test does, whose shortest horizon is then the present.
Easier, and for published numbers alone."""


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """Fractions for each label, NaN for one that was skipped or never occurs."""

    average_precision: Float[np.ndarray, " label"]
    calibrated_average_precision: Float[np.ndarray, " label"]

    @property
    def mean_ap(self) -> float:
        """Mean average precision over the labels that occur; NaN without any."""
        return _mean(self.average_precision)

    @property
    def mean_calibrated_ap(self) -> float:
        """Mean calibrated average precision over the labels that occur; NaN without any."""
        return _mean(self.calibrated_average_precision)


def average_precision(
    scores: Float[np.ndarray, " _"], is_positive: Bool[np.ndarray, " _"]
) -> float:
    """Area under the steps of precision over recall, a fraction."""
    return _average_precisions(scores, is_positive)[0]


def calibrated_average_precision(
    scores: Float[np.ndarray, " _"], is_positive: Bool[np.ndarray, " _"]
) -> float:
    """Average precision with each false positive divided by negatives per positive, a fraction."""
    return _average_precisions(scores, is_positive)[1]


def detection_scores(
    scores: Float[np.ndarray, "time label"],
    truth: Bool[np.ndarray, "time label"],
    *,
    skip: Set[int] = frozenset({BACKGROUND, AMBIGUOUS}),
) -> DetectionScores:
    """Score every label over all frames.

    Args:
        scores: Frames of all videos, one after the other.
        truth: Labels of each frame; several may hold at once.
        skip: Columns that are no actions.
    """
    if scores.shape != truth.shape:
        raise ValueError(
            f"scores and truth must have the same shape, got {scores.shape} and {truth.shape}: "
            "pass one score for every label of every frame."
        )
    precisions = np.full((2, truth.shape[1]), np.nan)
    for label in range(truth.shape[1]):
        if label not in skip and truth[:, label].any():
            precisions[:, label] = _average_precisions(scores[:, label], truth[:, label])
    return DetectionScores(*precisions)


def drop_ambiguous(
    scores: Float[np.ndarray, "time label"],
    truth: Bool[np.ndarray, "time label"],
    column: int = AMBIGUOUS,
) -> tuple[Float[np.ndarray, "kept label"], Bool[np.ndarray, "kept label"]]:
    """Leave out the frames whose label is ambiguous; the usual protocol of THUMOS14."""
    kept = ~truth[:, column]
    return scores[kept], truth[kept]


def switch_cliff_diving(
    scores: Float[np.ndarray, "time label"],
) -> Float[np.ndarray, "time label"]:
    """Score cliff diving as diving too, where it is the higher; off in the usual protocol."""
    switched = scores.copy()
    switched[:, DIVING] = np.maximum(scores[:, DIVING], scores[:, CLIFF_DIVING])
    return switched


def smooth(
    scores: Float[np.ndarray, "time label"], num_neighbours: int = 2
) -> Float[np.ndarray, "time label"]:
    """Take the highest score within `num_neighbours` frames on both sides.

    Off in the usual protocol; it looks ahead, so no online score may use it. Pass one video at a
    time.
    """
    smoothed = scores.copy()
    for shift in range(1, min(num_neighbours, len(scores) - 1) + 1):
        np.maximum(smoothed[shift:], scores[:-shift], out=smoothed[shift:])
        np.maximum(smoothed[:-shift], scores[shift:], out=smoothed[:-shift])
    return smoothed


def align_to_target(
    scores: Float[np.ndarray, "time horizon label"], shifts: Sequence[int] | None = None
) -> Float[np.ndarray, "time horizon label"]:
    """Move each anticipated score to the frame it is about.

    Args:
        scores: `scores[t, i]` was made at frame t, about frame t + `shifts[i]`.
        shifts: Frames ahead of each entry; absent, 1, 2, 3 and so on.

    Returns:
        Scores whose entry [t, i] is about frame t; zero for the first `shifts[i]` frames, about
        which nothing was said. Scores about frames after the last are dropped.
    """
    aligned = np.zeros_like(scores)
    for index, shift in enumerate(_shifts(scores, shifts)):
        if shift < len(scores):
            aligned[shift:, index] = scores[: len(scores) - shift, index]
    return aligned


def compared(
    scores: Float[np.ndarray, "time horizon label"],
    truth: Bool[np.ndarray, "time label"],
    shifts: Sequence[int] | None = None,
    alignment: Alignment = "target",
) -> list[tuple[Float[np.ndarray, "compared label"], Bool[np.ndarray, "compared label"]]]:
    """Anticipated scores of one video beside the labels they are compared with, by horizon.

    Args:
        scores: `scores[t, i]` was made at frame t, about frame t + `shifts[i]`.
        truth: Labels of the frames.
        shifts: Frames ahead of each entry; absent, 1, 2, 3 and so on.
        alignment: Which labels; see `Alignment`.
    """
    _require_same_frames([scores], [truth])
    ahead = _shifts(scores, shifts)
    if alignment == "target":
        aligned = align_to_target(scores, ahead)
        return [(aligned[:, index], truth) for index in range(len(ahead))]
    kept = max(0, len(scores) - max(ahead, default=0))
    return [
        (scores[:kept, index], truth[shift - 1 : shift - 1 + kept])
        for index, shift in enumerate(ahead)
    ]


def anticipation_scores(
    scores: Sequence[Float[np.ndarray, "_ _ _"]],
    truth: Sequence[Bool[np.ndarray, "_ _"]],
    *,
    skip: Set[int] = frozenset({BACKGROUND, AMBIGUOUS}),
    ambiguous: int | None = AMBIGUOUS,
    shifts: Sequence[int] | None = None,
    alignment: Alignment = "target",
) -> tuple[DetectionScores, ...]:
    """Score every horizon over all videos; the mean of their `mean_ap` is the usual headline.

    Args:
        scores: For each video (time, horizon, label), made at a frame about the frames after it.
        truth: For each video (time, label).
        skip: Columns that are no actions.
        ambiguous: Column of frames to leave out; none leaves out no frame.
        shifts: Frames ahead of each horizon; absent, 1, 2, 3 and so on.
        alignment: Which labels a score is compared with.
    """
    _require_same_frames(scores, truth)
    videos = [
        compared(said, labels, shifts, alignment)
        for said, labels in zip(scores, truth, strict=True)
    ]
    found = []
    for horizon in zip(*videos, strict=True):
        rows, labels = (np.concatenate(part) for part in zip(*horizon, strict=True))
        if ambiguous is not None:
            rows, labels = drop_ambiguous(rows, labels, ambiguous)
        found.append(detection_scores(rows, labels, skip=skip))
    return tuple(found)


def _shifts(
    scores: Float[np.ndarray, "time horizon label"], shifts: Sequence[int] | None
) -> Sequence[int]:
    if shifts is None:
        return range(1, scores.shape[1] + 1)
    if len(shifts) != scores.shape[1] or any(shift < 1 for shift in shifts):
        raise ValueError(
            f"shifts must be 1 frame or more for each of {scores.shape[1]} horizons, got "
            f"{list(shifts)}; give as many as the scores have."
        )
    return shifts


def _require_same_frames(
    scores: Sequence[Float[np.ndarray, "_ _ _"]], truth: Sequence[Bool[np.ndarray, "_ _"]]
) -> None:
    if not scores or [len(s) for s in scores] != [len(t) for t in truth]:
        raise ValueError(
            "scores and truth must hold the same frames of the same videos, got lengths "
            f"{[len(s) for s in scores]} and {[len(t) for t in truth]}: give every frame both."
        )


def _average_precisions(
    scores: Float[np.ndarray, " _"], is_positive: Bool[np.ndarray, " _"]
) -> tuple[float, float]:
    num_positive = int(np.count_nonzero(is_positive))
    if scores.shape != is_positive.shape or not num_positive:
        raise ValueError(
            "scores must have one entry for each frame, and a frame must be positive, got "
            f"{len(scores)} scores and {len(is_positive)} frames, {num_positive} of them positive."
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite, got NaN or infinity: they have no rank.")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_equals = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    found = np.cumsum(is_positive[order])[last_of_equals]
    wrong = last_of_equals + 1 - found
    gained = np.diff(found, prepend=0) / num_positive
    num_negative = len(scores) - num_positive
    weighted = wrong * (num_positive / num_negative) if num_negative else wrong
    return (
        float((gained * found / (found + wrong)).sum()),
        # Before the first positive nothing is gained, and nothing may be divided by nothing.
        float((gained * found / np.maximum(found + weighted, np.finfo(float).tiny)).sum()),
    )


def _mean(precisions: Float[np.ndarray, " label"]) -> float:
    present = precisions[~np.isnan(precisions)]
    return float(present.mean()) if len(present) else np.nan
