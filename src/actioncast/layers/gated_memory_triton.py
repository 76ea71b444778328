"""The gated memory as a pair of Triton kernels, after Algorithms 1 and 2 of CLAM's supplement.

A program owns a block of values of one head of one sample and walks through all steps with its
part of the state on chip. Neither `k^T v` nor the states of all steps are ever written: the forward
keeps the state before every `CHECKPOINT` steps, and the backward computes those between again.

Gates have no value axis, so their gradients and those of keys and queries are sums over value
blocks. Each block writes its own part and the parts are added afterwards, which gives the same
numbers every time. The gates' gradient needs no state of the step before: with D_t the product of
state and gradient after step t, summed over values, that of log G_t is D_t - k_t dk_t, and D_t is
that of log G_(t+1) and what is read at t. The sum starts afresh from a state at each checkpoint.

Import this module only where Triton is installed.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHECKPOINT = 32
"""Steps between two states that the forward keeps."""
VALUES = 32
"""Values of one program: its state must fit in registers."""
LEAST = 16
"""The smallest side of a matrix that a tensor core multiplies."""


def read_memory(
    queries: Float[Tensor, "batch head query key"] | Float[Tensor, "batch time head query key"],
    log_gate: Float[Tensor, "batch time head key"],
    k: Float[Tensor, "batch time head key"],
    v: Float[Tensor, "batch time head value"],
    first: Float[Tensor, "batch head key value"] | None,
) -> tuple[Float[Tensor, "batch time head query value"], Float[Tensor, "batch head key value"]]:
    """What fixed or changing queries read after every step, and the last state, with gradients.

    With no queries at all only the state is computed. Everything is computed in float32; outputs
    come in the type of `v`, the state in float32.
    """
    if first is None:
        first = v.new_zeros(len(k), *k.shape[2:], v.shape[-1], dtype=torch.float32)
    read: Any = _ReadMemory.apply
    o, last = read(queries, log_gate, k, v, first.float())
    return o, last


class _ReadMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        queries, log_gate, k, v, first = (t.contiguous() for t in inputs)
        batch, steps, heads, values = v.shape
        o = v.new_empty(batch, steps, heads, queries.shape[-2], values)
        last = torch.empty_like(first)
        wanted = any(ctx.needs_input_grad)
        kept = triton.cdiv(steps, CHECKPOINT) if wanted else 0
        borders = first.new_empty(batch * heads, kept, *first.shape[2:])
        sizes, grid = _sizes(queries, v)
        with _device(v):
            _forward[grid](
                *(queries, log_gate, k, v, first, o, last, borders), **sizes, KEEP=wanted
            )
        if wanted:
            ctx.save_for_backward(queries, log_gate, k, v, first, borders)
        return o, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_o: Tensor, grad_last: Tensor) -> tuple[Tensor, ...]:
        queries, log_gate, k, v, first, borders = ctx.saved_tensors
        sizes, grid = _sizes(queries, v)
        blocks = grid[1]
        of_queries, of_gates, of_k = (
            first.new_empty(blocks, *t.shape) for t in (queries, log_gate, k)
        )
        of_v, of_first = torch.empty_like(v), torch.empty_like(first)
        with _device(v):
            _backward[grid](
                *(queries, log_gate, k, v, borders),
                *(grad_o.contiguous(), grad_last.contiguous()),
                *(of_queries, of_gates, of_k, of_v, of_first),
                **sizes,
                batch=v.shape[0],
            )
        whole = (
            part.sum(0).to(t.dtype)
            for part, t in ((of_queries, queries), (of_gates, log_gate), (of_k, k))
        )
        return *whole, of_v, of_first


def _sizes(queries: Tensor, v: Tensor) -> tuple[dict[str, Any], tuple[int, int]]:
    """Sizes that both kernels take, and their programs."""
    batch, steps, heads, values = v.shape
    asked, keys = queries.shape[-2:]
    block = min(VALUES, _block(values))
    sizes = {
        "steps": steps,
        "heads": heads,
        "keys": keys,
        "values": values,
        "asked": asked,
        "EACH": queries.ndim == 5,
        "READ": asked > 0,
        "STRIDE": CHECKPOINT,
        "KEYS": _block(keys),
        "VALUES": block,
        "ASKED": _block(asked),
    }
    return sizes, (batch * heads, triton.cdiv(values, block))


def _device(tensor: Tensor) -> AbstractContextManager[object]:
    """Kernels start on the device that is current, whatever they are given."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _block(size: int) -> int:
    return max(LEAST, triton.next_power_of_2(size))


