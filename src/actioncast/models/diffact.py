"""DiffAct: Diffusion Action Segmentation (Liu et al., ICCV 2023).

https://arxiv.org/abs/2303.17959. Labels of all frames are denoised, conditioned on what an encoder
made of the frames. In training parts of that condition are hidden: the encoder always sees the
whole video.

Differs from the paper / from the official code:

- It anticipates too, as the authors of ActFusion made it do (their appendix G): the encoder sees
  the observed frames, and the condition of those to come is zero. It was not made for it.
- Every answer starts from the noise of `seed`; the code takes the number of the test video.
- Class weights weigh hard labels only and are refused beside soft ones, where the code drops them.
- Steps whose label is unknown take part in no loss; the code stops at them.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers.frame_masks import DIFFACT_50SALADS, Masking
from actioncast.models.diffusion import DiffusionAnticipator, Encoded
from actioncast.models.diffusion_config import DiffusionConfig
from actioncast.timeline import Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffActConfig(DiffusionConfig):
    """Sizes and options of DiffAct; the defaults are the released ones of 50 Salads."""

    masking: Masking = field(default_factory=lambda: DIFFACT_50SALADS)
    """Which steps of the condition are hidden in training."""

    def __post_init__(self) -> None:
        DiffusionConfig.__post_init__(self)
        if self.masking.future_multiple:
            raise ValueError(
                "future_multiple must be 0 for DiffAct, which is not trained on what has no "
                f"features, got {self.masking.future_multiple:g}; train ActFusion instead."
            )

    def build(self, taxonomy: Taxonomy) -> "DiffAct":
        """Build the model for these labels."""
        return DiffAct(self, taxonomy)


class DiffAct(DiffusionAnticipator):
    """Segments by diffusion; what is hidden is hidden from the denoiser alone."""

    trains_on_whole_videos = False
    """It is shown nothing else, but not trained to anticipate by it."""

    def __init__(self, config: DiffActConfig, taxonomy: Taxonomy) -> None:
        super().__init__(config, taxonomy)
        self.config = config

    def encode(
        self,
        features: Float[Tensor, "batch seen feature"],
        visible: Bool[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Encoded:
        """Encode all frames that have features; the condition of hidden steps is zero."""
        seen, time = features.shape[1], visible.shape[1]
        steps = None if valid is None else valid[:, None, :seen].float()
        layers = self.config.condition_layers
        logits, parts = self.encoder(features, valid=steps, handed_out=layers)
        if self.config.condition_features:
            parts.insert(0, features.mT)
        if self.config.condition_predictions:
            parts.append(logits.softmax(1))
        condition = F.pad(torch.cat(parts, 1), (0, time - seen)) * visible[:, None]
        named = torch.arange(time, device=visible.device) < seen
        return Encoded(
            logits=F.pad(logits, (0, time - seen)),
            condition=condition,
            named=named.expand(visible.shape),
        )
