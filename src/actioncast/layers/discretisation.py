"""How a continuous state space becomes steps, and the derivative of what that gives."""

import math
from enum import StrEnum

import torch
from torch import Tensor


class Discretisation(StrEnum):
    """How the continuous system becomes steps."""

    EULER = "euler"
    """B_bar = dt B, as the public Mamba code and its weights."""
    ZERO_ORDER_HOLD = "zero_order_hold"
    """B_bar = expm1(dt A) / A B, exact for an input held over a step."""


def phi_of(x: Tensor, step: Tensor, a: Tensor, discretisation: Discretisation) -> Tensor:
    """What multiplies B u, given x = step * a; where A is 0, the step itself in both forms."""
    if discretisation is Discretisation.EULER:
        return step
    held = torch.expm1(x) / torch.where(a == 0, 1.0, a)
    return torch.where(a == 0, step, held)


def phi_slope(x: Tensor, step: Tensor, a: Tensor, exponential: Tensor, phi: Tensor) -> Tensor:
    """The derivative of zero-order hold's phi by A, (step exp(x) - phi) / A, a series near 0."""
    terms = 7 if x.dtype == torch.float32 else 12
    series = torch.zeros_like(x)
    for k in reversed(range(terms)):
        # Coefficients (k + 1) / (k + 2)!, highest first.
        series.mul_(x).add_((k + 1) / math.factorial(k + 2))
    away = torch.where(a == 0, 1.0, a)
    return torch.where(x.abs() < 0.5, step * step * series, (step * exponential - phi) / away)
