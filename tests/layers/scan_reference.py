"""The selective scan, a loop that autograd differentiates: what ours is held to and timed against.

Inputs are unbound along time. Slicing inside the loop would be slower by an order of magnitude and
more, because every slice's gradient is a tensor of the full size.
"""

import torch
from torch import Tensor


def scan_in_a_loop(
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    zero_order_hold: bool = False,
    first: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Outputs and last state; `b` and `c` by step."""
    h = u.new_zeros(u.shape[0], u.shape[2], a.shape[1]) if first is None else first
    outputs = []
    inputs = zip(u.unbind(1), delta.unbind(1), b.unbind(1), c.unbind(1), strict=True)
    for u_t, step, b_t, c_t in inputs:
        x = step[..., None] * a
        held = torch.expm1(x) / a if zero_order_hold else step[..., None]
        h = torch.exp(x) * h + held * b_t[:, None] * u_t[..., None]
        outputs.append(torch.einsum("bcs,bs->bc", h, c_t))
    return torch.stack(outputs, 1), h
