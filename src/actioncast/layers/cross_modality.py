"""Streams that look at themselves and at one another (ActionLLM, Eq. 1-9; sheet section 2.5)."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Interaction = Literal["both", "self", "cross", "none"]
"""What a stream looks at: itself and the others, itself, the others; none leaves the block out."""

StreamPositions = Literal["tokens", "batch", "none"]
"""What a sinusoid tells: the place of a token in its stream, or, as released, the place of a video
in its batch, which all of its tokens share."""

AT_ONCE = 2**20
"""Attention weights that are computed together where none are to be stored."""


class CrossModalityBlock(nn.Module):
    """Attention over several streams, then a feed-forward layer for each.

    Args:
        streams: Names, in the order of their tokens.
        width: Of a token, a multiple of `num_heads`.
        num_heads: Attention heads.
        inner_dim: Of the feed-forward layers.
        dropout: Probability of dropping an attention weight or what attention says, in training.
        interaction: What a stream looks at.
        fusion: Whether what a stream gathers from each is averaged, as released, or summed, as
            Eq. 4-6 have it.
        positions: What the sinusoid that is added to each token tells.
        residual_positions: Whether the residual path carries the sinusoid, as released; Eq. 8
            leaves it out.
        eps: Of the norms.
    """

    def __init__(
        self,
        streams: Sequence[str],
        width: int,
        num_heads: int,
        inner_dim: int,
        *,
        dropout: float = 0.1,
        interaction: Interaction = "both",
        fusion: Literal["mean", "sum"] = "mean",
        positions: StreamPositions = "tokens",
        residual_positions: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.streams = tuple(streams)
        self.num_heads = num_heads
        self.interaction = interaction
        self.fusion = fusion
        self.positions = positions
        self.residual_positions = residual_positions
        self.drop = dropout
        self.dropout = nn.Dropout(dropout)
        self.attention_norms = nn.ModuleDict({s: nn.RMSNorm(width, eps) for s in streams})
        self.projections = nn.ModuleDict({s: nn.Linear(width, 3 * width) for s in streams})
        self.outputs = nn.ModuleDict({s: nn.Linear(width, width) for s in streams})
        self.norms = nn.ModuleDict({s: nn.RMSNorm(width, eps) for s in streams})
        self.feedforward = nn.ModuleDict({s: GatedFeedForward(width, inner_dim) for s in streams})

    def forward(
        self,
        tokens: Mapping[str, Float[Tensor, "batch _ width"]],
        valid: Mapping[str, Bool[Tensor, "batch _"]],
    ) -> dict[str, Float[Tensor, "batch _ width"]]:
        """What each stream's tokens are after they have looked.

        Args:
            tokens: By stream, `(batch, token, width)`.
            valid: By stream, `(batch, token)`: false for padding, which nobody looks at.
        """
        placed = {s: tokens[s] + self._places(tokens[s], valid[s]) for s in self.streams}
        heard = self._attend(placed, valid)
        found: dict[str, Tensor] = {}
        for s in self.streams:
            residual = placed[s] if self.residual_positions else tokens[s]
            state = self.dropout(self.outputs[s](heard[s])) + residual
            found[s] = self.feedforward[s](self.norms[s](state)) + state
        return found

    def _attend(
        self,
        placed: Mapping[str, Float[Tensor, "batch _ width"]],
        valid: Mapping[str, Bool[Tensor, "batch _"]],
    ) -> dict[str, Float[Tensor, "batch _ width"]]:
        """What each stream gathers, before its output layer."""
        asked: dict[str, Tensor] = {}
        known: dict[str, tuple[Tensor, Tensor]] = {}
        for s in self.streams:
            projected = self.projections[s](self.attention_norms[s](placed[s]))
            query, key, value = rearrange(
                projected,
                "batch token (part head feature) -> part batch head token feature",
                part=3,
                head=self.num_heads,
            )
            asked[s], known[s] = query, (key, value)
        heard: dict[str, list[Tensor]] = {s: [] for s in self.streams}
        for source, (key, value) in known.items():
            listeners = [s for s in self.streams if self._looks(s, source)]
            if not listeners:
                continue
            gathered = self._gather(
                torch.cat([asked[s] for s in listeners], 2), key, value, _mask(valid[source])
            )
            parts = torch.split(gathered, [asked[s].shape[2] for s in listeners], 2)
            for s, part in zip(listeners, parts, strict=True):
                heard[s].append(part)
        joined = {s: torch.stack(parts).sum(0) for s, parts in heard.items()}
        if self.fusion == "mean":
            joined = {s: joined[s] / len(heard[s]) for s in self.streams}
        return {
            s: rearrange(part, "batch head token feature -> batch token (head feature)")
            for s, part in joined.items()
        }

    def _gather(
        self,
        query: Float[Tensor, "batch head asking feature"],
        key: Float[Tensor, "batch head known feature"],
        value: Float[Tensor, "batch head known feature"],
        mask: Bool[Tensor, "batch 1 1 known"] | None,
    ) -> Float[Tensor, "batch head asking feature"]:
        """Attention whose weights are not stored for the backward pass.

        No fused kernel of CPUs drops weights: theirs would be kept for every pair of tokens and
        every head, more than a whole trunk keeps. They are computed a second time instead.
        """
        if not (self.training and self.drop and torch.is_grad_enabled()):
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        weights_of_a_head = query.shape[0] * query.shape[2] * key.shape[2]
        heads = max(1, AT_ONCE // weights_of_a_head)
        parts: list[Tensor] = [
            checkpoint(
                F.scaled_dot_product_attention,
                *some,
                attn_mask=mask,
                dropout_p=self.drop,
                use_reentrant=False,
            )
            for some in zip(*(torch.split(x, heads, 1) for x in (query, key, value)), strict=True)
        ]
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def _looks(self, stream: str, source: str) -> bool:
        if self.interaction == "both":
            return True
        return (stream == source) == (self.interaction == "self")

    def _places(
        self, tokens: Float[Tensor, "batch token width"], valid: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "#batch #token width"]:
        if self.positions == "none":
            return tokens.new_zeros(1, 1, tokens.shape[-1])
        if self.positions == "batch":
            rows = torch.arange(len(tokens), device=tokens.device)
            return sinusoid(rows, tokens.shape[-1])[:, None]
        return sinusoid((valid.cumsum(1) - 1).clamp(min=0), tokens.shape[-1])


class GatedFeedForward(nn.Module):
    """`W2 (SiLU(W1 z) * W3 z)` without biases, on every vector by itself.

    Args:
        width: Of a vector.
        inner_dim: Between the layers.
    """

    def __init__(self, width: int, inner_dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner_dim, bias=False)
        self.expand = nn.Linear(width, inner_dim, bias=False)
        self.contract = nn.Linear(inner_dim, width, bias=False)

    def forward(self, z: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """(..., width) to (..., width)."""
        return self.contract(F.silu(self.gate(z)) * self.expand(z))


def gated_inner_dim(width: int, multiple_of: int = 256) -> int:
    """Inner width of LLaMA's feed-forward layers: two thirds of four widths, rounded up."""
    return multiple_of * math.ceil(int(2 * (4 * width) / 3) / multiple_of)


def sinusoid(positions: Int[Tensor, "*place"], width: int) -> Float[Tensor, "*place width"]:
    """Sines at even features and cosines at odd ones, of wave lengths from 2 pi to 20,000 pi."""
    pairs = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None] * torch.exp(pairs * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., :width]


def _mask(valid: Bool[Tensor, "batch token"]) -> Bool[Tensor, "batch 1 1 token"] | None:
    return None if bool(valid.all()) else rearrange(valid, "batch token -> batch 1 1 token")
