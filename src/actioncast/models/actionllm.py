"""ActionLLM: a frozen language model that anticipates (IEEE TMM 2025, arXiv 2501.00795).

Observed labels as text, features and constant queries become vectors in the space of a language
model's words, look at one another, and go through the frozen model together; small layers before
each of its attentions learn. Linear heads read what comes out: the observed actions from text and
from features, and one action with its duration from each query.

Differs from the paper / from the official code:

- Places in the interaction block are those of tokens; the official code takes the row of the batch
  for the place. `interaction_positions="batch"`.
- Padding is masked everywhere, and taken out before the trunk: batches are possible.
- The heads that name actions learn and are saved; the official ones stay as they were drawn and are
  drawn anew for evaluation, with other results on other machines. `train_heads=False`.
- The second bottleneck and the router that nothing uses are left out. `unused_parameters=True`.
- Squared errors of durations are summed over a video and averaged over videos.
  `duration_loss="sum"`, which is the same for the official batch of one.
- What rounding leaves over goes to the last action; the end in the first query leaves the horizon
  to that query's most likely action. The official code gives the rest to the last query and names
  nothing when the end comes first. `fill="last_query"`.
- Raw durations too large for exp are shifted before they are normalised; in half precision the
  official ones overflow and the batch is lost.
- The official trunk runs in float16 under scaled losses, which rounds durations too; ours are
  float32, and training refuses a float16 trunk without `--precision fp16`.
- A label's underscores are read as spaces. `label_text="name"`.
- Text noise, of which the paper speaks and the code has none, is `text_noise`.
- Every token looks at every other, as released; the paper does not say. `trunk.attention="causal"`.
- Text and features have past heads of their own, as in the last release; byte-code left beside it
  used one for both.
- Cross entropies are means, as released; Eq. 17-18 are sums, and Eq. 19 has a minus too many.
- Tuning has a residual path, starts as the identity and works in two groups, as released; Eq. 15
  has none of these.
- Normal queries are drawn once and saved; no code for them was released.
- Eq. 4-6 sum three attentions, each with layers of its own, and Eq. 8 leaves the places out of the
  residual path; the defaults follow the code. `interaction_fusion="sum"` (with shared layers),
  `residual_positions=False`.
- Any language model, causal attention, other modalities and sampled futures are additions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.action_tuning import ActionTuning
from actioncast.layers.cross_modality import CrossModalityBlock, gated_inner_dim
from actioncast.models.actionllm_config import OFFICIAL, ActionLLMConfig
from actioncast.models.base import Anticipator, Losses
from actioncast.models.parallel_queries import (
    ParallelQueries,
    mean_cross_entropy,
    mean_share_error,
    summed_share_error,
)
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.trunks import FrozenTrunk, load_trunk
from actioncast.trunks.finding import lasting_name
from actioncast.types import IGNORE, Observation, Prediction, Target, Task

__all__ = ["OFFICIAL", "ActionLLM", "ActionLLMConfig", "Answers"]

TRUNK = "trunk."
"""What the names of the trunk's weights begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Logits and raw durations of a batch."""

    past_text: Float[Tensor, "batch time label"] | None
    past_visual: Float[Tensor, "batch time label"] | None
    future: Float[Tensor, "batch query label+1"]
    durations: Float[Tensor, "batch query"]


