"""Edit distance at Z of the long-term anticipation of Ego4D (https://arxiv.org/abs/2110.07058).

A swap of neighbours counts as two edits, as in Ego4D's released code; its text describes the
distance in which a swap is one (`distance="damerau"`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True)
class EditDistances:
    """Ego4D edit distances, fractions, lower is better: `at[z - 1]` is ED@z."""

    at: Float[np.ndarray, " step"]
    per_example: Float[np.ndarray, " example"]

    @property
    def aued(self) -> float:
        """Area under ED@1 to ED@Z divided by Z - 1; ED@1 itself where Z is 1."""
        if len(self.at) == 1:
            return float(self.at[0])
        return float((self.at[1:] + self.at[:-1]).sum() / 2 / (len(self.at) - 1))


def edit_at_z(
    predicted: Int[np.ndarray, "example step candidate"],
    truth: Int[np.ndarray, "example step"],
    *,
    distance: Literal["levenshtein", "damerau"] = "levenshtein",
) -> EditDistances:
    """Edit distance of the best candidate to the next Z actions, over Z, averaged over examples.

    The best candidate is chosen anew for every z. Score verbs, nouns and actions (`action_ids`)
    in separate calls: each has its own best candidate.

    Args:
        predicted: Candidate sequences of labels.
        truth: True labels of the next Z actions.
        distance: Whether a swap of neighbours is two edits or, in `damerau`, one.
    """
    if predicted.shape[:2] != truth.shape or not predicted.size:
        raise ValueError(
            "predicted must be (example, step, candidate) for the (example, step) of truth, got "
            f"{predicted.shape} and {truth.shape}: give every example K sequences of Z labels."
        )
    if distance not in ("levenshtein", "damerau"):
        raise ValueError(f"distance must be 'levenshtein' or 'damerau', got {distance!r}.")
    distances = _prefix_distances(predicted, truth, swaps=distance == "damerau")
    best = distances.min(axis=2) / np.arange(1, truth.shape[1] + 1)
    return EditDistances(at=best.mean(axis=0), per_example=best[:, -1])


def _prefix_distances(
    predicted: Int[np.ndarray, "example step candidate"],
    truth: Int[np.ndarray, "example step"],
    *,
    swaps: bool,
) -> Int[np.ndarray, "example step candidate"]:
    """Distance of every first z predicted steps to the first z true ones: a table's diagonal."""
    num_examples, num_steps, num_candidates = predicted.shape
    # As distance minus column, so that a running minimum settles all insertions of a row.
    above = np.zeros((num_examples, num_steps + 1, num_candidates), dtype=np.int64)
    before = above
    diagonal = np.empty_like(predicted)
    matches = np.zeros_like(above[:, 1:], dtype=bool)
    for row in range(num_steps):
        before_matches, matches = matches, predicted[:, row, None] == truth[:, :, None]
        best = above + 1
        np.minimum(best[:, 1:], above[:, :-1] - matches, out=best[:, 1:])
        if swaps:
            crossed = matches[:, :-1] & before_matches[:, 1:]
            swapped = np.where(crossed, before[:, :-2] - 1, best[:, 2:])
            np.minimum(best[:, 2:], swapped, out=best[:, 2:])
        before, above = above, np.minimum.accumulate(best, axis=1)
        diagonal[:, row] = above[:, row + 1] + row + 1
    return diagonal
