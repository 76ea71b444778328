"""Runs on disk: train every split of a recipe, find its checkpoints, score them.

A run folder holds `split<k>/best`, `split<k>/last` (checkpoints), `split<k>/logs` and, once
evaluated, `results/*.json`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from actioncast.captions import CaptionFolder, Captioning, caption_folder, fitted
from actioncast.checkpoint import Checkpoint, load_checkpoint
from actioncast.data import (
    Dataset,
    LabelInput,
    Video,
    find_dataset,
    holds_dataset,
    lasting_hierarchy,
    open_dataset,
)
from actioncast.inference import InferenceConfig, as_trained
from actioncast.protocols import HorizonSource, LongTerm, Online
from actioncast.protocols.online import MOMENTS
from actioncast.recipes import RECIPES
from actioncast.recognised import TRUTH, LabelGiver, Naming, label_giver
from actioncast.scores import moments_of
from actioncast.timeline import Taxonomy
from actioncast.training import (
    PLAN,
    RESUME,
    Machine,
    TrainConfig,
    holds_training,
    is_first_process,
    prepare,
    require_same_values,
    require_text,
    too_short,
    train_split,
)

ALL = "all"
KINDS = {"": "whole videos", "clips": "short actions"}
"""What a run was trained on, by the kind that its checkpoints say."""


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
        ValueError, FileNotFoundError: Data and recipe do not fit, or the folder holds a run, or
            one of its splits was begun with other values.
    """
    machine = machine or Machine()
    machine.require()
    require_text(config)
    config = replace(config, hierarchy=lasting_hierarchy(config.hierarchy))
    dataset = open_dataset(
        config.dataset if _is_named(config, data) else "",
        data,
        rate,
        config.level,
        config.hierarchy,
    )
    names = tuple(dataset.splits) if ALL in splits else tuple(dict.fromkeys(splits))
    if not names:
        raise ValueError(f"say a split to train, {', '.join(dataset.splits)} or {ALL}, got none.")
    for name in names:
        dataset.split(name)
    require_not_begun(folder, resume=resume, say=say)
    say(dataset.warnings)
    _require_features(recipe, config, dataset)
    config, dataset = prepare(config, dataset)
    shown_short = too_short(config, _training_videos(dataset.resampled(config.resample), names))
    say([shown_short] if shown_short else [])
    giver = label_giver(config.labels_from, config.labels)
    shown = dict.fromkeys(names, dataset)
    named_by = dict.fromkeys(names, "")
    if giver is not None:
        # Whatever does not fit is found before the first split is trained.
        config = replace(config, labels_from=giver.source)
        known = dataset.fingerprints()
        given = {name: giver.given(dataset, name, known) for name in names}
        shown = {name: labelled for name, (labelled, _) in given.items()}
        named_by = {name: naming.fingerprint for name, (_, naming) in given.items()}
    written = dict.fromkeys(names, "")
    if (captions := caption_folder(config.captions, config.model)) is not None:
        config = replace(config, captions=captions.source)
        for name in names:
            shown[name], captioning = captions.given(shown[name], name)
            written[name] = captioning.fingerprint
            config = replace(config, model=fitted(config.model, captioning))
    # All splits of a run are of one recipe, those too that are not asked for.
    for path in sorted(folder.glob(f"split*/{PLAN}")):
        if holds_training(path.parent):
            require_same_values(path.parent, config, dataset.fingerprint())
    at = None if dataset.name == "synthetic" else find_dataset(config.dataset, data)
    for name in names:
        train_split(
            config,
            shown[name].resampled(config.resample),
            name,
            folder / f"split{name}",
            machine,
            recipe=recipe,
            data=at,
            labels_fingerprint=named_by[name],
            captions_fingerprint=written[name],
        )
    return folder


