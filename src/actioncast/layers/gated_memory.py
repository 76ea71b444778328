"""A memory of fixed size that forgets by its gates, in every form that is needed.

For each head, with keys k, values v and gates G in [0, 1] that act on the key axis (Eq. 6 of CLAM;
sheet section 6):

    S_t = G_t * S_(t-1) + k_t^T v_t,    o_t = q S_t

Gates come as logarithms, `log_gate <= 0`. All forms give the same numbers: step by step
(`memory_step`), the last state alone (`final_state`), and what queries read after every step, the
same ones (`read_all`) or others at each (`read_each`). No form divides by a product of gates or
raises e to a positive power, so none overflows whatever the gates, down to those that forget
everything. The state is float32 whatever surrounds it.

Reading every step on a CPU works on chunks of steps: within a chunk keys are decayed for each pair
of steps, and what came before the chunk is one state. The gradient computes all but those states
again. On GPUs a Triton kernel keeps the state on chip (`gated_memory_triton.py`).
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers.gated_memory_chunks import ReadChunks
from actioncast.layers.ssm import real_steps

Form = Literal["auto", "torch", "triton"]
"""How every step is read: as fits the device, or one way whatever the device."""

CHUNK = 16
"""Steps whose pairs are computed one by one. More cost more pairs, fewer cost more states."""


@dataclass(frozen=True, slots=True)
class MemoryRead:
    """What was read, and the state after the last step."""

    o: Float[Tensor, "batch time head query value"]
    last: Float[Tensor, "batch head key value"]


def memory_step(
    log_gate: Float[Tensor, "batch head key"],
    k: Float[Tensor, "batch head key"],
    v: Float[Tensor, "batch head value"],
    state: Float[Tensor, "batch head key value"],
) -> Float[Tensor, "batch head key value"]:
    """The state after one step; the old one is kept. It stays float32 (or float64)."""
    gate, k, v = (t.to(state.dtype) for t in (log_gate.to(state.dtype).exp(), k, v))
    return gate[..., None] * state + k[..., None] * v[..., None, :]


def final_state(
    log_gate: Float[Tensor, "batch time head key"],
    k: Float[Tensor, "batch time head key"],
    v: Float[Tensor, "batch time head value"],
    *,
    first: Float[Tensor, "batch head key value"] | None = None,
    valid: Bool[Tensor, "batch time"] | None = None,
    form: Form = "auto",
) -> Float[Tensor, "batch head key value"]:
    """The state after the last step, one product with what the later gates leave of each step.

    Args:
        log_gate: Logarithms of the gates, at most 0.
        k: Keys.
        v: Values.
        first: The state before the first step; absent, zeros.
        valid: False where a step is padding: it leaves the state as it is.
        form: The product is the fastest everywhere, so `auto` means it; `triton` is the kernel.

    Returns:
        The state in float32 (float64 from float64).
    """
    if form == "triton":
        nothing_asked = k.new_empty(k.shape[0], k.shape[2], 0, k.shape[3])
        return _by_kernel(nothing_asked, log_gate, k, v, first, valid)[1]
    log_gate, k, v, first = _prepared(log_gate, k, v, first, valid)
    with torch.autocast(v.device.type, enabled=False):
        # Gates after each step: its own acts on what was there before. Doubling spans add them
        # several times faster than a running sum along an axis that is not the last.
        left, span = F.pad(log_gate[:, 1:], (0, 0, 0, 0, 0, min(k.shape[1], 1))), 1
        while span < k.shape[1]:
            left = left + F.pad(left[:, span:], (0, 0, 0, 0, 0, span))
            span *= 2
        state = rearrange(k * left.exp(), "b t h k -> b h k t") @ v.transpose(1, 2)
        if first is not None:
            state = state + log_gate.sum(1).exp()[..., None] * first
    return state


def read_all(
    queries: Float[Tensor, "head query key"] | Float[Tensor, "batch head query key"],
    log_gate: Float[Tensor, "batch time head key"],
    k: Float[Tensor, "batch time head key"],
    v: Float[Tensor, "batch time head value"],
    *,
    first: Float[Tensor, "batch head key value"] | None = None,
    valid: Bool[Tensor, "batch time"] | None = None,
    chunk: int = CHUNK,
    form: Form = "auto",
) -> MemoryRead:
    """What the same queries read after every step.

    Args:
        queries: Shared by all samples, or each sample's own.
        log_gate: Logarithms of the gates, at most 0.
        k: Keys.
        v: Values.
        first: The state before the first step; absent, zeros.
        valid: False where a step is padding: it leaves the state as it is, and its output is 0.
        chunk: Steps of a chunk; changes time and memory, no number.
        form: `auto` takes the Triton kernel on GPUs where Triton is installed, else PyTorch.

    Returns:
        Outputs in the type of `v`, head before time in memory, and the last state in float32
        (float64 from float64).
    """
    if queries.ndim == 3:
        queries = queries.expand(len(k), *queries.shape)
    return _read(queries, log_gate, k, v, first, valid, chunk, form)


def read_each(
    queries: Float[Tensor, "batch time head query key"],
    log_gate: Float[Tensor, "batch time head key"],
    k: Float[Tensor, "batch time head key"],
    v: Float[Tensor, "batch time head value"],
    *,
    first: Float[Tensor, "batch head key value"] | None = None,
    valid: Bool[Tensor, "batch time"] | None = None,
    chunk: int = CHUNK,
    form: Form = "auto",
) -> MemoryRead:
    """What each step's own queries read after it; everything else as in `read_all`."""
    queries = real_steps(queries, valid)
    return _read(queries, log_gate, k, v, first, valid, chunk, form)


