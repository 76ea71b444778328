"""Selective state spaces: the scan of Mamba, once for every model that has one.

Gu & Dao, Mamba (https://arxiv.org/abs/2312.00752). For each channel, with a state h of some
entries, an input u, a step dt > 0 and A < 0:

    h_t = exp(dt_t A) h_(t-1) + phi_t B_t u_t,   y_t = C_t . h_t + D u_t

where phi = dt (Euler, as the public kernel computes it) or expm1(dt A) / A (zero-order hold, as the
paper writes it, Eq. 4). The two differ by half and more at the steps that models learn, so weights
belong to one of them.

The state is float32 whatever surrounds it. Training keeps the state before each chunk of steps and
computes the rest again (`_Scan`); no loop is ever differentiated, which would take memory for every
step and, where it indexes, time that grows with their square.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from actioncast.layers.scan_kernel import kernel

CHUNK = 32
"""Steps between two states that training keeps, where PyTorch scans."""


class Discretisation(StrEnum):
    """How the continuous system becomes steps."""

    EULER = "euler"
    """B_bar = dt B, as the public Mamba code and its weights."""
    ZERO_ORDER_HOLD = "zero_order_hold"
    """B_bar = expm1(dt A) / A B, exact for an input held over a step."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Outputs and the state after the last step."""

    y: Float[Tensor, "batch time channel"]
    last: Float[Tensor, "batch channel state"]


def selective_scan(
    u: Float[Tensor, "batch time channel"],
    delta: Float[Tensor, "batch time channel"],
    a: Float[Tensor, "channel state"],
    b: Float[Tensor, "batch time state"]
    | Float[Tensor, "batch time group state"]
    | Float[Tensor, "channel state"],
    c: Float[Tensor, "batch time state"]
    | Float[Tensor, "batch time group state"]
    | Float[Tensor, "channel state"],
    d: Float[Tensor, " channel"] | None = None,
    z: Float[Tensor, "batch time channel"] | None = None,
    delta_bias: Float[Tensor, " channel"] | None = None,
    *,
    softplus: bool = False,
    discretisation: Discretisation = Discretisation.EULER,
    first: Float[Tensor, "batch channel state"] | None = None,
    valid: Bool[Tensor, "batch time"] | None = None,
) -> Scan:
    """Scan a sequence (the public kernel's order: bias, softplus, scan, + D u, * silu(z)).

    Args:
        u: Input.
        delta: Steps; before bias and softplus where these are asked for.
        a: State matrix, diagonal; below 0 for a state that forgets.
        b: Input matrix: by step, by step and group of channels, or constant.
        c: Output matrix, likewise.
        d: What of the input goes straight to the output.
        z: Gate of the output.
        delta_bias: Added to the steps.
        softplus: Whether softplus makes the steps positive.
        discretisation: How steps are taken.
        first: The state before the first step; absent, zeros.
        valid: False where a step is padding: it leaves the state as it is, and its output is 0.

    Returns:
        Outputs in the type of `u`, and the last state, float32 (float64 from float64), which holds
        neither `d` nor `z`.
    """
    dtype = u.dtype
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.autocast(u.device.type, enabled=False):
        u, a = u.to(exact), a.to(exact)
        steps = steps_of(delta.to(exact), delta_bias, softplus, valid)
        by_step = _groups_alike(_by_step(b.to(exact), u), _by_step(c.to(exact), u))
        start = None if first is None else first.to(exact)
        euler = discretisation is Discretisation.EULER and exact == torch.float32
        public = _public_kernel() if u.is_cuda and euler and start is None else None
        if public is None:
            scan: Any = _Scan.apply
            y, last = scan(u, steps, a, *by_step, start, discretisation)
        else:
            # It wants time last.
            given = [t.movedim(1, -1).contiguous() for t in (u, steps)]
            matrices = [t.movedim(1, -1).contiguous() for t in by_step]
            y, last = public(*given, a, *matrices, return_last_state=True)
            y = y.movedim(-1, 1)
        if d is not None:
            y = torch.addcmul(y, u, d.to(exact))
        if z is not None:
            y = y * F.silu(z.to(exact))
        if valid is not None:
            y = y * valid[..., None]
    return Scan(y.to(dtype), last)


def steps_of(
    delta: Float[Tensor, "batch time channel"],
    delta_bias: Float[Tensor, " channel"] | None = None,
    softplus: bool = False,
    valid: Bool[Tensor, "batch time"] | None = None,
) -> Float[Tensor, "batch time channel"]:
    """The steps that are taken: a step of 0 at padding keeps the state and reads nothing."""
    if delta_bias is not None:
        delta = delta + delta_bias.to(delta.dtype)
    if softplus:
        delta = F.softplus(delta)
    return delta if valid is None else delta * valid[..., None]