def require_not_begun(
    folder: Path, *, resume: bool, say: Callable[[Sequence[str]], None] = lambda _: None
) -> None:
    """Refuse a folder that holds a run, unless it is to go on; says where there is none to go on.

    Raises:
        ValueError: It holds one.
    """
    begun = any(holds_training(path) for path in folder.glob("split*"))
    if resume and not begun:
        say([f"{folder} holds no run to go on with: training starts from the beginning."])
    # The other processes of a DDP run come when the first has begun.
    if begun and not resume and is_first_process():
        raise ValueError(
            f"{folder} already holds a run; say --resume to go on with it, or another --out or "
            "--name to start a new one."
        )


def _training_videos(dataset: Dataset, splits: Sequence[str]) -> list[Video]:
    """Every video that any of these splits trains on, once."""
    return dataset.select(dict.fromkeys(v for name in splits for v in dataset.split(name).train))


def _require_features(recipe: str, config: TrainConfig, dataset: Dataset) -> None:
    """Raise a ValueError where data lack features and the recipe has a form that reads labels."""
    reads = config.input == "features" and hasattr(config.model, "feature_dim")
    absent = all(video.features is None for video in dataset.videos.values())
    if reads and absent and f"{recipe}-labels" in RECIPES:
        raise ValueError(
            f"{dataset.name} has no features/ folder, which the recipe {recipe} reads: add one "
            f".npy file a video, or train its small form from labels, {recipe}-labels."
        )


def _is_named(config: TrainConfig, data: Path | None) -> bool:
    return bool(config.dataset) and not (data is not None and holds_dataset(data))


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


def read_about(checkpoint: Path) -> Mapping[str, Any]:
    """What the run that made a checkpoint said of itself, without loading the model.

    Raises:
        ValueError: The file is broken.
    """
    file = checkpoint / "config.json"
    try:
        run = json.loads(file.read_text(encoding="utf-8"))["run"]
    except (ValueError, KeyError, TypeError):
        run = None
    if not isinstance(run, dict):
        raise ValueError(f"{file} must be the JSON that `actioncast train` or `convert` wrote.")
    return run


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
    labels: Naming | None = None
    """Who names the actions observed beside the features, where anybody does."""
    labels_in_training: str = ""
    """Who named them in training, if another one; empty if the same or nobody did."""
    captions: Captioning | None = None
    """Which captions the videos have, where they have any."""
    captions_in_training: str = ""
    """The fingerprint of those in training, if others; empty if the same or none."""

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
        return as_trained(self.training, self.checkpoint.model, num_samples, device)


def load_run(
    folder: Path,
    data: Path | None = None,
    split: str = "",
    device: str = "cpu",
    labels_from: str = "",
    trunk: str = "",
    captions: str = "",
) -> list[Loaded]:
    """Load the checkpoints of a run and their data.

    Args:
        folder: A run, one split of it, or a checkpoint.
        data: Where the data lies; absent, where it lay in training.
        split: The one split to load; names that of a checkpoint that does not say it.
        device: Where the models go.
        labels_from: Who names the actions observed, if not who named them in training; of a run
            that reads features alone nobody does.
        trunk: Where the language model is that the models stand on, if not where it was in
            training.
        captions: Folder of captions, if not that of the training; of a run without captions none
            are read.

    Raises:
        ValueError: Checkpoint and data do not belong together, or the run has no such split.
        FileNotFoundError: Who named the actions observed is gone, or the captions are.
    """
    loaded: list[Loaded] = []
    dataset: Dataset | None = None
    giver: LabelGiver | None = None
    written: CaptionFolder | None = None
    known: set[str] = set()
    for checkpoint in load_checkpoints(folder, split, device, trunk=trunk):
        if dataset is None:
            dataset = _dataset_of(checkpoint, data)
            giver = label_giver_of(checkpoint, labels_from, device)
            written = caption_folder_of(checkpoint, captions, device)
            if giver is not None:
                trained = str(checkpoint.run.get("fingerprint", ""))
                known = {trained, *dataset.fingerprints()} - {""}
        own = str(checkpoint.run.get("split", "")) or split
        shown, naming, trained = dataset, None, ""
        if giver is not None:
            shown, naming = giver.given(dataset, own, known)
            trained = otherwise_trained(checkpoint, giver, naming)
        captioning, others = None, ""
        if written is not None:
            shown, captioning = captioned(checkpoint, written, shown, own)
            fingerprint = str(checkpoint.run.get("captions_fingerprint", ""))
            others = "" if fingerprint == captioning.fingerprint else fingerprint
        shown = shown.resampled(resampled_by(checkpoint))
        loaded.append(
            Loaded(
                checkpoint=checkpoint,
                dataset=shown,
                split=own,
                labels=naming,
                labels_in_training=trained,
                captions=captioning,
                captions_in_training=others,
            )
        )
    return loaded


