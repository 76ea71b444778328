"""Frames of the videos of a folder by time, and tokens that a frozen backbone makes of them.

Times come in as seconds, sorted; which they are is a protocol's business.
"""

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8

from actioncast.files import replace_file
from actioncast.video.base import FrameBackbone
from actioncast.video.decode import SAME_TIME, SLACK, VideoFile

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".gif")
"""Of video files, in the order in which they are looked for; in capitals too."""
IMAGES = "frame_{:010d}.jpg"
"""How EPIC-KITCHENS names the frames of a video, from 1 on."""

Times = Float64[np.ndarray, " frame"] | Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFrames:
    """The videos of a folder.

    A video `P01_02` is looked for as `P01_02.mp4` (or another suffix of `SUFFIXES`), then in the
    layout of EPIC-KITCHENS, as `P01/videos/P01_02.MP4` and as the folder of images
    `P01/rgb_frames/P01_02`.
    """

    root: Path
    """The folder."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Frames per second by video; needed of those that lie as images."""

    def read(self, video: str, times: Times) -> UInt8[np.ndarray, "frame height width channel"]:
        """The frame shown at each time, RGB.

        Args:
            video: Its name, without a suffix.
            times: Seconds since its first frame, none earlier than the one before.

        Raises:
            FileNotFoundError: There is no such video.
            ValueError: Times run backwards or leave the video, or it cannot be read.
        """
        wanted = _checked(video, times)
        place = self.find(video)
        if place.is_dir():
            return _read_images(place, self._rate(video), wanted)
        with VideoFile(place) as file:
            return file.frames_at(wanted)

    def find(self, video: str) -> Path:
        """The file of a video, or the folder of its images.

        Raises:
            FileNotFoundError: There is none.
        """
        if not video or Path(video).name != video:
            raise ValueError(f"a video must be named without a folder, got {video!r}.")
        participant = video.partition("_")[0]
        folders = (self.root, self.root / participant / "videos")
        for folder in folders:
            for suffix in SUFFIXES:
                for spelt in (suffix, suffix.upper()):
                    if (path := folder / f"{video}{spelt}").is_file():
                        return path
        images = self.root / participant / "rgb_frames" / video
        if images.is_dir():
            return images
        raise FileNotFoundError(
            f"no video {video!r} in {self.root}: looked for {video}.mp4 (or {', '.join(SUFFIXES)}) "
            f"there and in {participant}/videos, and for the images "
            f"{participant}/rgb_frames/{video}/{IMAGES.format(1)}."
        )

    def _rate(self, video: str) -> float:
        rate = self.rates.get(video, 0.0)
        if rate <= 0:
            raise ValueError(
                f"rates must hold the images per second of {video!r}, which lies as images, got "
                f"{rate or 'none'}; EPIC-KITCHENS wrote 50 of videos of 50 frames a second, 60 of "
                "all others."
            )
        return rate