class ActionLLM(Anticipator):
    """Names every observed step and answers the future with queries through a language model.

    Args:
        config: Sizes and options.
        taxonomy: What it names.
        trunk: The frozen language model; absent, that of the config is loaded.
    """

    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})
    label_vectors: Float[Tensor, "label width"]
    query_constant: Float[Tensor, "query feature"]
    trunk_fingerprint: UInt8[Tensor, " byte"]

    def __init__(
        self, config: ActionLLMConfig, taxonomy: Taxonomy, trunk: FrozenTrunk | None = None
    ) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.end = len(taxonomy.labels)
        self.reads_labels = "text" in config.streams
        self.queried = ParallelQueries(
            end=self.end,
            num_queries=config.num_queries,
            fill=config.fill,
            end_first="nothing" if config.fill == "last_query" else "first_action",
            end_takes_time=config.end_takes_time,
            seed=config.seed,
        )
        self.trunk = load_trunk(config.trunk) if trunk is None else trunk
        # The commit and the folder that were loaded, so that a checkpoint asks for the same.
        found = self.trunk.revision or config.trunk.revision
        at = lasting_name(config.trunk.name)
        self.config = replace(config, trunk=replace(config.trunk, name=at, revision=found))
        self.register_buffer("trunk_fingerprint", self.trunk.fingerprint.clone())
        width = self.trunk.width
        self.adapter = nn.Sequential(
            nn.Linear(config.feature_dim, config.adapter_dim),
            nn.SiLU(),
            nn.Linear(config.adapter_dim, width),
        )
        for layer in self.adapter:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.register_buffer("query_constant", _query_constant(config))
        self.interaction: CrossModalityBlock | None = None
        if config.interaction != "none":
            self.down = nn.Linear(width, config.interaction_dim, bias=False)
            self.up = nn.Linear(config.interaction_dim, width, bias=False)
            self.interaction = CrossModalityBlock(
                config.streams,
                config.interaction_dim,
                config.interaction_heads,
                gated_inner_dim(config.interaction_dim, config.interaction_multiple),
                dropout=config.dropout,
                interaction=config.interaction,
                fusion=config.interaction_fusion,
                positions=config.interaction_positions,
                residual_positions=config.residual_positions,
                eps=config.norm_eps,
            )
        self.tuning = nn.ModuleList(
            ActionTuning(
                width,
                config.tuning_dim,
                config.tuning_groups,
                config.dropout,
                config.unused_parameters,
            )
            for _ in range(self.trunk.num_layers if config.tuning_dim else 0)
        )
        if config.tuning_dim:
            self.trunk.tune(list(self.tuning))
        past = {s: nn.Linear(width, self.end, bias=False) for s in config.streams[:-1]}
        self.past_heads = nn.ModuleDict(past)
        self.future_head = nn.Linear(width, self.end + 1, bias=False)
        self.duration_head = nn.Linear(width, 1, bias=False)
        self.past_heads.requires_grad_(config.train_heads)
        self.future_head.requires_grad_(config.train_heads)
        labels = self._label_vectors() if "text" in config.streams else torch.zeros(0, width)
        self.register_buffer("label_vectors", labels, persistent=False)
        untyped: Any = self
        untyped.register_state_dict_post_hook(_without_trunk)
        untyped.register_load_state_dict_pre_hook(_require_same_trunk)
        untyped.register_load_state_dict_post_hook(_trunk_stays)

    def forward(
        self,
        visual: Float[Tensor, "batch time feature"],
        text: Float[Tensor, "batch time width"] | None,
        valid: Bool[Tensor, "batch time"],
    ) -> Answers:
        """What the heads say.

        Args:
            visual: `(batch, time, feature)`.
            text: `(batch, time, width of the trunk)`, the vector of every step's label; None where
                the model reads no text.
            valid: `(batch, time)`, false for padding.
        """
        tokens, known = self._tokens(visual, text, valid)
        if self.interaction is not None:
            small = {stream: self.down(vectors) for stream, vectors in tokens.items()}
            told = self.interaction(small, known)
            tokens = {stream: tokens[stream] + self.up(told[stream]) for stream in tokens}
        states = self._through_trunk(tokens, known)
        past = {s: head(states[s]) for s, head in self.past_heads.items()}
        raw = self.duration_head(states["queries"])
        return Answers(
            past_text=past.get("text"),
            past_visual=past.get("visual"),
            future=self.future_head(states["queries"]),
            durations=rearrange(raw, "batch query 1 -> batch query"),
        )

    def losses(self, x: Observation, y: Target) -> Losses:
        """Cross entropies of past and future actions, and the squared error of the shares.

        Cross entropies are means over what the target names, and 0 where it names nothing.
        """
        frames = y.frames.get(self.taxonomy.primary)
        if frames is None and y.future is None:
            raise ValueError(
                f"ActionLLM learns from the labels of head {self.taxonomy.primary!r}, observed or "
                "future, got neither; choose a data set that has them."
            )
        if frames is None:
            frames = torch.full_like(x.valid, IGNORE, dtype=torch.long)
        self._require_room(x)
        told = self(x.features, self._text(x), x.valid)
        actions, shares = self.queried.targets(y, told.durations)
        weights = self.config
        terms = {
            "future": weights.future_weight * mean_cross_entropy(told.future, actions),
            "duration": weights.duration_weight * self._share_error(told.durations, shares),
        }
        if told.past_text is not None:
            error = mean_cross_entropy(told.past_text, frames)
            terms["past_text"] = weights.past_text_weight * error
        if told.past_visual is not None:
            error = mean_cross_entropy(told.past_visual, frames)
            terms["past_visual"] = weights.past_visual_weight * error
        return terms

    @torch.inference_mode()
    def predict(self, x: Observation) -> list[Prediction]:
        """The observed steps, and the queries up to the first end, laid over each horizon.

        An observed step is what text and vision say in the mean; a head whose loss has no weight
        has learned nothing and is not asked, if another has.
        """
        self._require_room(x)
        if self.config.interaction_positions == "batch" and len(x) > 1:
            # Released evaluation shows one video at a time: each is the first of its batch.
            return [answer for one in x for answer in self._predictions(one)]
        return self._predictions(x)

    def _predictions(self, x: Observation) -> list[Prediction]:
        told = self(x.features, self._text(x), x.valid)
        said = self._trained_pasts(told)
        past = torch.stack([logits.float().softmax(-1) for logits in said]).mean(0)
        found: list[Prediction] = []
        for i in range(len(x)):
            horizon = int(x.horizon[i])
            asked = (told.future[i], told.durations[i], horizon)
            samples = self.queried.draw(*asked, x.num_samples) if x.num_samples else None
            found.append(
                Prediction(
                    taxonomy=self.taxonomy,
                    rate=x.rate,
                    observed=x.frames_observed(i),
                    past=past[i, x.valid[i]],
                    future=self.queried.frames(*asked) if horizon else None,
                    samples=samples if horizon else None,
                )
            )
        return found

    def _trained_pasts(self, told: Answers) -> list[Float[Tensor, "batch time label"]]:
        weighed = (
            (told.past_text, self.config.past_text_weight),
            (told.past_visual, self.config.past_visual_weight),
        )
        said = [(past, weight) for past, weight in weighed if past is not None]
        return [past for past, weight in said if weight] or [past for past, _ in said]

    @property
    def trunk_said(self) -> str:
        """Which trunk this is and how it is run, in words for a passport."""
        trunk, config = self.trunk, self.config.trunk
        name = Path(config.name).name if Path(config.name).is_absolute() else config.name
        said = [
            f"{name}@{config.revision}" if config.revision else name,
            f"{trunk.num_layers} layers",
            config.dtype if config.quantisation == "none" else f"{config.quantisation} weights",
            config.attention,
        ]
        if config.weights == "random":
            said.append(f"random weights of seed {config.seed}")
        return ", ".join([*said, bytes(trunk.fingerprint[:4].tolist()).hex()])

    def sequence_length(self, x: Observation) -> int:
        """Tokens of the longest observation of a batch that go through the trunk."""
        read = len(self.config.streams) - 1
        return read * int(x.valid.sum(1).max()) + self.config.num_queries

    @property
    def max_steps(self) -> int | None:
        """Most steps of an observation that the trunk has positions for; None where all fit."""
        if self.trunk.max_tokens is None:
            return None
        room = self.trunk.max_tokens - self.config.num_queries
        return max(room // self._tokens_a_step, 0)

    @property
    def _tokens_a_step(self) -> int:
        """Positions that a step takes."""
        return 1 if self.config.trunk.positions == "step" else len(self.config.streams) - 1

    def _require_room(self, x: Observation) -> None:
        """Raise a ValueError where nothing is seen, or more than the trunk has positions for."""
        seen = x.valid.sum(1).tolist()
        if not seen or min(seen) < 1:
            raise ValueError(
                "every observation must have at least one valid step, got one without; leave it "
                "out of the batch."
            )
        steps, most = max(seen), self.max_steps
        if most is None or steps <= most:
            return
        frames = max(max(x.frames_observed(i), (n - 1) * x.stride + 1) for i, n in enumerate(seen))
        fits = f"train with --stride {-(-frames // most)}" if most else "take fewer queries"
        needed = steps * self._tokens_a_step + self.config.num_queries
        others = ", or --model.trunk.positions step" if self._tokens_a_step > 1 else ""
        if self.trunk.rotates:
            others += f", or --model.trunk.max-positions {needed}"
        raise ValueError(
            f"the trunk {self.trunk.name} has {self.trunk.max_tokens} positions, room for "
            f"{self.config.num_queries} queries and {most} steps, got {steps} steps at stride "
            f"{x.stride}; {fits}{others}."
        )

    def _tokens(
        self,
        visual: Float[Tensor, "batch time feature"],
        text: Float[Tensor, "batch time width"] | None,
        valid: Bool[Tensor, "batch time"],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every stream in the space of the trunk's words, and which of its tokens are there."""
        if visual.shape[-1] != self.config.feature_dim:
            raise ValueError(
                f"features must be {self.config.feature_dim} wide, got {visual.shape[-1]}; set "
                "feature_dim to the width of your features."
            )
        queries = self.adapter(self.query_constant)
        streams: dict[str, Tensor] = {
            "queries": repeat(queries, "query width -> batch query width", batch=len(visual))
        }
        if "visual" in self.config.streams:
            # Whatever stands in padding, even what is no number, must not be multiplied.
            streams["visual"] = self.adapter(visual.masked_fill(~valid[..., None], 0.0))
        if text is not None:
            streams["text"] = text
        all_of_them = valid.new_ones(len(visual), self.config.num_queries)
        ordered = {stream: streams[stream] for stream in self.config.streams}
        known = {s: all_of_them if s == "queries" else valid for s in ordered}
        return ordered, known

    def _through_trunk(
        self, tokens: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Join the streams, padding last, and part what comes out."""
        joined = torch.cat(list(tokens.values()), 1)
        there = torch.cat(list(known.values()), 1)
        places = self._places(known) if self.config.trunk.positions == "step" else None
        if bool(there.all()):
            states = self.trunk(joined, there, places)
        else:
            longest = int(there.sum(1).max())
            order = (~there).byte().argsort(dim=1, stable=True)
            kept = order[:, :longest]
            packed = _rows(joined, kept)
            if places is not None:
                places = places.gather(1, kept)
            through = self.trunk(packed, there.gather(1, kept), places)
            padded = F.pad(through, (0, 0, 0, joined.shape[1] - longest))
            states = _rows(padded, order.argsort(dim=1))
        parts = states.split([vectors.shape[1] for vectors in tokens.values()], 1)
        return dict(zip(tokens, parts, strict=True))

    def _places(self, known: Mapping[str, Tensor]) -> Int[Tensor, "batch token"]:
        """The step that each token belongs to; the queries come after the last."""
        counted = {s: (valid.cumsum(1) - 1).clamp(min=0) for s, valid in known.items()}
        steps = known[self.config.streams[0]].sum(1, keepdim=True)
        counted["queries"] = counted["queries"] + steps
        return torch.cat([counted[s] for s in known], 1)

    def _text(self, x: Observation) -> Float[Tensor, "batch time width"] | None:
        """The vector of the observed label of every step; zeros where none is known."""
        if "text" not in self.config.streams:
            return None
        if x.labels is None:
            raise ValueError(
                "ActionLLM reads the observed actions as text, got an observation without labels; "
                "say --labels-from with a run of ours, a folder of label files or truth, or take "
                "--model.modalities vision."
            )
        labels = x.labels
        if self.training and self.config.text_noise:
            chance = torch.rand(labels.shape, device=labels.device)
            drawn = torch.randint_like(labels, self.end)
            labels = torch.where((chance < self.config.text_noise) & (labels >= 0), drawn, labels)
        return self.label_vectors[labels.clamp(min=0)] * (labels >= 0)[..., None]

    def _share_error(
        self, durations: Float[Tensor, "batch query"], shares: Float[Tensor, "batch query"]
    ) -> Float[Tensor, ""]:
        if self.config.duration_loss == "per_segment":
            return mean_share_error(durations, shares)
        total = summed_share_error(durations, shares)
        if self.config.duration_loss == "per_video":
            return total / (~shares.isnan()).any(1).sum().clamp(min=1)
        return total

    def _label_vectors(self) -> Float[Tensor, "label width"]:
        return self.trunk.embed_texts(label_texts(self.taxonomy.labels, self.config))


def label_texts(labels: LabelSpace, config: ActionLLMConfig) -> list[str]:
    """What the trunk reads for each label."""
    if config.label_text == "name":
        return list(labels.names)
    return [name.replace("_", " ").strip() or name for name in labels.names]


def _query_constant(config: ActionLLMConfig) -> Float[Tensor, "query feature"]:
    shape = (config.num_queries, config.feature_dim)
    if config.queries == "normal":
        return torch.randn(shape, generator=torch.Generator().manual_seed(config.seed))
    return torch.ones(shape) if config.queries == "ones" else torch.zeros(shape)


def _rows(
    vectors: Float[Tensor, "batch token width"], index: Int[Tensor, "batch chosen"]
) -> Float[Tensor, "batch chosen width"]:
    """Some tokens of each row, in the order of the index."""
    return vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))


def _without_trunk(
    module: nn.Module,  # noqa: ARG001
    state: dict[str, Any],
    prefix: str,
    about: Any,  # noqa: ARG001
) -> None:
    """A state dict holds what has learned, and a fingerprint of the trunk."""
    for key in [key for key in state if key.startswith(prefix + TRUNK)]:
        del state[key]


def _require_same_trunk(
    module: nn.Module,
    state: dict[str, Any],
    prefix: str,
    *_: Any,
) -> None:
    """Raise a ValueError where a state dict was trained on another trunk."""
    assert isinstance(module, ActionLLM)
    trunk = module.trunk
    saved = state.get(f"{prefix}trunk_fingerprint")
    if saved is not None and not torch.equal(saved.cpu(), trunk.fingerprint.cpu()):
        at = f" at revision {trunk.revision}" if trunk.revision else ""
        raise ValueError(
            f"the checkpoint was trained on another trunk than {trunk.name}{at}: its weights "
            "differ; bring the one that it was trained on, or train on this one."
        )


def _trunk_stays(module: nn.Module, found: Any) -> None:  # noqa: ARG001
    """The trunk's weights are not missing from a state dict: they are never in one."""
    kept = [key for key in found.missing_keys if f"{TRUNK}model." not in key]
    found.missing_keys[:] = kept
