"""Segments and timelines: labelled intervals of time. NumPy only."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from jaxtyping import Int

UNLABELLED = -1
"""Label of a frame that no segment covers."""
COARSE, FINE = "coarse", "fine"
"""The uppermost and the lowest level of a hierarchy of labels."""


def seconds_to_frames(seconds: float, rate: float) -> int:
    """Frames in so many seconds, to the nearest."""
    return round(seconds * rate)


def frames_to_seconds(frames: int, rate: float) -> float:
    """Seconds that so many frames take."""
    return frames / rate


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """An ordered vocabulary of action names; a label is an index into it."""

    names: tuple[str, ...]
    background: frozenset[str] = frozenset()
    """Names that segment metrics leave out; in the public sets only GTEA has one."""
    unknown: frozenset[str] = frozenset()
    """Names that say that nobody knows what is done (Ambiguous of THUMOS14): such steps teach
    nothing, are not scored, and no model answers with such a name."""
    _index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a label space must hold at least one name, got none.")
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ValueError(f"label names must be unique, got {', '.join(twice)} more than once.")
        if unknown := self.background - set(self.names):
            raise ValueError(f"background names must be labels, got {sorted(unknown)}.")
        if strange := self.unknown - set(self.names):
            raise ValueError(f"unknown names must be labels, got {sorted(strange)}.")
        object.__setattr__(self, "_index", {name: i for i, name in enumerate(self.names)})

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def index(self, name: str) -> int:
        """Return the label of `name`."""
        try:
            return self._index[name]
        except KeyError:
            known = ", ".join(self.names[:60]) + (", ..." if len(self.names) > 60 else "")
            raise ValueError(f"unknown action {name!r}; the labels are {known}.") from None

    @property
    def background_labels(self) -> frozenset[int]:
        """The background names as labels."""
        return frozenset(self._index[name] for name in self.background)

    @property
    def unknown_labels(self) -> tuple[int, ...]:
        """The unknown names as labels, in order."""
        return tuple(sorted(self._index[name] for name in self.unknown))


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """The label space of every head; frames and timelines speak the primary one.

    A hierarchy is two or more heads, from coarse to fine: `activity` and `action`, say.
    """

    heads: Mapping[str, LabelSpace]
    primary: str = "action"
    pairs: tuple[tuple[int, int], ...] = ()
    """The verb and the noun of every label of the head `action`, where actions are such pairs and
    `verb` and `noun` are heads themselves; else empty."""
    levels: tuple[str, ...] = ()
    """Heads that name the same frames, from coarse to fine; empty without a hierarchy."""
    parents: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By level, the label of it that follows from each label of the finest one. A level is absent
    where none follows: the same action may serve several activities."""

    def __post_init__(self) -> None:
        if self.primary not in self.heads:
            raise ValueError(
                f"the primary head {self.primary!r} must be one of {list(self.heads)}."
            )
        if self.pairs:
            self._check_pairs()
        self._check_levels()

    def _check_levels(self) -> None:
        if not self.levels:
            if self.parents:
                raise ValueError("parents need levels, got parents of no level.")
            return
        if len(set(self.levels)) < max(2, len(self.levels)) or set(self.levels) - set(self.heads):
            raise ValueError(
                f"levels must be two or more different heads of {', '.join(self.heads)}, from "
                f"coarse to fine, got {', '.join(self.levels)}."
            )
        if self.primary not in self.levels:
            raise ValueError(
                f"the primary head must be one of the levels {', '.join(self.levels)}, got "
                f"{self.primary!r}."
            )
        for level, parents in self.parents.items():
            if level not in self.levels[:-1]:
                raise ValueError(
                    f"parents must be of a level above {self.levels[-1]!r}, got {level!r}."
                )
            size = len(self.heads[level])
            if len(parents) != len(self.finest) or not all(0 <= p < size for p in parents):
                raise ValueError(
                    f"parents must give each of the {len(self.finest)} finest labels one of the "
                    f"{size} of {level!r}, got {len(parents)} between {min(parents, default=0)} "
                    f"and {max(parents, default=0)}."
                )

    def _check_pairs(self) -> None:
        if missing := {"verb", "noun", "action"} - set(self.heads):
            raise ValueError(
                f"pairs need the heads verb, noun and action, got none called "
                f"{', '.join(sorted(missing))}."
            )
        verbs, nouns = len(self.heads["verb"]), len(self.heads["noun"])
        if len(self.pairs) != len(self.heads["action"]):
            raise ValueError(
                f"pairs must name one verb and noun for each of {len(self.heads['action'])} "
                f"actions, got {len(self.pairs)}."
            )
        for verb, noun in self.pairs:
            if not (0 <= verb < verbs and 0 <= noun < nouns):
                raise ValueError(
                    f"a pair must be a verb of 0..{verbs - 1} and a noun of 0..{nouns - 1}, got "
                    f"({verb}, {noun})."
                )

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        background: Iterable[str] = (),
        head: str = "action",
        unknown: Iterable[str] = (),
    ) -> "Taxonomy":
        """Build a taxonomy of one head."""
        space = LabelSpace(tuple(names), frozenset(background), frozenset(unknown))
        return cls({head: space}, head)

    @property
    def labels(self) -> LabelSpace:
        """The label space of frames and timelines."""
        return self.heads[self.primary]

    @property
    def finest(self) -> LabelSpace:
        """The labels of the lowest level, which is the primary head without a hierarchy."""
        return self.heads[self.levels[-1] if self.levels else self.primary]

    @property
    def level(self) -> str:
        """Where the primary head stands: `fine`, `coarse`, or its own name between them."""
        if not self.levels or self.primary == self.levels[-1]:
            return FINE
        return COARSE if self.primary == self.levels[0] else self.primary

    def at(self, level: str) -> "Taxonomy":
        """The same hierarchy whose frames and timelines speak another level.

        Args:
            level: `coarse`, `fine`, or the name of a head of `levels`.

        Raises:
            ValueError: There is no such level.
        """
        ends = {COARSE: self.levels[0], FINE: self.levels[-1]} if self.levels else {}
        head = ends.get(level, level)
        if head not in self.levels:
            known = ", ".join(dict.fromkeys((COARSE, FINE, *self.levels)))
            raise ValueError(
                f"the level must be one of {known}, got {level!r}."
                if self.levels
                else f"the level must be empty where labels have no hierarchy, got {level!r}."
            )
        return replace(self, primary=head)


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One action in time, `[start, end)` in seconds; `score` in [0, 1] is how sure it is."""

    start: float
    end: float
    label: int
    score: float = field(default=1.0, compare=False)

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise ValueError(f"a segment must end after it starts, got [{self.start}, {self.end}).")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Timeline:
    """The segments of one video, sorted by start. They may overlap (EPIC-KITCHENS does)."""

    segments: tuple[Segment, ...]
    labels: LabelSpace

    def __post_init__(self) -> None:
        if any(b < a for a, b in pairwise(self.segments)):
            raise ValueError("timeline segments must be sorted by start; use Timeline.of().")
        if bad := [s for s in self.segments if not 0 <= s.label < len(self.labels)]:
            raise ValueError(
                f"a segment's label must be one of 0..{len(self.labels) - 1}, got {bad[0]}."
            )

    @classmethod
    def of(cls, segments: Iterable[Segment], labels: LabelSpace) -> "Timeline":
        """Build a timeline from segments in any order."""
        return cls(tuple(sorted(segments)), labels)

    @classmethod
    def from_frames(
        cls, frames: Int[np.ndarray, " time"], rate: float, labels: LabelSpace, start: float = 0.0
    ) -> "Timeline":
        """Run-length encode frame labels sampled at `rate` frames per second.

        Frames labelled `UNLABELLED` become gaps.
        """
        return cls(
            tuple(
                Segment(
                    start + frames_to_seconds(first, rate),
                    start + frames_to_seconds(end, rate),
                    label,
                )
                for label, first, end in run_lengths(frames)
                if label != UNLABELLED
            ),
            labels,
        )

    def to_frames(self, num_frames: int, rate: float) -> Int[np.ndarray, " time"]:
        """Sample one label per frame; `from_frames` undoes it exactly."""
        frames = np.full(num_frames, UNLABELLED)
        for segment in self.segments:
            a, b = seconds_to_frames(segment.start, rate), seconds_to_frames(segment.end, rate)
            if (frames[a:b] != UNLABELLED).any():
                raise ValueError(
                    f"frame labels need disjoint segments, but {segment} overlaps an earlier one."
                )
            frames[a:b] = segment.label
        if (frames == UNLABELLED).any():
            first = int(np.flatnonzero(frames == UNLABELLED)[0])
            raise ValueError(
                f"frame labels need full coverage, got a gap at frame {first} of {num_frames}; "
                "name every frame, as background where nothing is done."
            )
        return frames

    def crop(self, start: float, end: float) -> "Timeline":
        """Keep what lies within `[start, end)` seconds, segments cut at its edges."""
        kept = (
            Segment(max(s.start, start), min(s.end, end), s.label, s.score)
            for s in self.segments
            if s.start < end and s.end > start
        )
        return Timeline.of(kept, self.labels)

    @property
    def end(self) -> float:
        """When the last segment ends, in seconds; 0 without segments."""
        return max((s.end for s in self.segments), default=0.0)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)


def run_lengths(frames: Int[np.ndarray, " time"]) -> list[tuple[int, int, int]]:
    """Maximal runs of equal labels as `(label, first, end)`, frames `[first, end)`."""
    if not len(frames):
        return []
    edges = [0, *(np.flatnonzero(np.diff(frames)) + 1).tolist(), len(frames)]
    return [(int(frames[a]), a, b) for a, b in pairwise(edges)]
