"""How weights are moved: rates, their schedule, weight decay, and which checkpoint counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from actioncast.models.base import Anticipator

MOMENTUM = 0.9
"""Of gradients, whoever takes the steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """What every training by gradients depends on, whatever it reads."""

    epochs: int = 60
    """passes over what is trained on"""
    batch_size: int = 16
    """items in a batch"""
    accumulate: int = 1
    """batches whose gradients are averaged before a step"""
    lr: float = 1e-3
    """peak learning rate"""
    fast_lr: float = 0.0
    """peak rate of the layers that a model says learn fast; 0 takes lr"""
    backbone_lr: float = 0.0
    """peak rate of the layers that a model says were trained before; 0 takes lr"""
    lr_start: float | None = None
    """rate of the first step of warm-up; absent, one step of the way up from 0"""
    lr_end: float = 0.0
    """rate that the cosine goes down to"""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """who takes the steps; adam and sgd (momentum 0.9) add weight decay to the gradient"""
    beta2: float = 0.999
    """memory of squared gradients that adam and adamw have"""
    weight_decay: float = 5e-3
    """on every parameter but those that a model exempts"""
    decay_biases: bool = True
    """weight decay on biases and norms too"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """the learning rate after warm-up: a cosine down to lr_end, or the peak throughout"""
    schedule_by: Literal["epoch", "step"] = "epoch"
    """when the rate changes"""
    warmup_epochs: int = 10
    """epochs of linear warm-up"""
    warmup_from_zero: bool = False
    """start at learning rate 0, which wastes an epoch, as FUTR's released code does"""
    clip: float = 0.0
    """greatest gradient norm; 0 does not clip"""
    selection: Literal["validation", "last", "test"] = "validation"
    """which checkpoint counts: best on held-out training videos, last, or best on the test split"""
    validation_share: float = 0.1
    """share of the training videos held out for selection, whole groups (persons) at a time"""
    validate_every: int = 1
    """epochs between validations"""
    seed: int = 0
    """of weights, order and dropout"""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 < self.validation_share < 1:
            raise ValueError(
                f"validation_share must be within (0, 1), got {self.validation_share}."
            )
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2 must be within [0, 1), got {self.beta2}.")
        if not all(map(math.isfinite, (self.lr, self.weight_decay, self.clip))):
            raise ValueError(
                f"lr, weight_decay and clip must be finite, got {self.lr}, {self.weight_decay} and "
                f"{self.clip}."
            )
        if not self.lr > 0 or self.weight_decay < 0 or self.clip < 0:
            raise ValueError(
                "lr must be positive, weight_decay and clip 0 or more, got "
                f"{self.lr}, {self.weight_decay} and {self.clip}."
            )
        for name in ("fast_lr", "backbone_lr", "lr_start", "lr_end"):
            rate = getattr(self, name) or 0.0
            if not 0 <= rate < math.inf:
                raise ValueError(f"{name} must be a rate of 0 or more, got {rate}.")
        if self.warmup_from_zero and self.lr_start:
            raise ValueError(
                f"warmup_from_zero starts at rate 0, got lr_start {self.lr_start}; say one of them."
            )


def rate_share(config: Optimisation, step: int, steps: int, warmup: int, peak: float) -> float:
    """The learning rate of a step as a share of its peak.

    Args:
        config: Says how it changes.
        step: Counted from 0.
        steps: All there are.
        warmup: The first of them, in which the rate climbs to its peak.
        peak: Highest rate of these parameters.
    """
    start = 0.0 if config.warmup_from_zero else config.lr_start
    if step < warmup:
        if start is None:
            return (step + 1) / warmup
        # The last epoch of warm-up is at the peak, the first at the start; counted in steps from
        # zero, as ActionLLM's released code does, the peak comes one step after warm-up.
        after = config.warmup_from_zero and config.schedule_by == "step"
        climbed = step / (warmup if after else max(warmup - 1, 1))
        return _between(start / peak, 1.0, climbed)
    if config.schedule == "constant":
        return 1.0
    fall = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
    return _between(config.lr_end / peak, 1.0, fall)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def parameter_groups(model: Anticipator, config: Optimisation) -> list[dict[str, Any]]:
    """The parameters of a model by peak rate and weight decay; one group where they do not differ.

    Parameters marked with `_no_weight_decay` get none; frozen ones are left out.

    Raises:
        ValueError: A rate is given for layers that the model does not name.
    """
    peaks: dict[int, float] = {}
    for name, peak, layers in (
        ("fast_lr", config.fast_lr, model.fast_parameters()),
        ("backbone_lr", config.backbone_lr, model.slow_parameters()),
    ):
        if peak and not layers:
            raise ValueError(
                f"{name} must go with a model that names such layers, got {type(model).__name__}, "
                "which names none; leave it at 0."
            )
        peaks |= {id(parameter): peak or config.lr for parameter in layers}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        spared = getattr(parameter, "_no_weight_decay", False) or (
            not config.decay_biases and parameter.ndim < 2
        )
        kind = (peaks.get(id(parameter), config.lr), 0.0 if spared else config.weight_decay)
        groups.setdefault(kind, []).append(parameter)
    # Those at the ordinary rate first: theirs is the rate that is logged.
    ordered = sorted(groups.items(), key=lambda group: group[0][0] != config.lr)
    return [
        {"params": parameters, "lr": peak, "weight_decay": decay}
        for (peak, decay), parameters in ordered
    ]


def make_optimizer(groups: Sequence[dict[str, Any]], config: Optimisation) -> torch.optim.Optimizer:
    """The optimiser that a config asks for, over `parameter_groups`."""
    adam: dict[str, Any] = {
        "lr": config.lr,
        "betas": (MOMENTUM, config.beta2),
        "weight_decay": config.weight_decay,
    }
    match config.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, **adam)
        case "adam":
            return torch.optim.Adam(groups, **adam)
        case "sgd":
            return torch.optim.SGD(
                groups, lr=config.lr, momentum=MOMENTUM, weight_decay=config.weight_decay
            )
