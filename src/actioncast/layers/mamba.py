"""The Mamba-1 block, under the public names, so that public weights load.

Gu & Dao, Mamba (https://arxiv.org/abs/2312.00752, Fig. 3). One projection makes input and gate, a
causal depth-wise convolution and SiLU precede the selective scan, the gate follows it, one
projection leads back. Neither norm nor residual: they belong to who stacks blocks.

Sequence form and step form give the same numbers; the state is a value that goes in and comes out.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.ssm import (
    Discretisation,
    real_steps,
    scan_flops,
    selective_scan,
    selective_step,
)


@dataclass(frozen=True, slots=True)
class MambaState:
    """What a block remembers of the past."""

    inputs: Float[Tensor, "batch tap channel"]
    """The last inputs of the convolution, one fewer than it has taps."""
    state: Float[Tensor, "batch channel state"]
    """Of the scan, float32."""


def initial_a_log(channels: int, state_dim: int) -> nn.Parameter:
    """log(1), ..., log(N) for every channel: the real part of S4D, A = -exp of it.

    Never decayed: a decayed A would drift towards -1.
    """
    rows = torch.arange(1, state_dim + 1, dtype=torch.float32).log().repeat(channels, 1)
    return not_decayed(nn.Parameter(rows))


def not_decayed(parameter: nn.Parameter) -> nn.Parameter:
    """Mark a parameter that no weight decay shall touch; the trainer reads the mark."""
    parameter._no_weight_decay = True  # type: ignore[attr-defined]
    return parameter


@final
class MambaBlock(nn.Module):
    """A gated selective scan: `[batch, time, hidden]` in and out.

    Args:
        hidden_dim: Width of input and output.
        state_dim: Entries of a channel's state (N).
        expand: Channels of the scan over `hidden_dim`.
        taps: Of the convolution.
        step_rank: Of the projection to steps; 0 is a sixteenth of `hidden_dim`, rounded up.
        discretisation: How steps are taken; public weights are for Euler.
        own_a: Whether the block has its `A_log`; else every call is given one.
    """

    def __init__(
        self,
        hidden_dim: int,
        state_dim: int = 16,
        expand: int = 2,
        taps: int = 4,
        step_rank: int = 0,
        discretisation: Discretisation = Discretisation.EULER,
        own_a: bool = True,
    ) -> None:
        super().__init__()
        channels = expand * hidden_dim
        self.rank = step_rank or math.ceil(hidden_dim / 16)
        self.state_dim = state_dim
        self.discretisation = discretisation
        self.in_proj = nn.Linear(hidden_dim, 2 * channels, bias=False)
        self.conv1d = nn.Conv1d(channels, channels, taps, groups=channels)
        self.x_proj = nn.Linear(channels, self.rank + 2 * state_dim, bias=False)
        self.dt_proj = nn.Linear(self.rank, channels)
        self.out_proj = nn.Linear(channels, hidden_dim, bias=False)
        self.A_log = initial_a_log(channels, state_dim) if own_a else None
        self.D = not_decayed(nn.Parameter(torch.ones(channels)))
        initialise_steps(self.dt_proj)

    def forward(
        self,
        x: Float[Tensor, "batch time hidden"],
        valid: Bool[Tensor, "batch time"] | None = None,
        a_log: Float[Tensor, "channel state"] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """Answer every step from the steps up to it.

        Args:
            x: Input.
            valid: False where a step is padding: it reaches no other step, and its output is 0.
            a_log: A shared `A_log`, where the block has none.
        """
        out, _ = self.run(x, valid, a_log)
        return out

    def run(
        self,
        x: Float[Tensor, "batch time hidden"],
        valid: Bool[Tensor, "batch time"] | None = None,
        a_log: Float[Tensor, "channel state"] | None = None,
        before: MambaState | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], MambaState]:
        """`forward` from a state on, with the state after the last step.

        Padding must follow the real steps of a row: the convolution counts places.
        """
        inputs, gate = self.in_proj(x).chunk(2, -1)
        inputs = real_steps(inputs, valid)
        earlier = (before or self.initial_state(len(x), x.device)).inputs
        padded = torch.cat([earlier.to(inputs.dtype), inputs], 1)
        inputs = causal_conv(padded, self.conv1d)
        steps, b, c = self._matrices(inputs)
        scanned = selective_scan(
            inputs,
            steps,
            self._a(a_log),
            b,
            c,
            self.D,
            gate,
            self.dt_proj.bias,
            softplus=True,
            discretisation=self.discretisation,
            first=None if before is None else before.state,
            valid=valid,
        )
        return self.out_proj(scanned.y), MambaState(self._last_inputs(padded, valid), scanned.last)

    def step(
        self,
        x: Float[Tensor, "batch hidden"],
        before: MambaState,
        a_log: Float[Tensor, "channel state"] | None = None,
    ) -> tuple[Float[Tensor, "batch hidden"], MambaState]:
        """One step; `run` over many equals as many of these."""
        inputs, gate = self.in_proj(x).chunk(2, -1)
        window = torch.cat([before.inputs.to(inputs.dtype), inputs[:, None]], 1)
        taps = rearrange(self.conv1d.weight, "channel 1 tap -> tap channel")
        assert self.conv1d.bias is not None
        inputs = F.silu((window * taps).sum(1) + self.conv1d.bias)
        steps, b, c = self._matrices(inputs)
        y, state = selective_step(
            at_least_float32(inputs),
            F.softplus(at_least_float32(steps) + at_least_float32(self.dt_proj.bias)),
            self._a(a_log),
            at_least_float32(b),
            at_least_float32(c),
            before.state,
            discretisation=self.discretisation,
        )
        y = (y + self.D * inputs) * F.silu(gate)
        return self.out_proj(y.to(x.dtype)), MambaState(window[:, 1:], state)

    def initial_state(
        self, batch_size: int, device: torch.device | str | None = None
    ) -> MambaState:
        """Nothing seen yet."""
        channels, taps = len(self.D), self.conv1d.kernel_size[0]
        return MambaState(
            torch.zeros(batch_size, taps - 1, channels, device=device),
            torch.zeros(batch_size, channels, self.state_dim, device=device),
        )

    def own_flops(self, inputs: tuple[Tensor, ...], outputs: Tensor) -> int:  # noqa: ARG002
        """Operations of a pass besides those of its projections (`cost.CountsItself`)."""
        tokens, channels = inputs[0].shape[0] * inputs[0].shape[1], len(self.D)
        steps = 2 * tokens * channels * self.rank
        taps = 2 * tokens * channels * self.conv1d.kernel_size[0]
        return steps + taps + scan_flops(tokens, channels, self.state_dim)

    def _a(self, a_log: Tensor | None) -> Float[Tensor, "channel state"]:
        own = self.A_log if a_log is None else a_log
        assert own is not None, "a block without its own A_log must be given one"
        return -at_least_float32(own).exp()

    def _matrices(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Steps before bias and softplus, B and C."""
        rank, b, c = self.x_proj(inputs).split([self.rank, self.state_dim, self.state_dim], -1)
        return F.linear(rank, self.dt_proj.weight), b, c

    def _last_inputs(self, padded: Tensor, valid: Tensor | None) -> Tensor:
        kept = self.conv1d.kernel_size[0] - 1
        if valid is None:
            return padded[:, padded.shape[1] - kept :]
        # Of each row those before its padding; the first `kept` of `padded` came before the row.
        ends = valid.sum(1)[:, None] + torch.arange(kept, device=padded.device)
        return padded.gather(1, ends[..., None].expand(-1, -1, padded.shape[2]))


