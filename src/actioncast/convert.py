"""Official checkpoints in: their tensors, our names, our folder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from actioncast import __version__
from actioncast.checkpoint import load_weights, read_official, save_checkpoint
from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_runs import find_clips, open_clips
from actioncast.clip_training import KIND, SPLIT
from actioncast.data.frame_labels import read_mapping
from actioncast.diffusion_recipes import DIFFUSION_RECIPES
from actioncast.models.clam_config import ClamConfig
from actioncast.models.clam_official import clam_from_official
from actioncast.models.diffusion_official import Method, diffusion_from_official
from actioncast.models.futr_official import futr_from_official
from actioncast.stream_recipes import EK100
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.training import TrainConfig, commit, model_name, training_facts

RATES: Mapping[str, float] = {"breakfast": 15.0, "50salads": 30.0, "gtea": 15.0}
"""Frames per second of the features that released models read."""
FUTR_STRIDES: Mapping[str, int] = {"breakfast": 3, "50salads": 6}
"""Every how many frames the released FUTR reads one."""
NUM_LABELS: Mapping[str, int] = {"breakfast": 48, "50salads": 19, "gtea": 11}
"""Labels that models released for a data set name."""
RELEASED: Mapping[tuple[Method, str], str] = {
    ("actfusion", "50salads"): "actfusion-50salads-released",
    ("actfusion", "breakfast"): "actfusion-breakfast-released",
    ("actfusion", "gtea"): "actfusion-gtea",
    ("diffact", "50salads"): "diffact-50salads",
    ("diffact", "breakfast"): "diffact-breakfast",
    ("diffact", "gtea"): "diffact-gtea",
}
"""The recipe that holds what a checkpoint does not: stride, offsets, post-processing, scale."""


def convert_futr(
    checkpoint: Path,
    folder: Path,
    *,
    mapping: Path | None = None,
    num_heads: int = 8,
    stride: int | None = None,
    rate: float | None = None,
    dataset: str = "",
    split: str = "",
    trust: bool = False,
) -> Path:
    """Turn a released FUTR checkpoint into ours.

    Args:
        checkpoint: The file, with or without the `module.` prefix of DataParallel.
        folder: Where to write.
        mapping: mapping.txt with the names of its labels, in its order.
        num_heads: Attention heads, which tensors do not tell.
        stride: Every how many frames it reads one; absent, as released for the data set, or 3.
        rate: Frames per second of its data; absent, that of the data set, or 15.
        dataset: Data set it was trained on.
        split: Split it was trained on.
        trust: Unpickle whatever the file holds.

    Raises:
        ValueError, FileNotFoundError: The file is no FUTR checkpoint, or the labels do not fit.
    """
    config, weights = futr_from_official(read_official(checkpoint, trust), num_heads)
    training = TrainConfig(
        model=config,
        dataset=dataset,
        stride=FUTR_STRIDES.get(dataset, 3) if stride is None else stride,
        selection="test",
    )
    labels = _labels(mapping, len(weights["past_head.weight"]))
    return _write(folder, checkpoint, training, weights, labels, rate, split)


def convert_diffusion(
    method: Method,
    checkpoint: Path,
    folder: Path,
    *,
    dataset: str = "",
    mapping: Path | None = None,
    condition_layers: Sequence[int] = (),
    scale: float | None = None,
    stride: int | None = None,
    rate: float | None = None,
    split: str = "",
    trust: bool = False,
) -> Path:
    """Turn a released ActFusion or DiffAct checkpoint into ours.

    Args:
        method: Whose it is.
        checkpoint: The file.
        folder: Where to write.
        dataset: Data set it was trained on; decides stride, offsets, post-processing and scale.
        mapping: mapping.txt with the names of its labels, in its order.
        condition_layers: Encoder layers that condition the denoiser; absent, as released.
        scale: Of diffusion; absent, as released.
        stride: Every how many frames it reads one; absent, as released.
        rate: Frames per second of its data; absent, as released.
        split: Split it was trained on.
        trust: Unpickle whatever the file holds.

    Raises:
        ValueError, FileNotFoundError: The file is no such checkpoint, the labels do not fit, or
            the data set is not the one that it was trained on, or none was released for it.
    """
    if (method, dataset) not in RELEASED:
        known = ", ".join(name for m, name in RELEASED if m == method)
        raise ValueError(
            f"dataset must be one that {method} was released for, {known}, got {dataset!r}: a "
            "checkpoint does not tell its stride, scale and post-processing; say --dataset."
        )
    recipe = DIFFUSION_RECIPES[RELEASED[method, dataset]][1]
    released = cast(Any, recipe.model)
    state = read_official(checkpoint, trust)
    config, weights = diffusion_from_official(
        method,
        state,
        condition_layers or released.condition_layers,
        released.scale if scale is None else scale,
    )
    sizes = {
        name: getattr(config, name)
        for name in (
            *("feature_dim", "encoder_layers", "encoder_dim", "encoder_taps", "decoder_layers"),
            *("decoder_dim", "decoder_taps", "step_dim", "condition_layers", "num_steps", "scale"),
            *("condition_features", "condition_predictions"),
        )
    }
    training = replace(
        recipe,
        model=replace(released, **sizes),
        stride=recipe.stride if stride is None else stride,
        selection="test",
    )
    num_labels = len(weights["encoder.head.weight"])
    others = [name for name, number in NUM_LABELS.items() if number == num_labels]
    if others and dataset not in others:
        raise ValueError(
            f"dataset must be the one that {checkpoint} was trained on, got {dataset}: it names "
            f"{num_labels} labels, as a model of {others[0]} does; say --dataset {others[0]}."
        )
    labels = _labels(mapping, num_labels)
    return _write(folder, checkpoint, training, weights, labels, rate, split)


def convert_clam(
    checkpoint: Path,
    folder: Path,
    *,
    data: Path | None = None,
    num_heads: int = 8,
    act_tokens: int = 4,
    gate_temperature: float = 16.0,
    ahead: tuple[float, ...] = (),
    paper: bool = False,
    trust: bool = False,
) -> Path:
    """Turn a released CLAM checkpoint of EPIC-KITCHENS-100 into ours.

    Args:
        checkpoint: The file, with or without the `module.` prefix of DataParallel.
        folder: Where to write.
        data: Folder of the annotation, with RULSTM's actions.csv, or one that holds it.
        num_heads: Attention heads, which tensors do not tell.
        act_tokens: Recent tokens (K), which tensors do not tell.
        gate_temperature: What the log of its gates is divided by.
        ahead: Seconds that its queries name; absent, as `clam_from_official` has it.
        paper: Compute what the paper says, step by step, in place of what the released code does.
        trust: Unpickle whatever the file holds.

    Raises:
        ValueError, FileNotFoundError: The file is no CLAM checkpoint, or its classes are not those
            of the annotation.
    """
    config, weights = clam_from_official(
        read_official(checkpoint, trust),
        num_heads=num_heads,
        act_tokens=act_tokens,
        gate_temperature=gate_temperature,
        ahead=ahead or None,
        released_behaviour=not paper,
    )
    at = find_clips(EK100.dataset, data)
    dataset = open_clips(at)
    # Verb, then noun is another order than that of the released action classifier.
    if not any((at / place / "actions.csv").is_file() for place in ("", "rulstm")):
        raise ValueError(
            f"{at} must hold RULSTM's actions.csv, in whose order the released classifier names "
            "actions, got none; put it there."
        )
    wanted = {head: len(space) for head, space in dataset.taxonomy.heads.items()}
    found = {head: len(weights.get(f"heads.{head}.weight", ())) - 1 for head in wanted}
    if found != wanted:
        raise ValueError(
            f"the classifiers of {checkpoint} must have a background and the classes of {at}, "
            f"{_counted(wanted)}, got {_counted(found)} besides a background; give the annotation "
            "that it was trained on."
        )
    training = replace(_clam_training(config), selection="test")
    run = {
        "kind": KIND,
        **_facts(checkpoint, training),
        "dataset": dataset.name,
        "data": str(at.resolve()),
        "fingerprint": dataset.fingerprint(),
        "split": SPLIT,
        "held_out": [],
        "input": f"features, {config.feature_dim} wide",
        "questions": "",
    }
    return _save(folder, training, weights, dataset.taxonomy, run)


def _clam_training(config: ClamConfig) -> ClipTrainConfig:
    """The published training of a model, with what its queries are asked."""
    if config.num_coming:
        asked = replace(EK100, task="coming_actions", every_step=False)
        return replace(asked, model=config, num_actions=config.num_coming)
    first = 1.0 if 1.0 in config.ahead else config.ahead[0]
    return replace(EK100, model=config, anticipation_time=first)


def _counted(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{max(0, count)} {head}s" for head, count in sizes.items())


def _labels(mapping: Path | None, num_labels: int) -> LabelSpace:
    if mapping is None:
        return LabelSpace(tuple(f"action_{i}" for i in range(num_labels)))
    labels = read_mapping(mapping)
    if len(labels) != num_labels:
        raise ValueError(
            f"{mapping} names {len(labels)} labels, the checkpoint {num_labels}; give the mapping "
            "of the data set it was trained on."
        )
    return labels


def _write(
    folder: Path,
    checkpoint: Path,
    training: TrainConfig,
    weights: Mapping[str, Tensor],
    labels: LabelSpace,
    rate: float | None,
    split: str,
) -> Path:
    if rate is None:
        rate = RATES.get(training.dataset, 15.0)
    if not 0 < rate < math.inf:
        raise ValueError(f"rate must be positive, in frames per second, got {rate:g}.")
    run = {
        **_facts(checkpoint, training),
        "dataset": training.dataset,
        "data": "",
        "fingerprint": "",
        "rate": rate,
        "split": split,
        "held_out": [],
    }
    return _save(folder, training, weights, Taxonomy({"action": labels}), run)


def _facts(checkpoint: Path, training: TrainConfig | ClipTrainConfig) -> dict[str, Any]:
    """What every converted checkpoint says of itself."""
    return {
        "recipe": f"converted from {checkpoint.name}",
        "training": training_facts(training),
        "version": __version__,
        "commit": commit(),
    }


def _save(
    folder: Path,
    training: TrainConfig | ClipTrainConfig,
    weights: Mapping[str, Tensor],
    taxonomy: Taxonomy,
    run: Mapping[str, Any],
) -> Path:
    config = training.model
    model = config.build(taxonomy)
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:300]
        raise ValueError(
            f"the tensors of the state dict must fit each other, got {reason} Check whose it is."
        ) from None
    save_checkpoint(folder, model_name(config), model, config, run)
    load_weights(model, folder / "model.safetensors")
    return folder
