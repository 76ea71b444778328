"""Trunks without trained weights: small ones for tests, and the shapes of LLaMA-7B."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

UNTRAINED = "untrained:"
KINDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama-tiny": {
            "model_type": "llama",
            "vocab_size": 256,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 2048,
        },
        "bert-tiny": {
            "model_type": "bert",
            "vocab_size": 256,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
        },
        "llama-7b": {
            "model_type": "llama",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
        },
    }
)
"""What each is made of. The last has 6.6e9 parameters: meant for the meta device."""


def untrained_sizes(name: str, transformers: Any) -> Any:
    """The config of an untrained trunk.

    Args:
        name: `untrained:llama-tiny` and its like.
        transformers: The package.

    Raises:
        ValueError: There is none of that name.
    """
    kind = name.removeprefix(UNTRAINED)
    if kind not in KINDS:
        known = ", ".join(UNTRAINED + one for one in KINDS)
        raise ValueError(f"an untrained trunk must be one of {known}, got {name!r}.")
    sizes = dict(KINDS[kind])
    return transformers.AutoConfig.for_model(sizes.pop("model_type"), **sizes)
