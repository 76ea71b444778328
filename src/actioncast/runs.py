"""Runs on disk: train every split of a recipe, find its checkpoints, score them.

A run folder holds `split<k>/best`, `split<k>/last` (checkpoints), `split<k>/logs` and, once
evaluated, `results/*.json`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actioncast.checkpoint import Checkpoint, load_checkpoint
from actioncast.data import Dataset, LabelInput, find_dataset, open_dataset
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
from actioncast.training import (
    Machine,
    TrainConfig,
    commit,
    holds_training,
    is_first_process,
    prepare,
    train_split,
)

ALL = "all"


def train_run(
    recipe: str,
    config: TrainConfig,
    folder: Path,
    *,
    data: Path | None = None,
    rate: float | None = None,
    splits: Sequence[str] = (ALL,),
    machine: Machine | None = None,
    resume: bool = False,
    say: Callable[[Sequence[str]], None] = lambda _: None,
) -> Path:
    """Train a recipe on splits of a data set, one after another.

    Args:
        recipe: Name of the recipe, for the passport.
        config: Its values.
        folder: Of the run.
        data: Where the data lies.
        rate: Frames per second, where the data does not say.
        splits: Names of splits, or `all`.
        machine: Where to train.
        resume: Go on with what the folder holds; otherwise a folder that holds a run is refused.
        say: Told what was found odd.

    Raises:
        ValueError, FileNotFoundError: Data and recipe do not fit, or the folder holds a run.
    """
    machine = machine or Machine()
    machine.require()
    dataset = open_dataset(config.dataset if _is_named(config, data) else "", data, rate)
    names = tuple(dataset.splits) if ALL in splits else tuple(dict.fromkeys(splits))
    if not names:
        raise ValueError(f"say a split to train, {', '.join(dataset.splits)} or {ALL}, got none.")
    for name in names:
        dataset.split(name)
    begun = any(holds_training(path) for path in folder.glob("split*"))
    if resume and not begun:
        say([f"{folder} holds no run to go on with: training starts from the beginning."])
    # The other processes of a DDP run come when the first has begun.
    if begun and not resume and is_first_process():
        raise ValueError(
            f"{folder} already holds a run; say --resume to go on with it, or another --out or "
            "--name to start a new one."
        )
    say(dataset.warnings)
    config, dataset = prepare(config, dataset)
    at = None if dataset.name == "synthetic" else find_dataset(config.dataset, data)
    for name in names:
        train_split(
            config,
            dataset,
            name,
            folder / f"split{name}",
            machine,
            recipe=recipe,
            data=at,
        )
    return folder


def _is_named(config: TrainConfig, data: Path | None) -> bool:
    return bool(config.dataset) and not (data is not None and (data / "groundTruth").is_dir())


def checkpoints(folder: Path) -> dict[str, Path]:
    """The selected checkpoint of every split of a run, by split.

    Args:
        folder: A run, one split of it, or a checkpoint folder.

    Raises:
        FileNotFoundError: There is no checkpoint.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"the run {folder} does not exist.")
    if (folder / "config.json").exists():
        return {"": folder}
    if (folder / "best" / "config.json").exists():
        return {folder.name.removeprefix("split"): folder / "best"}
    found = {
        path.parent.parent.name.removeprefix("split"): path.parent
        for path in sorted(folder.glob("split*/best/config.json"))
    }
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no checkpoint; give a folder that `actioncast train` wrote to. If "
            "training was stopped before its first validation, go on with --resume."
        )
    return found


def latest_run(root: Path) -> Path:
    """The run trained last.

    Raises:
        FileNotFoundError: There is none.
    """
    runs = {
        path.parents[2]: path.stat().st_mtime for path in root.glob("*/split*/best/config.json")
    }
    if not runs:
        raise FileNotFoundError(f"{root} holds no run; train one first: actioncast train RECIPE.")
    return max(runs, key=lambda run: runs[run])


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The checkpoint of one split and the data it is scored on."""

    checkpoint: Checkpoint
    dataset: Dataset
    split: str
    """Empty where the checkpoint does not say."""

    @property
    def training(self) -> Mapping[str, Any]:
        """The recipe's values."""
        return self.checkpoint.run["training"]

    @property
    def stride(self) -> int:
        """Every how many frames the model reads one."""
        return int(self.training["stride"])

    def inference(self, num_samples: int = 0, device: str = "cpu") -> InferenceConfig:
        """How this checkpoint is run."""
        return InferenceConfig(
            stride=self.stride,
            anchor=self.training["anchor"],
            batch_size=64 if not list(self.checkpoint.model.parameters()) else 8,
            num_samples=num_samples,
            device=device,
        )


