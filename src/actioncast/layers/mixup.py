"""Mixup of sequences: two rows of a batch, and what is to be said of them, in one share.

Zhang et al. (https://arxiv.org/abs/1710.09412). The partner of a row is that of the batch read
backwards, one share a batch, as the released CLAM draws it. Rows of unequal length meet at their
ends, where the question is asked.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actioncast.types import IGNORE


@dataclass(frozen=True, slots=True)
class Mixup:
    """How the rows of one batch are mixed."""

    share: Float[Tensor, ""]
    """Of each row itself; its partner has the rest."""
    partner: Int[Tensor, " batch"]
    """Row of the batch."""
    step: Int[Tensor, "batch time"]
    """Step of the partner that lies at each step; -1 where there is none."""

    @classmethod
    def draw(cls, valid: Bool[Tensor, "batch time"], concentration: float) -> "Mixup":
        """Draw a share from Beta(concentration, concentration); padding must follow real steps."""
        beta = torch.distributions.Beta(concentration, concentration)
        share = beta.sample().to(valid.device)
        partner = torch.arange(len(valid), device=valid.device).flip(0)
        lengths = valid.sum(1)
        places = torch.arange(valid.shape[1], device=valid.device)
        step = places + (lengths[partner] - lengths)[:, None]
        there = (step >= 0) & valid
        return cls(share=share, partner=partner, step=step.masked_fill(~there, -1))

    def features(
        self, features: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch time feature"]:
        """Each row and its partner, weighed; where there is no partner its share is 0."""
        others = features[self.partner[:, None], self.step.clamp(min=0)]
        others = others * (self.step >= 0)[..., None]
        return self.share * features + (1 - self.share) * others

    def labels(self, labels: Int[Tensor, "batch time *more"]) -> Int[Tensor, "batch time *more"]:
        """The partner's labels at each step; IGNORE where there is none."""
        others = labels[self.partner[:, None], self.step.clamp(min=0)]
        absent = (self.step < 0).reshape(self.step.shape + (1,) * (labels.ndim - 2))
        return others.masked_fill(absent, IGNORE)

    def of_row(self, labels: Int[Tensor, "batch *more"]) -> Int[Tensor, "batch *more"]:
        """The partner's labels of whole rows."""
        return labels[self.partner]
