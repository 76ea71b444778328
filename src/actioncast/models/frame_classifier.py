"""A classifier of single frames: the recogniser of ActionLLM's pipeline, on features.

ActionLLM reads observed actions that an image classifier named frame by frame (Section IV-A of the
paper: a ResNet-50 or a ViT-L, one a fold). This one names each step from its feature vector alone,
so that no step has a say in another.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.moments import excluded, several_cross_entropy
from actioncast.models.base import Anticipator, Losses
from actioncast.timeline import Taxonomy
from actioncast.types import Observation, Prediction, Target, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameClassifierConfig:
    """Sizes of the classifier; without hidden layers it is linear."""

    feature_dim: int = 2048
    """Width of a feature vector."""
    hidden_dim: int = 256
    """Width of the hidden layers."""
    num_layers: int = 1
    """Hidden layers; 0 takes features straight to labels."""
    dropout: float = 0.5
    """Probability of dropping what goes into a layer, features included, in training."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all labels."""

    def __post_init__(self) -> None:
        if min(self.feature_dim, self.hidden_dim) < 1 or self.num_layers < 0:
            raise ValueError(
                "feature_dim and hidden_dim must be at least 1 and num_layers at least 0, got "
                f"{self.feature_dim}, {self.hidden_dim} and {self.num_layers}."
            )
        if not 0 <= self.dropout < 1 or not 0 <= self.label_smoothing < 1:
            raise ValueError(
                "dropout and label_smoothing must be in [0, 1), got "
                f"{self.dropout} and {self.label_smoothing}."
            )

    def build(self, taxonomy: Taxonomy) -> "FrameClassifier":
        """Build the model for these labels."""
        return FrameClassifier(self, taxonomy)


@final
class FrameClassifier(Anticipator):
    """Names each step of what was seen from its own feature vector."""

    tasks: ClassVar[frozenset[Task]] = frozenset({Task.SEGMENTATION})
    causal: ClassVar[bool] = True

    def __init__(self, config: FrameClassifierConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config = config
        self.taxonomy = taxonomy
        widths = [config.feature_dim, *[config.hidden_dim] * config.num_layers]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Dropout(config.dropout), nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(widths[-1], len(taxonomy.labels))

    def forward(
        self, features: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch time label"]:
        """Logits of every step; padding is answered too."""
        if features.shape[2] != self.config.feature_dim:
            raise ValueError(
                f"features must be {self.config.feature_dim} wide, got {features.shape[2]}; set "
                "feature_dim to the width of your features."
            )
        hidden = features
        for layer in self.layers:
            hidden = layer(hidden)
        return self.classifier(self.dropout(hidden))

    def losses(self, x: Observation, y: Target) -> Losses:
        """Cross entropy, the mean over labelled steps; of several actions at once all count."""
        head = self.taxonomy.primary
        if head not in y.active and head not in y.frames:
            raise ValueError(
                f"FrameClassifier learns from what is done at every step by head {head!r}, got no "
                "such labels; choose a data set that has them."
            )
        active = y.active[head] if head in y.active else self._active(y.frames[head])
        loss = several_cross_entropy(
            self(x.features),
            active,
            smoothing=self.config.label_smoothing,
            unknown=self.taxonomy.labels.unknown_labels,
        )
        return {"past": loss}

    @torch.inference_mode()
    def predict(self, x: Observation) -> list[Prediction]:
        """The action of every step."""
        logits = excluded(self(x.features).float(), self.taxonomy.labels.unknown_labels)
        return [
            Prediction(
                taxonomy=self.taxonomy,
                rate=x.rate,
                observed=x.frames_observed(i),
                past=logits[i, valid].softmax(-1),
            )
            for i, valid in enumerate(x.valid)
        ]

    def _active(self, labels: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch time label"]:
        """One label a step as a row of which one is true, none where it is not known."""
        named = F.one_hot(labels.clamp(min=0), len(self.taxonomy.labels)).bool()
        return named & (labels >= 0)[..., None]
