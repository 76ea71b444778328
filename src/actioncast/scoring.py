"""A run and a protocol in, a result with its passport out."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from actioncast.data import LabelInput
from actioncast.evaluation import (
    Combine,
    Scores,
    mean_over_splits,
    score_long_term,
    score_segmentation,
)
from actioncast.inference import InferenceConfig
from actioncast.passport import Passport, Result
from actioncast.progress import Progress, silent
from actioncast.protocols import HorizonSource, LongTerm, Segmentation
from actioncast.runs import Loaded, trained_protocol
from actioncast.training import commit


def evaluate_run(
    loaded: Sequence[Loaded],
    protocol: LongTerm | Segmentation,
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
    if isinstance(protocol, Segmentation):
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
        splits[one.split] = (
            score_long_term(model, videos, protocol, inference, combine, progress)
            if isinstance(protocol, LongTerm)
            else score_segmentation(model, videos, protocol, inference, progress)
        )
    rows = {
        (video if len(splits) == 1 else f"{split}/{video}"): {k: round(v, 4) for k, v in r.items()}
        for split, scores in splits.items()
        for video, r in scores.videos.items()
    }
    return Result(
        passport=passport_of(loaded, protocol, len(rows), num_samples, combine, note),
        total=mean_over_splits(splits),
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


def over_recordings(rows: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    """Mean over recordings of the mean over each one's videos, and the standard error of it.

    Args:
        rows: Recording and scores of each video.
    """
    names = rows[0][1] if rows else {}
    found: dict[str, float] = {}
    for name in names:
        by_recording: dict[str, list[float]] = {}
        for recording, row in rows:
            if not math.isnan(row[name]):
                by_recording.setdefault(recording, []).append(row[name])
        means = np.array([np.mean(values) for values in by_recording.values()])
        found["recordings"] = len(means)
        found[name] = round(float(means.mean()), 4) if len(means) else math.nan
        if len(means) > 1:
            found[f"{name} +-"] = round(float(means.std(ddof=1) / math.sqrt(len(means))), 4)
    return found


def passport_of(
    loaded: Sequence[Loaded],
    protocol: LongTerm | Segmentation,
    num_videos: int,
    num_samples: int,
    combine: Combine,
    note: str = "",
) -> Passport:
    """The passport of an evaluation."""
    first = loaded[0]
    run, training = first.checkpoint.run, first.training
    asked = protocol if isinstance(protocol, LongTerm) else None
    from_labels = training["input"] == "labels"
    legacy = isinstance(protocol, Segmentation) and protocol.legacy_last_segment
    return Passport(
        dataset=first.dataset.name,
        fingerprint=first.dataset.fingerprint(),
        splits=tuple(one.split for one in loaded),
        num_videos=num_videos,
        task="long_term" if asked else "segmentation",
        observed_ratios=asked.observed_ratios if asked else (),
        horizon_ratios=asked.horizon_ratios if asked else (),
        horizon_source=horizon_name(asked) if asked else "",
        input=str(LabelInput(**training["labels"]))
        if from_labels
        else f"features, {first.dataset.num_features} wide",
        features_causal="yes" if from_labels else "unknown",
        metric=_metric(asked is not None, legacy),
        combined=combine.replace("_", " ")
        + (f", {num_samples} drawn" if combine != "most_likely" else ""),
        selection=SELECTIONS[training["selection"]]
        if not _counts(first)
        else "none: counted on all training videos",
        model=first.checkpoint.name,
        recipe=str(run.get("recipe", "")),
        trained_on=_trained_on(first),
        inference=inference_name(first.inference(), combine),
        seeds=tuple(sorted({int(one.training["seed"]) for one in loaded})),
        version=str(run.get("version", "")),
        commit=str(run.get("commit", "")) or commit(),
        note=note,
    )


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
    masking = getattr(getattr(loaded.checkpoint.model, "config", None), "masking", None)
    if masking is None:
        return horizon_name(trained_protocol(loaded))
    if "anticipative" not in masking.kinds:
        return "whole videos; no future is hidden"
    if masking.future_multiple:
        return f"whole videos; {masking.future_multiple:g} times what is seen is hidden"
    return "whole videos; their rest is hidden (its length is seen)"


def _metric(long_term: bool, legacy: bool) -> str:
    if long_term:
        return "MoC pooled over the videos of a split; frames asked for and missing are wrong"
    end = "ends one frame early (legacy)" if legacy else "ends at the last frame"
    return f"frame accuracy, edit, F1; the last segment {end}"


def _counts(loaded: Loaded) -> bool:
    return not list(loaded.checkpoint.model.parameters())
