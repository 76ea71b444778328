"""MambaVL: a clip and two questions about it, fused by state spaces that share one matrix A.

Dong et al., Mamba Fusion: Learning Actions Through Questioning
(https://arxiv.org/abs/2409.11513). One question asks for the verb and one for the noun; a selective
state space reads each modality, all with one state matrix, and the sum of their means names the
action: of the clip itself (`anticipation_time` 0), or the one that follows.

No code of MambaVL was ever published, and its Algorithm 1 is an image: this is from the text.

Differs from the paper, or settles what it leaves open:

- The state space stands in a whole Mamba block for each modality, with one linear layer before it
  (`fusion="mamba"`): that alone gives the parameters of Table 4. `fusion="s6"` is the bare
  recurrence of the equations.
- B_bar is exact zero-order hold, as in Eq. 2; the public Mamba kernel computes Euler's form
  (`discretisation`).
- Loss: cross entropy of every head, smoothed by 0.1, summed, as in the backbones' own training.
- An action's probability is the product of those of its verb and its noun, over the pairs that
  exist. `heads="action"` has one head over actions instead, and sums it for verbs and nouns;
  `heads="joint"` adds a term for each pair to the scores of its verb and its noun.
- `balance` divides the probability of a class, in the end, by a power of its share in training, so
  that frequent classes do not win every time, which a mean over classes punishes. The paper has
  none: 0.
- `normalise` and `tied` are ours, for histories of actions, whose tokens are one-hot.
- Any number of modalities; one that a row lacks adds nothing.
- What questions tell must stand in every result: see `questions.QuestionMode`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, assert_never, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.fusion import (
    Fusion,
    MambaFusion,
    MLPFusion,
    StateSpaceFusion,
    TransformerFusion,
)
from actioncast.layers.ssm import Discretisation
from actioncast.models.base import Anticipator, Losses
from actioncast.timeline import Taxonomy
from actioncast.types import IGNORE, Observation, Prediction, Target, Task, Tokens
from actioncast.video.backbones import build_backbone
from actioncast.video.base import BackboneConfig, FrameBackbone


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaVLConfig:
    """The published sizes; features are those of a video backbone, questions RoBERTa's."""

    feature_dim: int = 768
    """width of the first modality: what was seen, or the history of actions"""
    modalities: tuple[tuple[str, int], ...] = (("questions", 768),)
    """the others, each with its width"""
    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name=""))
    """what sees the frames, where it learns with the rest; without a name features come from files
    or from a frozen backbone outside"""
    fusion: Literal["mamba", "s6", "mlp", "transformer"] = "mamba"
    """how modalities become one vector; all but the first two are those that Table 3 compares"""
    hidden_dim: int = 768
    """width of the fused vector"""
    state_dim: int = 16
    """entries of the state of every channel"""
    expand: int = 2
    """channels of a Mamba block over hidden_dim"""
    taps: int = 4
    """of the convolution over tokens"""
    discretisation: Discretisation = Discretisation.ZERO_ORDER_HOLD
    """how the continuous system becomes steps: as the paper writes, or as Mamba's kernel does"""
    shared: bool = True
    """one state matrix for all modalities; else one for each, which is an ablation of mamba"""
    projection_layers: int = 1
    """linear layers that bring a modality to the common width"""
    normalise: bool = False
    """scale a modality's vectors to one length before the state space; one-hot features come in so
    small that its gates would take long to open"""
    num_layers: int = 6
    """of the transformer"""
    num_heads: int = 4
    """of the transformer"""
    dropout: float = 0.0
    """on the fused vector, and in the transformer"""
    drop_modality: float = 0.0
    """probability that a training row goes without a modality; never without all"""
    heads: Literal["pairs", "action", "joint"] = "pairs"
    """what is scored: verb and noun; the action itself; or both, and their sum"""
    tied: bool = False
    """for a history of actions: verbs and nouns are also scored by the vectors that they come in
    with, so that what was used can be named again however rare it is"""
    label_smoothing: float = 0.1
    """share of the target that is spread over all classes"""
    balance: float = 0.0
    """exponent of the share of a class by which its probability is divided in the end; 0 is the
    plain probability"""

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "state_dim", "expand", "taps", "projection_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        names = [name for name, _ in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"modalities must have names of their own, got {', '.join(names)}.")
        if self.fusion == "transformer" and self.hidden_dim % self.num_heads:
            raise ValueError(
                f"hidden_dim must be a multiple of num_heads, got {self.hidden_dim} and "
                f"{self.num_heads}."
            )
        if not 0 <= self.balance <= 2:
            raise ValueError(f"balance must be within 0 and 2, got {self.balance}.")
        for name in ("dropout", "drop_modality", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be within [0, 1), got {getattr(self, name)}.")
        if self.fusion != "mamba" and not self.shared:
            raise ValueError(f"shared is a choice of fusion mamba alone, got {self.fusion}.")

    def build(self, taxonomy: Taxonomy) -> "MambaVL":
        """Build the model for these labels."""
        return MambaVL(self, taxonomy)


def build_fusion(config: MambaVLConfig) -> Fusion:
    """The fusion of a config."""
    widths = [config.feature_dim, *[width for _, width in config.modalities]]
    match config.fusion:
        case "mamba":
            return MambaFusion(
                widths,
                config.hidden_dim,
                config.state_dim,
                config.expand,
                config.taps,
                config.discretisation,
                config.projection_layers,
                config.normalise,
                config.shared,
            )
        case "s6":
            return StateSpaceFusion(
                widths,
                config.hidden_dim,
                config.state_dim,
                config.taps,
                config.discretisation,
                config.projection_layers,
                config.normalise,
            )
        case "mlp":
            return MLPFusion(widths, config.hidden_dim)
        case "transformer":
            return TransformerFusion(
                widths, config.hidden_dim, config.num_layers, config.num_heads, config.dropout
            )
        case _:
            assert_never(config.fusion)


@final
class MambaVL(Anticipator):
    """Names one action from a clip, or a history, and what is said and known about it."""

    tasks: ClassVar[frozenset[Task]] = frozenset({Task.NEXT_ACTION})
    pairs: Int[Tensor, "action 2"]

    def __init__(self, config: MambaVLConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        if config.heads != "pairs" and not taxonomy.pairs:
            raise ValueError(
                f"heads={config.heads} needs actions that are pairs of a verb and a noun, got a "
                "taxonomy without; say heads=pairs, which scores every head by itself."
            )
        self.config = config
        self.taxonomy = taxonomy
        self.backbone: FrameBackbone | None = None
        if config.backbone.name:
            self.backbone = build_backbone(config.backbone)
            if self.backbone.width != config.feature_dim:
                raise ValueError(
                    f"feature_dim must be the width of {config.backbone.name}, which is "
                    f"{self.backbone.width}, got {config.feature_dim}."
                )
        self.fusion = build_fusion(config)
        self.dropout = nn.Dropout(config.dropout)
        sizes = {head: len(space) for head, space in taxonomy.heads.items()}
        scored = set(sizes)
        if config.heads == "action":
            scored = {"action"}
        elif config.heads == "pairs" and taxonomy.pairs:
            scored -= {"action"}
        self.heads = nn.ModuleDict(
            {head: nn.Linear(config.hidden_dim, sizes[head]) for head in sizes if head in scored}
        )
        self.again: nn.Linear | None = None
        if config.tied:
            known = sum(sizes.get(head, 0) for head in ("verb", "noun"))
            if config.heads == "action" or not taxonomy.pairs or config.feature_dim < known:
                raise ValueError(
                    "tied needs heads for verb and noun and a history of actions as the first "
                    f"modality, {known} wide and more, got heads={config.heads} and feature_dim "
                    f"{config.feature_dim}; say --model.no-tied."
                )
            self.again = nn.Linear(config.hidden_dim, config.hidden_dim)
        if config.balance:
            for head in self.heads:
                self.register_buffer(f"log_share_{head}", torch.zeros(sizes[head]))
        pairs = torch.tensor(taxonomy.pairs, dtype=torch.long).reshape(-1, 2)
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, x: Observation) -> dict[str, Float[Tensor, "batch label"]]:
        """Scores by head, before softmax."""
        fused = self.dropout(self.fusion(self._modalities(x)))
        scores = {head: layer(fused) for head, layer in self.heads.items()}
        if self.again is not None:
            # The first columns of a history's token are the verb, one-hot, and the noun.
            vectors = self.fusion.vectors()
            sizes = [len(self.taxonomy.heads[head]) for head in ("verb", "noun")]
            named = (self.again(fused) @ vectors[:, : sum(sizes)]).split(sizes, 1)
            scores["verb"] = scores["verb"] + named[0]
            scores["noun"] = scores["noun"] + named[1]
        if self.config.heads == "joint":
            verbs, nouns = self.pairs.unbind(1)
            scores["action"] = (
                scores["action"] + scores["verb"][:, verbs] + scores["noun"][:, nouns]
            )
        return scores

    def losses(self, x: Observation, y: Target) -> Losses:
        """Smoothed cross entropy of every head; rows without a label (IGNORE) count for none."""
        terms: Losses = {}
        for head, said in self.forward(x).items():
            labels = y.next[head]
            total = F.cross_entropy(
                said,
                labels,
                ignore_index=IGNORE,
                label_smoothing=self.config.label_smoothing,
                reduction="sum",
            )
            terms[head] = total / (labels != IGNORE).sum().clamp(min=1)
        return terms

    def predict(self, x: Observation) -> list[Prediction]:
        """Probabilities of every head of the taxonomy."""
        probs = self._probabilities(self.forward(x))
        return [
            Prediction(
                taxonomy=self.taxonomy,
                rate=x.rate,
                observed=x.frames_observed(i),
                next={head: rows[i] for head, rows in probs.items()},
            )
            for i in range(len(x))
        ]

    def count_labels(self, labels: Mapping[str, Int[Tensor, " clip"]]) -> None:
        """Take in how often each class occurs in training, for `balance`; one more of each."""
        if not self.config.balance:
            return
        for head in self.heads:
            share = getattr(self, f"log_share_{head}")
            counts = torch.bincount(labels[head], minlength=len(share)).float() + 1
            share.copy_((counts / counts.sum()).log())

    def fast_parameters(self) -> list[nn.Parameter]:
        """Those of the state spaces, which learn at a higher peak rate (Sec. 4.1)."""
        return self.fusion.state_space_parameters()

    def slow_parameters(self) -> list[nn.Parameter]:
        """Those of a backbone that learns with the rest."""
        return [] if self.backbone is None else self.backbone.slow_parameters()

    def _first(self, x: Observation) -> Tokens:
        """What was seen: features as they come, or what the backbone makes of the frames."""
        if self.backbone is None:
            return Tokens(values=x.features, valid=x.valid)
        if x.clip is None:
            raise ValueError(
                f"{self.config.backbone.name} must be given frames (Observation.clip), got none; "
                "train and evaluate with --input frames."
            )
        seen = self.backbone(x.clip)
        # A clip of which nothing can be seen has no valid step, whatever stands in its frames.
        valid = x.valid.any(1, keepdim=True).expand(-1, seen.shape[1])
        return Tokens(values=seen, valid=valid)

    def _modalities(self, x: Observation) -> list[Tokens]:
        given = [self._first(x)]
        for name, width in self.config.modalities:
            found = x.modalities.get(name)
            if found is None:
                # Told nothing: one place that is padding.
                found = Tokens(
                    values=given[0].values.new_zeros(len(x), 1, width),
                    valid=x.valid.new_zeros(len(x), 1),
                )
            given.append(found)
        if self.training and self.config.drop_modality:
            given = self._dropped(given)
        return given

    def _dropped(self, given: list[Tokens]) -> list[Tokens]:
        """Hide whole modalities of rows at random; a row that would lose all keeps all."""
        present = torch.stack([tokens.valid.any(1) for tokens in given], 1)
        drawn = torch.rand(present.shape, device=present.device) >= self.config.drop_modality
        kept = drawn | ~(drawn & present).any(1, keepdim=True)
        return [
            Tokens(values=tokens.values, valid=tokens.valid & kept[:, i, None])
            for i, tokens in enumerate(given)
        ]

    def _handicap(self, head: str) -> Float[Tensor, " label"] | float:
        """What is taken from the scores of a head: the more, the more frequent a class is."""
        if not self.config.balance:
            return 0.0
        log_share: Tensor = getattr(self, f"log_share_{head}")
        return self.config.balance * log_share

    def _probabilities(
        self, scores: Mapping[str, Float[Tensor, "batch label"]]
    ) -> dict[str, Float[Tensor, "batch label"]]:
        probs = {
            head: (rows.float() - self._handicap(head)).softmax(-1) for head, rows in scores.items()
        }
        if not self.taxonomy.pairs:
            return probs
        verbs, nouns = self.pairs.unbind(1)
        if "action" not in probs:
            products = probs["verb"][:, verbs] * probs["noun"][:, nouns]
            # Over the pairs that exist; the order of actions stays that of the products.
            probs["action"] = products / products.sum(1, keepdim=True).clamp(min=1e-30)
        for head, index in (("verb", verbs), ("noun", nouns)):
            if head not in probs:
                sums = probs["action"].new_zeros(
                    len(probs["action"]), len(self.taxonomy.heads[head])
                )
                probs[head] = sums.index_add(1, index, probs["action"])
        return probs
