"""Futures drawn from what followed the same labels in training: NumPy, many videos at once.

All times are in one unit, whatever it is: seconds, or shares of the video.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt64

from actioncast.layers.transcripts import Corpus, SuffixIndex, Transcript

TIE = 1e-9
"""Durations this close, in shares or seconds, are the same number."""


@dataclass(frozen=True, slots=True, eq=False)
class DurationPool:
    """The training durations of every label, sorted; those of all labels come last."""

    values: Float[np.ndarray, " _"]
    starts: Int[np.ndarray, " bound"]

    @classmethod
    def of(cls, corpus: Corpus, num_labels: int) -> "DurationPool":
        """Sort the durations of a corpus by label."""
        labels = np.append(corpus.labels, np.full(len(corpus.labels), num_labels))
        values = np.tile(corpus.durations, 2)
        order = np.lexsort([values, labels])
        starts = np.searchsorted(labels[order], np.arange(num_labels + 2))
        return cls(values[order], starts)

    def lasting(self, label: int, elapsed: float) -> tuple[int, int]:
        """The range of the label's values of at least `elapsed`; of all labels' when it has none.

        After `elapsed` frames an action may just have ended: nobody has seen the next frame.
        """
        for group in (label, -2):
            low, high = self.starts[group], self.starts[group + 1]
            low += np.searchsorted(self.values[low:high], elapsed - TIE, "left")
            if low < high:
                break
        return int(low), int(high)

    def draw(
        self, labels: Int[np.ndarray, " item"], uniform: Float[np.ndarray, " item"]
    ) -> Float[np.ndarray, " item"]:
        """Draw a duration for each label."""
        counts = np.diff(self.starts)[labels]
        return self.values[self.starts[labels] + (uniform * counts).astype(int)]


@dataclass(frozen=True, slots=True, eq=False)
class Outset:
    """Where what was seen of several videos leaves off."""

    labels: Int[np.ndarray, " video"]
    """The action going on; `num_labels` where nothing was seen."""
    elapsed: Float[np.ndarray, " video"]
    """How long it has gone on."""
    history: Int[np.ndarray, "video back"]
    """The labels so far, last first, filled up with `num_labels`."""
    seeds: UInt64[np.ndarray, " video"]
    """Made of what was seen, so that no answer depends on the rest of the batch."""

    @classmethod
    def of(
        cls,
        seen: Sequence[Transcript],
        scale: Float[np.ndarray, " video"],
        num_labels: int,
        context: int,
        seed: int,
    ) -> "Outset":
        """Measure elapsed time in units of `scale` frames."""
        history = np.full((len(seen), context), num_labels)
        frames = np.zeros(len(seen))
        for i, past in enumerate(seen):
            last = past.labels[::-1][:context]
            history[i, : len(last)] = last
            frames[i] = past.durations[-1] if len(past.labels) else 0
        seeds = [crc32(t.labels.tobytes() + t.durations.tobytes(), seed) for t in seen]
        return cls(history[:, 0], frames / scale, history, np.array(seeds, np.uint64))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Rollouts:
    """Segments of sampled futures, in no order. A future that ended has none after its end."""

    num: int
    """Futures of each video."""
    futures: Int[np.ndarray, " segment"]
    """Video times `num`, plus the future's number."""
    labels: Int[np.ndarray, " segment"]
    starts: Float[np.ndarray, " segment"]
    """Since the last observed frame."""
    ends: Float[np.ndarray, " segment"]

    def counts(
        self, scale: Float[np.ndarray, " video"], cells: Int[np.ndarray, " video"], num_labels: int
    ) -> list[Int[np.ndarray, "_ label"]]:
        """For each video, the futures with each label in each cell; `scale` cells are a unit."""
        edges = np.concatenate([[0], np.cumsum(cells)])
        size, width = int(edges[-1]), num_labels + 1
        # Label by label: whatever a row or a video opens it closes, so one sum runs over all.
        rows = self.labels * size + edges[self.futures // self.num]
        opened, closed = (
            np.bincount(rows + self._cells(times, scale, cells), minlength=width * size + 1)
            for times in (self.starts, self.ends)
        )
        going = (opened - closed)[:-1].cumsum().reshape(width, size)[:-1].T
        return np.split(going, edges[1:-1])

    def frames(
        self, scale: Float[np.ndarray, " video"], cells: Int[np.ndarray, " video"]
    ) -> list[Int[np.ndarray, "sample _"]]:
        """For each video, the label of every cell of its futures; the last one goes on."""
        order = np.lexsort([self.starts, self.futures])
        own = np.repeat(cells, self.num)
        at = self._cells(self.starts, scale, cells)[order]
        inside = at < own[self.futures[order]]
        order, at = order[inside], at[inside]
        laid = np.zeros(own.sum(), int)
        np.maximum.at(laid, (np.cumsum(own) - own)[self.futures[order]] + at, np.arange(len(order)))
        labels = self.labels[order[np.maximum.accumulate(laid)]] if len(order) else laid
        parts = np.split(labels, np.cumsum(cells * self.num)[:-1])
        return [part.reshape(self.num, -1) for part in parts]

    def at(
        self, times: Float[np.ndarray, " video"], num_labels: int
    ) -> Int[np.ndarray, "video label"]:
        """How many futures of each video have each label at a time."""
        video, width = self.futures // self.num, num_labels + 1
        now = (self.starts <= times[video]) & (times[video] < self.ends)
        size = len(times) * width
        counts = np.bincount(video[now] * width + self.labels[now], minlength=size)
        return counts.reshape(-1, width)[:, :-1]

    def _cells(
        self,
        times: Float[np.ndarray, " segment"],
        scale: Float[np.ndarray, " video"],
        cells: Int[np.ndarray, " video"],
    ) -> Int[np.ndarray, " segment"]:
        video = self.futures // self.num
        return np.rint(np.minimum(times * scale[video], cells[video])).astype(int)


def roll_out(
    index: SuffixIndex,
    pool: DurationPool,
    outset: Outset,
    limits: Float[np.ndarray, " video"],
    num: int,
) -> Rollouts:
    """Draw `num` futures of each video up to its limit.

    The action going on lasts as long as one drawn from those that were at least as long as the
    elapsed time: of its label, else of all labels, else it ends at once. The label of what follows
    depends on the labels before, its duration on the label alone. The first futures are the same
    whatever their number.
    """
    video = np.repeat(np.arange(len(outset)), num)
    futures = np.arange(len(video))
    streams = _scramble(_scramble(futures % num) + outset.seeds[video])
    labels, limits = outset.labels[video], limits[video]
    pairs = zip(outset.labels.tolist(), outset.elapsed.tolist(), strict=True)
    low, high = np.array([pool.lasting(label, time) for label, time in pairs]).T
    at = low + (_uniform(streams, 0).reshape(-1, num).T * (high - low)).astype(int)
    remaining = pool.values[np.minimum(at, len(pool.values) - 1)] - outset.elapsed
    remaining[:, (low == high) | (outset.labels == index.num_labels)] = 0.0
    starts, ends = np.zeros(len(video)), remaining.T.ravel()
    states = index.find(outset.history)[video, -1]
    drawn: list[tuple[np.ndarray, ...]] = []
    for step in itertools.count(1):
        drawn.append((futures, labels, starts, ends))
        offsets = (_uniform(streams, 2 * step) * index.counts[states]).astype(int)
        slots = index.starts[states] + offsets
        going = (ends < limits) & (index.next_labels[slots] < index.num_labels)
        if not going.any():
            break
        futures, limits, streams, slots = (a[going] for a in (futures, limits, streams, slots))
        labels, starts = index.next_labels[slots], ends[going]
        ends = starts + pool.draw(labels, _uniform(streams, 2 * step + 1))
        states = index.next_states[index.depths[states[going]], slots]
    return Rollouts(num, *(np.concatenate(parts) for parts in zip(*drawn, strict=True)))


def _uniform(streams: UInt64[np.ndarray, " item"], step: int) -> Float[np.ndarray, " item"]:
    # A hash of the counter: a NumPy generator for each video would cost more than the draws.
    return (_scramble(streams + np.uint64(step)) >> np.uint64(11)) * 2.0**-53


def _scramble(numbers: Shaped[np.ndarray, " item"]) -> UInt64[np.ndarray, " item"]:
    """SplitMix64 (https://doi.org/10.1145/2714064.2660195) of each number as its state."""
    z = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
