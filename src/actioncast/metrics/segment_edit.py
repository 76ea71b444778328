"""Edit score of segmentation: agreement of the orders of segments, whatever their durations.

It is that of Lea et al. (https://arxiv.org/abs/1611.05267) over maximal runs of one label without
those of background. No segments on both sides scores 100, where the evaluation scripts fail.
"""

from collections.abc import Sequence, Set

import numpy as np
from jaxtyping import Float, Int

from actioncast.metrics.segment_runs import Runs, joined, runs_of

_BLOCK = 256


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
    predicted_frames, true_frames, bounds = joined(predicted, truth)
    predicted_runs = runs_of(predicted_frames, bounds, background)
    true_runs = runs_of(true_frames, bounds, background)
    return float(video_edit_scores(predicted_runs, true_runs, len(predicted)).mean())


def video_edit_scores(predicted: Runs, truth: Runs, num_videos: int) -> Float[np.ndarray, " video"]:
    """Edit score in percent of each video."""
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
