"""LLaMA weights in Meta's own format: names, and the order of rotated features."""

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from torch import Tensor

LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""Weights of a layer, as Meta names them and as transformers do."""


def from_meta(
    tensors: Mapping[str, Tensor], num_heads: int, num_kv_heads: int | None = None
) -> dict[str, Tensor]:
    """The weights of `LlamaModel` from those of Meta's checkpoint.

    Meta rotates neighbouring features of a head, transformers those half a head apart: rows of
    queries and keys change places (sheet, section 11.1). The output over words is left out.

    Args:
        tensors: By Meta's names.
        num_heads: Attention heads.
        num_kv_heads: Heads of keys and values, where they are fewer.
    """
    found: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name == "tok_embeddings.weight":
            found["embed_tokens.weight"] = value
        elif name == "norm.weight":
            found[name] = value
        elif name.startswith("layers."):
            _, number, rest = name.split(".", 2)
            part = rest.removesuffix(".weight")
            if part not in LAYER:
                continue
            heads = {"attention.wq": num_heads, "attention.wk": num_kv_heads or num_heads}
            if part in heads:
                value = halves_apart(value, heads[part])  # noqa: PLW2901
            found[f"layers.{number}.{LAYER[part]}.weight"] = value
    return found


def halves_apart(rows: Tensor, num_heads: int) -> Tensor:
    """Order the rows of each head so that rotated pairs lie half a head apart."""
    return rearrange(
        rows, "(head pair two) width -> (head two pair) width", head=num_heads, two=2
    ).contiguous()


def llama_sizes(params: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `LlamaConfig` must say, from `params.json` and the shapes of the weights."""
    vocabulary, width = tensors["tok_embeddings.weight"].shape
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": tensors["layers.0.feed_forward.w1.weight"].shape[0],
        "num_hidden_layers": int(params["n_layers"]),
        "num_attention_heads": int(params["n_heads"]),
        "num_key_value_heads": int(params.get("n_kv_heads") or params["n_heads"]),
        "rms_norm_eps": float(params["norm_eps"]),
        "max_position_embeddings": int(params.get("max_seq_len", 2048)),
        "tie_word_embeddings": False,
    }
