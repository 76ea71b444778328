"""What a model of streams learns at every step: the action under way, and those at moments ahead.

A row of targets belongs to the step at which it is said: entry `[t, i]` is about the step
`shifts[i]` after t. `metrics.detection.align_to_target` moves scores to the step they are about.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from actioncast.types import IGNORE


def steps_ahead(ahead: Sequence[float], rate: float, stride: int) -> tuple[int, ...]:
    """Moments in seconds as steps of a model's grid.

    Args:
        ahead: Seconds after a step, above 0, increasing.
        rate: Frames per second of the video.
        stride: Frames a step.

    Raises:
        ValueError: A moment lies between two steps, or none.
    """
    if not all(math.isfinite(seconds) for seconds in ahead):
        raise ValueError(f"a moment ahead must be finite, got {tuple(ahead)} s.")
    found = []
    for seconds in ahead:
        steps = seconds * rate / stride
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-3:
            near = " ".join(f"{max(1, round(s * rate / stride)) * stride / rate:g}" for s in ahead)
            raise ValueError(
                f"a moment ahead must be a whole number of steps of {stride / rate:g} s ({stride} "
                f"frames of {rate:g} a second), got {seconds:g} s; say --model.ahead {near}, or "
                "another --stride."
            )
        found.append(round(steps))
    return tuple(found)


def labels_ahead(
    labels: Int[Tensor, "batch time"], shifts: Sequence[int]
) -> Int[Tensor, "batch time moment"]:
    """The label of the step that lies so many steps ahead; IGNORE after the last."""
    time = labels.shape[1]
    moved = [F.pad(labels[:, shift:], (0, min(shift, time)), value=IGNORE) for shift in shifts]
    return torch.stack(moved, -1)


def active_ahead(
    active: Bool[Tensor, "batch time label"], shifts: Sequence[int]
) -> Bool[Tensor, "batch time moment label"]:
    """All actions of the step that lies so many steps ahead; none after the last."""
    time = active.shape[1]
    moved = [F.pad(active[:, shift:], (0, 0, 0, min(shift, time)), value=False) for shift in shifts]
    return torch.stack(moved, 2)


def several_cross_entropy(
    logits: Float[Tensor, "*rows label"],
    active: Bool[Tensor, "*rows label"],
    *,
    smoothing: float = 0.0,
    unknown: Sequence[int] = (),
) -> Float[Tensor, ""]:
    """Minus the log probability of every action under way, the mean over rows that have one.

    Args:
        logits: Scores.
        active: What is under way; several may be.
        smoothing: Share of the target that is spread over all labels.
        unknown: Labels that say that nobody knows: rows with one teach nothing, and they have no
            part in the softmax.
    """
    known = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    known[list(unknown)] = False
    rows = (active & known).any(-1) & ~(active & ~known).any(-1)
    log_probs = excluded(logits.float(), unknown).log_softmax(-1)
    hit = (log_probs * (active & known)).sum(-1)
    spread = log_probs[..., known].mean(-1)
    said = (1 - smoothing) * hit + smoothing * spread
    return -(said * rows).sum() / rows.sum().clamp(min=1)


def excluded(
    logits: Float[Tensor, "*rows label"], unknown: Sequence[int]
) -> Float[Tensor, "*rows label"]:
    """Logits whose softmax gives some labels nothing at all."""
    if not unknown:
        return logits
    index = torch.tensor(unknown, device=logits.device)
    # Not minus infinity: a product with 0 must be 0.
    return logits.index_fill(-1, index, torch.finfo(logits.dtype).min / 2)
