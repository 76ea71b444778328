"""What a dataset is, whatever its files look like."""

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from actioncast.data.caption_track import CaptionTrack
from actioncast.features import FeatureSource, LabelFeatures, ResampledFeatures
from actioncast.timeline import FINE, Taxonomy, Timeline
from actioncast.types import TrainingTimeline


@runtime_checkable
class LabelSource(Protocol):
    """Who names the actions of a video while it runs: a recogniser.

    A recogniser that looks ahead says other things of a frame when it has seen more. What it would
    say of a whole video tells of the future, so it is asked anew for every share of one.
    """

    @property
    def causal(self) -> bool:
        """Whether what is said of a frame stays the same however much is seen after it."""

    def read(self, observed: int) -> Int[np.ndarray, " time"]:
        """Labels of the frames `[0, observed)`, told by somebody who has seen no later frame."""


ObservedLabels = Int[np.ndarray, " time"] | LabelSource
"""One label a frame that was fixed beforehand, or who names them from what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One annotated video. Its own frame grid is the one that its annotation was made on."""

    id: str
    timeline: Timeline
    rate: float
    """Frames per second."""
    num_frames: int
    features: FeatureSource | None = None
    observed_labels: ObservedLabels | None = field(default=None, repr=False)
    """Labels that a model may read as input, where the run allows it; see `labels_seen`. They are
    of the finest level, whichever one the timeline speaks."""
    captions: CaptionTrack | None = field(default=None, repr=False)
    """What was written about the video, where the run reads it; see `CaptionTrack.told`."""
    levels: Mapping[str, Int[np.ndarray, " time"]] = field(default_factory=dict, repr=False)
    """The label of every frame by head, of the levels that the timeline does not speak."""
    above_finest: bool = False
    """Whether the timeline speaks a level above the finest."""
    parents: Int[np.ndarray, " label"] | None = field(default=None, repr=False)
    """Then, the timeline's label of each finest one; absent where none follows."""
    active: Bool[np.ndarray, "time label"] | None = field(default=None, repr=False)
    """All actions under way at every frame, where several may be at once (THUMOS14); absent, the
    timeline says the one there is. With it the timeline may overlap and leave gaps."""
    group: str = ""
    """Who acts: a fair split never has a group on both sides."""
    recording: str = ""
    """What was filmed; videos of one recording, by several cameras, are not independent."""

    def frames(self) -> Int[np.ndarray, " time"]:
        """The label of every frame; of several at once the first in the order of the labels."""
        if self.active is not None:
            return self.active.argmax(1)
        return self.timeline.to_frames(self.num_frames, self.rate)

    def frames_of(self, head: str) -> Int[np.ndarray, " time"]:
        """The label of every frame at a level of the hierarchy; of the timeline's for any other."""
        return self.levels[head] if head in self.levels else self.frames()

    def at_own_level(
        self, finest: Int[np.ndarray, " time"] | None
    ) -> Int[np.ndarray, " time"] | None:
        """Observed labels of the finest level as the timeline speaks; absent where none follow."""
        if finest is None or not self.above_finest:
            return finest
        return None if self.parents is None else self.parents[finest]

    def labels_seen(self, observed: int) -> Int[np.ndarray, " time"] | None:
        """The finest labels that a model may read of the frames `[0, observed)`; absent where not.

        Raises:
            ValueError: Whoever names them names more frames, or fewer.
        """
        if self.observed_labels is None:
            return None
        if isinstance(self.observed_labels, np.ndarray):
            return self.observed_labels[:observed]
        told = self.observed_labels.read(observed)
        if len(told) != observed:
            raise ValueError(
                f"observed labels of {self.id} must name the {observed} frames seen, got "
                f"{len(told)}; mend their source."
            )
        return told

    def resampled(self, every: int) -> "Video":
        """The video on the grid of every `every`-th frame, from the first: all else is forgotten.

        Annotation, features and observed labels alike, so that whatever is cut or scored counts the
        frames that are left (ActionLLM's released code; sheet section 5).
        """
        if every == 1:
            return self
        frames, rate = self.frames()[::every], self.rate / every
        labels = self.observed_labels
        if isinstance(labels, np.ndarray):
            labels = labels[::every]
        elif labels is not None:
            labels = ResampledLabels(labels, every)
        return replace(
            self,
            timeline=Timeline.from_frames(frames, rate, self.timeline.labels),
            rate=rate,
            num_frames=len(frames),
            features=None if self.features is None else ResampledFeatures(self.features, every),
            observed_labels=labels,
            captions=None
            if self.captions is None
            else self.captions.shown_at(np.arange(0, self.num_frames, every)),
            levels={head: frames[::every] for head, frames in self.levels.items()},
            active=None if self.active is None else self.active[::every],
        )

    def counted(self) -> TrainingTimeline:
        """The video as a counting model sees it in training."""
        return TrainingTimeline(
            timeline=self.timeline, rate=self.rate, num_frames=self.num_frames, group=self.group
        )


