"""Temporal action segmentation: see the whole video, name every frame."""

from dataclasses import dataclass

from actioncast.protocols.base import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Name every frame of a whole video."""

    legacy_last_segment: bool = False
    """End the last segment one frame early, as evaluators before July 2020 and DiffAct's do."""

    def questions(self, num_frames: int, rate: float) -> list[Question]:  # noqa: ARG002
        """One question: the whole video."""
        return [Question(observed=num_frames)]
