"""A bottleneck before each attention of a frozen trunk (ActionLLM, Eq. 15; sheet section 2.7)."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class ActionTuning(nn.Module):
    """`z + W_D Dropout(W_A z + b_A) + b_D`, `W_D` in groups: the identity before it has learned.

    Each group of hidden units feeds its own stretch of the features.

    Args:
        width: Of a vector, a multiple of `groups`.
        hidden_dim: Units of the bottleneck, a multiple of `groups`.
        groups: Stretches that share no hidden unit.
        dropout: Probability of dropping a hidden unit in training.
        unused_parameters: Carry the second bottleneck and the router that the released code has
            and does not use; they count, and no gradient reaches them.
    """

    def __init__(
        self,
        width: int,
        hidden_dim: int = 4,
        groups: int = 2,
        dropout: float = 0.1,
        unused_parameters: bool = False,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.down = nn.Linear(width, hidden_dim)
        self.up = nn.Parameter(torch.zeros(width, hidden_dim // groups))
        self.up_bias = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        if unused_parameters:
            self.unused_up = nn.Parameter(torch.zeros(width, hidden_dim // groups))
            self.unused_up_bias = nn.Parameter(torch.zeros(width))
            self.unused_router = nn.Linear(width, 2)

    def forward(self, z: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Add what the bottleneck says; computed in the type of `z`."""
        down = self.down
        hidden = self.dropout(F.linear(z, down.weight.to(z.dtype), down.bias.to(z.dtype)))
        grouped = rearrange(
            hidden, "batch token (group unit) -> group (batch token) unit", group=self.groups
        )
        up = rearrange(
            self.up.to(z.dtype), "(group part) unit -> group unit part", group=self.groups
        )
        raised = rearrange(
            grouped @ up, "group (batch token) part -> batch token (group part)", batch=len(z)
        )
        return z + raised + self.up_bias.to(z.dtype)
