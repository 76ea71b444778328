"""Cross linear attentive memory: learned queries read a gated state that the past is written into.

Zhong et al., Scalable Video Action Anticipation with Cross Linear Attentive Memory (WACV 2026),
Fig. A.7a and Eq. 6. A layer is that of a transformer decoder whose cross-attention has become a
recurrence (`gated_memory`): the past is a matrix a head, of the same size however long it was.

Writing depends on what is seen and reading on the queries alone, so that a stream writes at every
step and reads when it is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.gated_memory import final_state, memory_step, read_all, read_each
from actioncast.layers.query_attention import QueryAttention

Positions = Literal["separate", "accumulated"]
"""Where learned positions enter. Separate: into what is compared, as transformer decoders do.
Accumulated: as the released code adds them in place, into the stream of queries itself, twice a
layer, and into keys and values once more with every layer."""
MemoryStates = Sequence[Float[Tensor, "batch head key value"]]
"""The state of each layer."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one layer writes at every step."""

    log_gate: Float[Tensor, "batch time head key"]
    keys: Float[Tensor, "batch time head key"]
    values: Float[Tensor, "batch time head value"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the queries of one layer look for; of the first layer it depends on no input."""

    stream: Float[Tensor, "*batch query hidden"]
    """The queries themselves, to which the answer is added."""
    queries: Float[Tensor, "*batch head query key"]
    """What the state is multiplied with."""
    gate: Float[Tensor, "*batch query hidden"]
    """What lets the answer through."""

    def at(self, index: Tensor | tuple[Tensor, ...]) -> "Asked":
        """Of chosen rows."""
        return Asked(self.stream[index], self.queries[index], self.gate[index])


@final
class CrossLinearAttention(nn.Module):
    """Keys, values and gates of what is seen; queries, gates and norm of what is read.

    Args:
        hidden_dim: Width of both.
        num_heads: Matrices of the state.
        key_ratio: Width of all keys over `hidden_dim`; values have `hidden_dim`.
        gate_rank: Between the two layers of the gate.
        gate_temperature: What the log of the gate is divided by: 16 remembers for seconds, 1 is
            the plain sigmoid.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        key_ratio: float,
        gate_rank: int,
        gate_temperature: float,
    ) -> None:
        super().__init__()
        keys = round(hidden_dim * key_ratio)
        self.num_heads = num_heads
        self.gate_temperature = gate_temperature
        self.query = nn.Linear(hidden_dim, keys, bias=False)
        self.key = nn.Linear(hidden_dim, keys, bias=False)
        self.value = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.gate_down = nn.Linear(hidden_dim, gate_rank, bias=False)
        self.gate_up = nn.Linear(gate_rank, keys)
        self.read_gate = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.norm = nn.RMSNorm(hidden_dim // num_heads, eps=1e-5)
        self.out = nn.Linear(hidden_dim, hidden_dim, bias=False)

    def write(self, x: Float[Tensor, "batch time hidden"]) -> Written:
        """What every step writes; `log G = logsigmoid(gate) / temperature` (float32)."""
        gate = self.gate_up(self.gate_down(x))
        log_gate = F.logsigmoid(gate if gate.dtype == torch.float64 else gate.float())
        return Written(
            log_gate=self._heads(log_gate / self.gate_temperature),
            keys=self._heads(self.key(x)),
            values=self._heads(self.value(x)),
        )

    def queries(
        self, stream: Float[Tensor, "*batch query hidden"]
    ) -> Float[Tensor, "*batch head query key"]:
        """What the state is asked."""
        return rearrange(
            self.query(stream), "... query (head key) -> ... head query key", head=self.num_heads
        )

    def read(
        self,
        found: Float[Tensor, "*rows head query value"],
        gate: Float[Tensor, "*batch query hidden"],
    ) -> Float[Tensor, "*rows query hidden"]:
        """What the state answered, normalised a head, gated by the queries, projected."""
        joined = rearrange(self.norm(found), "... head query value -> ... query (head value)")
        return self.out(joined * gate)

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "batch time (head width) -> batch time head width", head=self.num_heads)


