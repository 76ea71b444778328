"""FUTR: Future Transformer for Long-term Action Anticipation (Gong et al., CVPR 2022).

https://arxiv.org/abs/2205.14022. A transformer encoder names every observed step, and a decoder
with a few learned queries answers the whole future in parallel: each query gives one action and the
share of the horizon that it takes, and the first query that names the *end* closes the list.

Differs from the paper / from the official code:

- What rounding leaves over goes to the last action, not to the last query; the official code gives
  it to the last query, which mostly names the end and is always wrong. `fill="last_query"`.
- The end in the first query leaves the horizon to that query's most likely action; the official
  code leaves it to the last query. `fill="last_query"`.
- No end at all uses all queries. The official code reuses the end of the video before, or crashes.
- Raw durations too large for exp are shifted before they are normalised.
- Observations are padded by a mask alone; the official code reads padding off the labels.
- A term of the loss that has nothing to count is 0, not NaN.
- Dropout is 0.1, which the official code applies whatever its command line says.
- The unused sinusoid table is left out; sequences beyond the position table are refused.
- `end_takes_time` and sampled futures are additions.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.decoding import Fill
from actioncast.layers.transformer import Attention, DecoderLayer, EncoderLayer, attention_mask
from actioncast.models.base import Anticipator, Losses
from actioncast.models.parallel_queries import (
    ParallelQueries,
    mean_cross_entropy,
    mean_share_error,
)
from actioncast.timeline import Taxonomy
from actioncast.types import IGNORE, Observation, Prediction, Target, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class FUTRConfig:
    """Sizes and options of FUTR; the defaults are those of Breakfast."""

    feature_dim: int = 2048
    """Width of a feature vector."""
    hidden_dim: int = 128
    """Width of the transformer."""
    num_queries: int = 8
    """Most future actions that can be told, the end included."""
    num_encoder_layers: int = 2
    """Layers that read the past."""
    num_decoder_layers: int = 1
    """Layers that answer the future."""
    num_heads: int = 8
    """Attention heads of every layer."""
    feedforward_factor: int = 4
    """Inner width of a feed-forward block, in multiples of `hidden_dim`."""
    dropout: float = 0.1
    """Probability of dropping an activation or an attention weight in training."""
    max_positions: int = 2000
    """Longest observation, in steps; each has a learned position."""
    fill: Fill = "last_action"
    """Who takes the frames that rounding leaves over, or all when the end comes first: an action
    before the end, or the last query, as the official code has it."""
    end_takes_time: bool = False
    """Whether the end has a duration: the share of the horizon after the end of the video, in which
    no action is named. Otherwise the actions fill the horizon."""
    seed: int = 0
    """Seed of sampled futures."""
    past_weight: float = 1.0
    """Weight of the loss of the observed actions."""
    future_weight: float = 1.0
    """Weight of the loss of the future actions."""
    duration_weight: float = 1.0
    """Weight of the loss of their durations."""

    def __post_init__(self) -> None:
        for name in (
            "feature_dim",
            "hidden_dim",
            "num_queries",
            "num_encoder_layers",
            "num_decoder_layers",
            "num_heads",
            "feedforward_factor",
            "max_positions",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.hidden_dim % self.num_heads:
            raise ValueError(
                f"hidden_dim must be a multiple of num_heads, got {self.hidden_dim} and "
                f"{self.num_heads}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        if self.fill not in ("last_action", "last_query"):
            raise ValueError(f"fill must be 'last_action' or 'last_query', got {self.fill!r}.")
        if self.end_takes_time and self.fill == "last_query":
            raise ValueError(
                "end_takes_time must come with fill='last_action', got fill='last_query', under "
                "which the last query overwrites the end."
            )
        for name in ("past_weight", "future_weight", "duration_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")

    def build(self, taxonomy: Taxonomy) -> "FUTR":
        """Build the model for these labels."""
        return FUTR(self, taxonomy)


OFFICIAL = FUTRConfig(fill="last_query")
"""As released for Breakfast: every third frame."""

OFFICIAL_50SALADS = FUTRConfig(
    hidden_dim=512, num_decoder_layers=2, num_queries=20, max_positions=3100, fill="last_query"
)
"""As released for 50 Salads: every sixth frame."""


class FUTR(Anticipator):
    """Names every observed step and answers the future with parallel queries."""

    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})

    def __init__(self, config: FUTRConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config = config
        self.taxonomy = taxonomy
        self.end = len(taxonomy.labels)
        self.queried = ParallelQueries(
            end=self.end,
            num_queries=config.num_queries,
            fill=config.fill,
            end_first="last_query" if config.fill == "last_query" else "first_action",
            end_takes_time=config.end_takes_time,
            seed=config.seed,
        )
        hidden = config.hidden_dim
        self.embed = nn.Linear(config.feature_dim, hidden)
        self.positions = nn.Parameter(torch.empty(config.max_positions, hidden))
        self.queries = nn.Parameter(torch.empty(config.num_queries, hidden))
        sizes = (hidden, config.num_heads, config.feedforward_factor * hidden, config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config.num_encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(config.num_decoder_layers))
        self.decoder_norm = nn.LayerNorm(hidden)
        self.past_head = nn.Linear(hidden, self.end)
        self.future_head = nn.Linear(hidden, self.end + 1)
        self.duration_head = nn.Linear(hidden, 1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            if isinstance(module, Attention):
                nn.init.zeros_(module.project.bias)
                nn.init.zeros_(module.out.bias)
        # The official table has a leading axis of one, which counts into the fans: the bound is
        # sqrt(6 / ((max_positions + 1) * hidden_dim)), far below that of a matrix.
        nn.init.xavier_uniform_(self.positions.data[None])
        nn.init.normal_(self.queries)

    def forward(
        self, features: Float[Tensor, "batch time feature"], valid: Bool[Tensor, "batch time"]
    ) -> tuple[
        Float[Tensor, "batch time label"],
        Float[Tensor, "batch query label+1"],
        Float[Tensor, "batch query"],
    ]:
        """Logits of the observed steps, logits of the queries, and their raw durations."""
        positions = self._positions(features)
        mask = attention_mask(valid)
        memory = F.relu(self.embed(features))
        for layer in self.encoder:
            memory = layer(memory, positions, mask)
        queries = repeat(self.queries, "query hidden -> batch query hidden", batch=len(features))
        slots = torch.zeros_like(queries)
        placed = memory + positions
        for layer in self.decoder:
            slots = layer(slots, queries, placed, mask)
        slots = self.decoder_norm(slots)
        durations = rearrange(self.duration_head(slots), "batch query 1 -> batch query")
        return self.past_head(memory), self.future_head(slots), durations

    def losses(self, x: Observation, y: Target) -> Losses:
        """Cross entropy of past and future actions, and the squared error of the shares.

        Each is a mean over what the target names, and 0 where it names nothing.
        """
        past, future, durations = self(x.features, x.valid)
        frames = y.frames.get(self.taxonomy.primary)
        if frames is None and y.future is None:
            raise ValueError(
                f"FUTR learns from the labels of head {self.taxonomy.primary!r}, observed or "
                "future, got neither; choose a data set that has them."
            )
        if frames is None:
            frames = torch.full_like(x.valid, IGNORE, dtype=torch.long)
        actions, shares = self.queried.targets(y, durations)
        return {
            "past": self.config.past_weight * mean_cross_entropy(past, frames),
            "future": self.config.future_weight * mean_cross_entropy(future, actions),
            "duration": self.config.duration_weight * mean_share_error(durations, shares),
        }

    @torch.inference_mode()
    def predict(self, x: Observation) -> list[Prediction]:
        """The observed steps, and the queries up to the first end, laid over each horizon."""
        past, future, durations = self(x.features, x.valid)
        return [
            self._prediction(x, i, past[i, x.valid[i]], future[i], durations[i])
            for i in range(len(x))
        ]

    def _prediction(
        self,
        x: Observation,
        i: int,
        past: Float[Tensor, "time label"],
        future: Float[Tensor, "query _"],
        durations: Float[Tensor, " query"],
    ) -> Prediction:
        horizon = int(x.horizon[i])
        asked, sampled = horizon > 0, horizon > 0 and x.num_samples > 0
        return Prediction(
            taxonomy=self.taxonomy,
            rate=x.rate,
            observed=x.frames_observed(i),
            past=past.float().softmax(-1),
            future=self.queried.frames(future, durations, horizon) if asked else None,
            samples=self.queried.draw(future, durations, horizon, x.num_samples)
            if sampled
            else None,
        )

    def _positions(
        self, features: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "time hidden"]:
        _, steps, width = features.shape
        if width != self.config.feature_dim:
            raise ValueError(
                f"features must be {self.config.feature_dim} wide, got {width}; set feature_dim to "
                "the width of your features."
            )
        if steps > self.config.max_positions:
            raise ValueError(
                f"an observation must have at most {self.config.max_positions} steps, got {steps}; "
                "use a larger stride, or train with a larger max_positions."
            )
        return self.positions[:steps]
