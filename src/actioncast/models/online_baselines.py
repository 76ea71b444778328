"""Online models that a memory of fixed size must beat: a recurrent one, and windowed encoders.

At every step, from the past alone, both name the action under way and those at moments ahead, with
one classifier for all of them and one linear query for each moment.

- `OnlineGRU`, in the manner of MiniROAD (An et al., ICCV 2023): what is seen passes a linear layer,
  layer norm and ReLU, then a GRU. MiniROAD learns from the last step of a short window alone; here
  every step counts.
- `WindowTransformer`, in the manner of OadTR (Wang et al., ICCV 2021): an encoder reads the last
  `window` steps anew at every step. The answer is read off the present step, not off an extra
  token; queries take the place of OadTR's decoder. With a window of 0 it reads everything since the
  first step, in one causal pass.

The encoder's positions are rotary (`layers/rotary.py`): attention knows how far apart two steps
lie, and never where in the video. Padding must follow the real
steps of a row; as nothing looks ahead, it then reaches none of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.moments import (
    active_ahead,
    excluded,
    labels_ahead,
    several_cross_entropy,
    steps_ahead,
)
from actioncast.layers.rotary import Kept, RotaryLayer
from actioncast.models.base import Anticipator, Losses, RecurrentAnticipator
from actioncast.models.parallel_queries import mean_cross_entropy
from actioncast.timeline import Taxonomy
from actioncast.types import Observation, Prediction, Target, Task

GROUP = 256
"""Windows encoded at once where no gradient is asked for, which bounds memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineGRUConfig:
    """Sizes of the recurrent baseline; those of MiniROAD for features 1024 wide."""

    feature_dim: int = 1024
    """Width of a feature vector."""
    hidden_dim: int = 1024
    """Width of the embedding and of the GRU's state."""
    num_layers: int = 1
    """Layers of the GRU."""
    ahead: tuple[float, ...] = (1.0,)
    """Seconds after each step at which the action is asked for as well."""
    dropout: float = 0.2
    """Probability of dropping an activation in training."""
    past_weight: float = 1.0
    """Weight of the loss of the action under way."""
    ahead_weight: float = 1.0
    """Weight of the loss of the actions ahead, the mean over moments."""

    def __post_init__(self) -> None:
        require_sizes(
            feature_dim=self.feature_dim, hidden_dim=self.hidden_dim, num_layers=self.num_layers
        )
        require_moments(self.ahead)
        require_shares(self.dropout, self.past_weight, self.ahead_weight)

    def build(self, taxonomy: Taxonomy) -> "OnlineGRU":
        """Build the model for these labels."""
        return OnlineGRU(self, taxonomy)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTransformerConfig:
    """Sizes of the windowed encoder."""

    feature_dim: int = 1024
    """Width of a feature vector."""
    hidden_dim: int = 512
    """Width of the encoder."""
    num_layers: int = 3
    """Layers of the encoder."""
    num_heads: int = 8
    """Attention heads of every layer; each must be an even number of channels wide."""
    feedforward_factor: int = 4
    """Inner width of a feed-forward block, in multiples of `hidden_dim`."""
    window: int = 128
    """Steps read at every step, the present one included; 0 reads everything since the first."""
    ahead: tuple[float, ...] = (1.0,)
    """Seconds after each step at which the action is asked for as well."""
    dropout: float = 0.1
    """Probability of dropping an activation or an attention weight in training."""
    past_weight: float = 1.0
    """Weight of the loss of the action under way."""
    ahead_weight: float = 1.0
    """Weight of the loss of the actions ahead, the mean over moments."""

    def __post_init__(self) -> None:
        require_sizes(
            feature_dim=self.feature_dim,
            hidden_dim=self.hidden_dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            feedforward_factor=self.feedforward_factor,
        )
        if self.hidden_dim % (2 * self.num_heads):
            raise ValueError(
                "hidden_dim must be a multiple of twice num_heads, for channels of a head turn in "
                f"pairs, got {self.hidden_dim} and {self.num_heads}."
            )
        if self.window < 0:
            raise ValueError(
                f"window must be a number of steps, or 0 for all of the past, got {self.window}."
            )
        require_moments(self.ahead)
        require_shares(self.dropout, self.past_weight, self.ahead_weight)

    def build(self, taxonomy: Taxonomy) -> "WindowTransformer":
        """Build the model for these labels."""
        return WindowTransformer(self, taxonomy)


