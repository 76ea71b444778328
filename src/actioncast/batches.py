"""What a training epoch shows, in which order: a pure function of seed and epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch.distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from actioncast.data.base import Video
from actioncast.data.collate import Sample, collate, cut
from actioncast.features import WarpedFeatures
from actioncast.protocols import LongTerm, Question
from actioncast.timeline import Taxonomy, Timeline, run_lengths
from actioncast.types import Observation, Target


@dataclass(frozen=True, slots=True)
class Item:
    """One training video seen up to one share of its length."""

    video: int
    observed_ratio: float
    seed: int = 0
    """Of the warp of its time."""


class CutVideos(Dataset[Sample]):
    """Training videos, cut as an item asks."""

    def __init__(
        self,
        videos: Sequence[Video],
        protocol: LongTerm,
        stride: int,
        num_labels: int,
        warp: float = 0.0,
    ) -> None:
        self.videos = list(videos)
        self.protocol = protocol
        self.stride = stride
        self.num_labels = num_labels
        self.warp = warp

    def __getitem__(self, item: Item) -> Sample:
        video = self.videos[item.video]
        if self.warp:
            video = warped(video, self.warp, item.seed)
        return cut(video, self.question(item, video), self.stride, self.num_labels)

    def question(self, item: Item, video: Video) -> Question:
        """What an item asks; a whole video (ratio 1) asks for segmentation alone."""
        if item.observed_ratio >= 1:
            return Question(observed=video.num_frames)
        return self.protocol.question(video.num_frames, item.observed_ratio, video.rate)

    def __len__(self) -> int:
        return len(self.videos)


class ShuffledBatches(Sampler[list[Item]]):
    """Every video at every observed share once an epoch, in batches of like length.

    The order and the shares drawn depend on seed and epoch alone, so that training resumed at an
    epoch goes on as if it had never stopped. Under DDP each process takes every n-th batch.

    Args:
        videos: Training videos.
        observed_ratios: Shares of a video seen.
        jitter: Greatest change of a share, drawn uniformly each time a video is shown.
        batch_size: Items in a batch.
        seed: Of order and jitter.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        observed_ratios: Sequence[float],
        jitter: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.lengths = np.array([video.num_frames for video in videos])
        self.ratios = np.array(observed_ratios)
        self.jitter = jitter
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to iterate over; the trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Item]]:
        batches = self.batches(self.epoch)
        rank, world = _place()
        yield from batches[rank::world][: len(self)]

    def __len__(self) -> int:
        num_batches = -(-len(self.lengths) * len(self.ratios) // self.batch_size)
        world = _place()[1]
        return max(1, num_batches // world) if num_batches else 0

    def batches(self, epoch: int) -> list[list[Item]]:
        """All batches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        videos = np.repeat(np.arange(len(self.lengths)), len(self.ratios))
        ratios = np.tile(self.ratios, len(self.lengths))
        moved = ratios + rng.uniform(-self.jitter, self.jitter, len(ratios))
        ratios = np.where(ratios < 1, np.clip(moved, 0.02, 0.98), ratios)
        seeds = rng.integers(2**31, size=len(videos))
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
                    Item(int(videos[i]), float(ratios[i]), int(seeds[i]))
                    for i in part[a : a + self.batch_size]
                ]
                for a in range(0, len(part), self.batch_size)
            ]
        return [batches[i] for i in rng.permutation(len(batches))]


def training_batches(
    videos: Sequence[Video],
    sampler: ShuffledBatches,
    protocol: LongTerm,
    stride: int,
    taxonomy: Taxonomy,
    num_workers: int,
    warp: float = 0.0,
) -> DataLoader[tuple[Observation, Target]]:
    """The loader of one training run."""

    def collated(samples: list[Sample]) -> tuple[Observation, Target]:
        return collate(samples, taxonomy.primary)

    return DataLoader(  # samples go in, batches come out, which torch's type cannot say
        CutVideos(videos, protocol, stride, len(taxonomy.labels), warp),  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=collated,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        multiprocessing_context="fork" if num_workers > 0 else None,
    )


def warped(video: Video, warp: float, seed: int) -> Video:
    """The same video acted at another pace: each segment longer or shorter by its own factor.

    Factors are log-normal with standard deviation `warp` of the logarithm; no segment vanishes.
    """
    frames = video.frames()
    runs = run_lengths(frames)
    factors = np.exp(np.random.default_rng(seed).normal(0, warp, len(runs)))
    index = np.concatenate(
        [
            np.linspace(first, end, max(1, round((end - first) * factor)), endpoint=False)
            for (_, first, end), factor in zip(runs, factors, strict=True)
        ]
    ).astype(int)
    return replace(
        video,
        timeline=Timeline.from_frames(frames[index], video.rate, video.timeline.labels),
        num_frames=len(index),
        features=None if video.features is None else WarpedFeatures(video.features, index),
        observed_labels=None if video.observed_labels is None else video.observed_labels[index],
    )


def _place() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
