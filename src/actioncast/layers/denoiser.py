"""The two halves of a diffusion segmenter: an encoder of frames and a denoiser of their labels.

The network of DiffAct (Liu et al., ICCV 2023) and ActFusion (Gong et al., NeurIPS 2024); channels
first inside. Where videos of a batch differ in length, `valid` says so, and padding has no say.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.attention import DilatedLayer, Positions, pointwise
from actioncast.layers.diffusion import step_embedding


class FrameEncoder(nn.Module):
    """Names every step and hands out what its layers hold of it.

    Args:
        feature_dim: Width of a feature vector.
        num_labels: Labels.
        num_layers: Layers; that of index i has dilation 2^i.
        hidden: Channels.
        taps: Kernel size.
        dropout: Of activations in every layer.
        channel_dropout: Of whole feature channels of a video.
        frame_dropout: Of all features of a step.
        positions: What attention knows of positions.
        max_positions: Longest video in steps, for absolute positions.
    """

    def __init__(
        self,
        feature_dim: int,
        num_labels: int,
        num_layers: int,
        hidden: int,
        taps: int,
        dropout: float,
        channel_dropout: float,
        frame_dropout: float,
        positions: Positions,
        max_positions: int,
    ) -> None:
        super().__init__()
        self.channel_dropout, self.frame_dropout = channel_dropout, frame_dropout
        self.embed = nn.Conv1d(feature_dim, hidden, 1)
        self.absolute = absolute_positions(positions, hidden, max_positions)
        self.layers = nn.ModuleList(
            DilatedLayer(hidden, taps, 2**i, dropout, positions) for i in range(num_layers)
        )
        self.head = nn.Conv1d(hidden, num_labels, 1)

    def forward(
        self,
        features: Float[Tensor, "batch seen feature"],
        visible: Bool[Tensor, "batch time"] | None = None,
        token: Float[Tensor, " feature"] | None = None,
        valid: Float[Tensor, "batch 1 time"] | None = None,
        handed_out: Sequence[int] = (),
    ) -> tuple[Float[Tensor, "batch label time"], list[Float[Tensor, "batch hidden time"]]]:
        """Logits, and the outputs of some layers.

        Args:
            features: Of the first steps; those after them count as hidden.
            visible: False where the token stands in for a step; absent, all are visible.
            token: What stands there.
            valid: 1 at the steps of a video, 0 where it is padded.
            handed_out: Layers whose outputs are wanted, in order.
        """
        x = self._embedded(features, visible, token)
        if self.absolute is not None:
            x = x + placed(self.absolute, x.shape[2])
        outputs = []
        for i, layer in enumerate(self.layers):
            x = layer(x, valid=valid)
            if i in handed_out:
                outputs.append(x)
        assert self.head.bias is not None
        return pointwise(x, self.head.weight[..., 0], self.head.bias), outputs

    def _embedded(
        self, features: Tensor, visible: Tensor | None, token: Tensor | None
    ) -> Float[Tensor, "batch hidden time"]:
        """Embed steps and token apart and choose after: the same sum, and no masked features.

        Dropout of channels drops columns of the map instead, that of steps drops what it makes;
        of a video shorter than the map is high its features are fewer, and are dropped themselves.
        """
        weight = rearrange(self.embed.weight, "hidden feature 1 -> hidden feature")
        kept = torch.ones(len(features), 1, weight.shape[1], device=features.device)
        kept = F.dropout(kept, self.channel_dropout, self.training)
        if features.shape[1] < len(weight):
            x = weight @ (features * kept).mT
        else:
            x = (weight * kept) @ features.mT
        if visible is not None:
            x = F.pad(x, (0, visible.shape[1] - x.shape[2]))
            stand_in = x.new_zeros(1, 1, 1)
            if token is not None:
                stand_in = weight @ (kept * token).mT
            x = torch.where(visible[:, None], x, stand_in)
        steps = torch.ones(len(x), 1, x.shape[2], device=x.device)
        x = x * F.dropout(steps, self.frame_dropout, self.training)
        assert self.embed.bias is not None
        return x + rearrange(self.embed.bias, "hidden -> hidden 1")


class LabelDenoiser(nn.Module):
    """Predicts the labels of all steps from noisy ones, the diffusion step and a condition.

    Args:
        num_labels: Labels.
        condition: Channels of the condition.
        num_layers: Layers; that of index i has dilation 2^i.
        hidden: Channels.
        taps: Kernel size.
        step_dim: Width of the embedding of a diffusion step; even.
        dropout: Of activations and of the condition in every layer.
        positions: What attention knows of positions.
        max_positions: Longest video in steps, for absolute positions.
    """

    def __init__(
        self,
        num_labels: int,
        condition: int,
        num_layers: int,
        hidden: int,
        taps: int,
        step_dim: int,
        dropout: float,
        positions: Positions,
        max_positions: int,
    ) -> None:
        super().__init__()
        self.step_dim = step_dim
        self.step_in = nn.Linear(step_dim, step_dim)
        self.step_out = nn.Linear(step_dim, step_dim)
        self.step_project = nn.Linear(step_dim, hidden)
        self.embed = nn.Conv1d(num_labels, hidden, 1)
        self.absolute = absolute_positions(positions, hidden, max_positions)
        self.layers = nn.ModuleList(
            DilatedLayer(hidden, taps, 2**i, dropout, positions, condition)
            for i in range(num_layers)
        )
        self.head = nn.Conv1d(hidden, num_labels, 1)

    def embed_steps(self, steps: Int[Tensor, " step"]) -> Float[Tensor, "step hidden 1"]:
        """What each diffusion step adds to every frame."""
        embedded = self.step_in(step_embedding(steps, self.step_dim))
        projected = self.step_project(F.silu(self.step_out(F.silu(embedded))))
        return rearrange(projected, "step hidden -> step hidden 1")

    def project(
        self, condition: Float[Tensor, "batch condition time"]
    ) -> list[Float[Tensor, "batch pair time"]]:
        """What every layer takes from the condition; the same at every diffusion step."""
        layers = cast(Iterable[DilatedLayer], self.layers)
        return [layer.project(condition) for layer in layers]

    def forward(
        self,
        noisy: Float[Tensor, "batch label time"],
        step: Float[Tensor, "#batch hidden 1"],
        projected: Sequence[Float[Tensor, "batch pair time"]],
        valid: Float[Tensor, "batch 1 time"] | None = None,
    ) -> Float[Tensor, "batch label time"]:
        """Logits of the labels.

        Args:
            noisy: Noisy labels, within [0, 1].
            step: Of `embed_steps`.
            projected: Of `project`.
            valid: 1 at the steps of a video, 0 where it is padded.
        """
        assert self.embed.bias is not None
        assert self.head.bias is not None
        x = pointwise(noisy, self.embed.weight[..., 0], self.embed.bias) + step
        if self.absolute is not None:
            x = x + placed(self.absolute, x.shape[2])
        for layer, taken in zip(self.layers, projected, strict=True):
            x = layer(x, taken, valid)
        return pointwise(x, self.head.weight[..., 0], self.head.bias)


def absolute_positions(positions: Positions, hidden: int, longest: int) -> nn.Parameter | None:
    """A learned vector for every step of a video, where positions are absolute."""
    if positions != "absolute":
        return None
    return nn.Parameter(0.02 * torch.randn(hidden, longest))


def placed(table: Float[Tensor, "hidden longest"], time: int) -> Float[Tensor, "hidden time"]:
    """The positions of the first steps.

    Raises:
        ValueError: The video is longer than the table.
    """
    if time > table.shape[1]:
        raise ValueError(
            f"a video must have at most {table.shape[1]} steps, got {time}; use a larger stride, "
            "or train with a larger max_positions."
        )
    return table[:, :time]
