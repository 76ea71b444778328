"""How often frames come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NEAR = 0.01
"""Share by which the rate of features may differ from that of training: clocks are not exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often frames come to an exported stream."""

    rate: float
    """Frames per second of the features."""
    stride: int
    """Every how many frames the model reads one."""

    def seconds(self, frames: int) -> str:
        """How long so many frames take, in words."""
        return f"{frames / self.rate:.1f} s"

    def given(self, rate: float) -> "Pace":
        """That of features that come at a rate, to a model that was trained at this pace.

        Args:
            rate: Frames per second; 0 is that of training.

        Raises:
            ValueError: Steps of the model would take another time than those that it learned from.
        """
        if rate and abs(rate - self.rate) > NEAR * self.rate:
            raise ValueError(
                f"--rate must be that of training, {self.rate:g} frames a second, or what the "
                f"model says of 1 s would come after {self.rate / rate:.2g} s, got {rate:g}; give "
                f"features of {self.rate:g} frames a second."
            )
        return Pace(rate=rate or self.rate, stride=self.stride)


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


def frames_between(every: str, pace: Pace) -> int:
    """Frames from one answer to the next, of `--every`.

    Raises:
        ValueError: It is no number of frames or seconds, or not whole strides.
    """
    frames = whole_frames("--every", every or str(pace.stride), pace)
    if frames % pace.stride:
        up = -(-frames // pace.stride) * pace.stride
        raise ValueError(
            f"--every must be a whole number of strides, got {frames} frames and stride "
            f"{pace.stride}; say --every {up}."
        )
    return frames


def whole_frames(option: str, text: str, pace: Pace) -> int:
    """Frames of an option that takes frames, as 8, or seconds, as 2s.

    Raises:
        ValueError: It is neither.
    """
    word = text.strip().lower()
    try:
        seconds = word.endswith("s")
        amount = float(word.removesuffix("s"))
    except ValueError:
        amount, seconds = 0.0, False
    frames = round(amount * pace.rate) if seconds and amount < 1e9 else amount
    if not 1 <= frames < 1e9 or frames != int(frames):
        raise ValueError(
            f"{option} must be whole frames, as 8, or seconds, as 2s, at least one frame at "
            f"{pace.rate:g} a second, got {text!r}."
        )
    return int(frames)
