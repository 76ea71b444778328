"""Frames of clips: through a frozen backbone to tokens, or as they are for one that is trained."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from actioncast.data.clip_samples import ClipSample, ClipSamples, collate_clips
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.protocols.next_action import ClipProtocol, ClipWindow, NextAction
from actioncast.types import Observation, Target
from actioncast.video.backbones import build_backbone
from actioncast.video.base import BackboneConfig
from actioncast.video.clips import ClipFrames, FrozenBackboneSource
from actioncast.video.frames import Framing

NAME = "frames"


class ClipWindows:
    """When the frames of a clip are read."""

    def __init__(self, dataset: ClipDataset, protocol: ClipProtocol) -> None:
        self.protocol = protocol
        self.rates = {video: info.rate for video, info in dataset.videos.items()}
        self.image_rates = {video: image_rate(rate) for video, rate in self.rates.items()}

    def of(self, clip: ActionClip) -> ClipWindow:
        """What may be seen of a clip."""
        rate = self.rates.get(clip.video)
        if isinstance(self.protocol, NextAction) and rate:
            return self.protocol.window(clip.start, clip.stop, rate=rate)
        return self.protocol.window(clip.start, clip.stop)


def image_rate(rate: float) -> float:
    """Images per second of EPIC-KITCHENS' `rgb_frames`, which are not those of the video.

    Whatever a video's own rate, its frames were written 60 times a second, those of videos of 50
    frames 50 times, as the frame numbers of the annotation count.
    """
    return 50.0 if abs(rate - 50) < 0.5 else 60.0


class FrozenFrames:
    """What a frozen backbone makes of a clip's frames (`clip_samples.TokenSource`)."""

    name = NAME

    def __init__(
        self, folder: Path, windows: ClipWindows, backbone: BackboneConfig, cache: Path
    ) -> None:
        frames = ClipFrames(root=folder, rates=windows.image_rates)
        self.windows = windows
        self.source = FrozenBackboneSource(frames, build_backbone(backbone).eval(), cache)
        self.width = self.source.width

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """The tokens of the frames; none where nothing can be seen."""
        window = self.windows.of(clip)
        if window.empty:
            return np.zeros((0, self.width), np.float32)
        return self.source.read_at(clip.video, window.times)


class RawFrames:
    """The frames themselves, for a backbone that learns with the model; no tokens.

    A clip has one step of width 0, or none where nothing can be seen of it: its frames are then
    zeros.
    """

    name = NAME
    width = 0

    def __init__(
        self, folder: Path, windows: ClipWindows, framing: Framing, num_frames: int
    ) -> None:
        self.frames = ClipFrames(root=folder, rates=windows.image_rates)
        self.windows, self.framing, self.num_frames = windows, framing, num_frames

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """One step without a feature, or none."""
        return np.zeros((0 if self.windows.of(clip).empty else 1, 0), np.float32)

    def clip(self, clip: ActionClip) -> Float[Tensor, "frame channel height width"]:
        """The frames as the backbone wants them."""
        window = self.windows.of(clip)
        if window.empty:
            return torch.zeros(self.num_frames, 3, self.framing.size, self.framing.size)
        return self.framing.prepare(self.frames.read(clip.video, window.times))


Seen = tuple[ClipSample, Float[Tensor, "frame channel height width"]]


class SeenClips(torch.utils.data.Dataset[Seen]):
    """Clips with their frames."""

    def __init__(self, samples: ClipSamples, frames: RawFrames) -> None:
        self.samples, self.frames = samples, frames

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> Seen:
        return self.samples[i], self.frames.clip(self.samples.clips[i])


def collate_seen(
    seen: Sequence[Seen], *, anticipation_time: float, rate: float
) -> tuple[Observation, Target]:
    """A batch of clips with their frames; see `collate_clips`."""
    samples = [sample for sample, _ in seen]
    x, y = collate_clips(samples, anticipation_time=anticipation_time, rate=rate)
    return replace(x, clip=torch.stack([frames for _, frames in seen])), y
