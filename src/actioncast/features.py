"""Feature stores: arrays of shape (time, feature), read by slices of time. NumPy only.

Nothing else in the package opens a feature file.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

DTYPES = ("float16", "float32", "float64", "uint8")
"""What a feature file may hold; a model gets float32."""


@runtime_checkable
class FeatureSource(Protocol):
    """Where a video's features come from."""

    @property
    def num_features(self) -> int:
        """Width of a feature vector."""

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Every `stride`-th vector of the frames `[start, end)`, as float32."""


@dataclass(frozen=True, slots=True)
class FeatureHeader:
    """What the first bytes of an `.npy` file say, checked against the file's size."""

    shape: tuple[int, int]
    dtype: str


def read_header(path: Path) -> FeatureHeader:
    """Read shape and type of an `.npy` file without reading its data.

    Raises:
        ValueError: The file is not an `.npy` array of two axes and a known type, or is truncated.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
            expected = file.tell() + dtype.itemsize * math.prod(shape)
    except FileNotFoundError:
        raise
    except Exception as error:  # what a broken header raises depends on where it is broken
        raise ValueError(
            f"{path} must be a NumPy .npy file, got one that does not open ({error}); "
            "write it again with numpy.save."
        ) from None
    if dtype.name not in DTYPES:
        raise ValueError(
            f"{path} must hold one of {', '.join(DTYPES)}, got {dtype.name}; "
            "convert it with array.astype('float32')."
        )
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"{path} must hold one (time, feature) or (feature, time) array, got shape {shape}; "
            "write one such array for each video."
        )
    if (found := path.stat().st_size) < expected:
        raise ValueError(
            f"{path} is truncated: {expected} bytes announced, {found} found; copy it again."
        )
    return FeatureHeader(shape, dtype.name)


def time_axis(
    path: Path,
    shape: tuple[int, int],
    num_frames: int,
    num_features: int | None = None,
    usual_axis: int | None = None,
) -> int:
    """Tell which axis of a feature array is time, from the number of labelled frames.

    Args:
        path: The file, for the message.
        shape: The array's shape.
        num_frames: Frames that the video's labels name.
        num_features: Width of a feature vector where it is known.
        usual_axis: The time axis of the other files where it is known; settles square arrays.

    Raises:
        ValueError: Neither axis fits the labels (see `frame_tolerance`), both fit equally well, or
            the width is wrong.
    """
    fits = [abs(size - num_frames) <= frame_tolerance(num_frames) for size in shape]
    if num_features is not None and any(fits):
        wide = [fits[axis] and shape[1 - axis] == num_features for axis in (0, 1)]
        if not any(wide):
            axis = fits.index(True)
            raise ValueError(
                f"{path} must hold vectors of width {num_features} as the other files do, "
                f"got width {shape[1 - axis]} (shape {shape}, {num_frames} labelled frames); "
                "extract all features with the same backbone."
            )
        fits = wide
    if not any(fits):
        raise ValueError(
            f"{path} must have one axis of about {num_frames} steps, as many as its video has "
            f"labels, got shape {shape}; extract features at the labels' frame rate."
        )
    if all(fits) and shape[0] == shape[1]:
        if usual_axis is None:
            raise ValueError(
                f"{path} must tell time from features, got the square shape {shape} and no file "
                "beside it that does; add a video of another length."
            )
        return usual_axis
    if all(fits):
        return min((0, 1), key=lambda axis: abs(shape[axis] - num_frames))
    return fits.index(True)


def frame_tolerance(num_frames: int) -> int:
    """Frames by which features may be longer or shorter than labels: 2 %, or 8 in short videos."""
    return min(max(8, num_frames // 50), num_frames // 2)


def common_layout(
    shapes: Sequence[tuple[int, int]], num_frames: Sequence[int]
) -> tuple[int | None, int | None]:
    """Feature width and time axis of most files; None when none can tell its axes apart."""
    widths, axes = Counter[int](), Counter[int]()
    for shape, frames in zip(shapes, num_frames, strict=True):
        fits = [abs(size - frames) <= frame_tolerance(frames) for size in shape]
        if fits[0] != fits[1]:
            axis = fits.index(True)
            widths[shape[1 - axis]] += 1
            axes[axis] += 1
    if not axes:
        return None, None
    return widths.most_common(1)[0][0], axes.most_common(1)[0][0]


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """A memory-mapped `.npy` file of one video.

    Frames beyond the end of the file repeat its last vector: `num_frames` is the annotation's.
    """

    path: Path
    num_frames: int
    axis: int
    """Which axis of the array is time."""
    num_features: int

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Every `stride`-th vector of the frames `[start, end)`, as float32.

        Raises:
            ValueError: A value read is NaN or infinite.
        """
        mapped: np.ndarray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        stored = mapped if self.axis == 0 else mapped.T
        index = np.arange(start, min(end, self.num_frames), stride)
        held = index >= len(stored)
        if held.any():
            vectors = np.asarray(stored[np.minimum(index, len(stored) - 1)])
        else:
            vectors = np.asarray(stored[start : min(end, self.num_frames) : stride])
        values = vectors.astype(np.float32)
        if not np.isfinite(values).all():
            step = int(index[np.flatnonzero(~np.isfinite(values).all(1))[0]])
            raise ValueError(
                f"{self.path} must hold finite numbers, got NaN or infinity at frame {step}; "
                "extract the features of this video again."
            )
        return values


