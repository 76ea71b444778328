"""What m&m-Ant's released code minimises: gate, schedule and averages (sheet, section 4).

While the frames seen are named wrongly, at the fine or the coarse level, telling fine labels apart
comes first; as they are named rightly, the rest takes over. Averages are over all rows, also those
that no label masks out: a batch of shorter videos weighs less.
"""

from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from actioncast.types import IGNORE

PAD_PREDICTED = 2.0
"""What a row costs that is predicted as the class of padding."""


def consistency_share(epoch: float, peak: float = 30, end: float = 60) -> float:
    """Share of temporal consistency in the fine terms: 0 to 1 until `peak`, 0 again from `end` on.

    Raises:
        ValueError: `peak` does not lie between 0 and `end`.
    """
    if not 0 < peak < end:
        raise ValueError(
            f"peak must lie above 0 and before end, got {peak:g} and {end:g} epochs; mend either."
        )
    rising, falling = epoch / peak, (end - epoch) / (end - peak)
    return max(0.0, min(rising, falling))


def wrongness(
    fine_right: Bool[Tensor, "batch time"],
    coarse_right: Bool[Tensor, "batch time"],
    valid: Bool[Tensor, "batch time"],
    wrong: float = 5.0,
) -> Float[Tensor, ""]:
    """Mean over frames of 1 where both levels are named rightly, else `wrong`; 1 without a frame.

    Args:
        fine_right: Whether the likeliest fine label is the true one.
        coarse_right: Whether the likeliest coarse label is.
        valid: Frames that count.
        wrong: At least 1.
    """
    share = (~(fine_right & coarse_right) & valid).sum() / valid.sum().clamp(min=1)
    return 1 + (wrong - 1) * share


def gated_terms(
    *,
    fine: Mapping[str, Float[Tensor, ""]],
    consistency: Mapping[str, Float[Tensor, ""]],
    rest: Mapping[str, Float[Tensor, ""]],
    wrongness: Float[Tensor, ""] | float,
    share: float,
) -> dict[str, Float[Tensor, ""]]:
    """Terms by name, weighed so that their sum is what is minimised.

    Args:
        fine: Weigh `(1 - 1/wrongness) * (1 - share)`.
        consistency: Weigh `(1 - 1/wrongness) * share`.
        rest: Weigh `1/wrongness`: the coarse level and the future.
        wrongness: Of `wrongness`.
        share: Of `consistency_share`.
    """
    others = 1 / wrongness
    weighed = (
        (fine, (1 - others) * (1 - share)),
        (consistency, (1 - others) * share),
        (rest, others),
    )
    return {name: weight * term for terms, weight in weighed for name, term in terms.items()}


def cross_entropy_over_all_rows(
    logits: Float[Tensor, "*row label"],
    labels: Int[Tensor, "*row"],
    pad_class: int | None = None,
) -> Float[Tensor, ""]:
    """Cross entropy where rows of IGNORE cost nothing but count in the mean.

    Args:
        logits: Of every row.
        labels: True ones; IGNORE where there is none.
        pad_class: The class of padding, where the logits have one: every other row predicted as it
            costs 2 more, which has no gradient.
    """
    entropy = _entropy(logits, labels)
    if pad_class is not None:
        padded = (logits.argmax(-1) == pad_class) & (labels != IGNORE)
        entropy = entropy + PAD_PREDICTED * padded
    return _mean(entropy)


def change_weighted_cross_entropy(
    logits: Float[Tensor, "batch query label"],
    labels: Int[Tensor, "batch query"],
    last_observed: Int[Tensor, " batch"],
    first_future: Int[Tensor, " batch"],
    change: float = 10.0,
) -> Float[Tensor, ""]:
    """Cross entropy of the future over all queries of all videos, `change`-fold where it changes.

    Args:
        logits: Of every query.
        labels: True ones; IGNORE costs nothing but counts in the mean.
        last_observed: The last action seen.
        first_future: The first to come; where it is the last seen, the video weighs 1.
        change: What it weighs where it is not.
    """
    weights = torch.where(first_future == last_observed, 1.0, change)
    return _mean(_entropy(logits, labels) * weights[:, None])


def focal_cross_entropy(
    logits: Float[Tensor, "*row label"],
    labels: Int[Tensor, "*row"],
    gamma: float = 2.0,
    alpha: float = 1.0,
) -> Float[Tensor, ""]:
    """Cross entropy times `alpha * (1 - p)**gamma`, p of the true class, over all rows.

    Lin et al. (https://arxiv.org/abs/1708.02002).

    Args:
        logits: Of every row.
        labels: True ones; IGNORE costs nothing but counts in the mean.
        gamma: 0, or at least 1: in between a sure answer would have no finite gradient.
        alpha: Weight of everything.
    """
    entropy = _entropy(logits, labels)
    return _mean(alpha * (1 - (-entropy).exp()) ** gamma * entropy)


def _entropy(
    logits: Float[Tensor, "*row label"], labels: Int[Tensor, "*row"]
) -> Float[Tensor, "*row"]:
    """Of every row; 0 where its label is IGNORE."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    channels = rearrange(wide, "... label -> (...) label")
    entropy = F.cross_entropy(channels, labels.flatten(), ignore_index=IGNORE, reduction="none")
    return entropy.reshape(labels.shape)


def _mean(values: Float[Tensor, "*row"]) -> Float[Tensor, ""]:
    """Over all rows; 0 when there is none."""
    return values.sum() / max(values.numel(), 1)
