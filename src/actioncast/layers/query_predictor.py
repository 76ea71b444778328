"""Non-autoregressive predictor: learned queries, one a moment, read memory and recent tokens.

Post-norm transformer decoder layers (sheet of CLAM, section 2.5). A single query has nobody to
attend to: two linear layers stand in the place of its self-attention.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.cross_memory import Positions
from actioncast.layers.query_attention import QueryAttention


@final
class SingleQueryMix(nn.Module):
    """What one query does where several attend to one another."""

    def __init__(self, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden_dim, hidden_dim)
        self.contract = nn.Linear(hidden_dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Linear, ReLU, linear."""
        return self.contract(self.dropout(F.relu(self.expand(x))))


@final
class PredictorLayer(nn.Module):
    """One decoder layer."""

    def __init__(
        self, hidden_dim: int, inner_dim: int, num_heads: int, dropout: float, *, single: bool
    ) -> None:
        super().__init__()
        self.mix: nn.Module = (
            SingleQueryMix(hidden_dim, dropout)
            if single
            else QueryAttention(hidden_dim, num_heads, dropout)
        )
        self.mix_norm = nn.LayerNorm(hidden_dim)
        self.attention = QueryAttention(hidden_dim, num_heads, dropout)
        self.attention_norm = nn.LayerNorm(hidden_dim)
        self.expand = nn.Linear(hidden_dim, inner_dim)
        self.contract = nn.Linear(inner_dim, hidden_dim)
        self.out_norm = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)

    def ask(
        self,
        stream: Float[Tensor, "*batch query hidden"],
        positions: Float[Tensor, "query hidden"],
        way: Positions,
    ) -> tuple[Float[Tensor, "*batch query hidden"], Float[Tensor, "*batch query hidden"]]:
        """The stream that goes on, and what asks the tokens."""
        placed = stream + positions
        if way == "accumulated":
            stream = placed
        if isinstance(self.mix, SingleQueryMix):
            mixed = self.mix(placed)
        else:
            mixed = self.mix(placed, placed, stream)
        stream = self.mix_norm(stream + self.dropout(mixed))
        asks = stream + positions
        return (asks if way == "accumulated" else stream), asks

    def answer(
        self,
        stream: Float[Tensor, "*batch query hidden"],
        found: Float[Tensor, "*rows query hidden"],
    ) -> Float[Tensor, "*rows query hidden"]:
        """The stream after what the tokens answered."""
        stream = self.attention_norm(stream + self.dropout(found))
        inner = self.contract(self.dropout(F.relu(self.expand(stream))))
        return self.out_norm(stream + self.dropout(inner))


@dataclass(frozen=True, slots=True)
class FirstAsked:
    """What the queries of the first layer look for."""

    stream: Float[Tensor, "batch query hidden"]
    """The queries themselves, to which the answer is added."""
    through: Float[Tensor, "batch head query hidden"]
    """What tokens are compared with (`QueryAttention.ask`)."""


@final
class QueryPredictor(nn.Module):
    """All queries are answered at once.

    Args:
        hidden_dim: Width of tokens and queries.
        num_queries: Moments, or places, to name (N).
        num_layers: Decoder layers.
        inner_dim: Width within their feed-forward networks.
        num_heads: Of both attentions.
        dropout: In training.
        positions: Where positions of queries and tokens enter (`cross_memory.Positions`).
    """

    def __init__(
        self,
        hidden_dim: int,
        num_queries: int,
        num_layers: int,
        inner_dim: int,
        num_heads: int,
        dropout: float,
        positions: Positions = "separate",
    ) -> None:
        super().__init__()
        self.positions = positions
        single = num_queries == 1
        self.layers = nn.ModuleList(
            PredictorLayer(hidden_dim, inner_dim, num_heads, dropout, single=single)
            for _ in range(num_layers)
        )
        self.queries = nn.Parameter(torch.empty(num_queries, hidden_dim))

    def forward(
        self,
        tokens: Float[Tensor, "row token hidden"],
        token_positions: Float[Tensor, "token hidden"] | None = None,
        valid: Bool[Tensor, "row token"] | None = None,
        asked: "FirstAsked | None" = None,
    ) -> Float[Tensor, "row query hidden"]:
        """One vector for every query.

        Args:
            tokens: Of memory, then the recent ones.
            token_positions: Says which of the two a token is.
            valid: False where a token is missing; each row has one.
            asked: What `first_asked` gave; absent, it is computed.
        """
        asked = self.first_asked(len(tokens)) if asked is None else asked
        stream = asked.stream
        keys = values = tokens
        for i, layer in enumerate(self._layers()):
            if token_positions is not None:
                accumulates = self.positions == "accumulated"
                keys = (keys if accumulates else tokens) + token_positions
                values = keys if accumulates else tokens
            if i:
                going, asks = layer.ask(stream, self.queries, self.positions)
                found = layer.attention(asks, keys, values, valid)
            else:
                going = asked.stream
                found = layer.attention.gather(asked.through, keys, values, valid)
            stream = layer.answer(going, found)
        return stream

    def first_asked(self, batch_size: int) -> "FirstAsked":
        """What the first layer asks: it depends on no input."""
        first = self._layers()[0]
        stream = torch.zeros_like(self.queries).expand(batch_size, -1, -1)
        going, asks = first.ask(stream, self.queries, self.positions)
        return FirstAsked(stream=going, through=first.attention.ask(asks))

    def _layers(self) -> list[PredictorLayer]:
        return list(self.layers)  # type: ignore[arg-type]
