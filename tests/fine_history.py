"""Videos of which only the order of two fine actions foretells the future, and they are seen dimly.

Half of a video is one activity, dough or sauce: one coarse label, plain to see. Two fine actions
make it up, in either order, each for as long as it happens to take. Then something is baked or
fried: baked where the action that `ABOVE` lists first came first. Neither the coarse label seen nor
how often each fine action is seen says anything about it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

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
    num_test: int = 120
    half: int = 14
    """Frames of the activity, and of what follows it."""
    feature_dim: int = 24
    """Width of a feature vector, at least the number of labels of both levels."""
    fine: float = 0.6
    """Length of the vector of a fine label; that of a coarse one, which it is added to, is 1."""
    noise: float = 0.35
    """Standard deviation of the noise in each feature. Who knew the vectors would still take one of
    nine frames for the other action of its activity."""
    matters: bool = True
    """Whether the order foretells the future; else a coin does."""
    seed: int = 0


def fine_history(config: FineHistory) -> Dataset:
    """Draw the videos, which speak the coarse level; one split."""
    rng = np.random.default_rng(config.seed)
    drawn = rng.normal(size=(config.feature_dim, len(COARSE) + len(FINE)))
    vectors = np.linalg.qr(drawn).Q.T
    above = np.array([COARSE.index(name) for name in ABOVE.values()])
    shown = vectors[above] + config.fine * vectors[len(COARSE) :]
    videos: dict[str, Video] = {}
    for i in range(config.num_train + config.num_test):
        frames = _frames(i % 2, config, rng)
        noise = rng.normal(size=(len(frames), config.feature_dim))
        features = shown[frames] + config.noise * noise
        videos[f"{i:03d}"] = Video(
            id=f"{i:03d}",
            timeline=Timeline.from_frames(frames, RATE, FINE),
            rate=RATE,
            num_frames=len(frames),
            features=FeatureArray(features.astype(np.float32)),
        )
    names = tuple(videos)
    finely = Dataset(
        name="fine-history",
        taxonomy=Taxonomy({"action": FINE}),
        rate=RATE,
        videos=videos,
        splits={"1": Split(names[: config.num_train], names[config.num_train :])},
    )
    hierarchy = Hierarchy(level="activity", labels=COARSE, by_label=ABOVE)
    return with_hierarchy(finely, hierarchy).at_level("coarse")


def _frames(
    activity: int, config: FineHistory, rng: np.random.Generator
) -> Int[np.ndarray, " time"]:
    """The fine labels of one video."""
    turned = int(rng.integers(2))
    shortest = config.half // 3
    first = int(rng.integers(shortest, config.half - shortest + 1))
    fried = turned if config.matters else int(rng.integers(2))
    done = [2 * activity + turned, 2 * activity + 1 - turned, FINE.index("bake") + fried]
    return np.repeat(done, [first, config.half - first, config.half])
