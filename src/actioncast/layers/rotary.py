"""A transformer layer that knows how far apart two steps lie, and not where they lie.

Rotary positions: Su et al., RoFormer (https://arxiv.org/abs/2104.09864, Eq. 34). Channels of a head
are paired, one of either half; the n-th pair of a step t turns by t * base^(-2 n / width), so that
the product of a query and a key depends on t - t' alone. No table, and so no longest sequence.
"""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.transformer import FeedForward

BASE = 10_000.0
"""Of the angles, as published: the slowest pair turns once in about 2 pi times as many steps."""
Kept = tuple[Float[Tensor, "row head _ width"], Float[Tensor, "row head _ width"]]
"""Turned keys, and values, of the steps before."""


@final
class RotaryLayer(nn.Module):
    """Pre-norm self-attention whose queries and keys turn with their step, and a feed-forward.

    Args:
        hidden_dim: Width of the vectors, a multiple of twice `num_heads`.
        num_heads: Attention heads.
        inner_dim: Inner width of the feed-forward block.
        dropout: Probability of dropping an activation or an attention weight in training.
    """

    def __init__(self, hidden_dim: int, num_heads: int, inner_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(hidden_dim)
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.key_value = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.out = nn.Linear(hidden_dim, hidden_dim)
        self.feedforward_norm = nn.LayerNorm(hidden_dim)
        self.feedforward = FeedForward(hidden_dim, inner_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "row step hidden"],
        mask: Bool[Tensor, "row 1 1 step"] | None,
        causal: bool,
        last: bool,
    ) -> Float[Tensor, "row asked hidden"]:
        """One layer.

        Args:
            x: Its input.
            mask: True where a step may be looked at; None, everywhere.
            causal: Whether a step looks at none after it.
            last: Whether the last step alone is asked for.
        """
        normed = self.attention_norm(x)
        asking = slice(-1, None) if last else slice(None)
        queries = self._split(self.query(normed[:, asking]))
        keys, values = (self._split(part) for part in self.key_value(normed).chunk(2, -1))
        turns = turns_of(x, keys.shape[-1])
        read = F.scaled_dot_product_attention(
            turned(queries, turns[:, asking]),
            turned(keys, turns),
            values,
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
            is_causal=causal and not last,
        )
        return self._joined(x[:, asking], read)

    def extend(
        self, x: Float[Tensor, "row 1 hidden"], kept: Kept
    ) -> tuple[Float[Tensor, "row 1 hidden"], Kept]:
        """One step more of a causal pass, given what was kept of those before; for inference.

        What is kept grows with every step, and so does the time that reading it takes.
        """
        normed = self.attention_norm(x)
        queries = self._split(self.query(normed))
        keys, values = (self._split(part) for part in self.key_value(normed).chunk(2, -1))
        earlier_keys, earlier_values = kept
        turns = turns_of(x, keys.shape[-1], first=earlier_keys.shape[2])
        keys = torch.cat([earlier_keys, turned(keys, turns)], 2)
        values = torch.cat([earlier_values, values], 2)
        read = F.scaled_dot_product_attention(turned(queries, turns), keys, values)
        return self._joined(x, read), (keys, values)

    def _joined(
        self, x: Float[Tensor, "row asked hidden"], read: Float[Tensor, "row head asked width"]
    ) -> Float[Tensor, "row asked hidden"]:
        joined = self.out(rearrange(read, "row head step width -> row step (head width)"))
        x = x + self.dropout(joined)
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))

    def _split(self, x: Float[Tensor, "row step hidden"]) -> Float[Tensor, "row head step width"]:
        return rearrange(x, "row step (head width) -> row head step width", head=self.num_heads)


def turns_of(
    x: Float[Tensor, "row step hidden"], width: int, first: int = 0
) -> Float[Tensor, "2 step half"]:
    """Cosine and sine of the angle of every step and pair of channels; `first` steps precede."""
    half = width // 2
    # In double precision: a late step times a rate would lose the angle itself in single.
    rates = BASE ** (-torch.arange(half, dtype=torch.float64, device=x.device) / half)
    steps = torch.arange(first, first + x.shape[1], device=x.device)
    angles = steps[:, None] * rates
    return torch.stack([angles.cos(), angles.sin()]).to(x.dtype)


def turned(
    x: Float[Tensor, "row head step width"], turns: Float[Tensor, "2 step half"]
) -> Float[Tensor, "row head step width"]:
    """Turn each pair of channels, one of either half, by the angle of its step."""
    cosine, sine = turns
    one, other = x.chunk(2, -1)
    return torch.cat([one * cosine - other * sine, one * sine + other * cosine], -1)
