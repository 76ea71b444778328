"""Grammars of activities: what they draw, and the exact probabilities that follow from them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from actioncast.timeline import run_lengths

START, END = "start", "end"
"""Where the chain of an activity begins and ends; neither is an action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A Markov chain over actions, each done at most once."""

    probability: float
    """How often a video shows this activity."""
    following: Mapping[str, Mapping[str, float]]
    """What comes after START and after each action, with its probability; END ends the video.
    Actions stand in an order in which none leads back, so that every video ends."""

    def __post_init__(self) -> None:
        order = {name: i for i, name in enumerate((*self.following, END))}
        for name, options in self.following.items():
            if not math.isclose(sum(options.values()), 1) or min(options.values()) < 0:
                raise ValueError(
                    f"probabilities after {name} must sum to 1, got {list(options.values())}."
                )
            if wrong := [o for o in options if order.get(o, -1) <= order[name]]:
                raise ValueError(
                    f"what follows {name} must stand after it in the chain, got {wrong[0]}; "
                    "list it further down."
                )
        if next(iter(self.following), END) != START or END in self.following.get(START, {}):
            raise ValueError(f"a chain must begin with {START!r} and hold an action.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """Activities, and how long each action takes."""

    durations: Mapping[str, tuple[int, int]]
    """Fewest and most frames of each action. Between them the probability rises evenly to the
    middle and falls again. The order of the actions is that of their labels."""
    activities: Mapping[str, Activity]

    def __post_init__(self) -> None:
        for name, (fewest, most) in self.durations.items():
            if not 1 <= fewest <= most:
                raise ValueError(
                    f"{name} must last from 1 frame up, fewest before most, got {fewest} to {most}."
                )
        total = sum(activity.probability for activity in self.activities.values())
        if not math.isclose(total, 1):
            raise ValueError(f"probabilities of activities must sum to 1, got {total}.")
        used = {name for a in self.activities.values() for name in a.following} - {START}
        if odd := sorted(used ^ set(self.durations)):
            raise ValueError(
                f"every action must have a duration and an activity, got {odd[0]} without."
            )


def future_marginals(
    grammar: Grammar,
    seen: Int[np.ndarray, " time"],
    horizon: int,
    video_length: int | None = None,
) -> Float[np.ndarray, "horizon label"]:
    """The exact probability of every label at every frame of the horizon.

    Known are the labels of all frames seen, so the action going on, its age and the actions before
    it; that the video goes on for one more frame at least; and, where it is given, the length of
    the video. Where it is not, a row sums to the probability that the video still goes on, else to
    1 within the video and 0 after it. The most likely label of each row is the best forecast of a
    frame that lies in the video.

    Args:
        grammar: what was drawn from.
        seen: labels of the frames seen, from the first; may be empty.
        horizon: frames asked for.
        video_length: frames of the whole video, if the protocol gives them away.

    Raises:
        ValueError: no video of this grammar starts so, or goes on for so long.
    """
    return Chain.of(grammar).marginals(seen, horizon, video_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A grammar in arrays. A step is an action of one activity; none leads to an earlier one."""

    activities: Int[np.ndarray, " step"]
    labels: Int[np.ndarray, " step"]
    start: Float[np.ndarray, " step"]
    """The probability that a video starts with each step."""
    following: Float[np.ndarray, "step step"]
    end: Float[np.ndarray, " step"]
    """The probability that a video ends with each step, once there."""
    durations: Float[np.ndarray, "step duration"]
    """The probability that a step takes 0, 1, 2, ... frames."""
    rest: Float[np.ndarray, "step frame"]
    """The probability that exactly 0, 1, 2, ... frames of the video follow the end of a step."""
    num_labels: int

    @classmethod
    def of(cls, grammar: Grammar) -> "Chain":
        """Lay the activities out one after the other."""
        actions = list(grammar.durations)
        steps = [
            (i, name)
            for i, activity in enumerate(grammar.activities.values())
            for name in activity.following
            if name != START
        ]
        index = {step: k for k, step in enumerate(steps)}
        start, end = np.zeros(len(steps)), np.zeros(len(steps))
        following = np.zeros((len(steps), len(steps)))
        for i, activity in enumerate(grammar.activities.values()):
            for name, options in activity.following.items():
                for option, probability in options.items():
                    if option == END:
                        end[index[i, name]] = probability
                    elif name == START:
                        start[index[i, option]] = activity.probability * probability
                    else:
                        following[index[i, name], index[i, option]] = probability
        longest = max(most for _, most in grammar.durations.values())
        durations = np.zeros((len(steps), longest + 1))
        for k, (_, name) in enumerate(steps):
            fewest, most = grammar.durations[name]
            durations[k, fewest : most + 1] = _triangle(most - fewest + 1)
        return cls(
            activities=np.array([i for i, _ in steps]),
            labels=np.array([actions.index(name) for _, name in steps]),
            start=start,
            following=following,
            end=end,
            durations=durations,
            rest=_rest(following, end, durations),
            num_labels=len(actions),
        )

    def draw(self, rng: np.random.Generator) -> tuple[int, Int[np.ndarray, " time"]]:
        """One video: its activity and the label of every frame."""
        step = int(rng.choice(len(self.start), p=self.start))
        activity, labels, lengths = int(self.activities[step]), [], []
        while step < len(self.start):
            labels.append(self.labels[step])
            lengths.append(rng.choice(self.durations.shape[1], p=self.durations[step]))
            step = int(rng.choice(len(self.start) + 1, p=[*self.following[step], self.end[step]]))
        return activity, np.repeat(labels, lengths)

    def frame_shares(self) -> Float[np.ndarray, " label"]:
        """The share of each label in the frames of all videos."""
        visits = self.start.copy()
        for step, options in enumerate(self.following):
            visits += visits[step] * options
        frames = visits * (self.durations @ np.arange(self.durations.shape[1]))
        return self.by_label(frames) / frames.sum()

    def next_joints(self) -> Iterator[tuple[tuple[int, ...], Float[np.ndarray, " label"]]]:
        """Every sequence of actions that goes on, and its probability with each next action."""
        begun: list[tuple[tuple[int, ...], Float[np.ndarray, " step"]]] = [((), self.start)]
        while begun:
            actions, steps = begun.pop()
            joint = self.by_label(steps)
            if actions and joint.any():
                yield actions, joint
            for label in np.flatnonzero(joint):
                held = np.where(self.labels == label, steps, 0.0)
                begun.append(((*actions, int(label)), held @ self.following))

    def marginals(
        self, seen: Int[np.ndarray, " time"], horizon: int, video_length: int | None
    ) -> Float[np.ndarray, "horizon label"]:
        """As `future_marginals`."""
        if horizon < 0:
            raise ValueError(f"horizon must be 0 frames or more, got {horizon}.")
        runs = run_lengths(seen)
        age = runs[-1][2] - runs[-1][1] if runs else 0
        # Time runs from the first frame of the action going on, and one frame ahead at least.
        num_frames = age + max(horizon, 1)
        begins = np.zeros((len(self.start), num_frames))
        begins[:, 0] = self._steps_after(runs)
        to_end = None if video_length is None else video_length - len(seen) + age
        occupied = np.zeros((num_frames, self.num_labels))
        for step, label in enumerate(self.labels):
            lengths = self.durations[step]
            if begins[step, 0]:
                lengths = np.where(np.arange(len(lengths)) >= age, lengths, 0.0)
            ends = np.convolve(begins[step], lengths)[:num_frames]
            begins += self.following[step][:, None] * ends
            occupied[:, label] += self._occupied(step, begins[step], lengths, to_end)
        if not (possible := float(occupied[age].sum())):
            length = "" if video_length is None else f" of {video_length} frames"
            raise ValueError(
                f"seen must be the start of a video{length} that this grammar can draw and that "
                f"goes on, got {len(seen)} frames that no such video has."
            )
        return occupied[age : age + horizon] / possible

    def _steps_after(self, runs: Sequence[tuple[int, int, int]]) -> Float[np.ndarray, " step"]:
        """How likely each step is the one going on, times a constant; its own duration aside."""
        if not runs:
            return self.start
        steps = np.where(self.labels == runs[0][0], self.start, 0.0)
        for (_, first, end), (label, _, _) in pairwise(runs):
            taken = np.zeros_like(steps)
            if end - first < self.durations.shape[1]:
                taken = self.durations[:, end - first]
            steps = np.where(self.labels == label, (steps * taken) @ self.following, 0.0)
        return steps

    def _occupied(
        self,
        step: int,
        begins: Float[np.ndarray, " frame"],
        lengths: Float[np.ndarray, " duration"],
        to_end: int | None,
    ) -> Float[np.ndarray, " frame"]:
        """The probability of being in a step at each frame, and of the video ending at `to_end`."""
        num_frames, longest = len(begins), len(lengths) - 1
        occupied = np.zeros(num_frames + longest)
        if not begins.any():
            return occupied[:num_frames]
        times = np.arange(num_frames)
        reaching = np.zeros(num_frames)
        # From long to short: `reaching` is the probability of a length of at least `length`.
        for length in range(longest, 0, -1):
            if to_end is None:
                reaching += lengths[length]
            elif lengths[length]:
                left = to_end - length - times
                possible = (left >= 0) & (left < self.rest.shape[1])
                left = np.where(possible, left, 0)
                reaching += lengths[length] * np.where(possible, self.rest[step, left], 0.0)
            occupied[length - 1 : length - 1 + num_frames] += begins * reaching
        return occupied[:num_frames]

    def by_label(self, steps: Float[np.ndarray, " step"]) -> Float[np.ndarray, " label"]:
        """Sums over the steps of each label."""
        return np.bincount(self.labels, steps, self.num_labels)


def _triangle(width: int) -> Float[np.ndarray, " width"]:
    rising = np.arange(1, width + 1)
    weights = np.minimum(rising, rising[::-1])
    return weights / weights.sum()


def _rest(
    following: Float[np.ndarray, "step step"],
    end: Float[np.ndarray, " step"],
    durations: Float[np.ndarray, "step duration"],
) -> Float[np.ndarray, "step frame"]:
    num_steps, width = durations.shape
    rest = np.zeros((num_steps, num_steps * width))
    rest[:, 0] = end
    for step in reversed(range(num_steps)):
        for after in np.flatnonzero(following[step]):
            whole = np.convolve(durations[after], rest[after])[: rest.shape[1]]
            rest[step] += following[step, after] * whole
    return rest[:, : int(np.flatnonzero(rest.any(0)).max()) + 1]
