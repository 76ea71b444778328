"""The temporal consistency loss, literally: what ours is held to and timed against."""

from itertools import combinations, groupby

import torch
from torch import Tensor

from actioncast.types import IGNORE


def runs_of(labels: Tensor, *, padding_is_a_run: bool) -> list[list[int]]:
    """Frames of every run of one video."""
    grouped = groupby(range(len(labels)), key=lambda t: int(labels[t]))
    return [list(frames) for label, frames in grouped if padding_is_a_run or label != IGNORE]


def centroid(vectors: Tensor, run: list[int]) -> Tensor:
    total = torch.zeros_like(vectors[0])
    for t in run:
        total = total + vectors[t]
    return total / len(run)


def consistency_in_a_loop(
    vectors: Tensor,
    labels: Tensor,
    *,
    shared_by: str = "video",
    padding_is_a_run: bool = False,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Spread and nearness frame by frame and pair by pair, differentiated by autograd."""
    spreads: list[list[Tensor]] = []
    nearness: list[Tensor] = []
    counts: list[int] = []
    for own, named in zip(vectors, labels, strict=True):
        runs = runs_of(named, padding_is_a_run=padding_is_a_run)
        centroids = [centroid(own, run) for run in runs]
        spread = []
        for run, middle in zip(runs, centroids, strict=True):
            total = torch.zeros_like(middle)
            for t in run:
                total = total + (own[t] - middle) ** 2
            spread.append(total.sum() / (len(run) * own.shape[1]))
        spreads.append(spread)
        if len(runs) < 2:
            continue
        near = vectors.new_zeros(())
        for one, other in combinations(centroids, 2):
            if not torch.equal(one, other):
                near = near + 1 / (eps + ((one - other) ** 2).sum().sqrt())
            else:
                near = near + 1 / eps
        nearness.append(near)
        counts.append(len(runs))
    nothing = vectors.sum() * 0
    if shared_by == "last_video":
        all_runs = [spread for spreads_of_one in spreads for spread in spreads_of_one]
        intra = sum(all_runs, nothing) / max(len(all_runs), 1)
        inter = nothing
        if counts:
            inter = sum(nearness, nothing) / (len(counts) * (counts[-1] - 1))
        return intra, inter
    means = [sum(spread, nothing) / len(spread) for spread in spreads if spread]
    shares = [near / (count - 1) for near, count in zip(nearness, counts, strict=True)]
    return (
        sum(means, nothing) / max(len(means), 1),
        sum(shares, nothing) / max(len(shares), 1),
    )
