"""What was done in a video before a moment, as a stream of steps at a fixed rate.

The same knowledge as in `action_history`, told as a camera would: at each step, which verbs and
nouns are under way. Nothing at or after the end of a step shows in it, so that an action shows that
it goes on and never when it will end.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64

from actioncast.data.action_history import HistoryConfig, require_ahead
from actioncast.data.clip_samples import HEADS
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.step_labels import (
    StepLabels,
    by_head,
    first_at,
    steps_of,
    under_way,
    whole,
)
from actioncast.data.video_actions import (
    PartActions,
    VideoActions,
    actions_by_video,
    actions_of,
)


@dataclass(frozen=True, slots=True)
class HistorySteps:
    """`config.rate` steps a second over the last `config.span` seconds before `until`.

    A source of tokens with labels, see `clip_samples`. Step j of n ends `(n - 1 - j) / rate`
    seconds before `until`, the last one at it, and shows what is under way in the `1 / rate`
    seconds before its end. The first may begin before the video does; a clip that starts too early
    has no step.
    """

    dataset: ClipDataset
    anticipation_time: float = 1.0
    """Seconds from the last moment told to the action asked for."""
    config: HistoryConfig = field(default_factory=lambda: HistoryConfig(rate=4.0))
    name: str = "history"
    _videos: dict[str, VideoActions] = field(init=False, repr=False, compare=False)
    _parts: PartActions = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_ahead(self.anticipation_time)
        if not self.config.rate:
            raise ValueError(
                "rate of a history of steps must be above 0 steps a second, got 0; take "
                "ActionHistory for one token an action."
            )
        object.__setattr__(self, "_videos", actions_by_video(self.dataset))
        object.__setattr__(self, "_parts", PartActions(self.dataset))

    @property
    def width(self) -> int:
        """One column a verb, one a noun, and one that says that nothing is done."""
        heads = self.dataset.taxonomy.heads
        return len(heads["verb"]) + len(heads["noun"]) + 1

    def until(self, clip: ActionClip) -> float:
        """The moment up to which the past is told, in seconds; 0 or less tells nothing."""
        return round(clip.start - self.anticipation_time - self.config.gap, 6)

    def num_steps(self, clip: ActionClip) -> int:
        """As many as the span has, or as it takes to cover what there is of the video."""
        rate = self.config.rate
        there = math.ceil(round(self.until(clip) * rate, 6))
        return max(0, min(self.config.most_steps, there))

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """One token a step, the earliest first: verbs and nouns under way, 0 or 1 each."""
        num_steps = self.num_steps(clip)
        tokens = np.zeros((num_steps, self.width), np.float32)
        if not num_steps:
            return tokens
        actions = actions_of(clip, self._videos, self.dataset.name)
        told, first, after = self._steps(clip, actions, num_steps)
        num_verbs = len(self.dataset.taxonomy.heads["verb"])
        tokens[:, -1] = 1
        verbs, nouns = actions.verbs[told].tolist(), actions.nouns[told].tolist()
        for (a, b), verb, noun in zip(steps_of(first, after), verbs, nouns, strict=True):
            tokens[a:b, verb] = 1
            tokens[a:b, num_verbs + noun] = 1
            tokens[a:b, -1] = 0
        return tokens

    def labels(self, clip: ActionClip) -> Int64[np.ndarray, " token"]:
        """The action under way at each step that started last; IGNORE where there is none."""
        actions = actions_of(clip, self._videos, self.dataset.name)
        num_steps = self.num_steps(clip)
        told, first, after = self._steps(clip, actions, num_steps)
        return by_head(actions, told, under_way(first, after, num_steps))["action"]

    def steps(self, clip: ActionClip) -> StepLabels:
        """What trains: the action at each step, and the one that starts ahead of it.

        An action that starts at s stands at the last step that ends at or before
        `s - anticipation_time - gap`; of several the first counts, and at the last step always the
        clip's own. All are of the clip's part of the data set.
        """
        actions, num_steps = self._parts.beside(clip), self.num_steps(clip)
        told, first, after = self._steps(clip, actions, num_steps)
        rate = self.config.rate
        ahead = actions.starting(clip.start - (num_steps + 1) / rate, clip.start)
        places = num_steps - 1 + np.floor(whole((actions.start[ahead] - clip.start) * rate))
        starts = by_head(actions, ahead, first_at(places, num_steps))
        if num_steps:
            for head in HEADS:
                starts[head][-1] = clip.label(head)
        return StepLabels(
            frames=by_head(actions, told, under_way(first, after, num_steps)), starts=starts
        )

    def _steps(
        self, clip: ActionClip, actions: VideoActions, num_steps: int
    ) -> tuple[slice, np.ndarray, np.ndarray]:
        """Actions that may show, the first step of each and the one after its last."""
        until, rate = self.until(clip), self.config.rate
        told = actions.within(until - (num_steps + 1) / rate, until)
        # Step j covers the positions from j to j + 1.
        first = np.floor(whole(num_steps + (actions.start[told] - until) * rate))
        after = np.ceil(whole(num_steps + (actions.stop[told] - until) * rate))
        # What starts a rounding before `until` begins at the step after the last: it shows nowhere.
        return told, first, np.minimum(after, num_steps)
