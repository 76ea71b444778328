"""Online detection and anticipation: at every step, what is under way and what will be soon.

Every answer is made from the past alone. THUMOS14 and TVSeries are scored so (metrics sheet,
section 5).
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from actioncast.protocols.base import Question
from actioncast.timeline import LabelSpace

Way = Literal["at_once", "streamed"]
"""How a model is run: every video in one call, or step by step as a camera would show it, which
measures what a step takes. The answers are the same."""
MOMENTS = tuple(0.25 * i for i in range(1, 9))
"""Seconds ahead at which THUMOS14 and TVSeries are scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """Name the action of every step, and those at moments ahead of it; scored by mAP and cAP."""

    ahead: tuple[float, ...] = MOMENTS
    """seconds after each step at which the action is asked for; none asks for the present alone"""
    skip: tuple[str, ...] = ("Background", "Ambiguous")
    """names that are no actions and get no score of their own, besides what the data calls
    background"""
    left_out: str = "Ambiguous"
    """name of the label whose steps are not scored at all, where the data have it"""
    alignment: Literal["target", "shifted_by_one"] = "target"
    """which label an answer about a moment ahead is compared with: that of the moment, or, to
    reproduce numbers of MiniROAD, that of the step before it"""
    way: Way = "at_once"
    """every video in one call, or step by step, which measures the time of a step"""

    def __post_init__(self) -> None:
        if not all(0 < moment < math.inf for moment in self.ahead) or any(
            b <= a for a, b in pairwise(self.ahead)
        ):
            raise ValueError(
                "ahead must be seconds above 0, each larger than the one before, got "
                f"{', '.join(f'{moment:g}' for moment in self.ahead)}; sort them."
            )

    def questions(self, num_frames: int, rate: float) -> list[Question]:  # noqa: ARG002
        """One question: the whole video, whose every step is answered from what came before."""
        return [Question(observed=num_frames)]

    def skipped(self, labels: LabelSpace) -> frozenset[int]:
        """Labels without a score of their own."""
        return labels.background_labels | {
            labels.index(name) for name in (*self.skip, self.left_out) if name in labels
        }

    def left_out_label(self, labels: LabelSpace) -> int | None:
        """The label whose steps are not scored; none where the data have no such."""
        return labels.index(self.left_out) if self.left_out in labels else None

    def metric(self, labels: LabelSpace) -> str:
        """What is scored, for a passport."""
        skipped = [labels.names[label] for label in sorted(self.skipped(labels))]
        said = "mAP and cAP per step, mean over the labels that occur"
        said += f" without {', '.join(skipped)}" if skipped else ", none skipped"
        if self.left_out_label(labels) is not None:
            said += f"; steps of {self.left_out} left out"
        return said + "; scores neither smoothed nor switched"
