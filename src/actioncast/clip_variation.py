"""Training clips that are changed each time they are shown: nouns take one another's places.

Whoever used a thing uses it again. From the clips as they are, a model learns this for frequent
things alone; with all nouns exchanged at random, in what was observed and in the answer alike, it
learns it for every one. The verb and the times stay.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from actioncast.data.clip_samples import ClipSample, ClipSamples
from actioncast.data.step_labels import StepLabels
from actioncast.timeline import Taxonomy
from actioncast.types import IGNORE

QUESTIONS = "questions"
OBJECTS = "objects"


def exchange_nouns(
    sample: ClipSample, order: Int64[np.ndarray, " noun"], num_verbs: int
) -> ClipSample:
    """Call every noun `n` by the name of noun `order[n]`.

    Questions are left out, whose words tell the old names, and so is the action, for the pair need
    not exist.

    Args:
        sample: Of a history of actions.
        order: A permutation of the nouns.
        num_verbs: Columns of a token before the nouns'.
    """
    num_nouns = len(order)
    place = np.argsort(order)
    features = sample.features.copy()
    nouns = slice(num_verbs, num_verbs + num_nouns)
    features[:, nouns] = sample.features[:, nouns][:, place]
    modalities = dict(sample.modalities)
    if QUESTIONS in modalities:
        modalities[QUESTIONS] = modalities[QUESTIONS][:0]
    if OBJECTS in modalities:
        told = modalities[OBJECTS].copy()
        told[:, :num_nouns] = modalities[OBJECTS][:, :num_nouns][:, place]
        modalities[OBJECTS] = told
    following = {
        **sample.next,
        "noun": int(order[sample.next["noun"]]),
        "action": IGNORE,
    }
    return replace(
        sample,
        features=features,
        labels=None,
        modalities=modalities,
        next=following,
        steps=None if sample.steps is None else _exchanged(sample.steps, order),
    )


def _exchanged(steps: StepLabels, order: Int64[np.ndarray, " noun"]) -> StepLabels:
    """The steps under their nouns' other names, without actions."""
    frames, starts = (
        {
            "verb": labels["verb"],
            "noun": np.where(
                labels["noun"] == IGNORE, IGNORE, order[np.maximum(labels["noun"], 0)]
            ),
            "action": np.full_like(labels["action"], IGNORE),
        }
        for labels in (steps.frames, steps.starts)
    )
    return StepLabels(frames=frames, starts=starts)


class VariedClips(torch.utils.data.Dataset[ClipSample]):
    """Clips by number: one beyond the last clip stands for a clip and the seed of its exchange."""

    def __init__(self, samples: ClipSamples, taxonomy: Taxonomy) -> None:
        self.samples = samples
        self.num_verbs = len(taxonomy.heads["verb"])
        self.num_nouns = len(taxonomy.heads["noun"])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> ClipSample:
        seed, clip = divmod(number, len(self.samples))
        sample = self.samples[clip]
        if not seed:
            return replace(sample, labels=None)
        order: Any = np.random.default_rng(seed).permutation(self.num_nouns)
        return exchange_nouns(sample, order, self.num_verbs)


def varied_numbers(clips: list[int], num_clips: int, share: float, seed: list[int]) -> list[int]:
    """Number some clips for an exchange, see `VariedClips`.

    Args:
        clips: In the order of an epoch.
        num_clips: All there are.
        share: Probability that a clip is exchanged.
        seed: Of an epoch.
    """
    # A generator of their own: the order is the same with exchanges and without.
    rng = np.random.default_rng([*seed, 1])
    drawn = rng.random(len(clips)) < share
    seeds = rng.integers(1, 2**31, size=len(clips))
    return [
        clip + num_clips * int(own) if exchanged else clip
        for clip, own, exchanged in zip(clips, seeds, drawn, strict=True)
    ]
