"""Long-term anticipation: see the first share of a video, name the frames that follow.

All counts are frames of the video's own grid and are rounded as the published evaluators round:
`int` of a product of Python floats, so that int((0.2 + 0.5) * 90) is 62.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int

from actioncast.protocols.base import Question
from actioncast.timeline import seconds_to_frames


class HorizonSource(StrEnum):
    """Who says how many frames to anticipate."""

    TRUE_LENGTH = "true_length"
    """A share of the true length of the video, as everybody publishes; it leaks that length."""
    OBSERVED_MULTIPLE = "observed_multiple"
    """A multiple of what was observed (ActFusion's rectified protocol)."""
    SECONDS = "seconds"
    """A fixed time."""


def observed_frames(num_frames: int, observed_ratio: float) -> int:
    """Frames seen of a video of `num_frames`."""
    return int(observed_ratio * num_frames)


def future_frames(num_frames: int, horizon_ratio: float) -> int:
    """Frames asked for when the horizon is a share of the true length."""
    return int(horizon_ratio * num_frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTerm:
    """Name the frames after the observed share of a video; scored by MoC in windows.

    The scored windows are shares of the true length after the last observed frame, whatever the
    horizon source (see `window` for the one frame by which `true_length` may differ). What differs
    is how far a model is asked to look, and what it is told. Frames of a window that were asked for
    and not predicted count as wrong.
    """

    observed_ratios: tuple[float, ...] = (0.2, 0.3)
    """shares of the video seen (alpha)"""
    horizon_ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    """lengths of the scored windows as shares of the video (beta)"""
    horizon_source: HorizonSource = HorizonSource.TRUE_LENGTH
    """who says how many frames to anticipate"""
    asked_ratio: float = 0.5
    """horizon as a share of the video, for true_length; the longest window where that is longer"""
    multiple: float = 4.0
    """horizon over observed frames, for observed_multiple"""
    seconds: float = 300.0
    """horizon for seconds"""
    too_short: Literal["refuse", "leave_out"] = "refuse"
    """what becomes of a video of which an observed share leaves no frame to see: it is refused, or
    left out of the scores of that share"""
    rounded_to_steps: bool = False
    """show round(alpha * steps) steps of the model's grid, as the released ActFusion test does: up
    to stride - 1 frames beyond the boundary are seen; asks and scores from the boundary on"""

    def __post_init__(self) -> None:
        for name in ("observed_ratios", "horizon_ratios"):
            ratios = getattr(self, name)
            if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
                raise ValueError(f"{name} must be shares within (0, 1], got {ratios}.")
        if max(self.observed_ratios) + max(self.horizon_ratios) > 1 + 1e-9:
            raise ValueError(
                "an observed and a horizon ratio must fit into the video together, got "
                f"{self.observed_ratios} and {self.horizon_ratios}; make one of them smaller."
            )
        if not 0 < self.asked_ratio <= 1:
            raise ValueError(f"asked_ratio must be a share within (0, 1], got {self.asked_ratio}.")
        if not 0 < self.multiple <= 1000 or not 0 < self.seconds <= 100_000:
            raise ValueError(
                "multiple and seconds must be positive numbers, got "
                f"{self.multiple} and {self.seconds}; at most 1000 and 100000 make sense."
            )
        if self.rounded_to_steps and self.horizon_source is not HorizonSource.TRUE_LENGTH:
            raise ValueError(
                "an observation rounded to steps needs horizon source true_length, whose share it "
                f"is, got {self.horizon_source}; take one of them away."
            )

    def question(self, num_frames: int, observed_ratio: float, rate: float) -> Question:
        """What is asked about a video of `num_frames` at `rate` frames per second."""
        observed = observed_frames(num_frames, observed_ratio)
        match self.horizon_source:
            case HorizonSource.TRUE_LENGTH:
                horizon = self.told_horizon(num_frames)
                return Question(
                    observed=observed,
                    horizon=horizon,
                    video_length=num_frames,
                    step_ratio=observed_ratio if self.rounded_to_steps else None,
                )
            case HorizonSource.OBSERVED_MULTIPLE:
                return Question(observed=observed, horizon=int(self.multiple * observed))
            case HorizonSource.SECONDS:
                return Question(observed=observed, horizon=seconds_to_frames(self.seconds, rate))

    def told_horizon(self, num_frames: int) -> int:
        """Frames asked for with `true_length`; does not depend on which windows are scored."""
        return future_frames(num_frames, max(self.asked_ratio, *self.horizon_ratios))

    def questions(self, num_frames: int, rate: float) -> list[Question]:
        """One question an observed share."""
        return [self.question(num_frames, ratio, rate) for ratio in self.observed_ratios]

    def window(
        self, num_frames: int, observed_ratio: float, horizon_ratio: float
    ) -> tuple[int, int]:
        """The scored frames `[start, end)`.

        With `true_length` the published evaluators score no frame beyond the horizon asked for,
        which can end one frame before int((alpha + beta) * T); so does this.
        """
        start = observed_frames(num_frames, observed_ratio)
        end = min(int((observed_ratio + horizon_ratio) * num_frames), num_frames)
        if self.horizon_source is HorizonSource.TRUE_LENGTH:
            end = min(end, start + self.told_horizon(num_frames))
        return start, end


@dataclass(frozen=True, slots=True)
class Transcript:
    """The actions of a stretch of frames, in order, and the share of the horizon each takes."""

    labels: tuple[int, ...]
    shares: tuple[float, ...]
    after_end: float = 0.0
    """The share of the horizon that lies beyond the end of the video."""


def transcript(frames: Int[np.ndarray, " time"], asked: int | None = None) -> Transcript:
    """Run-lengths of `frames` as shares of the `asked` steps (FUTR's training targets).

    Args:
        frames: Labels of the future that exists, on the model's grid.
        asked: Steps asked for, where they reach beyond the end of the video.
    """
    total = max(len(frames) if asked is None else asked, 1)
    runs = [(int(label), len(list(run))) for label, run in groupby(frames.tolist())]
    shares: Float32[np.ndarray, " segment"] = np.array([n for _, n in runs], np.float32) / total
    return Transcript(
        tuple(label for label, _ in runs),
        tuple(shares.tolist()),
        (total - len(frames)) / total if len(frames) < total else 0.0,
    )


@dataclass(frozen=True, slots=True)
class StridedCut:
    """Observed and future frames of one training item, every `stride`-th of the video's."""

    past: range
    future: range


def cut_then_stride(
    num_frames: int, observed_ratio: float, stride: int, horizon_ratio: float = 0.5
) -> StridedCut:
    """FUTR's items: cut on the video's grid, then stride each piece from its own first frame."""
    observed = observed_frames(num_frames, observed_ratio)
    end = min(observed + future_frames(num_frames, horizon_ratio), num_frames)
    return StridedCut(range(0, observed, stride), range(observed, end, stride))


def stride_then_cut(
    num_frames: int, observed_ratio: float, stride: int, start: int = 0, horizon_ratio: float = 0.5
) -> StridedCut:
    """ActionLLM's items: stride the video, then cut, from the `start`-th strided step on."""
    strided = range(0, num_frames, stride)
    observed = observed_frames(len(strided), observed_ratio)
    end = start + observed + future_frames(len(strided), horizon_ratio)
    return StridedCut(
        strided[start : start + observed], strided[start + observed : min(end, len(strided))]
    )


def rounded_observation(
    num_frames: int, observed_ratio: float, stride: int, first: int = 0
) -> range:
    """Frames that the released ActFusion test reads, from one offset of the stride.

    It reads as many from every offset as from the first, so that up to `stride - 1` frames beyond
    the boundary are seen. Halves are rounded to even, as there; one step at least is read.
    """
    steps = max(1, round(len(range(0, num_frames, stride)) * observed_ratio))
    return range(first, num_frames, stride)[:steps]


def pad_queries(values: Sequence[float], num_queries: int, padding: float) -> list[float]:
    """Cut or pad a list to `num_queries` entries."""
    return [*values[:num_queries], *[padding] * (num_queries - len(values))]