@final
class MemoryLayer(nn.Module):
    """Queries look at one another, read the state, and pass a gated network (SwiGLU)."""

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        key_ratio: float,
        gate_rank: int,
        gate_temperature: float,
        dropout: float,
    ) -> None:
        super().__init__()
        inner = 256 * -(-round(hidden_dim * 4 * 2 / 3) // 256)
        self.mix = QueryAttention(hidden_dim, num_heads, dropout)
        self.mix_norm = nn.LayerNorm(hidden_dim)
        self.state = CrossLinearAttention(
            hidden_dim, num_heads, key_ratio, gate_rank, gate_temperature
        )
        self.state_norm = nn.RMSNorm(hidden_dim, eps=1e-5)
        self.expand = nn.Linear(hidden_dim, 2 * inner, bias=False)
        self.contract = nn.Linear(inner, hidden_dim, bias=False)
        self.out_norm = nn.RMSNorm(hidden_dim, eps=1e-5)
        self.dropout = nn.Dropout(dropout)

    def ask(
        self,
        stream: Float[Tensor, "*batch query hidden"],
        positions: Float[Tensor, "query hidden"],
        way: Positions,
    ) -> "Asked":
        """What queries look for, once they have looked at one another."""
        if way == "accumulated":
            stream = stream + positions
            mixed = self.mix(stream, stream, stream)
            stream = asks = self.mix_norm(stream + self.dropout(mixed)) + positions
        else:
            placed = stream + positions
            stream = self.mix_norm(stream + self.dropout(self.mix(placed, placed, stream)))
            asks = stream + positions
        gate = F.silu(self.state.read_gate(asks))
        return Asked(stream=stream, queries=self.state.queries(asks), gate=gate)

    def answer(
        self, asked: "Asked", found: Float[Tensor, "*rows head query value"]
    ) -> Float[Tensor, "*rows query hidden"]:
        """The stream after what the state answered."""
        stream = self.state_norm(asked.stream + self.state.read(found, asked.gate))
        gate, inner = self.expand(stream).chunk(2, -1)
        return self.out_norm(stream + self.contract(F.silu(gate) * inner))


@final
class CrossMemory(nn.Module):
    """Layers of memory and their learned queries.

    Args:
        hidden_dim: Width of what is seen, of queries and of memory tokens.
        num_queries: Memory tokens (M).
        num_layers: Each has a state of its own.
        num_heads: Of both attentions.
        key_ratio: See `CrossLinearAttention`.
        gate_rank: See there.
        gate_temperature: See there.
        dropout: On attention among queries, in training.
        positions: Where the queries' positions enter.
        order: Of the gates: the recurrence, or that of the released default path, which gives
            step t the product of the first T - t gates; no stream can compute it.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_queries: int,
        num_layers: int,
        num_heads: int,
        key_ratio: float,
        gate_rank: int,
        gate_temperature: float,
        dropout: float,
        positions: Positions = "separate",
        order: Literal["recurrent", "reversed"] = "recurrent",
    ) -> None:
        super().__init__()
        self.positions = positions
        self.order = order
        self.layers = nn.ModuleList(
            MemoryLayer(hidden_dim, num_heads, key_ratio, gate_rank, gate_temperature, dropout)
            for _ in range(num_layers)
        )
        self.queries = nn.Parameter(torch.empty(num_queries, hidden_dim))

    def forward(
        self,
        x: Float[Tensor, "batch time hidden"],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch query hidden"]:
        """The memory tokens after the last step."""
        states = self.write(x, self.initial_state(len(x), x.device), valid)
        return self.read(states)

    def write(
        self,
        x: Float[Tensor, "batch time hidden"],
        states: MemoryStates,
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> MemoryStates:
        """The states after more steps."""
        after = []
        for layer, state in zip(self._layers(), states, strict=True):
            written = layer.state.write(x)
            if x.shape[1] == 1 and valid is None and self.order == "recurrent":
                one = (written.log_gate[:, 0], written.keys[:, 0], written.values[:, 0])
                after.append(memory_step(*one, state))
                continue
            if self.order == "reversed":
                written = _reversed(written, valid)
            after.append(
                final_state(
                    written.log_gate, written.keys, written.values, first=state, valid=valid
                )
            )
        return after

    def read(
        self, states: MemoryStates, asked: Asked | None = None
    ) -> Float[Tensor, "batch query hidden"]:
        """The memory tokens of states.

        Args:
            states: Of every layer.
            asked: What `first_asked` gave; absent, it is computed.
        """
        asked = self.first_asked(len(states[0])) if asked is None else asked
        stream = asked.stream
        for i, (layer, state) in enumerate(zip(self._layers(), states, strict=True)):
            if i:
                asked = layer.ask(stream, self.queries, self.positions)
            found = asked.queries.to(state.dtype) @ state
            stream = layer.answer(asked, found.to(asked.stream.dtype))
        return stream

    def every(
        self,
        x: Float[Tensor, "batch time hidden"],
        states: MemoryStates,
        chosen: tuple[Int[Tensor, " row"], Int[Tensor, " row"]],
        valid: Bool[Tensor, "batch time"] | None = None,
    ) -> tuple[Float[Tensor, "row query hidden"], MemoryStates]:
        """The memory tokens at chosen steps, and the states after the last one.

        Args:
            x: What is seen.
            states: Before the first step.
            chosen: Index of batch and of time of each row.
            valid: False where a step is padding.
        """
        if self.order != "recurrent":
            raise ValueError(
                "the reversed order of gates has no answer before the end of what is seen; ask "
                "after the last step alone, or take gate_order recurrent."
            )
        asked = self.first_asked(len(x))
        stream = asked.stream
        after: list[Tensor] = []
        for i, (layer, state) in enumerate(zip(self._layers(), states, strict=True)):
            written = layer.state.write(x)
            seen = (written.log_gate, written.keys, written.values)
            if i:
                asked = layer.ask(stream, self.queries, self.positions)
                read = read_each(asked.queries, *seen, first=state, valid=valid)
            else:
                read = read_all(asked.queries, *seen, first=state, valid=valid)
            after.append(read.last)
            found = read.o
            if i == len(self.layers) - 1:
                found = found[chosen]
                asked = asked.at(chosen if i else chosen[0])
            elif not i:
                # Of one layer the queries are the same at every step; those of the next are not.
                asked = Asked(asked.stream[:, None], asked.queries[:, None], asked.gate[:, None])
            stream = layer.answer(asked, found)
        return stream, after

    def first_asked(self, batch_size: int) -> Asked:
        """What the first layer asks: it depends on no input."""
        stream = torch.zeros_like(self.queries).expand(batch_size, -1, -1)
        return self._layers()[0].ask(stream, self.queries, self.positions)

    def initial_state(self, batch_size: int, device: torch.device | str) -> MemoryStates:
        """Nothing written yet."""
        attention = self._layers()[0].state
        heads = attention.num_heads
        size = (
            batch_size,
            heads,
            attention.key.out_features // heads,
            attention.value.out_features // heads,
        )
        dtype = torch.float64 if self.queries.dtype == torch.float64 else torch.float32
        return [torch.zeros(size, device=device, dtype=dtype) for _ in self.layers]

    def _layers(self) -> list[MemoryLayer]:
        return list(self.layers)  # type: ignore[arg-type]


def _reversed(written: Written, valid: Bool[Tensor, "batch time"] | None) -> Written:
    """Keys and gates whose products weigh step t by the first T - t gates (sheet, 2.4).

    T is the length of each row without its padding.
    """
    gates = written.log_gate
    places = torch.arange(gates.shape[1], device=gates.device).expand(len(gates), -1)
    lengths = places.new_full((len(gates),), gates.shape[1]) if valid is None else valid.sum(1)
    # Behind step t come gates 1 to T - 1 - t, so that the step j > t brings gate T - j.
    source = (lengths[:, None] - places).clamp(min=0, max=max(0, gates.shape[1] - 1))
    index = source[..., None, None].expand_as(gates)
    # The last step is weighed by the first gate, where the recurrence has none after it.
    return replace(
        written,
        log_gate=gates.gather(1, index),
        keys=written.keys * gates[:, :1].exp().to(written.keys.dtype),
    )
