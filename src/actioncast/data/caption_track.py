"""Captions of one video: vectors, and the frames after which each may be told."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from actioncast.features import frame_tolerance

CLOSE = 1e-3
"""Frames by which a time written down may miss the edge of a frame."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaptionTrack:
    """What was written about a video, one vector a caption, in the order in which it is told.

    A caption is told when its last frame has been seen, and not before: whoever wrote it has seen
    that frame, so that it would carry the future into the past.
    """

    vectors: Float32[np.ndarray, "caption width"]
    starts: Int[np.ndarray, " caption"]
    """The first frame that each is about."""
    ends: Int[np.ndarray, " caption"]
    """The frame before which each ends: as many frames must have been seen. Never falling."""

    def __post_init__(self) -> None:
        if (self.starts < 0).any() or (self.starts >= self.ends).any():
            raise ValueError("captions must start at a frame of 0 or more and before their end.")
        if (np.diff(self.ends) < 0).any():
            raise ValueError("captions must be sorted by their end, got them in another order.")

    @classmethod
    def of_seconds(
        cls,
        vectors: Float[np.ndarray, "caption width"],
        start: Float[np.ndarray, " caption"],
        end: Float[np.ndarray, " caption"],
        rate: float,
        num_frames: int,
    ) -> "CaptionTrack":
        """The captions of a video of so many frames; each takes all frames that it touches.

        One that ends after the last frame by no more than labels and features may differ in length
        ends with the video; one that ends later is about more than there is to see, and left out.

        Args:
            vectors: In any order of time.
            start: Seconds.
            end: Seconds.
            rate: Frames per second.
            num_frames: Of the video.
        """
        starts = np.floor(start * rate + CLOSE).astype(int)
        ends = np.ceil(end * rate - CLOSE).astype(int)
        # A caption shorter than what a time may be wrong by takes the frame that it is in.
        ends = np.maximum(ends, starts + 1)
        kept = (starts < num_frames) & (ends <= num_frames + frame_tolerance(num_frames))
        ends = np.minimum(ends, num_frames)
        order = np.lexsort((starts, ends))
        order = order[kept[order]]
        return cls(
            vectors=vectors[order].astype(np.float32), starts=starts[order], ends=ends[order]
        )

    def told(self, observed: int) -> Float32[np.ndarray, "caption width"]:
        """The captions all of which lies within the frames `[0, observed)`; there may be none."""
        return self.vectors[: int(np.searchsorted(self.ends, observed, side="right"))]

    def shown_at(self, index: Int[np.ndarray, " time"]) -> "CaptionTrack":
        """The captions of the same video on another grid: its frame `i` is frame `index[i]` here.

        A caption whose last frame is not left is told with the next one that is, and never where
        none comes. What began before the first frame that is left has not been seen whole, and is
        left out.

        Args:
            index: Never falling.
        """
        # The first frame of the other grid that shows the last of a caption, or a later one.
        last = np.searchsorted(index, self.ends - 1)
        kept = (last < len(index)) & (self.starts >= (index[0] if len(index) else math.inf))
        # A start that is not left counts as the frame before: who starts later has not seen it.
        begun = np.searchsorted(index, self.starts[kept], side="right") - 1
        return CaptionTrack(
            vectors=self.vectors[kept],
            starts=np.searchsorted(index, index[begun]),
            ends=last[kept] + 1,
        )
