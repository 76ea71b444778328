"""The selective scan in PyTorch, where no compiled kernel can run: float64, GPUs, no compiler.

Forward and backward by hand, step by step and in place. The forward keeps the state before each
chunk of steps; the backward computes a chunk's states again before it goes through them.
"""

import torch
from einops import rearrange
from torch import Tensor

from actioncast.layers.discretisation import Discretisation, phi_of, phi_slope

CHUNK = 32
"""Steps between two states that the forward keeps."""


def _by_group(t: Tensor, groups: int) -> tuple[Tensor, ...]:
    """`[batch, group, channel]`, step by step."""
    return rearrange(t, "batch time (group own) -> time batch group own", group=groups).unbind(0)


class _Steps:
    """Views of a scan's tensors by step, channels shared out among groups.

    `unbind` and not indices: an index inside a loop costs a view and its bookkeeping each time.
    """

    def __init__(self, u: Tensor, steps: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
        groups = b.shape[2]
        self.u, self.step = _by_group(u, groups), _by_group(steps, groups)
        self.driven = _by_group(u * steps, groups)
        self.b, self.c = b.unbind(1), c.unbind(1)
        self.a = rearrange(a, "(group own) state -> group own state", group=groups)
        self.shape = (len(u), *self.a.shape)

    def factors(
        self, t: int, discretisation: Discretisation, out: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What the state is multiplied by, written to `out`, and zero-order hold's phi."""
        step = self.step[t][..., None]
        torch.mul(step, self.a, out=out)
        phi = None
        if discretisation is Discretisation.ZERO_ORDER_HOLD:
            phi = phi_of(out, step, self.a, discretisation)
        return out.exp_(), phi

    def drive(self, t: int, phi: Tensor | None, state: Tensor) -> None:
        """Add what step `t` reads to a state, in place."""
        b = self.b[t][:, :, None]
        if phi is None:
            state.addcmul_(self.driven[t][..., None], b)
        else:
            state.addcmul_(phi * self.u[t][..., None], b)


def scan_forward(
    u: Tensor,
    steps: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    first: Tensor | None,
    discretisation: Discretisation,
    keep_borders: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, last state and states before each chunk, `[chunk, batch, group, channel, state]`."""
    at = _Steps(u, steps, a, b, c)
    h = u.new_zeros(at.shape) if first is None else first.reshape(at.shape).clone()
    factor = torch.empty_like(h)
    outputs, borders = [], []
    for t in range(u.shape[1]):
        if keep_borders and t % CHUNK == 0:
            borders.append(h.clone())
        factor, phi = at.factors(t, discretisation, factor)
        h.mul_(factor)
        at.drive(t, phi, h)
        outputs.append(torch.matmul(h, at.c[t][..., None]).squeeze(-1))
    y = torch.stack(outputs, 1).flatten(2) if outputs else torch.empty_like(u)
    last = h.reshape(len(u), *a.shape)
    return y, last, torch.stack(borders) if borders else u.new_empty(0, *at.shape)


def scan_backward(
    u: Tensor,
    steps: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    borders: Tensor,
    grad_y: Tensor,
    grad_last: Tensor,
    discretisation: Discretisation,
) -> tuple[Tensor, ...]:
    """Gradients by `u`, `steps`, `a`, `b`, `c` and the state before the first step."""
    at = _Steps(u, steps, a, b, c)
    grad_outputs = _by_group(grad_y, b.shape[2])
    g = grad_last.reshape(at.shape).clone()
    grad_a = torch.zeros(at.shape, dtype=a.dtype, device=a.device)
    states = u.new_empty(CHUNK + 1, *at.shape).unbind(0)
    factors = u.new_empty(CHUNK, *at.shape).unbind(0)
    kept = torch.empty_like(g)
    gradients: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for chunk, border in reversed(list(enumerate(borders.unbind(0)))):
        times = range(chunk * CHUNK, min((chunk + 1) * CHUNK, u.shape[1]))
        states[0].copy_(border)
        held: list[Tensor | None] = []
        for j, t in enumerate(times):
            _, phi = at.factors(t, discretisation, factors[j])
            torch.mul(states[j], factors[j], out=states[j + 1])
            at.drive(t, phi, states[j + 1])
            held.append(phi)
        for j, t in reversed(list(enumerate(times))):
            out, before, after = grad_outputs[t], states[j], states[j + 1]
            b_t, phi, step = at.b[t], held[j], at.step[t][..., None]
            g.addcmul_(out[..., None], at.c[t][:, :, None])
            grad_c = torch.matmul(out[:, :, None], after).squeeze(2)
            if phi is None:
                along = torch.matmul(g, b_t[..., None]).squeeze(-1)
                grad_b = torch.matmul(at.driven[t][:, :, None], g).squeeze(2)
                g.mul_(factors[j])
                torch.mul(g, before, out=kept)
                grad_a.addcmul_(kept, step)
                grad_step = kept.mul_(at.a).sum(-1).addcmul_(along, at.u[t])
                gradients.append((along * at.step[t], grad_step, grad_b, grad_c))
                continue
            driven = b_t[:, :, None] * at.u[t][..., None]
            slope = phi_slope(step * at.a, step, at.a, factors[j], phi)
            grad_u = torch.matmul(g * phi, b_t[..., None]).squeeze(-1)
            grad_b = torch.matmul(at.u[t][:, :, None], g * phi).squeeze(2)
            grad_a.addcmul_(g, driven * slope)
            g.mul_(factors[j])
            grad_a.addcmul_(g * before, step)
            grad_step = (g * (before * at.a + driven)).sum(-1)
            gradients.append((grad_u, grad_step, grad_b, grad_c))
    gradients.reverse()
    grad_u, grad_steps, grad_b, grad_c = (
        torch.stack(parts, 1) for parts in zip(*gradients, strict=True)
    )
    return (
        grad_u.flatten(2),
        grad_steps.flatten(2),
        grad_a.sum(0).reshape(a.shape),
        grad_b,
        grad_c,
        g.reshape(len(u), *a.shape),
    )