@dataclass(frozen=True, slots=True)
class LabelFeatures:
    """Labels as input features: one-hot vectors of the true actions, or of spoilt ones.

    `wrong_share` of the segments carry another label, and every boundary comes later by the size
    of a normal of `blur` frames, as from a recogniser that does not see ahead. A share of about
    `wrong_frames` of the frames besides, in runs of `wrong_run` frames in the mean, is taken for
    another action. The same seed spoils the same way, and no later frame has a say in an earlier
    one.
    """

    frames: Int[np.ndarray, " time"]
    num_labels: int
    wrong_share: float = 0.0
    blur: float = 0.0
    seed: int = 0
    wrong_frames: float = 0.0
    wrong_run: float = 60.0

    def __post_init__(self) -> None:
        if not 0 <= self.wrong_frames < 1 or not self.wrong_run >= 1:
            raise ValueError(
                "wrong_frames must be within [0, 1) and wrong_run at least 1 frame, got "
                f"{self.wrong_frames} and {self.wrong_run}."
            )
        if not 0 <= self.wrong_share <= 1:
            raise ValueError(f"wrong_share must be within [0, 1], got {self.wrong_share}.")
        if self.blur < 0:
            raise ValueError(f"blur must be 0 frames or more, got {self.blur}.")
        if self.wrong_share or self.blur:
            spoilt = _spoil(self.frames, self.num_labels, self.wrong_share, self.blur, self.seed)
            object.__setattr__(self, "frames", spoilt)
        if self.wrong_frames:
            mistaken = _mistake(
                self.frames, self.num_labels, self.wrong_frames, self.wrong_run, self.seed
            )
            object.__setattr__(self, "frames", mistaken)

    @property
    def num_features(self) -> int:
        """One column a label."""
        return self.num_labels

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Every `stride`-th one-hot vector of the frames `[start, end)`."""
        return np.eye(self.num_labels, dtype=np.float32)[self.frames[start:end:stride]]


@dataclass(frozen=True, slots=True)
class FeatureArray:
    """Features held in memory, shape (time, feature)."""

    array: Float[np.ndarray, "time feature"]

    @property
    def num_features(self) -> int:
        """Width of a feature vector."""
        return int(self.array.shape[1])

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Every `stride`-th vector of the frames `[start, end)`."""
        return self.array[start:end:stride].astype(np.float32)


@dataclass(frozen=True, slots=True)
class ResampledFeatures:
    """Features on a coarser grid: frame `i` is frame `i * every` of the source."""

    source: FeatureSource
    every: int

    @property
    def num_features(self) -> int:
        """Width of a feature vector."""
        return self.source.num_features

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Every `stride`-th vector of the coarse frames `[start, end)`."""
        if end <= start:
            return self.source.read(0, 0)
        first, last = start * self.every, (end - 1) * self.every
        return self.source.read(first, last + 1, stride * self.every)


@dataclass(frozen=True, slots=True)
class WarpedFeatures:
    """Features shown at another pace: frame `i` is frame `index[i]` of the source."""

    source: FeatureSource
    index: Int[np.ndarray, " time"]

    @property
    def num_features(self) -> int:
        """Width of a feature vector."""
        return self.source.num_features

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Every `stride`-th vector of the warped frames `[start, end)`."""
        wanted = self.index[start:end:stride]
        if not len(wanted):
            return self.source.read(0, 0)
        first = int(wanted.min())
        return self.source.read(first, int(wanted.max()) + 1)[wanted - first]


def _spoil(
    frames: Int[np.ndarray, " time"], num_labels: int, wrong_share: float, blur: float, seed: int
) -> Int[np.ndarray, " time"]:
    """Exchange labels and delay boundaries; a prefix is spoilt the same whatever follows."""
    cuts = np.flatnonzero(np.diff(frames)) + 1
    labels = frames[np.concatenate([[0], cuts])].copy()
    # One stream for each kind of draw: a segment's draws do not move with the number of segments.
    chance, other, delay = (np.random.default_rng([seed, kind]) for kind in range(3))
    wrong = chance.random(len(labels)) < wrong_share
    if num_labels > 1:
        labels[wrong] = (labels + other.integers(1, num_labels, len(labels)))[wrong] % num_labels
    late = np.round(np.abs(delay.normal(0, blur, len(cuts))))
    moved = np.minimum(cuts + late, len(frames)).astype(int)
    ends = np.append(np.maximum.accumulate(moved), len(frames))
    return np.repeat(labels, np.diff(ends, prepend=0))


def _mistake(
    frames: Int[np.ndarray, " time"], num_labels: int, share: float, run: float, seed: int
) -> Int[np.ndarray, " time"]:
    """Take runs of frames for another action than the one they start in.

    Right and wrong runs take turns, of geometric lengths whose means make the share; the draws go
    from the first frame on, so that a prefix is spoilt the same whatever follows.
    """
    rng = np.random.default_rng([seed, 3])
    spoilt = frames.copy()
    start = 0 if rng.random() < share else int(rng.geometric(1 / _right(share, run)))
    while start < len(frames):
        end = start + int(rng.geometric(1 / run))
        other = int(rng.integers(max(num_labels - 1, 1)))
        spoilt[start:end] = other + (other >= frames[start]) if num_labels > 1 else 0
        start = end + int(rng.geometric(1 / _right(share, run)))
    return spoilt


def _right(share: float, run: float) -> float:
    """Mean frames of a right run beside wrong ones of `run`."""
    return max(1.0, run * (1 - share) / share)
