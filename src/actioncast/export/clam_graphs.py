"""CLAM as two graphs of plain tensors: one frame in, and what comes out of a state.

Both call the model's own layers, so that their numbers are its numbers. What no frame changes
(`ClamConstants`) is computed here once and stands in the graphs as a constant.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from actioncast.export.clam_names import AFTER, FRAME, FUTURE, PAST, STATE, is_answered_from
from actioncast.layers.moments import excluded
from actioncast.layers.query_predictor import PredictorLayer
from actioncast.models.base import Anticipator
from actioncast.models.clam import CLAM


def require_streaming_clam(model: Anticipator, on_streams: bool = True) -> CLAM:
    """The model, if it can be exported.

    Args:
        model: Of a run.
        on_streams: Whether `actioncast stream` takes that run.

    Raises:
        ValueError: It cannot.
    """
    if not isinstance(model, CLAM):
        instead = "run it with `actioncast stream RUN` or `actioncast predict`"
        if not on_streams:
            instead = "forecast from files with `actioncast predict RUN FILE`"
        raise ValueError(
            f"export is for CLAM, whose state has a fixed size, got {type(model).__name__}; "
            f"{instead}."
        )
    if not model.streams:
        config = model.config
        raise ValueError(
            "export needs a model that answers frame by frame, got act_choice "
            f"{config.act_choice} and gate_order {config.gate_order}, which look back from the end "
            "of all that was seen; train one of act_choice last and gate_order recurrent."
        )
    return model


def rounded_matrices(model: CLAM) -> list[Float[Tensor, "_ _"]]:
    """The matrices that int8 keeps in 8 bits: those of the processor and of the predictor's nets.

    They are half of what a step reads and each is read for one vector. Rounding a classifier would
    change the order of actions directly, and rounding the attention of the predictor costs more
    digits a byte than its nets; the memory's net is read for many vectors at once, where 8 bits are
    slower than 32.
    """
    layers = [module for module in model.processor.modules() if isinstance(module, nn.Linear)]
    for layer in model.predictor.layers:
        assert isinstance(layer, PredictorLayer)
        layers += [layer.expand, layer.contract]
    return [layer.weight.detach() for layer in layers]


class _Part(nn.Module):
    def __init__(self, model: CLAM) -> None:
        super().__init__()
        self.model = model
        self.empty = model.initial_state(1)

    def _probabilities(self, vectors: Float[Tensor, "*rows hidden"]) -> tuple[Tensor, ...]:
        first = int(self.model.config.background_output)
        found = []
        for head, rows in self.model.scores(vectors).items():
            unknown = self.model.taxonomy.heads[head].unknown_labels
            # Excluded before the background is cut off: a slice has gaps, and filling one has no
            # form in ONNX.
            known = excluded(rows.float(), [label + first for label in unknown])
            found.append(known[..., first:].softmax(-1))
        return tuple(found)


@final
class ClamAdvance(_Part):
    """A frame `[1, feature]` and the state: probabilities `[1, label]` by head, the state after."""

    def forward(
        self, frame: Float[Tensor, "batch feature"], *state: Float[Tensor, "batch *part"] | Tensor
    ) -> tuple[Tensor, ...]:
        """One step."""
        before = self.empty.with_tensors(dict(zip(self.empty.tensors(), state, strict=True)))
        tokens, after = self.model.take_in(frame[:, None], before)
        return (*self._probabilities(tokens[:, 0]), *after.tensors().values())

    def names(self) -> tuple[list[str], list[str]]:
        """Of inputs and outputs."""
        parts = list(self.empty.tensors())
        past = [PAST + head for head in self.model.heads]
        return [FRAME, *(STATE + name for name in parts)], [*past, *(AFTER + n for n in parts)]

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes."""
        return torch.zeros(1, self.model.config.feature_dim), *self.empty.tensors().values()


@final
class ClamAnswer(_Part):
    """What is read of the state: probabilities `[query, label]` by head."""

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """What comes after the last frame taken in."""
        tensors = {**self.empty.tensors(), **dict(zip(self.read(), state, strict=True))}
        return self._probabilities(self.model.answer(self.empty.with_tensors(tensors))[0])

    def read(self) -> list[str]:
        """Names of the tensors that an answer rests on."""
        return [name for name in self.empty.tensors() if is_answered_from(name)]

    def names(self) -> tuple[list[str], list[str]]:
        """Of inputs and outputs."""
        return [STATE + name for name in self.read()], [FUTURE + h for h in self.model.heads]

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes."""
        tensors = self.empty.tensors()
        return tuple(tensors[name] for name in self.read())
