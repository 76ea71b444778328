"""All steps of a gated memory in PyTorch, chunk by chunk, with a backward pass of its own.

`gated_memory` says what is computed. Inside a chunk decays are products of gates; between chunks
the state is carried.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

STEPS_AT_ONCE = 512
"""Steps of all heads together that are computed at once: as many as caches hold well."""


class ReadChunks(torch.autograd.Function):
    """All steps in PyTorch, `[batch, head, time, ...]`; the gradient keeps borders of chunks alone.

    A row is a head of a sample. `sources` holds each chunk's values and below them the state
    before it, so that one product with `_Pairs.weights` reads both.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """What queries read after every step, and the last state."""
        queries, log_gate, k, v, first, chunk = inputs
        batch, heads, steps, values = v.shape
        size = min(chunk, max(steps, 1))
        gates, k, v = _chunks(log_gate, size).exp(), _chunks(k, size), _chunks(v, size)
        rows, chunks, _, keys = k.shape
        asked = _asked(queries, size)
        sources = v.new_empty(rows, chunks, size + keys, values)
        o = v.new_empty(rows, chunks, size * queries.shape[-2], values)
        last = first.reshape(rows, keys, values).clone()
        room = _Room(v)
        for own, at in _parts(rows, chunks, size):
            pairs = _Pairs(_own(asked, own, at), gates[own, at], k[own, at], room)
            part = sources[own, at]
            part[:, :, :size] = v[own, at]
            states = [*part[:, :, size:].unbind(1), last[own]]
            states[0].copy_(states[-1])
            written = room.product(pairs.left.mT, v[own, at], "written").unbind(1)
            for c, (new, kept) in enumerate(zip(written, pairs.kept, strict=True)):
                torch.addcmul(new, kept, states[c], out=states[c + 1])
            _product(pairs.weights(), part, o[own, at])
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(queries, gates, k, sources)
        o = o.reshape(batch, heads, chunks * size, queries.shape[-2], values)
        return o[:, :, :steps], last.reshape(first.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_o: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        """Of queries, gates, keys, values and the state before the first step."""
        queries, gates, k, sources = ctx.saved_tensors
        # Autocast may surround the backward too.
        with torch.autocast(grad_o.device.type, enabled=False):
            return *_gradients(queries, gates, k, sources, grad_o, grad_last), None


def _gradients(
    queries: Tensor, gates: Tensor, k: Tensor, sources: Tensor, grad_o: Tensor, grad_last: Tensor
) -> tuple[Tensor, ...]:
    """By queries, log gates, keys, values and the state before the first step."""
    rows, chunks, size, keys = k.shape
    asked = _asked(queries, size)
    grad_asked, grad_gates, grad_k = torch.zeros_like(asked), *map(torch.empty_like, (gates, k))
    grad_v = k.new_empty(rows, chunks, size, sources.shape[-1])
    grad_state = grad_last.reshape(rows, keys, sources.shape[-1]).clone()
    by_row = [row for sample in grad_o.unbind(0) for row in sample.unbind(0)]
    room = _Room(k)
    for own, at in reversed(_parts(rows, chunks, size)):
        pairs = _Pairs(_own(asked, own, at), gates[own, at], k[own, at], room)
        part, grad_part = sources[own, at], _rows(by_row[own], at, size, room)
        values, before = torch.split(part, [size, keys], 2)
        grad_sources = room.product(pairs.weights().mT, grad_part, "sources")
        # What all later steps ask of the state after each chunk.
        after = room("after", *before.shape)
        asked_of = [grad_state[own], *after.unbind(1)]
        asked_of[-1].copy_(asked_of[0])
        reads = grad_sources[:, :, size:].unbind(1)
        for c in reversed(range(len(reads))):
            torch.addcmul(reads[c], pairs.kept[c], asked_of[c + 1], out=asked_of[c])
        written = room.product(pairs.left, after, "written")
        torch.add(grad_sources[:, :, :size], written, out=grad_v[own, at])
        grad_queries, grad_gates[own, at], grad_k[own, at] = pairs.gradients(
            room.product(grad_part, part.mT, "of weights"),
            room.product(values, after.mT, "of left"),
            torch.mul(before, after, out=after).sum(-1),
        )
        _own(grad_asked, own, at).add_(grad_queries)
    whole = (_whole(t, grad_o) for t in (grad_gates, grad_k, grad_v))
    if queries.ndim == 5:
        grad_asked = _whole(grad_asked, grad_o)
    grad_first = grad_state.reshape(grad_last.shape)
    return grad_asked.reshape(queries.shape), *whole, grad_first


class _Pairs:
    """Some rows' keys as each later step of their chunk finds them, and what queries make of them.

    `decayed[row, chunk, t, j]` is the key of step j after the gates of steps j + 1 to t, nought
    where j is after t. `passed` is what a state before the chunk is multiplied by. Products of
    gates and not exponentials of differences: those would lose the digits that a hard reset
    leaves to the steps after it.
    """

    def __init__(self, queries: Tensor, gates: Tensor, k: Tensor, room: "_Room") -> None:
        self.queries, self.gates, self.room = queries, gates, room
        self.fixed = queries.ndim == 3
        self.asked = queries[:, None, None] if self.fixed else queries
        self.passed = gates.cumprod(2)
        self.decayed = room("decayed", *k.shape[:3], *k.shape[2:]).zero_()
        by_step = self.decayed.unbind(2)
        for t, (row, gate, own) in enumerate(
            zip(by_step, gates[:, :, :, None].unbind(2), k.unbind(2), strict=True)
        ):
            if t:
                torch.mul(by_step[t - 1][:, :, :t], gate, out=row[:, :, :t])
            row[:, :, t] = own
        self.left = by_step[-1]
        self.kept = self.passed[:, :, -1, :, None].unbind(1)

    def weights(self) -> Tensor:
        """What each query of each step takes of each value, and of each row of the state before."""
        rows, chunks, size, _, keys = self.decayed.shape
        asked = self.queries.shape[-2]
        made = self.room("weights", rows, chunks, size, asked, size + keys)
        if self.fixed:
            found = self.room("paired", rows, chunks, size, size, asked)
            torch.bmm(self.decayed.flatten(1, 3), self.queries.mT, out=found.flatten(1, 3))
            made[..., :size] = found.mT
        else:
            made[..., :size] = self.queries @ self.decayed.mT
        torch.mul(self.asked, self.passed[:, :, :, None], out=made[..., size:])
        return made.flatten(2, 3)

    def gradients(
        self, of_weights: Tensor, of_left: Tensor, of_kept: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """By queries, log gates and keys; `of_weights` is used up.

        Args:
            of_weights: Gradient of `weights`.
            of_left: That of the keys left at each chunk's end.
            of_kept: That of what each chunk keeps of the state.
        """
        size, asked = self.decayed.shape[2], self.queries.shape[-2]
        of_weights = of_weights.reshape(*self.decayed.shape[:3], asked, of_weights.shape[-1])
        of_pairs, of_read = of_weights[..., :size], of_weights[..., size:]
        of_read.mul_(self.passed[:, :, :, None])
        of_decayed = self.room("of decayed", *self.decayed.shape)
        if self.fixed:
            paired = self.room("paired", *self.decayed.shape[:4], asked)
            paired = paired.copy_(of_pairs.mT).flatten(1, 3)
            torch.bmm(paired, self.queries, out=of_decayed.flatten(1, 3))
            of_queries = paired.mT @ self.decayed.flatten(1, 3)
            of_queries = of_queries + of_read.sum((1, 2))
        else:
            torch.matmul(of_pairs.mT, self.queries, out=of_decayed)
            of_queries = of_pairs @ self.decayed + of_read
        of_passed = of_read.mul_(self.asked).sum(3)
        of_passed[:, :, -1].addcmul_(self.passed[:, :, -1], of_kept)
        by_step = of_decayed.unbind(2)
        by_step[-1].add_(of_left)
        gates = self.gates[:, :, :, None].unbind(2)
        for t in range(size - 1, 0, -1):
            by_step[t - 1][:, :, :t].addcmul_(by_step[t][:, :, :t], gates[t])
        of_k = of_decayed.diagonal(dim1=2, dim2=3).mT.clone()
        # A key has met no gate at its own step.
        of_decayed.mul_(self.decayed).diagonal(dim1=2, dim2=3).zero_()
        of_gates = of_decayed.sum(3) + of_passed.flip(2).cumsum(2).flip(2)
        return of_queries, of_gates, of_k


class _Room:
    """Tensors that are written again and again: memory asked for anew costs page faults."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._held: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Some tensor of this shape, which the next of this name overwrites."""
        size = prod(shape)
        if name not in self._held or self._held[name].numel() < size:
            self._held[name] = self._like.new_empty(size)
        return self._held[name][:size].view(shape)

    def product(self, left: Tensor, right: Tensor, name: str) -> Tensor:
        """The products of two matrices of each row and chunk."""
        shape = (*left.shape[:3], right.shape[3])
        return _product(left, right, self(name, *shape))


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out=out.flatten(0, 1))
    return out


def _chunks(t: Tensor, size: int) -> Tensor:
    """`[batch, head, time, ...]` as `[row, chunk, step, ...]`, zeros after the end."""
    short = -t.shape[2] % size
    if short:
        t = torch.cat([t, t.new_zeros(*t.shape[:2], short, *t.shape[3:])], 2)
    return t.reshape(t.shape[0] * t.shape[1], t.shape[2] // size, size, *t.shape[3:])


def _whole(t: Tensor, like: Tensor) -> Tensor:
    """The way back from `_chunks`."""
    return t.reshape(*like.shape[:2], t.shape[1] * t.shape[2], *t.shape[3:])[:, :, : like.shape[2]]


def _rows(rows: list[Tensor], at: slice, size: int, room: _Room) -> Tensor:
    """Some chunks of `[time, query, value]`s as `[row, chunk, step and query, value]`."""
    steps = (at.stop - at.start) * size
    made = room("rows", len(rows), steps, *rows[0].shape[1:])
    for row, out in zip(rows, made.unbind(0), strict=True):
        own = row[at.start * size : at.stop * size]
        out[: len(own)] = own
        out[len(own) :] = 0
    return made.reshape(len(rows), steps // size, size * made.shape[2], made.shape[3])


def _asked(queries: Tensor, size: int) -> Tensor:
    """`[row, query, key]`, or `[row, chunk, step, query, key]` where they change."""
    return _chunks(queries, size) if queries.ndim == 5 else queries.flatten(0, 1)


def _own(asked: Tensor, own: slice, at: slice) -> Tensor:
    """The queries of some rows and chunks."""
    return asked[own, at] if asked.ndim == 5 else asked[own]


def _parts(rows: int, chunks: int, size: int) -> list[tuple[slice, slice]]:
    """Rows and chunks that are computed at once: some whole rows, or some chunks of one."""
    many = max(1, STEPS_AT_ONCE // size)
    if chunks > many:
        each = [slice(start, min(start + many, chunks)) for start in range(0, chunks, many)]
        return [(slice(row, row + 1), at) for row in range(rows) for at in each]
    many = many // max(chunks, 1)
    return [(slice(start, start + many), slice(0, chunks)) for start in range(0, rows, many)]
