"""Cross entropy of mixed rows, in which frequent classes do not push rare ones down.

Equalisation loss: Tan et al. (https://arxiv.org/abs/2003.05176), softmax form; numbers of the
released CLAM (sheet, section 3).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actioncast.types import IGNORE

LEAST = 1e-8
"""What is added to the weight of a negative before its log."""


@dataclass(frozen=True, slots=True)
class Equalisation:
    """Which classes are rare, and how often they are left out where they are no target."""

    rare: Bool[Tensor, " label"]
    probability: float
    """That a rare class is left out of the softmax of a row of another class, drawn for each."""


def mixed_cross_entropy(
    logits: Float[Tensor, "row label"],
    labels: Int[Tensor, " row"],
    partner: Int[Tensor, " row"] | None = None,
    share: Float[Tensor, ""] | float = 1.0,
    *,
    smoothing: float = 0.0,
    equalised: Equalisation | None = None,
) -> Float[Tensor, ""]:
    """Mean of minus the log probability of what a row shows, each label by its share.

    A label of IGNORE takes its share out of the mean, of a mixed row too: what nobody named
    teaches nothing.

    Args:
        logits: Scores.
        labels: Of each row.
        partner: Of what is mixed in; absent, nothing is.
        share: Of `labels`; `partner` has the rest.
        smoothing: Share of the target that is spread over all classes.
        equalised: Absent in validation, where nothing is drawn.
    """
    logits = logits.float()
    weights = [share * (labels != IGNORE).float()]
    named = [labels]
    if partner is not None:
        weights.append((1 - share) * (partner != IGNORE).float())
        named.append(partner)
    row_weight = torch.stack(weights).sum(0)
    total = row_weight.sum()
    known = [one.clamp(min=0)[:, None] for one in named]
    if equalised is not None:
        logits = logits + _left_out(logits, known, weights, row_weight, smoothing, equalised)
    log_probs = logits.log_softmax(-1)
    hit = torch.stack(
        [
            weight * log_probs.gather(1, one)[:, 0]
            for weight, one in zip(weights, known, strict=True)
        ]
    ).sum()
    spread = (row_weight * log_probs.mean(-1)).sum() if smoothing else hit.new_zeros(())
    return -((1 - smoothing) * hit + smoothing * spread) / total.clamp(min=1e-6)


def _left_out(
    logits: Tensor,
    known: list[Tensor],
    weights: list[Tensor],
    row_weight: Tensor,
    smoothing: float,
    equalised: Equalisation,
) -> Float[Tensor, "row label"]:
    """The log of the weight of each class in the softmax of each row: `1 - (1 - y)` if rare."""
    with torch.no_grad():
        target = torch.full_like(logits, smoothing / logits.shape[1])
        for one, weight in zip(known, weights, strict=True):
            part = (1 - smoothing) * weight / row_weight.clamp(min=1e-6)
            target.scatter_add_(1, one, part[:, None].to(target.dtype))
        drawn = torch.rand_like(logits) < equalised.probability
        return torch.where(drawn & equalised.rare, (target + LEAST).log(), 0.0)
