"""Denoising diffusion: a schedule of noise, and one step of DDIM from noise to data.

Ho et al. 2020 (https://arxiv.org/abs/2006.11239), the cosine schedule of Nichol and Dhariwal 2021
(https://arxiv.org/abs/2102.09672), DDIM of Song et al. 2021 (https://arxiv.org/abs/2010.02502).
The tables are float64 and so is the running state from the second step on: with a signal share of
2e-9 at the noisiest step float32 changes what is sampled.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

GREATEST_BETA = 0.999
SHIFT = 0.008


def cosine_signal(num_steps: int) -> Float64[Tensor, " step"]:
    """The share of signal variance (alpha-bar) left at every step.

    cos^2((t / n + s) / (1 + s) * pi / 2), s = 0.008, as cumulative products of 1 - beta, where beta
    is at most 0.999.
    """
    ends = torch.linspace(0, num_steps, num_steps + 1, dtype=torch.float64)
    curve = torch.cos((ends / num_steps + SHIFT) / (1 + SHIFT) * math.pi * 0.5).square()
    curve = curve / curve[0]
    betas = (1 - curve[1:] / curve[:-1]).clip(0, GREATEST_BETA)
    return (1 - betas).cumprod(0)


def ddim_steps(num_steps: int, num_inference_steps: int) -> list[int]:
    """The steps visited, from the noisiest on; data follow after the last."""
    ends = torch.linspace(-1, num_steps - 1, num_inference_steps + 1).int().tolist()
    return list(reversed(ends[1:]))


def diffuse(
    data: Float[Tensor, "batch *rest"],
    signal: Float64[Tensor, " batch"],
    noise: Float[Tensor, "batch *rest"],
) -> Float64[Tensor, "batch *rest"]:
    """sqrt(signal) * data + sqrt(1 - signal) * noise."""
    share = signal.view(-1, *[1] * (data.ndim - 1))
    return share.sqrt() * data + (1 - share).sqrt() * noise


def ddim_step(
    state: Float[Tensor, "*any"],
    data: Float[Tensor, "*any"],
    signal: float,
    next_signal: float,
    eta: float,
    noise: Float[Tensor, "*#any"] | None,
) -> Float64[Tensor, "*any"]:
    """From the state at one step to the state at the next, given the data that a model predicts.

    sqrt(a') data + sqrt(1 - a' - s^2) e + s noise, where e = (state / sqrt(a) - data) /
    sqrt(1 / a - 1) and s = eta sqrt((1 - a / a') (1 - a') / (1 - a)); Song et al., Eqs. 12 and 16.

    Args:
        state: At this step.
        data: What the model predicts.
        signal: Share of signal variance at this step (a).
        next_signal: The same at the next (a').
        eta: 0 is deterministic; 1 draws as much noise as the ancestral sampler.
        noise: Standard normal; may be absent where eta is 0.
    """
    drawn = eta * math.sqrt((1 - signal / next_signal) * (1 - next_signal) / (1 - signal))
    kept = math.sqrt(max(0.0, 1 - next_signal - drawn**2)) / math.sqrt(1 / signal - 1)
    # Two products instead of the predicted noise: the same sum, in float64.
    following = state.double() * (kept / math.sqrt(signal))
    following.add_(data, alpha=math.sqrt(next_signal) - kept)
    if noise is not None and drawn:
        following.add_(noise, alpha=drawn)
    return following


def step_embedding(steps: Int[Tensor, " step"], width: int) -> Float[Tensor, "step width"]:
    """Sines, then cosines, of the step at frequencies 10000^(-m / (width / 2 - 1)).

    The frequencies are formed in float32, as released: other forms move sin(999 f) by 1e-4.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angles = steps.float()[:, None] * rates.to(steps.device)
    return torch.cat([angles.sin(), angles.cos()], 1)


def standard_noise(
    shape: tuple[int, ...], seed: int, device: torch.device | str
) -> Iterator[Float[Tensor, "..."]]:
    """The noise of one sampling, from a generator of its own on the CPU, whatever the device.

    The first state and the noise of the first step are float32, later ones float64: the types of
    the running state in the released code, whose stream of noise this is.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        yield torch.randn(shape, generator=generator).to(device)
    while True:
        yield torch.randn(shape, generator=generator, dtype=torch.float64).to(device)
