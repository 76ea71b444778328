"""Forecasts from labels that every model must beat: repeat, n-gram, nearest neighbour.

No paper: these are the common ones. All answer with certainty, one label a frame, and never say
that the video ends: repeat and neighbour let their last action go on. `counting.py` says how they
measure time and what they take the next action to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
from jaxtyping import Float, Int

from actioncast.layers.rollouts import DurationPool, Outset, roll_out
from actioncast.layers.transcripts import Corpus, SuffixIndex
from actioncast.models.counting import Forecast, Question, TranscriptAnticipator
from actioncast.timeline import Taxonomy


def lay_out(
    labels: Int[np.ndarray, " segment"], ends: Float[np.ndarray, " segment"], horizon: int
) -> Int[np.ndarray, " horizon"]:
    """Label every frame of the horizon, given where segments end in frames; the last goes on."""
    segment = np.searchsorted(np.rint(ends[:-1]), np.arange(horizon), "right")
    return labels[segment]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatLastActionConfig:
    """The action going on never ends."""

    def build(self, taxonomy: Taxonomy) -> "RepeatLastAction":
        """Build the model for these labels."""
        return RepeatLastAction(self, taxonomy)


@final
class RepeatLastAction(TranscriptAnticipator):
    """Repeats the action going on; before the first one, tells how often each comes first."""

    def __init__(self, config: RepeatLastActionConfig, taxonomy: Taxonomy) -> None:
        super().__init__(taxonomy)
        self.config = config

    def forecast(self, asked: Sequence[Question]) -> list[Forecast]:
        """The last label at every frame; every sample is the same."""
        return [self._forecast_one(question) for question in asked]

    def _forecast_one(self, question: Question) -> Forecast:
        last = question.past.labels[-1:]
        probs = self.one_hot(last)[0] if len(last) else self.first_labels()
        future = np.tile(probs, (question.horizon, 1))
        samples = np.full((question.num_samples, question.horizon), probs.argmax())
        return Forecast(future=future, next=probs, samples=samples if len(samples) else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramConfig:
    """The most frequent continuation, each action for its mean duration."""

    context: int = 2
    """Labels looked back; 2 makes trigrams."""
    seed: int = 0
    """Of the samples."""

    def __post_init__(self) -> None:
        if self.context < 1:
            raise ValueError(f"context must be at least 1 label, got {self.context}.")

    def build(self, taxonomy: Taxonomy) -> "NGram":
        """Build the model for these labels."""
        return NGram(self, taxonomy)


@dataclass(frozen=True, slots=True)
class _Grammar:
    index: SuffixIndex
    pool: DurationPool
    means: Float[np.ndarray, " label"]


@final
class NGram(TranscriptAnticipator):
    """Appends the label that most often followed the longest known suffix, again and again.

    An action lasts the mean duration of its label in training, and the action going on lasts the
    mean of those that were at least as long as it is by now: of its label, else of all, else it
    ends at once. Samples draw labels and durations instead.
    """

    def __init__(self, config: NGramConfig, taxonomy: Taxonomy) -> None:
        super().__init__(taxonomy)
        self.config = config

    def forecast(self, asked: Sequence[Question]) -> list[Forecast]:
        """Certain futures; `next` at time 0 is the n-gram's distribution."""
        return [self._forecast_one(question) for question in asked]

    def _grammar(self, relative: bool) -> _Grammar:
        if relative not in self._indexes:
            corpus = self.corpus(relative=relative)
            counts = np.bincount(corpus.labels, minlength=self.num_labels)
            times = np.bincount(corpus.labels, corpus.durations, self.num_labels)
            overall = corpus.durations.mean()
            self._indexes[relative] = _Grammar(
                SuffixIndex.of(corpus, self.num_labels, self.config.context, 1),
                DurationPool.of(corpus, self.num_labels),
                np.where(counts, times / np.maximum(counts, 1), overall),
            )
        return self._indexes[relative]

    def _forecast_one(self, question: Question) -> Forecast:
        grammar = self._grammar(question.relative)
        outset = Outset.of(
            [question.past],
            np.array([question.scale]),
            self.num_labels,
            self.config.context,
            self.config.seed,
        )
        history, end = outset.history[0], 0.0
        means = grammar.means * question.scale
        labels, ends = [], []
        if len(question.past.labels):
            low, high = grammar.pool.lasting(int(history[0]), float(outset.elapsed[0]))
            rest = grammar.pool.values[low:high] - outset.elapsed[0]
            end = float(rest.mean()) * question.scale if len(rest) else 0.0
            labels, ends = [int(history[0])], [end]
        following = grammar.index.next_probs(history).astype(np.float32)
        until = max(question.horizon, question.anticipation)
        while not labels or end <= until:
            label = int(grammar.index.next_probs(history).argmax())
            history = np.array([label, *history[:-1]])
            end += float(means[label])
            labels.append(label)
            ends.append(end)
        frames = lay_out(np.array(labels), np.array(ends), int(until) + 1)
        if question.anticipation:
            following = self.one_hot(frames[int(question.anticipation), None])[0]
        samples = None
        if question.num_samples:
            limits = np.array([question.horizon / question.scale])
            drawn = roll_out(grammar.index, grammar.pool, outset, limits, question.num_samples)
            samples = drawn.frames(np.array([question.scale]), np.array([question.horizon]))[0]
        future = self.one_hot(frames[: question.horizon])
        return Forecast(future=future, next=following, samples=samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestNeighbourConfig:
    """The future of the training video whose past looks most alike."""

    share_steps: int = 1000
    """Points at which whole videos are compared where their length is known."""
    rate: float = 5.0
    """Points a second at which videos are compared where it is not."""

    def __post_init__(self) -> None:
        if self.share_steps < 1 or self.rate <= 0:
            raise ValueError(
                "share_steps and rate must be positive, "
                f"got {self.share_steps} steps and {self.rate} a second."
            )

    def build(self, taxonomy: Taxonomy) -> "NearestNeighbour":
        """Build the model for these labels."""
        return NearestNeighbour(self, taxonomy)


@dataclass(frozen=True, slots=True)
class _Gallery:
    corpus: Corpus
    offsets: Int[np.ndarray, " bound"]
    steps: float
    """Points in one unit of the clock."""
    labels: Int[np.ndarray, "video step"]
    """-1 after the end of a video."""


@final
class NearestNeighbour(TranscriptAnticipator):
    """Copies what followed in the training video that agrees with most of the observed frames.

    Videos are compared at the same shares where their length is known, else at the same seconds
    (a training video that is over by then disagrees). The first of equals wins. Samples copy the
    nearest videos in turn.
    """

    def __init__(self, config: NearestNeighbourConfig, taxonomy: Taxonomy) -> None:
        super().__init__(taxonomy)
        self.config = config

    def forecast(self, asked: Sequence[Question]) -> list[Forecast]:
        """Certain futures, copied."""
        return [self._forecast_one(question) for question in asked]

    def _gallery(self, relative: bool) -> _Gallery:
        if relative not in self._indexes:
            corpus = self.corpus(relative=relative)
            opens = np.flatnonzero(np.diff(corpus.videos, prepend=-1))
            offsets = np.append(opens, len(corpus.labels))
            longest = np.bincount(corpus.videos, corpus.durations).max()
            steps = self.config.share_steps if relative else self.config.rate
            points = (np.arange(round(longest * steps)) + 0.5) / steps
            labels = np.stack(
                [
                    _labels_at(corpus.labels[a:b], corpus.durations[a:b], points)
                    for a, b in pairwise(offsets)
                ]
            )
            self._indexes[relative] = _Gallery(corpus, offsets, steps, labels)
        return self._indexes[relative]

    def _forecast_one(self, question: Question) -> Forecast:
        if not len(question.past.labels):
            probs = self.first_labels()
            drawn = np.full((question.num_samples, question.horizon), probs.argmax())
            return Forecast(
                future=np.tile(probs, (question.horizon, 1)),
                next=probs,
                samples=drawn if question.num_samples else None,
            )
        gallery = self._gallery(question.relative)
        now = question.num_frames / question.scale
        points = (np.arange(round(now * gallery.steps)) + 0.5) / gallery.steps
        seen = _labels_at(question.past.labels, question.past.durations / question.scale, points)
        compared = gallery.labels[:, : len(seen)]
        agreement = ((compared == seen[: compared.shape[1]]) & (compared >= 0)).sum(1)
        nearest = np.argsort(-agreement, kind="stable")
        until = int(max(question.horizon, question.anticipation)) + 1
        labels, following = self._copy(gallery, int(nearest[0]), now, question.scale, until)
        if question.anticipation:
            following = int(labels[int(question.anticipation)])
        samples = [
            self._copy(gallery, int(nearest[i % len(nearest)]), now, question.scale, until)[0]
            for i in range(question.num_samples)
        ]
        return Forecast(
            future=self.one_hot(labels[: question.horizon]),
            next=self.one_hot(np.array([following]))[0],
            samples=np.stack(samples)[:, : question.horizon] if samples else None,
        )

    def _copy(
        self, gallery: _Gallery, video: int, now: float, scale: float, horizon: int
    ) -> tuple[Int[np.ndarray, " horizon"], int]:
        """Labels of the frames that follow *now* in a training video, and of its next action."""
        own = slice(*gallery.offsets[video : video + 2].tolist())
        labels, ends = gallery.corpus.labels[own], gallery.corpus.durations[own].cumsum()
        times = now + (np.arange(horizon) + 0.5) / scale
        future = labels[np.minimum(np.searchsorted(ends, times), len(ends) - 1)]
        going = int(np.searchsorted(ends, now))
        return future, int(labels[min(going + 1, len(labels) - 1)])


def _labels_at(
    labels: Int[np.ndarray, " segment"],
    durations: Float[np.ndarray, " segment"],
    points: Float[np.ndarray, " step"],
) -> Int[np.ndarray, " step"]:
    return np.append(labels, -1)[np.searchsorted(durations.cumsum(), points, "right")]
