"""What m&m-Ant learns from (sheet, section 4)."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actioncast.layers.gated_objective import (
    change_weighted_cross_entropy,
    consistency_share,
    cross_entropy_over_all_rows,
    focal_cross_entropy,
    gated_terms,
    wrongness,
)
from actioncast.layers.temporal_consistency import temporal_consistency
from actioncast.models.base import Losses
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.models.parallel_queries import (
    ParallelQueries,
    mean_share_error,
)
from actioncast.types import IGNORE, Target


class MMAntLosses:
    """The losses of a batch, and the epoch that two of them change with.

    Args:
        config: Weights and options.
        queried: How answers of queries are read.
        primary: The head that is predicted.
        described: The head that the generator speaks.
    """

    def __init__(
        self, config: MMAntConfig, queried: ParallelQueries, primary: str, described: str
    ) -> None:
        self.config, self.queried = config, queried
        self.primary, self.described = primary, described
        self.epoch = 0

    def __call__(
        self,
        *,
        past: Float[Tensor, "batch time label"],
        future: Float[Tensor, "batch query _"],
        durations: Float[Tensor, "batch query"],
        queries: Bool[Tensor, "batch query"],
        described: Float[Tensor, "batch time described"] | None,
        states: Float[Tensor, "batch time hidden"] | None,
        valid: Bool[Tensor, "batch time"],
        target: Target,
    ) -> Losses:
        """Weighted terms by name."""
        config = self.config
        frames = target.frames.get(self.primary)
        if frames is None and target.future is None:
            raise ValueError(
                f"m&m-Ant learns from the labels of head {self.primary!r}, observed or future, got "
                "neither; choose a data set that has them."
            )
        if frames is None:
            frames = torch.full_like(valid, IGNORE, dtype=torch.long)
        queried = replace(self.queried, num_queries=durations.shape[1])
        actions, shares = queried.targets(target, durations)
        last, first = _last(frames, valid), actions[:, 0] if actions.shape[1] else None
        actions = actions.masked_fill(~queries, IGNORE)
        shares = shares.masked_fill(~queries, torch.nan)
        rest = {
            "past": config.past_weight * self._entropy(past, frames),
            "future": config.future_weight * self._future(future, actions, last, first),
            "duration": config.duration_weight * mean_share_error(durations, shares),
        }
        if self.epoch < config.segmentation_epochs:
            # Kept in the graph: several processes wait for every gradient.
            rest["future"], rest["duration"] = 0.0 * rest["future"], 0.0 * rest["duration"]
        if described is None or states is None:
            return rest
        labels = target.frames.get(self.described, torch.full_like(frames, IGNORE))
        fine = {"text": config.text_weight * self._text(described, labels)}
        consistency = self._consistency(states, described, labels)
        if config.objective == "sum":
            return rest | fine | consistency
        known = valid & (labels != IGNORE) & (frames != IGNORE)
        wrong = wrongness(described.argmax(-1) == labels, past.argmax(-1) == frames, known)
        return gated_terms(
            fine=fine,
            consistency=consistency,
            rest=rest,
            wrongness=wrong,
            share=consistency_share(self.epoch, config.consistency_peak, config.consistency_end),
        )

    def _entropy(
        self, logits: Float[Tensor, "batch time label"], labels: Int[Tensor, "batch time"]
    ) -> Float[Tensor, ""]:
        return self._over(labels) * cross_entropy_over_all_rows(logits, labels)

    def _text(
        self, logits: Float[Tensor, "batch time label"], labels: Int[Tensor, "batch time"]
    ) -> Float[Tensor, ""]:
        if self.config.text_error == "focal":
            return self._over(labels) * focal_cross_entropy(logits, labels)
        return self._entropy(logits, labels)

    def _future(
        self,
        logits: Float[Tensor, "batch query label"],
        labels: Int[Tensor, "batch query"],
        last: Int[Tensor, " batch"],
        first: Int[Tensor, " batch"] | None,
    ) -> Float[Tensor, ""]:
        if first is None or self.config.change_weight == 1.0:
            return self._entropy(logits, labels)
        weighed = change_weighted_cross_entropy(
            logits, labels, last, first, self.config.change_weight
        )
        return self._over(labels) * weighed

    def _consistency(
        self,
        states: Float[Tensor, "batch time hidden"],
        logits: Float[Tensor, "batch time described"],
        labels: Int[Tensor, "batch time"],
    ) -> Losses:
        config = self.config
        if not config.intra_weight and not config.inter_weight:
            return {}
        leaks = config.consistency_shared_by == "last_video"
        intra, inter = temporal_consistency(
            states if config.consistency_of == "states" else logits,
            labels,
            shared_by=config.consistency_shared_by,
            padding_is_a_run=leaks,
        )
        return {"intra": config.intra_weight * intra, "inter": config.inter_weight * inter}

    def _over(self, labels: Int[Tensor, "*row"]) -> Float[Tensor, ""] | float:
        """What brings a mean over all rows to one over those that have a label."""
        if self.config.averaged_over == "all":
            return 1.0
        return labels.numel() / (labels != IGNORE).sum().clamp(min=1)


def _last(
    frames: Int[Tensor, "batch time"], valid: Bool[Tensor, "batch time"]
) -> Int[Tensor, " batch"]:
    """The label of the last step seen of every video."""
    place = torch.arange(valid.shape[1], device=valid.device)
    last = place.expand(valid.shape).masked_fill(~valid, 0).amax(1)
    return frames.gather(1, last[:, None]).squeeze(1)
