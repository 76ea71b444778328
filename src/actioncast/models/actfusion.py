"""ActFusion: a Unified Diffusion Model for Action Segmentation and Anticipation.

Gong, Kwak and Cho, NeurIPS 2024, https://arxiv.org/abs/2412.04353. Frames that are not seen, be it
that they are still to come, are replaced by a learned token; encoder and denoiser then name all
frames alike, so that one network segments what was seen and anticipates what was not.

Differs from the paper:

- Convolution and attention of a layer stand side by side and are summed, as released; the text and
  its figure put them one after the other.
- The window is `taps` neighbours 2^i steps apart, not a window of 2^i.
- Queries and keys read the condition, values do not, as released.
- Denoising draws noise (`eta=1`), as every released config does; the update cited is that of eta 0.
- The random mask hides the clips that are drawn; the printed formula shows them instead.
- Smoothing and boundary loss take the earlier neighbour as given, as released
  (`boundary_through_both` moves both, as Eq. 10 is printed).
- "At most 100 neighbours" clips the index of a bias in the code and limits no window; here neither.
- Answers are averaged over offsets and filtered (`inference.py`), of which the text is silent.

Differs from the official code:

- The position bias is a scalar for each tap; the code keeps a table of 20,000 rows a layer and
  reads at most `taps` of them. Taps 100 steps and more from the first share a row there.
- Frames are hidden by choosing, not by sorting: the code's unstable sort gives visible frames the
  features of others.
- The length of the video is used where a protocol gives it away and `to_the_end` says so.
- Observed frames end where the protocol says; the released test shows up to `stride` - 1 more
  (`LongTerm.rounded_to_steps`).
- Every answer starts from the noise of `seed`; the code takes the number of the test video, so that
  its answer about a video is ours where `seed` is that number.
- Gradients that are left over at the end of an epoch make a step; the code carries them on.
- The code's `decoder-noagg` (one offset) is `offsets` off, its `encoder` is `answer_of`.
- Class weights weigh hard labels only and are refused beside soft ones, where the code drops them.
- Steps whose label is unknown take part in no loss (data sets with gaps are refused by the
  reader); the code stops at them, and at a video of one action.
- The rectified protocol (section 5.4), of which nothing is released, is `masking.future_multiple`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.attention import Positions
from actioncast.models.base import Losses
from actioncast.models.diffusion import DiffusionAnticipator, Encoded
from actioncast.models.diffusion_config import DiffusionConfig
from actioncast.timeline import Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class ActFusionConfig(DiffusionConfig):
    """Sizes and options of ActFusion; the defaults are the published ones of 50 Salads."""

    positions: Positions = "bias"
    """What attention knows of where a neighbour lies (paper, Table S2)."""
    max_positions: int = 12_000
    """Longest video in steps, for absolute positions."""
    token: Literal["learned", "zero"] = "learned"
    """What stands in for a hidden frame (paper, Table 5)."""
    token_in: Literal["encoder", "denoiser"] = "encoder"
    """Who is told of hidden frames by the token: the encoder, or the denoiser alone, the encoder
    then sees the visible frames as if they were the video (paper, Table 5)."""
    reconstruction_weight: float = 0.0
    """Weight of the squared error of hidden features, reconstructed by two layers from what
    conditions the denoiser (paper, Table S4)."""

    def build(self, taxonomy: Taxonomy) -> "ActFusion":
        """Build the model for these labels."""
        return ActFusion(self, taxonomy)


class ActFusion(DiffusionAnticipator):
    """Segments and anticipates with one diffusion model; hidden frames are tokens."""

    def __init__(self, config: ActFusionConfig, taxonomy: Taxonomy) -> None:
        super().__init__(config, taxonomy, config.positions, config.max_positions)
        self.config = config
        condition = config.condition_dim(self.num_labels)
        width = config.feature_dim if config.token_in == "encoder" else condition
        # Xavier's bound of the released [1, width, 1].
        bound = math.sqrt(6 / (width + 1))
        self.token: Tensor
        if config.token == "learned":
            self.token = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        else:
            self.register_buffer("token", torch.zeros(width))
        self.reconstruct = None
        if config.reconstruction_weight:
            self.reconstruct = nn.Sequential(
                nn.Conv1d(condition, config.encoder_dim, 1),
                nn.ReLU(),
                nn.Conv1d(config.encoder_dim, config.feature_dim, 1),
            )

    def encode(
        self,
        features: Float[Tensor, "batch seen feature"],
        visible: Bool[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Encoded:
        """Encode what is visible, tokens for what is not."""
        if self.config.token_in == "denoiser":
            return self._encode_visible(features, visible)
        steps = None if valid is None else valid[:, None].float()
        layers = self.config.condition_layers
        logits, outputs = self.encoder(features, visible, self.token, steps, layers)
        condition = self._condition(features, visible, outputs, logits)
        return Encoded(logits=logits, condition=condition, named=torch.ones_like(visible))

    def _condition(
        self,
        features: Float[Tensor, "batch seen feature"],
        visible: Bool[Tensor, "batch time"],
        outputs: list[Float[Tensor, "batch hidden time"]],
        logits: Float[Tensor, "batch label time"],
    ) -> Float[Tensor, "batch condition time"]:
        parts = list(outputs)
        if self.config.condition_features:
            whole = F.pad(features.mT, (0, visible.shape[1] - features.shape[1]))
            # What stands in the features is the encoder's token; the denoiser's is not as wide.
            token = self.token if self.config.token_in == "encoder" else whole.new_zeros(1)
            parts.insert(0, torch.where(visible[:, None], whole, token[:, None]))
        if self.config.condition_predictions:
            parts.append(logits.softmax(1))
        return torch.cat(parts, 1)

    def _encode_visible(
        self,
        features: Float[Tensor, "batch seen feature"],
        visible: Bool[Tensor, "batch time"],
    ) -> Encoded:
        """Encode visible steps as if they were the whole video; others get the token after."""
        order = (~visible).long().argsort(dim=1, stable=True)
        count = visible.sum(1)
        most = int(count.max())
        order, packed = order[:, :most], torch.arange(most, device=count.device) < count[:, None]
        token = rearrange(self.token, "condition -> 1 condition 1")
        condition = token.expand(len(features), -1, visible.shape[1])
        logits = features.new_zeros(len(features), self.num_labels, visible.shape[1])
        if not most:
            return Encoded(logits=logits, condition=condition, named=visible)
        # Where a row sees fewer steps than another, any may stand in: its padding has no say.
        at = order.clamp(max=features.shape[1] - 1)[..., None].expand(-1, -1, features.shape[2])
        shown = features.gather(1, at)
        steps = None if packed.all() else packed[:, None].float()
        layers = self.config.condition_layers
        named, outputs = self.encoder(shown, valid=steps, handed_out=layers)
        told = self._condition(shown, packed, outputs, named)

        def spread(values: Tensor, nothing: Tensor, background: Tensor) -> Tensor:
            index = order[:, None].expand(-1, values.shape[1], -1)
            return background.scatter(2, index, torch.where(packed[:, None], values, nothing))

        return Encoded(
            logits=spread(named, logits[..., :1], logits),
            condition=spread(told, token, condition),
            named=visible,
        )

    def more_losses(
        self,
        encoded: Encoded,
        features: Float[Tensor, "batch seen feature"],
        hidden: Bool[Tensor, "batch time"],
    ) -> Losses:
        """The error of hidden features that exist, where the config asks for it."""
        if self.reconstruct is None:
            return {}
        seen = features.shape[1]
        guessed = rearrange(
            self.reconstruct(encoded.condition[..., :seen]),
            "batch feature time -> batch time feature",
        )
        wrong = (guessed - features).square().mean(2) * hidden[:, :seen]
        loss = (wrong.sum(1) / hidden[:, :seen].sum(1).clamp(min=1)).mean()
        return {"reconstruction": self.config.reconstruction_weight * loss}
