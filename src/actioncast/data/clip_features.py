"""Features of clips from files: one `.npy` a video, or RULSTM's LMDB of frames.

A step of a file stands for the moment of its frame. Whoever computes features over a window must
let it end there, or they tell what comes after.
"""

import importlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.features import (
    FeatureFile,
    WarpedFeatures,
    common_layout,
    read_header,
    time_axis,
)
from actioncast.protocols.next_action import ClipProtocol

RULSTM_RATE = 30.0
"""Frames per second of RULSTM's stores."""


class ClipFeatures:
    """The steps of a video's features at the protocol's frame times (`clip_samples.TokenSource`).

    At a rate below the protocol's a step is read more than once. A window of which nothing can be
    seen gives no step.
    """

    def __init__(
        self,
        files: Mapping[str, FeatureFile],
        protocol: ClipProtocol,
        rate: float,
        name: str = "features",
    ) -> None:
        widths = {file.num_features for file in files.values()}
        if len(widths) != 1:
            raise ValueError(
                f"features of all videos must be of one width, got {sorted(widths) or 'no file'}."
            )
        if not 0 < rate < math.inf:
            raise ValueError(f"rate must be a positive number of steps per second, got {rate}.")
        self.files, self.protocol, self.rate, self.name = dict(files), protocol, rate, name
        self.width = widths.pop()

    def file(self, clip: ActionClip) -> FeatureFile:
        """The file of the clip's video.

        Raises:
            ValueError: It has none.
        """
        if clip.video not in self.files:
            raise ValueError(f"clip {clip.id} is of video {clip.video}, which has no features.")
        return self.files[clip.video]

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """One token a frame time, in order."""
        file = self.file(clip)
        steps = step_indices(self.protocol, clip, self.rate)
        if not len(steps):
            return np.zeros((0, self.width), np.float32)
        return WarpedFeatures(file, np.minimum(steps, file.num_frames - 1)).read(0, len(steps))


def open_clip_features(
    folder: Path,
    dataset: ClipDataset,
    protocol: ClipProtocol,
    rate: float,
    *,
    parts: Iterable[str] = (),
    axis: int | None = None,
) -> ClipFeatures:
    """Read the features of a data set's videos from `folder/<video>.npy`, memory-mapped.

    Args:
        folder: Holds one file a video, (time, feature) or (feature, time).
        dataset: Says which videos and how long they are.
        protocol: Says when a clip is looked at.
        rate: Steps per second; step 0 is the start of the video.
        parts: Whose videos are needed; absent, those of all parts.
        axis: Which axis is time, where the data set does not say how long its videos are.

    Raises:
        FileNotFoundError: A video has no file.
        ValueError: A file is no such array, or does not fit the length of its video.
    """
    needed = dict.fromkeys(c.video for part in parts or dataset.clips for c in dataset.part(part))
    missing = [video for video in needed if not (folder / f"{video}.npy").is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder / missing[0]}.npy does not exist ({len(missing)} of {len(needed)} videos "
            "have no features); every video needs its own file."
        )
    headers = {video: read_header(folder / f"{video}.npy") for video in needed}
    if axis is not None:
        files = {
            video: FeatureFile(folder / f"{video}.npy", h.shape[axis], axis, h.shape[1 - axis])
            for video, h in headers.items()
        }
        return ClipFeatures(files, protocol, rate)
    if unknown := [video for video in needed if video not in dataset.videos]:
        raise ValueError(
            f"{dataset.name} does not say how long video {unknown[0]} is, which tells time from "
            "features; say which axis of the arrays is time."
        )
    lengths = {video: max(1, round(dataset.videos[video].duration * rate)) for video in needed}
    width, usual = common_layout([headers[v].shape for v in needed], list(lengths.values()))
    files = {}
    for video, length in lengths.items():
        path, shape = folder / f"{video}.npy", headers[video].shape
        try:
            found = time_axis(path, shape, length, width, usual)
        except ValueError:
            raise ValueError(
                f"{path} must have one axis of about {length} steps, {rate:g} for each of the "
                f"{dataset.videos[video].duration:g} s of its video, got shape {shape}; say with "
                "--feature-rate how many steps a second it has."
            ) from None
        files[video] = FeatureFile(path, shape[found], found, shape[1 - found])
    return ClipFeatures(files, protocol, rate)


class RulstmFeatures:
    """Frames of RULSTM's LMDB at the protocol's frame times (`clip_samples.TokenSource`).

    The key of a frame is `{video}_frame_{number:010d}.jpg`, numbers from 1 at 30 per second; the
    value is its vector, float32. Needs the package `lmdb`.
    """

    def __init__(self, path: Path, protocol: ClipProtocol, name: str = "features") -> None:
        if not path.exists():
            raise FileNotFoundError(f"the LMDB {path} does not exist.")
        try:
            lmdb: Any = importlib.import_module("lmdb")
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                f"{path} is an LMDB, for which the package lmdb is needed; install it with "
                "`pip install lmdb`."
            ) from None
        self.path, self.protocol, self.name = path, protocol, name
        self._environment: Any = lmdb.open(
            str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir()
        )
        with self._environment.begin() as reading, reading.cursor() as cursor:
            if not cursor.first():
                raise ValueError(f"{path} must hold at least one frame, got none.")
            self.width = len(cursor.value()) // 4

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """One token a frame time, in order.

        Raises:
            ValueError: A frame is missing or of another width.
        """
        # RULSTM reads frame floor(30 t) at t, which shows the moment up to 2/30 s before it.
        numbers = np.maximum(step_indices(self.protocol, clip, RULSTM_RATE), 1)
        tokens = np.zeros((len(numbers), self.width), np.float32)
        with self._environment.begin() as reading:
            for token, number in zip(tokens, numbers, strict=True):
                key = f"{clip.video}_frame_{number:010d}.jpg"
                value = reading.get(key.encode())
                if value is None or len(value) != 4 * self.width:
                    found = "nothing" if value is None else f"{len(value)} bytes"
                    raise ValueError(
                        f"{self.path} must hold {4 * self.width} bytes under {key}, got {found}; "
                        "extract the features of this video again."
                    )
                token[:] = np.frombuffer(value, "<f4")
        return tokens


def step_indices(protocol: ClipProtocol, clip: ActionClip, rate: float) -> Int64[np.ndarray, " _"]:
    """The step shown at each frame time; none stands for a moment at or after the window's end."""
    window = protocol.window(clip.start, clip.stop)
    steps = np.floor(np.array(window.times) * rate).astype(np.int64)
    # The product may be rounded up to the step that begins at the end.
    steps -= (steps / rate >= window.end) & (steps > 0)
    return steps
