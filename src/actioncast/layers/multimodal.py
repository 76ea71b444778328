"""What m&m-Ant's anticipation module is made of (sheet, section 3.4; arXiv 2506.02382)."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from actioncast.layers.transformer import Attention, FeedForward


class SelfFusion(nn.Module):
    """Tokens of all streams look at one another: `Z <- LN(Z + MHSA(Z))`.

    Args:
        hidden_dim: Width of a token, a multiple of `num_heads`.
        num_heads: Attention heads.
        dropout: Probability of dropping an activation or an attention weight in training.
    """

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(hidden_dim, num_heads, dropout)
        self.norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        tokens: Float[Tensor, "batch token hidden"],
        mask: Bool[Tensor, "batch 1 1 token"] | None,
    ) -> Float[Tensor, "batch token hidden"]:
        """One step of looking; masked tokens are looked at by nobody."""
        return self.norm(tokens + self.dropout(self.attention(tokens, tokens, mask)))


class Reading(nn.Module):
    """Queries read from tokens: `Q <- LN(Q + MHCA(q=Q, k=v=tokens))`; sizes as `SelfFusion`."""

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(hidden_dim, num_heads, dropout)
        self.norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "batch query hidden"],
        tokens: Float[Tensor, "batch token hidden"],
        mask: Bool[Tensor, "batch 1 1 token"] | None,
    ) -> Float[Tensor, "batch query hidden"]:
        """One step of reading; masked tokens are not read."""
        return self.norm(queries + self.dropout(self.attention(queries, tokens, mask)))


class Alignment(nn.Module):
    """Queries read the segmentation stream and think: reading, then `Q <- LN(Q + FFN(Q))`.

    Args:
        hidden_dim: Width of a token, a multiple of `num_heads`.
        num_heads: Attention heads.
        inner_dim: Inner width of the feed-forward block.
        dropout: Probability of dropping an activation or an attention weight in training.
    """

    def __init__(self, hidden_dim: int, num_heads: int, inner_dim: int, dropout: float) -> None:
        super().__init__()
        self.reading = Reading(hidden_dim, num_heads, dropout)
        self.feedforward = FeedForward(hidden_dim, inner_dim, dropout)
        self.norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "batch query hidden"],
        placed: Float[Tensor, "batch time hidden"],
        mask: Bool[Tensor, "batch 1 1 time"] | None,
    ) -> Float[Tensor, "batch query hidden"]:
        """One step of answering, from a segmentation stream that carries its positions."""
        queries = self.reading(queries, placed, mask)
        return self.norm(queries + self.dropout(self.feedforward(queries)))


def windows(
    valid: Bool[Tensor, "batch token"], num_windows: int
) -> Float[Tensor, "batch window token"]:
    """How much each token counts in each of so many windows of like length over the valid ones.

    Window `i` of `n` tokens is the mean of those from `floor(i n / w)` to `ceil((i + 1) n / w)`, as
    adaptive average pooling has it; windows overlap where tokens are few. A row without a valid
    token has windows of nothing.

    Args:
        valid: Which tokens count; they need not be the first.
        num_windows: How many windows.

    Returns:
        Weights, of which each row sums to 1, or to 0 without valid tokens.
    """
    count: Int[Tensor, " batch"] = valid.sum(1)
    place = rearrange(valid.cumsum(1) - 1, "batch token -> batch 1 token")
    window = torch.arange(num_windows, device=valid.device)
    total = rearrange(count, "batch -> batch 1")
    first = rearrange(window * total // num_windows, "batch window -> batch window 1")
    # A ceiling: -(-a // b).
    end = rearrange(-(-(window + 1) * total // num_windows), "batch window -> batch window 1")
    inside = (place >= first) & (place < end) & rearrange(valid, "batch token -> batch 1 token")
    return inside / inside.sum(-1, keepdim=True).clamp(min=1)


def pooled(
    tokens: Float[Tensor, "batch token hidden"],
    valid: Bool[Tensor, "batch token"],
    num_windows: int,
) -> Float[Tensor, "batch window hidden"]:
    """The valid tokens, averaged over so many windows; zeros where there is none."""
    # Not times zero: a masked token may hold anything.
    kept = torch.where(valid[..., None], tokens, 0.0)
    return windows(valid, num_windows).to(tokens.dtype) @ kept
