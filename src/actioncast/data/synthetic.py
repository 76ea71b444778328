"""People make hot drinks: a seeded data set for tests and demos whose best scores are known.

A grammar draws an activity, a Markov chain over its actions, and a duration for every action; a
frame's features are the vector of its action and Gaussian noise. What the best possible model
scores follows from the grammar and is computed exactly, not simulated:

- `next_action_ceiling`: the next action, given all actions so far;
- `anticipation_ceiling`: the frames of a horizon, given the labels of all observed frames;
- `segmentation_ceiling`: a frame seen alone.

Nobody is told the activity: it is inferred from the actions so far, by Bayes' rule. Features tell
less than labels, so the first two also bound models that read features. People are groups of videos
and nothing else: all act by the same grammar.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from actioncast.data.base import Dataset, Split, Video
from actioncast.features import FeatureArray
from actioncast.protocols.base import Question
from actioncast.timeline import LabelSpace, Taxonomy, Timeline, run_lengths

START, END = "start", "end"
"""Where the chain of an activity begins and ends; neither is an action."""

_EMBEDDING, _LABELS, _NOISE = range(3)
"""What a stream of random numbers is for."""


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


HOT_DRINKS = Grammar(
    durations={
        "idle": (10, 40),
        "take_cup": (8, 16),
        "brew_coffee": (20, 50),
        "pour_coffee": (10, 24),
        "boil_water": (25, 60),
        "add_teabag": (8, 16),
        "pour_water": (8, 20),
        "heat_milk": (20, 50),
        "add_cocoa": (10, 24),
        "pour_milk": (8, 20),
        "add_sugar": (6, 18),
        "stir": (12, 36),
        "drink": (15, 45),
    },
    activities={
        "coffee": Activity(
            probability=0.4,
            following={
                START: {"take_cup": 0.8, "brew_coffee": 0.2},
                "take_cup": {"brew_coffee": 1.0},
                "brew_coffee": {"idle": 0.6, "pour_coffee": 0.4},
                "idle": {"pour_coffee": 1.0},
                "pour_coffee": {"pour_milk": 0.45, "add_sugar": 0.25, "drink": 0.3},
                "pour_milk": {"add_sugar": 0.3, "stir": 0.6, "drink": 0.1},
                "add_sugar": {"stir": 1.0},
                "stir": {"drink": 0.7, END: 0.3},
                "drink": {END: 1.0},
            },
        ),
        "tea": Activity(
            probability=0.35,
            following={
                START: {"take_cup": 0.4, "boil_water": 0.6},
                "take_cup": {"boil_water": 1.0},
                "boil_water": {"idle": 0.5, "add_teabag": 0.5},
                "idle": {"add_teabag": 0.7, "pour_water": 0.3},
                "add_teabag": {"pour_water": 1.0},
                "pour_water": {"pour_milk": 0.2, "add_sugar": 0.3, "drink": 0.5},
                "pour_milk": {"add_sugar": 0.5, "stir": 0.5},
                "add_sugar": {"stir": 0.9, "drink": 0.1},
                "stir": {"drink": 0.6, END: 0.4},
                "drink": {END: 1.0},
            },
        ),
        "cocoa": Activity(
            probability=0.25,
            following={
                START: {"take_cup": 0.7, "pour_milk": 0.3},
                "take_cup": {"pour_milk": 1.0},
                "pour_milk": {"heat_milk": 1.0},
                "heat_milk": {"idle": 0.3, "add_cocoa": 0.7},
                "idle": {"add_cocoa": 1.0},
                "add_cocoa": {"add_sugar": 0.6, "stir": 0.4},
                "add_sugar": {"stir": 1.0},
                "stir": {"drink": 0.8, END: 0.2},
                "drink": {END: 1.0},
            },
        ),
    },
)
"""Coffee, tea and cocoa in thirteen actions; a video has 45 to 271 frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticConfig:
    """Which synthetic videos are made."""

    num_videos: int = 60
    """Videos; more of them leave the first as they are."""
    num_people: int = 12
    """People, who make the videos in turn."""
    num_splits: int = 4
    """Splits; each person is in the test part of exactly one."""
    rate: float = 5.0
    """Frames per second."""
    feature_dim: int = 16
    """Width of a feature vector, at least the number of actions."""
    noise: float = 0.5
    """Standard deviation of the noise in each feature; the vectors of actions have length 1."""
    seed: int = 0
    """Of everything that is drawn."""
    grammar: Grammar = field(default=HOT_DRINKS, repr=False)
    """What people do."""

    def __post_init__(self) -> None:
        if not 2 <= self.num_splits <= self.num_people <= self.num_videos:
            raise ValueError(
                "there must be 2 splits or more, a person for each, and a video for each person, "
                f"got {self.num_splits} splits, {self.num_people} people and {self.num_videos} "
                "videos."
            )
        if not self.rate > 0 or self.noise < 0 or self.seed < 0:
            raise ValueError(
                "rate must be positive, noise and seed 0 or more, "
                f"got {self.rate}, {self.noise} and {self.seed}."
            )
        if self.feature_dim < len(self.grammar.durations):
            raise ValueError(
                f"feature_dim must be at least {len(self.grammar.durations)}, one for each action, "
                f"got {self.feature_dim}."
            )


