"""Tiny training videos and observations, spelt as (label, frames) pairs."""

from collections.abc import Sequence

import numpy as np
import torch

from actioncast.timeline import LabelSpace, Taxonomy, Timeline
from actioncast.types import Observation, TrainingTimeline

Spelling = Sequence[tuple[str, int]]
TAXONOMY = Taxonomy.of("abcdefgh")


def frames(spelling: Spelling) -> np.ndarray:
    labels: LabelSpace = TAXONOMY.labels
    return np.array([labels.index(name) for name, num in spelling for _ in range(num)], int)


def video(spelling: Spelling, group: str = "", rate: float = 10.0) -> TrainingTimeline:
    labels = frames(spelling)
    timeline = Timeline.from_frames(labels, rate, TAXONOMY.labels)
    return TrainingTimeline(timeline=timeline, rate=rate, num_frames=len(labels), group=group)


def observe(
    *seen: Spelling,
    horizon: int | Sequence[int],
    length: int | Sequence[int] | None = None,
    rate: float = 10.0,
    stride: int = 1,
    anticipation_time: float = 0.0,
    num_samples: int = 0,
) -> Observation:
    """A padded batch; without `length` nobody tells how long the videos are."""
    whole = [frames(spelling) for spelling in seen]
    steps = [labels[::stride] for labels in whole]
    shape = len(seen), max(map(len, steps))
    labels, valid = torch.full(shape, -100), torch.zeros(shape, dtype=torch.bool)
    for i, own in enumerate(steps):
        labels[i, : len(own)] = torch.from_numpy(own)
        valid[i, : len(own)] = True
    horizons = [horizon] * len(seen) if isinstance(horizon, int) else list(horizon)
    lengths = [length] * len(seen) if isinstance(length, int) else length
    return Observation(
        features=torch.zeros(*shape, 0),
        valid=valid,
        rate=rate,
        horizon=torch.tensor(horizons),
        stride=stride,
        observed=torch.tensor([len(own) for own in whole]),
        video_length=None if lengths is None else torch.tensor(list(lengths)),
        labels=labels,
        anticipation_time=anticipation_time,
        num_samples=num_samples,
    )


def spell(probs: torch.Tensor) -> str:
    """The most likely label of every frame, as one word."""
    return "".join(TAXONOMY.labels.names[label] for label in probs.argmax(-1).tolist())
