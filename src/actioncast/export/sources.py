"""Whoever answers on a stream and can keep its state; the graphs of an exported one do."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from actioncast.export.clam_names import PAST
from actioncast.export.pace import Pace, whole_frames
from actioncast.export.runtime import BadFrames, ExportedStream, StreamState
from actioncast.export.state_file import KeptState, read_state, require_file, write_state
from actioncast.streaming import Outages, bad_frame_sentence

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
            ahead = tuple(zip(when_said(about.ahead, about.num_coming), rows, strict=True))
        return Answer(
            frames=self.frames,
            seconds=self.frames / self.pace.rate,
            now=state.past[about.primary][0],
            ahead=ahead,
            names=about.heads[about.primary].names,
        )


def saves(save_every: str, pace: Pace) -> int:
    """Frames between two writes of the state, of `--save-every`; 0 where there are none."""
    if save_every.strip().lower() in ("0", "0s"):
        return 0
    return whole_frames("--save-every", save_every, pace)


def when_said(ahead: Sequence[float], num_coming: int) -> list[str]:
    """When each answer about what comes is due, in words."""
    if num_coming:
        return [f"next {i}" for i in range(1, num_coming + 1)]
    return [f"in {seconds:g} s" for seconds in ahead]
