"""What people who deploy a stream ask: how late, how often for nothing, how far ahead, how current.

All functions take one video; axis 0 runs over the steps at which the model answered, `rate` of them
a second. A label is *named* at a step where its score is the highest (of equals the first, of a row
of zeros none), or, with a threshold, where its score reaches it. An action is a maximal run of true
steps of one label.
"""

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, slots=True)
class DelaySummary:
    """Seconds over all starts that were found, and the share of those that were not."""

    median: float
    mean: float
    missed: float
    """A fraction of all starts; NaN without any."""


def named_labels(
    scores: Float[np.ndarray, "time label"], threshold: float | None = None
) -> Bool[np.ndarray, "time label"]:
    """Which labels a model names at each step."""
    if threshold is not None:
        return scores >= threshold
    named = np.zeros(scores.shape, bool)
    rows = np.flatnonzero(scores.any(1))
    named[rows, scores[rows].argmax(1)] = True
    return named


def onset_delays(
    scores: Float[np.ndarray, "time label"],
    truth: Bool[np.ndarray, "time label"],
    rate: float,
    *,
    skip: Set[int] = frozenset(),
    threshold: float | None = None,
) -> Float[np.ndarray, " start"]:
    """Seconds from the start of each true action to the first of its steps that names it.

    NaN where none of its steps does: a missed start.

    Args:
        scores: Of each step.
        truth: Labels under way at each step; several may be.
        rate: Steps per second.
        skip: Labels that are no actions.
        threshold: Score that names a label; absent, the highest does.
    """
    named = named_labels(scores, threshold)
    delays = []
    for label, start, end in _actions(truth, skip):
        found = np.flatnonzero(named[start:end, label])
        delays.append(found[0] / rate if len(found) else np.nan)
    return np.array(delays, float)


def summarised(delays: Float[np.ndarray, " start"]) -> DelaySummary:
    """Median, mean and share missed of the delays of any number of videos."""
    found = delays[~np.isnan(delays)]
    if not len(found):
        return DelaySummary(np.nan, np.nan, 1.0 if len(delays) else np.nan)
    return DelaySummary(float(np.median(found)), float(found.mean()), 1 - len(found) / len(delays))


def false_alarms(
    scores: Float[np.ndarray, "time label"],
    truth: Bool[np.ndarray, "time label"],
    *,
    skip: Set[int] = frozenset(),
    ambiguous: int | None = None,
    threshold: float | None = None,
) -> int:
    """Maximal runs of a named action that share no step with a true one of that label.

    A run that touches an ambiguous step is no alarm: the annotators could not say either.

    Args:
        scores: Of each step.
        truth: Labels under way at each step; several may be.
        skip: Labels that are no actions.
        ambiguous: Column of steps of which the truth is not known.
        threshold: Score that names a label; absent, the highest does.
    """
    excused = truth if ambiguous is None else truth | truth[:, ambiguous, None]
    named = named_labels(scores, threshold)
    return sum(not excused[start:end, label].any() for label, start, end in _actions(named, skip))


def per_hour(count: int, num_steps: int, rate: float) -> float:
    """Events an hour of so many steps at `rate` steps per second; NaN of no time at all."""
    return count * rate * 3600 / num_steps if num_steps else math.nan


def time_to_action_errors(
    ahead: Float[np.ndarray, "time moment label"],
    truth: Bool[np.ndarray, "time label"],
    shifts: Sequence[int],
    rate: float,
    *,
    skip: Set[int] = frozenset(),
) -> Float[np.ndarray, " start"]:
    """How wrong a model was about the time left, in seconds, when it first foresaw each action.

    An action of label l that starts at step a can be foreseen at the steps t before a that are at
    most the longest moment away and come after any earlier action of l has ended. It is foreseen
    at the first such t at which the model names l at any moment. The model's time left is then the
    shortest moment at which it names l, the true one the shortest moment at which l is truly under
    way (a - t, where it is at none); the error is what lies between them. NaN where an action is
    never foreseen. Actions that no perfect answer could foresee do not count: those that start
    with the video, and those that all moments step over. The moments are the resolution: where
    there is one alone, no error can be made.

    Args:
        ahead: Entry [t, i] was said at step t, about step t + `shifts[i]`.
        truth: Labels under way at each step; several may be.
        shifts: Steps ahead of each moment, increasing.
        rate: Steps per second.
        skip: Labels that are no actions.
    """
    moments: Int[np.ndarray, " moment"] = np.array(shifts, int)
    named = np.stack([named_labels(ahead[:, i]) for i in range(len(shifts))], 1)
    errors = []
    ended: dict[int, int] = {}
    for label, start, end in _actions(truth, skip):
        first = max(0, ended.get(label, 0), start - int(moments.max()))
        ended[label] = end
        reached = np.arange(first, start)[:, None] + moments
        if not ((reached >= start) & (reached < end)).any():
            continue
        said = named[first:start, :, label]
        found = np.flatnonzero(said.any(1))
        if not len(found):
            errors.append(np.nan)
            continue
        at = int(found[0])
        within = reached[at] < len(truth)
        coming = within & truth[np.where(within, reached[at], 0), label]
        left = moments[coming.argmax()] if coming.any() else start - first - at
        errors.append(abs(float(moments[said[at].argmax()] - left)) / rate)
    return np.array(errors, float)


def steps_late(latency: float, rate: float) -> int:
    """Whole steps after which an answer that takes `latency` seconds is there."""
    if not latency >= 0 or not math.isfinite(latency):
        raise ValueError(f"latency must be 0 seconds or more, got {latency}.")
    # What arithmetic adds to a whole number of steps is no step of its own.
    return math.ceil(round(latency * rate, 6))


def available(
    scores: Float[np.ndarray, "time *rest"], rate: float, latency: float
) -> Float[np.ndarray, "time *rest"]:
    """The newest scores that are there at each step, when each takes `latency` seconds to make.

    Those of step t come at t + latency and so stand at step t + ceil(latency * rate); before the
    first have come all are zero. What was said about s steps ahead is then about that much less.
    """
    late = min(steps_late(latency, rate), len(scores))
    shifted = np.zeros_like(scores)
    shifted[late:] = scores[: len(scores) - late]
    return shifted


def _actions(
    active: Bool[np.ndarray, "time label"], skip: Set[int]
) -> Iterator[tuple[int, int, int]]:
    """Maximal runs as (label, first, end), by label and then by time."""
    edges = np.diff(active.astype(np.int8), axis=0, prepend=0, append=0)
    for label in range(active.shape[1]):
        if label in skip:
            continue
        starts, ends = (np.flatnonzero(edges[:, label] == sign) for sign in (1, -1))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            yield label, start, end
