"""Attention of few queries, where positions may enter keys and not values."""

from typing import final

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


@final
class QueryAttention(nn.Module):
    """Multi-head attention with biases, computed in the cheaper of two orders.

    With fewer queries than half the tokens, no token is projected: a query is taken through the
    key matrix instead (`q . W k = W^T q . k`; the bias of the keys moves all scores of a query
    alike and drops out), and what it gathered through the value matrix afterwards. Both orders
    give the same answer.

    Args:
        hidden_dim: Width of all vectors, a multiple of `num_heads`.
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
        queries: Float[Tensor, "*batch query hidden"],
        keys: Float[Tensor, "*batch token hidden"],
        values: Float[Tensor, "*batch token hidden"],
        valid: Bool[Tensor, "*batch token"] | None = None,
    ) -> Float[Tensor, "*batch query hidden"]:
        """Each query gathers from the tokens that are valid; at least one must be."""
        if 2 * queries.shape[-2] < keys.shape[-2]:
            return self.gather(self.ask(queries), keys, values, valid)
        return self._projected(queries, keys, values, valid)

    def ask(
        self, queries: Float[Tensor, "*batch query hidden"]
    ) -> Float[Tensor, "*batch head query hidden"]:
        """Queries as tokens are compared with them: through the key matrix, and scaled."""
        weight, bias = self._parts()
        asked = self._split(F.linear(queries, weight[0], bias[0]))
        keys = rearrange(weight[1], "(head width) hidden -> head width hidden", head=self.num_heads)
        return (asked @ keys) * asked.shape[-1] ** -0.5

    def gather(
        self,
        asked: Float[Tensor, "*queries head query hidden"],
        keys: Float[Tensor, "*batch token hidden"],
        values: Float[Tensor, "*batch token hidden"],
        valid: Bool[Tensor, "*batch token"] | None = None,
    ) -> Float[Tensor, "*batch query hidden"]:
        """What queries that went through `ask` find among tokens."""
        weight, bias = self._parts()
        scores = asked @ keys[..., None, :, :].transpose(-1, -2)
        if valid is not None:
            scores = scores.masked_fill(~valid[..., None, None, :], float("-inf"))
        attention = F.dropout(scores.softmax(-1), self.dropout, self.training)
        found = attention @ values[..., None, :, :]
        matrix = rearrange(
            weight[2], "(head width) hidden -> head hidden width", head=self.num_heads
        )
        found = found @ matrix
        # Weights sum to 1 but for dropout.
        shift = rearrange(bias[2], "(head width) -> head 1 width", head=self.num_heads)
        found = found + attention.sum(-1, keepdim=True) * shift
        return self.out(rearrange(found, "... head query width -> ... query (head width)"))

    def _projected(
        self, queries: Tensor, keys: Tensor, values: Tensor, valid: Tensor | None
    ) -> Tensor:
        weight, bias = self._parts()
        found = F.scaled_dot_product_attention(
            self._split(F.linear(queries, weight[0], bias[0])),
            self._split(F.linear(keys, weight[1], bias[1])),
            self._split(F.linear(values, weight[2], bias[2])),
            attn_mask=None if valid is None else valid[..., None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(rearrange(found, "... head query width -> ... query (head width)"))

    def _parts(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Matrices and biases of queries, keys and values."""
        return self.project.weight.chunk(3), self.project.bias.chunk(3)

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(x, "... token (head width) -> ... head token width", head=self.num_heads)
