"""What CLAM learns from: what is done at every step, and what comes at some (sheet, section 3).

All weights are 1. Background that no label names counts nowhere; where a label names it, as on
THUMOS14, it is learned like any other. The equalised loss holds for actions alone. It and mixup are
for one label a step: where several actions are under way at once, neither has a part.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from actioncast.layers.equalised_loss import Equalisation, mixed_cross_entropy
from actioncast.layers.mixup import Mixup
from actioncast.layers.moments import (
    active_ahead,
    labels_ahead,
    several_cross_entropy,
    steps_ahead,
)
from actioncast.models.base import Losses
from actioncast.models.clam_config import ClamConfig
from actioncast.timeline import Taxonomy
from actioncast.types import IGNORE, Observation, Target

if TYPE_CHECKING:
    from actioncast.models.clam import CLAM


@final
class ClamLosses(nn.Module):
    """The loss terms of one model; it has no parameters."""

    rare: Bool[Tensor, " label"]

    def __init__(self, taxonomy: Taxonomy, config: ClamConfig) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.config = config
        none = torch.zeros(len(taxonomy.heads[taxonomy.primary]), dtype=torch.bool)
        # A resumed run counts again.
        self.register_buffer("rare", none, persistent=False)

    def count(self, labels: Mapping[str, Int[Tensor, " _"]]) -> None:
        """Take in which actions are rare in training."""
        if not self.config.equalise_below or self.taxonomy.primary not in labels:
            return
        counts = torch.bincount(labels[self.taxonomy.primary], minlength=len(self.rare))
        self.rare.copy_(counts < self.config.equalise_below * counts.sum())

    def forward(self, model: "CLAM", x: Observation, y: Target) -> Losses:
        """Loss terms by name."""
        mixup = None
        if self.training and self.config.mixup and len(x) > 1 and not y.active:
            mixup = Mixup.draw(x.valid, self.config.mixup)
        features = x.features if mixup is None else mixup.features(x.features)
        rows, wanted = self._wanted(x, y)
        tokens, answers = model.read(features, x.valid, rows)
        terms: Losses = {}
        if self.config.past_weight and (y.frames or y.active):
            for head, logits in self._named(model.scores(tokens)).items():
                if (term := self._past(head, logits, y, mixup)) is not None:
                    terms[f"past {head}"] = self.config.past_weight * term
        for head, logits in self._named(model.scores(answers)).items():
            if head not in wanted:
                continue
            labels = wanted[head]
            if labels.ndim == logits.ndim:
                terms[f"future {head}"] = self._several(head, logits, labels.bool())
                continue
            partner = None
            if mixup is not None:
                others = self._of_partner(x, y, mixup, head)
                partner = others if rows is None else others[rows]
                partner = partner.reshape(labels.shape)
            terms[f"future {head}"] = self._entropy(head, logits, labels, partner, mixup)
        return terms

    def query_of(self, x: Observation) -> int:
        """Which query names what comes after the anticipation time; without one, the first.

        Raises:
            ValueError: None does.
        """
        ahead = self.config.ahead
        if x.anticipation_time and x.anticipation_time not in ahead:
            raise ValueError(
                f"the anticipation time must be one of the moments that the model names, {ahead} "
                f"s, got {x.anticipation_time:g} s; say --model.ahead {x.anticipation_time:g}."
            )
        return ahead.index(x.anticipation_time) if x.anticipation_time else 0

    def _wanted(
        self, x: Observation, y: Target
    ) -> tuple[tuple[Tensor, Tensor] | None, dict[str, Tensor]]:
        """At which steps the future is told, and by head what it holds there for each query."""
        if self.config.num_coming:
            return None, {head: self._places(labels) for head, labels in y.coming.items()}
        if y.starts and self.config.asks_at == "starts":
            told = torch.stack([labels != IGNORE for labels in y.starts.values()]).any(0)
            rows = _rows(told)
            if not len(rows[0]):
                rows = _last_steps(x.valid)
            return rows, {head: self._queried(x, labels[rows]) for head, labels in y.starts.items()}
        if y.next:
            return None, {head: self._queried(x, labels) for head, labels in y.next.items()}
        shifts = steps_ahead(self.config.ahead, x.rate, x.stride)
        rows = _rows(x.valid)
        if y.active:
            return rows, {
                head: active_ahead(active, shifts)[rows] for head, active in y.active.items()
            }
        return rows, {head: labels_ahead(labels, shifts)[rows] for head, labels in y.frames.items()}

    def _queried(self, x: Observation, labels: Int[Tensor, " row"]) -> Int[Tensor, "row query"]:
        """A label of each row for the query that the anticipation time asks; IGNORE for others."""
        found = labels.new_full((len(labels), len(self.config.ahead)), IGNORE)
        found[:, self.query_of(x)] = labels
        return found

    def _places(self, labels: Int[Tensor, "batch place"]) -> Int[Tensor, "batch query"]:
        """As many actions in order as there are queries."""
        found = labels.new_full((len(labels), self.config.num_coming), IGNORE)
        kept = labels[:, : self.config.num_coming]
        found[:, : kept.shape[1]] = kept
        return found

    def _of_partner(self, x: Observation, y: Target, mixup: Mixup, head: str) -> Tensor:
        """What is mixed into the future, on the axes that `_wanted` chooses rows of."""
        if self.config.num_coming:
            return mixup.of_row(self._places(y.coming[head]))
        if y.starts and self.config.asks_at == "starts":
            starts = mixup.labels(y.starts[head])
            flat = self._queried(x, starts.flatten())
            return rearrange(flat, "(batch time) query -> batch time query", time=starts.shape[1])
        if y.next:
            return mixup.of_row(self._queried(x, y.next[head]))
        shifts = steps_ahead(self.config.ahead, x.rate, x.stride)
        return mixup.labels(labels_ahead(y.frames[head], shifts))

    def _past(
        self,
        head: str,
        logits: Float[Tensor, "batch time label"],
        y: Target,
        mixup: Mixup | None,
    ) -> Float[Tensor, ""] | None:
        if head in y.active:
            return self._several(head, logits, y.active[head])
        if head not in y.frames:
            return None
        labels = y.frames[head]
        partner = None if mixup is None else mixup.labels(labels)
        return self._entropy(head, logits, labels, partner, mixup)

    def _several(self, head: str, logits: Tensor, active: Tensor) -> Float[Tensor, ""]:
        return several_cross_entropy(
            logits,
            active,
            smoothing=self.config.label_smoothing,
            unknown=self.taxonomy.heads[head].unknown_labels,
        )

    def _entropy(
        self,
        head: str,
        logits: Float[Tensor, "*rows label"],
        labels: Int[Tensor, "*rows"],
        partner: Int[Tensor, "*rows"] | None,
        mixup: Mixup | None,
    ) -> Float[Tensor, ""]:
        equalised = None
        if self.training and head == self.taxonomy.primary and bool(self.rare.any()):
            equalised = Equalisation(self.rare, self.config.equalise)
        return mixed_cross_entropy(
            logits.flatten(0, -2),
            labels.flatten(),
            None if partner is None else partner.flatten(),
            1.0 if mixup is None else mixup.share,
            smoothing=self.config.label_smoothing,
            equalised=equalised,
        )

    def _named(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scores of what labels name, without a background's."""
        first = int(self.config.background_output)
        return {head: rows[..., first:] for head, rows in scores.items()}


def _rows(chosen: Bool[Tensor, "batch time"]) -> tuple[Tensor, Tensor]:
    batch, step = chosen.nonzero(as_tuple=True)
    return batch, step


def _last_steps(valid: Bool[Tensor, "batch time"]) -> tuple[Tensor, Tensor]:
    return torch.arange(len(valid), device=valid.device), valid.sum(1) - 1
