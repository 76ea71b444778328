"""Temporal processors of linear cost: every step is answered from the steps up to it.

All three have one signature. Their state is a value of fixed size, whatever the length of the
stream: tensors by name, each with the batch first.
"""

import math
from collections.abc import Mapping
from typing import Literal, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from actioncast.layers.mamba import MambaBlock, MambaState

ProcessorState = Mapping[str, Float[Tensor, "batch *state"]]


@final
class MambaProcessor(nn.Module):
    """Pre-norm residual Mamba blocks and a norm at the end, as mamba-ssm stacks them.

    `r <- r + Mamba(RMSNorm(r))` for each block, then RMSNorm (sheet of CLAM, section 2.2).
    """

    def __init__(
        self, hidden_dim: int, num_layers: int, state_dim: int, expand: int, taps: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            MambaBlock(hidden_dim, state_dim, expand, taps) for _ in range(num_layers)
        )
        self.norms = nn.ModuleList(nn.RMSNorm(hidden_dim, eps=1e-5) for _ in range(num_layers))
        self.norm = nn.RMSNorm(hidden_dim, eps=1e-5)

    def forward(
        self, x: Float[Tensor, "batch time hidden"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        """Answer every step; padding must follow the real steps of a row."""
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x), valid)
        return self.norm(x)

    def run(
        self,
        x: Float[Tensor, "batch time hidden"],
        state: ProcessorState,
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], ProcessorState]:
        """`forward` from a state on, with the state after the last step."""
        after: dict[str, Tensor] = {}
        for i, (norm, block) in enumerate(zip(self.norms, self.blocks, strict=True)):
            assert isinstance(block, MambaBlock)
            before = MambaState(state[f"inputs {i}"], state[f"scan {i}"])
            if x.shape[1] == 1 and valid is None:
                out, last = block.step(norm(x[:, 0]), before)
                x = x + out[:, None]
            else:
                out, last = block.run(norm(x), valid, before=before)
                x = x + out
            after[f"inputs {i}"], after[f"scan {i}"] = last.inputs, last.state
        return self.norm(x), after

    def initial_state(self, batch_size: int, device: torch.device | str) -> ProcessorState:
        """Nothing seen yet."""
        found: dict[str, Tensor] = {}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, MambaBlock)
            first = block.initial_state(batch_size, device)
            found[f"inputs {i}"], found[f"scan {i}"] = first.inputs, first.state
        return found

    def initialise(self) -> None:
        """As mamba-ssm does: what leads back is scaled down with the number of blocks."""
        for block in self.blocks:
            assert isinstance(block, MambaBlock)
            nn.init.kaiming_uniform_(block.out_proj.weight, a=math.sqrt(5))
            with torch.no_grad():
                block.out_proj.weight /= math.sqrt(len(self.blocks))


@final
class RecurrentProcessor(nn.Module):
    """Layers of PyTorch's GRU or LSTM (Table B.10a)."""

    def __init__(self, kind: Literal["gru", "lstm"], hidden_dim: int, num_layers: int) -> None:
        super().__init__()
        made = nn.GRU if kind == "gru" else nn.LSTM
        self.cells = made(hidden_dim, hidden_dim, num_layers, batch_first=True)
        self.names = ("hidden",) if kind == "gru" else ("hidden", "cell")

    def forward(
        self, x: Float[Tensor, "batch time hidden"], valid: Bool[Tensor, "batch time"] | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        """Answer every step; padding, which follows the real steps of a row, reaches none."""
        out, _ = self.cells(x)
        return out if valid is None else out.masked_fill(~valid[..., None], 0.0)

    def run(
        self,
        x: Float[Tensor, "batch time hidden"],
        state: ProcessorState,
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], ProcessorState]:
        """`forward` from a state on, with the state after the last step; nothing may be padded."""
        assert valid is None, "a recurrent network cannot carry a state over padding"
        before = [
            rearrange(state[name].to(x.dtype), "batch layer hidden -> layer batch hidden")
            for name in self.names
        ]
        # torch's cells want their states in one piece of memory.
        before = [part.contiguous() for part in before]
        given = before[0] if len(before) == 1 else tuple(before)
        out, last = self.cells(x, given)
        parts = (last,) if len(before) == 1 else last
        return out, {
            name: rearrange(part, "layer batch hidden -> batch layer hidden")
            for name, part in zip(self.names, parts, strict=True)
        }

    def initial_state(self, batch_size: int, device: torch.device | str) -> ProcessorState:
        """Nothing seen yet."""
        size = (batch_size, self.cells.num_layers, self.cells.hidden_size)
        return {name: torch.zeros(size, device=device) for name in self.names}


Processor = MambaProcessor | RecurrentProcessor


def require_frames(features: Float[Tensor, "*batch feature"], width: int) -> None:
    """Raise a ValueError where frames are not of a width, or hold what is no number.

    A NaN that a state took in would stay in it for the rest of the stream.
    """
    if features.shape[-1] != width:
        raise ValueError(
            f"a frame must have {width} features, as the model was trained on, got "
            f"{features.shape[-1]}."
        )
    fine = features.isfinite().all(-1)
    if not bool(fine.all()):
        step = int((~fine).reshape(-1).nonzero()[0])
        raise ValueError(
            f"a frame must hold finite numbers, got NaN or infinity in frame {step} of those "
            "given; mend the features, or have a stream skip such frames (bad_frames skip)."
        )
