"""MobileNetV1 (Howard et al., https://arxiv.org/abs/1704.04861) as small detectors carry it.

Reads the PyTorch weights, MIT, of the quarter-width network trained on ImageNet (46.8 % top-1) and
any other width with the same keys: no package besides PyTorch is needed. Its rectifiers are plain:
on photographs the variances kept by its normalisations are met to 2 % in the median; with the leaky
ones that a detector puts in their place (slope 0.1) the last are exceeded by two thirds.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from actioncast.video.base import BackboneConfig, FrameBackbone, Seen
from actioncast.video.frames import Framing

SIZE = 224
STRIDES = {"stage1": (2, 1, 2, 1, 2, 1), "stage2": (2, 1, 1, 1, 1, 1), "stage3": (2, 1)}
"""Of each block; shapes of weights do not tell them."""


class MobileNet(nn.Module):
    """A convolution and blocks of depth-wise and point-wise ones; a map of features comes out."""

    def __init__(self, widths: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        before = 3
        for stage, strides in STRIDES.items():
            blocks: list[nn.Module] = []
            for width, stride in zip(widths[stage], strides, strict=True):
                # The first block of all sees colours, and is a plain convolution.
                plain = before == 3
                blocks.append(
                    nn.Sequential(*_convolution(3, width, stride))
                    if plain
                    else nn.Sequential(
                        *_convolution(before, before, stride, groups=before),
                        *_convolution(before, width, kernel=1),
                    )
                )
                before = width
            self.add_module(stage, nn.Sequential(*blocks))
        self.width = before

    def forward(
        self, frames: Float[Tensor, "frame channel height width"]
    ) -> Float[Tensor, "frame feature height_32 width_32"]:
        """A map of features, one for each 32 x 32 pixels."""
        for stage in self.children():
            frames = stage(frames)
        return frames


class MobileNetBackbone(FrameBackbone):
    """Each frame alone; a place is one of 7 x 7."""

    def __init__(self, config: BackboneConfig, path: Path) -> None:
        network = load_mobilenet(path)
        super().__init__(config, network, width=network.width, framing=Framing(size=SIZE))

    def _tokens(
        self, clip: Float[Tensor, "batch frame channel height width"]
    ) -> Float[Tensor, "batch token feature"]:
        maps = self.network(rearrange(clip, "batch frame c h w -> (batch frame) c h w"))
        places = rearrange(maps, "(batch frame) f h w -> batch frame (h w) f", batch=len(clip))
        return Seen(places=places).pooled(self.config.pooling, self.config.summary)


def load_mobilenet(path: Path) -> MobileNet:
    """Build the network that a file of weights belongs to.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds other weights.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights {path} of a MobileNetV1.")
    weights = _weights(path)
    try:
        network = MobileNet(
            {
                stage: tuple(_width(weights, f"{stage}.{i}.") for i in range(len(strides)))
                for stage, strides in STRIDES.items()
            }
        )
        network.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path} must hold the weights of a MobileNetV1 (keys stage1.0.0.weight ...), got "
            f"others ({error})."
        ) from None
    return network


def _width(weights: Mapping[str, Tensor], block: str) -> int:
    """Of what a block gives: of its point-wise convolution, or of its only one."""
    pointwise = weights.get(f"{block}3.weight")
    return len(weights[f"{block}0.weight"] if pointwise is None else pointwise)


def _weights(path: Path) -> dict[str, Tensor]:
    """The state dict without the classifier and the prefix of a parallel run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken pickle raises depends on where it is broken
        raise ValueError(
            f"{path} must be a file of PyTorch weights, got one that does not open ({error})."
        ) from None
    found = content.get("state_dict", content) if isinstance(content, dict) else {}
    named = {str(key).removeprefix("module."): value for key, value in found.items()}
    return {key: value for key, value in named.items() if not key.startswith("fc.")}


def _convolution(
    before: int, after: int, stride: int = 1, *, kernel: int = 3, groups: int = 1
) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
