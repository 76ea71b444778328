"""Top-k accuracy and class-mean recall of the next action, as on EPIC-KITCHENS-100.

The recall is that of https://arxiv.org/abs/2006.13256: `class_mean_recall`. Differs from RULSTM's
evaluation script:

- equal scores rank by ascending id; the script ranks the rows it filled with zeros by descending id
  (`ties="highest_id"`);
- a verb or noun that no action has gets probability 0; the script gives it the probability of
  action 0 (`absent="first_action"`).
"""

from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from actioncast.metrics.label_checks import check_integers, check_range

Ties = Literal["lowest_id", "highest_id"]
_NOUN_IDS = 1000


@dataclass(frozen=True, slots=True)
class SubsetRecall:
    """Class-mean recall in percent of all samples and of the two hard subsets, NaN where empty."""

    overall: float
    unseen: float
    tail: float


def in_top_k(
    scores: Float[np.ndarray, "sample label"],
    labels: Int[np.ndarray, " sample"],
    k: int = 5,
    *,
    ties: Ties = "lowest_id",
) -> Bool[np.ndarray, " sample"]:
    """Whether each label is among the k highest scores; `ties` says which of equals ranks first."""
    _check_samples(scores, labels, k)
    if ties not in ("lowest_id", "highest_id"):
        raise ValueError(f"ties must be 'lowest_id' or 'highest_id', got {ties!r}: choose one.")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    ids = np.arange(scores.shape[1])
    first = ids < labels[:, None] if ties == "lowest_id" else ids > labels[:, None]
    ahead = (scores > own) | ((scores == own) & first)
    return np.count_nonzero(ahead, axis=1) < k


def in_ranked(
    ranked: Int[np.ndarray, "sample rank"], labels: Int[np.ndarray, " sample"], k: int = 5
) -> Bool[np.ndarray, " sample"]:
    """Whether each label is among the first k ids of a ranking, as `rank_pairs` gives it."""
    return (ranked[:, :k] == labels[:, None]).any(axis=1)


def mean_over_classes(
    hits: Bool[np.ndarray, " sample"], labels: Int[np.ndarray, " sample"]
) -> float:
    """Share of hits in percent of each class that occurs, averaged over these; NaN without any."""
    _, position, support = np.unique(labels, return_inverse=True, return_counts=True)
    if not len(support):
        return np.nan
    return float(100.0 * (np.bincount(position, weights=hits) / support).mean())


def top_k_accuracy(
    scores: Float[np.ndarray, "sample label"],
    labels: Int[np.ndarray, " sample"],
    k: int = 1,
    *,
    ties: Ties = "lowest_id",
) -> float:
    """Percentage of samples whose label is among the k highest scores."""
    return float(100.0 * in_top_k(scores, labels, k, ties=ties).mean())


def class_mean_recall(
    scores: Float[np.ndarray, "sample label"],
    labels: Int[np.ndarray, " sample"],
    k: int = 5,
    *,
    ties: Ties = "lowest_id",
) -> float:
    """Class-mean top-k recall in percent, over the classes that occur in `labels`."""
    return mean_over_classes(in_top_k(scores, labels, k, ties=ties), labels)


def subset_recall(
    hits: Bool[np.ndarray, " sample"],
    labels: Int[np.ndarray, " sample"],
    *,
    is_unseen: Bool[np.ndarray, " sample"],
    is_tail: Bool[np.ndarray, " sample"],
) -> SubsetRecall:
    """Class-mean recall of all, unseen and tail samples, each over its own classes.

    Args:
        hits: What `in_top_k` or `in_ranked` found.
        labels: True classes.
        is_unseen: Whether the participant is absent from training.
        is_tail: Whether the class is rare in training; for actions see `tail_actions`.
    """
    return SubsetRecall(
        overall=mean_over_classes(hits, labels),
        unseen=mean_over_classes(hits[is_unseen], labels[is_unseen]),
        tail=mean_over_classes(hits[is_tail], labels[is_tail]),
    )


def tail_actions(
    verbs: Int[np.ndarray, " sample"],
    nouns: Int[np.ndarray, " sample"],
    *,
    tail_verbs: Set[int],
    tail_nouns: Set[int],
) -> Bool[np.ndarray, " sample"]:
    """Whether each action is in the tail: its verb is, or its noun."""
    return np.isin(verbs, list(tail_verbs)) | np.isin(nouns, list(tail_nouns))


