"""What a data set of short actions is: clips with a verb and a noun, not frames with a label.

Its actions overlap and leave gaps, so that no frame grid can hold them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from actioncast.timeline import Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionClip:
    """One annotated action of a video; times in seconds from the video's start."""

    id: str
    video: str
    participant: str
    start: float
    stop: float
    verb: int
    noun: int
    action: int
    narration: str = ""
    """What was said of it; empty where unknown."""
    place: int = 0
    """Its number among the actions of its video, where the annotation puts them in an order."""

    def label(self, head: str) -> int:
        """Its label by head: verb, noun or action."""
        return {"verb": self.verb, "noun": self.noun, "action": self.action}[head]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What is known of a video besides its actions."""

    duration: float
    """Seconds."""
    rate: float
    """Frames per second of the video file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipDataset:
    """Annotated actions, their taxonomy of verbs, nouns and pairs, and the published subsets."""

    name: str
    taxonomy: Taxonomy
    """Heads verb, noun and action, with `pairs`; the primary head is action."""
    clips: Mapping[str, tuple[ActionClip, ...]]
    """By part: `train` and `validation`, each in the order of the annotation file."""
    videos: Mapping[str, VideoInfo]
    """Empty where the annotation does not say how long its videos are."""
    tail: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Rare classes by head, verb and noun; an action is rare where its verb or its noun is."""
    unseen: frozenset[str] = frozenset()
    """Participants of the validation part who are absent from training."""
    warnings: tuple[str, ...] = ()
    """What was found odd and mended while reading, one sentence each."""

    def part(self, name: str) -> tuple[ActionClip, ...]:
        """The clips of a part.

        Raises:
            ValueError: There is none of that name.
        """
        if name not in self.clips:
            raise ValueError(
                f"unknown part {name!r} of {self.name}; its parts are {', '.join(self.clips)}."
            )
        return self.clips[name]

    def by_video(self, parts: Iterable[str] = ()) -> dict[str, tuple[ActionClip, ...]]:
        """The clips of each video by start, then stop, then id; of all parts where none is said."""
        found: dict[str, list[ActionClip]] = {}
        for name in parts or self.clips:
            for clip in self.part(name):
                found.setdefault(clip.video, []).append(clip)
        return {
            video: tuple(sorted(clips, key=lambda clip: (clip.start, clip.stop, clip.id)))
            for video, clips in found.items()
        }

    def fingerprint(self) -> str:
        """Twelve characters that change with any clip, class or subset."""
        digest = hashlib.sha256()
        for head, space in self.taxonomy.heads.items():
            digest.update(repr((head, space.names)).encode())
        digest.update(repr((self.taxonomy.pairs, sorted(self.unseen))).encode())
        digest.update(repr({head: sorted(tail) for head, tail in self.tail.items()}).encode())
        for part in sorted(self.clips):
            for c in self.clips[part]:
                facts = (part, c.id, c.video, c.start, c.stop, c.verb, c.noun, c.action)
                digest.update(repr((*facts, c.place) if c.place else facts).encode())
        return digest.hexdigest()[:12]
