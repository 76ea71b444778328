"""LLaMA in Meta's own format: its files, the names of weights, the order of rotated features."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from actioncast.trunks.tokenizers import SentencePieceTokenizer, Tokenizer

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
NEEDED = {"dim", "n_layers", "n_heads", "norm_eps"}
"""What `params.json` must say."""
CUT_BY_COLUMNS = ("attention.wo", "feed_forward.w2")
"""Weights whose input is cut over the devices that Meta trained on; norms are not cut, all others
by what they put out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaLlama:
    """LLaMA as it lay in a folder."""

    model: Any
    """`LlamaModel`"""
    tokenizer: Tokenizer | None


def is_meta(folder: Path) -> bool:
    """Whether a folder holds LLaMA in Meta's format."""
    return (folder / "params.json").exists() and not (folder / "config.json").exists()


def load_meta(
    folder: Path, transformers: Any, dtype: torch.dtype, num_layers: int = 0
) -> MetaLlama:
    """Read `params.json`, `consolidated.*.pth` and, where it is there, `tokenizer.model`.

    Args:
        folder: Holds them.
        transformers: The package.
        dtype: Of the weights.
        num_layers: The first of the layers; 0 for all.

    Raises:
        ImportError: There is a tokenizer, and sentencepiece is not installed.
        FileNotFoundError: A file of weights is missing.
        ValueError: A file is broken, or does not go with the others.
    """
    params = _params(folder / "params.json")
    words = folder / "tokenizer.model"
    tokenizer = SentencePieceTokenizer(words) if words.exists() else None
    tensors = merged(_shards(folder, params), params)
    sizes = llama_sizes(params, tensors)
    if num_layers > sizes["num_hidden_layers"]:
        raise ValueError(
            f"num_layers must be at most {sizes['num_hidden_layers']}, the layers in {folder}, got "
            f"{num_layers}."
        )
    sizes["num_hidden_layers"] = num_layers or sizes["num_hidden_layers"]
    config = transformers.LlamaConfig(**sizes)
    with torch.device("meta"):
        model = transformers.LlamaModel(config)
    # What is computed from sizes alone stands in no file.
    model.rotary_emb = type(model.rotary_emb)(config)
    ours = from_meta(tensors, sizes["num_attention_heads"], sizes["num_key_value_heads"])
    wanted = model.state_dict()
    wrong = [k for k, v in wanted.items() if k not in ours or ours[k].shape != v.shape]
    if wrong:
        raise ValueError(
            f"the weights in {folder} must be those that its params.json describes, got none that "
            f"fits as {', '.join(wrong[:3])}; copy the files again."
        )
    model.load_state_dict({k: ours[k].to(dtype) for k in wanted}, assign=True)
    return MetaLlama(model=model, tokenizer=tokenizer)


def _params(path: Path) -> dict[str, Any]:
    try:
        params: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lacking = sorted(NEEDED - set(params))
    except (ValueError, TypeError):
        params, lacking = {}, sorted(NEEDED)
    if lacking:
        raise ValueError(
            f"{path} must be JSON that says {', '.join(sorted(NEEDED))}, got one that does not say "
            f"{', '.join(lacking)}; copy it again."
        )
    if params.get("use_scaled_rope"):
        raise ValueError(
            f"{path} must be of a LLaMA whose places are not scaled, got one of LLaMA 3.1 or "
            "later; take the trunk in the format of transformers."
        )
    return params


def _shards(folder: Path, params: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """The files of weights, as many as the model was cut into."""
    paths = sorted(folder.glob("consolidated.*.pth"))
    numbers = [int(n) for p in paths if (n := re.sub(r"\D", "", p.stem))]
    shards = [_shard(path) for path in paths]
    rows = [len(shard["layers.0.attention.wq.weight"]) for shard in shards]
    cut = max(int(params["dim"]) // rows[0], 1) if rows else 1
    if absent := [f"consolidated.{n:02d}.pth" for n in range(cut) if n not in numbers]:
        raise FileNotFoundError(
            f"{folder} must hold the weights of LLaMA in {cut} file{'s' if cut > 1 else ''}, lacks "
            f"{', '.join(absent)}; copy what is missing."
        )
    if len(shards) != cut:
        raise ValueError(
            f"{folder} must hold the weights of LLaMA in {cut} file{'s' if cut > 1 else ''}, as "
            f"their shapes say, got {len(shards)}; take away what is of another model."
        )
    return shards


def _shard(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        complete = {"layers.0.attention.wq.weight", "tok_embeddings.weight"} <= set(found)
    except Exception:
        # Of a broken file torch raises several kinds, of one that holds code another.
        found, complete = {}, False
    if not complete:
        raise ValueError(
            f"{path} must hold the weights of LLaMA, got a file that is broken, of another model, "
            "or holds code (none of it was run); copy it again."
        )
    return dict(found)


def merged(shards: Sequence[Mapping[str, Tensor]], params: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a model that was cut over devices, as those of one.

    Args:
        shards: In the order of their numbers.
        params: `params.json`.
    """
    if len(shards) == 1:
        return dict(shards[0])
    found: dict[str, Tensor] = {}
    for name, first in shards[0].items():
        part = name.removesuffix(".weight")
        if first.ndim < 2:
            found[name] = first
        elif part.endswith(CUT_BY_COLUMNS) or (
            # LLaMA 1 and 2 cut the table of words by its features, LLaMA 3 by its words.
            part == "tok_embeddings" and first.shape[1] < int(params["dim"])
        ):
            found[name] = torch.cat([shard[name] for shard in shards], 1)
        else:
            found[name] = torch.cat([shard[name] for shard in shards], 0)
    return found


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
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(params.get("rope_theta", 10000.0)),
        },
        "tie_word_embeddings": False,
    }
