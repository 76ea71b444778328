"""Post-norm transformer layers whose positions enter anew in every layer."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention whose keys and values are read from the same vectors.

    Args:
        hidden_dim: Width of the vectors, a multiple of `num_heads`.
        num_heads: Attention heads.
        dropout: Probability of dropping an attention weight in training.
    """

    def __init__(self, hidden_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.project = nn.Linear(hidden_dim, 3 * hidden_dim)
        self.out = nn.Linear(hidden_dim, hidden_dim)

    def forward(
        self,
        x: Float[Tensor, "batch query hidden"],
        memory: Float[Tensor, "batch time hidden"],
        mask: Bool[Tensor, "batch 1 1 time"] | None = None,
    ) -> Float[Tensor, "batch query hidden"]:
        """Each vector of `x` gathers what it needs from `memory`.

        Args:
            x: (batch, query, hidden).
            memory: (batch, time, hidden).
            mask: (batch, 1, 1, time), true where `memory` may be looked at; absent, everywhere.

        Returns:
            (batch, query, hidden).
        """
        sizes = [x.shape[-1], 2 * x.shape[-1]]
        weight, memory_weight = torch.split(self.project.weight, sizes)
        bias, memory_bias = torch.split(self.project.bias, sizes)
        queries = F.linear(x, weight, bias)
        keys, values = F.linear(memory, memory_weight, memory_bias).chunk(2, -1)
        gathered = F.scaled_dot_product_attention(
            self._split(queries),
            self._split(keys),
            self._split(values),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(rearrange(gathered, "batch head time width -> batch time (head width)"))

    def _split(
        self, x: Float[Tensor, "batch time hidden"]
    ) -> Float[Tensor, "batch head time width"]:
        return rearrange(x, "batch time (head width) -> batch head time width", head=self.num_heads)


class FeedForward(nn.Module):
    """Two linear layers on every vector by itself.

    Args:
        hidden_dim: Width of the vectors.
        inner_dim: Width between the two layers.
        dropout: Probability of dropping an inner activation in training.
    """

    def __init__(self, hidden_dim: int, inner_dim: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden_dim, inner_dim)
        self.contract = nn.Linear(inner_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Widen, rectify, narrow: (..., hidden) to (..., hidden)."""
        return self.contract(self.dropout(F.relu(self.expand(x))))


class EncoderLayer(nn.Module):
    """Self-attention over the past; positions enter queries, keys and values.

    Args:
        hidden_dim: Width of the vectors, a multiple of `num_heads`.
        num_heads: Attention heads.
        inner_dim: Inner width of the feed-forward block.
        dropout: Probability of dropping an activation or an attention weight in training.
    """

    def __init__(self, hidden_dim: int, num_heads: int, inner_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(hidden_dim, num_heads, dropout)
        self.attention_norm = nn.LayerNorm(hidden_dim)
        self.feedforward = FeedForward(hidden_dim, inner_dim, dropout)
        self.feedforward_norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        memory: Float[Tensor, "batch time hidden"],
        positions: Float[Tensor, "time hidden"],
        mask: Bool[Tensor, "batch 1 1 time"] | None,
    ) -> Float[Tensor, "batch time hidden"]:
        """One step of reading; the residual carries no positions.

        Args:
            memory: (batch, time, hidden).
            positions: (time, hidden), the same for the whole batch.
            mask: (batch, 1, 1, time), true where `memory` may be looked at; None, everywhere.

        Returns:
            (batch, time, hidden).
        """
        placed = memory + positions
        memory = self.attention_norm(memory + self.dropout(self.attention(placed, placed, mask)))
        return self.feedforward_norm(memory + self.dropout(self.feedforward(memory)))


class DecoderLayer(nn.Module):
    """The queries look at each other, then at the past; sizes are those of `EncoderLayer`."""

    def __init__(self, hidden_dim: int, num_heads: int, inner_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(hidden_dim, num_heads, dropout)
        self.self_norm = nn.LayerNorm(hidden_dim)
        self.cross_attention = Attention(hidden_dim, num_heads, dropout)
        self.cross_norm = nn.LayerNorm(hidden_dim)
        self.feedforward = FeedForward(hidden_dim, inner_dim, dropout)
        self.feedforward_norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        slots: Float[Tensor, "batch query hidden"],
        queries: Float[Tensor, "batch query hidden"],
        placed: Float[Tensor, "batch time hidden"],
        mask: Bool[Tensor, "batch 1 1 time"] | None,
        query_mask: Bool[Tensor, "batch 1 1 query"] | None = None,
    ) -> Float[Tensor, "batch query hidden"]:
        """One step of answering, from a memory that carries its positions.

        Args:
            slots: (batch, query, hidden), what the queries know so far.
            queries: (batch, query, hidden), which enter anew as positions do.
            placed: (batch, time, hidden), the memory with its positions.
            mask: (batch, 1, 1, time), true where `placed` may be looked at; None, everywhere.
            query_mask: (batch, 1, 1, query), true where a query may be looked at by the others;
                None, everywhere.

        Returns:
            (batch, query, hidden).
        """
        asked = slots + queries
        told = self.self_attention(asked, asked, query_mask)
        slots = self.self_norm(slots + self.dropout(told))
        read = self.cross_attention(slots + queries, placed, mask)
        slots = self.cross_norm(slots + self.dropout(read))
        return self.feedforward_norm(slots + self.dropout(self.feedforward(slots)))


def attention_mask(valid: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch 1 1 time"] | None:
    """Which steps may be looked at; None, and so the fastest kernels, when all may.

    Args:
        valid: (batch, time).

    Returns:
        (batch, 1, 1, time), or None.

    Raises:
        ValueError: An observation has no valid step.
    """
    shortest = int(valid.sum(1).min()) if valid.numel() else 0
    if not shortest:
        raise ValueError(
            "every observation must have at least one valid step, got one without; leave it out of "
            "the batch."
        )
    if shortest == valid.shape[1]:
        return None
    return rearrange(valid, "batch time -> batch 1 1 time")