def selective_step(
    u: Float[Tensor, "batch channel"],
    delta: Float[Tensor, "batch channel"],
    a: Float[Tensor, "channel state"],
    b: Float[Tensor, "batch state"],
    c: Float[Tensor, "batch state"],
    state: Float[Tensor, "batch channel state"],
    *,
    discretisation: Discretisation = Discretisation.EULER,
) -> tuple[Float[Tensor, "batch channel"], Float[Tensor, "batch channel state"]]:
    """One step: the output, without `d` and gate, and the state after it; the old one is kept.

    Args:
        u: Input.
        delta: The step as it is taken (see `steps_of`).
        a: State matrix.
        b: Input matrix of this step.
        c: Output matrix of this step.
        state: Before the step.
        discretisation: How the step is taken.
    """
    x = delta[..., None] * a
    phi = _phi(x, delta[..., None], a, discretisation)
    after = x.exp() * state + phi * b[:, None] * u[..., None]
    return torch.einsum("bcs,bs->bc", after, c), after


def _phi(x: Tensor, step: Tensor, a: Tensor, discretisation: Discretisation) -> Tensor:
    """What multiplies B u, given x = step * a; where A is 0, the step itself in both forms."""
    if discretisation is Discretisation.EULER:
        return step
    held = torch.expm1(x) / torch.where(a == 0, 1.0, a)
    return torch.where(a == 0, step, held)


def _phi_slope(x: Tensor, step: Tensor, a: Tensor, exponential: Tensor, phi: Tensor) -> Tensor:
    """The derivative of zero-order hold's phi by A, (step exp(x) - phi) / A, a series near 0."""
    series = torch.zeros_like(x)
    factorial = 39916800.0
    for k in range(9, -1, -1):
        # Coefficients (k + 1) / (k + 2)!, highest first.
        series = series * x + (k + 1) / factorial
        factorial /= k + 2
    away = torch.where(a == 0, 1.0, a)
    return torch.where(x.abs() < 0.5, step * step * series, (step * exponential - phi) / away)


def _by_step(matrix: Tensor, u: Float[Tensor, "batch time channel"]) -> Tensor:
    """`[batch, time, group, state]`; a constant matrix is a group for each channel."""
    if matrix.ndim == 2:
        return matrix.expand(*u.shape[:2], *matrix.shape)
    return matrix[:, :, None] if matrix.ndim == 3 else matrix


def _groups_alike(b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Both in as many groups of channels; one of fewer groups is repeated."""
    groups = max(b.shape[2], c.shape[2])
    return (
        b.repeat_interleave(groups // b.shape[2], 2),
        c.repeat_interleave(groups // c.shape[2], 2),
    )


class _Scan(torch.autograd.Function):
    """The scan with a gradient that keeps the state at chunk borders alone."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        u, steps, a, b, c, first, discretisation = inputs
        wanted = any(ctx.needs_input_grad)
        compiled = kernel() if u.device.type == "cpu" and u.dtype == torch.float32 else None
        if compiled is not None and 16 * b.shape[2] <= max(u.shape[2], 16):
            u, steps, a, b, c = (t.contiguous() for t in (u, steps, a, b, c))
            first = None if first is None else first.contiguous()
            found = compiled.scan(
                *(u, steps, a, b, c, first),
                zero_order_hold=discretisation is Discretisation.ZERO_ORDER_HOLD,
                keep_borders=wanted,
            )
            borders, y, last = found.borders, found.y, found.last
            ctx.compiled = True
        else:
            y, last, borders = _scan_forward(
                u, steps, a, b, c, first, discretisation, keep_borders=wanted
            )
            ctx.compiled = False
        ctx.discretisation = discretisation
        if wanted:
            ctx.save_for_backward(u, steps, a, b, c, first, borders)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor) -> tuple[Tensor | None, ...]:
        u, steps, a, b, c, first, borders = ctx.saved_tensors
        if ctx.compiled:
            compiled = kernel()
            assert compiled is not None
            found = compiled.gradient(
                *(u, steps, a, b, c, borders),
                grad_y.contiguous(),
                grad_last.contiguous(),
                zero_order_hold=ctx.discretisation is Discretisation.ZERO_ORDER_HOLD,
                of_first=first is not None,
            )
            return found.u, found.delta, found.a, found.b, found.c, found.first, None
        gradients = _scan_backward(
            u, steps, a, b, c, borders, grad_y, grad_last, ctx.discretisation
        )
        return (*gradients[:5], gradients[5] if first is not None else None, None)


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
            phi = _phi(out, step, self.a, discretisation)
        return out.exp_(), phi

    def drive(self, t: int, phi: Tensor | None, state: Tensor) -> None:
        """Add what step `t` reads to a state, in place."""
        b = self.b[t][:, :, None]
        if phi is None:
            state.addcmul_(self.driven[t][..., None], b)
        else:
            state.addcmul_(phi * self.u[t][..., None], b)


def _scan_forward(
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


def _scan_backward(
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
            slope = _phi_slope(step * at.a, step, at.a, factors[j], phi)
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


def _public_kernel() -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Mamba's own kernel for GPUs (Euler, float32 state), where it is installed."""
    try:
        from mamba_ssm.ops.selective_scan_interface import (  # noqa: PLC0415
            selective_scan_fn,
        )
    except ImportError:
        return None
    found: Callable[..., tuple[Tensor, Tensor]] = selective_scan_fn
    return found
