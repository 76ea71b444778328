"""Ego4D's long-term anticipation: some actions are seen, the next ones are named in their order.

When they will happen is not asked for (metrics sheet, section 6).
"""

import math
from dataclasses import dataclass

from actioncast.protocols.next_action import ClipWindow, evenly


@dataclass(frozen=True, slots=True, kw_only=True)
class ComingActions:
    """After `num_observed` actions of a video, name the next `num_actions`.

    Seen is the video up to the end of the last of those observed, of it the last `span` seconds.
    """

    num_observed: int = 8
    """actions observed"""
    num_actions: int = 20
    """actions asked for (Z)"""
    span: float = 32.0
    """seconds of video seen"""
    feature_rate: float = 1.875
    """vectors per second of feature files: one for 16 frames at 30 per second"""
    every_example: bool = False
    """ask about the last `num_actions` of a video as well, which the released code leaves out"""

    def __post_init__(self) -> None:
        if self.num_observed < 1 or self.num_actions < 1:
            raise ValueError(
                "num_observed and num_actions must be at least 1, got "
                f"{self.num_observed} and {self.num_actions}."
            )
        if not 0 < self.span < math.inf or not 0 < self.feature_rate < math.inf:
            raise ValueError(
                "span must be a positive number of seconds and feature_rate of vectors a second, "
                f"got {self.span} and {self.feature_rate}."
            )

    @property
    def name(self) -> str:
        """What a passport calls it; which examples are asked for shows in the name."""
        every = ", the last of each video too" if self.every_example else ""
        return f"the next {self.num_actions} actions after {self.num_observed}{every}"

    @property
    def anticipation_time(self) -> float:
        """None: the first action to name may start at once."""
        return 0.0

    @property
    def num_frames(self) -> int:
        """Vectors of a full span."""
        return max(1, round(self.span * self.feature_rate))

    def until(self, start: float, stop: float) -> float:  # noqa: ARG002
        """The boundary after the last action observed, `[start, stop)`: its end."""
        return stop

    def window(self, start: float, stop: float) -> ClipWindow:
        """What may be seen where the last action observed is `[start, stop)`."""
        end = self.until(start, stop)
        first = max(0.0, end - self.span)
        return ClipWindow(start=first, end=end, times=evenly(first, end, self.num_frames))

    def sentence(self) -> str:
        """The protocol in words, for a passport."""
        return (
            f"the {self.span:g} s that end with the last of {self.num_observed} actions observed; "
            "nothing after that."
        )

    def asked(self, count: int) -> range:
        """Places of the last action observed, one an example, in a video of `count` actions.

        Ego4D's released loader counts one example fewer than there are.
        """
        stop = count - self.num_actions + self.every_example - 1
        return range(self.num_observed - 1, max(stop, self.num_observed - 1))
