"""Run any model on a live stream of features.

A recurrent model takes every frame in once and carries its state. Any other is given the last
window again, on the strided grid that its stream has run on from the first frame.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from actioncast.inference import predict
from actioncast.layers.decoding import hold_frames
from actioncast.models.base import Anticipator, CountingAnticipator, RecurrentAnticipator
from actioncast.timeline import frames_to_seconds, seconds_to_frames
from actioncast.types import Observation, Prediction

StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """When a stream answers, and how far back and ahead it looks, in seconds."""

    window: float = 60.0
    """past that a model without a memory of its own may see"""
    step: float = 1.0
    """time between two answers"""
    horizon: float = 10.0
    """future to anticipate; 0 asks for segmentation alone"""

    def __post_init__(self) -> None:
        if self.window <= 0 or self.step <= 0:
            raise ValueError(
                f"window and step must be positive, got {self.window:g} s and {self.step:g} s."
            )
        if self.horizon < 0:
            raise ValueError(f"horizon must not be negative, got {self.horizon:g} s.")
        if self.step > self.window:
            raise ValueError(
                f"step must be at most window, got step {self.step:g} s and window "
                f"{self.window:g} s: frames between two windows would never be seen."
            )


def stream(
    model: Anticipator,
    chunks: Iterable[Float[Tensor, "_ feature"]],
    rate: float,
    config: StreamConfig,
    stride: int = 1,
    device: str = "cpu",
) -> Iterator[Prediction]:
    """Yield a prediction whenever a step is full, and one for what is left when the stream ends.

    Seconds count from the first frame of the stream: `Prediction.start` is the first frame that
    `past` names, `Prediction.now` the end of the frames seen. A recurrent model names the frames
    since its last answer, any other all frames of the window.

    Args:
        model: any model that reads features.
        chunks: features of frames as they come, any number at a time; an empty chunk is no news.
        rate: frames per second.
        config: when to answer.
        stride: every how many frames the model reads one.
        device: where the model runs.

    Raises:
        ValueError: the model cannot run on a stream, the frames of step, window and stride do not
            fit each other, or a chunk is no array of frames like those before.
    """
    if isinstance(model, CountingAnticipator):
        raise ValueError(
            f"{type(model).__name__} reads the labels of the past, but a stream has features "
            "alone; stream a model that reads features."
        )
    if not rate > 0 or stride < 1:
        raise ValueError(
            f"rate must be positive and stride at least 1 frame, got {rate:g} and {stride}."
        )
    step, window = seconds_to_frames(config.step, rate), seconds_to_frames(config.window, rate)
    if step < 1:
        raise ValueError(
            f"step must be at least one frame, got {config.step:g} s at {rate:g} frames per "
            f"second; say {frames_to_seconds(1, rate):g} s or more."
        )
    model.eval().to(device)
    horizon = seconds_to_frames(config.horizon, rate)
    pieces = regroup(chunks, step)
    if isinstance(model, RecurrentAnticipator):
        if step % stride:
            raise ValueError(
                "step must be a whole number of strides for a model with a memory, got "
                f"{step} frames and stride {stride}; say "
                f"{frames_to_seconds(-(-step // stride) * stride, rate):g} s."
            )
        return _recurrent(model, pieces, rate, horizon, stride, device)
    if window < stride:
        raise ValueError(
            f"window must be at least one stride, got {window} frames and stride {stride}; say "
            f"{frames_to_seconds(stride, rate):g} s or more."
        )
    return _windowed(model, pieces, rate, horizon, window, stride, device)


def regroup(
    chunks: Iterable[Float[Tensor, "_ feature"]], size: int
) -> Iterator[Float[Tensor, "_ feature"]]:
    """Cut and join chunks of any sizes into pieces of `size` frames; the last may be shorter."""
    held: list[Tensor] = []
    width, count = None, 0
    for chunk in chunks:
        if chunk.ndim != 2 or (width is not None and chunk.shape[1] != width):
            expected = "(time, feature)" if width is None else f"(time, {width})"
            raise ValueError(
                f"a chunk of a stream must have shape {expected}, got {tuple(chunk.shape)}; "
                "a single frame is a chunk of time 1."
            )
        width = chunk.shape[1]
        first = 0
        while first < len(chunk):
            part = chunk[first : first + size - count]
            held.append(part)
            first, count = first + len(part), count + len(part)
            if count == size:
                yield torch.cat(held)
                held, count = [], 0
    if held:
        yield torch.cat(held)


def _recurrent(
    model: RecurrentAnticipator[Any],
    pieces: Iterable[Float[Tensor, "_ feature"]],
    rate: float,
    horizon: int,
    stride: int,
    device: str,
) -> Iterator[Prediction]:
    state, seen = model.initial_state(1), 0
    for piece in pieces:
        x = _observation(piece[::stride], rate, horizon, stride, len(piece))
        prediction, state = _step(model, x.to(device), state)
        yield replace(prediction, start=frames_to_seconds(seen, rate))
        seen += len(piece)


@torch.inference_mode()
def _step(
    model: RecurrentAnticipator[StateT], x: Observation, state: StateT
) -> tuple[Prediction, StateT]:
    (prediction,), state = model.step(x, state)
    observed, past = x.frames_observed(0), prediction.past
    if past is not None:
        past = hold_frames(past, x.stride, observed)
    return replace(prediction, past=past, observed=observed), state


def _windowed(
    model: Anticipator,
    pieces: Iterable[Float[Tensor, "_ feature"]],
    rate: float,
    horizon: int,
    window: int,
    stride: int,
    device: str,
) -> Iterator[Prediction]:
    past: Tensor | None = None
    seen = 0
    for piece in pieces:
        kept = piece[-seen % stride :: stride]
        seen += len(piece)
        # The window starts at a frame that was kept, or answers would be held at wrong frames.
        start = -(-max(0, seen - window) // stride) * stride
        steps = -(-(seen - start) // stride)
        past = (kept if past is None else torch.cat([past, kept]))[-steps:]
        x = _observation(past, rate, horizon, stride, seen - start)
        (prediction,) = predict(model, x, device)
        yield replace(prediction, start=frames_to_seconds(start, rate))


def _observation(
    features: Float[Tensor, "time feature"], rate: float, horizon: int, stride: int, observed: int
) -> Observation:
    x = Observation.of_one(features, rate, horizon)
    return replace(x, stride=stride, observed=torch.tensor([observed]))
