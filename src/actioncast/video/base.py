"""The contract that every backbone signs: frames in, tokens out."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Literal, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from actioncast.video.frames import Framing

Pooling = Literal["tokens", "frames", "clip"]
"""All tokens of space and time; one for each position in time; one for the whole clip."""
Summary = Literal["class", "mean"]
"""What stands for many tokens: the class token where there is one, else their mean; or the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """Which backbone sees the frames, and what it gives of them."""

    name: str
    """A folder or a name on the Hugging Face hub; `untrained:KIND-SIZE` for such a model with
    random weights; `mobilenet:FILE`; or `custom:PACKAGE.MODULE:FUNCTION` (see
    `backbones.build_backbone`)."""
    pooling: Pooling = "frames"
    """Which tokens are given: `tokens`, all of space and time; `frames`, one for each position in
    time; `clip`, one."""
    summary: Summary = "class"
    """What stands for many tokens where some are pooled: `class`, the class token where the model
    has one for them and else their mean; `mean`, always the mean."""
    num_frames: int = 16
    """Frames of a clip."""
    trained: bool = False
    """Whether training moves its weights; otherwise it stays as it is, in evaluation mode."""

    def __post_init__(self) -> None:
        if self.pooling not in ("tokens", "frames", "clip"):
            raise ValueError(f"pooling must be 'tokens', 'frames' or 'clip', got {self.pooling!r}.")
        if self.summary not in ("class", "mean"):
            raise ValueError(f"summary must be 'class' or 'mean', got {self.summary!r}.")
        if self.num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {self.num_frames}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a network makes of a clip before anything is pooled."""

    places: Float[Tensor, "batch step place feature"]
    """One token for each position in time and in space."""
    steps: Float[Tensor, "batch step feature"] | None = None
    """Class tokens of single frames."""
    clip: Float[Tensor, "batch feature"] | None = None
    """Class token of the clip."""

    def pooled(self, pooling: Pooling, summary: Summary) -> Float[Tensor, "batch token feature"]:
        """As many tokens as asked for."""
        if pooling == "tokens":
            return rearrange(self.places, "batch step place f -> batch (step place) f")
        by_class = summary == "class"
        if pooling == "clip" and by_class and self.clip is not None:
            return self.clip[:, None]
        steps = self.steps if by_class and self.steps is not None else self.places.mean(2)
        return steps if pooling == "frames" else steps.mean(1, keepdim=True)


class FrameBackbone(nn.Module, ABC):
    """Frames of a clip to tokens, trained or frozen.

    A frozen one has no gradients and stays in evaluation mode whatever contains it.
    """

    def __init__(
        self, config: BackboneConfig, network: nn.Module, *, width: int, framing: Framing
    ) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.width = width
        self.framing = framing
        if not config.trained:
            network.requires_grad_(False)
        self.train(self.training)

    @property
    def trained(self) -> bool:
        """Whether training moves its weights."""
        return self.config.trained

    def forward(
        self, clip: Float[Tensor, "batch frame channel height width"]
    ) -> Float[Tensor, "batch token feature"]:
        """Tokens of clips whose frames are as `framing` makes them.

        Raises:
            ValueError: The clip has another number or size of frames.
        """
        found, size = clip.shape[1], self.framing.size
        if found != self.config.num_frames:
            raise ValueError(
                f"{self.config.name} must be given clips of {self.config.num_frames} frames, got "
                f"{found}; sample as many, or build it with num_frames={found}."
            )
        if tuple(clip.shape[2:]) != (3, size, size):
            raise ValueError(
                f"{self.config.name} must be given frames of 3 x {size} x {size}, got "
                f"{' x '.join(map(str, clip.shape[2:]))}; prepare them with its `framing`."
            )
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            return self._tokens(clip)

    @abstractmethod
    def _tokens(
        self, clip: Float[Tensor, "batch frame channel height width"]
    ) -> Float[Tensor, "batch token feature"]:
        """The tokens that the config asks for."""

    @final
    def train(self, mode: bool = True) -> "FrameBackbone":
        """Training mode, for a trained backbone alone."""
        return super().train(mode and self.trained)

    @final
    def slow_parameters(self) -> list[nn.Parameter]:
        """Weights that are to learn at the rate of pretrained ones; none of a frozen backbone."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @final
    def fingerprint(self) -> str:
        """Twelve characters that change with its weights and whatever else changes its tokens."""
        digest = hashlib.sha256(type(self.network).__qualname__.encode())
        digest.update(repr(self.framing).encode())
        for field in fields(self.config):
            # A model is the same wherever it lies, and whether or not it is to be trained.
            if field.name not in ("name", "trained"):
                digest.update(repr((field.name, getattr(self.config, field.name))).encode())
        for name, value in self.network.state_dict().items():
            digest.update(repr((name, value.dtype, tuple(value.shape))).encode())
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(content.numpy().data)
        return digest.hexdigest()[:12]
