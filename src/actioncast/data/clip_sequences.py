"""The actions of a video in their order: which were observed, and which come next."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

from actioncast.data.clip_samples import HEADS
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.protocols.coming import ComingActions

NUM_TIMES = 2
"""Columns about time of a token, see `ObservedSegments.read`."""


class ClipSequences:
    """The actions of each video of a part in the order of the annotation.

    An example is the last action that is observed: all before it are known, and those after it are
    asked for.
    """

    def __init__(self, dataset: ClipDataset, protocol: ComingActions) -> None:
        self.dataset, self.protocol = dataset, protocol
        self._rows: dict[str, tuple[tuple[ActionClip, ...], int]] = {}
        self._videos: dict[str, list[tuple[ActionClip, ...]]] = {}
        for part in dataset.clips:
            self._videos[part] = []
            for clips in dataset.by_video((part,)).values():
                # Where there are no places, actions stand in the order in which they start.
                row = tuple(sorted(clips, key=lambda clip: clip.place))
                self._videos[part].append(row)
                self._rows |= {clip.id: (row, i) for i, clip in enumerate(row)}

    def asked(self, part: str) -> tuple[ActionClip, ...]:
        """The last action observed of every example of a part.

        Raises:
            ValueError: No video is long enough.
        """
        self.dataset.part(part)
        found = tuple(row[i] for row in self._videos[part] for i in self.protocol.asked(len(row)))
        if not found:
            least = self.protocol.num_observed + self.protocol.num_actions
            raise ValueError(
                f"the {part} part of {self.dataset.name} must have a video of more than {least} "
                "actions, got none; ask for fewer."
            )
        return found

    def observed(self, clip: ActionClip) -> tuple[ActionClip, ...]:
        """The actions observed up to this one, at most `num_observed`."""
        row, i = self._row(clip)
        return row[max(0, i + 1 - self.protocol.num_observed) : i + 1]

    def next_clips(self, clip: ActionClip) -> tuple[ActionClip, ...]:
        """The actions after this one, at most `num_actions`."""
        row, i = self._row(clip)
        return row[i + 1 : i + 1 + self.protocol.num_actions]

    def coming(self, clip: ActionClip) -> dict[str, Int64[np.ndarray, " place"]]:
        """Labels of the actions after this one, by head; only for targets."""
        coming = self.next_clips(clip)
        return {head: np.array([one.label(head) for one in coming], np.int64) for head in HEADS}

    def truth(self, clips: Sequence[ActionClip]) -> dict[str, Int64[np.ndarray, "clip place"]]:
        """The verbs and nouns that came after clips that are asked about."""
        rows = [self.coming(clip) for clip in clips]
        return {head: np.stack([row[head] for row in rows]) for head in ("verb", "noun")}

    def _row(self, clip: ActionClip) -> tuple[tuple[ActionClip, ...], int]:
        if clip.id not in self._rows:
            raise ValueError(f"clip {clip.id} must be one of {self.dataset.name}, got another.")
        return self._rows[clip.id]


class ObservedSegments:
    """The observed actions as people named them: a source of tokens, see `clip_samples`.

    A modality without pixels, which tells what a recogniser would have to find out.
    """

    name = "history"

    def __init__(self, sequences: ClipSequences) -> None:
        self.sequences = sequences
        heads = sequences.dataset.taxonomy.heads
        self._sizes = len(heads["verb"]), len(heads["noun"])
        self.width = sum(self._sizes) + NUM_TIMES

    def read(self, clip: ActionClip) -> Float32[np.ndarray, "token feature"]:
        """One token an observed action, in order.

        Its features are the verb and the noun, one-hot, and ln(1 + s) of the seconds from its start
        to the end of what is observed and of those that it lasts until then.
        """
        seen, until = self.sequences.observed(clip), clip.stop
        tokens = np.zeros((len(seen), self.width), np.float32)
        for token, one in zip(tokens, seen, strict=True):
            token[[one.verb, self._sizes[0] + one.noun]] = 1
            # Actions overlap: one before the last in order may start, or stop, after its end.
            since, lasted = until - one.start, min(one.stop, until) - one.start
            token[-NUM_TIMES:] = np.log1p(np.maximum([since, lasted], 0))
        return tokens

    def labels(self, clip: ActionClip) -> Int64[np.ndarray, " token"]:
        """The action of each token."""
        return np.array([one.action for one in self.sequences.observed(clip)], np.int64)