def marginalise(
    action_probs: Float[np.ndarray, "sample action"],
    mapping: Int[np.ndarray, " action"],
    num_labels: int,
    *,
    absent: Literal["zero", "first_action"] = "zero",
) -> Float[np.ndarray, "sample label"]:
    """Sum the probabilities of the actions that have each verb, or each noun.

    Args:
        action_probs: Probabilities, not logits: sums of logits rank differently.
        mapping: The verb or noun of each action.
        num_labels: Number of verbs or nouns.
        absent: What a verb or noun of no action gets: 0, or the probability of action 0.
    """
    if len(mapping) and not 0 <= mapping.min() <= mapping.max() < num_labels:
        raise ValueError(
            f"mapping must lie in 0 to {num_labels - 1}, got {mapping.min()} to {mapping.max()}: "
            "pass the verb or noun id of each action."
        )
    probs = action_probs @ (mapping[:, None] == np.arange(num_labels)).astype(action_probs.dtype)
    if absent == "first_action":
        probs[:, np.bincount(mapping, minlength=num_labels) == 0] = action_probs[:, :1]
    return probs


def action_probs_of_pairs(
    verb_probs: Float[np.ndarray, "sample verb"],
    noun_probs: Float[np.ndarray, "sample noun"],
    pairs: Int[np.ndarray, "action 2"],
) -> Float[np.ndarray, "sample action"]:
    """Probability of each valid (verb, noun) from separate heads: their product."""
    return verb_probs[:, pairs[:, 0]] * noun_probs[:, pairs[:, 1]]


def rank_pairs(
    verb_scores: Float[np.ndarray, "sample verb"],
    noun_scores: Float[np.ndarray, "sample noun"],
    num_ranked: int = 100,
) -> Int[np.ndarray, "sample rank"]:
    """Rank actions that no head scores, as the EPIC-KITCHENS-100 challenge does.

    Softmax over the `num_ranked` best verbs times softmax over the `num_ranked` best nouns; any
    pair may be an action. Ids are those of `action_ids`. Equal products keep the order of the
    verbs, then of the nouns.
    """
    verbs, verb_probs = _top_probs(verb_scores, num_ranked)
    nouns, noun_probs = _top_probs(noun_scores, num_ranked)
    # A pair of ranks (i, j) is behind (i + 1) * (j + 1) - 1 others at least.
    rank_product = np.outer(np.arange(verbs.shape[1]) + 1, np.arange(nouns.shape[1]) + 1)
    verb_rank, noun_rank = np.nonzero(rank_product <= num_ranked)
    products = verb_probs[:, verb_rank] * noun_probs[:, noun_rank]
    order = np.argsort(-products, axis=1, kind="stable")[:, :num_ranked]
    ids = action_ids(verbs[:, verb_rank], nouns[:, noun_rank])
    return np.take_along_axis(ids, order, axis=1)


def action_ids(
    verbs: Int[np.ndarray, "*shape"], nouns: Int[np.ndarray, "*shape"]
) -> Int[np.ndarray, "*shape"]:
    """One id for each pair: 1000 * verb + noun."""
    if nouns.size and not 0 <= nouns.min() <= nouns.max() < _NOUN_IDS:
        raise ValueError(
            f"nouns must lie in 0 to {_NOUN_IDS - 1}, got {nouns.min()} to {nouns.max()}: "
            "two pairs would share an id."
        )
    return _NOUN_IDS * verbs + nouns


def _top_probs(
    scores: Float[np.ndarray, "sample label"], num_ranked: int
) -> tuple[Int[np.ndarray, "sample rank"], Float[np.ndarray, "sample rank"]]:
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :num_ranked]
    best = np.take_along_axis(scores, ids, axis=1)
    exponentials = np.exp(best - best[:, :1])
    return ids, exponentials / exponentials.sum(axis=1, keepdims=True)


def _check_samples(scores: np.ndarray, labels: np.ndarray, k: int) -> None:
    if len(scores) != len(labels) or not len(labels):
        raise ValueError(
            "scores must have one row for each label and at least one, got "
            f"{len(scores)} rows and {len(labels)} labels."
        )
    check_integers(labels, "true")
    check_range(labels, scores.shape[1])
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite, got NaN or infinity: they have no rank.")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}: 5 is usual.")
