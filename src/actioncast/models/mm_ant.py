"""m&m-Ant: multi-level and multi-modal action anticipation (ICIP 2025, arXiv 2506.02382).

A careful reconstruction, not a port. The paper could be had only as a summary; the released code
does not run, and is of a later project. Its text generator is in none of its four versions the one
that the summary describes. What is left open is a field of `MMAntConfig`, and no number below is
one of the paper's: the published 50.5 on Breakfast (20 % seen, 50 % asked) is at the level of ten
activities, which a whole video shares, and says nothing about 48 actions.

A segmentation module names every observed step at the level that is predicted. A generator names it
at a finer level, trained so that the steps of one stretch lie together and stretches apart; what it
names becomes vectors of the label names. Both streams, joined, look at one another; queries read
them and then the segmentation stream, and each tells one action and its share of the horizon.

Differs from the released code, which the fields named bring back:

- Vision and text are joined and look at one another. `fusion="decoder"`.
- Eight queries answer, however much is seen. `query_mode="text"`: one for every text token.
- Steps look at those of their own video; the released generator looks across the batch, so that an
  answer changes with its company. `generator_scope="batch"`.
- Consistency is each video's own, without padding, and of states. `consistency_shared_by` (the
  released one divides by the runs of the last video), `consistency_of="logits"`.
- Losses are added, and averaged over what has a label. `objective="gated"`, `averaged_over="all"`,
  `text_error="focal"`, `change_weight=10`.
- No true label of what is seen goes in; `text="given"` reads them, and the passport says so.
- The past head has no output for the end. `past_names_end=True`.
- Text tokens know their place, label names are scaled as loud as vision, and the generator is a
  whole layer that is told what the past head says. `text_positions="none"`, `text_scale="as_is"`,
  `generator="attention"`, `generator_hears_actions=False`; what it says becomes vectors of names,
  not its own states (`text_vectors="states"`).
- Embedded features carry no second set of places. `token_positions="sinusoid"`.
- Everything is learned together, as in the released code; the paper has two stages.
  `segmentation_epochs`.
- Padding is masked everywhere but across a batch; the released code reads it off the labels.
- What rounding leaves over goes to the last action (see FUTR). `fill="last_query"`.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.cross_modality import sinusoid
from actioncast.layers.multimodal import Alignment, Reading, SelfFusion, pooled
from actioncast.layers.transformer import Attention, DecoderLayer, EncoderLayer, attention_mask
from actioncast.models.base import Anticipator, Losses
from actioncast.models.mm_ant_config import OFFICIAL, MMAntConfig
from actioncast.models.mm_ant_losses import MMAntLosses
from actioncast.models.parallel_queries import ParallelQueries
from actioncast.text_encoders import sentence_vectors, text_encoder
from actioncast.timeline import FINE, Taxonomy
from actioncast.types import IGNORE, Observation, Prediction, Target, Task, Tokens

__all__ = ["OFFICIAL", "Answers", "MMAnt", "MMAntConfig", "name_vectors"]

CAPTIONS = "captions"
"""The modality of `Observation.modalities` that holds captions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What was said of what was seen, as the anticipation module reads it."""

    tokens: Float[Tensor, "batch token hidden"]
    valid: Bool[Tensor, "batch token"]
    logits: Float[Tensor, "batch time described"] | None = None
    """Of the described labels, where a generator says them."""
    states: Float[Tensor, "batch time hidden"] | None = None
    """Those of the generator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Logits and raw durations of a batch."""

    past: Float[Tensor, "batch time label"]
    future: Float[Tensor, "batch query _"]
    durations: Float[Tensor, "batch query"]
    queries: Bool[Tensor, "batch query"]
    """False for a query that stands for no text token."""
    described: Float[Tensor, "batch time described"] | None = None
    """Logits of the described labels, where a generator says them."""
    states: Float[Tensor, "batch time hidden"] | None = None
    """Those of the generator."""


class Generator(nn.Module):
    """Names every step at the described level (sheet, section 3.3; G2).

    Args:
        config: Sizes and options.
        num_actions: Outputs of the past head.
        num_described: Labels of the described level.
    """

    def __init__(self, config: MMAntConfig, num_actions: int, num_described: int) -> None:
        super().__init__()
        self.scope = config.generator_scope
        hidden, heads = config.hidden_dim, config.num_heads
        self.actions: nn.Linear | None = None
        if config.generator_hears_actions:
            self.actions = nn.Linear(num_actions, hidden, bias=False)
        self.layer: EncoderLayer | None = None
        self.attention: Attention | None = None
        if config.generator == "layer":
            inner = config.feedforward_factor * hidden
            self.layer = EncoderLayer(hidden, heads, inner, config.dropout)
        else:
            self.attention = Attention(hidden, heads, config.dropout)
        self.head = nn.Linear(hidden, num_described)

    def forward(
        self,
        tokens: Float[Tensor, "batch time hidden"],
        past: Float[Tensor, "batch time label"],
        valid: Bool[Tensor, "batch time"],
    ) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch time described"]]:
        """States and logits of every step.

        Args:
            tokens: What is seen.
            past: Logits of the segmentation module, for the same steps.
            valid: False for padding.
        """
        if self.actions is not None:
            tokens = tokens + self.actions(past.softmax(-1))
        places = sinusoid(torch.arange(tokens.shape[1], device=tokens.device), tokens.shape[2])
        if self.scope == "batch":
            across = rearrange(tokens + places, "batch time hidden -> time batch hidden")
            states = self._looked(across, torch.zeros_like(across[0]), None)
            states = rearrange(states, "time batch hidden -> batch time hidden")
        else:
            states = self._looked(tokens, places, attention_mask(valid))
        return states, self.head(states)

    def _looked(
        self,
        tokens: Float[Tensor, "batch time hidden"],
        places: Float[Tensor, "time hidden"],
        mask: Bool[Tensor, "batch 1 1 time"] | None,
    ) -> Float[Tensor, "batch time hidden"]:
        if self.layer is not None:
            return self.layer(tokens, places, mask)
        assert self.attention is not None
        placed = tokens + places
        return self.attention(placed, placed, mask)


class MMAnt(Anticipator):
    """Names every observed step at two levels and answers the future with queries.

    Args:
        config: Sizes and options.
        taxonomy: What it names; of a hierarchy, its primary head is predicted.
        names: The text encoder's vectors of the described labels' names; absent, weights to come
            hold them.
    """

    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})
    label_vectors: Float[Tensor, "described text"]

    def __init__(
        self,
        config: MMAntConfig,
        taxonomy: Taxonomy,
        names: Float32[np.ndarray, "described text"] | None = None,
    ) -> None:
        super().__init__()
        if names is not None:
            if config.text_dim not in (0, names.shape[1]):
                raise ValueError(
                    f"text_dim must be the width of the text encoder {config.encoder}, "
                    f"{names.shape[1]}, or 0, got {config.text_dim}."
                )
            config = replace(config, text_dim=names.shape[1])
        self.config, self.taxonomy = config, taxonomy
        self.described_head = described_head(config, taxonomy)
        self.end = len(taxonomy.labels)
        self.reads_labels = config.text == "given"
        self.reads_captions = config.text == "captions"
        self.queried = ParallelQueries(
            end=self.end,
            num_queries=config.num_queries,
            fill=config.fill,
            end_first="last_query" if config.fill == "last_query" else "first_action",
            end_takes_time=config.end_takes_time,
            seed=config.seed,
        )
        num_described = len(taxonomy.heads[self.described_head])
        self.objective = MMAntLosses(config, self.queried, taxonomy.primary, self.described_head)
        hidden = config.hidden_dim
        inner = config.feedforward_factor * hidden
        self.embed = nn.Linear(config.feature_dim, hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.positions = nn.Parameter(torch.empty(config.max_positions, hidden))
        sizes = (hidden, config.num_heads, inner, config.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(config.num_encoder_layers))
        num_actions = self.end + config.past_names_end
        self.past_head = nn.Linear(hidden, num_actions)
        self.generator: Generator | None = None
        if config.text == "learned" or config.unused_parameters:
            self.generator = Generator(config, num_actions, num_described)
        self._build_text(num_described, names)
        self.queries: nn.Parameter | None = None
        if self._learned_queries:
            self.queries = nn.Parameter(torch.empty(config.num_queries, hidden))
        layers = range(config.num_anticipation_layers)
        if config.fusion == "concatenation":
            small = (hidden, config.num_heads, config.dropout)
            self.fusion = nn.ModuleList(SelfFusion(*small) for _ in layers)
            self.reading = Reading(*small) if self._learned_queries else None
            self.alignment = nn.ModuleList(Alignment(*sizes) for _ in layers)
        else:
            self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in layers)
            self.decoder_norm = nn.LayerNorm(hidden)
        self.future_head = nn.Linear(hidden, self.end + 1)
        self.duration_head = nn.Linear(hidden, 1)
        self._initialise()

    def _build_text(
        self, num_described: int, names: Float32[np.ndarray, "described text"] | None
    ) -> None:
        config, hidden = self.config, self.config.hidden_dim
        self.table: nn.Parameter | None = None
        self.project: nn.Linear | None = None
        named = config.text in ("learned", "given")
        if named and config.text_vectors == "table":
            self.table = nn.Parameter(torch.empty(num_described, hidden))
        if config.text == "captions" or (named and config.text_vectors == "names"):
            if not config.text_dim:
                raise ValueError(
                    "text_dim must be the width of the text's vectors, got 0; build with the "
                    "vectors of the label names, or say how wide captions are."
                )
            self.project = nn.Linear(config.text_dim, hidden)
        if named and config.text_vectors == "names":
            found = torch.zeros(num_described, config.text_dim)
            if names is not None:
                found = self._scaled(torch.from_numpy(names.copy()))
            self.register_buffer("label_vectors", found)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            if isinstance(module, Attention):
                nn.init.zeros_(module.project.bias)
                nn.init.zeros_(module.out.bias)
        # As FUTR's, whose bound is far below that of a matrix.
        nn.init.xavier_uniform_(self.positions.data[None])
        for parameter in (self.queries, self.table):
            if parameter is not None:
                nn.init.normal_(parameter)

    @property
    def _learned_queries(self) -> bool:
        return self.config.text == "none" or self.config.query_mode == "learned"

    def begin_epoch(self, epoch: int) -> None:
        """See `Anticipator`."""
        self.objective.epoch = epoch

    def forward(
        self,
        features: Float[Tensor, "batch time feature"],
        valid: Bool[Tensor, "batch time"],
        said: Tokens | None = None,
    ) -> Answers:
        """What the heads say.

        Args:
            features: What is seen.
            valid: False for padding.
            said: What others say of it: one probability a described label, for each step
                (`text="given"`), or the vectors of captions; absent, nobody says anything.
        """
        positions = self._positions(features)
        mask = attention_mask(valid)
        seen = F.relu(self.embed(features))
        if self.config.token_positions == "sinusoid":
            steps = torch.arange(features.shape[1], device=features.device)
            seen = self.dropout(seen + sinusoid(steps, seen.shape[2]))
        memory = seen
        for layer in self.encoder:
            memory = layer(memory, positions, mask)
        past = self.past_head(memory)
        described = self._described(seen, memory, past, valid, said)
        if described is not None:
            described = self._placed(described, positions)
        placed = memory + positions
        answer = self._fused if self.config.fusion == "concatenation" else self._decoded
        slots, queries = answer(placed, valid, mask, described)
        return Answers(
            past=past,
            future=self.future_head(slots),
            durations=rearrange(self.duration_head(slots), "batch query 1 -> batch query"),
            queries=queries,
            described=None if described is None else described.logits,
            states=None if described is None else described.states,
        )

    def losses(self, x: Observation, y: Target) -> Losses:
        """Errors of past, future, durations and described labels, and consistency.

        Each is a mean over what the target names, and 0 where it names nothing, unless the config
        says otherwise.
        """
        told = self(x.features, x.valid, self._said(x))
        return self.objective(
            past=told.past,
            future=told.future,
            durations=told.durations,
            queries=told.queries,
            described=told.described,
            states=told.states,
            valid=x.valid,
            target=y,
        )

    @torch.inference_mode()
    def predict(self, x: Observation) -> list[Prediction]:
        """The observed steps at both levels, and the queries up to the first end."""
        if self.config.generator_scope == "batch" and len(x) > 1:
            # Released evaluation shows one video at a time.
            return [answer for one in x for answer in self._predictions(one)]
        return self._predictions(x)

    def _predictions(self, x: Observation) -> list[Prediction]:
        told = self(x.features, x.valid, self._said(x))
        past = told.past[..., : self.end].float().softmax(-1)
        found: list[Prediction] = []
        for i, valid in enumerate(x.valid):
            horizon = int(x.horizon[i])
            queries = told.queries[i]
            asked = (told.future[i, queries], told.durations[i, queries], horizon)
            drawn = x.num_samples if horizon else 0
            levels: dict[str, Float[Tensor, "time _"]] = {}
            if told.described is not None and self.described_head != self.taxonomy.primary:
                levels[self.described_head] = told.described[i, valid].float().softmax(-1)
            found.append(
                Prediction(
                    taxonomy=self.taxonomy,
                    rate=x.rate,
                    observed=x.frames_observed(i),
                    past=past[i, valid],
                    levels=levels,
                    future=self._frames(*asked) if horizon else None,
                    samples=self.queried.draw(*asked, drawn) if drawn else None,
                )
            )
        return found

    def _frames(
        self, future: Float[Tensor, "query _"], durations: Float[Tensor, " query"], horizon: int
    ) -> Float[Tensor, "horizon label"]:
        if not len(future):
            return future.new_zeros(horizon, self.end)
        return self.queried.frames(future, durations, horizon)

    def _described(
        self,
        seen: Float[Tensor, "batch time hidden"],
        memory: Float[Tensor, "batch time hidden"],
        past: Float[Tensor, "batch time label"],
        valid: Bool[Tensor, "batch time"],
        said: Tokens | None,
    ) -> Described | None:
        config = self.config
        if config.text == "captions":
            assert self.project is not None
            if said is None:
                return None
            return Described(tokens=self.project(self._scaled(said.values)), valid=said.valid)
        if config.text == "given":
            if said is None:
                return None
            return Described(tokens=self._vectors(said.values), valid=said.valid)
        if config.text == "none":
            return None
        assert self.generator is not None
        reads = seen if config.generator_reads == "tokens" else memory
        states, logits = self.generator(reads, past, valid)
        tokens = states
        if config.text_vectors != "states":
            tokens = self._vectors(logits.softmax(-1))
        return Described(tokens=tokens, valid=valid, logits=logits, states=states)

    def _vectors(
        self, probs: Float[Tensor, "batch token described"]
    ) -> Float[Tensor, "batch token hidden"]:
        """The expected vector of labels that are as likely as said: `sum_k p_k e_k`."""
        if self.table is not None:
            return probs @ self.table
        assert self.project is not None
        return self.project(probs @ self.label_vectors)

    def _scaled(self, vectors: Float[Tensor, "*batch text"]) -> Float[Tensor, "*batch text"]:
        if self.config.text_scale == "as_is":
            return vectors
        return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5

    def _placed(self, described: Described, positions: Float[Tensor, "time hidden"]) -> Described:
        """With the places of the tokens: of captions, their number; of steps, their own."""
        match self.config.text_positions:
            case "none":
                return described
            case "shared" if self.config.text != "captions":
                return replace(described, tokens=described.tokens + positions)
            case _:
                place = (described.valid.cumsum(1) - 1).clamp(min=0)
                places = sinusoid(place, described.tokens.shape[2])
                return replace(described, tokens=described.tokens + places)

    def _fused(
        self,
        placed: Float[Tensor, "batch time hidden"],
        valid: Bool[Tensor, "batch time"],
        mask: Bool[Tensor, "batch 1 1 time"] | None,
        described: Described | None,
    ) -> tuple[Float[Tensor, "batch query hidden"], Bool[Tensor, "batch query"]]:
        """`Z = [V; Txt]` looks at itself, queries read it, and then the segmentation stream."""
        tokens, known = placed, valid
        if described is not None:
            tokens = torch.cat([placed, described.tokens], 1)
            known = torch.cat([valid, described.valid], 1)
        joined = attention_mask(known)
        for layer in self.fusion:
            tokens = layer(tokens, joined)
        if self.reading is not None:
            slots = self.reading(self._asked(placed), tokens, joined)
        else:
            text, told = tokens[:, :0], known[:, :0]
            if described is not None:
                steps = placed.shape[1]
                text, told = tokens[:, steps:], known[:, steps:]
            slots = pooled(text, told, self.config.num_queries)
        for layer in self.alignment:
            slots = layer(slots, placed, mask)
        return slots, torch.ones_like(slots[..., 0], dtype=torch.bool)

    def _decoded(
        self,
        placed: Float[Tensor, "batch time hidden"],
        valid: Bool[Tensor, "batch time"],
        mask: Bool[Tensor, "batch 1 1 time"] | None,
        described: Described | None,
    ) -> tuple[Float[Tensor, "batch query hidden"], Bool[Tensor, "batch query"]]:
        """A decoder asks the segmentation stream: by its text, or by learned queries alone."""
        mode, wanted = self.config.query_mode, self.config.num_queries
        if self._learned_queries:
            queries = self._asked(placed)
            known = valid.new_ones(queries.shape[:2])
        else:
            if described is None:
                described = Described(tokens=placed[:, :0], valid=valid[:, :0])
            queries, known = described.tokens, described.valid
            if mode == "pooled_text":
                queries = pooled(queries, known, wanted)
                known = valid.new_ones(queries.shape[:2])
        slots = torch.zeros_like(queries)
        # Where nobody said anything no query looks at another, and none is heard.
        heard = known | ~known.any(1, keepdim=True)
        among = attention_mask(heard) if heard.shape[1] else None
        for layer in self.decoder:
            slots = layer(slots, queries, placed, mask, among)
        slots = self.decoder_norm(slots)
        if mode == "pooled_answers" and not self._learned_queries:
            slots = pooled(slots, known, wanted)
            known = valid.new_ones(slots.shape[:2])
        return slots, known

    def _asked(
        self, placed: Float[Tensor, "batch time hidden"]
    ) -> Float[Tensor, "batch query hidden"]:
        assert self.queries is not None
        return repeat(self.queries, "query hidden -> batch query hidden", batch=len(placed))

    def _said(self, x: Observation) -> Tokens | None:
        """What others say of what is seen, where the model reads it."""
        if self.config.text == "captions":
            if CAPTIONS not in x.modalities:
                raise ValueError(
                    "m&m-Ant with text='captions' reads captions of what is seen, got none; say "
                    "--captions with a folder of them."
                )
            return x.modalities[CAPTIONS]
        if self.config.text != "given":
            return None
        labels = self._given_labels(x)
        if labels is None:
            raise ValueError(
                f"m&m-Ant with text='given' reads what was observed at the level "
                f"{self.described_head!r} from whoever names it, got no such labels; say "
                "--labels-from, and of a level that does not follow from the finest labels "
                "--model.described fine."
            )
        known = x.valid & (labels != IGNORE)
        size = len(self.taxonomy.heads[self.described_head])
        named = F.one_hot(labels.clamp(min=0), size).to(x.features.dtype)
        return Tokens(values=named, valid=known)

    def _given_labels(self, x: Observation) -> Int[Tensor, "batch time"] | None:
        if self.described_head == self.taxonomy.primary:
            return x.labels
        if self.taxonomy.levels and self.described_head == self.taxonomy.levels[-1]:
            return x.finest
        parents = self.taxonomy.parents.get(self.described_head)
        finest = x.labels if self.taxonomy.level == FINE else x.finest
        if parents is None or finest is None:
            return None
        above = torch.tensor(parents, device=finest.device)
        return above[finest.clamp(min=0)].masked_fill(finest == IGNORE, IGNORE)

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


def described_head(config: MMAntConfig, taxonomy: Taxonomy) -> str:
    """The head of a taxonomy whose labels descriptions speak."""
    if config.described == "predicted" or not taxonomy.levels:
        return taxonomy.primary
    return taxonomy.levels[-1 if config.described == "fine" else 0]


def name_vectors(
    config: MMAntConfig, taxonomy: Taxonomy
) -> Float32[np.ndarray, "described text"] | None:
    """What the text encoder makes of the described labels' names; None where nobody reads them.

    Raises:
        ImportError, FileNotFoundError, ValueError: There is no such encoder.
    """
    if config.text not in ("learned", "given") or config.text_vectors != "names":
        return None
    names = taxonomy.heads[described_head(config, taxonomy)].names
    return sentence_vectors(
        text_encoder(config.encoder), [name.replace("_", " ") for name in names]
    )
