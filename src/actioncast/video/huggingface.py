"""Backbones of Hugging Face: of videos, and of images frame by frame.

Videos: VideoMAE, ViViT, TimeSformer, V-JEPA 2. Images: ViT, DeiT, DINOv2, CLIP, SigLIP.
A model trained on another number of frames gets its positions in time interpolated.
"""

import logging
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.video.base import BackboneConfig, FrameBackbone, Seen
from actioncast.video.frames import Framing
from actioncast.video.pretrained import (
    UNTRAINED,
    VIDEO_KINDS,
    framing_of,
    load_model,
    untrained_model,
)

logger = logging.getLogger(__name__)


def open_huggingface(config: BackboneConfig) -> FrameBackbone:
    """Load a model from a folder or the hub, or build one with random weights.

    Raises:
        ImportError: transformers is not installed.
        ValueError: There is no such model, or it is of no known kind.
    """
    is_untrained = config.name.startswith(UNTRAINED)
    model = (
        untrained_model(config.name, config.num_frames) if is_untrained else load_model(config.name)
    )
    kind = model.config.model_type
    framing = framing_of(config.name, model.config)
    if kind in VIDEO_KINDS:
        return HuggingFaceVideos(config, model, framing)
    return HuggingFaceImages(config, model, framing)


class HuggingFaceVideos(FrameBackbone):
    """A video transformer; a step is a tubelet of frames."""

    def __init__(self, config: BackboneConfig, model: Any, framing: Framing) -> None:
        self._kind = VIDEO_KINDS[model.config.model_type]
        tubelet = self._kind.tubelet(model.config)
        if config.num_frames % tubelet:
            raise ValueError(
                f"num_frames of {config.name} must be a multiple of {tubelet}, the frames that it "
                f"takes together, got {config.num_frames}; take "
                f"{-(-config.num_frames // tubelet) * tubelet}."
            )
        self._num_steps = config.num_frames // tubelet
        _fit_to_frames(model, config.num_frames, self._num_steps)
        width = model.config.hidden_size
        # V-JEPA's second half predicts what is masked, and has no say in the features.
        network = model.encoder if model.config.model_type == "vjepa2" else model
        super().__init__(config, network, width=width, framing=framing)

    def _tokens(
        self, clip: Float[Tensor, "batch frame channel height width"]
    ) -> Float[Tensor, "batch token feature"]:
        # What V-JEPA calls pixel_values_videos comes first everywhere.
        hidden = self.network(clip).last_hidden_state
        prefix = self._kind.num_prefix
        order = "(step place)" if self._kind.time_first else "(place step)"
        places = rearrange(
            hidden[:, prefix:], f"batch {order} f -> batch step place f", step=self._num_steps
        )
        seen = Seen(places=places, clip=hidden[:, 0] if prefix else None)
        return seen.pooled(self.config.pooling, self.config.summary)


class HuggingFaceImages(FrameBackbone):
    """An image transformer that sees each frame alone; a step is a frame."""

    def __init__(self, config: BackboneConfig, model: Any, framing: Framing) -> None:
        side = framing.size // model.config.patch_size
        self._num_places = side * side
        self._is_clip = model.config.model_type == "clip_vision_model"
        super().__init__(config, model, width=model.config.hidden_size, framing=framing)

    def _tokens(
        self, clip: Float[Tensor, "batch frame channel height width"]
    ) -> Float[Tensor, "batch token feature"]:
        hidden = self.network(
            pixel_values=rearrange(clip, "batch frame c h w -> (batch frame) c h w")
        ).last_hidden_state
        if self._is_clip:
            # CLIP's last normalisation is applied to its class token alone, outside these.
            hidden = _part(self.network, "post_layernorm")(hidden)
        by_frame = rearrange(
            hidden, "(batch frame) place f -> batch frame place f", batch=len(clip)
        )
        # Class tokens come first, then registers where there are any.
        places = by_frame[:, :, -self._num_places :]
        has_class = by_frame.shape[2] > self._num_places
        seen = Seen(places=places, steps=by_frame[:, :, 0] if has_class else None)
        return seen.pooled(self.config.pooling, self.config.summary)


def _fit_to_frames(model: Any, num_frames: int, num_steps: int) -> None:
    """Interpolate positions in time for another number of frames, where there are any to learn."""
    kind, config = model.config.model_type, model.config
    if kind == "vjepa2":
        # Rotary positions hold for any number.
        return
    trained_steps = config.num_frames // VIDEO_KINDS[kind].tubelet(config)
    if trained_steps == num_steps:
        return
    logger.warning(
        "positions in time of %s are interpolated from %d frames to %d.",
        *(kind, config.num_frames, num_frames),
    )
    config.num_frames = num_frames
    embeddings = model.embeddings
    if kind == "timesformer":
        embeddings.time_embeddings = nn.Parameter(_stretched(embeddings.time_embeddings, num_steps))
        return
    old = embeddings.position_embeddings
    prefix, positions = (
        old[:, : VIDEO_KINDS[kind].num_prefix],
        old[:, VIDEO_KINDS[kind].num_prefix :],
    )
    grid = rearrange(positions, "1 (step place) f -> place step f", step=trained_steps)
    positions = rearrange(_stretched(grid, num_steps), "place step f -> 1 (step place) f")
    table = torch.cat([prefix, positions], 1)
    embeddings.position_embeddings = nn.Parameter(table) if kind == "vivit" else table
    embeddings.patch_embeddings.num_patches = positions.shape[1]


def _stretched(
    positions: Float[Tensor, "place step feature"], num_steps: int
) -> Float[Tensor, "place step_out feature"]:
    """Embeddings of as many moments, interpolated linearly."""
    by_step = rearrange(positions.detach(), "place step f -> place f step")
    stretched = F.interpolate(by_step, num_steps, mode="linear", align_corners=False)
    return rearrange(stretched, "place f step -> place step f").contiguous()


def _part(network: nn.Module, name: str) -> nn.Module:
    """The module of that name, however deep."""
    return next(part for path, part in network.named_modules() if path.split(".")[-1] == name)
