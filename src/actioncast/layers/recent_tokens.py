"""The tokens of the past that a predictor reads besides a memory: a fixed number of them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Rows = tuple[Int[Tensor, " row"], Int[Tensor, " row"]]
"""Index of batch and of time of chosen steps."""


def latest_tokens(
    before: Float[Tensor, "batch token hidden"],
    tokens: Float[Tensor, "batch time hidden"],
    seen: Int[Tensor, " batch"],
    rows: Rows,
    count: int,
) -> tuple[Float[Tensor, "row token hidden"], Bool[Tensor, "row token"]]:
    """First in, first out: the last `count` tokens up to each chosen step, the latest last.

    Args:
        before: The `count` tokens before the first step; zeros where there were none.
        tokens: Of the steps.
        seen: Steps before the first.
        rows: The steps chosen; -1 is the moment before the first.
        count: Tokens read (K).

    Returns:
        The tokens, and which of them there are.
    """
    batch, step = rows
    places = torch.arange(count, device=step.device)
    held = torch.cat([before, tokens], 1)
    found = held[batch[:, None], step[:, None] + 1 + places]
    return found, places >= count - (seen[batch] + step + 1)[:, None]


def uniform_tokens(
    before: Float[Tensor, "batch token hidden"],  # noqa: ARG001  (of one signature with the other)
    tokens: Float[Tensor, "batch time hidden"],
    seen: Int[Tensor, " batch"],
    rows: Rows,
    count: int,
) -> tuple[Float[Tensor, "row token hidden"], Bool[Tensor, "row token"]]:
    """As many tokens spread from the first step to each chosen one (Fig. B.9); for whole windows.

    Steps fewer than `count` are read more than once.
    """
    batch, step = rows
    share = torch.arange(count, device=step.device) / max(1, count - 1)
    chosen = (step.clamp(min=0)[:, None] * share).round().long()
    known = seen[batch] + step + 1 > 0
    return tokens[batch[:, None], chosen], known[:, None].expand(-1, count)
