"""Scores of dense segmentation: frame accuracy, edit score and segment F1.

The edit score and F1@overlap are those of Lea et al. (https://arxiv.org/abs/1611.05267) in the form
that MS-TCN made common (https://arxiv.org/abs/1903.01945): a segment is a maximal run of one label,
runs of a background label are dropped, every frame counts for the accuracy.

All videos are scored at once, laid end to end; the pieces between neighbouring cuts of either side
are the overlapping pairs of runs.

Differs from the evaluation scripts:

- no segments on both sides scores 100 and none on exactly one side 0, where they give NaN or fail;
- a final segment ends after the last frame. `legacy_last_segment=True` ends it one frame earlier,
  as scripts before MS-TCN's commit 0e418c0 and the copies of them in later projects do.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from actioncast.metrics.segment_edit import video_edit_scores
from actioncast.metrics.segment_runs import Runs, joined, runs_of

OVERLAPS = (0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class F1Counts:
    """Matched and unmatched segments of every video at every overlap."""

    overlaps: tuple[float, ...]
    true_positives: Int[np.ndarray, "video overlap"]
    false_positives: Int[np.ndarray, "video overlap"]
    false_negatives: Int[np.ndarray, "video overlap"]

    @property
    def f1(self) -> tuple[float, ...]:
        """F1 in percent for each overlap, from the counts summed over the videos."""
        pooled = (self.true_positives, self.false_positives, self.false_negatives)
        return tuple(_f1(*(counts.sum(axis=0) for counts in pooled)).tolist())

    @property
    def video_f1(self) -> Float[np.ndarray, "video overlap"]:
        """F1 in percent of each video on its own; their mean is not `f1`."""
        return _f1(self.true_positives, self.false_positives, self.false_negatives)


@dataclass(frozen=True, slots=True)
class SegmentationScores:
    """Scores in percent of a set of videos, and of each of them."""

    mof: float
    edit: float
    f1: tuple[float, ...]
    counts: F1Counts
    video_mof: Float[np.ndarray, " video"]
    video_edit: Float[np.ndarray, " video"]

    @property
    def avg(self) -> float:
        """Mean of `mof`, `edit` and every F1, the column that papers call Avg."""
        return float(np.mean([self.mof, self.edit, *self.f1]))


def segmentation_scores(
    predicted: Sequence[Int[np.ndarray, " _"]],
    truth: Sequence[Int[np.ndarray, " _"]],
    *,
    background: Set[int] = frozenset(),
    overlaps: tuple[float, ...] = OVERLAPS,
    legacy_last_segment: bool = False,
) -> SegmentationScores:
    """Score every video of a set, one label for each frame.

    Args:
        predicted: Labels of each video.
        truth: True labels, in the order of `predicted`.
        background: Labels whose runs are no segments; they still count for `mof`.
        overlaps: Least intersection over union of a match, each in (0, 1].
        legacy_last_segment: End a final segment one frame early, to compare with older tables.

    Raises:
        ValueError: The videos do not correspond, or a video has no frames.
    """
    predicted_frames, true_frames, bounds = joined(predicted, truth)
    video_mof = _video_mof(predicted_frames, true_frames, bounds)
    predicted_runs = runs_of(predicted_frames, bounds, background)
    true_runs = runs_of(true_frames, bounds, background)
    num_videos = len(predicted)
    video_edit = video_edit_scores(predicted_runs, true_runs, num_videos)
    counts = _f1_counts(
        predicted_runs, true_runs, bounds, overlaps, legacy_last_segment=legacy_last_segment
    )
    correct_frames = np.count_nonzero(predicted_frames == true_frames)
    return SegmentationScores(
        mof=100.0 * correct_frames / len(true_frames),
        edit=float(video_edit.mean()),
        f1=counts.f1,
        counts=counts,
        video_mof=video_mof,
        video_edit=video_edit,
    )


def mof(
    predicted: Sequence[Int[np.ndarray, " _"]], truth: Sequence[Int[np.ndarray, " _"]]
) -> float:
    """Percentage of correct frames over all videos together, background included."""
    predicted_frames, true_frames, _ = joined(predicted, truth)
    if not len(true_frames):
        raise ValueError("mof must have at least one frame, got none: pass videos with labels.")
    return 100.0 * np.count_nonzero(predicted_frames == true_frames) / len(true_frames)


def f1_counts(
    predicted: Sequence[Int[np.ndarray, " _"]],
    truth: Sequence[Int[np.ndarray, " _"]],
    *,
    background: Set[int] = frozenset(),
    overlaps: tuple[float, ...] = OVERLAPS,
    legacy_last_segment: bool = False,
) -> F1Counts:
    """Count matched segments: each prediction may claim only the true segment it overlaps most."""
    predicted_frames, true_frames, bounds = joined(predicted, truth)
    predicted_runs = runs_of(predicted_frames, bounds, background)
    true_runs = runs_of(true_frames, bounds, background)
    return _f1_counts(
        predicted_runs, true_runs, bounds, overlaps, legacy_last_segment=legacy_last_segment
    )


def f1(
    predicted: Sequence[Int[np.ndarray, " _"]],
    truth: Sequence[Int[np.ndarray, " _"]],
    *,
    background: Set[int] = frozenset(),
    overlaps: tuple[float, ...] = OVERLAPS,
    legacy_last_segment: bool = False,
) -> tuple[float, ...]:
    """F1 in percent at each overlap, from the counts summed over the videos."""
    return f1_counts(
        predicted,
        truth,
        background=background,
        overlaps=overlaps,
        legacy_last_segment=legacy_last_segment,
    ).f1


def _video_mof(
    predicted: Int[np.ndarray, " time"],
    truth: Int[np.ndarray, " time"],
    bounds: Int[np.ndarray, " bound"],
) -> Float[np.ndarray, " video"]:
    num_frames = np.diff(bounds)
    if not num_frames.all():
        raise ValueError(
            f"every video must have at least one frame, got none in video {num_frames.argmin()}: "
            "leave it out."
        )
    return 100.0 * np.add.reduceat(predicted == truth, bounds[:-1], dtype=np.int64) / num_frames


def _f1_counts(
    predicted: Runs,
    truth: Runs,
    bounds: Int[np.ndarray, " bound"],
    overlaps: tuple[float, ...],
    *,
    legacy_last_segment: bool,
) -> F1Counts:
    if not overlaps or not all(0 < overlap <= 1 for overlap in overlaps):
        raise ValueError(f"overlaps must lie in (0, 1], got {overlaps}: write 0.5 for 50 percent.")
    num_videos = len(bounds) - 1
    claimed, best_iou = _best_matches(
        predicted, truth, bounds, legacy_last_segment=legacy_last_segment
    )
    true_positives = np.empty((num_videos, len(overlaps)), dtype=np.int64)
    for column, overlap in enumerate(overlaps):
        hit = np.zeros(len(truth.start), dtype=bool)
        hit[claimed[best_iou >= overlap]] = True
        true_positives[:, column] = np.bincount(truth.video[hit], minlength=num_videos)
    num_predicted = np.bincount(predicted.video[predicted.kept], minlength=num_videos)
    num_true = np.bincount(truth.video[truth.kept], minlength=num_videos)
    return F1Counts(
        overlaps=overlaps,
        true_positives=true_positives,
        false_positives=num_predicted[:, None] - true_positives,
        false_negatives=num_true[:, None] - true_positives,
    )


def _best_matches(
    predicted: Runs,
    truth: Runs,
    bounds: Int[np.ndarray, " bound"],
    *,
    legacy_last_segment: bool,
) -> tuple[Int[np.ndarray, " match"], Float[np.ndarray, " match"]]:
    """True run of the same label that each predicted run overlaps most, and by how much."""
    piece = np.flatnonzero(predicted.starts_run | truth.starts_run)
    of_predicted = np.searchsorted(predicted.start, piece, side="right") - 1
    of_true = np.searchsorted(truth.start, piece, side="right") - 1
    same = (predicted.label[of_predicted] == truth.label[of_true]) & predicted.kept[of_predicted]
    of_predicted, of_true = of_predicted[same], of_true[same]

    predicted_end, true_end = predicted.end[of_predicted], truth.end[of_true]
    if legacy_last_segment:
        predicted_end = predicted_end - np.isin(predicted_end, bounds)
        true_end = true_end - np.isin(true_end, bounds)
    predicted_start, true_start = predicted.start[of_predicted], truth.start[of_true]
    shared = np.minimum(predicted_end, true_end) - np.maximum(predicted_start, true_start)
    spanned = np.maximum(predicted_end, true_end) - np.minimum(predicted_start, true_start)
    # A span of no frames is a pair of one-frame final segments in the legacy reading: no match.
    iou = shared / np.maximum(spanned, 1)

    if not len(iou):
        return of_true, iou
    is_first = np.append(True, of_predicted[1:] != of_predicted[:-1])
    best = np.maximum.reduceat(iou, np.flatnonzero(is_first))
    # The first of equals wins, and pieces come in order of time.
    candidates = np.flatnonzero(iou == best[np.cumsum(is_first) - 1])
    _, first = np.unique(of_predicted[candidates], return_index=True)
    return of_true[candidates[first]], best


def _f1(
    true_positives: Int[np.ndarray, "*shape"],
    false_positives: Int[np.ndarray, "*shape"],
    false_negatives: Int[np.ndarray, "*shape"],
) -> Float[np.ndarray, "*shape"]:
    segments = 2 * true_positives + false_positives + false_negatives
    return np.where(segments == 0, 100.0, 200.0 * true_positives / np.maximum(segments, 1))
