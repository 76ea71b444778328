"""Which moments of a video a model may see when it names one action: before it, or of it.

Times are seconds from the start of the video. No frame is read here: whoever has frames reads the
one shown at each time, which is never later than the time itself.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

ClipPlace = Literal["before_action", "inside_action"]
"""Where the frames lie: before the boundary, or inside the action that is to be anticipated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipWindow:
    """What may be seen for one action, `[start, end)` in seconds, and when it is looked at."""

    start: float
    end: float
    times: tuple[float, ...]
    """When a frame is read, in order, each within the window. None where nothing can be seen: the
    action begins too early in its video. It is asked for and counted all the same."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return not self.times


@dataclass(frozen=True, slots=True, kw_only=True)
class NextAction:
    """Name the action that starts `anticipation_time` seconds after the last moment seen.

    Seen is `[start - anticipation_time - span, start - anticipation_time)`, cut at the start of
    the video, where frames then lie closer together (metrics sheet, section 3; sheet of MambaVL,
    section 5.2).
    """

    anticipation_time: float = 1.0
    """seconds from the last moment seen to the start of the action (tau_a)"""
    span: float = 64 / 30
    """seconds of video seen: 64 frames at 30 per second"""
    num_frames: int = 16
    """frames read of them, evenly"""
    clip: ClipPlace = "before_action"
    """where the frames lie: inside_action is the released InAViT's, which shows frames of the very
    action that it is asked for; its numbers are no anticipation"""

    def __post_init__(self) -> None:
        if not 0 < self.anticipation_time <= 1000:
            raise ValueError(
                "anticipation_time must be a positive number of seconds, at most 1000, got "
                f"{self.anticipation_time}; take Recognition to name an action that is seen."
            )
        if not 0 < self.span < math.inf:
            raise ValueError(f"span must be a positive number of seconds, got {self.span}.")
        _check_frames(self.num_frames)

    @property
    def name(self) -> str:
        """What a passport calls it; frames inside the action show in the name."""
        if self.clip == "inside_action":
            return "next action with frames inside the action (InAViT indexing)"
        return "next action"

    @property
    def leaks(self) -> bool:
        """Whether frames at or after the boundary are seen."""
        return self.clip == "inside_action"

    def until(self, start: float, stop: float) -> float:  # noqa: ARG002
        """The boundary: nothing at or after it may be known of the action `[start, stop)`.

        To the microsecond: 4.9 - 1.0 as floats would be a little after 3.9.
        """
        return round(start - self.anticipation_time, 6)

    def window(
        self, start: float, stop: float, *, rate: float = 60.0, draw: float = 0.0
    ) -> ClipWindow:
        """What may be seen of the action `[start, stop)`.

        Args:
            start: Seconds.
            stop: Seconds.
            rate: Frames per second of the video; inside_action alone asks for it.
            draw: Where a training clip inside the action begins, as a share in [0, 1) of what the
                action is longer than the clip; inside_action alone asks for it.
        """
        if self.clip == "inside_action":
            return self._inside(start, stop, rate, draw)
        end = self.until(start, stop)
        first = max(0.0, end - self.span)
        return ClipWindow(start=first, end=end, times=evenly(first, end, self.num_frames))

    def sentence(self) -> str:
        """The protocol in words, for a passport."""
        if self.clip == "inside_action":
            return (
                f"{self.num_frames} frames by the InAViT indexing: they lie inside the action to "
                f"be named, not {self.anticipation_time:g} s before it; this is early recognition."
            )
        return (
            f"{self.num_frames} frames of the {self.span:.4g} s that end "
            f"{self.anticipation_time:g} s before the action starts; none at or after that moment."
        )

    def _inside(self, start: float, stop: float, rate: float, draw: float) -> ClipWindow:
        """Replay the index arithmetic of the released loader (sheet of MambaVL, section 5.2).

        A clip's place is drawn within the action, then ended two frames (at 60 per second) before
        its own first frame; clamped to the action and added to its start, that is still within.
        """
        if not 0 <= draw < 1:
            raise ValueError(f"draw must be a share within [0, 1), got {draw}.")
        num_frames = max(1, round((stop - start) * rate))
        clip_size = self.span * rate
        first = max(num_frames - clip_size, 0) * draw
        end = first - rate / _TARGET_RATE
        begin = max(end - clip_size, 0)
        # Frame numbers count from 1 there, and the offsets are not counted back.
        offsets = np.linspace(begin + 1, end + 1, self.num_frames)
        index = np.clip(offsets, 0, num_frames - 1).astype(int)
        times = tuple(sorted((start + index / rate).tolist()))
        return ClipWindow(start=start, end=stop, times=times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """Name the action of a clip that is seen from its start to its stop."""

    num_frames: int = 16
    """frames read of it, evenly"""

    def __post_init__(self) -> None:
        _check_frames(self.num_frames)

    @property
    def name(self) -> str:
        """What a passport calls it."""
        return "recognition"

    @property
    def anticipation_time(self) -> float:
        """None: the action itself is seen."""
        return 0.0

    def until(self, start: float, stop: float) -> float:  # noqa: ARG002
        """The end of what is seen."""
        return stop

    def window(self, start: float, stop: float) -> ClipWindow:
        """What is seen of the action `[start, stop)`: all of it."""
        return ClipWindow(start=start, end=stop, times=evenly(start, stop, self.num_frames))

    def sentence(self) -> str:
        """The protocol in words, for a passport."""
        return f"{self.num_frames} frames of the action itself, from its start to its stop."


@runtime_checkable
class ClipProtocol(Protocol):
    """What a clip may be asked."""

    @property
    def name(self) -> str:
        """What a passport calls it."""

    @property
    def anticipation_time(self) -> float:
        """Seconds from the last moment seen to the action asked for."""

    def until(self, start: float, stop: float) -> float:
        """The boundary: nothing at or after it may be known of the action `[start, stop)`."""

    def window(self, start: float, stop: float) -> ClipWindow:
        """What may be seen of the action `[start, stop)`."""

    def sentence(self) -> str:
        """The protocol in words, for a passport."""


def evenly(start: float, end: float, count: int) -> tuple[float, ...]:
    """The middles of `count` equal parts of `[start, end)`; none where that is empty."""
    if not start < end:
        return ()
    middles = start + (np.arange(count) + 0.5) * ((end - start) / count)
    # In a window of a few rounding steps a middle could be rounded up to its end.
    return tuple(np.clip(middles, start, np.nextafter(end, start)).tolist())


_TARGET_RATE = 30.0
"""Frames per second that the released loader samples for."""


def _check_frames(num_frames: int) -> None:
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}.")
