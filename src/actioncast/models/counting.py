"""What all models share that count transcripts and answer from observed labels.

Time is measured in shares of the video where the protocol gives its length away, and in seconds
elsewhere; then no answer depends on where the video ends.

Asked for the action at `anticipation_time` 0, such a model names the action after the one going on;
asked for a later time, the action at that time, which may be the one going on.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import nn

from actioncast.layers.transcripts import Corpus, Transcript, TranscriptStore
from actioncast.models.base import CountingAnticipator
from actioncast.timeline import Taxonomy
from actioncast.types import Observation, Prediction, Task, TrainingTimeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """A counting model's answer for one video, before it becomes a `Prediction`."""

    future: Float32[np.ndarray, "horizon label"]
    next: Float32[np.ndarray, " label"]
    samples: Int[np.ndarray, "sample horizon"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one observation asks, on the clock that it allows."""

    past: Transcript
    horizon: int
    scale: float
    """Frames in one unit of the clock: those of the video, or of a second."""
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
        self.register_load_state_dict_post_hook(_forget_indexes)  # type: ignore[no-untyped-call]

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

    def first_labels(self) -> Float32[np.ndarray, " label"]:
        """How often a training video starts with each label."""
        corpus = self.corpus(relative=False)
        opens = np.flatnonzero(np.diff(corpus.videos, prepend=-1))
        counts = np.bincount(corpus.labels[opens], minlength=self.num_labels)
        return (counts / counts.sum()).astype(np.float32)

    def one_hot(self, labels: Int[np.ndarray, " any"]) -> Float32[np.ndarray, "any label"]:
        """Certainty of each label."""
        return np.eye(self.num_labels, dtype=np.float32)[labels]

    def _prediction(self, question: Question, forecast: Forecast, x: Observation) -> Prediction:
        device = x.features.device
        following = torch.as_tensor(forecast.next, device=device)
        samples = forecast.samples
        return Prediction(
            taxonomy=self.taxonomy,
            rate=x.rate,
            observed=question.num_frames,
            future=torch.as_tensor(np.ascontiguousarray(forecast.future), device=device),
            next={self.taxonomy.primary: following},
            samples=None if samples is None else torch.as_tensor(samples, device=device),
        )


def _forget_indexes(module: nn.Module, _: Any) -> None:
    assert isinstance(module, TranscriptAnticipator)
    module._indexes.clear()
