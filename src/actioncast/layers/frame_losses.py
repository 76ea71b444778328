"""Losses on what is said of every frame, each the mean over videos of a video's own mean.

Those of MS-TCN (smoothing) and DiffAct (boundaries), as ActFusion (Gong et al., NeurIPS 2024, Eqs.
8 to 10) uses them. All are computed in float32, whatever the logits are. A video in which nothing
counts has a loss of 0.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from torch.nn import functional as F

GREATEST_JUMP = 16.0
"""Where a squared jump of a log probability is cut: 4 squared."""
TRUNCATE = 4.0
"""Deviations at which a Gaussian kernel ends."""


def class_weights(
    counts: Float[Tensor, " label"] | Int[Tensor, " label"],
) -> Float[Tensor, " label"]:
    """Weight of every label: all frames / ((its frames + 10) * labels)."""
    return counts.sum() / ((counts.float() + 10) * len(counts))


def boundary_targets(frames: Int[Tensor, " frame"], sigma: float) -> Float64[Tensor, " frame"]:
    """How much of a boundary every frame is, on the video's own grid.

    1 at the first frame of every action but the first, and at the frame before it; smoothed by a
    Gaussian, cut where boundaries add up to more than one alone would reach, and divided by the
    greatest. A video of one action has zeros.

    Args:
        frames: Labels; negative where there is none, beside which there is no boundary.
        sigma: Deviation of the Gaussian in frames; 0 does not smooth.
    """
    marks = torch.zeros(len(frames), dtype=torch.float64, device=frames.device)
    changes = (frames.diff() != 0) & (frames[1:] >= 0) & (frames[:-1] >= 0)
    starts = changes.nonzero()[:, 0] + 1
    marks[starts] = 1.0
    marks[starts - 1] = 1.0
    if sigma:
        # A lone boundary amid a video of this length: in a short one the mirror adds to its peak.
        lone, middle = torch.zeros_like(marks), len(marks) // 2
        lone[max(middle - 1, 0) : middle + 1] = 1.0
        marks, alone = _smoothed(torch.stack([marks, lone]), sigma)
        marks = marks.minimum(alone.max()) if len(marks) else marks
    return _over_greatest(marks)


def strided_boundaries(
    targets: Float64[Tensor, " frame"], stride: int, first: int
) -> Float[Tensor, " time"]:
    """Boundaries at every `stride`-th frame from `first` on, divided by the greatest again."""
    return _over_greatest(targets[first::stride]).float()


def soft_labels(
    one_hot: Float[Tensor, "batch time label"], sigma: float
) -> Float[Tensor, "batch time label"]:
    """Labels smoothed in time by a Gaussian of `sigma` steps; the ends are mirrored.

    Rows sum to 1. Steps without a label, rows of zeros, have no say; a row that no labelled step
    reaches stays zero.
    """
    if not sigma:
        return one_hot
    rows = rearrange(one_hot, "batch time label -> (batch label) time")
    smooth = rearrange(
        _smoothed(rows, sigma), "(batch label) time -> batch time label", batch=len(one_hot)
    )
    total = smooth.sum(-1, keepdim=True)
    return smooth / total.where(total > 0, 1.0)


def frame_cross_entropy(
    logits: Float[Tensor, "batch time label"],
    labels: Int[Tensor, "batch time"],
    weights: Float[Tensor, " label"] | None,
    counted: Bool[Tensor, "batch time"],
) -> Float[Tensor, ""]:
    """Cross entropy (Eq. 8); weights are not normalised, as released.

    Args:
        logits: Of every step.
        labels: True labels; any where a step does not count.
        weights: Of the labels.
        counted: Steps that count.
    """
    named = labels.clamp(min=0)
    log_probs = logits.float().log_softmax(-1)
    entropy = -rearrange(log_probs.gather(-1, named[..., None]), "batch time 1 -> batch time")
    return _mean(entropy if weights is None else entropy * weights[named], counted)


def soft_cross_entropy(
    logits: Float[Tensor, "batch time label"],
    targets: Float[Tensor, "batch time label"],
    counted: Bool[Tensor, "batch time"],
) -> Float[Tensor, ""]:
    """Cross entropy with soft targets."""
    return _mean(-(targets * logits.float().log_softmax(-1)).sum(-1), counted)


def smoothing_loss(
    logits: Float[Tensor, "batch time label"], counted: Bool[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Squared jumps of the log probabilities between neighbours, cut at 16 (Eq. 9).

    The earlier neighbour is taken as given, as released. A pair counts where both steps do.
    """
    log_probs = logits.float().log_softmax(-1)
    jumps = (log_probs[:, 1:] - log_probs[:, :-1].detach()).square().clamp(max=GREATEST_JUMP)
    return _mean(jumps.mean(-1), counted[:, 1:] & counted[:, :-1])


def boundary_loss(
    logits: Float[Tensor, "batch time label"],
    boundaries: Float[Tensor, "batch time"],
    counted: Bool[Tensor, "batch time"],
    through_both: bool = False,
) -> Float[Tensor, ""]:
    """Binary cross entropy of 1 - p_t . p_(t-1) against the boundary at t (Eq. 10).

    Args:
        logits: Of every step.
        boundaries: Of `strided_boundaries`.
        counted: Steps that count; a pair counts where both do.
        through_both: Whether both neighbours are moved, as printed, or the later, as released.
    """
    probs = logits.float().softmax(-1)
    before = probs[:, :-1] if through_both else probs[:, :-1].detach()
    # Rounding can leave [0, 1] by the last bit, at which the entropy would stop.
    apart = (1 - (probs[:, 1:] * before).sum(-1)).clamp(0.0, 1.0)
    with torch.autocast(apart.device.type, enabled=False):
        entropy = F.binary_cross_entropy(apart, boundaries[:, 1:].float(), reduction="none")
    return _mean(entropy, counted[:, 1:] & counted[:, :-1])


def _mean(
    values: Float[Tensor, "batch time"], counted: Bool[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    chosen = values.masked_fill(~counted, 0.0).sum(1) / counted.sum(1).clamp(min=1)
    return chosen.mean()


def _gaussian(sigma: float) -> Float64[Tensor, " tap"]:
    reach = int(TRUNCATE * sigma + 0.5)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    return kernel / kernel.sum()


def _smoothed(rows: Float[Tensor, "row time"], sigma: float) -> Float[Tensor, "row time"]:
    """Convolve with a Gaussian; beyond its ends a row is mirrored as often as need be."""
    time = rows.shape[1]
    if not time:
        return rows
    kernel = _gaussian(sigma).to(rows)
    reach = len(kernel) // 2
    index = torch.arange(-reach, time + reach, device=rows.device) % (2 * time)
    mirrored = rows[:, torch.where(index < time, index, 2 * time - 1 - index)]
    # Under autocast a convolution would round labels to half precision.
    with torch.autocast(rows.device.type, enabled=False):
        found = F.conv1d(rearrange(mirrored, "row time -> row 1 time"), kernel[None, None])
    return rearrange(found, "row 1 time -> row time")


def _over_greatest(values: Float64[Tensor, " frame"]) -> Float64[Tensor, " frame"]:
    greatest = values.max() if len(values) else values.sum()
    return values / greatest if greatest > 0 else values
