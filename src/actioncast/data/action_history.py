"""What was done in a video before a moment, from its annotation: a modality without pixels.

Known of an action is that it goes on, or how it ended, at the moment up to which a model may look;
never its end beyond, nor anything of an action that starts then or later. Who the actions were
named by is the annotation: this is what a recogniser without mistakes would hand on.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.video_actions import VideoActions, actions_by_video, actions_of

NUM_TIMES = 5
"""Columns about time of a token, see `ActionHistory.read`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    """How much of the past is told."""

    max_actions: int = 16
    """actions told, the latest that started"""
    gap: float = 0.0
    """seconds before the anticipation time that are not told besides"""
    rate: float = 0.0
    """steps per second of what is under way, told as a stream; 0 tells one token an action"""
    span: float = 32.0
    """seconds that a stream of steps covers"""

    def __post_init__(self) -> None:
        if self.max_actions < 1:
            raise ValueError(f"max_actions must be at least 1, got {self.max_actions}.")
        if not 0 <= self.gap <= 100_000:
            raise ValueError(
                f"gap must be 0 seconds or more, at most 100000, got {self.gap}; less would tell "
                "what is to be anticipated."
            )
        if not 0 <= self.rate <= 1000 or not 0 < self.span <= 100_000:
            raise ValueError(
                "rate must be within 0 and 1000 steps per second and span above 0 seconds, at most "
                f"100000, got {self.rate} and {self.span}."
            )
        if self.rate and not 1 <= self.most_steps <= 100_000:
            raise ValueError(
                f"span times rate must be 1 to 100000 steps, got {self.span:g} s at {self.rate:g} "
                "a second."
            )

    @property
    def most_steps(self) -> int:
        """Steps of a full span; 0 where actions are told and no steps."""
        return round(self.span * self.rate)

    def sentence(self) -> str:
        """What is told, for a passport."""
        gap = f", {self.gap:g} s before that" if self.gap else ""
        if self.rate:
            return (
                f"annotated past actions at {self.rate:g} steps a second over {self.span:g} s{gap}"
            )
        return f"annotated past actions, the latest {self.max_actions}{gap}"


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


def require_ahead(anticipation_time: float) -> None:
    """Refuse an anticipation time that is none.

    Raises:
        ValueError: It is below 0 seconds or above 1000.
    """
    if not 0 <= anticipation_time <= 1000:
        raise ValueError(
            f"anticipation_time must be within 0 and 1000 seconds, got {anticipation_time}."
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
    _videos: dict[str, VideoActions] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_ahead(self.anticipation_time)
        object.__setattr__(self, "_videos", actions_by_video(self.dataset))

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
        video = actions_of(clip, self._videos, self.dataset.name)
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
