"""Every step of a video's feature file up to a moment, and what trains each of them."""

import math

import numpy as np
from jaxtyping import Float32, Int64

from actioncast.data.clip_features import ClipFeatures
from actioncast.data.clip_samples import HEADS
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.step_labels import StepLabels, by_head, first_at, under_way, whole
from actioncast.data.video_actions import PartActions, VideoActions
from actioncast.features import WarpedFeatures


class FeatureSteps:
    """The steps of the `span` seconds before the moment up to which a clip's video may be seen.

    A source of steps, see `clip_samples`. Step k of a file stands for the moment `k / rate`, and
    the last one read for a moment before the boundary. Where it `lasts`, it shows the `1 / rate`
    seconds from then on, and the last one read is over by the boundary. A step that is missing at
    the end of a file is the one before; at the beginning of a video there are fewer.
    """

    def __init__(
        self, features: ClipFeatures, dataset: ClipDataset, span: float, *, lasts: bool = False
    ) -> None:
        self.features, self.span, self.lasts = features, span, lasts
        self.name, self.width = features.name, features.width
        self._parts = PartActions(dataset)

    def grid(self, clip: ActionClip) -> tuple[int, int]:
        """Number of the first step and how many there are."""
        rate = self.features.rate
        until = self.features.protocol.until(clip.start, clip.stop)
        position = round(until * rate, 6)
        end = max(0, math.floor(position) if self.lasts else math.ceil(position))
        num_steps = min(round(self.span * rate), end)
        return end - num_steps, num_steps

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """One token a step, the earliest first."""
        file = self.features.file(clip)
        first, num_steps = self.grid(clip)
        if not num_steps:
            return np.zeros((0, self.width), np.float32)
        steps = np.minimum(np.arange(first, first + num_steps), file.num_frames - 1)
        return WarpedFeatures(file, steps).read(0, num_steps)

    def steps(self, clip: ActionClip) -> StepLabels:
        """What trains: the action under way at each step, and the one that starts ahead of it.

        An action that starts at s stands at the last step before `s - anticipation_time`; of
        several the first counts, and at the last step always the clip's own. Where nothing is asked
        of a time ahead, none does. All are of the clip's part of the data set (sheet of CLAM,
        sections 3 and 8: labels of the segments themselves).
        """
        actions, rate = self._parts.beside(clip), self.features.rate
        first, num_steps = self.grid(clip)
        told = actions.within((first - 1) / rate, (first + num_steps) / rate)
        begin = whole(actions.start[told] * rate - first)
        end = np.ceil(whole(actions.stop[told] * rate - first))
        found = under_way(np.floor(begin) if self.lasts else np.ceil(begin), end, num_steps)
        starts = self._starts(clip, actions, first, num_steps)
        return StepLabels(frames=by_head(actions, told, found), starts=starts)

    def _starts(
        self, clip: ActionClip, actions: VideoActions, first: int, num_steps: int
    ) -> dict[str, Int64[np.ndarray, " time"]]:
        rate, ahead = self.features.rate, self.features.protocol.anticipation_time
        if not ahead:
            return {}
        later = actions.starting(first / rate, clip.start)
        places = np.ceil(whole((actions.start[later] - ahead) * rate - first)) - 1
        starts = by_head(actions, later, first_at(places, num_steps))
        if num_steps:
            for head in HEADS:
                starts[head][-1] = clip.label(head)
        return starts
