"""A model of streams on whole videos, scored at every step, with what a deployment feels of it.

docs/protocols.md defines every number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from actioncast.data.base import Video
from actioncast.inference import InferenceConfig
from actioncast.layers.moments import steps_ahead
from actioncast.metrics import (
    Alignment,
    anticipation_scores,
    available,
    compared,
    detection_scores,
    drop_ambiguous,
    false_alarms,
    named_labels,
    onset_delays,
    per_hour,
    summarised,
    time_to_action_errors,
)
from actioncast.models.base import Anticipator
from actioncast.online_running import OnlineAnswers, Rows, Truth, answer_online
from actioncast.progress import Progress, silent
from actioncast.protocols.online import Online
from actioncast.scores import Scores, require_task
from actioncast.timeline import LabelSpace
from actioncast.types import Task


def score_online(
    model: Anticipator,
    videos: Sequence[Video],
    protocol: Online,
    config: InferenceConfig,
    progress: Progress = silent,
) -> Scores:
    """Score a model of streams at every step of whole videos.

    Raises:
        ValueError: The model does not answer online, or not at these moments, or a moment lies
            between two steps.
    """
    require_task(model, Task.ONLINE)
    if not videos:
        raise ValueError("online scores need a video at least, got none.")
    labels, rate = model.taxonomy.labels, videos[0].rate / config.stride
    shifts = steps_ahead(protocol.ahead, videos[0].rate, config.stride)
    answers = answer_online(model, videos, protocol, config, progress)
    total = {
        **_detection(answers, protocol, labels),
        **_anticipation(answers, protocol, labels, shifts),
        **_streaming(answers, protocol, labels, shifts, rate),
        **_latency(answers, protocol, labels, rate),
    }
    leading = [total["mAP"], *([total["mAP ahead"]] if shifts else [])]
    rows = {
        video.id: _row(one, protocol, labels, shifts, rate)
        for video, one in zip(videos, answers, strict=True)
    }
    return Scores(total={**total, "mean": float(np.mean(leading))}, videos=rows)


def _kept(
    rows: Rows, truth: Truth, protocol: Online, labels: LabelSpace
) -> tuple[Float[np.ndarray, "kept label"], Bool[np.ndarray, "kept label"]]:
    """Without the steps that are left out."""
    column = protocol.left_out_label(labels)
    return (rows, truth) if column is None else drop_ambiguous(rows, truth, column)


def _detection(
    answers: Sequence[OnlineAnswers], protocol: Online, labels: LabelSpace
) -> dict[str, float]:
    rows = np.concatenate([one.past for one in answers])
    truth = np.concatenate([one.truth for one in answers])
    kept = _kept(rows, truth, protocol, labels)
    found = detection_scores(*kept, skip=protocol.skipped(labels))
    return {
        "mAP": 100 * found.mean_ap,
        "cAP": 100 * found.mean_calibrated_ap,
        "mof": _accuracy([kept]),
    }


def _anticipation(
    answers: Sequence[OnlineAnswers], protocol: Online, labels: LabelSpace, shifts: Sequence[int]
) -> dict[str, float]:
    if not shifts:
        return {}
    found = anticipation_scores(
        [one.ahead for one in answers],
        [one.truth for one in answers],
        skip=protocol.skipped(labels),
        ambiguous=protocol.left_out_label(labels),
        shifts=shifts,
        alignment=protocol.alignment,
    )
    due = [_due(one, shifts, protocol.alignment) for one in answers]
    by_moment: dict[str, list[float]] = {
        "mAP": [100 * moment.mean_ap for moment in found],
        "cAP": [100 * moment.mean_calibrated_ap for moment in found],
        "mof": [
            _accuracy([_kept(*video[i], protocol, labels) for video in due])
            for i in range(len(shifts))
        ],
    }
    return {
        name: value
        for metric, values in by_moment.items()
        for name, value in (
            (f"{metric} ahead", float(np.mean(values))),
            *((f"{metric} {s:g}s", v) for s, v in zip(protocol.ahead, values, strict=True)),
        )
    }


def _due(
    one: OnlineAnswers, shifts: Sequence[int], alignment: Alignment
) -> list[tuple[Rows, Truth]]:
    """By moment, the answers about a step of the video and the labels of that step."""
    pairs = compared(one.ahead, one.truth, shifts, alignment)
    if alignment == "target":
        # About the first steps nothing was said: they cannot be named right or wrong.
        pairs = [(rows[s:], truth[s:]) for s, (rows, truth) in zip(shifts, pairs, strict=True)]
    return pairs


def _accuracy(
    pairs: Sequence[tuple[Float[np.ndarray, "_ label"], Bool[np.ndarray, "_ label"]]],
) -> float:
    """Percent of steps whose most likely label is under way; NaN of none."""
    right = [(named_labels(rows) & truth).any(1) for rows, truth in pairs]
    hits = np.concatenate(right) if right else np.zeros(0)
    return float(100 * hits.mean()) if len(hits) else np.nan


def _streaming(
    answers: Sequence[OnlineAnswers],
    protocol: Online,
    labels: LabelSpace,
    shifts: Sequence[int],
    rate: float,
) -> dict[str, float]:
    skip, ambiguous = protocol.skipped(labels), protocol.left_out_label(labels)
    delays = summarised(
        np.concatenate([onset_delays(one.past, one.truth, rate, skip=skip) for one in answers])
    )
    alarms = sum(
        false_alarms(one.past, one.truth, skip=skip, ambiguous=ambiguous) for one in answers
    )
    found = {
        "onset delay (s)": delays.median,
        "mean onset delay (s)": delays.mean,
        "missed starts": 100 * delays.missed,
        "false alarms/h": per_hour(alarms, sum(len(one.past) for one in answers), rate),
    }
    if shifts:
        errors = summarised(
            np.concatenate(
                [
                    time_to_action_errors(one.ahead, one.truth, shifts, rate, skip=skip)
                    for one in answers
                ]
            )
        )
        found |= {
            "time-to-action error (s)": errors.mean,
            "never foreseen": 100 * errors.missed,
        }
    return found


def _latency(
    answers: Sequence[OnlineAnswers], protocol: Online, labels: LabelSpace, rate: float
) -> dict[str, float]:
    """Detection scored when its answers are there; empty where no step was timed."""
    seconds = np.concatenate([one.seconds for one in answers])
    if not len(seconds):
        return {}
    latency = float(np.median(seconds))
    late = [replace(one, past=available(one.past, rate, latency)) for one in answers]
    scores = _detection(late, protocol, labels)
    return {
        "mAP available": scores["mAP"],
        "cAP available": scores["cAP"],
        LATENCY: 1000 * latency,
    }


LATENCY = "latency (ms)"
"""Name of the time of a step among the scores: the median over all steps of all videos."""


def _row(
    one: OnlineAnswers,
    protocol: Online,
    labels: LabelSpace,
    shifts: Sequence[int],
    rate: float,
) -> dict[str, float]:
    """What makes sense for one video: accuracies, and what a deployment feels."""
    due = _due(one, shifts, protocol.alignment) if shifts else []
    accuracies: Mapping[str, float] = {
        f"mof {moment:g}s": _accuracy([_kept(*pair, protocol, labels)])
        for moment, pair in zip(protocol.ahead, due, strict=True)
    }
    felt = _streaming([one], protocol, labels, shifts, rate)
    return {
        "mof": _accuracy([_kept(one.past, one.truth, protocol, labels)]),
        **accuracies,
        **felt,
    }
