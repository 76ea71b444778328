"""Training transcripts in one store, and an index of what followed which labels.

A transcript lists the actions of a video in order with the frames that each takes. An action lasts
until the next one starts, so a gap belongs to the action before it (a leading one to the first) and
of two that overlap the earlier ends early; neighbours with one label are one action.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from actioncast.timeline import Timeline, run_lengths, seconds_to_frames
from actioncast.types import Observation


@dataclass(frozen=True, slots=True)
class Transcript:
    """The actions of one video, or of the part that was observed."""

    labels: Int[np.ndarray, " segment"]
    durations: Int[np.ndarray, " segment"]
    """Frames."""

    @classmethod
    def of_timeline(cls, timeline: Timeline, rate: float, num_frames: int) -> "Transcript":
        """The transcript of a whole video."""
        starts = [seconds_to_frames(segment.start, rate) for segment in timeline]
        labels = [segment.label for segment in timeline]
        return cls._of_starts(np.array(labels, int), np.array(starts, int), num_frames)

    @classmethod
    def of_observation(cls, x: Observation, i: int) -> "Transcript":
        """What observation `i` of the batch has seen; steps without a label are gaps."""
        if x.labels is None:
            raise ValueError(
                "a counting model reads the observed labels, got an observation without them; "
                "set Observation.labels to annotated or recognised actions."
            )
        steps: np.ndarray = x.labels[i][x.valid[i]].cpu().numpy()
        runs = [(label, first) for label, first, _ in run_lengths(steps) if label >= 0]
        labels, starts = np.array(runs, int).reshape(-1, 2).T
        return cls._of_starts(labels, starts * x.stride, x.frames_observed(i))

    @classmethod
    def _of_starts(
        cls, labels: Int[np.ndarray, " any"], starts: Int[np.ndarray, " any"], num_frames: int
    ) -> "Transcript":
        starts = np.minimum(starts, num_frames)
        starts[:1] = 0
        lasting = np.diff(starts, append=num_frames) > 0
        labels, starts = labels[lasting], starts[lasting]
        first = np.diff(labels, prepend=-1) != 0
        return cls(labels[first], np.diff(starts[first], append=num_frames))


class TranscriptStore(nn.Module):
    """Transcripts laid end to end in buffers, which are saved and restored whatever their size."""

    labels: Int[torch.Tensor, " segment"]
    durations: Int[torch.Tensor, " segment"]
    offsets: Int[torch.Tensor, " bound"]
    rates: Float[torch.Tensor, " video"]
    groups: Int[torch.Tensor, " video"]

    def __init__(self) -> None:
        super().__init__()
        for name in ("labels", "durations", "groups"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))
        self.register_buffer("offsets", torch.zeros(1, dtype=torch.long))
        self.register_buffer("rates", torch.zeros(0, dtype=torch.float64))

    def fill(
        self, transcripts: Sequence[Transcript], rates: Sequence[float], groups: Sequence[str]
    ) -> None:
        """Replace what is stored. Videos without a group are a group each."""
        if not transcripts:
            raise ValueError(
                "there must be at least one training video to count, got none; "
                "check the training part of the split."
            )
        if bad := [i for i, t in enumerate(transcripts) if not len(t.labels)]:
            raise ValueError(
                f"a training video must hold at least one segment, got none in video {bad[0]} of "
                f"{len(transcripts)}; leave videos without annotation out."
            )
        names = [group or f"\0{i}" for i, group in enumerate(groups)]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
        lengths = [len(t.labels) for t in transcripts]
        self.labels = torch.from_numpy(np.concatenate([t.labels for t in transcripts]))
        self.durations = torch.from_numpy(np.concatenate([t.durations for t in transcripts]))
        self.offsets = torch.tensor([0, *np.cumsum(lengths).tolist()])
        self.rates = torch.tensor(rates, dtype=torch.float64)
        self.groups = torch.tensor([numbers[name] for name in names])

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name, own in list(self.named_buffers(recurse=False)):
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.shape != own.shape:
                setattr(self, name, own.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def transcript(self, video: int) -> Transcript:
        """One of the stored transcripts."""
        own = slice(*self.offsets[video : video + 2].tolist())
        return Transcript(self.labels[own].cpu().numpy(), self.durations[own].cpu().numpy())

    def read(self, *, relative: bool) -> "Corpus":
        """Everything stored, durations as shares of their video or in seconds."""
        if not len(self.labels):
            raise ValueError("the model must have counted before it predicts; call fit() first.")
        lengths = np.diff(self.offsets.cpu().numpy())
        videos = np.repeat(np.arange(len(lengths)), lengths)
        frames: np.ndarray = self.durations.cpu().numpy()
        num_frames = np.bincount(videos, frames)
        scale = num_frames if relative else self.rates.double().cpu().numpy()
        return Corpus(self.labels.cpu().numpy(), frames / scale[videos], videos)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Segments of many videos, one after another."""

    labels: Int[np.ndarray, " segment"]
    durations: Float[np.ndarray, " segment"]
    """Shares of the video, or seconds."""
    videos: Int[np.ndarray, " segment"]

    def select(self, chosen: Int[np.ndarray, " chosen"]) -> "Corpus":
        """The segments of the chosen videos alone."""
        kept = np.isin(self.videos, chosen)
        return Corpus(self.labels[kept], self.durations[kept], self.videos[kept])

    def shares(self, num_labels: int) -> Float[np.ndarray, " label"]:
        """The share of all time that each label takes."""
        time = np.bincount(self.labels, self.durations, num_labels)
        return time / time.sum()