def require_sizes(**sizes: int) -> None:
    """Raise a ValueError where a size is not at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")


def require_moments(ahead: Sequence[float]) -> None:
    """Raise a ValueError where moments ahead do not lie ahead one after the other."""
    if any(later <= earlier for earlier, later in zip((0.0, *ahead), ahead, strict=False)):
        raise ValueError(
            "ahead must be seconds above 0, each more than the one before, got "
            f"{_told(ahead)}; sort them and leave out what is not ahead."
        )


def require_shares(dropout: float, *weights: float) -> None:
    """Raise a ValueError where dropout is no share or a weight is negative."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}.")
    if min(weights) < 0:
        raise ValueError(f"past_weight and ahead_weight must not be negative, got {weights}.")


@final
class OnlineHead(nn.Module):
    """Names the present and every moment ahead with one classifier."""

    def __init__(self, hidden_dim: int, num_labels: int, moments: int) -> None:
        super().__init__()
        self.queries = nn.ModuleList(nn.Linear(hidden_dim, hidden_dim) for _ in range(moments))
        self.classifier = nn.Linear(hidden_dim, num_labels)

    def forward(
        self, hidden: Float[Tensor, "batch time hidden"]
    ) -> tuple[Float[Tensor, "batch time label"], Float[Tensor, "batch time moment label"]]:
        """Logits of each step, and of each moment after it."""
        past = self.classifier(hidden)
        ahead = [self.classifier(F.relu(query(hidden))) for query in self.queries]
        none = past.new_zeros(*past.shape[:2], 0, past.shape[2])
        return past, torch.stack(ahead, 2) if ahead else none


class _OnlineBaseline(Anticipator):
    """What the two have in common: how they learn and how logits become an answer."""

    tasks: ClassVar[frozenset[Task]] = frozenset({Task.SEGMENTATION, Task.ONLINE})
    causal: ClassVar[bool] = True
    config: OnlineGRUConfig | WindowTransformerConfig

    @property
    def ahead(self) -> tuple[float, ...]:
        """Seconds after each step at which it names the action as well."""
        return self.config.ahead

    def losses(self, x: Observation, y: Target) -> Losses:
        """Cross entropy of the present and of the moments ahead, each the mean over what is known.

        Where several actions may be under way at once (`y.active`), every one of them counts.
        """
        head = self.taxonomy.primary
        if head not in y.active and head not in y.frames:
            raise ValueError(
                f"{type(self).__name__} learns from what is done at every step by head {head!r}, "
                "got no such labels; choose a data set that has them."
            )
        past, ahead = self(x.features, x.valid)
        shifts = steps_ahead(self.ahead, x.rate, x.stride)
        if head in y.active:
            active = y.active[head]
            unknown = self.taxonomy.labels.unknown_labels
            terms = {
                "past": self.config.past_weight
                * several_cross_entropy(past, active, unknown=unknown)
            }
            if shifts:
                later = several_cross_entropy(ahead, active_ahead(active, shifts), unknown=unknown)
                terms["ahead"] = self.config.ahead_weight * later
            return terms
        labels = y.frames[head]
        terms = {"past": self.config.past_weight * mean_cross_entropy(past, labels)}
        if shifts:
            rows = rearrange(ahead, "batch time moment label -> batch (time moment) label")
            known = rearrange(
                labels_ahead(labels, shifts), "batch time moment -> batch (time moment)"
            )
            terms["ahead"] = self.config.ahead_weight * mean_cross_entropy(rows, known)
        return terms

    def _answers(
        self,
        x: Observation,
        past: Float[Tensor, "batch time label"],
        ahead: Float[Tensor, "batch time moment label"],
    ) -> list[Prediction]:
        if x.ahead and x.ahead != self.ahead:
            raise ValueError(
                f"{type(self).__name__} was built to answer {_told(self.ahead)} after each step, "
                f"but was asked for {_told(x.ahead)}; ask for the moments of its config, or train "
                "one with yours."
            )
        unknown = self.taxonomy.labels.unknown_labels
        return [
            Prediction(
                taxonomy=self.taxonomy,
                rate=x.rate,
                observed=x.frames_observed(i),
                past=excluded(past[i, valid].float(), unknown).softmax(-1),
                ahead=excluded(ahead[i, valid].float(), unknown).softmax(-1) if x.ahead else None,
            )
            for i, valid in enumerate(x.valid)
        ]

    def _require_width(self, features: Float[Tensor, "batch time feature"]) -> None:
        if features.shape[2] != self.config.feature_dim:
            raise ValueError(
                f"features must be {self.config.feature_dim} wide, got {features.shape[2]}; set "
                "feature_dim to the width of your features."
            )


