"""Backbones by name."""

import importlib
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from actioncast.video.base import BackboneConfig, FrameBackbone
from actioncast.video.frames import Framing
from actioncast.video.huggingface import open_huggingface
from actioncast.video.mobilenet import MobileNetBackbone

MOBILENET = "mobilenet:"
CUSTOM = "custom:"


def build_backbone(config: BackboneConfig) -> FrameBackbone:
    """Build or load the backbone that a config names.

    - `FOLDER` or `OWNER/MODEL`: a Hugging Face model of videos or images (see `huggingface.py`),
      as ViT-B and ViT-L, which MambaVL was published with, can be had.
    - `untrained:KIND-SIZE`: the same without weights, `untrained:vit-base` for example; for
      measuring costs and for tests.
    - `mobilenet:FILE`: a MobileNetV1 (see `mobilenet.py`).
    - `custom:PACKAGE.MODULE:FUNCTION`: any other, as ORViT, which is on no hub. The function is
      called with `num_frames` and `pooling` and returns an `nn.Module` that maps a clip
      `[batch, frame, 3, size, size]` to tokens `[batch, token, width]`, with the attributes
      `width: int` and `framing: actioncast.video.frames.Framing`.

    Raises:
        ValueError, FileNotFoundError: There is none of that name, or it is not as it must be.
        ImportError: It needs a package that is not installed.
    """
    if config.name.startswith(MOBILENET):
        return MobileNetBackbone(config, Path(config.name.removeprefix(MOBILENET)))
    if config.name.startswith(CUSTOM):
        return CustomBackbone(config, _call(config))
    return open_huggingface(config)


class CustomBackbone(FrameBackbone):
    """A network of the user's own."""

    def __init__(self, config: BackboneConfig, network: nn.Module) -> None:
        width, framing = getattr(network, "width", None), getattr(network, "framing", None)
        if not isinstance(width, int) or not isinstance(framing, Framing):
            raise ValueError(
                f"what {config.name} returns must have the attributes width, an int, and framing, "
                f"an actioncast.video.frames.Framing, got {width!r} and {framing!r}."
            )
        super().__init__(config, network, width=width, framing=framing)

    def _tokens(
        self, clip: Float[Tensor, "batch frame channel height width"]
    ) -> Float[Tensor, "batch token feature"]:
        tokens = self.network(clip)
        if tokens.ndim != 3 or tokens.shape[::2] != (len(clip), self.width):
            raise ValueError(
                f"{self.config.name} must give tokens of shape (batch, token, width), here "
                f"({len(clip)}, any, {self.width}), got {tuple(tokens.shape)}."
            )
        return tokens


def _call(config: BackboneConfig) -> nn.Module:
    """What the user's function returns."""
    path, _, function = config.name.removeprefix(CUSTOM).partition(":")
    try:
        build = getattr(importlib.import_module(path), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"a custom backbone must be custom:PACKAGE.MODULE:FUNCTION that can be imported, got "
            f"{config.name!r} ({error}); run where the package is installed or set PYTHONPATH."
        ) from error
    network = build(num_frames=config.num_frames, pooling=config.pooling)
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"{config.name} must return a torch.nn.Module, got {type(network).__name__}."
        )
    return network
