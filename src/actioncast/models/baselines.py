"""Forecasts from labels that every model must beat: repeat, n-gram, nearest neighbour.

All count transcripts (see `layers/transcripts.py`) and read the observed labels. Time is measured
in shares of the video where the protocol gives its length away, and in seconds elsewhere; then no
answer depends on where the video ends. After the last action of a forecast, that action goes on.

Asked for the action at `anticipation_time` 0, they name the action after the one going on; asked
for a later time, the action at that time.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from actioncast.layers.transcripts import (
    Corpus,
    DurationPool,
    Outset,
    SuffixIndex,
    Transcript,
    TranscriptStore,
    roll_out,
)
from actioncast.models.base import CountingAnticipator, TrainingTimeline
from actioncast.timeline import Taxonomy
from actioncast.types import Observation, Prediction, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A counting model's answer for one video, before it becomes a `Prediction`."""

    future: Float[np.ndarray, "horizon label"]
    next: Float[np.ndarray, " label"]
    samples: Int[np.ndarray, "sample horizon"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one observation asks, on the clock that it allows."""

    past: Transcript
    horizon: int
    scale: float
    """Frames in one unit of the clock: those of the video if its length is known, or of a second.
    """
    relative: bool
    """The clock counts shares of the video, not seconds."""
    num_frames: int
    """Observed frames."""
    anticipation: float
    """Frames from the last observed one to the action asked for; 0 asks for the one after the
    action going on."""
    num_samples: int


def questions(x: Observation) -> list[Question]:
    """The question of every observation of the batch."""
    relative = x.video_length is not None
    return [
        Question(
            past=Transcript.of_observation(x, i),
            horizon=int(x.horizon[i]),
            scale=x.rate if x.video_length is None else float(x.video_length[i]),
            relative=relative,
            num_frames=x.frames_observed(i),
            anticipation=x.anticipation_time * x.rate,
            num_samples=x.num_samples,
        )
        for i in range(len(x))
    ]


class TranscriptAnticipator(CountingAnticipator):
    """A counting model whose whole memory is the transcripts of its training videos."""

    tasks: ClassVar[frozenset[Task]] = frozenset({Task.LONG_TERM, Task.NEXT_ACTION})

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.transcripts = TranscriptStore()
        # Indexes of the buffers, one for each clock: made when first needed, never saved.
        self._indexes: dict[bool, Any] = {}
        self.register_load_state_dict_post_hook(_forget_indexes)

    @property
    def num_labels(self) -> int:
        """Labels of the primary head."""
        return len(self.taxonomy.labels)

    def fit(self, timelines: Sequence[TrainingTimeline]) -> None:
        """Store the transcripts; replaces those stored before."""
        self.transcripts.fill(
            [Transcript.of_timeline(t.timeline, t.rate, t.num_frames) for t in timelines],
            [t.rate for t in timelines],
            [t.group for t in timelines],
        )
        self._indexes.clear()

    def predict(self, x: Observation) -> list[Prediction]:
        """Answer every question of the batch."""
        asked = questions(x)
        return [
            self._prediction(question, forecast, x)
            for question, forecast in zip(asked, self.forecast(asked), strict=True)
        ]

    @abstractmethod
    def forecast(self, asked: Sequence[Question]) -> list[Forecast]:
        """One forecast for each question; all are on one clock."""

    def corpus(self, *, relative: bool) -> Corpus:
        """The training segments on a clock."""
        return self.transcripts.read(relative=relative)

    def first_labels(self) -> Float[np.ndarray, " label"]:
        """How often a training video starts with each label."""
        corpus = self.corpus(relative=False)
        opens = np.flatnonzero(np.diff(corpus.videos, prepend=-1))
        counts = np.bincount(corpus.labels[opens], minlength=self.num_labels)
        return counts / counts.sum()

    def one_hot(self, labels: Int[np.ndarray, " any"]) -> Float[np.ndarray, "any label"]:
        """Certainty of each label."""
        return np.eye(self.num_labels)[labels]

    def _prediction(self, question: Question, forecast: Forecast, x: Observation) -> Prediction:
        device = x.features.device
        following = torch.as_tensor(forecast.next, dtype=torch.float32, device=device)
        samples = forecast.samples
        return Prediction(
            taxonomy=self.taxonomy,
            rate=x.rate,
            observed=question.num_frames,
            future=torch.as_tensor(forecast.future, dtype=torch.float32, device=device),
            next={self.taxonomy.primary: following},
            samples=None if samples is None else torch.as_tensor(samples, device=device),
        )


def _forget_indexes(module: nn.Module, _: Any) -> None:
    assert isinstance(module, TranscriptAnticipator)
    module._indexes.clear()


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

    An action lasts the mean duration of its label, in training, and the action going on the rest of
    that, or ends at once when it has gone on for longer. Samples draw labels and durations instead.
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
            end = max(0.0, float(means[history[0]]) - float(question.past.durations[-1]))
            labels, ends = [int(history[0])], [end]
        following = grammar.index.next_probs(history)
        until = max(question.horizon, question.anticipation)
        while not labels or end <= until:
            label = int(grammar.index.next_probs(history).argmax())
            history = np.array([label, *history[:-1]])
            end += float(means[label])
            labels.append(label)
            ends.append(end)
        frames = lay_out(np.array(labels), np.array(ends), int(until) + 1)
        if question.anticipation:
            following = self.one_hot(frames[int(question.anticipation)])
        samples = None
        if question.num_samples:
            limits = np.array([question.horizon / question.scale])
            drawn = roll_out(grammar.index, grammar.pool, outset, limits, question.num_samples)
            samples = drawn.frames(0, question.scale, question.horizon)
        future = self.one_hot(frames[: question.horizon])
        return Forecast(future=future, next=following, samples=samples)
