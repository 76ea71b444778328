"""A run and a protocol in, a result with its passport out."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from actioncast.checkpoint import to_json
from actioncast.data import LabelInput, Video
from actioncast.evaluation import (
    Combine,
    mean_over_splits,
    score_long_term,
    score_segmentation,
)
from actioncast.inference import InferenceConfig
from actioncast.models.base import Anticipator
from actioncast.online_evaluation import LATENCY, score_online
from actioncast.passport import Passport, Result
from actioncast.progress import Progress, silent
from actioncast.protocols import (
    PROTOCOLS,
    HorizonSource,
    LongTerm,
    Online,
    Segmentation,
    VideoProtocol,
)
from actioncast.recipes import FOLLOWS, changed_values
from actioncast.runs import Loaded, resampled_by, trained_online, trained_protocol
from actioncast.scores import Scores
from actioncast.timeline import LabelSpace
from actioncast.training import commit, flat
from actioncast.types import Task


@runtime_checkable
class StandsOnTrunk(Protocol):
    """What a model also is that stands on a frozen language model."""

    @property
    def trunk_said(self) -> str:
        """Which one it is and how it is run, in words."""


def evaluate_run(
    loaded: Sequence[Loaded],
    protocol: VideoProtocol,
    *,
    num_samples: int = 0,
    combine: Combine = "most_likely",
    device: str = "cpu",
    note: str = "",
    progress: Progress = silent,
) -> Result:
    """Score every split of a run on its test videos.

    Raises:
        ValueError: The model does not answer the protocol, or a split is not known.
    """
    if not isinstance(protocol, LongTerm):
        # What was seen has one answer, however many futures are drawn.
        num_samples, combine = 0, "most_likely"
    if combine != "most_likely" and not num_samples:
        raise ValueError(f"combine={combine} needs num_samples of 1 or more, got 0.")
    splits: dict[str, Scores] = {}
    for one in loaded:
        if not one.split:
            raise ValueError("this checkpoint does not say which split it is for; say --split.")
        videos = one.dataset.select(one.dataset.split(one.split).test)
        inference = one.inference(num_samples, device)
        model = one.checkpoint.model
        splits[one.split] = _scored(model, videos, protocol, inference, combine, progress)
    rows = {
        (video if len(splits) == 1 else f"{split}/{video}"): {k: round(v, 4) for k, v in r.items()}
        for split, scores in splits.items()
        for video, r in scores.videos.items()
    }
    total = mean_over_splits(splits)
    passport = passport_of(loaded, protocol, len(rows), num_samples, combine, note)
    if isinstance(protocol, Online):
        passport = replace(passport, way=_way(total, device))
    return Result(
        passport=passport,
        total=total,
        splits={split: dict(scores.total) for split, scores in splits.items()},
        videos=rows,
        recordings=over_recordings(
            [
                (one.dataset.videos[video].recording or video, row)
                for one in loaded
                for video, row in splits[one.split].videos.items()
            ]
        ),
    )


def _scored(
    model: Anticipator,
    videos: Sequence[Video],
    protocol: VideoProtocol,
    inference: InferenceConfig,
    combine: Combine,
    progress: Progress,
) -> Scores:
    match protocol:
        case LongTerm():
            return score_long_term(model, videos, protocol, inference, combine, progress)
        case Segmentation():
            return score_segmentation(model, videos, protocol, inference, progress)
        case Online():
            return score_online(model, videos, protocol, inference, progress)


def _input(loaded: Sequence[Loaded]) -> str:
    """What a model sees, with whose labels and captions stand beside it, where any do."""
    read = [one.captions for one in loaded if one.captions is not None]
    if not read:
        return _seen(loaded)
    said = replace(read[0], fingerprint=_one([one.fingerprint for one in read])).said
    others = [one.captions_in_training for one in loaded if one.captions_in_training]
    trained = f" (in training {_one(others)})" if others else ""
    return f"{_seen(loaded)}, and {said}{trained}"


def _captions(loaded: Sequence[Loaded]) -> str:
    """Which captions were read, by the name of their folder too; empty without any."""
    read = [one.captions for one in loaded if one.captions is not None]
    if not read:
        return ""
    return f"{read[0].folder} {_one([one.fingerprint for one in read])} {read[0].read}"


def _seen(loaded: Sequence[Loaded]) -> str:
    """Features or labels, with who names the actions observed where somebody does."""
    first = loaded[0]
    if first.training["input"] == "labels":
        return str(LabelInput(**first.training["labels"]))
    labels = _labels(loaded)
    # A model that counts reads no features.
    if labels and not hasattr(first.checkpoint.model.config, "feature_dim"):
        return labels
    beside = f", and {labels}" if labels else ""
    return f"features, {first.dataset.num_features} wide{beside}"


def _labels(loaded: Sequence[Loaded]) -> str:
    """Whose the observed labels are, by what they are and not by where they lie."""
    named = [one.labels for one in loaded if one.labels is not None]
    if not named:
        return ""
    said = f"{named[0].said} {_one([one.fingerprint for one in named])}".strip()
    others = [one.labels_in_training for one in loaded if one.labels_in_training]
    return f"{said} (in training by {_one(others)})" if others else said


def _one(fingerprints: Sequence[str]) -> str:
    """Those of several splits as one."""
    if len(set(fingerprints)) == 1:
        return fingerprints[0]
    return hashlib.sha256(" ".join(fingerprints).encode()).hexdigest()[:8]


def _way(total: Mapping[str, float], device: str) -> str:
    if LATENCY not in total:
        return "at once"
    threads = f", {torch.get_num_threads()} thread(s)" if device == "cpu" else ""
    return f"streamed, {total[LATENCY]:.2f} ms a step (median, {device}{threads})"


def over_recordings(rows: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """Mean over recordings of the mean over each one's videos, and the standard error of it.

    Args:
        rows: Recording and scores of each video.
    """
    names = dict.fromkeys(name for _, row in rows for name in row)
    found: dict[str, float] = {}
    for name in names:
        by_recording: dict[str, list[float]] = {}
        for recording, row in rows:
            # A video too short for a share has no score of it.
            if not math.isnan(value := row.get(name, math.nan)):
                by_recording.setdefault(recording, []).append(value)
        means = np.array([np.mean(values) for values in by_recording.values()])
        found["recordings"] = max(len(means), found.get("recordings", 0))
        found[name] = round(float(means.mean()), 4) if len(means) else math.nan
        if len(means) > 1:
            found[f"{name} +-"] = round(float(means.std(ddof=1) / math.sqrt(len(means))), 4)
    return found


def passport_of(
    loaded: Sequence[Loaded],
    protocol: VideoProtocol,
    num_videos: int,
    num_samples: int,
    combine: Combine,
    note: str = "",
) -> Passport:
    """The passport of an evaluation."""
    first = loaded[0]
    run, training = first.checkpoint.run, first.training
    asked = protocol if isinstance(protocol, LongTerm) else None
    online = protocol if isinstance(protocol, Online) else None
    seen, captions = _input(loaded), _captions(loaded)
    from_labels = training["input"] == "labels" or seen.startswith("true labels")
    recipe, model = str(run.get("recipe", "")), first.checkpoint.model
    return Passport(
        dataset=first.dataset.name,
        fingerprint=first.dataset.scored_fingerprint(),
        splits=tuple(one.split for one in loaded),
        label_level=first.dataset.taxonomy.level,
        num_videos=num_videos,
        task=_task(protocol),
        observed_ratios=asked.observed_ratios if asked else (),
        horizon_ratios=asked.horizon_ratios if asked else (),
        horizon_source=horizon_name(asked) if asked else "",
        ahead=online.ahead if online else (),
        alignment=ALIGNMENTS[online.alignment] if online else "",
        steps_per_second=round(first.dataset.rate / training["stride"], 6) if online else 0.0,
        input=seen,
        labels=first.labels.by if first.labels is not None else "",
        captions=captions,
        features_causal="yes" if from_labels and not captions else "unknown",
        metric=_metric(protocol, first.dataset.taxonomy.labels) + _grid(first),
        combined=combine.replace("_", " ")
        + (f", {num_samples} drawn" if combine != "most_likely" else ""),
        selection=SELECTIONS[training["selection"]]
        if not _counts(first)
        else "none: counted on all training videos",
        model=first.checkpoint.name,
        trunk=model.trunk_said if isinstance(model, StandsOnTrunk) else "",
        recipe=recipe,
        changed=tuple(
            dict.fromkeys(
                value
                for one in loaded
                for value in changed_values(recipe, _config(one), one.training)
            )
        ),
        trained_on=_trained_on(first),
        inference=inference_name(first.inference(), combine),
        seeds=tuple(sorted({int(one.training["seed"]) for one in loaded})),
        version=str(run.get("version", "")),
        commit=str(run.get("commit", "")) or commit(),
        note=" ".join(said for said in (note, _mixed(loaded)) if said),
    )


def _mixed(loaded: Sequence[Loaded]) -> str:
    """A sentence if splits were trained with values of their own; else empty."""
    values = [
        dict(flat({"model": to_json(_config(one)), **to_json(one.training)})) for one in loaded
    ]
    first, *others = values
    odd = [
        f"{name} {', '.join(dict.fromkeys(str(own[name]) for own in values))}"
        for name in first
        # What one of them does not say is of an earlier version, and as it was then.
        if all(name in own for own in others) and any(own[name] != first[name] for own in others)
        if name.rsplit(".", 1)[-1] not in FOLLOWS
    ]
    if not odd:
        return ""
    return f"its splits were trained with other values than one another ({'; '.join(odd)})."


ALIGNMENTS = {
    "target": "target: the label of the moment itself",
    "shifted_by_one": "shifted_by_one: the label of the step before the moment, which is easier",
}
"""Which label an answer about a moment ahead is compared with, as the passport says it."""
SELECTIONS = {
    "validation": "best on training videos held out",
    "last": "last epoch",
    "test": "best on the test split, which flatters",
}
"""How a checkpoint was chosen, as the passport says it."""


def horizon_name(protocol: LongTerm) -> str:
    """The horizon source with its number."""
    match protocol.horizon_source:
        case HorizonSource.TRUE_LENGTH:
            shown = ", frames beyond the boundary shown" if protocol.rounded_to_steps else ""
            return f"true_length x {protocol.asked_ratio:g} (leaks the video's length{shown})"
        case HorizonSource.OBSERVED_MULTIPLE:
            return f"observed_multiple x {protocol.multiple:g}"
        case HorizonSource.SECONDS:
            return f"seconds {protocol.seconds:g}"


def inference_name(config: InferenceConfig, combine: Combine = "most_likely") -> str:
    """What is done to the answers of a model, where anything is."""
    if combine != "most_likely":
        # Futures are drawn from the first offset and stay as they are drawn.
        return "first offset alone" if config.offsets and config.stride > 1 else ""
    said = [f"{config.stride} offsets averaged"] if config.offsets and config.stride > 1 else []
    if config.postprocess != "none":
        said.append(f"{config.postprocess} {config.postprocess_size}")
    return ", ".join(said)


def _trained_on(loaded: Loaded) -> str:
    """Whose questions trained a model; one that hides frames itself was asked none."""
    if _counts(loaded):
        return ""
    if Task.LONG_TERM not in loaded.checkpoint.model.tasks:
        moments = ", ".join(f"{moment:g}" for moment in trained_online(loaded).ahead)
        online = Task.ONLINE in loaded.checkpoint.model.tasks
        return f"every step of what is seen, and {moments} s ahead" if online else ""
    masking = getattr(getattr(loaded.checkpoint.model, "config", None), "masking", None)
    if masking is None:
        return horizon_name(trained_protocol(loaded))
    if "anticipative" not in masking.kinds:
        return "whole videos; no future is hidden"
    if masking.future_multiple:
        return f"whole videos; {masking.future_multiple:g} times what is seen is hidden"
    return "whole videos; their rest is hidden (its length is seen)"


def _task(protocol: VideoProtocol) -> str:
    return next(name for name, kind in PROTOCOLS.items() if isinstance(protocol, kind))


def _metric(protocol: VideoProtocol, labels: LabelSpace) -> str:
    match protocol:
        case LongTerm():
            left_out = protocol.too_short == "leave_out"
            less = (
                "; videos of which a share leaves no frame are left out of it" if left_out else ""
            )
            return (
                "MoC pooled over the videos of a split; frames asked for and missing are wrong"
                + less
            )
        case Segmentation():
            legacy = protocol.legacy_last_segment
            end = "ends one frame early (legacy)" if legacy else "ends at the last frame"
            return f"frame accuracy, edit, F1; the last segment {end}"
        case Online():
            return protocol.metric(labels)


def _config(loaded: Loaded) -> object:
    return getattr(loaded.checkpoint.model, "config", None)


def _grid(loaded: Loaded) -> str:
    """What the metric's frames are, where they are not those of the annotation."""
    every = resampled_by(loaded.checkpoint)
    return "" if every == 1 else f"; only one of {every} frames exists"


def _counts(loaded: Loaded) -> bool:
    return not list(loaded.checkpoint.model.parameters())