def synthetic_dataset(config: SyntheticConfig) -> Dataset:
    """Draw the videos; the same configuration gives the same numbers."""
    labels = LabelSpace(tuple(config.grammar.durations))
    chain, vectors = _Chain.of(config.grammar), action_vectors(config)
    videos: dict[str, Video] = {}
    tests: dict[str, list[str]] = {str(i + 1): [] for i in range(config.num_splits)}
    for i in range(config.num_videos):
        person = i % config.num_people
        activity, frames = chain.draw(np.random.default_rng([config.seed, _LABELS, i]))
        noise = np.random.default_rng([config.seed, _NOISE, i])
        features = vectors[frames] + config.noise * noise.normal(
            size=(len(frames), config.feature_dim)
        )
        name = f"P{person + 1:02d}_{list(config.grammar.activities)[activity]}_{i + 1:03d}"
        videos[name] = Video(
            id=name,
            timeline=Timeline.from_frames(frames, config.rate, labels),
            rate=config.rate,
            num_frames=len(frames),
            features=FeatureArray(features.astype(np.float32)),
            group=f"P{person + 1:02d}",
        )
        tests[str(person % config.num_splits + 1)].append(name)
    splits = {
        split: Split(tuple(name for name in videos if name not in set(test)), tuple(test))
        for split, test in tests.items()
    }
    return Dataset(
        name="synthetic",
        taxonomy=Taxonomy({"action": labels}),
        rate=config.rate,
        videos=videos,
        splits=splits,
    )


def action_vectors(config: SyntheticConfig) -> Float[np.ndarray, "label feature"]:
    """The features of each action without noise: of length 1, at right angles to each other."""
    drawn = np.random.default_rng([config.seed, _EMBEDDING]).normal(
        size=(config.feature_dim, len(config.grammar.durations))
    )
    return np.linalg.qr(drawn).Q.T


def next_action_ceiling(config: SyntheticConfig) -> float:
    """The best possible accuracy, in [0, 1], of naming the next action.

    Asked once for every action but the last of each video, all videos pooled; known are all actions
    so far and their durations, and that another one follows. The durations do not matter, because
    they depend on nothing but their own action.
    """
    chain = _Chain.of(config.grammar)
    joints = np.array([joint for _, joint in chain.next_joints()])
    return float(joints.max(1).sum() / joints.sum())


def segmentation_ceiling(config: SyntheticConfig) -> float:
    """The best possible accuracy, in [0, 1], of naming a frame from its own features alone.

    A reference: models that look at neighbouring frames do better. The frame is drawn evenly from
    the frames of all videos, and the classifier knows how often each action is shown. The vectors
    are orthonormal, so the projections of a frame on them are independent normals, and with action
    k true, in units of the noise, the others lose with probability
    E[prod_j Phi(u + 1 / noise + noise * log(prior_k / prior_j))] over a standard normal u. The
    integral is a sum over a fine grid, exact to about ten digits.
    """
    if not config.noise:
        return 1.0
    prior = _Chain.of(config.grammar).frame_shares()
    steps = np.linspace(-8.0, 8.0, 801)
    density = np.exp(-(steps**2) / 2)
    density /= density.sum()
    accuracy = 0.0
    for k, share in enumerate(prior):
        others = np.delete(prior, k)
        lead = 1 / config.noise + config.noise * np.log(share / others)
        accuracy += share * float(density @ _normal_cdf(steps[:, None] + lead).prod(1))
    return accuracy


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
    return _Chain.of(grammar).marginals(seen, horizon, video_length)


def anticipation_ceiling(config: SyntheticConfig, asked: Sequence[tuple[Video, Question]]) -> float:
    """The frame accuracy, in [0, 1], that the best possible forecaster expects on these questions.

    The mean is over all frames that lie in a horizon and in its video; nothing is averaged over
    classes. What is known is what `future_marginals` says: the length of the video is known exactly
    where `Question.video_length` is given, as `true_length` does, and then every frame counted is
    inside the video.

    Without it, the number of observed frames is taken to say nothing about the length. That holds
    if all videos are cut at the same time, but not where they are cut at a share of their length
    (`observed_multiple`, `seconds`): there a model may learn the length from the number of observed
    frames, and the bound is the one with `video_length`.
    """
    chain = _Chain.of(config.grammar)
    right = counted = 0.0
    for video, question in asked:
        seen = video.frames()[: question.observed]
        marginals = chain.marginals(seen, question.horizon, question.video_length)
        right += float(marginals.max(1).sum())
        counted += float(marginals.sum())
    if not counted:
        raise ValueError("at least one question must have a horizon, got none.")
    return right / counted


def write_frame_labels(dataset: Dataset, path: Path) -> None:
    """Write a data set as a folder in the MS-TCN layout, which `open_frame_labels` reads.

    Args:
        dataset: any data set; features are written where all videos have them.
        path: a folder that does not exist yet, or is empty.

    Raises:
        ValueError: the folder holds something.
    """
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"{path} must be a new or an empty folder, got one that holds files.")
    labels, videos = dataset.taxonomy.labels, dataset.videos.values()
    has_features = all(video.features is not None for video in videos)
    for name in ("groundTruth", "splits", *(["features"] if has_features else [])):
        (path / name).mkdir(parents=True, exist_ok=True)
    about = {
        "name": dataset.name,
        "rate": dataset.rate,
        "background": sorted(labels.background),
    }
    (path / "dataset.json").write_text(json.dumps(about, indent=2) + "\n")
    _write_lines(path / "mapping.txt", [f"{i} {name}" for i, name in enumerate(labels.names)])
    for video in videos:
        names = [labels.names[label] for label in video.frames()]
        _write_lines(path / "groundTruth" / f"{video.id}.txt", names)
        if has_features and video.features is not None:
            features = video.features.read(0, video.num_frames)
            np.save(path / "features" / f"{video.id}.npy", features.T)
    for name, split in dataset.splits.items():
        for part, ids in (("train", split.train), ("test", split.test)):
            file = path / "splits" / f"{part}.split{name}.bundle"
            _write_lines(file, [f"{video}.txt" for video in ids])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
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
    def of(cls, grammar: Grammar) -> "_Chain":
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


def _normal_cdf(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))


def _write_lines(file: Path, lines: Sequence[str]) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
