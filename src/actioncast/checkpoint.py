"""Checkpoints as folders: `config.json`, `labels.json`, `model.safetensors`. Nothing is pickled.

A file is replaced only by a complete one: written beside it, flushed to disk, then renamed. A full
disk or a kill leaves the last good checkpoint.
"""

import json
import math
import zipfile
from collections.abc import Mapping, Set
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from actioncast.files import replace_file
from actioncast.models import MODELS, ModelConfig
from actioncast.models.base import Anticipator
from actioncast.timeline import LabelSpace, Taxonomy

FORMAT = 1
"""Version of the folder's layout."""
FILES = ("config.json", "labels.json", "model.safetensors")
ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model and where it comes from."""

    model: Anticipator
    name: str
    """Its name in `MODELS`."""
    run: Mapping[str, Any]
    """What the training run said of itself: recipe, data, split, seed, selection."""


def save_checkpoint(
    folder: Path, name: str, model: Anticipator, config: object, run: Mapping[str, Any]
) -> None:
    """Write a model to a folder, replacing an older one of the same run.

    Raises:
        OSError: The disk is full or read-only; an older checkpoint is then untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # What kills left half written would fill the disk in time.
    for rest in [path for file in FILES for path in folder.glob(f".{file}.*")]:
        rest.unlink(missing_ok=True)
    about = {"format": FORMAT, "model": name, "config": to_json(config), "run": to_json(run)}
    tensors = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    weights = serialise(tensors, {"format": "pt"})
    taxonomy = model.taxonomy
    labels: dict[str, Any] = {
        "primary": taxonomy.primary,
        "heads": {
            head: {
                "names": list(space.names),
                "background": sorted(space.background),
                **({"unknown": sorted(space.unknown)} if space.unknown else {}),
            }
            for head, space in taxonomy.heads.items()
        },
    }
    if taxonomy.pairs:
        labels["pairs"] = [list(pair) for pair in taxonomy.pairs]
    if taxonomy.levels:
        labels["levels"] = list(taxonomy.levels)
        labels["parents"] = {level: list(of) for level, of in taxonomy.parents.items()}
    replace_file(folder / "labels.json", json_bytes(labels))
    replace_file(folder / "model.safetensors", weights)
    replace_file(folder / "config.json", json_bytes(about))


def load_checkpoint(folder: Path | str, device: str = "cpu", trunk: str = "") -> Checkpoint:
    """Read a model from a folder.

    Args:
        folder: Of the checkpoint.
        device: Where the model goes.
        trunk: Where the language model is that it stands on, or its name, if not as in training.

    Raises:
        FileNotFoundError: The folder or one of its files is absent, or the trunk.
        ValueError: A file is broken, or the files do not belong together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"the checkpoint folder {folder} does not exist.")
    for name in FILES:
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"{folder} must hold {', '.join(FILES)}, {name} is "
                "missing; give a folder that `actioncast train` or `convert` wrote."
            )
    about = _object(folder / "config.json", {"format", "model", "config", "run"})
    if about["format"] != FORMAT:
        raise ValueError(
            f"{folder / 'config.json'} must be of format {FORMAT}, got {about['format']}; it was "
            "written by another version of actioncast."
        )
    if about["model"] not in tuple(MODELS):
        raise ValueError(
            f"{folder / 'config.json'}: unknown model {about['model']!r}; "
            f"the models are {', '.join(MODELS)}."
        )
    config = from_json(MODELS[about["model"]], about["config"], str(folder / "config.json"))
    if trunk:
        config = _on_trunk(config, trunk, folder)
    taxonomy = _taxonomy(folder / "labels.json")
    try:
        model = getattr(config, "build_unfilled", config.build)(taxonomy)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} holds what was trained and not the frozen model that it stands on: {error} "
            "Bring it back, say where it is with --trunk PATH, or in "
            f"{folder / 'config.json'} (name of trunk)."
        ) from None
    load_weights(model, folder / "model.safetensors")
    return Checkpoint(model=model.eval().to(device), name=about["model"], run=about["run"])


def _on_trunk(config: ModelConfig, trunk: str, folder: Path) -> ModelConfig:
    """A config with its trunk from elsewhere, which has no commit of the hub unless it says so."""
    own = getattr(config, "trunk", None)
    if own is None:
        raise ValueError(
            f"a trunk must go with a model that stands on one, got {trunk} for {folder}, a "
            f"{type(config).__name__.removesuffix('Config')}; leave it out."
        )
    moved: ModelConfig = replace(cast(Any, config), trunk=replace(own, name=trunk, revision=""))
    return moved


def load_weights(model: Anticipator, path: Path) -> None:
    """Fill a model with the tensors of a safetensors file.

    Raises:
        ValueError: The file is broken or belongs to another model or label space.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} must be a complete safetensors file, got a broken one ({error})."
        ) from None
    _fill(model, tensors, path)


