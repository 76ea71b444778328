"""Videos whose future only the order of two fine actions foretells, which are seen dimly.

Half of a video is one activity, dough or sauce: one coarse label, plain to see. It is made of two
fine actions, in either order. Then something is baked or fried: baked where the first of the two
names of the activity came first. No coarse label seen says anything about it, nor how often which
fine action is seen.
"""

from dataclasses import dataclass

import numpy as np

from actioncast.data.base import Dataset, Split, Video
from actioncast.data.hierarchy import Hierarchy, with_hierarchy
from actioncast.features import FeatureArray
from actioncast.timeline import LabelSpace, Taxonomy, Timeline

ABOVE = {
    "knead": "dough",
    "rest": "dough",
    "chop": "sauce",
    "simmer": "sauce",
    "bake": "bake",
    "fry": "fry",
}
"""The coarse label of every fine one."""
FINE = LabelSpace(tuple(ABOVE))
COARSE = LabelSpace(tuple(dict.fromkeys(ABOVE.values())))
RATE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FineHistory:
    """Which videos are made."""

    num_train: int = 40
    num_test: int = 80
    half: int = 14
    """Frames of the activity, and of what follows it."""
    feature_dim: int = 24
    """Width of a feature vector; those of labels have length 1."""
    fine: float = 0.8
    """How much of a fine label is seen beside its coarse one."""
    noise: float = 0.35
    """Standard deviation of the noise in each feature."""
    matters: bool = True
    """Whether the order foretells the future; else a coin does."""
    seed: int = 0


def fine_history(config: FineHistory) -> Dataset:
    """Draw the videos, whose primary level is the coarse one."""
    rng = np.random.default_rng(config.seed)
    drawn = rng.normal(size=(config.feature_dim, len(FINE) + len(COARSE)))
    vectors = np.linalg.qr(drawn).Q.T
    above = np.array([COARSE.index(name) for name in ABOVE.values()])
    shown = vectors[above] + config.fine * vectors[len(COARSE) :]
    videos: dict[str, Video] = {}
    for i in range(config.num_train + config.num_test):
        activity, turned = i % 2, bool(rng.integers(2))
        first = int(rng.integers(config.half // 3, config.half - config.half // 3 + 1))
        order = [2 * activity + turned, 2 * activity + 1 - turned]
        told = turned if config.matters else bool(rng.integers(2))
        frames = np.repeat([*order, 4 + told], [first, config.half - first, config.half])
        noise = rng.normal(size=(len(frames), config.feature_dim))
        features = shown[frames] + config.noise * noise
        name = f"{i:03d}"
        videos[name] = Video(
            id=name,
            timeline=Timeline.from_frames(frames, RATE, FINE),
            rate=RATE,
            num_frames=len(frames),
            features=FeatureArray(features.astype(np.float32)),
        )
    names = tuple(videos)
    fine = Dataset(
        name="fine-history",
        taxonomy=Taxonomy({"action": FINE}),
        rate=RATE,
        videos=videos,
        splits={"1": Split(names[: config.num_train], names[config.num_train :])},
    )
    hierarchy = Hierarchy(level="activity", labels=COARSE, by_label=ABOVE)
    return with_hierarchy(fine, hierarchy).at_level("coarse")
