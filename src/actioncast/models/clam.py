"""CLAM: anticipation at a cost that does not grow with what was seen.

Zhong et al., Scalable Video Action Anticipation with Cross Linear Attentive Memory (WACV 2026).
Frames pass a temporal processor of linear cost. Its last K tokens say what is being done; a memory
that every frame is written into, and that M queries read, says what was done long before; N
queries of a predictor read both and name what comes. One classifier serves past and future.

Every step takes the state of the stream in and hands it out, so that a live stream costs the same
after a day as after a second. Steps equal the whole at once.

Differs from the released code (sheet of CLAM, sections 2.4 and 8); a field brings the first two
back, and `clam_official.OFFICIAL` says both:

- The gate of a step weighs what was written before it (Eq. 6). The released default path gives
  step t the product of the first T - t gates instead, which no stream can compute
  (`gate_order="reversed"`); its other path has gates above 1 and overflows, and is not here.
- Positions are added to what is compared, as in other transformer decoders, not in place into the
  streams of queries and tokens (`positions="accumulated"`).
- Background frames teach nothing under mixup either, and the classes that the equalised loss
  leaves out are drawn in training alone.
- No window is filled with copies of its first frame: a stream starts from an empty state, and
  fewer than K tokens are attended to until there are K (`CLAM.prime` fills a state that way).
- The convolution of a Mamba block remembers three inputs, not four: of 233,472 numbers that the
  released layout would carry at the default sizes, 225,280 are needed.
- A step has one label, the action that started last, where the released labels are multi-hot; a
  step that stands exactly at the boundary is not read; the last epoch counts, and activations are
  float32, where the released code takes the epoch that validates best in bfloat16.
- The first layers of memory and predictor ask what depends on no frame: computed once a stream.
  The predictor's attention projects queries instead of tokens (`layers.query_attention`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from actioncast.layers.cross_memory import CrossMemory
from actioncast.layers.moments import excluded
from actioncast.layers.processors import (
    MambaProcessor,
    Processor,
    ProcessorState,
    RecurrentProcessor,
    require_frames,
)
from actioncast.layers.query_attention import QueryAttention
from actioncast.layers.query_predictor import FirstAsked, QueryPredictor
from actioncast.layers.recent_tokens import Rows, latest_tokens, uniform_tokens
from actioncast.models.base import Losses, RecurrentAnticipator
from actioncast.models.clam_config import ClamConfig
from actioncast.models.clam_losses import ClamLosses
from actioncast.models.clam_state import (
    ClamConstants,
    ClamState,
    Parts,
    fingerprint,
    parts_of,
    require_finite,
    require_state,
)
from actioncast.timeline import Taxonomy
from actioncast.types import Observation, Prediction, Target, Task, TrainingTimeline

CHUNK = 256
"""Steps of a long video answered at once: it bounds the memory that its answers take."""


def build_processor(config: ClamConfig) -> Processor:
    """The temporal processor of a config."""
    if config.processor == "mamba":
        return MambaProcessor(
            config.hidden_dim, config.num_layers, config.state_dim, config.expand, config.taps
        )
    return RecurrentProcessor(config.processor, config.hidden_dim, config.num_layers)


@final
class CLAM(RecurrentAnticipator[ClamState]):
    """Names, at every step of a stream, what is done and what comes."""

    tasks: ClassVar[frozenset[Task]] = frozenset({Task.SEGMENTATION, Task.ONLINE, Task.NEXT_ACTION})
    # The processor alone says what is done, in every configuration.
    causal: ClassVar[bool] = True

    def __init__(self, config: ClamConfig, taxonomy: Taxonomy) -> None:
        super().__init__()
        self.config = config
        self.taxonomy = taxonomy
        self._named: tuple[int, str] | None = None
        self._weights: list[nn.Parameter] = []
        width = config.hidden_dim
        self.project = (
            nn.Identity() if config.feature_dim == width else nn.Linear(config.feature_dim, width)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.processor = build_processor(config)
        self.memory: CrossMemory | None = None
        if config.memory_queries:
            self.memory = CrossMemory(
                width,
                config.memory_queries,
                config.memory_layers,
                config.num_heads,
                config.key_ratio,
                config.gate_rank,
                config.gate_temperature,
                config.dropout,
                config.positions,
                config.gate_order,
            )
        self.predictor = QueryPredictor(
            width,
            config.num_coming or len(config.ahead),
            config.predictor_layers,
            config.predictor_dim,
            config.num_heads,
            config.dropout,
            config.positions,
        )
        self.act_position = self.memory_position = None
        if config.token_embeddings and self.memory is not None:
            self.memory_position = nn.Parameter(torch.empty(width))
            self.act_position = nn.Parameter(torch.empty(width))
        self.head_dropout = nn.Dropout(config.head_dropout)
        extra = int(config.background_output)
        self.heads = nn.ModuleDict(
            {head: nn.Linear(width, len(space) + extra) for head, space in taxonomy.heads.items()}
        )
        self.learning = ClamLosses(taxonomy, config)
        if config.num_coming:
            self.tasks = frozenset({Task.SEGMENTATION, Task.COMING})  # type: ignore[misc]
        self._initialise()
        self._parts: dict[torch.dtype, Parts] = {}

    def forward(
        self,
        features: Float[Tensor, "batch time feature"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, "batch time _"]], dict[str, Float[Tensor, "batch query _"]]]:
        """Scores by head of every step and of the queries after the last, before softmax.

        With `background_output` the first score of each is that of the background.

        Args:
            features: Of frames.
            valid: False where a step is padding; it follows the real steps of a row.
        """
        if valid is None:
            valid = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        tokens, answers = self.read(features, valid, None)
        return self.scores(tokens), self.scores(answers)

    def read(
        self,
        features: Float[Tensor, "batch time feature"],
        valid: Bool[Tensor, "batch time"],
        rows: Rows | None,
    ) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "row query hidden"]]:
        """A token of every step, and the predictor's vectors at chosen steps.

        Args:
            features: Of frames, from the first of a stream on.
            valid: False where a step is padding; it follows the real steps of a row.
            rows: The steps chosen; absent, the last of each row.
        """
        frames = self.dropout(self.project(features))
        tokens = self.processor(frames, valid)
        seen = self._written(frames, tokens)
        last = rows is None
        if rows is None:
            steps = valid.sum(1) - 1
            rows = (torch.arange(len(steps), device=steps.device), steps)
        memory = None
        if self.memory is not None:
            if last:
                memory = self.memory(seen, valid)
            else:
                empty = self.memory.initial_state(len(seen), seen.device)
                memory, _ = self.memory.every(seen, empty, rows, valid)
        before = tokens.new_zeros(len(tokens), self.config.act_tokens, tokens.shape[2])
        none = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        return tokens, self._foreseen(memory, *self._recent(before, tokens, none, rows))

    def losses(self, x: Observation, y: Target) -> Losses:
        """Cross entropy of what is done at every step and of what comes, all heads alike."""
        return self.learning(self, x, y)

    def predict(self, x: Observation) -> list[Prediction]:
        """Answer the questions of an observation.

        With an anticipation time, what comes then (`next`); with `ahead`, the action at every step
        and at those moments after each; else the action at every step, and what comes.
        """
        self._require_moments(x)
        if x.anticipation_time and not x.ahead:
            require_frames(x.features[x.valid], self.config.feature_dim)
            _, answers = self.read(x.features, x.valid, None)
            return [self._prediction(x, i, answers[i]) for i in range(len(x))]
        return [self._answered(one, self.initial_state(1))[0] for one in x]

    @torch.no_grad()
    def step(self, x: Observation, state: ClamState) -> tuple[list[Prediction], ClamState]:
        """Take new frames in and answer after the last of them.

        Raises:
            ValueError: The state is that of another model, or a frame is not as it must be.
        """
        self._require_moments(x)
        self._require_state(state, len(x))
        if not self.streams:
            raise ValueError(
                f"act_choice {self.config.act_choice} and gate_order {self.config.gate_order} look "
                "back from the end of all that was seen, which no stream can; take a model of "
                "act_choice last and gate_order recurrent."
            )
        found = [self._answered(one, state.at(slice(i, i + 1))) for i, one in enumerate(x)]
        after = ClamState.of([one for _, one in found])
        return [prediction for prediction, _ in found], after

    def take_in(
        self, features: Float[Tensor, "batch time feature"], state: ClamState
    ) -> tuple[Float[Tensor, "batch time hidden"], ClamState]:
        """The tokens of new frames, none of them padding, and the state after them."""
        frames = self.dropout(self.project(features))
        tokens, processed = self.processor.run(frames, state.processor)
        memory: Sequence[Tensor] = ()
        if self.memory is not None:
            memory = self.memory.write(self._written(frames, tokens), state.memory)
        return tokens, self._moved(state, tokens, processed, memory)

    def answer(self, state: ClamState) -> Float[Tensor, "batch query hidden"]:
        """The predictor's vectors of a state: what comes after the last frame taken in."""
        memory = None
        if self.memory is not None:
            memory = self.memory.read(state.memory, state.constants.memory)
        batch = len(state.tokens)
        rows = (torch.arange(batch, device=state.seen.device), state.seen.new_full((batch,), -1))
        recent = self._recent(state.tokens, state.tokens[:, :0], state.seen, rows)
        return self._foreseen(memory, *recent, state.constants.predictor)

    def take_in_answering(
        self, features: Float[Tensor, "batch time feature"], state: ClamState
    ) -> tuple[
        Float[Tensor, "batch time hidden"], Float[Tensor, "batch time query hidden"], ClamState
    ]:
        """`take_in`, and what `answer` gives after each of the frames."""
        batch, time = features.shape[:2]
        frames = self.dropout(self.project(features))
        tokens, processed = self.processor.run(frames, state.processor)
        places = torch.arange(batch * time, device=features.device)
        rows = (places // time, places % time)
        memory, after = None, state.memory
        if self.memory is not None:
            written = self._written(frames, tokens)
            memory, states = self.memory.every(written, state.memory, rows)
            after = tuple(states)
        answers = self._foreseen(memory, *self._recent(state.tokens, tokens, state.seen, rows))
        by_step = rearrange(
            answers, "(batch time) query hidden -> batch time query hidden", time=time
        )
        return tokens, by_step, self._moved(state, tokens, processed, after)

    @torch.no_grad()
    def initial_state(self, batch_size: int) -> ClamState:
        """Nothing seen yet."""
        queries = self.predictor.queries
        size = (batch_size, self.config.act_tokens, self.config.hidden_dim)
        memory: Sequence[Tensor] = ()
        if self.memory is not None:
            memory = self.memory.initial_state(batch_size, queries.device)
        return ClamState(
            processor=self.processor.initial_state(batch_size, queries.device),
            memory=tuple(memory),
            tokens=torch.zeros(size, device=queries.device, dtype=queries.dtype),
            seen=torch.zeros(batch_size, dtype=torch.long, device=queries.device),
            model=self.fingerprint(),
            constants=ClamConstants(
                memory=None if self.memory is None else self.memory.first_asked(1),
                predictor=self.predictor.first_asked(1),
            ),
        )

    @torch.no_grad()
    def prime(self, frame: Float[Tensor, "batch feature"], count: int) -> ClamState:
        """The state of streams that begin with so many copies of one frame.

        Released models read windows that are filled up so.
        """
        frames = frame[:, None].expand(-1, count, -1)
        return self.take_in(frames, self.initial_state(len(frame)))[1]

    def restored(self, tensors: Mapping[str, Tensor], model: str) -> ClamState:
        """The state that `ClamState.tensors` gave and a file kept.

        Args:
            tensors: By name.
            model: Fingerprint of the model whose state it was (`ClamState.model`).

        Raises:
            ValueError: It is the state of another model.
        """
        seen = tensors.get("seen")
        batch = len(seen) if seen is not None and seen.ndim else 1
        state = self.initial_state(batch).restored(tensors, model)
        self._require_state(state, batch)
        require_finite(state)
        return state

    def fingerprint(self) -> str:
        """Of config and weights; a state is of one model alone."""
        # Whatever writes to a weight in place counts its version up; walking all modules would
        # take a tenth of the time of a step.
        self._weights = self._weights or list(self.parameters())
        version = sum(0 if p.is_inference() else p._version for p in self._weights)
        if self._named is None or self._named[0] != version:
            self._named = (version, fingerprint(self, self.config))
        return self._named[1]

    def scores(
        self, vectors: Float[Tensor, "*rows hidden"], heads: Sequence[str] = ()
    ) -> dict[str, Float[Tensor, "*rows _"]]:
        """What some classifiers, or all, make of tokens or of the predictor's vectors."""
        vectors = self.head_dropout(vectors)
        return {head: self.heads[head](vectors) for head in heads or self.heads}

    @property
    def ahead(self) -> tuple[float, ...]:
        """Seconds after each step that it can name; none where it names actions in order."""
        return () if self.config.num_coming else self.config.ahead

    @property
    def streams(self) -> bool:
        """Whether its answer can be had step by step."""
        return self.config.act_choice == "last" and self.config.gate_order == "recurrent"

    def count_labels(self, labels: Mapping[str, Int[Tensor, " clip"]]) -> None:
        """Take in how frequent actions are, for the equalised loss."""
        self.learning.count(labels)

    def count(self, timelines: Sequence[TrainingTimeline]) -> None:
        """Take in how frequent actions are, for the equalised loss."""
        found = [segment.label for one in timelines for segment in one.timeline]
        self.learning.count({self.taxonomy.primary: torch.tensor(found, dtype=torch.long)})

    def _answered(self, x: Observation, state: ClamState) -> tuple[Prediction, ClamState]:
        """The answer to one observation without padding, in pieces, and the state after it."""
        require_frames(x.features, self.config.feature_dim)
        x = replace(x, features=x.features.to(self.predictor.queries.dtype))
        every = bool(x.ahead)
        if not self.streams:
            time = torch.arange(x.features.shape[1], device=x.features.device)
            rows = (torch.zeros_like(time), time) if every else None
            tokens, found = self.read(x.features, x.valid, rows)
            prediction = self._prediction(x, 0, found[-1], tokens[0], found if every else None)
            return prediction, state
        all_tokens, all_answers = [state.tokens[0, :0]], []
        for piece in torch.split(x.features, CHUNK, 1):
            if every and piece.shape[1] > 1:
                tokens, answers, state = self.take_in_answering(piece, state)
                all_answers.append(answers[0])
            elif piece.shape[1]:
                tokens, state = self.take_in(piece, state)
                if every:
                    all_answers.append(self.answer(state)[:, None][0])
            else:
                continue
            all_tokens.append(tokens[0])
        last = all_answers[-1][-1] if all_answers else self.answer(state)[0]
        said = torch.cat(all_answers) if all_answers else None
        return self._prediction(x, 0, last, torch.cat(all_tokens), said), state

    def _prediction(
        self,
        x: Observation,
        i: int,
        last: Float[Tensor, "query hidden"],
        tokens: Float[Tensor, "time hidden"] | None = None,
        every: Float[Tensor, "time query hidden"] | None = None,
    ) -> Prediction:
        probs = self._probabilities(last)
        primary, config = self.taxonomy.primary, self.config
        query = 0 if config.num_coming else self.learning.query_of(x)
        return Prediction(
            taxonomy=self.taxonomy,
            rate=x.rate,
            observed=x.frames_observed(i),
            past=None if tokens is None else self._probabilities(tokens, (primary,))[primary],
            next=None if config.num_coming else {head: rows[query] for head, rows in probs.items()},
            coming=probs if config.num_coming else None,
            ahead=None if every is None else self._probabilities(every, (primary,))[primary],
        )

    def _probabilities(
        self, vectors: Float[Tensor, "*rows hidden"], heads: Sequence[str] = ()
    ) -> dict[str, Float[Tensor, "*rows _"]]:
        first = int(self.config.background_output)
        scores = self.scores(vectors, heads)
        return {
            head: excluded(
                rows[..., first:].float(), self.taxonomy.heads[head].unknown_labels
            ).softmax(-1)
            for head, rows in scores.items()
        }

    def _written(self, frames: Tensor, tokens: Tensor) -> Tensor:
        return frames if self.config.memory_reads == "frames" else tokens

    def _moved(
        self,
        state: ClamState,
        tokens: Float[Tensor, "batch time hidden"],
        processed: ProcessorState,
        memory: Sequence[Tensor],
    ) -> ClamState:
        kept = torch.cat([state.tokens, tokens], 1)
        return replace(
            state,
            processor=processed,
            memory=tuple(memory),
            tokens=kept[:, kept.shape[1] - self.config.act_tokens :],
            seen=state.seen + tokens.shape[1],
        )

    def _recent(
        self, before: Tensor, tokens: Tensor, seen: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        chosen = uniform_tokens if self.config.act_choice == "uniform" else latest_tokens
        return chosen(before, tokens, seen, rows, self.config.act_tokens)

    def _foreseen(
        self,
        memory: Float[Tensor, "row slot hidden"] | None,
        recent: Float[Tensor, "row token hidden"],
        known: Bool[Tensor, "row token"],
        asked: FirstAsked | None = None,
    ) -> Float[Tensor, "row query hidden"]:
        """What the predictor makes of memory and recent tokens."""
        if memory is None:
            # Of nothing seen a zero token tells: a softmax over none has no value.
            nothing = ~known.any(1, keepdim=True)
            known = torch.cat([known[:, :-1], known[:, -1:] | nothing], 1)
            return self.predictor(recent, None, known, asked)
        positions = None
        if self.memory_position is not None and self.act_position is not None:
            positions = torch.cat(
                [
                    self.memory_position.expand(memory.shape[1], -1),
                    self.act_position.expand(recent.shape[1], -1),
                ]
            )
        there = torch.ones(memory.shape[:2], dtype=torch.bool, device=known.device)
        return self.predictor(
            torch.cat([memory, recent], 1), positions, torch.cat([there, known], 1), asked
        )

    def _initialise(self) -> None:
        """Xavier for memory and predictor, Mamba's own for the processor (sheet, 2.2 and 2.3)."""
        for part in (self.memory, self.predictor):
            for parameter in [] if part is None else part.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        for position in (self.memory_position, self.act_position):
            if position is not None:
                nn.init.normal_(position, std=0.02)
        for module in self.modules():
            if isinstance(module, QueryAttention):
                nn.init.zeros_(module.project.bias)
                nn.init.zeros_(module.out.bias)
        if isinstance(self.processor, MambaProcessor):
            self.processor.initialise()

    def _require_moments(self, x: Observation) -> None:
        if x.ahead and x.ahead != self.ahead:
            raise ValueError(
                f"ahead must be the moments that the model was trained on, {self.ahead} s, got "
                f"{x.ahead}."
            )
        if x.anticipation_time and not self.config.num_coming:
            self.learning.query_of(x)

    def _require_state(self, state: ClamState, batch: int) -> None:
        dtype = self.predictor.queries.dtype
        if dtype not in self._parts:
            self._parts[dtype] = parts_of(self.initial_state(1))
        require_state(state, self.fingerprint(), self._parts[dtype], batch)
