"""Recipes on another language model than their own, and whether it is there."""

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from actioncast.models.actionllm_config import ActionLLMConfig
from actioncast.recipes import RECIPES
from actioncast.training import TrainConfig
from actioncast.trunks.config import TrunkConfig
from actioncast.trunks.finding import MINILM, missing_weights
from actioncast.trunks.untrained import UNTRAINED


def recipe_on_trunk(name: str, trunk: str) -> TrainConfig:
    """A recipe, on all layers of a trunk in place of its own; one without a trunk as it is.

    Args:
        name: Of a recipe.
        trunk: Name or folder of a language model; empty for the recipe's own.
    """
    config = RECIPES[name][1]
    if not trunk or not isinstance(config.model, ActionLLMConfig):
        return config
    other = replace(config.model.trunk, name=trunk, num_layers=0)
    return replace(config, model=replace(config.model, trunk=other))


def require_trunks(names: Sequence[str], trunk: str) -> None:
    """Refuse at once what cannot be built; nothing is asked of the hub.

    Args:
        names: Recipes; whatever else stands among them is passed over.
        trunk: In place of their own.

    Raises:
        ValueError: The trunk of a recipe is not on this disk, or no recipe has one to replace.
    """
    models = {name: recipe_on_trunk(name, trunk).model for name in names if name in RECIPES}
    trunks = {
        name: model.trunk for name, model in models.items() if isinstance(model, ActionLLMConfig)
    }
    if trunk and not trunks:
        raise ValueError(
            f"--trunk must go with a recipe that stands on a language model, got "
            f"{', '.join(names)}; leave it out."
        )
    for name, one in trunks.items():
        if not _is_here(one):
            raise ValueError(
                f"{name} stands on the trunk {one.name}, which is not on this disk. Say --trunk "
                "with a folder or a model that is (minilm), or --trunk untrained:llama-7b, which "
                "is counted without weights."
            )


def _is_here(trunk: TrunkConfig) -> bool:
    """Whether the files of a trunk are on this disk."""
    if trunk.name == MINILM or trunk.name.startswith(UNTRAINED):
        return True
    if Path(trunk.name).expanduser().is_dir():
        return True
    try:
        hub: Any = importlib.import_module("huggingface_hub")
        known = hub.try_to_load_from_cache(
            trunk.name, "config.json", revision=trunk.revision or None
        )
    except (ImportError, ValueError):
        # Without the package nothing of the hub is here; a path is no name of the hub.
        return False
    return isinstance(known, str) and not missing_weights(Path(known).parent)
