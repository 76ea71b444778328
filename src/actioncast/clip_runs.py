"""Runs on short actions: where their data lies, training one, loading one to be scored."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import environ
from pathlib import Path
from typing import Any

from actioncast.checkpoint import Checkpoint, from_json
from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_sources import Sources, sources
from actioncast.clip_training import KIND, SPLIT, TRAIN, VALIDATION, fit_widths, train_clips
from actioncast.data import DATA_VARIABLE
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.ego4d import is_ego4d, open_ego4d
from actioncast.data.epic_kitchens import open_epic_kitchens
from actioncast.runs import load_checkpoints, require_not_begun
from actioncast.training import Machine

CLIP_DATASETS: Mapping[str, str] = {
    "epic100": "EPIC-KITCHENS-100, 76,885 actions of a verb and a noun in 633 videos",
    "ego4d": "Ego4D long-term anticipation: the next 20 actions of a verb and a noun",
}
"""Every data set of short actions by name."""
HELD_OUT = "held_out"
"""The part of the training clips that selected a checkpoint."""


def find_clips(name: str, path: Path | None = None) -> Path:
    """The folder of a data set of short actions.

    Args:
        name: One of `CLIP_DATASETS`.
        path: The folder, or one that holds it under its name; absent, `$ACTIONCAST_DATA`, or `data`
            in the working directory.

    Raises:
        FileNotFoundError: It is not there; the message says where it was looked for.
    """
    root = path or Path(environ.get(DATA_VARIABLE, "data"))
    inside = root / name
    if inside.is_dir():
        return inside
    if path is not None and path.is_dir():
        return path
    raise FileNotFoundError(
        f"the data set {name} was looked for in {inside} and is not there; say --data PATH, or set "
        f"{DATA_VARIABLE} to the folder that holds it."
    )


def open_clips(path: Path) -> ClipDataset:
    """Read a data set of short actions, whichever lies in a folder.

    Raises:
        FileNotFoundError, ValueError: None does, or a file breaks its layout.
    """
    return open_ego4d(path) if is_ego4d(path) else open_epic_kitchens(path)


def train_clip_run(
    recipe: str,
    config: ClipTrainConfig,
    folder: Path,
    *,
    data: Path | None = None,
    machine: Machine | None = None,
    resume: bool = False,
    say: Callable[[Sequence[str]], None] = lambda _: None,
) -> Path:
    """Train a recipe on the train part of a data set.

    Args:
        recipe: Name of the recipe, for the passport.
        config: Its values.
        folder: Of the run.
        data: Where the data lies.
        machine: Where to train.
        resume: Go on with what the folder holds; otherwise a folder that holds a run is refused.
        say: Told what was found odd.

    Raises:
        ValueError, FileNotFoundError: Data and recipe do not fit, or the folder holds a run.
    """
    machine = machine or Machine()
    machine.require()
    at = find_clips(config.dataset, data)
    dataset = open_clips(at)
    require_not_begun(folder, resume=resume, say=say)
    say(dataset.warnings)
    parts = (TRAIN, VALIDATION) if config.selection == "test" else (TRAIN,)
    shown = sources(config, dataset, at, parts)
    config = fit_widths(config, shown)
    train_clips(config, dataset, shown, folder / f"split{SPLIT}", machine, recipe=recipe, data=at)
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedClips:
    """A checkpoint of short actions and the clips it is scored on."""

    checkpoint: Checkpoint
    config: ClipTrainConfig
    dataset: ClipDataset
    sources: Sources
    part: str
    """validation, or held_out: the training clips that selected the checkpoint."""
    clips: tuple[ActionClip, ...]


def is_clip_run(run: Mapping[str, Any]) -> bool:
    """Whether a checkpoint says that it was trained on short actions."""
    return run.get("kind") == KIND


def load_clip_run(
    folder: Path, data: Path | None = None, part: str = VALIDATION, device: str = "cpu"
) -> LoadedClips:
    """Load the checkpoint of a run on short actions and the clips of a part.

    Args:
        folder: A run, its split, or a checkpoint.
        data: Where the data lies; absent, where it lay in training.
        part: validation, or held_out.
        device: Where the model goes.

    Raises:
        ValueError: Checkpoint and data do not belong together, or there is no such part.
    """
    (checkpoint,) = load_checkpoints(folder, device=device, kind=KIND)
    run = checkpoint.run
    values = {"model": _model_values(checkpoint), **run["training"]}
    config = from_json(ClipTrainConfig, values, str(folder))
    if data is None and not run.get("data"):
        raise ValueError("this checkpoint does not say where its data lies; say --data PATH.")
    at = find_clips(config.dataset, data or Path(run["data"]))
    dataset = open_clips(at)
    ours = checkpoint.model.taxonomy
    if ours.pairs != dataset.taxonomy.pairs or any(
        ours.heads[head].names != space.names for head, space in dataset.taxonomy.heads.items()
    ):
        raise ValueError(
            f"the checkpoint names other verbs, nouns or actions than {dataset.name} in {at}, or "
            "in another order; give the data it was trained on, or train on this one."
        )
    source = TRAIN if part == HELD_OUT else part
    shown = sources(config, dataset, at, (source,))
    clips = shown.asked(dataset, source)
    if part == HELD_OUT:
        held = set(run.get("held_out", ()))
        clips = tuple(clip for clip in clips if clip.participant in held)
        if not clips:
            raise ValueError(f"{folder} held no participant out; score it on {VALIDATION}.")
    return LoadedClips(
        checkpoint=checkpoint,
        config=config,
        dataset=dataset,
        sources=shown,
        part=part,
        clips=clips,
    )


def _model_values(checkpoint: Checkpoint) -> Any:
    config: Any = checkpoint.model
    return config.config