def at_least_float32(t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Half precision as float32; float64 stays."""
    return t if t.dtype == torch.float64 else t.float()


def causal_conv(
    padded: Float[Tensor, "batch more channel"], conv: nn.Conv1d
) -> Float[Tensor, "batch time channel"]:
    """Depth-wise convolution over time and SiLU; `padded` begins with the steps before the first.

    One multiplication a tap: torch's depth-wise convolution wants channels first.
    """
    taps = conv.kernel_size[0]
    steps = padded.shape[1] - taps + 1
    weights = conv.weight[:, 0].unbind(1)
    out = padded[:, :steps] * weights[0]
    for tap, weight in enumerate(weights[1:], start=1):
        out = torch.addcmul(out, padded[:, tap : tap + steps], weight)
    assert conv.bias is not None
    return F.silu(out + conv.bias)


def initialise_steps(projection: nn.Linear, shortest: float = 1e-3, longest: float = 0.1) -> None:
    """Make the first steps log-uniform between two lengths, as Mamba does.

    The bias is what softplus takes to such a step; it must not be set anew by who builds a model.
    """
    rank, channels = projection.in_features, projection.out_features
    nn.init.uniform_(projection.weight, -(rank**-0.5), rank**-0.5)
    low, high = math.log(shortest), math.log(longest)
    steps = torch.empty(channels).uniform_(low, high).exp().clamp(min=1e-4)
    with torch.no_grad():
        projection.bias.copy_(steps + torch.log(-torch.expm1(-steps)))
    not_decayed(projection.bias)
