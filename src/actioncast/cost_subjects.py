"""Whose cost is measured: runs, checkpoints and recipes, each with a video to be asked about."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from actioncast.checkpoint import Checkpoint
from actioncast.data import Dataset, LabelInput, Split, Video, find_dataset, open_dataset
from actioncast.models.actionllm_config import ActionLLMConfig
from actioncast.models.base import Anticipator, CountingAnticipator
from actioncast.recipe_trunks import recipe_on_trunk
from actioncast.recipes import RECIPES, unknown_recipe
from actioncast.runs import (
    Loaded,
    checkpoints,
    load_checkpoints,
    load_run,
    read_about,
    require_device,
)
from actioncast.timeline import Taxonomy, Timeline
from actioncast.training import TrainConfig, build, model_name, prepare, training_facts
from actioncast.weightless_cost import WEIGHTLESS, build_weightless

SIZES: Mapping[str, tuple[int, float]] = {
    "breakfast": (48, 15.0),
    "50salads": (19, 30.0),
    "gtea": (11, 15.0),
    "cad120": (10, 1.5),
    "thumos14": (22, 4.0),
}
"""Labels, and frames per second, of the public data sets: enough to build a model without them."""
ACTIONS = 8
"""Actions of a video that is made up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What every model of a table is asked; the shares are those of ActionLLM's Table III."""

    observed_ratio: float = 0.2
    """share of the video seen"""
    horizon_ratio: float = 0.3
    """share of the video asked for; 0 asks about what is seen alone"""
    video: str = ""
    """name of the video; absent, the test video of median length of the first split"""
    frames: int = 0
    """frames of a video that is made up, with random features, in place of one of the data set"""
    rate: float = 0.0
    """its frames per second, or of a recipe those of data that do not say; 0 is the rate of the
    data set"""
    data: Path | None = None
    """folder of the data set, or the folder that holds it"""
    trunk: str = ""
    """language model, all of its layers, in place of that of every recipe that has one; of
    untrained:llama-7b shapes alone are counted, no weights are needed"""
    labels_from: str = ""
    """of runs that read labels beside features: who names them (truth, a run, a folder of label
    files), if not who did in training, or where that lies instead"""
    device: str = "cpu"
    """where the models run"""

    def __post_init__(self) -> None:
        seen, asked = self.observed_ratio, self.horizon_ratio
        if not (0 < seen <= 1 and 0 <= asked <= 1 and seen + asked <= 1 + 1e-9):
            raise ValueError(
                "observed_ratio must be a share above 0 and horizon_ratio one of 0 or more, and "
                f"both must fit into the video together, got {seen:g} and {asked:g}."
            )
        if self.frames < 0 or self.rate < 0:
            raise ValueError(
                f"frames and rate must be 0 or more, got {self.frames} and {self.rate:g}."
            )
        if self.frames and self.video:
            raise ValueError(
                f"a video is made up of --frames or taken by --video, got {self.frames} frames and "
                f"{self.video!r}; say one of them."
            )


@dataclass(frozen=True, slots=True)
class RandomFeatures:
    """Features that tell nothing: normal, the same for the same frames asked for."""

    num_features: int
    assumed: bool = False
    """Whether the width is that of a recipe, which follows that of data."""

    def read(self, start: int, end: int, stride: int = 1) -> Float[np.ndarray, "time feature"]:
        """Vectors for every `stride`-th of the frames `[start, end)`."""
        size = len(range(start, end, stride)), self.num_features
        return np.random.default_rng(start).standard_normal(size, dtype=np.float32)


def open_subject(what: str, asked: Asked) -> Loaded:
    """The model of a run's first split, or of a recipe, untrained, and a video to ask it about.

    Raises:
        ValueError, FileNotFoundError: There is no such thing, or its data are missing.
    """
    _require_computing(asked.device)
    if what in RECIPES:
        return _of_recipe(what, asked)
    if Path(what).is_dir():
        return _of_run(Path(what), asked)
    raise ValueError(f"{what} is no folder of a run or a checkpoint: {unknown_recipe(what)}")


def _require_computing(device: str) -> None:
    require_device(device)
    if device.startswith("meta"):
        raise ValueError("device must be one that computes, such as cpu, got meta.")


def _of_recipe(name: str, asked: Asked) -> Loaded:
    """The untrained model of a recipe; one that counts has counted the first split."""
    # Other questions of its training must not make the video too long for the model.
    config = replace(
        recipe_on_trunk(name, asked.trunk),
        observed_ratios=(asked.observed_ratio,),
        ratio_jitter=0.0,
        warp=0.0,
    )
    config, dataset = prepare(config, _dataset_for(name, config, asked))
    dataset = dataset.resampled(config.resample)
    split = next(iter(dataset.splits))
    if isinstance(config.model, ActionLLMConfig) and config.model.trunk.name in WEIGHTLESS:
        model: Anticipator = build_weightless(config.model, dataset.taxonomy)
    else:
        model = build(config, dataset).to(asked.device)
    if isinstance(model, CountingAnticipator):
        if asked.frames:
            raise ValueError(
                f"{name} counts training videos, of which a video that is made up has none; leave "
                "--frames out, or give a run."
            )
        model.fit([video.counted() for video in dataset.select(dataset.split(split).train)])
    checkpoint = Checkpoint(
        model=model.eval(),
        name=model_name(config.model),
        run={"training": training_facts(config)},
    )
    return Loaded(checkpoint=checkpoint, dataset=dataset, split=split)