def _fill(model: Anticipator, tensors: Mapping[str, Tensor], path: Path) -> None:
    if broken := [
        k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()
    ]:
        raise ValueError(
            f"{path} must hold finite numbers, got NaN or infinity in {broken[0]}: its training "
            "diverged; train again with a smaller learning rate."
        )
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise ValueError(
            f"{path} belongs to another model, or to another label space, than the config.json "
            f"and labels.json beside it: {reason[0].strip()[:300]}"
        ) from None
    # No shape tells how many labels a counting model has seen.
    counted, num_labels = tensors.get("transcripts.labels"), len(model.taxonomy.labels)
    if counted is not None and len(counted) and int(counted.max()) >= num_labels:
        raise ValueError(
            f"{path} belongs to another label space than the labels.json beside it: it has counted "
            f"label {int(counted.max())}, got names for {num_labels}."
        )


def json_bytes(value: object) -> bytes:
    """Readable JSON, the same bytes for the same value."""
    return (json.dumps(to_json(value), indent=1, ensure_ascii=False) + "\n").encode()


def to_json(value: Any) -> Any:
    """Dataclasses, enumerations, tuples, sets, paths and NaN (null) as what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(to_json(item) for item in value)
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and math.isnan(value):
        return None
    return str(value) if isinstance(value, Path) else value


def from_json(kind: type[ConfigT], value: Any, where: str) -> ConfigT:
    """Rebuild a config dataclass; an unknown key or a wrong value is an error.

    Raises:
        ValueError: Names the place, the key and what was expected.
    """
    if unknown := _unknown_key(kind, value):
        known = ", ".join(field.name for field in fields(cast(Any, kind)))
        raise ValueError(f"{where}: unknown key {unknown!r}; {kind.__name__} has {known}.")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or kind.__name__
        raise ValueError(f"{where}: {key}: {first['msg']}, got {first['input']!r}.") from None


def _unknown_key(kind: Any, value: Any) -> str:
    if not is_dataclass(kind) or not isinstance(value, Mapping):
        return ""
    kinds = get_type_hints(kind)
    for key, item in value.items():
        if key not in kinds:
            return str(key)
        if inner := _unknown_key(kinds[key], item):
            return f"{key}.{inner}"
    return ""


def _object(path: Path, keys: set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON, got {error}.") from None
    if not isinstance(value, dict) or set(value) - optional != keys:
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{path} must hold {', '.join(sorted(keys))}, got {found}.")
    return value


def _taxonomy(path: Path) -> Taxonomy:
    value = _object(path, {"primary", "heads"}, {"pairs", "levels", "parents"})
    try:
        heads = {
            head: LabelSpace(
                tuple(space["names"]),
                frozenset(space["background"]),
                frozenset(space.get("unknown", ())),
            )
            for head, space in value["heads"].items()
        }
        pairs = tuple((int(verb), int(noun)) for verb, noun in value.get("pairs", ()))
        parents = {
            str(level): tuple(int(label) for label in of)
            for level, of in value.get("parents", {}).items()
        }
        levels = tuple(str(level) for level in value.get("levels", ()))
        return Taxonomy(heads, value["primary"], pairs, levels, parents)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must hold the label names of every head, got one that does not ({error})."
        ) from None


def _is_pickled(path: Path) -> bool:
    """Whether a file looks like what torch writes: a zip archive, or a bare pickle."""
    with path.open("rb") as file:
        return file.read(4)[:1] == b"\x80" or zipfile.is_zipfile(path)


def read_official(path: Path, trust: bool = False) -> dict[str, Tensor]:
    """Read the tensors of somebody else's checkpoint: `.safetensors`, or a PyTorch file.

    A PyTorch file is read without running any code in it. One that holds more than tensors and
    plain containers is refused unless the user trusts it.

    Args:
        path: The file.
        trust: Unpickle whatever the file holds, which can run any code.

    Raises:
        ValueError: The file is no checkpoint, or would have to be trusted.
    """
    if not path.exists():
        raise FileNotFoundError(f"the checkpoint {path} does not exist.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} must be a safetensors file, got {error}.") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=not trust)
    except Exception as error:
        if not trust and _is_pickled(path) and "weights_only" in str(error).lower():
            raise ValueError(
                f"{path} holds more than tensors, and reading it could run any code in it; say "
                "--trust if you know who made it."
            ) from None
        raise ValueError(
            f"{path} must be a PyTorch checkpoint, got a file that does not open "
            f"({type(error).__name__}: {error}); copy it again."
        ) from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping | torch.nn.Module):
            loaded = loaded[key]
    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.state_dict()
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ValueError(f"{path} must hold a state dict of tensors, got {type(loaded).__name__}.")
    return dict(loaded)
