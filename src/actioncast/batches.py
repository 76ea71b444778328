"""What a training epoch shows, in which order: a pure function of seed and epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch.distributed
from jaxtyping import Int
from torch.utils.data import DataLoader, Dataset, Sampler

from actioncast.data.base import LabelSource, ObservedLabels, Video
from actioncast.data.collate import Anchor, Sample, collate, cut
from actioncast.features import FeatureSource, LabelFeatures, WarpedFeatures
from actioncast.protocols import LongTerm, Question
from actioncast.timeline import Taxonomy, Timeline, run_lengths
from actioncast.types import Observation, Target

FARTHEST = 3.0
"""Deviations by which a segment is stretched at most: a warped video has a longest length."""


@dataclass(frozen=True, slots=True)
class Item:
    """One training video seen up to one share of its length."""

    video: int
    observed_ratio: float
    seed: int = 0
    """Of its variation."""
    offset: int | None = None
    """First frame read; absent, the anchor says it."""
    start: int = 0
    """Frame of the video that counts as its first."""


@dataclass(frozen=True, slots=True)
class Variation:
    """How a training video is changed each time it is shown."""

    warp: float = 0.0
    """Standard deviation of the logarithm of the factor by which each segment is stretched."""
    relabel: float = 0.0
    """Share of segments whose label is drawn anew from all, in input and target alike (labels as
    input); one that draws its own or its neighbour's label stays or merges."""

    def __bool__(self) -> bool:
        return bool(self.warp or self.relabel)


class CutVideos(Dataset[Sample]):
    """Training videos, cut as an item asks."""

    def __init__(
        self,
        videos: Sequence[Video],
        protocol: LongTerm,
        stride: int,
        num_labels: int,
        variation: Variation,
        anchor: Anchor = "start",
    ) -> None:
        self.videos = list(videos)
        self.protocol = protocol
        self.stride = stride
        self.num_labels = num_labels
        self.variation = variation
        self.anchor = anchor

    def __getitem__(self, item: Item) -> Sample:
        video = self.videos[item.video]
        if self.variation:
            video = varied(video, self.variation, item.seed)
        question = self.question(item, video)
        if item.start:
            first = min(item.start, max(0, video.num_frames - question.observed - 1))
            video = started(video, first)
            if question.video_length is not None:
                question = replace(question, video_length=question.video_length - first)
        # Of a very short observation not every offset is there.
        read = None if item.offset is None else min(item.offset, question.observed - 1)
        return cut(video, question, self.stride, self.num_labels, self.anchor, first=read)

    def question(self, item: Item, video: Video) -> Question:
        """What an item asks; a whole video (ratio 1) asks for segmentation alone."""
        if item.observed_ratio >= 1:
            return Question(observed=video.num_frames)
        question = self.protocol.question(video.num_frames, item.observed_ratio, video.rate)
        # A small share of a short video can be no frame at all, which no model learns from.
        return replace(question, observed=max(1, question.observed))

    def __len__(self) -> int:
        return len(self.videos)


class ShuffledBatches(Sampler[list[Item]]):
    """Every video at every observed share once an epoch, in batches of like length.

    The order and the shares drawn depend on seed and epoch alone, so that training resumed at an
    epoch goes on as if it had never stopped. Under DDP each process takes every n-th batch: a step
    then averages as many batches as there are processes, and batches that do not go round are left
    out of the epoch.

    Args:
        videos: Training videos.
        observed_ratios: Shares of a video seen.
        jitter: Greatest change of a share, drawn uniformly each time a video is shown.
        batch_size: Items in a batch.
        seed: Of order, jitter and offsets.
        num_offsets: Offsets of the stride to draw one from each time a video is shown; 0 draws
            none.
        num_starts: Frames of a video at which it starts, from the first on, each once an epoch.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        observed_ratios: Sequence[float],
        jitter: float,
        batch_size: int,
        seed: int,
        num_offsets: int = 0,
        num_starts: int = 1,
    ) -> None:
        self.num_starts = num_starts
        self.lengths = np.array([video.num_frames for video in videos])
        self.ratios = np.array(observed_ratios)
        self.jitter = jitter
        self.batch_size = batch_size
        self.seed = seed
        self.num_offsets = num_offsets
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to iterate over; the trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Item]]:
        batches = self.batches(self.epoch)
        rank, world = _place()
        for i in range(len(self)):
            yield batches[(i * world + rank) % len(batches)]

    def __len__(self) -> int:
        items = len(self.lengths) * len(self.ratios) * self.num_starts
        num_batches = -(-items // self.batch_size)
        world = _place()[1]
        return max(1, num_batches // world) if num_batches else 0

    def batches(self, epoch: int) -> list[list[Item]]:
        """All batches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        shown = len(self.ratios) * self.num_starts
        videos = np.repeat(np.arange(len(self.lengths)), shown)
        ratios = np.tile(np.repeat(self.ratios, self.num_starts), len(self.lengths))
        starts = np.tile(np.arange(self.num_starts), len(self.lengths) * len(self.ratios))
        moved = ratios + rng.uniform(-self.jitter, self.jitter, len(ratios))
        if self.jitter:
            ratios = np.where(ratios < 1, np.clip(moved, 0.02, 0.98), ratios)
        seeds = rng.integers(2**31, size=len(videos))
        offsets = self._offsets(epoch, len(videos))
        order = rng.permutation(len(videos))
        # Within a chunk of 16 batches items of like length stand together: less padding.
        chunk = 16 * self.batch_size
        seen = self.lengths[videos] * ratios
        batches: list[list[Item]] = []
        for start in range(0, len(order), chunk):
            part = order[start : start + chunk]
            part = part[np.argsort(seen[part], kind="stable")]
            batches += [
                [
                    Item(
                        int(videos[i]),
                        float(ratios[i]),
                        int(seeds[i]),
                        offsets[i],
                        int(starts[i]),
                    )
                    for i in part[a : a + self.batch_size]
                ]
                for a in range(0, len(part), self.batch_size)
            ]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _offsets(self, epoch: int, count: int) -> Sequence[int | None]:
        if not self.num_offsets:
            return [None] * count
        # A generator of their own: order and shares are the same with offsets and without.
        rng = np.random.default_rng([self.seed, epoch, 1])
        drawn: list[int] = rng.integers(self.num_offsets, size=count).tolist()
        return drawn


