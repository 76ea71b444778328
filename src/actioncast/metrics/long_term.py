"""Mean over classes (MoC) of long-term anticipation.

As in Abu Farha et al. (https://arxiv.org/abs/1804.00892), except that frames of the window that a
prediction lacks are wrong; the evaluation scripts shorten the window (`missing="skip"`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int

from actioncast.metrics.label_checks import check_integers, check_range

HORIZON_RATIOS = (0.1, 0.2, 0.3, 0.5)
_NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class LongTermCell:
    """Frames of every class in the windows of one (observed ratio, horizon ratio)."""

    observed_ratio: float
    horizon_ratio: float
    correct: Int[np.ndarray, " label"]
    total: Int[np.ndarray, " label"]

    @property
    def moc(self) -> float:
        """Mean over classes in percent."""
        return moc(self.correct, self.total)


def future_window(num_frames: int, observed_ratio: float, horizon_ratio: float) -> tuple[int, int]:
    """First frame of the evaluated window and the frame after its last.

    The products are those of floats, as in every published table: 0.2 + 0.5 of 90 frames is 62.
    """
    end = int((observed_ratio + horizon_ratio) * num_frames)
    return int(observed_ratio * num_frames), min(end, num_frames)


def moc_counts(
    predicted: Int[np.ndarray, " _"], truth: Int[np.ndarray, " _"], num_labels: int
) -> tuple[Int[np.ndarray, " label"], Int[np.ndarray, " label"]]:
    """Correct frames and all frames of each true class. A prediction may be any integer."""
    if predicted.shape != truth.shape:
        raise ValueError(
            "predicted and truth must have the same frames, got "
            f"{len(predicted)} and {len(truth)}: cut both to the window."
        )
    check_integers(predicted, "predicted")
    check_integers(truth, "true")
    check_range(truth, num_labels)
    correct = np.bincount(truth[predicted == truth], minlength=num_labels)
    return correct, np.bincount(truth, minlength=num_labels)


def moc(correct: Int[np.ndarray, " label"], total: Int[np.ndarray, " label"]) -> float:
    """Mean over classes in percent; a class without a frame is left out, NaN if all are."""
    present = total > 0
    return float(100.0 * (correct[present] / total[present]).mean()) if present.any() else np.nan


def long_term_scores(
    predicted: Mapping[float, Sequence[Int[np.ndarray, " _"]]],
    truth: Sequence[Int[np.ndarray, " _"]],
    num_labels: int,
    *,
    horizon_ratios: tuple[float, ...] = HORIZON_RATIOS,
    missing: Literal["wrong", "skip"] = "wrong",
) -> tuple[LongTermCell, ...]:
    """Score every observed ratio at every horizon ratio, frames pooled over the videos.

    Args:
        predicted: For each observed ratio, the future of each video: its first frame is frame
            `int(observed_ratio * T)` of T. Labels outside the vocabulary are wrong.
        truth: True labels of the whole of each video.
        num_labels: Size of the vocabulary.
        horizon_ratios: Lengths of the windows in shares of the whole video.
        missing: Whether frames that a prediction lacks are wrong or left out.

    Returns:
        One cell for each pair, horizons within observed ratios, in the order given.

    Raises:
        ValueError: Videos, labels or ratios do not fit.
    """
    if missing not in ("wrong", "skip"):
        raise ValueError(f"missing must be 'wrong' or 'skip', got {missing!r}: choose one.")
    if not len(truth):
        raise ValueError("truth must hold at least one video, got none: pass labels.")
    for video, labels in enumerate(truth):
        check_integers(labels, "true", video)
    cells: list[LongTermCell] = []
    for observed_ratio, futures in predicted.items():
        if len(futures) != len(truth):
            raise ValueError(
                f"predicted[{observed_ratio}] must hold the {len(truth)} videos of truth, got "
                f"{len(futures)}: pass one future for each video."
            )
        for video, future in enumerate(futures):
            check_integers(future, "predicted", video)
        for ratio in horizon_ratios:
            if min(observed_ratio, ratio) <= 0 or observed_ratio + ratio > 1 + 1e-9:
                raise ValueError(
                    "observed and horizon ratio must be positive and sum to at most 1, got "
                    f"{observed_ratio} and {ratio}: the rest of the video has no labels."
                )
        increasing = tuple(sorted(set(horizon_ratios)))
        correct, total = _nested_counts(
            futures, truth, num_labels, observed_ratio, increasing, skip=missing == "skip"
        )
        for ratio in horizon_ratios:
            row = increasing.index(ratio)
            cells.append(LongTermCell(observed_ratio, ratio, correct[row], total[row]))
    return tuple(cells)


def _nested_counts(
    futures: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    num_labels: int,
    observed_ratio: float,
    increasing: tuple[float, ...],
    *,
    skip: bool,
) -> tuple[Int[np.ndarray, "window label"], Int[np.ndarray, "window label"]]:
    """Count each frame once, in the shortest window that has it; longer windows add the shorter."""
    num_frames = np.array([len(labels) for labels in truth])
    start = (observed_ratio * num_frames).astype(np.int64)
    ends = ((observed_ratio + np.array(increasing)) * num_frames[:, None]).astype(np.int64)
    ends = np.minimum(ends, num_frames[:, None]) - start[:, None]
    if skip:
        ends = np.minimum(ends, np.array([[len(future)] for future in futures]))
    bounds = np.cumsum([0, *ends[:, -1]])
    frames = np.full(bounds[-1], _NO_LABEL)
    true_frames = np.empty_like(frames)
    for video, (future, labels) in enumerate(zip(futures, truth, strict=True)):
        first, last = bounds[video], bounds[video + 1]
        answer = future[: last - first]
        frames[first : first + len(answer)] = answer
        true_frames[first:last] = labels[start[video] : start[video] + last - first]

    is_cut = np.ones(len(frames) + 1, dtype=bool)
    np.not_equal(frames[1:], frames[:-1], out=is_cut[1:-1])
    is_cut[1:-1] |= true_frames[1:] != true_frames[:-1]
    is_cut[bounds[:-1, None] + ends] = True
    # From one cut to the next nothing changes: not the labels, not the window.
    cuts = np.flatnonzero(is_cut)
    piece, length = cuts[:-1], np.diff(cuts)
    label = true_frames[piece]
    check_range(label, num_labels)
    is_correct = frames[piece] == label
    video_of = np.searchsorted(bounds, piece, side="right") - 1
    window = (ends[video_of] <= (piece - bounds[video_of])[:, None]).sum(axis=1)
    cell = window * num_labels + label
    shape = (len(increasing), num_labels)
    total = np.bincount(cell, length, minlength=shape[0] * shape[1]).reshape(shape)
    correct = np.bincount(cell, length * is_correct, minlength=total.size).reshape(shape)
    return correct.cumsum(axis=0).astype(np.int64), total.cumsum(axis=0).astype(np.int64)