@dataclass(frozen=True, slots=True, eq=False)
class SuffixIndex:
    """What came next wherever the longest known suffix of a history of labels occurred.

    A *slot* is a training segment or the start of a video. Slots are sorted by the labels up to
    them, last label first, so that the occurrences of a context are a range of slots. A *state* is
    a context of 1 to `context` labels that occurred `min_count` times or more, or a single label
    that occurred at all; state 0 is the empty context, which is every slot.
    """

    num_labels: int
    context: int
    next_labels: Int[np.ndarray, " slot"]
    """The label that followed; `num_labels` where the video ended."""
    next_states: Int[np.ndarray, "depth slot"]
    """The state after that label, when so many labels of the slot's own were known."""
    starts: Int[np.ndarray, " state"]
    """First slot of the state's context."""
    counts: Int[np.ndarray, " state"]
    """Slots of the state's context."""
    depths: Int[np.ndarray, " state"]
    """Labels in the state's context."""
    keys: tuple[Int[np.ndarray, " _"], ...]
    """For each depth, sorted: the state of the shorter context times the width, plus the label."""
    firsts: tuple[int, ...]
    """For each depth its first state."""

    @classmethod
    def of(cls, corpus: Corpus, num_labels: int, context: int, min_count: int) -> "SuffixIndex":
        """Index contexts of up to so many labels."""
        history, next_labels = _slots(corpus, num_labels, context)
        width = num_labels + 1
        state_of_slot = np.zeros(len(history), int)
        starts, counts, depths = [np.zeros(1, int)], [np.array([len(history)])], [np.zeros(1, int)]
        keys: list[np.ndarray] = []
        firsts: list[int] = []
        total = 1
        for depth in range(1, context + 1):
            key = state_of_slot * width + history[:, depth - 1]
            key[state_of_slot < 0] = -1
            unique, first, inverse, count = np.unique(
                key, return_index=True, return_inverse=True, return_counts=True
            )
            kept = (unique >= 0) & (count >= (1 if depth == 1 else min_count))
            state_of_slot = np.where(kept, total + np.cumsum(kept) - 1, -1)[inverse]
            keys.append(unique[kept])
            firsts.append(total)
            starts.append(first[kept])
            counts.append(count[kept])
            depths.append(np.full(kept.sum(), depth))
            total += int(kept.sum())
        index = cls(
            num_labels=num_labels,
            context=context,
            next_labels=next_labels,
            next_states=np.zeros((context + 1, len(history)), int),
            starts=np.concatenate(starts),
            counts=np.concatenate(counts),
            depths=np.concatenate(depths),
            keys=tuple(keys),
            firsts=tuple(firsts),
        )
        for depth in range(context + 1):
            after = np.column_stack([next_labels, history[:, :depth]])[:, :context]
            index.next_states[depth] = index.find(after)[:, -1]
        return index

    def find(self, history: Int[np.ndarray, "item back"]) -> Int[np.ndarray, "item back+1"]:
        """The states that fit histories, last label first; column d looks at d labels at most."""
        width = self.num_labels + 1
        found = np.zeros((len(history), history.shape[1] + 1), int)
        fits = np.ones(len(history), bool)
        for depth in range(1, history.shape[1] + 1):
            keys = self.keys[depth - 1]
            wanted = found[:, depth - 1] * width + history[:, depth - 1]
            at = np.searchsorted(keys, wanted)
            fits &= np.append(keys, -1)[at] == wanted
            found[:, depth] = np.where(fits, self.firsts[depth - 1] + at, found[:, depth - 1])
        return found

    def next_counts(self, state: int) -> Int[np.ndarray, " label"]:
        """How often each label followed the state's context; the end of the video is left out."""
        slots = slice(self.starts[state], self.starts[state] + self.counts[state])
        return np.bincount(self.next_labels[slots], minlength=self.num_labels + 1)[:-1]

    def next_probs(self, history: Int[np.ndarray, " back"]) -> Float[np.ndarray, " label"]:
        """How often each label followed the longest suffix that anything followed."""
        for state in self.find(history[None])[0][::-1].tolist():
            counts = self.next_counts(state)
            if counts.any():
                break
        return counts / counts.sum()


def _slots(
    corpus: Corpus, num_labels: int, context: int
) -> tuple[Int[np.ndarray, "slot back"], Int[np.ndarray, " slot"]]:
    # One code serves both ends: a slot is never after the end, a next label never before the start.
    outside = num_labels
    opens = np.flatnonzero(np.diff(corpus.videos, prepend=-1))
    labels = np.insert(corpus.labels, opens, outside)
    since_open = np.arange(len(labels))
    since_open -= np.maximum.accumulate(np.where(labels == outside, since_open, 0))
    history = np.full((len(labels), context), outside)
    for back in range(context):
        known = np.flatnonzero(since_open >= back)
        history[known, back] = labels[known - back]
    order = np.lexsort(history.T[::-1])
    return history[order], np.append(labels[1:], outside)[order]
