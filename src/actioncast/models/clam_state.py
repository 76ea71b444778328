"""What CLAM remembers of a stream: tensors of fixed size, whatever was seen."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from actioncast.layers.cross_memory import Asked
from actioncast.layers.query_predictor import FirstAsked


@dataclass(frozen=True, slots=True, kw_only=True)
class ClamConstants:
    """What no frame changes, of a batch of 1: computed once a stream, and never saved."""

    memory: Asked | None
    predictor: FirstAsked


@dataclass(frozen=True, slots=True, kw_only=True)
class ClamState:
    """The state of a batch of streams; a value, so that one model serves any number of them."""

    processor: Mapping[str, Float[Tensor, "batch *state"]]
    """Of the temporal processor, by name."""
    memory: tuple[Float[Tensor, "batch head key value"], ...]
    """Of each layer of the memory; empty where there is none."""
    tokens: Float[Tensor, "batch token hidden"]
    """The latest tokens of the processor, first in, first out; zeros before the first frames."""
    seen: Int[Tensor, " batch"]
    """Steps taken in."""
    model: str
    """Fingerprint of the model that it belongs to."""
    constants: ClamConstants = field(repr=False, compare=False)

    @property
    def num_floats(self) -> int:
        """Numbers that one stream carries."""
        return sum(tensor[0].numel() for tensor in self.tensors().values()) - 1

    def tensors(self) -> dict[str, Tensor]:
        """All that must be saved of it, by name; `CLAM.restored` makes a state of it again."""
        return {
            **{f"processor {name}": part for name, part in self.processor.items()},
            **{f"memory {i}": part for i, part in enumerate(self.memory)},
            "tokens": self.tokens,
            "seen": self.seen,
        }

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "ClamState":
        """The state of which `tensors` would give these."""
        processor = {name: tensors[f"processor {name}"] for name in self.processor}
        memory = tuple(tensors[f"memory {i}"] for i in range(len(self.memory)))
        return replace(
            self,
            processor=processor,
            memory=memory,
            tokens=tensors["tokens"],
            seen=tensors["seen"],
        )

    def at(self, streams: slice) -> "ClamState":
        """The state of some streams of the batch."""
        return self.with_tensors({name: part[streams] for name, part in self.tensors().items()})

    @classmethod
    def of(cls, states: Sequence["ClamState"]) -> "ClamState":
        """The state of streams of one model side by side."""
        parts = [state.tensors() for state in states]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return states[0].with_tensors(joined)

    def restored(self, tensors: Mapping[str, Tensor], model: str) -> "ClamState":
        """The state that `tensors` of another one gave, on the device of this one.

        Raises:
            ValueError: It has other parts.
        """
        like = self.tensors()
        if odd := sorted(like.keys() ^ tensors.keys()):
            raise ValueError(
                f"the state must hold {', '.join(sorted(like))}, it differs in {', '.join(odd)}; "
                "give the state of this model."
            )
        given = {name: part.to(like[name].device) for name, part in tensors.items()}
        return replace(self.with_tensors(given), model=model)


def fingerprint(model: nn.Module, config: object) -> str:
    """Twelve hex digits that change with the config and, all but surely, with the weights."""
    some = [p.detach().reshape(-1)[:: max(1, p.numel() // 8)] for p in model.parameters()]
    digest = hashlib.sha256(repr(config).encode())
    digest.update(torch.cat(some).double().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


Parts = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape, without the batch, and type of every tensor of a state."""


def parts_of(state: "ClamState") -> Parts:
    """What every state of a model looks like."""
    return {name: (tuple(t.shape[1:]), t.dtype) for name, t in state.tensors().items()}


def require_finite(state: "ClamState") -> None:
    """Raise a ValueError where a state that was kept holds what no stream brings about."""
    odd = [name for name, part in state.tensors().items() if not bool(part.isfinite().all())]
    if odd or bool((state.seen < 0).any()):
        raise ValueError(
            f"a state must hold finite numbers and frames seen, got NaN, infinity or less than no "
            f"frame in {', '.join(odd) or 'seen'}; the file is spoilt: start the stream anew."
        )


def require_state(state: object, own: str, parts: Parts, batch: int) -> None:
    """Raise a ValueError where a state is not one of a model and of so many streams.

    Args:
        state: Anything.
        own: Fingerprint of the model.
        parts: Of one stream of it.
        batch: Streams.
    """
    if not isinstance(state, ClamState) or state.model != own:
        of = state.model if isinstance(state, ClamState) else type(state).__name__
        raise ValueError(
            f"the state must be one of this model ({own}), got one of {of}; start the stream "
            "anew, or load the checkpoint that it ran on."
        )
    if any(len(part.shape) == 0 or len(part) != batch for part in state.tensors().values()):
        lengths = sorted({tuple(part.shape[:1]) for part in state.tensors().values()})
        raise ValueError(
            f"the state must be of {batch} streams, as the frames are, got {lengths}; give every "
            "stream its own."
        )
    found = parts_of(state)
    if odd := sorted(name for name in parts if found[name] != parts[name]):
        raise ValueError(
            f"the state must have {parts[odd[0]]} as its {odd[0]}, got {found[odd[0]]}; give the "
            "state as it was written."
        )
