"""A future told by queries in parallel: their targets, and what their answers name (FUTR, sec. 3).

Each query gives one action and the share of the horizon that it takes; the first that names the
*end* closes the list.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers.decoding import (
    EndFirst,
    Fill,
    duration_shares,
    lay_out,
    named_frames,
)
from actioncast.timeline import UNLABELLED
from actioncast.types import IGNORE, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelQueries:
    """How the answers of a model's queries are read."""

    end: int
    """The label that closes the list: the number of actions."""
    num_queries: int
    """How many there are."""
    fill: Fill
    """Who takes the frames that rounding leaves over."""
    end_first: EndFirst
    """Who takes all frames when nothing comes before the end."""
    end_takes_time: bool = False
    """Whether the end has a share of the horizon, in which no action is named."""
    seed: int = 0
    """Of sampled futures."""

    def targets(
        self, y: Target, durations: Float[Tensor, "batch query"]
    ) -> tuple[Int[Tensor, "batch query"], Float[Tensor, "batch query"]]:
        """Action and share of every query, cut or padded; IGNORE and NaN where there is none.

        Args:
            y: What is true.
            durations: Of any value; says how many videos and queries there are, and where.
        """
        if y.future is None:
            empty = torch.full_like(durations, IGNORE, dtype=torch.long)
            return empty, torch.full_like(durations, torch.nan)
        room = (0, self.num_queries - y.future.shape[1])
        actions = F.pad(y.future, room, value=IGNORE)
        if y.durations is None:
            return actions, torch.full_like(durations, torch.nan)
        shares = F.pad(y.durations, room, value=torch.nan)
        is_end = actions == self.end
        if not self.end_takes_time:
            # The actions fill the horizon: what lies beyond the end of the video is shared out.
            ends = y.durations.masked_fill(y.future != self.end, 0.0)
            beyond = ends.nan_to_num().sum(1, keepdim=True)
            return actions, (shares / (1 - beyond)).masked_fill(is_end, torch.nan)
        # An end without a number lies beyond the horizon and so takes none of it.
        takes_none = is_end & shares.isnan() & ~shares.isnan().all(1, keepdim=True)
        return actions, shares.masked_fill(takes_none, 0.0)

    def frames(
        self,
        future: Float[Tensor, "query _"],
        durations: Float[Tensor, " query"],
        horizon: int,
    ) -> Float[Tensor, "horizon label"]:
        """The probabilities of the query that names each frame; zeros where none does.

        Args:
            future: Logits of the actions, the end last.
            durations: Raw durations.
            horizon: Frames to name.
        """
        probs = future[:, : self.end].float().softmax(-1)
        return named_frames(probs, self._lay_out(future.argmax(-1), durations, horizon))

    def draw(
        self,
        future: Float[Tensor, "query _"],
        durations: Float[Tensor, " query"],
        horizon: int,
        num_samples: int,
    ) -> Int[Tensor, "sample horizon"]:
        """Draw every query's action by itself; the durations stay."""
        generator = torch.Generator().manual_seed(self.seed)
        probs = future.float().softmax(-1).cpu()
        drawn = torch.multinomial(probs, num_samples, replacement=True, generator=generator)
        labels = rearrange(drawn, "query sample -> sample query").to(future.device)
        queries = self._lay_out(labels, durations.expand(num_samples, -1), horizon)
        # Only a query that stands in for an end in first place names a frame and drew the end.
        actions = torch.where(labels == self.end, future[:, : self.end].argmax(-1), labels)
        return actions.gather(1, queries.clamp(min=0)).masked_fill(queries < 0, UNLABELLED)

    def _lay_out(
        self,
        labels: Int[Tensor, "*sample query"],
        durations: Float[Tensor, "*sample query"],
        horizon: int,
    ) -> Int[Tensor, "*sample horizon"]:
        return lay_out(
            labels,
            durations,
            horizon,
            end=self.end,
            fill=self.fill,
            end_first="nothing" if self.end_takes_time else self.end_first,
            end_takes_time=self.end_takes_time,
        )


def mean_cross_entropy(
    logits: Float[Tensor, "batch time label"], labels: Int[Tensor, "batch time"]
) -> Float[Tensor, ""]:
    """Cross entropy over everything but `IGNORE`; 0 when that is nothing."""
    total = F.cross_entropy(
        rearrange(logits, "batch time label -> (batch time) label"),
        rearrange(labels, "batch time -> (batch time)"),
        ignore_index=IGNORE,
        reduction="sum",
    )
    return total / (labels != IGNORE).sum().clamp(min=1)


def mean_share_error(
    durations: Float[Tensor, "batch query"], shares: Float[Tensor, "batch query"]
) -> Float[Tensor, ""]:
    """Squared error of normalised durations over the shares that are numbers; 0 without any."""
    return summed_share_error(durations, shares) / (~shares.isnan()).sum().clamp(min=1)


def summed_share_error(
    durations: Float[Tensor, "batch query"], shares: Float[Tensor, "batch query"]
) -> Float[Tensor, ""]:
    """The same, summed."""
    # Both are 0 where no share is known.
    wrong = duration_shares(durations, ~shares.isnan()) - shares.nan_to_num()
    return wrong.square().sum()