def load_run(
    folder: Path, data: Path | None = None, split: str = "", device: str = "cpu"
) -> list[Loaded]:
    """Load the checkpoints of a run and their data.

    Args:
        folder: A run, one split of it, or a checkpoint.
        data: Where the data lies; absent, where it lay in training.
        split: The one split to load; names that of a checkpoint that does not say it.
        device: Where the models go.

    Raises:
        ValueError: Checkpoint and data do not belong together, or the run has no such split.
    """
    loaded: list[Loaded] = []
    dataset: Dataset | None = None
    for checkpoint in load_checkpoints(folder, split, device):
        if dataset is None:
            dataset = _dataset_of(checkpoint, data)
        own = str(checkpoint.run.get("split", "")) or split
        loaded.append(Loaded(checkpoint=checkpoint, dataset=dataset, split=own))
    return loaded


def load_checkpoints(folder: Path, split: str = "", device: str = "cpu") -> list[Checkpoint]:
    """Load the checkpoints of a run, or that of one split.

    Raises:
        ValueError: The run has no such split, or the device cannot be used.
    """
    require_device(device)
    found = {path: load_checkpoint(path, device) for path in checkpoints(folder).values()}
    splits = {path: str(checkpoint.run.get("split", "")) for path, checkpoint in found.items()}
    chosen = [found[path] for path, own in splits.items() if not split or own in ("", split)]
    if not chosen:
        raise ValueError(
            f"{folder} was trained on split {', '.join(splits.values())}, got --split {split}."
        )
    return chosen


def require_device(device: str) -> None:
    """Raise a ValueError where PyTorch cannot use a device."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that PyTorch can use here, such as cpu, got {device!r} ({reason})."
        ) from None


def _dataset_of(checkpoint: Checkpoint, data: Path | None) -> Dataset:
    run = checkpoint.run
    path = data or (Path(run["data"]) if run.get("data") else None)
    name = str(run.get("dataset", ""))
    if path is None and name != "synthetic":
        raise ValueError("this checkpoint does not say where its data lies; say --data PATH.")
    dataset = open_dataset(name, path, run.get("rate"))
    training = run["training"]
    if training["input"] == "labels":
        dataset = dataset.with_label_input(LabelInput(**training["labels"]))
    ours, theirs = checkpoint.model.taxonomy.labels.names, dataset.taxonomy.labels.names
    if ours != theirs:
        odd = sorted(set(ours) ^ set(theirs))[:5]
        raise ValueError(
            f"the checkpoint names {len(ours)} labels and the data {len(theirs)}, and they are not "
            f"the same in the same order ({', '.join(odd) or 'another order'}); give the data it "
            "was trained on, or train on this one."
        )
    width = getattr(getattr(checkpoint.model, "config", None), "feature_dim", None)
    if width is not None and dataset.num_features != width:
        raise ValueError(
            f"the checkpoint reads features of width {width}, those of {dataset.name} have width "
            f"{dataset.num_features}; give the features it was trained on."
        )
    return dataset


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
        input=str(LabelInput(**training["labels"])) if from_labels else "features",
        features_causal="yes" if from_labels else "unknown",
        metric=_metric(asked is not None, legacy),
        combined=combine.replace("_", " ")
        + (f", {num_samples} drawn" if combine != "most_likely" else ""),
        selection=SELECTIONS[training["selection"]]
        if not _counts(first)
        else "none: counted on all training videos",
        model=first.checkpoint.name,
        recipe=str(run.get("recipe", "")),
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
            return "true_length (leaks the video's length)"
        case HorizonSource.OBSERVED_MULTIPLE:
            return f"observed_multiple x {protocol.multiple:g}"
        case HorizonSource.SECONDS:
            return f"seconds {protocol.seconds:g}"


def trained_protocol(loaded: Loaded) -> LongTerm:
    """The protocol whose questions the checkpoint was trained on."""
    training = loaded.training
    return LongTerm(
        horizon_source=HorizonSource(training["horizon_source"]),
        multiple=training["multiple"],
        seconds=training["seconds"],
    )


def reseeded(config: TrainConfig, seed: int) -> TrainConfig:
    """The same recipe with another seed."""
    return replace(config, seed=seed)


def _metric(long_term: bool, legacy: bool) -> str:
    if long_term:
        return "MoC pooled over the videos of a split; missing frames are wrong"
    end = "ends one frame early (legacy)" if legacy else "ends at the last frame"
    return f"frame accuracy, edit, F1; the last segment {end}"


def _counts(loaded: Loaded) -> bool:
    return not list(loaded.checkpoint.model.parameters())
