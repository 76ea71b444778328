"""What goes into a model and what comes out of it.

Axes: batch, time (steps of the model's grid), feature, label, query, token, text, horizon, sample.
Two grids meet here. The video's own runs at `rate` frames per second: annotation, horizon and
answers about the future count its frames. A model reads every `stride`-th of them: one step of
`features` is `stride` frames. `inference.py` brings answers about the past back to the video's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actioncast.timeline import (
    UNLABELLED,
    Segment,
    Taxonomy,
    Timeline,
    frames_to_seconds,
    run_lengths,
)

IGNORE = -100
"""Label of a frame or query that no loss and no metric counts."""


class Task(StrEnum):
    """A question about a video, as the field names it."""

    SEGMENTATION = "segmentation"
    """Name every observed frame (TAS)."""
    LONG_TERM = "long_term"
    """Name every frame of the horizon (LTA)."""
    NEXT_ACTION = "next_action"
    """Name the action after the anticipation time, or of the clip when that is 0."""
    ONLINE = "online"
    """At every step, from the past alone, name the action under way and those at moments ahead."""
    COMING = "coming_actions"
    """Name the next actions in their order, whenever they start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A sequence that comes beside the video: words of a question, objects, past actions."""

    values: Float[Tensor, "batch token feature"]
    valid: Bool[Tensor, "batch token"]
    """False where a shorter sequence of the batch is padded; a row may hold no token at all."""

    def to(self, device: torch.device | str) -> "Tokens":
        """The same tokens on another device."""
        return Tokens(values=self.values.to(device), valid=self.valid.to(device))

    def one(self, i: int) -> "Tokens":
        """Those of observation `i` of the batch, without padding."""
        valid = self.valid[i]
        return Tokens(values=self.values[i, None, valid], valid=valid[None, valid])


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that a model may see: the past, and the question asked about the future."""

    features: Float[Tensor, "batch time feature"]
    valid: Bool[Tensor, "batch time"]
    """False where a shorter video of the batch is padded."""
    rate: float
    """Frames per second of the video."""
    horizon: Int[Tensor, " batch"]
    """Frames to anticipate after the last observed one; 0 asks for segmentation alone."""
    stride: int = 1
    """Frames of the video that one step of `features` stands for."""
    first: Int[Tensor, " batch"] | None = None
    """Frame of the video that the first step reads; absent, frame 0. The n-th step after it reads
    the frame n times `stride` later."""
    observed: Int[Tensor, " batch"] | None = None
    """Frames of the video seen; absent, every valid step stands for `stride` frames."""
    video_length: Int[Tensor, " batch"] | None = None
    """Frames of the whole video, where a protocol gives them away (`true_length` does)."""
    anticipation_time: float = 0.0
    """Seconds from the last observed frame to the action asked for; 0 names the clip."""
    ahead: tuple[float, ...] = ()
    """Seconds after each step at which the action is asked for as well (`Task.ONLINE`)."""
    labels: Int[Tensor, "batch time"] | None = None
    """The observed actions where somebody named them: a person, or a recogniser. Of a coarse level
    they are absent where they do not follow from the finest."""
    finest: Int[Tensor, "batch time"] | None = None
    """The same at the finest level of a hierarchy, where `labels` speak another."""
    modalities: Mapping[str, Tokens] = field(default_factory=dict)
    """What is known besides `features`, by name: embedded questions, objects in view."""
    clip: Float[Tensor, "batch frame channel height width"] | None = None
    """The frames themselves, where a model sees with a backbone of its own; `features` is then of
    width 0."""
    num_samples: int = 0
    """Futures to draw besides the most likely one."""

    @classmethod
    def of_one(
        cls, features: Float[Tensor, "time feature"], rate: float, horizon: int = 0
    ) -> "Observation":
        """A batch of one video."""
        valid = torch.ones(1, len(features), dtype=torch.bool, device=features.device)
        horizons = torch.tensor([horizon], device=features.device)
        return cls(features=features[None], valid=valid, rate=rate, horizon=horizons)

    def frames_observed(self, i: int) -> int:
        """Frames of the video that observation `i` of the batch has seen."""
        if self.observed is None:
            return int(self.valid[i].sum()) * self.stride
        return int(self.observed[i])

    def first_frame(self, i: int) -> int:
        """The frame of the video that the first step of observation `i` reads."""
        return 0 if self.first is None else int(self.first[i])

    def to(self, device: torch.device | str) -> "Observation":
        """The same observation on another device."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name in self.__dataclass_fields__
            if isinstance(value := getattr(self, name), Tensor)
        }
        modalities = {name: tokens.to(device) for name, tokens in self.modalities.items()}
        return replace(self, **moved, modalities=modalities)

    def __len__(self) -> int:
        return len(self.features)

    def __iter__(self) -> Iterator["Observation"]:
        """Yield each video alone, without its padding."""
        for i, valid in enumerate(self.valid):
            one: dict[str, Any] = {
                name: value[i, None]
                for name in ("horizon", "first", "observed", "video_length", "clip")
                if (value := getattr(self, name)) is not None
            }
            for name in ("labels", "finest"):
                if (named := getattr(self, name)) is not None:
                    one[name] = named[i, None, valid]
            one["modalities"] = {name: tokens.one(i) for name, tokens in self.modalities.items()}
            yield replace(
                self, features=self.features[i, None, valid], valid=valid[None, valid], **one
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a loss may see besides. A head without labels is absent; IGNORE marks padding."""

    frames: Mapping[str, Int[Tensor, "batch time"]]
    """The action of every observed step, by head; of a hierarchy, of every level."""
    next: Mapping[str, Int[Tensor, " batch"]]
    """The action after the anticipation time, by head."""
    future: Int[Tensor, "batch query"] | None = None
    """The actions within the horizon, in order, of the primary head; then the end of the future,
    coded as the number of labels; IGNORE after that, or throughout when no future was asked for."""
    durations: Float[Tensor, "batch query"] | None = None
    """The share of the horizon that each of them takes; NaN where `future` has none."""
    video_frames: Mapping[str, Int[Tensor, "batch frame"]] = field(default_factory=dict)
    """The action of every observed frame of the video's own grid, by head, for losses that look
    between the steps; a head that stands in `frames` alone has a stride of 1."""
    active: Mapping[str, Bool[Tensor, "batch time label"]] = field(default_factory=dict)
    """All actions under way at every observed step, by head, where several may be at once; padding
    and steps that no loss counts have none."""
    starts: Mapping[str, Int[Tensor, "batch time"]] = field(default_factory=dict)
    """The action that starts the anticipation time after each step, by head; IGNORE where none
    does. It stands at the last step before that moment."""
    coming: Mapping[str, Int[Tensor, "batch place"]] = field(default_factory=dict)
    """The next actions in order, by head; IGNORE after the last that is known."""

    def to(self, device: torch.device | str) -> "Target":
        """The same target on another device."""
        return replace(
            self,
            frames={head: labels.to(device) for head, labels in self.frames.items()},
            next={head: labels.to(device) for head, labels in self.next.items()},
            future=None if self.future is None else self.future.to(device),
            durations=None if self.durations is None else self.durations.to(device),
            video_frames={h: labels.to(device) for h, labels in self.video_frames.items()},
            active={head: labels.to(device) for head, labels in self.active.items()},
            starts={head: labels.to(device) for head, labels in self.starts.items()},
            coming={head: labels.to(device) for head, labels in self.coming.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTimeline:
    """One training video as a counting model sees it."""

    timeline: Timeline
    rate: float
    """Frames per second of the video."""
    num_frames: int
    group: str = ""
    """Who acts, or which recording: videos of one group are never on both sides of a split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A model's answer for one video: one field for each task, probabilities all.

    `future` runs on the video's grid. `past` runs on the grid of the observation until
    `inference.py` has brought it back to the video's. Rows sum to 1; a row of zeros names no
    action (`UNLABELLED`), which every metric counts as wrong.
    """

    taxonomy: Taxonomy
    rate: float
    """Frames per second of the video."""
    observed: int
    """Frames of the video seen; the future starts here."""
    start: float = 0.0
    """Seconds into the video of the first frame seen; set by whoever cut the observation."""
    past: Float[Tensor, "time label"] | None = None
    """SEGMENTATION: the action of every observed frame."""
    levels: Mapping[str, Float[Tensor, "time _"]] = field(default_factory=dict)
    """SEGMENTATION: the same by head, of other levels of a hierarchy that the model names."""
    future: Float[Tensor, "horizon label"] | None = None
    """LONG_TERM: the action of every frame of the horizon."""
    next: Mapping[str, Float[Tensor, " _"]] | None = None
    """NEXT_ACTION: the action after the anticipation time, by head."""
    samples: Int[Tensor, "sample horizon"] | None = None
    """LONG_TERM: several futures drawn, one label a frame."""
    ahead: Float[Tensor, "step moment label"] | None = None
    """ONLINE: the action at each moment of `Observation.ahead` after every observed step, said at
    that step. It runs on the grid of `past`, and is brought back to the video's with it; a live
    stream keeps the last row alone."""
    coming: Mapping[str, Float[Tensor, "place _"]] | None = None
    """COMING: the next actions in order, by head."""

    def __post_init__(self) -> None:
        answers = (self.past, self.future, self.next, self.ahead, self.coming)
        if all(answer is None for answer in answers):
            raise ValueError(
                "a prediction must answer a task, got no past, future, next, ahead or coming."
            )

    @property
    def now(self) -> float:
        """Seconds into the video where the past ends and the future starts."""
        return self.start + frames_to_seconds(self.observed, self.rate)

    def timeline(self) -> Timeline:
        """The most likely action of every frame, as segments cut at *now*.

        A segment's score is the mean probability of its action over its frames.
        """
        if self.past is None and self.future is None:
            raise ValueError("this prediction names no frames; read `next` instead.")
        segments = [
            *self._segments(self.past, self.start),
            *self._segments(self.future, self.now),
        ]
        return Timeline(tuple(segments), self.taxonomy.labels)

    def _segments(
        self, probs: Float[Tensor, "frame label"] | None, start: float
    ) -> Iterator[Segment]:
        if probs is None or not len(probs):
            return
        best = most_likely(probs)
        sure: np.ndarray = probs.max(-1).values.float().cpu().numpy()
        for label, a, b in run_lengths(best):
            if label == UNLABELLED:
                continue
            yield Segment(
                start + frames_to_seconds(a, self.rate),
                start + frames_to_seconds(b, self.rate),
                label,
                min(1.0, float(sure[a:b].mean())),
            )


def most_likely(probs: Float[Tensor, "frame label"]) -> Int[np.ndarray, " frame"]:
    """The label of every frame; `UNLABELLED` where a row of zeros names none."""
    labels: np.ndarray = probs.argmax(-1).cpu().numpy()
    named: np.ndarray = probs.any(-1).cpu().numpy()
    return np.where(named, labels, UNLABELLED)
