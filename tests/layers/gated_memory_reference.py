"""The gated memory, literally: what ours is held to and timed against.

Everything here keeps the state of every step, `[batch, time, head, key, value]`. Inputs are unbound
along time; slicing them inside the loop would cost a tensor of the full size for each step.
"""

from typing import Any

import torch
from torch import Tensor


def states_in_a_loop(log_gate: Tensor, k: Tensor, v: Tensor, first: Tensor | None = None) -> Tensor:
    """The state after every step, Eq. 6 by the word, differentiated by autograd."""
    batch, _, heads, keys = k.shape
    state = k.new_zeros(batch, heads, keys, v.shape[-1]) if first is None else first
    states = []
    for gate, k_t, v_t in zip(log_gate.exp().unbind(1), k.unbind(1), v.unbind(1), strict=True):
        state = gate[..., None] * state + k_t[..., None] * v_t[..., None, :]
        states.append(state)
    return torch.stack(states, 1)


def read_in_a_loop(
    queries: Tensor, log_gate: Tensor, k: Tensor, v: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What queries read after every step, and the last state; queries fixed or by step."""
    states = states_in_a_loop(log_gate, k, v, first)
    if queries.ndim == 4:
        queries = queries[:, None]
    return queries @ states, states[:, -1]


def read_by_algorithms(
    queries: Tensor, log_gate: Tensor, k: Tensor, v: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same with the states of Algorithms 1 and 2."""
    if first is not None:
        # The algorithms start from nothing: a step that writes the state stands before the rest.
        log_gate = torch.cat([torch.zeros_like(log_gate[:, :1]), log_gate], 1)
    gates = log_gate.exp()[..., None].expand(*log_gate.shape, v.shape[-1])
    written = k[..., None] * v[..., None, :]
    if first is not None:
        written = torch.cat([first[:, None], written], 1)
    update: Any = StateUpdate.apply
    states: Tensor = update(gates, written)
    if first is not None:
        states = states[:, 1:]
    if queries.ndim == 4:
        queries = queries[:, None]
    return queries @ states, states[:, -1]


class StateUpdate(torch.autograd.Function):
    """Algorithms 1 and 2 of the supplement: gates and products `k^T v` of every step, written out.

    Both and the states are `[batch, time, head, key, value]`; a state of zeros comes first.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, written: Tensor) -> Tensor:
        states = torch.empty_like(written)
        state = torch.zeros_like(written[:, 0])
        for t in range(written.shape[1]):
            state = gates[:, t] * state + written[:, t]
            states[:, t] = state
        ctx.save_for_backward(gates, states)
        return states

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor]:
        gates, states = ctx.saved_tensors
        grad_gates, grad_written = torch.zeros_like(states), torch.empty_like(states)
        grad = torch.zeros_like(states[:, 0])
        for t in reversed(range(states.shape[1])):
            grad = grad + grad_states[:, t]
            grad_written[:, t] = grad
            if t:
                grad_gates[:, t] = grad * states[:, t - 1]
            grad = grad * gates[:, t]
        return grad_gates, grad_written
