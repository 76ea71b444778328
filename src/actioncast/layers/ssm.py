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
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from actioncast.layers.discretisation import Discretisation, phi_of
from actioncast.layers.scan_kernel import kernel
from actioncast.layers.scan_loop import scan_backward, scan_forward


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
        neither `d` nor `z`. Mamba's own kernel gives a last state without a gradient.
    """
    dtype = u.dtype
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    with torch.autocast(u.device.type, enabled=False):
        u, a = real_steps(u.to(exact), valid), a.to(exact)
        steps = steps_of(delta.to(exact), delta_bias, softplus, valid)
        b, c = _groups_alike(*(_by_step(m.to(exact), u, valid) for m in (b, c)))
        start = None if first is None else first.to(exact)
        public = _public_kernel(u, discretisation, start)
        if public is None:
            scan: Any = _Scan.apply
            y, last = scan(u, steps, a, b, c, start, discretisation)
        else:
            # It wants time last.
            given = [t.movedim(1, -1).contiguous() for t in (u, steps)]
            matrices = [t.movedim(1, -1).contiguous() for t in (b, c)]
            y, last = public(*given, a, *matrices, return_last_state=True)
            y = y.movedim(-1, 1)
        if d is not None:
            y = torch.addcmul(y, u, d.to(exact))
        if z is not None:
            y = y * F.silu(z.to(exact))
        y = real_steps(y, valid)
    return Scan(y.to(dtype), last)


def steps_of(
    delta: Float[Tensor, "batch time channel"],
    delta_bias: Float[Tensor, " channel"] | None = None,
    softplus: bool = False,
    valid: Bool[Tensor, "batch time"] | None = None,
) -> Float[Tensor, "batch time channel"]:
    """The steps that are taken: a step of 0 at padding keeps the state and reads nothing."""
    delta = real_steps(delta, valid)
    if delta_bias is not None:
        delta = delta + delta_bias.to(delta.dtype)
    if softplus:
        delta = F.softplus(delta)
    return real_steps(delta, valid)


def real_steps(
    t: Float[Tensor, "batch time *rest"], valid: Bool[Tensor, "batch time"] | None
) -> Float[Tensor, "batch time *rest"]:
    """Zeros at padding, whatever stands there, even what is no number."""
    if valid is None:
        return t
    return t.masked_fill(~valid.reshape(*valid.shape, *[1] * (t.ndim - 2)), 0.0)


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
    phi = phi_of(x, delta[..., None], a, discretisation)
    after = x.exp() * state + phi * b[:, None] * u[..., None]
    return torch.einsum("bcs,bs->bc", after, c), after


def scan_flops(tokens: int, channels: int, states: int) -> int:
    """Operations of a scan with skip and gate, an exponential counted as one."""
    # For an entry of the state: the exponent and its exponential, decay, drive, output.
    return tokens * channels * (9 * states + 4)


def _by_step(
    matrix: Tensor, u: Float[Tensor, "batch time channel"], valid: Bool[Tensor, "batch time"] | None
) -> Tensor:
    """`[batch, time, group, state]`; a constant matrix is a group for each channel."""
    if matrix.ndim == 2:
        return matrix.expand(*u.shape[:2], *matrix.shape)
    matrix = real_steps(matrix, valid)
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
        if compiled is not None and compiled.takes(u.shape[2], b.shape[2]):
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
            y, last, borders = scan_forward(
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
        gradients = scan_backward(u, steps, a, b, c, borders, grad_y, grad_last, ctx.discretisation)
        return (*gradients[:5], gradients[5] if first is not None else None, None)


def _public_kernel(
    u: Tensor, discretisation: Discretisation, start: Tensor | None
) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """Mamba's own kernel for GPUs, where it is installed: Euler, float32, from a state of zeros."""
    if not u.is_cuda or u.dtype != torch.float32 or start is not None:
        return None
    if discretisation is not Discretisation.EULER:
        return None
    try:
        from mamba_ssm.ops.selective_scan_interface import (  # noqa: PLC0415
            selective_scan_fn,
        )
    except ImportError:
        return None
    found: Callable[..., tuple[Tensor, Tensor]] = selective_scan_fn
    return found


__all__ = [
    "Discretisation",
    "Scan",
    "real_steps",
    "scan_flops",
    "selective_scan",
    "selective_step",
    "steps_of",
]
