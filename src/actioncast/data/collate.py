"""Samples: a video cut by a question, and batches of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from actioncast.data.base import Video
from actioncast.protocols.base import Question
from actioncast.protocols.long_term import rounded_observation, transcript
from actioncast.types import IGNORE, Observation, Target, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question about one video, features read and labels cut; not yet padded."""

    features: Float[np.ndarray, "time feature"]
    rate: float
    stride: int
    first: int
    """Frame of the video that the first step reads."""
    question: Question
    observed_labels: Int[np.ndarray, " time"] | None
    frames: Int[np.ndarray, " time"]
    """Truth of every observed step."""
    video_frames: Int[np.ndarray, " frame"]
    """Truth of every observed frame of the video's own grid."""
    future: tuple[int, ...]
    """Truth of the horizon as ordered actions and their end; empty when none was asked for."""
    durations: tuple[float, ...]
    finest_labels: Int[np.ndarray, " time"] | None = None
    """Observed labels of the finest level, where the primary one is another."""
    captions: Float32[np.ndarray, "caption width"] | None = None
    """What was written about what is observed, where the video has captions; maybe nothing yet."""
    levels: Mapping[str, Int[np.ndarray, " time"]] = field(default_factory=dict)
    """Truth of every observed step, by head, at the other levels of a hierarchy."""
    active: Bool[np.ndarray, "time label"] | None = None
    """All actions under way at every observed step, where several may be at once."""


Anchor = Literal["start", "end"]
"""Which observed frame is always read where not every frame is: the first, as published, or the
last, so that a stride never hides what has just begun."""


def first_step(observed: int, stride: int, anchor: Anchor) -> int:
    """The first of the frames read."""
    return (observed - 1) % stride if anchor == "end" and observed else 0


def cut(
    video: Video,
    question: Question,
    stride: int,
    head_size: int,
    anchor: Anchor = "start",
    *,
    first: int | None = None,
) -> Sample:
    """Read what a question lets a model see of a video, and the truth besides.

    Args:
        video: An annotated video with features.
        question: Frames seen and asked for.
        stride: Every how many frames a step of the model's grid stands.
        head_size: Number of labels; codes the end of the future.
        anchor: Which observed frame is always read.
        first: The first frame read, an offset of the stride; absent, the anchor says it.

    Raises:
        ValueError: The video has no features, or the first frame is not within one stride of what
            is observed.
    """
    if video.features is None:
        raise ValueError(
            f"video {video.id} has no features; add them to features/, or use --input labels."
        )
    if first is None:
        first = first_step(question.observed, stride, anchor)
    elif not 0 <= first < min(stride, question.observed):
        raise ValueError(
            f"first must be a frame within the first stride ({stride}) and observed "
            f"({question.observed} of {video.id}), got {first}."
        )
    frames = video.frames()
    stop = _stop(question, stride, first)
    seen = slice(first, stop, stride)
    # Whoever names the frames is shown as many as the model, never the rest of the video.
    told = video.labels_seen(stop)
    labels = video.at_own_level(told)
    future: tuple[int, ...] = ()
    durations: tuple[float, ...] = ()
    if question.horizon:
        end = question.observed + question.horizon
        asked = -(-question.horizon // stride)
        coming = transcript(frames[question.observed : end : stride], asked)
        future = (*coming.labels, head_size)
        durations = (*coming.shares, coming.after_end if coming.after_end else float("nan"))
    return Sample(
        features=video.features.read(first, stop, stride),
        rate=video.rate,
        stride=stride,
        first=first,
        question=question,
        observed_labels=None if labels is None else labels[seen],
        finest_labels=told[seen] if told is not None and video.above_finest else None,
        captions=None if video.captions is None else video.captions.told(stop),
        levels={head: named[seen] for head, named in video.levels.items()},
        frames=frames[seen],
        video_frames=frames[: max(stop, question.observed)],
        future=future,
        durations=durations,
        active=None if video.active is None else video.active[seen],
    )


def _stop(question: Question, stride: int, first: int) -> int:
    """The frame before which the last step is read."""
    if question.step_ratio is None:
        return question.observed
    assert question.video_length is not None, "a share of all steps needs the length of the video"
    shown = rounded_observation(question.video_length, question.step_ratio, stride, first)
    return shown[-1] + 1


def collate(samples: Sequence[Sample], head: str) -> tuple[Observation, Target]:
    """Pad samples of one rate and stride into a batch.

    Captions become the modality `captions`, a token each, where every sample has some or might.
    """
    questions = [sample.question for sample in samples]
    lengths = [question.video_length for question in questions]
    features = _padded([torch.from_numpy(sample.features) for sample in samples], 0.0)
    steps = torch.tensor([len(sample.features) for sample in samples])
    observed_labels = [s.observed_labels for s in samples if s.observed_labels is not None]
    finest = [s.finest_labels for s in samples if s.finest_labels is not None]
    active = [sample.active for sample in samples if sample.active is not None]
    captions = [sample.captions for sample in samples if sample.captions is not None]
    observation = Observation(
        features=features,
        valid=torch.arange(features.shape[1]) < steps[:, None],
        rate=samples[0].rate,
        stride=samples[0].stride,
        first=torch.tensor([sample.first for sample in samples]),
        horizon=torch.tensor([question.horizon for question in questions]),
        observed=torch.tensor([question.observed for question in questions]),
        video_length=None if None in lengths else torch.tensor(lengths),
        labels=_padded([torch.from_numpy(labels) for labels in observed_labels], IGNORE)
        if len(observed_labels) == len(samples)
        else None,
        finest=_padded([torch.from_numpy(labels) for labels in finest], IGNORE)
        if len(finest) == len(samples)
        else None,
        modalities={"captions": _tokens(captions)} if len(captions) == len(samples) else {},
    )
    target = Target(
        frames={
            head: _padded([torch.from_numpy(sample.frames) for sample in samples], IGNORE),
            **{
                level: _padded(
                    [torch.from_numpy(sample.levels[level]) for sample in samples], IGNORE
                )
                for level in samples[0].levels
            },
        },
        next={},
        future=_padded(
            [torch.tensor(sample.future, dtype=torch.long) for sample in samples], IGNORE
        ),
        durations=_padded(
            [torch.tensor(sample.durations, dtype=torch.float32) for sample in samples],
            float("nan"),
        ),
        # With a stride of 1 these are `frames` again.
        video_frames={head: _padded([torch.from_numpy(s.video_frames) for s in samples], IGNORE)}
        if samples[0].stride > 1
        else {},
        active={head: _padded([torch.from_numpy(rows) for rows in active], False)}
        if len(active) == len(samples)
        else {},
    )
    return observation, target


def _tokens(rows: Sequence[Float32[np.ndarray, "_ width"]]) -> Tokens:
    values = _padded([torch.from_numpy(row) for row in rows], 0.0)
    counts = torch.tensor([len(row) for row in rows])
    return Tokens(values=values, valid=torch.arange(values.shape[1]) < counts[:, None])


def _padded(rows: list[Tensor], padding: float) -> Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=padding)
