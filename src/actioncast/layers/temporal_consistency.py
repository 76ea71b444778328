"""Vectors of the frames of one run together, those of different runs apart.

The temporal consistency loss of m&m-Ant (https://arxiv.org/abs/2506.02382; sheet, section 4). Two
runs of one label are pushed apart like any two: the same action at distant times differs.
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from actioncast.types import IGNORE

SharedBy = Literal["video", "last_video"]
"""What divides a batch: each video's terms by that video's own number of runs, then a mean over
videos; or, as released, the spread by that of all runs and the nearness by that of the last video
with two, whereby the loss depends on the order of the batch."""


def temporal_consistency(
    vectors: Float[Tensor, "batch time hidden"],
    labels: Int[Tensor, "batch time"],
    *,
    shared_by: SharedBy = "video",
    padding_is_a_run: bool = False,
    eps: float = 1e-5,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How far frames lie from the centroid of their run, and how near centroids lie together.

    A run is as many frames of one label as follow one another. The first term is the mean over runs
    of the mean squared distance of a frame from its centroid, over frames and channels; the second
    the sum over pairs of runs of `1 / (eps + distance)`, divided by the number of runs less one.
    Both are unweighted, in float32 at least, and 0 where there is nothing to count.

    Args:
        vectors: Of every frame; released code takes the logits of the fine labels.
        labels: True ones; IGNORE where there is none, which ends a run and counts nowhere.
        shared_by: What divides a batch of several videos.
        padding_is_a_run: Whether frames of IGNORE are runs as well, as released.
        eps: Added to distances. Centroids that coincide stay where they are; those that nearly do
            are pushed with a force of up to `1 / eps ** 2`.
    """
    counted = torch.ones_like(labels, dtype=torch.bool) if padding_is_a_run else labels != IGNORE
    starts = counted.clone()
    starts[:, 1:] &= labels[:, 1:] != labels[:, :-1]
    num_runs = starts.sum(1)
    most = max([1, *num_runs.tolist()])
    # Half precision would round a sum over a long run; what does not count may be anything.
    values = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    values = rearrange(
        values.masked_fill(~counted[..., None], 0.0), "batch time hidden -> (batch time) hidden"
    )
    # Each video has `most` rows, the last of them empty where it has fewer runs.
    own = torch.arange(len(labels), device=labels.device)[:, None] * most
    run = rearrange(own + (starts.cumsum(1) - 1).clamp(min=0), "batch time -> (batch time)")
    weight = rearrange(counted, "batch time -> (batch time)").to(values.dtype)
    rows = len(labels) * most
    length = weight.new_zeros(rows).index_add(0, run, weight).clamp(min=1)
    centroids = values.new_zeros(rows, values.shape[1]).index_add(0, run, values) / length[:, None]

    apart = (values - centroids.index_select(0, run)).square().mean(-1) * weight / length[run]
    spread = rearrange(apart, "(batch time) -> batch time", batch=len(labels)).sum(1)
    nearness = _nearness(
        rearrange(centroids, "(batch run) hidden -> batch run hidden", batch=len(labels)),
        num_runs,
        eps,
    )
    several = num_runs > 1
    if shared_by == "last_video":
        last = num_runs[several][-1:].sum()
        divisor = several.sum() * (last - 1)
        return spread.sum() / num_runs.sum().clamp(min=1), nearness.sum() / divisor.clamp(min=1)
    intra = (spread / num_runs.clamp(min=1)).sum() / (num_runs > 0).sum().clamp(min=1)
    inter = (nearness / (num_runs - 1).clamp(min=1)).sum() / several.sum().clamp(min=1)
    return intra, inter


def _nearness(
    centroids: Float[Tensor, "batch run hidden"], num_runs: Int[Tensor, " batch"], eps: float
) -> Float[Tensor, " batch"]:
    """Sum of `1 / (eps + distance)` over the pairs of a video's runs."""
    # Through a product of matrices the distance of near centroids would be rounding. Of a distance
    # of 0 the gradient is 0, where that of a root would be NaN.
    distances = torch.cdist(centroids, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    place = torch.arange(centroids.shape[1], device=centroids.device)
    # The later of the two runs must exist, and is named once.
    pairs = (place[:, None] < place) & (place < num_runs[:, None, None])
    return (1 / (eps + distances)).masked_fill(~pairs, 0.0).sum((1, 2))