def resampled_by(checkpoint: Checkpoint) -> int:
    """Every how many frames one is left before a model is asked or scored."""
    # Checkpoints of earlier versions do not say it.
    return int(checkpoint.run["training"].get("resample", 1))


def label_giver_of(
    checkpoint: Checkpoint, labels_from: str = "", device: str = "cpu"
) -> LabelGiver | None:
    """Who names the actions observed: whom the caller says, or who did in training; maybe nobody.

    Raises:
        FileNotFoundError: There is no such run or folder; the message says where it was looked for.
    """
    if not (trained := _trained_from(checkpoint)):
        return None
    spoilt = LabelInput(**checkpoint.run["training"]["labels"])
    return label_giver(labels_from or trained, spoilt, device)


def otherwise_trained(checkpoint: Checkpoint, giver: LabelGiver, naming: Naming) -> str:
    """Who named the actions observed in training, where it was another one; else empty.

    It is said by its fingerprint, and by its name where it is the truth or has none.
    """
    trained = _trained_from(checkpoint)
    name = Path(trained).name
    fingerprint = str(checkpoint.run.get("labels_fingerprint", ""))
    if fingerprint:
        same = fingerprint == naming.fingerprint
    elif TRUTH in (trained, giver.source):
        same = trained == giver.source
    else:
        # Checkpoints of earlier versions say a name alone.
        same = name == Path(giver.source).name
    return "" if same else fingerprint or name


def _trained_from(checkpoint: Checkpoint) -> str:
    # Checkpoints of earlier versions do not say who.
    return str(checkpoint.run["training"].get("labels_from", ""))


def caption_folder_of(
    checkpoint: Checkpoint, captions: str = "", device: str = "cpu"
) -> CaptionFolder | None:
    """The captions that a run reads: those the caller says, or those of its training; maybe none.

    Raises:
        FileNotFoundError: There is no such folder; the message says where it was looked for.
        ValueError: It holds no captions.
    """
    # Checkpoints of earlier versions do not say it.
    if not (trained := str(checkpoint.run["training"].get("captions", ""))):
        return None
    return caption_folder(captions or trained, _config_of(checkpoint), device)


def captioned(
    checkpoint: Checkpoint, written: CaptionFolder, dataset: Dataset, split: str
) -> tuple[Dataset, Captioning]:
    """The dataset with captions as a checkpoint reads them, and which they are.

    Raises:
        FileNotFoundError: Videos have none.
        ValueError: They are broken, or of another width than the model reads.
    """
    shown, captioning = written.given(dataset, split)
    fitted(_config_of(checkpoint), captioning)
    return shown, captioning


def _config_of(checkpoint: Checkpoint) -> object:
    return getattr(checkpoint.model, "config", None)


def require_label_readers(folders: Sequence[Path], labels_from: str) -> None:
    """Raise a ValueError where `--labels-from` is said and none of some runs reads such labels."""
    _require_readers(folders, labels_from, "labels_from")


def require_caption_readers(folders: Sequence[Path], captions: str) -> None:
    """Raise a ValueError where `--captions` is said and none of some runs reads captions."""
    _require_readers(folders, captions, "captions")


def _require_readers(folders: Sequence[Path], said: str, value: str) -> None:
    if not said:
        return
    found = [read_about(path) for folder in folders for path in checkpoints(folder).values()]
    if not any(one.get("training", {}).get(value) for one in found):
        raise ValueError(
            f"--{value.replace('_', '-')} must go with a run that was trained with it, got "
            f"{', '.join(map(str, folders))}, trained without; leave it out."
        )