@dataclass(frozen=True, slots=True)
class ResampledLabels:
    """Observed labels on a coarser grid: frame `i` is frame `i * every` of their source."""

    source: LabelSource
    every: int

    @property
    def causal(self) -> bool:
        """See `LabelSource`."""
        return self.source.causal

    def read(self, observed: int) -> Int[np.ndarray, " time"]:
        """See `LabelSource`; whoever names them sees no frame after the last that is kept."""
        return self.source.read((observed - 1) * self.every + 1 if observed else 0)[:: self.every]


@dataclass(frozen=True, slots=True)
class Split:
    """Which videos train and which test."""

    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelInput:
    """Labels as input features instead of what was seen (see `features.LabelFeatures`)."""

    wrong_share: float = 0.0
    """share of the segments whose label is replaced by another"""
    blur: float = 0.0
    """boundaries come late by the size of a normal of this deviation, in frames"""
    wrong_frames: float = 0.0
    """share of the frames that are taken for another action, in runs"""
    wrong_run: float = 60.0
    """mean frames of such a run"""
    seed: int = 0
    """which segments and how far: the same seed spoils the same way"""

    def __str__(self) -> str:
        if not self.wrong_share and not self.blur and not self.wrong_frames:
            return "true labels"
        runs = ""
        if self.wrong_frames:
            runs = f", a share of {self.wrong_frames!r} frames wrong in runs of {self.wrong_run!r}"
        return (
            f"true labels with a share of {self.wrong_share!r} wrong segments, boundaries late by "
            f"{self.blur!r} frames{runs}, seed {self.seed}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Annotated videos, their label space and their splits."""

    name: str
    taxonomy: Taxonomy
    rate: float
    videos: Mapping[str, Video]
    splits: Mapping[str, Split]
    warnings: tuple[str, ...] = ()
    """What was found odd and mended while reading, one sentence each."""
    made_from: "Dataset | None" = field(default=None, repr=False)
    """The data on their own grid, where these are resampled."""
    without_levels: "Dataset | None" = field(default=None, repr=False)
    """The data as annotated, where a hierarchy was added."""

    def with_label_input(self, source: LabelInput) -> "Dataset":
        """The same dataset whose input features are its finest labels, one-hot."""

        def relabelled(video: Video) -> Video:
            features = self._told(video, source)
            return replace(video, features=features, observed_labels=features.frames)

        videos = {name: relabelled(video) for name, video in self.videos.items()}
        return replace(self, videos=videos)

    def with_true_labels(self, source: LabelInput) -> "Dataset":
        """The same dataset whose labels, spoilt as said, may be read beside its features."""
        videos = {
            name: replace(video, observed_labels=self._told(video, source).frames)
            for name, video in self.videos.items()
        }
        return replace(self, videos=videos)

    def _told(self, video: Video, source: LabelInput) -> LabelFeatures:
        finest = self.taxonomy.levels[-1] if self.taxonomy.levels else self.taxonomy.primary
        return LabelFeatures(
            video.frames_of(finest),
            len(self.taxonomy.finest),
            source.wrong_share,
            source.blur,
            # Two videos that begin alike are not spoilt alike.
            zlib.crc32(f"{source.seed}:{video.id}".encode()),
            source.wrong_frames,
            source.wrong_run,
        )

    def resampled(self, every: int) -> "Dataset":
        """The same dataset on the grid of every `every`-th frame; see `Video.resampled`.

        Its fingerprint stays that of the data it was made from.
        """
        if every == 1:
            return self
        videos = {name: video.resampled(every) for name, video in self.videos.items()}
        return replace(
            self, videos=videos, rate=self.rate / every, made_from=self.made_from or self
        )

    def at_level(self, level: str) -> "Dataset":
        """The same dataset whose timelines speak another level of its hierarchy.

        Args:
            level: `coarse`, `fine`, or the name of one.

        Raises:
            ValueError: There is no such level.
        """
        taxonomy = self.taxonomy.at(level)
        head, own = taxonomy.primary, self.taxonomy.primary
        parents = taxonomy.parents.get(head)
        if head == own:
            return self

        def told(video: Video) -> Video:
            frames = {own: video.frames(), **video.levels}
            spoken = frames.pop(head)
            return replace(
                video,
                timeline=Timeline.from_frames(spoken, video.rate, taxonomy.labels),
                levels=frames,
                above_finest=head != taxonomy.levels[-1],
                parents=np.array(parents) if parents else None,
            )

        videos = {name: told(video) for name, video in self.videos.items()}
        made_from = self.made_from and self.made_from.at_level(level)
        return replace(self, taxonomy=taxonomy, videos=videos, made_from=made_from)

    def select(self, names: Iterable[str]) -> list[Video]:
        """The videos of these names, in order."""
        return [self.videos[name] for name in names]

    def split(self, name: str) -> Split:
        """The split of this name.

        Raises:
            ValueError: There is none; the message lists those there are.
        """
        if name not in self.splits:
            raise ValueError(f"split must be one of {', '.join(self.splits)}, got {name!r}.")
        return self.splits[name]

    @property
    def num_features(self) -> int:
        """Width of a feature vector.

        Raises:
            ValueError: The dataset has no features.
        """
        for video in self.videos.values():
            if video.features is not None:
                return video.features.num_features
        raise ValueError(
            f"{self.name} has no features/ folder: add one .npy file a video (of THUMOS14 rgb_*/ "
            "and flow_*/), or train from its labels (--input labels)."
        )

    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any label, name, rate, background or split."""
        if self.made_from is not None:
            return self.made_from.fingerprint()
        labels = self.taxonomy.labels
        about = (labels.names, self.rate, *sorted(labels.background))
        digest = hashlib.sha256(repr(about).encode())
        for name in sorted(self.videos):
            frames = self.videos[name].frames()
            digest.update(f"{name}:{len(frames)}:".encode())
            digest.update(frames.astype("<i4").tobytes())
            if (active := self.videos[name].active) is not None:
                digest.update(np.packbits(active).tobytes())
            for head, above in sorted(self.videos[name].levels.items()):
                digest.update(f"{head}:{self.taxonomy.heads[head].names!r}:".encode())
                digest.update(above.astype("<i4").tobytes())
        for name, split in sorted(self.splits.items()):
            digest.update(repr((name, sorted(split.train), sorted(split.test))).encode())
        return digest.hexdigest()[:16]

    def scored_fingerprint(self) -> str:
        """That of what is scored: other levels beside the same labels have no say in it."""
        plain = (self.made_from or self).without_levels
        if plain is not None and plain.taxonomy.labels == self.taxonomy.labels:
            return plain.fingerprint()
        return self.fingerprint()

    def fingerprints(self) -> set[str]:
        """Those of the same videos at any level: who has trained on one has seen them all."""
        found = {self.fingerprint()}
        if self.without_levels is not None:
            own = self.made_from or self
            found |= {self.without_levels.fingerprint(), own.at_level(FINE).fingerprint()}
        return found


def inner_split(
    videos: Sequence[Video], share: float, seed: int
) -> tuple[list[Video], list[Video]]:
    """Cut training videos into a training and a validation part, no group on both sides.

    Whole groups are drawn until the validation part holds at least `share` of the videos. With a
    single group, or one video, nothing can be held out and the validation part is empty.
    """
    groups = sorted({video.group for video in videos})
    order = np.random.default_rng(seed).permutation(len(groups))
    wanted, held, count = share * len(videos), set(), 0
    for i in order[: max(0, len(groups) - 1)]:
        if count >= wanted:
            break
        held.add(groups[i])
        count += sum(video.group == groups[i] for video in videos)
    return (
        [video for video in videos if video.group not in held],
        [video for video in videos if video.group in held],
    )
