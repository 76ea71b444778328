"""The model of a run as whoever answers on a stream: CLAM, which keeps a state, or any other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from actioncast.checkpoint import Checkpoint
from actioncast.export.clam_names import PAST
from actioncast.export.pace import pace_of
from actioncast.export.runtime import BadFrames
from actioncast.export.sources import Answer, Incoming, KeepingSource, saves, when_said
from actioncast.export.state_file import KeptState
from actioncast.layers.moments import excluded
from actioncast.models.clam import CLAM
from actioncast.models.clam_state import ClamState
from actioncast.scores import moments_of
from actioncast.streaming import StreamConfig, stream
from actioncast.timeline import run_lengths
from actioncast.types import Prediction, most_likely


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
            when = when_said(self.model.ahead, self.model.config.num_coming)
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
