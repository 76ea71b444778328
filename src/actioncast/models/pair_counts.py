"""Counts of what followed a context, looked up for many contexts at once."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

SMOOTHING = 0.5
"""Added to the count of every class."""


def counted_shares(labels: Int64[np.ndarray, " clip"], size: int) -> Float32[np.ndarray, " label"]:
    """How frequent each class is; none has a share of 0."""
    counts = np.bincount(labels, minlength=size) + SMOOTHING
    return (counts / counts.sum()).astype(np.float32)


def combined(
    columns: Sequence[Int64[np.ndarray, "*shape"]], size: int
) -> Int64[np.ndarray, "*shape"]:
    """One number for each combination of labels below `size`, or -1 for none."""
    key = np.zeros_like(columns[0])
    for column in columns:
        key = key * (size + 1) + column + 1
    return key


def last_verbs(
    verbs: Int64[np.ndarray, "clip place"],
    nouns: Int64[np.ndarray, "clip place"],
    asked: Int64[np.ndarray, "clip noun"],
) -> Int64[np.ndarray, "clip noun"]:
    """What was last done with each noun asked about; -1 where nothing was."""
    last = np.full(asked.shape, -1, np.int64)
    for verb, noun in zip(verbs.T, nouns.T, strict=True):
        last = np.where((asked == noun[:, None]) & (noun >= 0)[:, None], verb[:, None], last)
    return last


class ContextCounts:
    """How often each label followed each context."""

    def __init__(
        self, keys: Int64[np.ndarray, " clip"], labels: Int64[np.ndarray, " clip"], size: int
    ) -> None:
        self.size = size
        self.keys, context = np.unique(keys, return_inverse=True)
        seen, counts = np.unique(context * size + labels, return_counts=True)
        self.labels, self.counts = seen % size, counts
        # Those of context i lie from starts[i] to starts[i + 1].
        self.starts = np.searchsorted(seen // size, np.arange(len(self.keys) + 1))
        self.totals = np.bincount(context, minlength=len(self.keys))

    def refine(
        self,
        rows: Float32[np.ndarray, "clip label"],
        keys: Int64[np.ndarray, " clip"],
        discount: float,
    ) -> None:
        """Turn the probabilities of shorter contexts into those of these, in place.

        Absolute discounting: what is taken from the counts goes to the shorter context; a context
        that was never seen leaves a row as it is.
        """
        found, known = self._find(keys)
        at = found[known]
        kinds = np.diff(self.starts)[at]
        rows[known] *= (discount * kinds / self.totals[at])[:, None].astype(np.float32)
        within = np.arange(kinds.sum()) - np.repeat(np.cumsum(kinds) - kinds, kinds)
        entry = np.repeat(self.starts[at], kinds) + within
        taken = np.maximum(self.counts[entry] - discount, 0) / np.repeat(self.totals[at], kinds)
        rows[np.repeat(np.flatnonzero(known), kinds), self.labels[entry]] += taken

    def refine_pairs(
        self,
        rows: Float32[np.ndarray, "clip action"],
        keys: Int64[np.ndarray, "clip noun"],
        verbs: Int64[np.ndarray, " action"],
        nouns: Int64[np.ndarray, " action"],
        discount: float,
    ) -> Float32[np.ndarray, "clip action"]:
        """The same of the verbs of pairs whose context goes by the noun."""
        dense = np.zeros((len(self.keys), self.size), np.float32)
        kinds = np.diff(self.starts)
        context = np.repeat(np.arange(len(self.keys)), kinds)
        kept = np.maximum(self.counts - discount, 0) / self.totals[context]
        dense[context, self.labels] = kept
        rest = (discount * kinds / self.totals).astype(np.float32)
        found, known = self._find(keys)
        found, known = found[:, nouns], known[:, nouns]
        return np.where(known, dense[found, verbs] + rest[found] * rows, rows)

    def _find(
        self, keys: Int64[np.ndarray, "*shape"]
    ) -> tuple[Int64[np.ndarray, "*shape"], np.ndarray]:
        found = np.searchsorted(self.keys, keys).clip(0, len(self.keys) - 1)
        return found, self.keys[found] == keys