def unfinished(folder: Path) -> str:
    """A sentence if training of a run was stopped before its end; else empty."""
    stopped = [
        path.parent.name
        for path in checkpoints(folder).values()
        if (path.parent / RESUME).exists() and not (path.parent / "last").is_dir()
    ]
    if not stopped:
        return ""
    return f"training of {', '.join(stopped)} was stopped before its end; `train --resume` goes on."


def foreign_data(loaded: Sequence[Loaded]) -> str:
    """A sentence if the data are not those of the training; else empty."""
    trained = str(loaded[0].checkpoint.run.get("fingerprint", ""))
    found = loaded[0].dataset.fingerprint()
    if not trained or trained == found:
        return ""
    return (
        f"scored on other data ({loaded[0].dataset.name}, {found}) than the run was trained on "
        f"({loaded[0].checkpoint.run.get('dataset')}, {trained}): tested videos may have trained."
    )


def load_checkpoints(
    folder: Path, split: str = "", device: str = "cpu", kind: str = "", trunk: str = ""
) -> list[Checkpoint]:
    """Load the checkpoints of a run, or that of one split.

    Args:
        folder: A run, one split of it, or a checkpoint.
        split: Absent, all splits.
        device: Where the models go.
        kind: What the run was trained on, as its checkpoints say it; whole videos say nothing.
        trunk: See `load_checkpoint`.

    Raises:
        ValueError: The run has no such split or is of another kind, or the device cannot be used.
    """
    require_device(device)
    found = {path: load_checkpoint(path, device, trunk) for path in checkpoints(folder).values()}
    if odd := {str(one.run.get("kind", "")) for one in found.values()} - {kind}:
        own, wanted = (KINDS.get(name, name) for name in (odd.pop(), kind))
        raise ValueError(f"{folder} must be a run on {wanted}, got one on {own}.")
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
    training = run["training"]
    # Checkpoints of earlier versions do not say these two.
    level, hierarchy = (str(training.get(key, "")) for key in ("level", "hierarchy"))
    dataset = open_dataset(name, path, run.get("rate"), level, hierarchy)
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
    _require_same_levels(checkpoint.model.taxonomy, dataset)
    width = getattr(getattr(checkpoint.model, "config", None), "feature_dim", None)
    if width is not None and dataset.num_features != width:
        raise ValueError(
            f"the checkpoint reads features of width {width}, those of {dataset.name} have width "
            f"{dataset.num_features}; give the features it was trained on."
        )
    return dataset


def _require_same_levels(taxonomy: Taxonomy, dataset: Dataset) -> None:
    """Raise a ValueError where data name other labels at a level that a model reads or names."""
    ours, theirs = taxonomy, dataset.taxonomy
    for level in ours.levels:
        found = theirs.heads[level].names if level in theirs.heads else ()
        if found != ours.heads[level].names:
            odd = sorted(set(found) ^ set(ours.heads[level].names))[:5]
            raise ValueError(
                f"the checkpoint knows {len(ours.heads[level])} labels of level {level!r} and the "
                f"data {len(found)}, and they are not the same in the same order "
                f"({', '.join(odd) or 'another order'}); give the data and the hierarchy that it "
                "was trained on."
            )
    if dict(ours.parents) != dict(theirs.parents):
        raise ValueError(
            f"the labels of {dataset.name} stand below others than when the checkpoint was "
            "trained; give the hierarchy that it was trained on."
        )


def trained_protocol(loaded: Loaded) -> LongTerm:
    """The protocol whose questions the checkpoint was trained on."""
    training = loaded.training
    return LongTerm(
        horizon_source=HorizonSource(training["horizon_source"]),
        multiple=training["multiple"],
        seconds=training["seconds"],
    )


def trained_online(loaded: Loaded) -> Online:
    """What a model of streams is asked: its own moments, or those of THUMOS14 if it has none."""
    return Online(ahead=moments_of(loaded.checkpoint.model, MOMENTS))
