"""Whoever answers on a stream: the graphs of an exported one, or the model of a run."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from actioncast.checkpoint import Checkpoint
from actioncast.export.clam_names import PAST
from actioncast.export.pace import Pace, pace_of, whole_frames
from actioncast.export.runtime import BadFrames, ExportedStream, StreamState
from actioncast.export.state_file import KeptState, read_state, require_file, write_state
from actioncast.layers.moments import excluded
from actioncast.models.clam import CLAM
from actioncast.models.clam_state import ClamState
from actioncast.scores import moments_of
from actioncast.streaming import Outages, StreamConfig, bad_frame_sentence, stream
from actioncast.timeline import run_lengths
from actioncast.types import Prediction, most_likely

StateT = TypeVar("StateT")
Frames = Float[np.ndarray, "time feature"]
Incoming = Frames | Iterable[Float[np.ndarray, " feature"]]
"""Frames of a file, or one after another as they come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a stream says at one moment, of the head that names the action."""

    frames: int
    """Of the stream so far."""
    seconds: float
    """From the first frame of the stream to the end of the last one seen."""
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

    @property
    def frames(self) -> int:
        """Of the stream so far, those before it went on from a state too."""

    def answers(self, frames: Incoming, every: int) -> Iterator[Answer]:
        """One after every so many frames of the stream, as soon as they have come.

        One more is for what is left; where a state is kept, that waits for the rest of the stream.
        """

    def save(self) -> None:
        """Write the state to the file that was named, if one was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place(Generic[StateT]):
    """How far a stream has come; one value, so that whatever ends the stream leaves it whole."""

    state: StateT
    """After the last frame that was read."""
    frames: int
    """Of the stream so far, those that the stride leaves out too."""