def _dataset_for(name: str, config: TrainConfig, asked: Asked) -> Dataset:
    """The data of a recipe, or a video made up for it; with features in any case."""
    drawn = RandomFeatures(int(getattr(config.model, "feature_dim", 1)), assumed=True)
    try:
        dataset = open_dataset(config.dataset, asked.data, asked.rate or None)
    except (FileNotFoundError, ValueError) as error:
        if asked.data is None and asked.frames and config.dataset in SIZES:
            count, rate = SIZES[config.dataset]
            labels = Taxonomy.of(f"action {i}" for i in range(count))
            return made_up(config.dataset, labels, drawn, asked, rate)
        more = (
            "A video that is made up takes its labels from there."
            if asked.frames
            else "Or say --frames N, which makes up a video."
        )
        raise ValueError(f"{name}: {error} {more}") from None
    true = next((v.features for v in dataset.videos.values() if v.features is not None), None)
    if asked.frames:
        alike = drawn if true is None else RandomFeatures(true.num_features)
        return made_up(dataset.name, dataset.taxonomy, alike, asked, dataset.rate)
    if config.input == "features" and true is None:
        videos = {key: replace(video, features=drawn) for key, video in dataset.videos.items()}
        dataset = replace(dataset, videos=videos)
    return dataset


def _of_run(folder: Path, asked: Asked) -> Loaded:
    """The checkpoint of a run's first split."""
    first = next(iter(checkpoints(folder).values()))
    about = read_about(first)
    if about.get("kind"):
        raise ValueError(
            f"{folder} is a run on short actions: --cost with a run is for whole videos. Give its "
            "recipe: `actioncast info RECIPE --cost` tells the parts of MambaVL."
        )
    if not asked.frames:
        if asked.rate:
            raise ValueError(
                f"--rate must go with --frames or a recipe, got {folder}, which knows the rate of "
                "its data; leave it out."
            )
        _require_data(folder, about, asked.data)
        (loaded,) = load_run(first, asked.data, "", asked.device, asked.labels_from)
        return replace(loaded, split=loaded.split or next(iter(loaded.dataset.splits)))
    (checkpoint,) = load_checkpoints(first, "", asked.device)
    model: Any = checkpoint.model
    width = int(getattr(getattr(model, "config", None), "feature_dim", 1))
    rate = float(about.get("rate") or 15.0)
    drawn, name = RandomFeatures(width), str(about.get("dataset", ""))
    dataset = made_up(name, model.taxonomy, drawn, asked, rate)
    training = checkpoint.run["training"]
    if training["input"] == "labels":
        dataset = dataset.with_label_input(LabelInput(**training["labels"]))
    return Loaded(checkpoint=checkpoint, dataset=dataset, split="1")


def _require_data(folder: Path, about: Mapping[str, Any], data: Path | None) -> None:
    """Raise a ValueError where the data of a run are not there; says what can be done without."""
    name = str(about.get("dataset", ""))
    if name == "synthetic" and data is None:
        return
    at = data or (Path(about["data"]) if about.get("data") else None)
    more = "say --data PATH, or --frames N, which makes up a video."
    if at is None:
        raise ValueError(f"{folder} does not say where its data lie; {more}")
    try:
        find_dataset(name, at)
    except FileNotFoundError:
        raise ValueError(f"the data of {folder} are not in {at}; {more}") from None


def made_up(
    name: str, taxonomy: Taxonomy, features: RandomFeatures, asked: Asked, rate: float
) -> Dataset:
    """A data set of one video of `asked.frames`: a few actions one after another.

    Args:
        name: Of the data set that it stands for.
        taxonomy: Its labels.
        features: Of the video.
        asked: Frames of the video, and frames per second.
        rate: Frames per second where that says none.
    """
    rate = asked.rate or rate
    labels = np.arange(asked.frames) * ACTIONS // asked.frames % len(taxonomy.labels)
    video = Video(
        id="made up",
        timeline=Timeline.from_frames(labels, rate, taxonomy.labels),
        rate=rate,
        num_frames=asked.frames,
        features=features,
        observed_labels=labels,
    )
    return Dataset(
        name=name,
        taxonomy=taxonomy,
        rate=rate,
        videos={video.id: video},
        splits={"1": Split(train=(video.id,), test=(video.id,))},
    )