def triton_usable(tensor: Tensor) -> bool:
    """Whether the Triton kernel is the way to read memories on this tensor's device."""
    return tensor.is_cuda and tensor.dtype != torch.float64 and _triton_installed()


@cache
def _triton_installed() -> bool:
    return find_spec("triton") is not None


def _read(
    queries: Tensor,
    log_gate: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor | None,
    valid: Tensor | None,
    chunk: int,
    form: Form,
) -> MemoryRead:
    """Queries are `[batch, head, query, key]` or `[batch, time, head, query, key]`."""
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1 step, got {chunk}.")
    dtype, each = v.dtype, queries.ndim == 5
    if form == "triton" or (form == "auto" and triton_usable(v)):
        o, last = _by_kernel(queries, log_gate, k, v, first, valid)
        return MemoryRead(real_steps(o, valid), last)
    log_gate, k, v, first = _prepared(log_gate, k, v, first, valid)
    if first is None:
        first = v.new_zeros(len(k), *k.shape[2:], v.shape[-1])
    queries = queries.to(v.dtype)
    heads_first = (t.transpose(1, 2) for t in (log_gate, k, v))
    read: Any = ReadChunks.apply
    with torch.autocast(v.device.type, enabled=False):
        o, last = read(queries.transpose(1, 2) if each else queries, *heads_first, first, chunk)
    return MemoryRead(real_steps(o.transpose(1, 2), valid).to(dtype), last)


def _prepared(
    log_gate: Tensor, k: Tensor, v: Tensor, first: Tensor | None, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """In float32 or float64; at padding a gate of 1 and nothing to write."""
    exact = torch.float64 if v.dtype == torch.float64 else torch.float32
    log_gate, k, v = (real_steps(t.to(exact), valid) for t in (log_gate, k, v))
    return log_gate, k, v, None if first is None else first.to(exact)


def _by_kernel(
    queries: Tensor,
    log_gate: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor | None,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Inputs stay in their own types: the kernel turns what it loads into float32."""
    if not _triton_installed():
        raise ValueError(
            "form must be auto or torch where Triton is not installed, got triton; install it "
            "with `pip install triton`."
        )
    # Few machines have Triton.
    from actioncast.layers.gated_memory_triton import read_memory  # noqa: PLC0415

    log_gate, k, v = (real_steps(t, valid) for t in (log_gate, k, v))
    return read_memory(queries, log_gate, k, v, first)
