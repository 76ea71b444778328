"""Scores of dense segmentation: frame accuracy, edit score and segment F1.

The edit score and F1@overlap are those of Lea et al. (https://arxiv.org/abs/1611.05267) in the form
that MS-TCN made common (https://arxiv.org/abs/1903.01945): a segment is a maximal run of one label,
runs of a background label are dropped, every frame counts for the accuracy.

All videos are scored at once. Two runs of different videos never meet, so the videos are laid end
to end; the pieces between neighbouring cuts of either side are the overlapping pairs of runs.

Differs from the evaluation scripts:

- no segments on both sides scores 100 and none on exactly one side 0, where they give NaN or fail;
- a final segment ends after the last frame. `legacy_last_segment=True` ends it one frame earlier,
  as scripts before MS-TCN's commit 0e418c0 and the copies of them in later projects do.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

OVERLAPS = (0.1, 0.25, 0.5)
_BLOCK = 256


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


@dataclass(frozen=True, slots=True)
class _Runs:
    """Maximal runs of one label in videos laid end to end; `kept` leaves out background."""

    starts_run: Bool[np.ndarray, " time"]
    start: Int[np.ndarray, " run"]
    end: Int[np.ndarray, " run"]
    label: Int[np.ndarray, " run"]
    video: Int[np.ndarray, " run"]
    kept: Bool[np.ndarray, " run"]


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
    predicted_frames, true_frames, bounds = _joined(predicted, truth)
    video_mof = _video_mof(predicted_frames, true_frames, bounds)
    predicted_runs = _runs(predicted_frames, bounds, background)
    true_runs = _runs(true_frames, bounds, background)
    num_videos = len(predicted)
    video_edit = _edit_scores(predicted_runs, true_runs, num_videos)
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
    predicted_frames, true_frames, _ = _joined(predicted, truth)
    if not len(true_frames):
        raise ValueError("mof must have at least one frame, got none: pass videos with labels.")
    return 100.0 * np.count_nonzero(predicted_frames == true_frames) / len(true_frames)


def edit_score(
    predicted: Int[np.ndarray, " _"],
    truth: Int[np.ndarray, " _"],
    background: Set[int] = frozenset(),
) -> float:
    """Agreement in percent of the two orders of segments of one video, whatever their durations."""
    return edit([predicted], [truth], background=background)


def edit(
    predicted: Sequence[Int[np.ndarray, " _"]],
    truth: Sequence[Int[np.ndarray, " _"]],
    *,
    background: Set[int] = frozenset(),
) -> float:
    """Mean of `edit_score` over the videos."""
    predicted_frames, true_frames, bounds = _joined(predicted, truth)
    predicted_runs = _runs(predicted_frames, bounds, background)
    true_runs = _runs(true_frames, bounds, background)
    return float(_edit_scores(predicted_runs, true_runs, len(predicted)).mean())


def f1_counts(
    predicted: Sequence[Int[np.ndarray, " _"]],
    truth: Sequence[Int[np.ndarray, " _"]],
    *,
    background: Set[int] = frozenset(),
    overlaps: tuple[float, ...] = OVERLAPS,
    legacy_last_segment: bool = False,
) -> F1Counts:
    """Count matched segments: each prediction may claim only the true segment it overlaps most."""
    predicted_frames, true_frames, bounds = _joined(predicted, truth)
    predicted_runs = _runs(predicted_frames, bounds, background)
    true_runs = _runs(true_frames, bounds, background)
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


def _joined(
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


def _runs(
    frames: Int[np.ndarray, " time"], bounds: Int[np.ndarray, " bound"], background: Set[int]
) -> _Runs:
    starts_run = np.empty(len(frames), dtype=bool)
    np.not_equal(frames[1:], frames[:-1], out=starts_run[1:])
    starts_run[bounds[:-1][bounds[:-1] < len(frames)]] = True
    start = np.flatnonzero(starts_run)
    label = frames[start]
    return _Runs(
        starts_run=starts_run,
        start=start,
        end=np.append(start[1:], len(frames))[: len(start)],
        label=label,
        video=np.searchsorted(bounds, start, side="right") - 1,
        kept=~np.isin(label, list(background)),
    )


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


def _edit_scores(predicted: _Runs, truth: _Runs, num_videos: int) -> Float[np.ndarray, " video"]:
    num_predicted = np.bincount(predicted.video[predicted.kept], minlength=num_videos)
    num_true = np.bincount(truth.video[truth.kept], minlength=num_videos)
    predicted_labels, true_labels = predicted.label[predicted.kept], truth.label[truth.kept]
    longer = np.maximum(num_predicted, num_true)
    distance = longer.copy()
    both = np.flatnonzero((num_predicted > 0) & (num_true > 0))
    by_length = both[np.argsort(num_predicted[both], kind="stable")]
    for first in range(0, len(by_length), _BLOCK):
        block = by_length[first : first + _BLOCK]
        block = block[np.argsort(-num_true[block], kind="stable")]
        distance[block] = _edit_distances(
            _padded(true_labels, num_true, block),
            _padded(predicted_labels, num_predicted, block),
            num_true[block],
            num_predicted[block],
        )
    return 100.0 * (1.0 - distance / np.maximum(longer, 1))


def _padded(
    labels: Int[np.ndarray, " segment"],
    num_segments: Int[np.ndarray, " video"],
    block: Int[np.ndarray, " member"],
) -> Int[np.ndarray, "member position"]:
    """One row of labels for each video of the block; what follows its last one is arbitrary."""
    first = (np.cumsum(num_segments) - num_segments)[block]
    position = first[:, None] + np.arange(num_segments[block].max())
    return labels[np.minimum(position, len(labels) - 1)]


def _edit_distances(
    rows: Int[np.ndarray, "video row"],
    columns: Int[np.ndarray, "video column"],
    num_rows: Int[np.ndarray, " video"],
    num_columns: Int[np.ndarray, " video"],
) -> Int[np.ndarray, " video"]:
    """Levenshtein distance of every video, which must come by falling `num_rows`.

    The table is kept as distance minus column: an insertion then costs nothing, so a running
    minimum along the columns settles a whole row.
    """
    offset = np.zeros((len(columns), columns.shape[1] + 1), dtype=np.int32)
    for row in range(rows.shape[1]):
        active = int(np.searchsorted(-num_rows, -row))
        above = offset[:active]
        best = above + 1
        matches = columns[:active] == rows[:active, row, None]
        np.minimum(best[:, 1:], above[:, :-1] - matches, out=best[:, 1:])
        np.minimum.accumulate(best, axis=1, out=above)
    return offset[np.arange(len(offset)), num_columns] + num_columns


def _f1_counts(
    predicted: _Runs,
    truth: _Runs,
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
    predicted: _Runs,
    truth: _Runs,
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
