"""What is done to a whole answer, past and future joined, before it is scored.

A median works on the steps of the model's grid and on probabilities; purge and mode work on the
frames of the video and on labels. The last two are told as maps from frames to frames, so that
labels and rows of probabilities move alike (sheet of ActFusion, section 7.1).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float, Int
from torch import Tensor

from actioncast.timeline import run_lengths
from actioncast.types import most_likely

Postprocess = Literal["none", "median", "purge", "mode"]
"""Nothing; a median of each label's probability over steps; short segments given to their
neighbours; the majority label of a window of frames."""


def averaged(
    answers: Sequence[Float[Tensor, "_ label"]],
) -> Float[Tensor, "time label"]:
    """The mean of several answers, row by row, as far as the shortest reaches.

    A row of zeros names no action and has no say; where all are zero the mean is zero.
    """
    shortest = min(map(len, answers))
    rows = torch.stack([answer[:shortest] for answer in answers])
    voices = reduce(rows.any(-1), "answer time -> time 1", "sum").clamp(min=1)
    return reduce(rows, "answer time label -> time label", "sum") / voices


def median_filtered(probs: Float[Tensor, "time label"], size: int) -> Float[Tensor, "time label"]:
    """The median of every label's probability in a window of `size` steps; rows sum to 1 again.

    The window reaches one step farther back than ahead where `size` is even, and takes the upper of
    the two middle values; beyond either end the steps come back mirrored, the last one twice. A row
    in which every median is 0 stays as it was: nothing is left to share out (section 8, item 14).
    """
    if not len(probs):
        return probs
    # Label by label: all windows of a long video at once would not fit in memory.
    medians = torch.stack(
        [
            column.unfold(0, size, 1).kthvalue(size // 2 + 1).values
            for column in probs[_mirrored(len(probs), size, probs.device)].T
        ],
        1,
    )
    total = medians.sum(1, keepdim=True)
    return torch.where(total > 0, medians / total.where(total > 0, 1.0), probs)


def _mirrored(num_steps: int, size: int, device: torch.device) -> Int[Tensor, " padded"]:
    """The step at each place of a sequence padded for windows, however wide they are."""
    before = size // 2
    places = torch.arange(-before, num_steps + size - before - 1, device=device) % (2 * num_steps)
    return torch.minimum(places, 2 * num_steps - 1 - places)


def purged(labels: Int[np.ndarray, " frame"], size: int) -> Int[np.ndarray, " frame"]:
    """For each frame the frame whose answer it takes when short segments are absorbed.

    A segment of at most `size` frames gives its first half to the segment before and the rest to
    the one after; the first and the last go whole to their only neighbour. Which are short is
    decided before anything moves. As in the released code the last segment ends one frame early:
    its length is counted without that frame, which also keeps its label.
    """
    source = np.arange(len(labels))
    runs = run_lengths(labels)
    for i, (_, start, end) in enumerate(runs):
        if i == len(runs) - 1:
            end -= 1  # noqa: PLW2901
        if len(runs) == 1 or end - start > size:
            continue
        middle = start + (end - start) // 2
        if i == 0:
            middle = start
        elif i == len(runs) - 1:
            middle = end
        source[start:middle] = start - 1
        source[middle:end] = end
    return source


def majority(labels: Int[np.ndarray, " frame"], size: int) -> Int[np.ndarray, " frame"]:
    """For each frame the nearest one that bears the label most frequent in a window of `size`.

    Of labels equally frequent the lowest wins; of frames equally near, the earlier. Windows lie as
    those of `median_filtered` do.
    """
    if not len(labels):
        return np.arange(0)
    padded = labels[_mirrored(len(labels), size, torch.device("cpu")).numpy()]
    names = np.unique(labels)
    counted = np.stack([np.cumsum(np.append(0, padded == name)) for name in names])
    winner = names[(counted[:, size:] - counted[:, :-size]).argmax(0)]
    source = np.arange(len(labels))
    for name in names:
        moved = np.flatnonzero((winner == name) & (labels != name))
        bearers = np.flatnonzero(labels == name)
        after = np.searchsorted(bearers, moved)
        left = bearers[(after - 1).clip(min=0)]
        right = bearers[after.clip(max=len(bearers) - 1)]
        # At an end of the video one of the two is the wrong way round, and the other is meant.
        nearer = (after < len(bearers)) & ((after == 0) | (right - moved < moved - left))
        source[moved] = np.where(nearer, right, left)
    return source


def restored(
    steps: Float[Tensor, "time label"], stride: int, num_frames: int
) -> Float[Tensor, "frame label"]:
    """Answers of steps averaged over all offsets, on `num_frames` frames of the video.

    The n-th step stands at frame `stride // 2 + n * stride`, amid those that the offsets read.
    Every frame takes the nearest step, of two the earlier; both ends are held.
    """
    if num_frames and not len(steps):
        raise ValueError(f"restoring {num_frames} frames needs at least one step, got none.")
    twice = 2 * (torch.arange(num_frames, device=steps.device) - stride // 2)
    nearest = -(stride - twice).div(2 * stride, rounding_mode="floor")
    return steps[nearest.clamp(min=0, max=max(len(steps) - 1, 0))]


def postprocessed(
    frames: Float[Tensor, "frame label"], postprocess: Postprocess, size: int
) -> Float[Tensor, "frame label"]:
    """Purge or mode on the frames of a video; `median`, which works on steps, changes nothing."""
    if postprocess not in ("purge", "mode"):
        return frames
    labels = most_likely(frames)
    source = purged(labels, size) if postprocess == "purge" else majority(labels, size)
    return frames[torch.from_numpy(source).to(frames.device)]
