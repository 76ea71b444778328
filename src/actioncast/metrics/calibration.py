"""How far stated probabilities can be trusted: reliability, Brier score, log likelihood.

The expected calibration error is that of Guo et al. (https://arxiv.org/abs/1706.04599): samples are
binned by the probability of their most probable label. All are pure functions of probabilities and
true labels; lower is better.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True)
class ReliabilityBins:
    """Equal bins of confidence, each without its lower edge; an empty bin has NaN means."""

    edges: Float[np.ndarray, " edge"]
    num_samples: Int[np.ndarray, " bin"]
    confidence: Float[np.ndarray, " bin"]
    accuracy: Float[np.ndarray, " bin"]


def reliability_bins(
    probs: Float[np.ndarray, "sample label"],
    labels: Int[np.ndarray, " sample"],
    num_bins: int = 15,
) -> ReliabilityBins:
    """Mean confidence and share of correct samples in each bin of confidence, fractions."""
    _check(probs, labels)
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}: 15 is usual.")
    confidence = probs.max(axis=1).astype(np.float64)
    is_correct = probs.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    position = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    num_samples = np.bincount(position, minlength=num_bins)
    divisor = np.where(num_samples == 0, np.nan, num_samples)
    return ReliabilityBins(
        edges=edges,
        num_samples=num_samples,
        confidence=np.bincount(position, weights=confidence, minlength=num_bins) / divisor,
        accuracy=np.bincount(position, weights=is_correct, minlength=num_bins) / divisor,
    )


def expected_calibration_error(
    probs: Float[np.ndarray, "sample label"],
    labels: Int[np.ndarray, " sample"],
    num_bins: int = 15,
) -> float:
    """Distance of confidence and accuracy, averaged over the bins by their samples, a fraction."""
    bins = reliability_bins(probs, labels, num_bins)
    gap = np.nan_to_num(np.abs(bins.confidence - bins.accuracy))
    return float((gap * bins.num_samples).sum() / len(labels))


def brier_score(
    probs: Float[np.ndarray, "sample label"], labels: Int[np.ndarray, " sample"]
) -> float:
    """Mean squared distance to the one-hot truth, summed over labels: 0 is perfect, 2 the worst."""
    _check(probs, labels)
    is_true = labels[:, None] == np.arange(probs.shape[1])
    return float(((probs.astype(np.float64) - is_true) ** 2).sum(axis=1).mean())


def negative_log_likelihood(
    probs: Float[np.ndarray, "sample label"], labels: Int[np.ndarray, " sample"]
) -> float:
    """Mean of -log(probability of the truth) in nats; infinite once a truth was held impossible."""
    _check(probs, labels)
    of_truth = np.take_along_axis(probs, labels[:, None], axis=1).astype(np.float64)
    with np.errstate(divide="ignore"):
        return float(-np.log(of_truth).mean())


def _check(probs: np.ndarray, labels: np.ndarray) -> None:
    if len(probs) != len(labels) or not len(labels):
        raise ValueError(
            "probs must have one row for each label and at least one, got "
            f"{len(probs)} rows and {len(labels)} labels."
        )
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < probs.shape[1]:
        raise ValueError(
            f"labels must be integers in 0 to {probs.shape[1] - 1}, got {labels.dtype} from "
            f"{labels.min()} to {labels.max()}: use the ids of one vocabulary."
        )
    # Written so that NaN fails too.
    if not ((probs >= 0).all() and np.allclose(probs.sum(axis=1, dtype=np.float64), 1, atol=1e-3)):
        raise ValueError(
            "probs must be at least 0 and sum to 1 for each sample, got rows that do not: "
            "apply softmax to logits first."
        )