@triton.jit  # type: ignore[misc,untyped-decorator,unused-ignore]
def _forward(  # type: ignore[no-untyped-def]
    queries,
    log_gate,
    k,
    v,
    first,
    o,
    last,
    borders,
    steps,
    heads,
    keys,
    values,
    asked,
    EACH: tl.constexpr,  # noqa: N803
    READ: tl.constexpr,  # noqa: N803
    KEEP: tl.constexpr,  # noqa: N803
    STRIDE: tl.constexpr,  # noqa: N803
    KEYS: tl.constexpr,  # noqa: N803
    VALUES: tl.constexpr,  # noqa: N803
    ASKED: tl.constexpr,  # noqa: N803
) -> None:
    """Algorithm 1, with the read-out: S = G * S + k^T v on chip, o = q S."""
    row = tl.program_id(0).to(tl.int64)
    sample, head = row // heads, row % heads
    key = tl.arange(0, KEYS)
    value = tl.program_id(1) * VALUES + tl.arange(0, VALUES)
    query = tl.arange(0, ASKED)
    is_key, is_value, is_query = key < keys, value < values, query < asked
    in_state = key[:, None] * values + value[None, :]
    is_state = is_key[:, None] & is_value[None, :]
    in_asked = query[:, None] * keys + key[None, :]
    is_asked = is_query[:, None] & is_key[None, :]
    in_read = query[:, None] * values + value[None, :]
    is_read = is_query[:, None] & is_value[None, :]
    state = tl.load(first + row * keys * values + in_state, mask=is_state, other=0.0)
    q = tl.zeros([ASKED, KEYS], dtype=tl.float32)
    if READ and not EACH:
        q = tl.load(queries + row * asked * keys + in_asked, mask=is_asked, other=0.0)
        q = q.to(tl.float32)
    for t in range(steps):
        if KEEP:  # noqa: SIM102
            if t % STRIDE == 0:
                border = row * tl.cdiv(steps, STRIDE) + t // STRIDE
                tl.store(borders + border * keys * values + in_state, state, mask=is_state)
        at = (sample * steps + t) * heads + head
        gate = tl.exp(tl.load(log_gate + at * keys + key, mask=is_key, other=0.0).to(tl.float32))
        k_t = tl.load(k + at * keys + key, mask=is_key, other=0.0).to(tl.float32)
        v_t = tl.load(v + at * values + value, mask=is_value, other=0.0).to(tl.float32)
        state = gate[:, None] * state + k_t[:, None] * v_t[None, :]
        if READ:
            if EACH:
                q = tl.load(queries + at * asked * keys + in_asked, mask=is_asked, other=0.0)
                q = q.to(tl.float32)
            read = tl.dot(q, state, input_precision="tf32x3")
            where = o + at * asked * values + in_read
            tl.store(where, read.to(o.dtype.element_ty), mask=is_read)
    tl.store(last + row * keys * values + in_state, state, mask=is_state)


