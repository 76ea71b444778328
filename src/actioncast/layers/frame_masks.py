"""Which frames of a training video a diffusion segmenter may see.

ActFusion (Gong et al., NeurIPS 2024, section 4.3, appendix C, Algorithm 1) draws one of five masks
each time a video is shown; DiffAct (Liu et al., ICCV 2023) one of four.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

Mask = Literal["none", "all", "anticipative", "random", "boundary", "relation"]
"""What is hidden: nothing, everything, the future, clips, boundaries, or an action."""
ALMOST = 1e-9
"""What a product of floats may be off: 0.7 * 10 is seven steps, not eight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """Which masks are drawn, and how they hide; the defaults are the paper's for 50 Salads."""

    kinds: tuple[Mask, ...] = ("none", "anticipative", "random", "boundary", "relation")
    """one is drawn each time a video is shown; a kind named twice is drawn twice as often"""
    observed_ratios: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    """shares of the video that the anticipative mask leaves visible"""
    observed_rounding: Literal["up", "down"] = "up"
    """how many steps that is: rounded up, as printed, or down, as released"""
    future_multiple: float = 0.0
    """steps hidden by the anticipative mask over steps visible, wherever the video ends; 0 hides
    its rest, as published"""
    clip_length: int = 10
    """steps of a clip of the random mask"""
    num_clips: tuple[int, int] = (25, 25)
    """fewest and most clips that it hides"""
    partial_clip: bool = True
    """whether the shorter last clip can be hidden, as printed; not so as released"""
    boundary_below: float = 0.5
    """boundaries from this value on are hidden by the boundary mask"""
    num_relations: int = 1
    """actions that the relation mask draws, each from all that the video holds"""

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError("kinds must name a mask, got none; 'none' hides nothing.")
        if unknown := [kind for kind in self.kinds if kind not in get_args(Mask)]:
            raise ValueError(f"kinds must be among {get_args(Mask)}, got {unknown}; rename them.")
        if self.observed_rounding not in ("up", "down"):
            raise ValueError(
                f"observed_rounding must be 'up' or 'down', got {self.observed_rounding!r}."
            )
        if not 0 < self.boundary_below <= 1:
            raise ValueError(
                f"boundary_below must lie within (0, 1], got {self.boundary_below}; leave the "
                "boundary mask out of kinds to show every boundary."
            )
        if not self.observed_ratios or not all(0 < ratio < 1 for ratio in self.observed_ratios):
            raise ValueError(
                f"observed_ratios must be shares within (0, 1), got {self.observed_ratios}."
            )
        fewest, most = self.num_clips
        if self.clip_length < 1 or not 0 <= fewest <= most:
            raise ValueError(
                "clip_length must be at least 1 and num_clips the fewest and the most, got "
                f"{self.clip_length} and {self.num_clips}."
            )
        if self.future_multiple < 0 or self.num_relations < 1:
            raise ValueError(
                "future_multiple must not be negative and num_relations at least 1, got "
                f"{self.future_multiple} and {self.num_relations}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A mask of one video."""

    kind: Mask
    visible: Bool[Tensor, " time"]
    """Of all steps that the model is to name: those of the video, or fewer, or more where it is
    asked beyond the end."""


def draw(
    masking: Masking,
    labels: Int[Tensor, " time"],
    boundaries: Float[Tensor, " time"],
    generator: Generator | None = None,
) -> Drawn:
    """Draw a mask for a video.

    Args:
        masking: What may be drawn.
        labels: Of its steps; negative where there is none.
        boundaries: Of its steps.
        generator: Absent, torch's own, as for dropout.
    """
    steps = len(labels)
    kind = masking.kinds[_below(len(masking.kinds), generator)]
    visible = torch.ones(steps, dtype=torch.bool, device=labels.device)
    match kind:
        case "all":
            visible = ~visible
        case "anticipative":
            visible = _anticipative(masking, steps, generator).to(labels.device)
        case "random":
            visible = _random_clips(masking, steps, generator).to(labels.device)
        case "boundary":
            visible = boundaries < masking.boundary_below
        case "relation":
            present = torch.unique(labels[labels >= 0])
            for _ in range(masking.num_relations if len(present) else 0):
                visible = visible & (labels != present[_below(len(present), generator)])
    return Drawn(kind=kind, visible=visible)


def _anticipative(
    masking: Masking, steps: int, generator: Generator | None
) -> Bool[Tensor, " time"]:
    ratio = masking.observed_ratios[_below(len(masking.observed_ratios), generator)]
    up = masking.observed_rounding == "up"
    # The released code rounds the float product as it is.
    observed = max(1, math.ceil(ratio * steps - ALMOST) if up else int(ratio * steps))
    total = int((1 + masking.future_multiple) * observed) if masking.future_multiple else steps
    return torch.arange(total) < observed


def _random_clips(
    masking: Masking, steps: int, generator: Generator | None
) -> Bool[Tensor, " time"]:
    whole, rest = divmod(steps, masking.clip_length)
    clips = whole + bool(rest and masking.partial_clip)
    fewest, most = masking.num_clips
    count = min(fewest + _below(most - fewest + 1, generator), clips)
    hidden = torch.zeros(clips + 1, dtype=torch.bool)
    hidden[torch.randperm(clips, generator=generator)[:count]] = True
    return ~hidden[(torch.arange(steps) // masking.clip_length).clamp(max=clips)]


def _below(number: int, generator: Generator | None) -> int:
    return int(torch.randint(number, (1,), generator=generator))


PAPER_50SALADS = Masking()
"""The paper, 50 Salads."""
PAPER_BREAKFAST = Masking(num_clips=(10, 10))
"""The paper, Breakfast."""
PAPER_GTEA = Masking(num_clips=(20, 20))
"""The paper, GTEA."""
RELEASED_50SALADS = Masking(
    kinds=("none", "anticipative", "random", "boundary", "relation", "relation"),
    observed_rounding="down",
    num_clips=(5, 10),
    partial_clip=False,
    num_relations=2,
)
"""The released ActFusion, 50 Salads; 5 and 10 clips included."""
RELEASED_BREAKFAST = Masking(
    kinds=("anticipative", "none", "boundary", "relation", "relation", "random"),
    observed_rounding="down",
    num_clips=(10, 10),
    partial_clip=False,
    boundary_below=0.3,
)
"""The released ActFusion, Breakfast."""
DIFFACT_50SALADS = Masking(
    kinds=("none", "all", "boundary", "relation", "relation"), num_relations=2
)
"""The released DiffAct, 50 Salads."""
DIFFACT_BREAKFAST = Masking(
    kinds=("none", "all", "boundary", "relation", "relation"), boundary_below=0.3
)
"""The released DiffAct, Breakfast."""
DIFFACT_GTEA = DIFFACT_BREAKFAST
"""The released DiffAct, GTEA."""