class FrozenBackboneSource:
    """Tokens of clips, made once and kept on disk.

    Kept under `cache/<name>-<fingerprint>/<video>/`, one file for each set of times. The
    fingerprint changes with the backbone's weights and settings; a file changes name with the
    times and with the size of the video's file. Any number of processes may share a cache, and a
    kill leaves none of its files half written.

    Args:
        frames: Where the videos are.
        backbone: A frozen one, on the device where it is to run.
        cache: The folder to keep tokens in.
    """

    def __init__(self, frames: ClipFrames, backbone: FrameBackbone, cache: Path) -> None:
        if backbone.trained:
            raise ValueError(
                "tokens can be kept of a frozen backbone alone, got one that is trained; build it "
                "with trained=False, or give the model the frames themselves."
            )
        self.name = backbone.config.name
        self.width = backbone.width
        self._frames = frames
        self._backbone = backbone
        spelt = "".join(c if c.isalnum() or c in "-." else "_" for c in self.name.strip("./"))
        self._folder = cache / f"{spelt[-80:]}-{backbone.fingerprint()}"

    def read_at(self, video: str, times: Times) -> Float32[np.ndarray, "token feature"]:
        """The tokens of the frames at these times, sorted seconds (see `ClipFrames.read`)."""
        wanted = _checked(video, times)
        path = self._path(video, wanted)
        if (kept := _load(path, self.width)) is not None:
            return kept
        clip = self._backbone.framing.prepare(self._frames.read(video, wanted))[None]
        weight = next(iter(self._backbone.parameters()), clip)
        with torch.inference_mode():
            tokens = self._backbone(clip.to(weight.device))[0].float().cpu().numpy()
        content = io.BytesIO()
        np.save(content, tokens)
        replace_file(path, content.getvalue())
        return tokens

    def _path(self, video: str, times: Float64[np.ndarray, " frame"]) -> Path:
        place = self._frames.find(video)
        size = self._frames.rates.get(video) if place.is_dir() else place.stat().st_size
        # To the microsecond: the same times by another way of counting are the same.
        counted = np.round(times * 1e6).astype("<i8")
        key = hashlib.sha256(repr((place.name, size)).encode() + counted.tobytes()).hexdigest()
        return self._folder / video / f"{key[:24]}.npy"


def _checked(video: str, times: Times) -> Float64[np.ndarray, " frame"]:
    wanted = np.asarray(times, dtype=np.float64)
    if wanted.ndim != 1 or not len(wanted):
        raise ValueError(f"times must be one row of at least one, got shape {wanted.shape}.")
    if (np.diff(wanted) < 0).any():
        i = int(np.flatnonzero(np.diff(wanted) < 0)[0])
        raise ValueError(
            f"times must not run backwards, got {wanted[i]:.3f} s and then {wanted[i + 1]:.3f} s "
            f"for {video!r}; sort them."
        )
    return wanted


def _load(path: Path, width: int) -> Float[np.ndarray, "token feature"] | None:
    """What is kept in a file, unless it is absent or damaged."""
    try:
        kept = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.ndim == 2 and kept.shape[1] == width and kept.dtype == np.float32 else None


def _read_images(
    folder: Path, rate: float, times: Float64[np.ndarray, " frame"]
) -> UInt8[np.ndarray, "frame height width channel"]:
    """Images of a steady rate, the first at 0 s."""
    from PIL import Image  # noqa: PLC0415

    if not (np.isfinite(times) & (times >= 0)).all():
        raise ValueError(f"times must be seconds from 0 on, got {times[0]} for {folder}.")
    images: dict[int, np.ndarray] = {}
    numbers = [math.floor((time + SAME_TIME) * rate) + 1 for time in times]
    for number in numbers:
        if number in images:
            continue
        path = folder / IMAGES.format(number)
        if not path.is_file():
            path = _last_image(folder, number, rate)
        with Image.open(path) as image:
            images[number] = np.asarray(image.convert("RGB"))
    shapes = sorted({image.shape for image in images.values()})
    if len(shapes) > 1:
        raise ValueError(f"the images of {folder} must be of one size, got {shapes}.")
    return np.stack([images[number] for number in numbers])


def _last_image(folder: Path, number: int, rate: float) -> Path:
    """The last image of a video, for a time after its end by no more than `SLACK`."""
    found = sorted(folder.glob("frame_*.jpg"))
    if not found:
        raise ValueError(f"{folder} must hold images {IMAGES.format(1)} and so on, got none.")
    last = int(found[-1].stem.removeprefix("frame_"))
    if number < last:
        raise ValueError(
            f"{folder} must hold {IMAGES.format(number)}, got images up to {last} without it; "
            "extract the frames again."
        )
    if number - 1 > last + SLACK * rate:
        raise ValueError(
            f"times must be within the video, got {(number - 1) / rate:.2f} s for {folder}, which "
            f"ends at {last / rate:.2f} s; check its annotation, and the rate {rate:g}."
        )
    return found[-1]
