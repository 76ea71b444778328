"""Decoded frames made fit for a backbone: resized, cropped, normalised."""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """What a backbone wants its frames to be."""

    size: int
    """Pixels of each side, after the crop."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from red, green and blue in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """What they are divided by then."""
    short_side: int = 0
    """Pixels to which the shorter side is resized before the crop; 0: `size`."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}.")
        if self.short_side and self.short_side < self.size:
            raise ValueError(
                f"short_side must be at least size, got {self.short_side} and {self.size}: "
                "the crop would be larger than the frame."
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {self.std}.")

    def prepare(
        self, frames: UInt8[np.ndarray, "frame height width channel"]
    ) -> Float[Tensor, "frame channel cropped cropped"]:
        """Resize, crop the centre, normalise."""
        return self._normalise(centre_crop(self._resize(frames), self.size))

    def prepare_at_random(
        self, frames: UInt8[np.ndarray, "frame height width channel"], rng: np.random.Generator
    ) -> Float[Tensor, "frame channel cropped cropped"]:
        """The same with a crop from anywhere, one for all frames: for training."""
        return self._normalise(random_crop(self._resize(frames), self.size, rng))

    def _resize(
        self, frames: UInt8[np.ndarray, "frame height width channel"]
    ) -> Float[Tensor, "frame channel resized_height resized_width"]:
        return resize_short_side(frames, self.short_side or self.size)

    def _normalise(
        self, frames: Float[Tensor, "frame channel height width"]
    ) -> Float[Tensor, "frame channel height width"]:
        return normalise(frames, self.mean, self.std)


def resize_short_side(
    frames: UInt8[np.ndarray, "frame height width channel"], size: int
) -> Float[Tensor, "frame channel resized_height resized_width"]:
    """Frames in [0, 1] whose shorter side has `size` pixels; the longer one keeps the shape."""
    height, width = frames.shape[1:3]
    scale = size / min(height, width)
    wanted = max(round(height * scale), size), max(round(width * scale), size)
    resized = torch.empty(len(frames), frames.shape[3], *wanted)
    # One at a time: sixteen frames of full HD as floats take 400 MB.
    for i, frame in enumerate(frames):
        image = rearrange(torch.from_numpy(frame.copy()), "h w channel -> 1 channel h w") / 255
        if wanted != (height, width):
            image = F.interpolate(image, wanted, mode="bilinear", antialias=True)
        resized[i] = image[0]
    return resized


def centre_crop(
    frames: Float[Tensor, "frame channel height width"], size: int
) -> Float[Tensor, "frame channel cropped cropped"]:
    """The square in the middle; an odd pixel is left over below and to the right."""
    down, across = _room(frames, size)
    return _square(frames, size, down // 2, across // 2)


def random_crop(
    frames: Float[Tensor, "frame channel height width"], size: int, rng: np.random.Generator
) -> Float[Tensor, "frame channel cropped cropped"]:
    """A square from anywhere, the same in every frame of a clip."""
    down, across = _room(frames, size)
    return _square(frames, size, int(rng.integers(down + 1)), int(rng.integers(across + 1)))


def normalise(
    frames: Float[Tensor, "frame channel height width"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Float[Tensor, "frame channel height width"]:
    """Frames in [0, 1] less the mean, by the standard deviation, channel by channel."""
    by_channel = frames.new_tensor([mean, std])[..., None, None]
    return (frames - by_channel[0]) / by_channel[1]


def _room(frames: Tensor, size: int) -> tuple[int, int]:
    """Pixels by which a crop can move down and across."""
    height, width = frames.shape[2:]
    if size > min(height, width):
        raise ValueError(
            f"a crop must be within its frame, got {size} pixels of {height} x {width}; resize "
            "the frames before."
        )
    return height - size, width - size


def _square(frames: Tensor, size: int, top: int, left: int) -> Tensor:
    return frames[:, :, top : top + size, left : left + size]