def training_batches(
    videos: Sequence[Video],
    sampler: ShuffledBatches,
    protocol: LongTerm,
    stride: int,
    taxonomy: Taxonomy,
    num_workers: int,
    variation: Variation,
    anchor: Anchor = "start",
) -> DataLoader[tuple[Observation, Target]]:
    """The loader of one training run."""

    def collated(samples: list[Sample]) -> tuple[Observation, Target]:
        return collate(samples, taxonomy.primary)

    return DataLoader(  # samples go in, batches come out, which torch's type cannot say
        CutVideos(videos, protocol, stride, len(taxonomy.labels), variation, anchor),  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=collated,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        multiprocessing_context="fork" if num_workers > 0 else None,
    )


def started(video: Video, first: int) -> Video:
    """The same video without the frames before one."""
    index = np.arange(first, video.num_frames)
    return replace(
        video,
        timeline=Timeline.from_frames(video.frames()[first:], video.rate, video.timeline.labels),
        num_frames=len(index),
        features=None if video.features is None else WarpedFeatures(video.features, index),
        observed_labels=_warped(video.observed_labels, index),
        captions=None if video.captions is None else video.captions.shown_at(index),
        levels={head: named[first:] for head, named in video.levels.items()},
        active=None if video.active is None else video.active[first:],
    )


def varied(video: Video, variation: Variation, seed: int) -> Video:
    """The same video acted at another pace, or with other actions in places.

    No segment is stretched by more than `FARTHEST` deviations; the same seed varies the same way.

    Raises:
        ValueError: Labels are to be exchanged, but the input is not the true labels alone.
    """
    rng = np.random.default_rng(seed)
    frames = video.frames()
    runs = run_lengths(frames)
    factors = np.exp(variation.warp * np.clip(rng.normal(size=len(runs)), -FARTHEST, FARTHEST))
    index = np.concatenate(
        [
            np.linspace(first, end, max(1, round((end - first) * factor)), endpoint=False)
            for (_, first, end), factor in zip(runs, factors, strict=True)
        ]
    ).astype(int)
    features: FeatureSource | None = None
    if video.features is not None:
        features = WarpedFeatures(video.features, index)
    observed = _warped(video.observed_labels, index)
    if variation.relabel and video.levels:
        raise ValueError(
            "relabel must go with labels without a hierarchy, whose other levels would not follow, "
            f"got it with levels {', '.join(video.levels)}; leave out --relabel or --level."
        )
    if variation.relabel and video.captions is not None:
        raise ValueError(
            "relabel must go without captions, which would tell of the labels exchanged, got both; "
            "leave out --relabel or --captions."
        )
    if variation.relabel:
        shown, told = isinstance(video.features, LabelFeatures), video.observed_labels
        if not (shown and isinstance(told, np.ndarray) and np.array_equal(told, frames)):
            raise ValueError(
                "relabel must go with the true labels as input (--input labels), got other input."
            )
        num_labels = len(video.timeline.labels)
        labels = np.array([label for label, _, _ in runs])
        exchanged = rng.random(len(runs)) < variation.relabel
        labels[exchanged] = rng.integers(num_labels, size=int(exchanged.sum()))
        starts = np.array([first for _, first, _ in runs])
        frames = labels[np.searchsorted(starts, np.arange(len(frames)), side="right") - 1]
        observed = frames[index]
        features = LabelFeatures(observed, num_labels)
    return replace(
        video,
        timeline=Timeline.from_frames(frames[index], video.rate, video.timeline.labels),
        num_frames=len(index),
        features=features,
        observed_labels=observed,
        captions=None if video.captions is None else video.captions.shown_at(index),
        levels={head: named[index] for head, named in video.levels.items()},
        active=None if video.active is None else video.active[index],
    )


@dataclass(frozen=True, slots=True)
class WarpedLabels:
    """Observed labels shown at another pace: frame `i` is frame `index[i]` of their source."""

    source: LabelSource
    index: Int[np.ndarray, " time"]
    """Never falling, so that the first frames come from the first ones of the source."""

    @property
    def causal(self) -> bool:
        """See `LabelSource`."""
        return self.source.causal

    def read(self, observed: int) -> Int[np.ndarray, " time"]:
        """See `LabelSource`."""
        wanted = self.index[:observed]
        return self.source.read(int(wanted[-1]) + 1 if len(wanted) else 0)[wanted]


def _warped(
    labels: ObservedLabels | None, index: Int[np.ndarray, " warped"]
) -> Int[np.ndarray, " warped"] | LabelSource | None:
    if labels is None or isinstance(labels, np.ndarray):
        return None if labels is None else labels[index]
    return WarpedLabels(labels, index)


def _place() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