class KeepingSource(ABC, Generic[StateT]):
    """A model whose state may be kept in a file.

    Args:
        pace: Of its frames.
        width: Numbers of a frame.
        bad_frames: What happens to a frame that holds NaN or infinity.
        file: To go on from, if it is there, and to save to.
        save_every: Frames between two writes of the state; 0 is none on the way.
    """

    def __init__(
        self,
        pace: Pace,
        width: int,
        bad_frames: BadFrames,
        file: Path | None,
        save_every: int,
    ) -> None:
        self.pace = pace
        self.width: int | None = width
        self.bad_frames, self.file, self.save_every = bad_frames, file, save_every
        if file is not None:
            require_file(file)
        if file is not None and file.exists():
            kept = read_state(file)
            self.place = Place(state=self.restored(kept), frames=kept.frames_at(pace.stride))
        else:
            self.place = Place(state=self.initial(), frames=0)

    @property
    def frames(self) -> int:
        """See `Source`."""
        return self.place.frames

    def answers(self, frames: Incoming, every: int) -> Iterator[Answer]:
        """See `Source`."""
        outages = Outages(self.pace.rate)
        for row in frames:
            state, number = self.place.state, self.place.frames
            if number % self.pace.stride == 0:
                frame = np.asarray(row, np.float32)
                good = bool(np.isfinite(frame).all())
                if not good and self.bad_frames == "refuse":
                    raise ValueError(bad_frame_sentence(number))
                outages.saw(number, good=good)
                if good:
                    state = self.taken(frame, state)
            self.place = Place(state=state, frames=number + 1)
            if self.save_every and self.frames % self.save_every == 0:
                self.save()
            if self.frames % every == 0:
                yield self.said()
        outages.end()
        # The rest of a stream that goes on would answer for these frames as well.
        if self.file is None and self.frames % every:
            yield self.said()

    def save(self) -> None:
        """See `Source`."""
        if self.file is None:
            return
        tensors, model = self.kept(self.place.state)
        steps = -(-self.frames // self.pace.stride)
        write_state(
            self.file, KeptState(tensors=tensors, model=model, steps=steps, frames=self.frames)
        )

    @abstractmethod
    def initial(self) -> StateT:
        """Nothing seen yet."""

    @abstractmethod
    def restored(self, kept: KeptState) -> StateT:
        """The state that a file held."""

    @abstractmethod
    def kept(self, state: StateT) -> tuple[dict[str, np.ndarray], str]:
        """What a file holds of a state, and the fingerprint of its model."""

    @abstractmethod
    def taken(self, frame: Float[np.ndarray, " feature"], state: StateT) -> StateT:
        """The state after one more frame."""

    @abstractmethod
    def said(self) -> Answer:
        """The answer at the place that the stream has come to; nothing before a good frame."""


class ExportedSource(KeepingSource[StreamState]):
    """The graphs of an exported stream.

    Args:
        folder: That `actioncast export` wrote.
        threads: Of the engine.
        rate: Of the features; 0 is that of the training data.
        bad_frames: What happens to a frame that holds NaN or infinity.
        state: File to go on from, if it is there, and to save to.
        save_every: Of the option of this name.
    """

    def __init__(
        self,
        folder: Path,
        threads: int,
        rate: float,
        bad_frames: BadFrames,
        state: Path | None,
        save_every: str,
    ) -> None:
        self.runtime = ExportedStream(folder, threads)
        about = self.runtime.about
        pace = Pace(rate=about.rate, stride=about.stride).given(rate)
        super().__init__(pace, about.feature_dim, bad_frames, state, saves(save_every, pace))

    def initial(self) -> StreamState:
        """See `KeepingSource`."""
        return self.runtime.initial_state()

    def restored(self, kept: KeptState) -> StreamState:
        """See `KeepingSource`."""
        return self.runtime.taken_over(kept)

    def kept(self, state: StreamState) -> tuple[dict[str, np.ndarray], str]:
        """See `KeepingSource`."""
        past = {PAST + head: row for head, row in state.past.items()}
        return {**state.tensors, **past}, state.model

    def taken(self, frame: Float[np.ndarray, " feature"], state: StreamState) -> StreamState:
        """See `KeepingSource`."""
        return self.runtime.step(frame, state, answer=False).state

    def said(self) -> Answer:
        """See `KeepingSource`."""
        about, state = self.runtime.about, self.place.state
        ahead: tuple[tuple[str, Float[np.ndarray, " label"]], ...] = ()
        if state.tensors["seen"].any():
            rows = self.runtime.answer(state)[about.primary]
            ahead = tuple(zip(_when(about.ahead, about.num_coming), rows, strict=True))
        return Answer(
            frames=self.frames,
            seconds=self.frames / self.pace.rate,
            now=state.past[about.primary][0],
            ahead=ahead,
            names=about.heads[about.primary].names,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClamPlace:
    """What CLAM carries on a stream."""

    own: ClamState
    """Of the model."""
    past: Mapping[str, Float[Tensor, "1 _"]]
    """The last answer about a frame, by head; zeros before the first."""


class ClamSource(KeepingSource[ClamPlace]):
    """The CLAM of a run.

    Args:
        checkpoint: Of the run.
        rate: Of the features; 0 is that of the training data.
        bad_frames: What happens to a frame that holds NaN or infinity.
        state: File to go on from, if it is there, and to save to.
        save_every: Of the option of this name.
        device: Where the model runs.

    Raises:
        ValueError: The model cannot answer frame by frame, or the state is that of another.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rate: float,
        bad_frames: BadFrames,
        state: Path | None,
        save_every: str,
        device: str,
    ) -> None:
        model = checkpoint.model
        assert isinstance(model, CLAM)
        self.model, self.device = model.eval().to(device), device
        config = model.config
        if not model.streams:
            raise ValueError(
                f"act_choice {config.act_choice} and gate_order {config.gate_order} look back from "
                "the end of all that was seen, which no stream can; take a model of act_choice "
                "last and gate_order recurrent."
            )
        pace = pace_of(checkpoint.run).given(rate)
        super().__init__(pace, config.feature_dim, bad_frames, state, saves(save_every, pace))

    @torch.inference_mode()
    def initial(self) -> ClamPlace:
        """See `KeepingSource`."""
        heads = self.model.taxonomy.heads
        past = {head: torch.zeros(1, len(labels)) for head, labels in heads.items()}
        return ClamPlace(own=self.model.initial_state(1), past=past)

    @torch.inference_mode()
    def restored(self, kept: KeptState) -> ClamPlace:
        """See `KeepingSource`."""
        given = {name: torch.from_numpy(part) for name, part in kept.tensors.items()}
        own = {name: part for name, part in given.items() if not name.startswith(PAST)}
        none = self.initial().past
        return ClamPlace(
            own=self.model.restored(own, kept.model),
            past={head: given.get(PAST + head, row) for head, row in none.items()},
        )

    def kept(self, state: ClamPlace) -> tuple[dict[str, np.ndarray], str]:
        """See `KeepingSource`."""
        past = {PAST + head: row for head, row in state.past.items()}
        tensors = {n: t.cpu().numpy() for n, t in {**state.own.tensors(), **past}.items()}
        return tensors, state.own.model

    @torch.inference_mode()
    def taken(self, frame: Float[np.ndarray, " feature"], state: ClamPlace) -> ClamPlace:
        """See `KeepingSource`."""
        features = torch.from_numpy(frame.copy()).to(self.device)
        tokens, own = self.model.take_in(features[None, None], state.own)
        return ClamPlace(own=own, past=self._probabilities(tokens[0]))

    @torch.inference_mode()
    def said(self) -> Answer:
        """See `KeepingSource`."""
        taxonomy, state = self.model.taxonomy, self.place.state
        ahead: tuple[tuple[str, Float[np.ndarray, " label"]], ...] = ()
        if state.own.seen.any():
            rows = self._probabilities(self.model.answer(state.own)[0])[taxonomy.primary]
            when = _when(self.model.ahead, self.model.config.num_coming)
            ahead = tuple((one, _array(row)) for one, row in zip(when, rows, strict=True))
        return Answer(
            frames=self.frames,
            seconds=self.frames / self.pace.rate,
            now=_array(state.past[taxonomy.primary][0]),
            ahead=ahead,
            names=taxonomy.labels.names,
        )

    def _probabilities(
        self, vectors: Float[Tensor, "row hidden"]
    ) -> dict[str, Float[Tensor, "row _"]]:
        first, heads = int(self.model.config.background_output), self.model.taxonomy.heads
        return {
            head: excluded(rows[..., first:].float(), heads[head].unknown_labels).softmax(-1)
            for head, rows in self.model.scores(vectors).items()
        }


class ModelSource:
    """The model of a run, one without a state that can be kept.

    Args:
        checkpoint: Of the run.
        rate: Of the features; 0 is that of the training data.
        bad_frames: What happens to a frame that holds NaN or infinity.
        device: Where the model runs.
        window: Seconds that a model without a memory may look back.
        horizon: Seconds that a model which names every frame to come looks ahead.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        rate: float,
        bad_frames: BadFrames,
        device: str,
        window: float,
        horizon: float,
    ) -> None:
        self.model = checkpoint.model.eval().to(device)
        self.pace = pace_of(checkpoint.run).given(rate)
        self.bad_frames, self.device = bad_frames, device
        self.window, self.horizon = window, horizon
        width = getattr(getattr(self.model, "config", None), "feature_dim", None)
        self.width = None if width is None else int(width)
        self._seen = 0

    @property
    def frames(self) -> int:
        """See `Source`."""
        return self._seen

    def answers(self, frames: Incoming, every: int) -> Iterator[Answer]:
        """See `Source`."""
        config = StreamConfig(
            window=max(self.window, every / self.pace.rate),
            step=every / self.pace.rate,
            horizon=self.horizon,
            bad_frames=self.bad_frames,
        )
        predictions = stream(
            self.model,
            _chunks(frames, every),
            self.pace.rate,
            config,
            self.pace.stride,
            self.device,
        )
        for prediction in predictions:
            self._seen = round(prediction.now * self.pace.rate)
            yield self._answer(prediction)

    def save(self) -> None:
        """See `Source`."""

    def _answer(self, prediction: Prediction) -> Answer:
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
            frames=self.frames,
            seconds=prediction.now,
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


def saves(save_every: str, pace: Pace) -> int:
    """Frames between two writes of the state, of `--save-every`; 0 where there are none."""
    if save_every.strip().lower() in ("0", "0s"):
        return 0
    return whole_frames("--save-every", save_every, pace)


def _when(ahead: Sequence[float], num_coming: int) -> list[str]:
    if num_coming:
        return [f"next {i}" for i in range(1, num_coming + 1)]
    return [f"in {seconds:g} s" for seconds in ahead]


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
