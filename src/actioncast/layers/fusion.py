"""Several sequences of tokens in, one vector out: the fusions that MambaVL compares.

Dong et al., Mamba Fusion (https://arxiv.org/abs/2409.11513, Sec. 3.2 and Table 3). Every fusion
takes the sequences of all modalities, each with its mask and its own width. What is padded leaves
no trace, and a modality without a token adds nothing. Padding follows the real tokens of a row.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.mamba import (
    MambaBlock,
    at_least_float32,
    causal_conv,
    initial_a_log,
    initialise_steps,
    not_decayed,
)
from actioncast.layers.ssm import Discretisation, real_steps, scan_flops, selective_scan
from actioncast.types import Tokens


class Fusion(nn.Module, ABC):
    """The contract: one sequence a modality, always in the same order."""

    @abstractmethod
    def forward(self, modalities: Sequence[Tokens]) -> Float[Tensor, "batch hidden"]:
        """The fused vector of every row."""

    def state_space_parameters(self) -> list[nn.Parameter]:
        """Parameters of Mamba blocks or scans, projections apart; none of other fusions."""
        return []

    @abstractmethod
    def vectors(self) -> Float[Tensor, "hidden feature"]:
        """The vectors with which the features of the first modality come in."""


def mean_of_tokens(
    values: Float[Tensor, "batch token hidden"], valid: Bool[Tensor, "batch token"]
) -> Float[Tensor, "batch hidden"]:
    """The mean over real tokens; zeros where there is none."""
    total = real_steps(values, valid).sum(1)
    return total / valid.sum(1, keepdim=True).clamp(min=1)


class Projection(nn.Sequential):
    """To the common width: the MLP of Eq. 5, one linear layer, or more with GELU between.

    Where it normalises, a layer norm without weights follows.
    """

    def __init__(self, width: int, hidden_dim: int, layers: int, normalise: bool = False) -> None:
        parts: list[nn.Module] = [nn.Linear(width, hidden_dim)]
        for _ in range(layers - 1):
            parts += [nn.GELU(), nn.Linear(hidden_dim, hidden_dim)]
        if normalise:
            parts.append(nn.LayerNorm(hidden_dim, elementwise_affine=False))
        super().__init__(*parts)


def first_layer(projection: nn.Module) -> Float[Tensor, "hidden feature"]:
    """The weights of a projection's first linear layer."""
    layer = projection if isinstance(projection, nn.Linear) else next(projection.children())
    assert isinstance(layer, nn.Linear)
    return layer.weight


def sum_of_branches(
    projections: Iterable[nn.Module],
    scans: Iterable[nn.Module],
    modalities: Sequence[Tokens],
    a_log: Float[Tensor, "channel state"] | None,
) -> Float[Tensor, "batch hidden"]:
    """The mean over tokens of what each scan answers, summed over modalities.

    Rows that a modality tells nothing are left out of its scan; they would get zeros.
    """
    total: Tensor | None = None
    for project, scan, x in zip(projections, scans, modalities, strict=True):
        told = x.valid.any(1)
        rows = told.nonzero()[:, 0]
        values, valid = (x.values, x.valid) if told.all() else (x.values[rows], x.valid[rows])
        mean = mean_of_tokens(scan(project(values), valid, a_log), valid)
        if len(rows) < len(told):
            mean = mean.new_zeros(len(told), mean.shape[1]).index_copy(0, rows, mean)
        total = mean if total is None else total + mean
    assert total is not None, "a fusion has at least one modality"
    return total


