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

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from actioncast.data.base import Dataset, Split, Video
from actioncast.data.grammar import END, START, Activity, Chain, Grammar
from actioncast.features import FeatureArray
from actioncast.protocols.base import Question
from actioncast.timeline import LabelSpace, Taxonomy, Timeline

_EMBEDDING, _LABELS, _NOISE = range(3)
"""What a stream of random numbers is for."""

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
    noise: float = 0.35
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
    chain, vectors = Chain.of(config.grammar), action_vectors(config)
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
    chain = Chain.of(config.grammar)
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
    prior = Chain.of(config.grammar).frame_shares()
    steps = np.linspace(-8.0, 8.0, 801)
    density = np.exp(-(steps**2) / 2)
    density /= density.sum()
    accuracy = 0.0
    for k, share in enumerate(prior):
        others = np.delete(prior, k)
        lead = 1 / config.noise + config.noise * np.log(share / others)
        accuracy += share * float(density @ _normal_cdf(steps[:, None] + lead).prod(1))
    return accuracy


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
    chain = Chain.of(config.grammar)
    right = counted = 0.0
    for video, question in asked:
        seen = video.frames()[: question.observed]
        marginals = chain.marginals(seen, question.horizon, question.video_length)
        right += float(marginals.max(1).sum())
        counted += float(marginals.sum())
    if not counted:
        raise ValueError("at least one question must have a horizon, got none.")
    return right / counted


def _normal_cdf(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return 0.5 * (1 + np.vectorize(math.erf)(values / math.sqrt(2)))
