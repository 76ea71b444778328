"""What a protocol asks of a model about one video."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How much of a video is seen and how far ahead the model must look, in the video's frames."""

    observed: int
    """Frames seen, from the first."""
    horizon: int = 0
    """Frames to name after the last one seen."""
    video_length: int | None = None
    """Frames of the whole video, if the protocol gives them away."""
    step_ratio: float | None = None
    """Share of the steps of the whole video that is shown in place of the frames before `observed`;
    rounded, it can reach up to a stride beyond them. Needs `video_length`."""