@final
class MambaFusion(Fusion):
    """A Mamba block for each modality, all with one `A_log`; means over tokens, summed.

    8,698,368 parameters for two modalities of width 768. The convolution of Eq. 5 is the block's.
    What modalities exchange at run time is this sum alone; the shared `A_log` joins them in
    training, where its gradient is the sum of theirs.

    Args:
        widths: Of every modality's tokens.
        hidden_dim: Common width.
        state_dim: Entries of a channel's state (N).
        expand: Channels of the scan over `hidden_dim`.
        taps: Of the convolution.
        discretisation: How the continuous system becomes steps.
        projection_layers: Linear layers before the block.
        normalise: Whether a layer norm without weights follows them.
        shared: One `A_log` for all; else one for each, which is an ablation.
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden_dim: int,
        state_dim: int,
        expand: int,
        taps: int,
        discretisation: Discretisation,
        projection_layers: int = 1,
        normalise: bool = False,
        shared: bool = True,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            Projection(width, hidden_dim, projection_layers, normalise) for width in widths
        )
        self.blocks = nn.ModuleList(
            MambaBlock(
                hidden_dim,
                state_dim,
                expand,
                taps,
                discretisation=discretisation,
                own_a=not shared,
            )
            for _ in widths
        )
        self.A_log = initial_a_log(expand * hidden_dim, state_dim) if shared else None

    def state_space_parameters(self) -> list[nn.Parameter]:
        """Those of the blocks, and the shared `A_log`."""
        shared = [] if self.A_log is None else [self.A_log]
        return [*self.blocks.parameters(), *shared]

    def vectors(self) -> Float[Tensor, "hidden feature"]:
        """Of the first projection."""
        return first_layer(self.projections[0])

    def forward(self, modalities: Sequence[Tokens]) -> Float[Tensor, "batch hidden"]:
        """Sum over modalities of the mean over tokens of what each block answers."""
        return sum_of_branches(self.projections, self.blocks, modalities, self.A_log)


@final
class BareStateSpace(nn.Module):
    """The selective state space exactly as MambaVL's equations have it, without Mamba's block.

    B, C and the step (through a low rank, as in Mamba) are linear in the input; no gate, no
    projection back. The convolution of Eq. 5 stands before it.
    """

    def __init__(
        self, hidden_dim: int, state_dim: int, taps: int, discretisation: Discretisation
    ) -> None:
        super().__init__()
        rank = -(-hidden_dim // 16)
        self.discretisation = discretisation
        self.conv1d = nn.Conv1d(hidden_dim, hidden_dim, taps, groups=hidden_dim)
        self.b = nn.Linear(hidden_dim, state_dim)
        self.c = nn.Linear(hidden_dim, state_dim)
        self.rank = nn.Linear(hidden_dim, rank, bias=False)
        self.step = nn.Linear(rank, hidden_dim)
        self.D = not_decayed(nn.Parameter(torch.ones(hidden_dim)))
        initialise_steps(self.step)

    def forward(
        self,
        x: Float[Tensor, "batch token hidden"],
        valid: Bool[Tensor, "batch token"],
        a_log: Float[Tensor, "hidden state"],
    ) -> Float[Tensor, "batch token hidden"]:
        """What the scan answers at every token."""
        x = F.pad(real_steps(x, valid), (0, 0, self.conv1d.kernel_size[0] - 1, 0))
        x = causal_conv(x, self.conv1d)
        return selective_scan(
            x,
            F.linear(self.rank(x), self.step.weight),
            -at_least_float32(a_log).exp(),
            self.b(x),
            self.c(x),
            self.D,
            delta_bias=self.step.bias,
            softplus=True,
            discretisation=self.discretisation,
            valid=valid,
        ).y

    def own_flops(self, inputs: tuple[Tensor, ...], outputs: Tensor) -> int:  # noqa: ARG002
        """Operations of a pass besides those of its linear layers (`cost.CountsItself`)."""
        tokens, channels = inputs[0].shape[0] * inputs[0].shape[1], len(self.D)
        steps = 2 * tokens * channels * self.step.in_features
        taps = 2 * tokens * channels * self.conv1d.kernel_size[0]
        return steps + taps + scan_flops(tokens, channels, inputs[2].shape[1])


@final
class StateSpaceFusion(Fusion):
    """A bare selective state space for each modality, all with one `A_log` (Eq. 2, 3, 5)."""

    def __init__(
        self,
        widths: Sequence[int],
        hidden_dim: int,
        state_dim: int,
        taps: int,
        discretisation: Discretisation,
        projection_layers: int = 1,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            Projection(width, hidden_dim, projection_layers, normalise) for width in widths
        )
        self.scans = nn.ModuleList(
            BareStateSpace(hidden_dim, state_dim, taps, discretisation) for _ in widths
        )
        self.A_log = initial_a_log(hidden_dim, state_dim)

    def state_space_parameters(self) -> list[nn.Parameter]:
        """Those of the scans, and the shared `A_log`."""
        shared = [] if self.A_log is None else [self.A_log]
        return [*self.scans.parameters(), *shared]

    def vectors(self) -> Float[Tensor, "hidden feature"]:
        """Of the first projection."""
        return first_layer(self.projections[0])

    def forward(self, modalities: Sequence[Tokens]) -> Float[Tensor, "batch hidden"]:
        """Sum over modalities of the mean over tokens of what each scan answers."""
        return sum_of_branches(self.projections, self.scans, modalities, self.A_log)


@final
class MLPFusion(Fusion):
    """Means over tokens, concatenated, through two layers (Table 3, MLP)."""

    def __init__(self, widths: Sequence[int], hidden_dim: int) -> None:
        super().__init__()
        self.first_width = widths[0]
        self.layers = Projection(sum(widths), hidden_dim, 2)

    def vectors(self) -> Float[Tensor, "hidden feature"]:
        """Of the first projection."""
        return first_layer(self.layers)[:, : self.first_width]

    def forward(self, modalities: Sequence[Tokens]) -> Float[Tensor, "batch hidden"]:
        """The order of tokens is lost."""
        return self.layers(torch.cat([mean_of_tokens(x.values, x.valid) for x in modalities], -1))


@final
class TransformerFusion(Fusion):
    """All tokens attend to one another; then their mean (Table 3, layers x heads).

    The paper says no more of it: pre-norm layers, sinusoids for places within a modality and a
    learned vector for each modality are ours.
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden_dim: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, hidden_dim) for width in widths)
        self.kinds = nn.Parameter(0.02 * torch.randn(len(widths), hidden_dim))
        layer = nn.TransformerEncoderLayer(
            hidden_dim,
            num_heads,
            4 * hidden_dim,
            dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, num_layers, nn.LayerNorm(hidden_dim), enable_nested_tensor=False
        )

    def vectors(self) -> Float[Tensor, "hidden feature"]:
        """Of the first projection."""
        return first_layer(self.projections[0])

    def forward(self, modalities: Sequence[Tokens]) -> Float[Tensor, "batch hidden"]:
        """The mean over the real tokens of all modalities."""
        sequences = [
            project(x.values) + kind + sinusoids(x.values.shape[1], kind)
            for project, kind, x in zip(self.projections, self.kinds, modalities, strict=True)
        ]
        valid = torch.cat([x.valid for x in modalities], 1)
        values = real_steps(torch.cat(sequences, 1), valid)
        # A row without any token attends to a padded one: softmax over nothing is no number.
        hidden = ~valid
        hidden = torch.cat([hidden[:, :1] & valid.any(1, keepdim=True), hidden[:, 1:]], 1)
        return mean_of_tokens(self.encoder(values, src_key_padding_mask=hidden), valid)


def sinusoids(length: int, like: Float[Tensor, " hidden"]) -> Float[Tensor, "token hidden"]:
    """Sines and cosines of every place, as in the first transformer."""
    width = len(like)
    places = torch.arange(length, device=like.device, dtype=torch.float32)
    rates = torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width
    angles = places[:, None] / 10_000**rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].to(like.dtype)