@triton.jit  # type: ignore[misc,untyped-decorator,unused-ignore]
def _backward(  # type: ignore[no-untyped-def]  # noqa: PLR0915
    queries,
    log_gate,
    k,
    v,
    borders,
    grad_o,
    grad_last,
    of_queries,
    of_gates,
    of_k,
    of_v,
    of_first,
    steps,
    heads,
    keys,
    values,
    asked,
    batch,
    EACH: tl.constexpr,  # noqa: N803
    READ: tl.constexpr,  # noqa: N803
    STRIDE: tl.constexpr,  # noqa: N803
    KEYS: tl.constexpr,  # noqa: N803
    VALUES: tl.constexpr,  # noqa: N803
    ASKED: tl.constexpr,  # noqa: N803
) -> None:
    """Algorithm 2, checkpoint by checkpoint from the end, with the gradient of the read-out."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1).to(tl.int64)
    sample, head = row // heads, row % heads
    key = tl.arange(0, KEYS)
    value = block * VALUES + tl.arange(0, VALUES)
    query = tl.arange(0, ASKED)
    step = tl.arange(0, STRIDE)
    is_key, is_value, is_query = key < keys, value < values, query < asked
    in_state = key[:, None] * values + value[None, :]
    is_state = is_key[:, None] & is_value[None, :]
    in_asked = query[:, None] * keys + key[None, :]
    is_asked = is_query[:, None] & is_key[None, :]
    in_read = query[:, None] * values + value[None, :]
    is_read = is_query[:, None] & is_value[None, :]
    # Where this block's parts of the sums over values begin.
    tokens = (block * batch + sample) * steps * heads + head
    grad = tl.load(grad_last + row * keys * values + in_state, mask=is_state, other=0.0)
    q = tl.zeros([ASKED, KEYS], dtype=tl.float32)
    of_q = tl.zeros([ASKED, KEYS], dtype=tl.float32)
    if READ and not EACH:
        q = tl.load(queries + row * asked * keys + in_asked, mask=is_asked, other=0.0)
        q = q.to(tl.float32)
    kept = tl.cdiv(steps, STRIDE)
    for back in range(kept):
        begin = (kept - 1 - back) * STRIDE
        many = tl.minimum(STRIDE, steps - begin)
        border = row * kept + kept - 1 - back
        state = tl.load(borders + border * keys * values + in_state, mask=is_state, other=0.0)
        # What is read at each step, summed over queries and values.
        reads = tl.zeros([STRIDE, KEYS], dtype=tl.float32)
        for s in range(many):
            at = (sample * steps + begin + s) * heads + head
            gate = tl.load(log_gate + at * keys + key, mask=is_key, other=0.0).to(tl.float32)
            k_t = tl.load(k + at * keys + key, mask=is_key, other=0.0).to(tl.float32)
            v_t = tl.load(v + at * values + value, mask=is_value, other=0.0).to(tl.float32)
            state = tl.exp(gate)[:, None] * state + k_t[:, None] * v_t[None, :]
            if READ:
                g_t = tl.load(grad_o + at * asked * values + in_read, mask=is_read, other=0.0)
                of_q_t = tl.dot(g_t.to(tl.float32), tl.trans(state), input_precision="tf32x3")
                if EACH:
                    q = tl.load(queries + at * asked * keys + in_asked, mask=is_asked, other=0.0)
                    q = q.to(tl.float32)
                    where = (tokens + (begin + s) * heads) * asked * keys
                    tl.store(of_queries + where + in_asked, of_q_t, mask=is_asked)
                else:
                    of_q += of_q_t
                reads = tl.where(step[:, None] == s, tl.sum(q * of_q_t, 0)[None, :], reads)
        of_gate = tl.sum(grad * state, 1)
        for s_back in range(many):
            s = many - 1 - s_back
            at = (sample * steps + begin + s) * heads + head
            gate = tl.load(log_gate + at * keys + key, mask=is_key, other=0.0).to(tl.float32)
            k_t = tl.load(k + at * keys + key, mask=is_key, other=0.0).to(tl.float32)
            v_t = tl.load(v + at * values + value, mask=is_value, other=0.0).to(tl.float32)
            if READ:
                if EACH:
                    q = tl.load(queries + at * asked * keys + in_asked, mask=is_asked, other=0.0)
                    q = q.to(tl.float32)
                g_t = tl.load(grad_o + at * asked * values + in_read, mask=is_read, other=0.0)
                grad += tl.dot(tl.trans(q), g_t.to(tl.float32), input_precision="tf32x3")
                of_gate += tl.sum(tl.where(step[:, None] == s, reads, 0.0), 0)
            of_k_t = tl.sum(grad * v_t[None, :], 1)
            of_gate -= k_t * of_k_t
            of_v_t = tl.sum(grad * k_t[:, None], 0).to(of_v.dtype.element_ty)
            grad *= tl.exp(gate)[:, None]
            where = (tokens + (begin + s) * heads) * keys + key
            tl.store(of_gates + where, of_gate, mask=is_key)
            tl.store(of_k + where, of_k_t, mask=is_key)
            tl.store(of_v + at * values + value, of_v_t, mask=is_value)
    if READ and not EACH:
        where = (block * batch * heads + row) * asked * keys
        tl.store(of_queries + where + in_asked, of_q, mask=is_asked)
    tl.store(of_first + row * keys * values + in_state, grad, mask=is_state)


__all__ = ["CHECKPOINT", "read_memory"]
