"""What was done in a video before a moment, from its annotation: a modality without pixels.

Known of an action is that it goes on, or how it ended, at the moment up to which a model may look;
never its end beyond, nor anything of an action that starts then or later. Who the actions were
named by is the annotation: this is what a recogniser without mistakes would hand on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from actioncast.data.clips import ActionClip, ClipDataset

NUM_TIMES = 5
"""Columns about time of a token, see `ActionHistory.read`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    """How much of the past is told."""

    max_actions: int = 16
    """actions told, the latest that started"""
    gap: float = 0.0
    """seconds before the anticipation time that are not told besides"""

    def __post_init__(self) -> None:
        if self.max_actions < 1:
            raise ValueError(f"max_actions must be at least 1, got {self.max_actions}.")
        if not 0 <= self.gap <= 100_000:
            raise ValueError(
                f"gap must be 0 seconds or more, at most 100000, got {self.gap}; less would tell "
                "what is to be anticipated."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedActions:
    """Actions that started before a moment, in order of their start, then of their id."""

    verbs: Int64[np.ndarray, " token"]
    nouns: Int64[np.ndarray, " token"]
    actions: Int64[np.ndarray, " token"]
    since_start: Float64[np.ndarray, " token"]
    """Seconds from its start to the moment, above 0."""
    since_end: Float64[np.ndarray, " token"]
    """Seconds from its end to the moment; 0 of an action going on."""
    going_on: Bool[np.ndarray, " token"]
    """Whether it has not ended at the moment."""

    def __len__(self) -> int:
        return len(self.verbs)


@dataclass(frozen=True, slots=True)
class _VideoActions:
    """All annotated actions of a video by start, then id: their ends have no say in the order."""

    start: Float64[np.ndarray, " action"]
    stop: Float64[np.ndarray, " action"]
    verbs: Int64[np.ndarray, " action"]
    nouns: Int64[np.ndarray, " action"]
    actions: Int64[np.ndarray, " action"]

    @classmethod
    def of(cls, clips: Iterable[ActionClip]) -> "_VideoActions":
        ordered = sorted(clips, key=lambda clip: (clip.start, clip.id))
        return cls(
            np.array([clip.start for clip in ordered], np.float64),
            np.array([clip.stop for clip in ordered], np.float64),
            np.array([clip.verb for clip in ordered], np.int64),
            np.array([clip.noun for clip in ordered], np.int64),
            np.array([clip.action for clip in ordered], np.int64),
        )


@dataclass(frozen=True, slots=True)
class ActionHistory:
    """The actions of each clip's video that started before `clip.start - anticipation_time - gap`.

    A source of tokens, see `clip_samples.TokenSource`. An action that starts too early in its
    video, or first, has a history of no token.
    """

    dataset: ClipDataset
    anticipation_time: float = 1.0
    """Seconds; 0 tells what was done before a clip that is to be recognised."""
    config: HistoryConfig = HistoryConfig()
    name: str = "history"
    _videos: dict[str, _VideoActions] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.anticipation_time <= 1000:
            raise ValueError(
                "anticipation_time must be within 0 and 1000 seconds, got "
                f"{self.anticipation_time}."
            )
        videos = {video: _VideoActions.of(c) for video, c in self.dataset.by_video().items()}
        object.__setattr__(self, "_videos", videos)

    @property
    def width(self) -> int:
        """One column a verb, one a noun, and `NUM_TIMES`."""
        heads = self.dataset.taxonomy.heads
        return len(heads["verb"]) + len(heads["noun"]) + NUM_TIMES

    def until(self, clip: ActionClip) -> float:
        """The moment up to which the past is told, in seconds; 0 or less tells nothing."""
        # To the microsecond: 4.9 - 1.0 as floats would be a little after 3.9.
        return round(clip.start - self.anticipation_time - self.config.gap, 6)

    def observed(self, clip: ActionClip) -> ObservedActions:
        """What had started in the clip's video before `until`, at most `max_actions` of it."""
        video = self._video(clip)
        until = self.until(clip)
        end = int(np.searchsorted(video.start, until, side="left"))
        told = slice(max(0, end - self.config.max_actions), end)
        stop = video.stop[told]
        return ObservedActions(
            verbs=video.verbs[told],
            nouns=video.nouns[told],
            actions=video.actions[told],
            since_start=until - video.start[told],
            since_end=until - np.minimum(stop, until),
            # An action that ends at the boundary itself is not yet seen to have ended.
            going_on=stop >= until,
        )

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """One token an observed action, the earliest first.

        Its features are the verb and the noun, one-hot, and then ln(1 + s) of the seconds since
        its start, since its end and that it has lasted so far, whether it is going on, and its
        place from the last (1) towards the `max_actions`-th before (above 0).
        """
        observed = self.observed(clip)
        heads = self.dataset.taxonomy.heads
        num_verbs, num_nouns = len(heads["verb"]), len(heads["noun"])
        tokens = np.zeros((len(observed), num_verbs + num_nouns + NUM_TIMES), np.float32)
        rows = np.arange(len(observed))
        tokens[rows, observed.verbs] = 1
        tokens[rows, num_verbs + observed.nouns] = 1
        times = tokens[:, num_verbs + num_nouns :]
        times[:, 0] = np.log1p(observed.since_start)
        times[:, 1] = np.log1p(observed.since_end)
        times[:, 2] = np.log1p(observed.since_start - observed.since_end)
        times[:, 3] = observed.going_on
        times[:, 4] = 1 - rows[::-1] / self.config.max_actions
        return tokens

    def labels(self, clip: ActionClip) -> Int64[np.ndarray, " token"]:
        """The action of each token of `read`."""
        return self.observed(clip).actions

    def _video(self, clip: ActionClip) -> _VideoActions:
        try:
            return self._videos[clip.video]
        except KeyError:
            raise ValueError(
                f"clip {clip.id} is of video {clip.video}, of which {self.dataset.name} has no "
                "actions; take the history of the data set that the clip is from."
            ) from None
