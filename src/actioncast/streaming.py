"""Run any model on a live stream of features."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from actioncast.models.base import Anticipator, RecurrentAnticipator
from actioncast.timeline import frames_to_seconds, seconds_to_frames
from actioncast.types import Observation, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """When a stream answers and how far it looks, in seconds."""

    window: float = 60.0
    """past that a model without a memory of its own may see"""
    horizon: float = 10.0
    """future to anticipate"""

    def __post_init__(self) -> None:
        if self.window <= 0:
            raise ValueError(f"window must be positive, got {self.window} s.")


def stream(
    model: Anticipator,
    chunks: Iterable[Float[Tensor, "time feature"]],
    rate: float,
    config: StreamConfig,
) -> Iterator[Prediction]:
    """Yield one prediction for each chunk of new frames.

    A recurrent model carries its state from chunk to chunk; any other sees the last window again.
    """
    horizon = seconds_to_frames(config.horizon, rate)
    if isinstance(model, RecurrentAnticipator):
        yield from _recurrent(model, chunks, rate, horizon)
    else:
        yield from _windowed(model, chunks, rate, horizon, seconds_to_frames(config.window, rate))


def _recurrent(
    model: RecurrentAnticipator[Any],
    chunks: Iterable[Float[Tensor, "time feature"]],
    rate: float,
    horizon: int,
) -> Iterator[Prediction]:
    state, seen = model.initial_state(1), 0
    for chunk in chunks:
        (prediction,), state = model.step(Observation.of_one(chunk, rate, horizon), state)
        yield replace(prediction, start=frames_to_seconds(seen, rate))
        seen += len(chunk)


def _windowed(
    model: Anticipator,
    chunks: Iterable[Float[Tensor, "time feature"]],
    rate: float,
    horizon: int,
    window: int,
) -> Iterator[Prediction]:
    past: Tensor | None = None
    seen = 0
    for chunk in chunks:
        past = (chunk if past is None else torch.cat([past, chunk]))[-window:]
        seen += len(chunk)
        (prediction,) = model.predict(Observation.of_one(past, rate, horizon))
        yield replace(prediction, start=frames_to_seconds(seen - len(past), rate))
