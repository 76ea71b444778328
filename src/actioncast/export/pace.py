"""How often frames come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often frames come to an exported stream."""

    rate: float
    """Frames per second of the features."""
    stride: int
    """Every how many frames the model reads one."""


def pace_of(run: Mapping[str, Any]) -> Pace:
    """At what pace a checkpoint was trained.

    Raises:
        ValueError: It does not say.
    """
    training: Mapping[str, Any] = run.get("training") or {}
    if run.get("kind"):
        history = training.get("history") or {}
        features = training.get("input") == "features"
        rate = training.get("feature_rate") if features else history.get("rate")
        stride = 1
    else:
        rate, stride = run.get("rate"), int(training.get("stride", 1))
    if not rate or not float(rate) > 0:
        raise ValueError("this checkpoint does not say how many frames a second it reads.")
    return Pace(rate=float(rate), stride=stride)
