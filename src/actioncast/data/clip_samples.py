"""Samples of short actions: tokens of what may be seen of a clip, and its labels; batches of them.

A clip of which nothing can be seen has no token and is asked for all the same: in a batch its row
is padding throughout. Every batch has at least one step of time, so that no tensor is empty along
it; models must cope with rows, and batches, without a valid step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from actioncast.data.clips import ActionClip
from actioncast.types import IGNORE, Observation, Target, Tokens

HEADS = ("verb", "noun", "action")


@runtime_checkable
class TokenSource(Protocol):
    """Something known of a clip before it is named: features, past actions, objects in view."""

    @property
    def name(self) -> str:
        """What the modality is called in `Observation.modalities`."""

    @property
    def width(self) -> int:
        """Size of a token."""

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """The clip's tokens in order of time; there may be none."""


@runtime_checkable
class LabelledSource(Protocol):
    """A source whose tokens are actions."""

    def labels(self, clip: ActionClip) -> Int64[np.ndarray, " token"]:
        """The action of each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSample:
    """What is known of one clip, and its labels; not yet padded."""

    features: Float32[np.ndarray, "time feature"]
    labels: Int64[np.ndarray, " time"] | None = None
    """The observed actions, one a step, where the steps are actions."""
    modalities: Mapping[str, Float32[np.ndarray, "_ _"]] = field(default_factory=dict)
    """Tokens by name, each of shape (token, feature)."""
    next: Mapping[str, int] = field(default_factory=dict)
    """The clip's own verb, noun and action."""


class ClipSamples(torch.utils.data.Dataset[ClipSample]):
    """Clips read from their sources: the first gives `features`, the others modalities."""

    def __init__(self, clips: Sequence[ActionClip], sources: Sequence[TokenSource]) -> None:
        names = [source.name for source in sources]
        if not sources:
            raise ValueError("clips need at least one source of tokens, got none.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"sources must have names of their own, got {', '.join(twice)} more than once."
            )
        self.clips = tuple(clips)
        self.sources = tuple(sources)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> ClipSample:
        clip = self.clips[i]
        first, *others = self.sources
        return ClipSample(
            features=first.read(clip),
            labels=first.labels(clip) if isinstance(first, LabelledSource) else None,
            modalities={source.name: source.read(clip) for source in others},
            next={head: clip.label(head) for head in HEADS},
        )


def collate_clips(
    samples: Sequence[ClipSample], *, anticipation_time: float, rate: float
) -> tuple[Observation, Target]:
    """Pad clips to the right into a batch.

    Args:
        samples: Clips of the same sources.
        anticipation_time: Seconds from the last moment seen to the action; 0 names the clip.
        rate: Steps per second of the features; of tokens without a rate, any.
    """
    features = _padded([sample.features for sample in samples])
    named = [sample.labels for sample in samples if sample.labels is not None]
    labels = None
    if len(named) == len(samples):
        labels = torch.full(features.valid.shape, IGNORE, dtype=torch.long)
        for row, known in zip(labels, named, strict=True):
            row[: len(known)] = torch.from_numpy(known)
    observation = Observation(
        features=features.values,
        valid=features.valid,
        rate=rate,
        horizon=torch.zeros(len(samples), dtype=torch.long),
        anticipation_time=anticipation_time,
        labels=labels,
        modalities={
            name: _padded([sample.modalities[name] for sample in samples])
            for name in samples[0].modalities
        },
    )
    target = Target(
        frames={},
        next={
            head: torch.tensor([sample.next[head] for sample in samples])
            for head in samples[0].next
        },
    )
    return observation, target


def _padded(rows: Sequence[Float32[np.ndarray, "_ feature"]]) -> Tokens:
    """Rows of any number of tokens, none among them, as a tensor of one token at least."""
    longest = max(1, *(len(row) for row in rows)) if rows else 1
    values: Float[Tensor, "batch token feature"] = torch.zeros(len(rows), longest, rows[0].shape[1])
    valid: Bool[Tensor, "batch token"] = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        values[i, : len(row)] = torch.from_numpy(row)
        valid[i, : len(row)] = True
    return Tokens(values=values, valid=valid)
