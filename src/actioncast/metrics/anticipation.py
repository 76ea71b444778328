"""Scores of anticipated actions: mean over classes, class-mean recall, edit distance at Z.

- Long-term anticipation (Abu Farha et al., https://arxiv.org/abs/1804.00892): `long_term_scores`.
- Next action on EPIC-KITCHENS-100 (https://arxiv.org/abs/2006.13256): `class_mean_recall`.
- Long-term anticipation of Ego4D (https://arxiv.org/abs/2110.07058): `edit_at_z`.

Differs from the evaluation scripts:

- frames of the window that a prediction lacks are wrong; the scripts shorten the window
  (`missing="skip"`);
- equal scores rank by ascending id; RULSTM's script ranks the rows it filled with zeros by
  descending id (`ties="highest_id"`);
- a verb or noun that no action has gets probability 0; RULSTM's script gives it the probability of
  action 0 (`absent="first_action"`);
- `edit_at_z` counts a swap of neighbours as two edits, as Ego4D's released code does; its text
  describes the distance in which a swap is one (`distance="damerau"`).
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

HORIZON_RATIOS = (0.1, 0.2, 0.3, 0.5)
Ties = Literal["lowest_id", "highest_id"]
_NOUN_IDS = 1000
_NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class LongTermCell:
    """Frames of every class in the windows of one (observed ratio, horizon ratio)."""

    observed_ratio: float
    horizon_ratio: float
    correct: Int[np.ndarray, " label"]
    total: Int[np.ndarray, " label"]

    @property
    def moc(self) -> float:
        """Mean over classes in percent."""
        return moc(self.correct, self.total)


@dataclass(frozen=True, slots=True)
class SubsetRecall:
    """Class-mean recall in percent of all samples and of the two hard subsets, NaN where empty."""

    overall: float
    unseen: float
    tail: float


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


def future_window(num_frames: int, observed_ratio: float, horizon_ratio: float) -> tuple[int, int]:
    """First frame of the evaluated window and the frame after its last.

    The products are those of floats, as in every published table: 0.2 + 0.5 of 90 frames is 62.
    """
    end = int((observed_ratio + horizon_ratio) * num_frames)
    return int(observed_ratio * num_frames), min(end, num_frames)


def moc_counts(
    predicted: Int[np.ndarray, " _"], truth: Int[np.ndarray, " _"], num_labels: int
) -> tuple[Int[np.ndarray, " label"], Int[np.ndarray, " label"]]:
    """Correct frames and all frames of each true class. A prediction may be any integer."""
    if predicted.shape != truth.shape:
        raise ValueError(
            "predicted and truth must have the same frames, got "
            f"{len(predicted)} and {len(truth)}: cut both to the window."
        )
    _check_integers(predicted, "predicted")
    _check_integers(truth, "true")
    _check_range(truth, num_labels)
    correct = np.bincount(truth[predicted == truth], minlength=num_labels)
    return correct, np.bincount(truth, minlength=num_labels)


def moc(correct: Int[np.ndarray, " label"], total: Int[np.ndarray, " label"]) -> float:
    """Mean over classes in percent; a class without a frame is left out, NaN if all are."""
    present = total > 0
    return float(100.0 * (correct[present] / total[present]).mean()) if present.any() else np.nan


def long_term_scores(
    predicted: Mapping[float, Sequence[Int[np.ndarray, " _"]]],
    truth: Sequence[Int[np.ndarray, " _"]],
    num_labels: int,
    *,
    horizon_ratios: tuple[float, ...] = HORIZON_RATIOS,
    missing: Literal["wrong", "skip"] = "wrong",
) -> tuple[LongTermCell, ...]:
    """Score every observed ratio at every horizon ratio, frames pooled over the videos.

    Args:
        predicted: For each observed ratio, the future of each video: its first frame is frame
            `int(observed_ratio * T)` of T. Labels outside the vocabulary are wrong.
        truth: True labels of the whole of each video.
        num_labels: Size of the vocabulary.
        horizon_ratios: Lengths of the windows in shares of the whole video.
        missing: Whether frames that a prediction lacks are wrong or left out.

    Returns:
        One cell for each pair, horizons within observed ratios, in the order given.

    Raises:
        ValueError: Videos, labels or ratios do not fit.
    """
    if missing not in ("wrong", "skip"):
        raise ValueError(f"missing must be 'wrong' or 'skip', got {missing!r}: choose one.")
    if not len(truth):
        raise ValueError("truth must hold at least one video, got none: pass labels.")
    for video, labels in enumerate(truth):
        _check_integers(labels, "true", video)
    cells: list[LongTermCell] = []
    for observed_ratio, futures in predicted.items():
        if len(futures) != len(truth):
            raise ValueError(
                f"predicted[{observed_ratio}] must hold the {len(truth)} videos of truth, got "
                f"{len(futures)}: pass one future for each video."
            )
        for video, future in enumerate(futures):
            _check_integers(future, "predicted", video)
        for ratio in horizon_ratios:
            if min(observed_ratio, ratio) <= 0 or observed_ratio + ratio > 1 + 1e-9:
                raise ValueError(
                    "observed and horizon ratio must be positive and sum to at most 1, got "
                    f"{observed_ratio} and {ratio}: the rest of the video has no labels."
                )
        increasing = tuple(sorted(set(horizon_ratios)))
        correct, total = _nested_counts(
            futures, truth, num_labels, observed_ratio, increasing, skip=missing == "skip"
        )
        for ratio in horizon_ratios:
            row = increasing.index(ratio)
            cells.append(LongTermCell(observed_ratio, ratio, correct[row], total[row]))
    return tuple(cells)


def _nested_counts(
    futures: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    num_labels: int,
    observed_ratio: float,
    increasing: tuple[float, ...],
    *,
    skip: bool,
) -> tuple[Int[np.ndarray, "window label"], Int[np.ndarray, "window label"]]:
    """Count each frame once, in the shortest window that has it; longer windows add the shorter."""
    num_frames = np.array([len(labels) for labels in truth])
    start = (observed_ratio * num_frames).astype(np.int64)
    ends = ((observed_ratio + np.array(increasing)) * num_frames[:, None]).astype(np.int64)
    ends = np.minimum(ends, num_frames[:, None]) - start[:, None]
    if skip:
        ends = np.minimum(ends, np.array([[len(future)] for future in futures]))
    bounds = np.cumsum([0, *ends[:, -1]])
    frames = np.full(bounds[-1], _NO_LABEL)
    true_frames = np.empty_like(frames)
    for video, (future, labels) in enumerate(zip(futures, truth, strict=True)):
        first, last = bounds[video], bounds[video + 1]
        answer = future[: last - first]
        frames[first : first + len(answer)] = answer
        true_frames[first:last] = labels[start[video] : start[video] + last - first]

    is_cut = np.ones(len(frames) + 1, dtype=bool)
    np.not_equal(frames[1:], frames[:-1], out=is_cut[1:-1])
    is_cut[1:-1] |= true_frames[1:] != true_frames[:-1]
    is_cut[bounds[:-1, None] + ends] = True
    # From one cut to the next nothing changes: not the labels, not the window.
    cuts = np.flatnonzero(is_cut)
    piece, length = cuts[:-1], np.diff(cuts)
    label = true_frames[piece]
    _check_range(label, num_labels)
    is_correct = frames[piece] == label
    video_of = np.searchsorted(bounds, piece, side="right") - 1
    window = (ends[video_of] <= (piece - bounds[video_of])[:, None]).sum(axis=1)
    cell = window * num_labels + label
    shape = (len(increasing), num_labels)
    total = np.bincount(cell, length, minlength=shape[0] * shape[1]).reshape(shape)
    correct = np.bincount(cell, length * is_correct, minlength=total.size).reshape(shape)
    return correct.cumsum(axis=0).astype(np.int64), total.cumsum(axis=0).astype(np.int64)


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
    _check_integers(labels, "true")
    _check_range(labels, scores.shape[1])
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite, got NaN or infinity: they have no rank.")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}: 5 is usual.")


def _check_integers(labels: np.ndarray, name: str, video: int = 0) -> None:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(
            f"{name} labels (item {video}) must be integers along one axis, got {labels.dtype} of "
            f"shape {labels.shape}: map names to label ids first."
        )


def _check_range(labels: np.ndarray, num_labels: int) -> None:
    if labels.size and not 0 <= labels.min() <= labels.max() < num_labels:
        raise ValueError(
            f"true labels must lie in 0 to {num_labels - 1}, got {labels.min()} to {labels.max()}: "
            "use the ids of one vocabulary."
        )
