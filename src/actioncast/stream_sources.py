"""Whoever answers on a stream: the graphs of an exported one, or the model of a run."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from actioncast.checkpoint import Checkpoint
from actioncast.export.clam_names import PAST
from actioncast.export.description import StreamDescription
from actioncast.export.pace import Pace, pace_of
from actioncast.export.runtime import (
    BadFrames,
    ExportedStream,
    StreamState,
    read_state,
    write_state,
)
from actioncast.models.base import RecurrentAnticipator
from actioncast.models.clam import CLAM
from actioncast.models.clam_state import ClamState
from actioncast.scores import moments_of
from actioncast.streaming import StreamConfig, bad_frame_sentence, skipped_sentence, stream
from actioncast.timeline import run_lengths
from actioncast.types import Prediction, most_likely

Frames = Float[np.ndarray, "time feature"]
Incoming = Frames | Iterable[Float[np.ndarray, " feature"]]
"""Frames of a file, or one after another as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a stream says at one moment, of the head that names the action."""

    time: float
    """Seconds from the first frame of the stream to the end of the last one seen."""
    now: Float[np.ndarray, " label"] | None
    """Probabilities of what is under way."""
    ahead: tuple[tuple[str, Float[np.ndarray, " label"]], ...]
    """When, in words, and probabilities of what is under way then."""
    names: Sequence[str]
    """Of the labels."""


@runtime_checkable
class Source(Protocol):
    """Answers frame by frame."""

    pace: Pace
    """Of its frames."""
    width: int | None
    """Numbers of a frame, where the model says how many."""

    def answers(self, frames: Incoming, every: int) -> Iterator[Answer]:
        """One after every so many frames, as soon as they have come, and one for what is left."""

    def save(self) -> None:
        """Write the state to the file that was named, if one was."""


class ExportedSource:
    """The graphs of an exported stream.

    Args:
        folder: That `actioncast export` wrote.
        threads: Of the engine.
        rate: Of the features; 0 is that of the training data.
        bad_frames: What happens to a frame that holds NaN or infinity.
        state: File to go on from, if it is there, and to save to.
    """

    def __init__(
        self, folder: Path, threads: int, rate: float, bad_frames: BadFrames, state: Path | None
    ) -> None:
        self.runtime = ExportedStream(folder, threads, bad_frames)
        about = self.runtime.about
        self.pace = Pace(rate=rate or about.rate, stride=about.stride)
        self.width: int | None = about.feature_dim
        self.file = state
        self.state: StreamState = (
            self.runtime.restored(state)
            if state is not None and state.exists()
            else self.runtime.initial_state()
        )

    def answers(self, frames: Incoming, every: int) -> Iterator[Answer]:
        """See `Source`."""
        require_width(frames, self.width)
        stride, before, count = self.pace.stride, self.state.frames * self.pace.stride, 0
        for number, row in enumerate(frames):
            if number % stride == 0:
                frame = np.asarray(row, np.float32)
                self._check(frame, number)
                self.state = self.runtime.step(frame, self.state, answer=False).state
            count = number + 1
            if count % every == 0:
                yield self._answer((before + count) / self.pace.rate)
        if count % every:
            yield self._answer((before + count) / self.pace.rate)

    def _answer(self, seconds: float) -> Answer:
        about = self.runtime.about
        rows = self.runtime.answer(self.state)[about.primary]
        return Answer(
            time=seconds,
            now=self.state.past[about.primary][0],
            ahead=tuple(zip(_when(about), rows, strict=True)),
            names=about.heads[about.primary].names,
        )

    def save(self) -> None:
        """See `Source`."""
        if self.file is not None:
            self.runtime.save_state(self.state, self.file)

    def _check(self, frame: Float[np.ndarray, " feature"], number: int) -> None:
        """The runtime counts the frames that it is given; people count those of their file."""
        if np.isfinite(frame).all():
            return
        if self.runtime.bad_frames == "refuse":
            raise ValueError(bad_frame_sentence(number))
        warnings.warn(skipped_sentence([number]), stacklevel=2)


class ModelSource:
    """The model of a run.

    Args:
        checkpoint: Of the run.
        rate: Of the features; 0 is that of the training data.
        bad_frames: What happens to a frame that holds NaN or infinity.
        state: File to go on from, if it is there, and to save to; of CLAM alone.
        device: Where the model runs.
        window: Seconds that a model without a memory may look back.
        horizon: Seconds that a model which names every frame to come looks ahead.

    Raises:
        ValueError: Its state cannot be kept.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rate: float,
        bad_frames: BadFrames,
        state: Path | None,
        device: str,
        window: float,
        horizon: float,
    ) -> None:
        self.model = checkpoint.model.eval().to(device)
        trained = pace_of(checkpoint.run)
        self.pace = Pace(rate=rate or trained.rate, stride=trained.stride)
        self.bad_frames, self.file, self.device = bad_frames, state, device
        self.window, self.horizon = window, horizon
        width = getattr(getattr(self.model, "config", None), "feature_dim", None)
        self.width = None if width is None else int(width)
        self.state: ClamState | None = None
        self.frames = 0
        if state is None:
            return
        if not isinstance(self.model, CLAM):
            raise ValueError(
                f"--state is for CLAM, whose state can be kept, got {type(self.model).__name__}; "
                "leave it out."
            )
        if state.exists():
            tensors, about = read_state(state)
            own = {n: torch.from_numpy(t) for n, t in tensors.items() if not n.startswith(PAST)}
            self.state = self.model.restored(own, about["model"])
            self.frames = int(about["frames"])

    def answers(self, frames: Incoming, every: int) -> Iterator[Answer]:
        """See `Source`."""
        require_width(frames, self.width)
        earlier, stride = self.frames, self.pace.stride
        config = StreamConfig(
            window=max(self.window, every / self.pace.rate),
            step=every / self.pace.rate,
            horizon=self.horizon,
            bad_frames=self.bad_frames,
        )
        kept = isinstance(self.model, RecurrentAnticipator) and self.file is not None
        predictions = stream(
            self.model,
            _chunks(frames, every),
            self.pace.rate,
            config,
            self.pace.stride,
            self.device,
            first=self.state,
            after=self._keep if kept else None,
        )
        for prediction in predictions:
            self.frames = earlier + -(-round(prediction.now * self.pace.rate) // stride)
            yield self._answer(prediction, earlier * stride / self.pace.rate)

    def save(self) -> None:
        """See `Source`."""
        if self.file is not None and self.state is not None:
            tensors = {n: t.cpu().numpy() for n, t in self.state.tensors().items()}
            write_state(self.file, tensors, self.state.model, self.frames)

    def _keep(self, state: ClamState) -> None:
        self.state = state

    def _answer(self, prediction: Prediction, before: float) -> Answer:
        past, primary = prediction.past, self.model.taxonomy.primary
        found: Mapping[str, Tensor] = {}
        if prediction.ahead is not None:
            moments = moments_of(self.model)
            found = {f"in {s:g} s": r for s, r in zip(moments, prediction.ahead[-1], strict=True)}
        elif prediction.coming is not None:
            found = {f"next {i}": row for i, row in enumerate(prediction.coming[primary], 1)}
        elif prediction.next is not None:
            found = {"next": prediction.next[primary]}
        elif prediction.future is not None:
            starts = run_lengths(most_likely(prediction.future))
            found = {f"in {a / self.pace.rate:g} s": prediction.future[a] for _, a, _ in starts}
        return Answer(
            time=before + prediction.now,
            now=None if past is None or not len(past) else _array(past[-1]),
            ahead=tuple((when, _array(row)) for when, row in found.items()),
            names=self.model.taxonomy.labels.names,
        )


def require_width(frames: Incoming, width: int | None) -> None:
    """Raise a ValueError where the frames of a file are not of the width that a model reads."""
    if width is None or not isinstance(frames, np.ndarray):
        return
    if frames.ndim == 2 and frames.shape[1] == width:
        return
    turned = frames.ndim == 2 and frames.shape[0] == width
    raise ValueError(
        f"the features must have shape (time, {width}), as the model was trained on, got "
        f"{frames.shape}; {'transpose them' if turned else 'extract them with the same backbone'}."
    )


def _when(about: StreamDescription) -> list[str]:
    if about.num_coming:
        return [f"next {i}" for i in range(1, about.num_coming + 1)]
    return [f"in {seconds:g} s" for seconds in about.ahead]


def _chunks(frames: Incoming, size: int) -> Iterator[Float[Tensor, "_ feature"]]:
    """Those of a file in pieces; those that come one by one as they come."""
    if isinstance(frames, np.ndarray):
        for first in range(0, len(frames), size):
            # A copy: a memory map may be read-only.
            yield torch.from_numpy(np.array(frames[first : first + size], np.float32))
        return
    for row in frames:
        yield torch.from_numpy(np.array(row, np.float32))[None]


def _array(row: Float[Tensor, " label"]) -> Float[np.ndarray, " label"]:
    made: Any = row.float().cpu().numpy()
    return made
