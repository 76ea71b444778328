"""Run any model on a live stream of features.

A recurrent model takes every frame in once and carries its state. Any other is given the last
window again, on the strided grid that its stream has run on from the first frame.

A frame that holds NaN or infinity would stay in a state for the rest of the stream. It is refused,
or skipped: a state is then left as it is and the answer before it stands for the frame; in a window
the last good frame takes its place.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from actioncast.inference import predict
from actioncast.layers.decoding import hold_frames
from actioncast.models.base import Anticipator, CountingAnticipator, RecurrentAnticipator
from actioncast.scores import moments_of
from actioncast.timeline import frames_to_seconds, seconds_to_frames
from actioncast.types import Observation, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """When a stream answers, and how far back and ahead it looks, in seconds."""

    window: float = 60.0
    """past that a model without a memory of its own may see"""
    step: float = 1.0
    """time between two answers"""
    horizon: float = 10.0
    """future to anticipate; 0 asks for segmentation alone"""
    bad_frames: Literal["refuse", "skip"] = "refuse"
    """what happens to a frame that holds NaN or infinity: it ends the stream, or is left out"""

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
    first: object | None = None,
    after: Callable[[Any], None] | None = None,
) -> Iterator[Prediction]:
    """Yield a prediction whenever a step is full, and one for what is left when the stream ends.

    Seconds count from the first frame of the stream: `Prediction.start` is the first frame that
    `past` names, `Prediction.now` the end of the frames seen. A recurrent model names the frames
    since its last answer, any other all frames of the window. A model that was built for moments
    ahead says `Prediction.ahead` at the last step.

    Args:
        model: any model that reads features.
        chunks: features of frames as they come, any number at a time; an empty chunk is no news.
        rate: frames per second.
        config: when to answer.
        stride: every how many frames the model reads one.
        device: where the model runs.
        first: the state that a recurrent model goes on from; absent, nothing has been seen. The
            first of the chunks' frames is read: it must come a whole number of strides after those.
        after: told the state after each answer of a recurrent model, before the answer is yielded.

    Raises:
        ValueError: the model cannot run on a stream, the frames of step, window and stride do not
            fit each other, a chunk is no array of frames like those before, or a frame is bad.
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
        memory = _Memory(model, rate, horizon, stride, device, config.bad_frames)
        return memory.answers(pieces, first, after)
    if first is not None or after is not None:
        raise ValueError(
            f"a state is kept of models with a memory alone, got {type(model).__name__}, which "
            "reads its window again."
        )
    if window < stride:
        raise ValueError(
            f"window must be at least one stride, got {window} frames and stride {stride}; say "
            f"{frames_to_seconds(stride, rate):g} s or more."
        )
    skips = config.bad_frames == "skip"
    checked = _mended(pieces, stride, rate) if skips else _refusing(pieces, stride)
    return _windowed(model, checked, rate, horizon, window, stride, device)


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


def bad_frames(features: Float[Tensor, "time feature"]) -> Int[Tensor, " bad"]:
    """Which frames hold NaN or infinity."""
    return (~features.isfinite().all(1)).nonzero()[:, 0]


def _refusing(
    pieces: Iterable[Float[Tensor, "_ feature"]], stride: int
) -> Iterator[Float[Tensor, "_ feature"]]:
    """Raise a ValueError at the first bad frame of those that are read."""
    seen = 0
    for piece in pieces:
        if len(odd := bad_frames(_read(piece, seen, stride))):
            raise ValueError(bad_frame_sentence(_number(int(odd[0]), seen, stride)))
        seen += len(piece)
        yield piece


def _mended(
    pieces: Iterable[Float[Tensor, "_ feature"]], stride: int, rate: float
) -> Iterator[Float[Tensor, "_ feature"]]:
    """The last good frame of those that are read in the place of each bad one; zeros before any."""
    seen, good, outages = 0, None, Outages(rate)
    for piece in pieces:
        kept = _read(piece, seen, stride)
        mended = piece
        for i, fine in enumerate(kept.isfinite().all(1).tolist()):
            outages.saw(_number(i, seen, stride), good=fine)
        if odd := bad_frames(kept).tolist():
            mended = piece.clone()
            kept = _read(mended, seen, stride)
            for i in odd:
                before = kept[i - 1] if i else good
                kept[i] = 0.0 if before is None else before
        if len(kept):
            good = kept[-1].clone()
        seen += len(piece)
        yield mended
    outages.end()


def bad_frame_sentence(number: int) -> str:
    """What is said of a bad frame, counted from the first of the stream."""
    return (
        f"a frame must hold finite numbers, frame {number} holds NaN or infinity; mend the "
        "features, or skip such frames: --bad-frames skip (in Python bad_frames='skip')."
    )


def _read(piece: Float[Tensor, "_ feature"], seen: int, stride: int) -> Float[Tensor, "_ feature"]:
    """The frames of a piece that a model reads; a view."""
    return piece[-seen % stride :: stride]


def _number(i: int, seen: int, stride: int) -> int:
    """Of the i-th frame read of a piece, counted from the first of the stream."""
    return seen + -seen % stride + i * stride


