"""Semi-Markov roll-outs: the strongest forecast from labels that learns nothing.

No paper; the recipe is common. What follows the labels seen so far is drawn from what followed the
longest suffix of them in training, for how long from the durations of that label; the action going
on lasts longer than it has. Many futures drawn give each frame a distribution P, and the answer is
the largest `P / prior ** balance`, because the mean over classes rewards rare labels.

Where the protocol gives the length of the video away, durations are shares of it; otherwise they
are seconds, and nothing depends on where the video ends. How many labels to look back and how far
to balance is chosen for either case by cross-validation within the training videos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int

from actioncast.layers.transcripts import (
    Corpus,
    DurationPool,
    Outset,
    Rollouts,
    SuffixIndex,
    Transcript,
    roll_out,
)
from actioncast.models.baselines import TranscriptAnticipator, clock_scale, one_prediction
from actioncast.models.base import TrainingTimeline
from actioncast.timeline import Taxonomy, seconds_to_frames
from actioncast.types import Observation, Prediction