def _told(ahead: Sequence[float]) -> str:
    return " s, ".join(f"{seconds:g}" for seconds in ahead) + " s" if ahead else "no moment"


@final
class OnlineGRU(_OnlineBaseline, RecurrentAnticipator[Tensor]):
    """A GRU over embedded steps; its state is `[layer, batch, hidden]`."""

    config: OnlineGRUConfig

    def __init__(self, config: OnlineGRUConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config = config
        self.taxonomy = taxonomy
        hidden = config.hidden_dim
        self.embed = nn.Sequential(
            nn.Linear(config.feature_dim, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )
        # One module a layer: the state of each layer must be known at the last real step of a row.
        self.layers = nn.ModuleList(
            nn.GRU(hidden, hidden, batch_first=True) for _ in range(config.num_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = OnlineHead(hidden, len(taxonomy.labels), len(config.ahead))

    def forward(
        self, features: Float[Tensor, "batch time feature"], valid: Bool[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "batch time label"], Float[Tensor, "batch time moment label"]]:
        """Logits of every step and of the moments after it, from the first step on."""
        past, ahead, _ = self.run(features, valid, self.initial_state(len(features)))
        return past, ahead

    def run(
        self,
        features: Float[Tensor, "batch time feature"],
        valid: Bool[Tensor, "batch time"],
        state: Float[Tensor, "layer batch hidden"],
    ) -> tuple[
        Float[Tensor, "batch time label"],
        Float[Tensor, "batch time moment label"],
        Float[Tensor, "layer batch hidden"],
    ]:
        """`forward` from a state on, with the state after the last real step of each row."""
        self._require_width(features)
        hidden, lengths, states = self.embed(features), valid.sum(1), []
        rows = torch.arange(len(features), device=features.device)
        for layer, before in zip(self.layers, state.unbind(0), strict=True):
            out = hidden
            if hidden.shape[1]:
                out, _ = layer(hidden, before[None].to(hidden.dtype))
            states.append(torch.cat([before[:, None], out.to(before.dtype)], 1)[rows, lengths])
            hidden = self.dropout(out)
        return *self.head(F.relu(hidden)), torch.stack(states)

    @torch.inference_mode()
    def predict(self, x: Observation) -> list[Prediction]:
        """Every step of each video, from its own past."""
        return self._answers(x, *self(x.features, x.valid))

    def initial_state(self, batch_size: int) -> Float[Tensor, "layer batch hidden"]:
        """Zeros, on the model's device."""
        return self.head.classifier.weight.new_zeros(
            self.config.num_layers, batch_size, self.config.hidden_dim
        )

    @torch.inference_mode()
    def step(self, x: Observation, state: Tensor) -> tuple[list[Prediction], Tensor]:
        """Take in any number of further steps; answers are about these alone."""
        expected = (self.config.num_layers, len(x), self.config.hidden_dim)
        # A caller may hand in anything that was saved, whatever the annotation promises.
        found = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__
        if found != expected:
            raise ValueError(
                f"the state of this OnlineGRU must be (layer, batch, hidden) = {expected}, got "
                f"{found}; go on from a state of the same model, or from initial_state."
            )
        past, ahead, state = self.run(x.features, x.valid, state)
        return self._answers(x, past, ahead), state


@final
class WindowTransformer(_OnlineBaseline):
    """An encoder that reads the last steps anew at every step, or all of the past at once."""

    config: WindowTransformerConfig

    def __init__(self, config: WindowTransformerConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config = config
        self.taxonomy = taxonomy
        hidden = config.hidden_dim
        self.embed = nn.Linear(config.feature_dim, hidden)
        self.dropout = nn.Dropout(config.dropout)
        sizes = (hidden, config.num_heads, config.feedforward_factor * hidden, config.dropout)
        self.layers = nn.ModuleList(RotaryLayer(*sizes) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(hidden)
        self.head = OnlineHead(hidden, len(taxonomy.labels), len(config.ahead))

    def forward(
        self,
        features: Float[Tensor, "batch time feature"],
        valid: Bool[Tensor, "batch time"],  # noqa: ARG002
    ) -> tuple[Float[Tensor, "batch time label"], Float[Tensor, "batch time moment label"]]:
        """Logits of every step and of the moments after it; padding is answered too."""
        embedded = self._embedded(features)
        if not self.config.window:
            return self.head(self.norm(self._encoded(embedded, causal=True)))
        earlier = self.config.window - 1
        time = features.shape[1]
        size = max(time, 1) if torch.is_grad_enabled() else GROUP
        padded = F.pad(embedded, (0, 0, earlier, 0))
        read = [
            self._windows(padded[:, a : min(a + size, time) + earlier], max(0, earlier - a))
            for a in range(0, time, size)
        ]
        return self.head(self.norm(torch.cat(read, 1) if read else embedded))

    def newest(
        self, features: Float[Tensor, "batch time feature"]
    ) -> tuple[Float[Tensor, "batch 1 label"], Float[Tensor, "batch 1 moment label"]]:
        """Logits of the last step alone, and of the moments after it: what a stream asks for.

        Args:
            features: The past without padding; of more than a window the last steps count.
        """
        # A window of 0 cuts nothing off.
        embedded = self._embedded(features[:, -self.config.window :])
        return self.head(self.norm(self._encoded(embedded, last=True)))

    def extend(
        self, features: Float[Tensor, "batch 1 feature"], kept: Sequence[Kept] = ()
    ) -> tuple[
        Float[Tensor, "batch 1 label"], Float[Tensor, "batch 1 moment label"], Sequence[Kept]
    ]:
        """`newest` of a full context that keeps keys and values instead of reading all anew.

        Args:
            features: The next step.
            kept: What the call before returned; nothing at the first step.

        Raises:
            ValueError: The model reads windows, whose steps answer otherwise in every window.
        """
        if self.config.window:
            raise ValueError(
                "keys and values can be kept by a full context alone (window 0), got a window of "
                f"{self.config.window}; call `newest`."
            )
        x = self._embedded(features)
        width = x.shape[2] // self.config.num_heads
        empty = x.new_zeros(len(x), self.config.num_heads, 0, width)
        after = []
        for layer, earlier in zip(
            self.layers, kept or [(empty, empty)] * len(self.layers), strict=True
        ):
            assert isinstance(layer, RotaryLayer)
            x, held = layer.extend(x, earlier)
            after.append(held)
        return *self.head(self.norm(x)), after

    @torch.inference_mode()
    def predict(self, x: Observation) -> list[Prediction]:
        """Every step of each video, from its own past."""
        return self._answers(x, *self(x.features, x.valid))

    def _embedded(
        self, features: Float[Tensor, "batch time feature"]
    ) -> Float[Tensor, "batch time hidden"]:
        self._require_width(features)
        return self.dropout(self.embed(features))

    def _windows(
        self, padded: Float[Tensor, "batch more hidden"], missing: int
    ) -> Float[Tensor, "batch time hidden"]:
        """Read the window that ends at every step but the first `window - 1`, each by itself.

        Args:
            padded: Steps, as many as a window holds besides the present one before the first.
            missing: How many of them lie before the video.
        """
        window = self.config.window
        views = padded.unfold(1, window, 1)
        batch, time = views.shape[:2]
        mask = None
        if missing:
            place = torch.arange(time + window - 1, device=padded.device).unfold(0, window, 1)
            mask = (place >= missing).repeat(batch, 1)[:, None, None]
        rows = rearrange(views, "batch time hidden step -> (batch time) step hidden")
        read = self._encoded(rows.contiguous(), mask, last=True)
        return rearrange(read, "(batch time) 1 hidden -> batch time hidden", batch=batch)

    def _encoded(
        self,
        x: Float[Tensor, "row step hidden"],
        mask: Bool[Tensor, "row 1 1 step"] | None = None,
        *,
        causal: bool = False,
        last: bool = False,
    ) -> Float[Tensor, "row asked hidden"]:
        """All layers; with `last` the top one answers for the last step alone."""
        causal = causal or not self.config.window
        for i, layer in enumerate(self.layers, start=1):
            x = layer(x, mask, causal, last and i == len(self.layers))
        return x