class Outages:
    """Warns once when frames begin to be skipped, and once when they are good again.

    Args:
        rate: Frames per second.
    """

    def __init__(self, rate: float) -> None:
        self.rate, self.count = rate, 0

    def saw(self, number: int, *, good: bool) -> None:
        """Take note of one more frame that was read, by its number from the first of the stream."""
        if not good and not self.count:
            warnings.warn(
                f"frame {number} ({number / self.rate:.1f} s) holds NaN or infinity; it is "
                "skipped, and so is every such frame after it.",
                stacklevel=2,
            )
        elif good and self.count:
            warnings.warn(
                f"frame {number} ({number / self.rate:.1f} s) is good again; skipped "
                f"{self.count} frame(s) before it.",
                stacklevel=2,
            )
        self.count = 0 if good else self.count + 1

    def end(self) -> None:
        """Say how many of the last frames were skipped, if any."""
        if self.count:
            warnings.warn(f"skipped the last {self.count} frame(s) of the stream.", stacklevel=2)
        self.count = 0


@dataclass(frozen=True, slots=True)
class _Memory:
    """A recurrent model on a stream."""

    model: RecurrentAnticipator[Any]
    rate: float
    horizon: int
    stride: int
    device: str
    bad_frames: Literal["refuse", "skip"]

    def answers(
        self,
        pieces: Iterable[Float[Tensor, "_ feature"]],
        first: Any,
        after: Callable[[Any], None] | None,
    ) -> Iterator[Prediction]:
        state, seen = self.model.initial_state(1) if first is None else first, 0
        held: Prediction | None = None
        outages = Outages(self.rate)
        for piece in pieces:
            kept = piece[:: self.stride]
            odd = bad_frames(kept)
            if len(odd) and self.bad_frames == "refuse":
                raise ValueError(bad_frame_sentence(_number(int(odd[0]), seen, self.stride)))
            good = kept.isfinite().all(1)
            for i, fine in enumerate(good.tolist()):
                outages.saw(_number(i, seen, self.stride), good=fine)
            answer, state = self._answered(kept, good, len(piece), state, held)
            held = answer
            if after is not None:
                after(state)
            yield replace(answer, start=frames_to_seconds(seen, self.rate))
            seen += len(piece)
        outages.end()

    @torch.inference_mode()
    def _answered(
        self,
        kept: Float[Tensor, "step feature"],
        good: Bool[Tensor, " step"],
        observed: int,
        state: Any,
        held: Prediction | None,
    ) -> tuple[Prediction, Any]:
        """The answer to one piece, and the state after its good frames."""
        taken, answer = kept[good], held
        rows: list[Float[Tensor, "_ label"]] = []
        left = observed
        for part, ahead in self._parts(taken):
            frames = min(left, len(part) * self.stride)
            left -= frames
            x = _observation(part, self.rate, self.horizon, self.stride, frames, ahead)
            (answer,), state = self.model.step(x.to(self.device), state)
            if answer.past is not None:
                rows.append(answer.past)
        past = self._past(rows, good, held)
        if answer is None:
            answer = Prediction(taxonomy=self.model.taxonomy, rate=self.rate, observed=0, past=past)
        if past is not None:
            past = hold_frames(past, self.stride, observed)
        last = None if answer.ahead is None else answer.ahead[-1:]
        return replace(answer, past=past, ahead=last, observed=observed), state

    def _parts(
        self, taken: Float[Tensor, "step feature"]
    ) -> Iterator[tuple[Float[Tensor, "_ feature"], tuple[float, ...]]]:
        """Frames and the moments asked for after each: after the last alone they are of use."""
        moments = moments_of(self.model)
        if moments and len(taken) > 1:
            yield taken[:-1], ()
            taken = taken[-1:]
        if len(taken):
            yield taken, moments

    def _past(
        self,
        rows: Sequence[Float[Tensor, "_ label"]],
        good: Bool[Tensor, " step"],
        held: Prediction | None,
    ) -> Float[Tensor, "step label"] | None:
        """Answers about the good frames, each standing for the bad ones after it as well."""
        if held is not None and held.past is not None:
            before = held.past[-1:]
        elif rows or held is None:
            # A row of zeros names no action.
            like = rows[0] if rows else torch.zeros(1, len(self.model.taxonomy.labels))
            before = torch.zeros_like(like[:1])
        else:
            return None
        if not rows and bool(good.any()):
            return None
        return torch.cat([before, *rows])[good.cumsum(0).to(before.device)]


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
        x = _observation(past, rate, horizon, stride, seen - start, moments_of(model))
        (prediction,) = predict(model, x, device)
        last = None if prediction.ahead is None else prediction.ahead[-1:]
        yield replace(prediction, start=frames_to_seconds(start, rate), ahead=last)


def _observation(
    features: Float[Tensor, "time feature"],
    rate: float,
    horizon: int,
    stride: int,
    observed: int,
    ahead: tuple[float, ...],
) -> Observation:
    x = Observation.of_one(features, rate, horizon)
    return replace(x, stride=stride, observed=torch.tensor([observed]), ahead=ahead)
