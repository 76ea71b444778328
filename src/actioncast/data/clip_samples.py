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
from actioncast.data.step_labels import StepLabels
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


@runtime_checkable
class SteppedSource(Protocol):
    """A source whose tokens are steps in time, which training may name one by one."""

    def steps(self, clip: ActionClip) -> StepLabels:
        """What trains the steps of `read`; only for targets, it knows what comes after."""


@runtime_checkable
class ComingTruth(Protocol):
    """Somebody who knows which actions come after a clip."""

    def coming(self, clip: ActionClip) -> Mapping[str, Int64[np.ndarray, " place"]]:
        """The next actions in order, by head; only for targets."""


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
    steps: StepLabels | None = None
    """What trains each step of `features`."""
    coming: Mapping[str, Int64[np.ndarray, " place"]] = field(default_factory=dict)
    """The next actions in order, by head, where they are asked for in place of one."""


class ClipSamples(torch.utils.data.Dataset[ClipSample]):
    """Clips read from their sources: the first gives `features`, the others modalities."""

    def __init__(
        self,
        clips: Sequence[ActionClip],
        sources: Sequence[TokenSource],
        *,
        supervise: bool = False,
        truth: ComingTruth | None = None,
    ) -> None:
        """Read clips.

        Args:
            clips: Which.
            sources: What is known of each.
            supervise: Label each step of the first source besides, for training.
            truth: Knows the actions that come after a clip, where those are asked for and not the
                clip itself.
        """
        names = [source.name for source in sources]
        if not sources:
            raise ValueError("clips need at least one source of tokens, got none.")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"sources must have names of their own, got {', '.join(twice)} more than once."
            )
        if supervise and not isinstance(sources[0], SteppedSource):
            raise ValueError(
                f"steps can be labelled of a source of steps, got {names[0]}, which has none; take "
                "a history with a rate, or every step of feature files."
            )
        # Asked once: protocols are slow to check.
        self._labelled = sources[0] if isinstance(sources[0], LabelledSource) else None
        self._stepped = sources[0] if supervise and isinstance(sources[0], SteppedSource) else None
        self.truth = truth
        self.clips = tuple(clips)
        self.sources = tuple(sources)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> ClipSample:
        clip = self.clips[i]
        first, *others = self.sources
        return ClipSample(
            features=first.read(clip),
            labels=None if self._labelled is None else self._labelled.labels(clip),
            modalities={source.name: source.read(clip) for source in others},
            next={head: clip.label(head) for head in HEADS} if self.truth is None else {},
            steps=None if self._stepped is None else self._stepped.steps(clip),
            coming={} if self.truth is None else self.truth.coming(clip),
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
    num_steps = features.valid.shape[1]
    named = [sample.labels for sample in samples if sample.labels is not None]
    steps = [sample.steps for sample in samples if sample.steps is not None]
    supervised = len(steps) == len(samples)
    observation = Observation(
        features=features.values,
        valid=features.valid,
        rate=rate,
        horizon=torch.zeros(len(samples), dtype=torch.long),
        anticipation_time=anticipation_time,
        labels=_labels(named, num_steps) if len(named) == len(samples) else None,
        modalities={
            name: _padded([sample.modalities[name] for sample in samples])
            for name in samples[0].modalities
        },
    )
    target = Target(
        frames=_by_head([one.frames for one in steps], num_steps) if supervised else {},
        next={
            head: torch.tensor([sample.next[head] for sample in samples])
            for head in samples[0].next
        },
        starts=_by_head([one.starts for one in steps], num_steps) if supervised else {},
        coming=_by_head([sample.coming for sample in samples]),
    )
    return observation, target


def _by_head(
    rows: Sequence[Mapping[str, Int64[np.ndarray, " _"]]], length: int = 0
) -> dict[str, Int64[Tensor, "batch _"]]:
    return {
        head: _labels([row[head] for row in rows], max(length, *(len(row[head]) for row in rows)))
        for head in rows[0]
    }


def _labels(rows: Sequence[Int64[np.ndarray, " _"]], length: int) -> Int64[Tensor, "batch length"]:
    """Rows of labels, padded to the right."""
    labels = torch.full((len(rows), length), IGNORE, dtype=torch.long)
    for row, known in zip(labels, rows, strict=True):
        row[: len(known)] = torch.from_numpy(known)
    return labels


def _padded(rows: Sequence[Float32[np.ndarray, "_ feature"]]) -> Tokens:
    """Rows of any number of tokens, none among them, as a tensor of one token at least."""
    longest = max(1, *(len(row) for row in rows)) if rows else 1
    values: Float[Tensor, "batch token feature"] = torch.zeros(len(rows), longest, rows[0].shape[1])
    valid: Bool[Tensor, "batch token"] = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        values[i, : len(row)] = torch.from_numpy(row)
        valid[i, : len(row)] = True
    return Tokens(values=values, valid=valid)
