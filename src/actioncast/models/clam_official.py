"""The released CLAM, translated: its parameters under our names, and what is its own."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from actioncast.models.clam_config import ClamConfig
from actioncast.models.official import some

OFFICIAL = ClamConfig(gate_order="reversed", positions="accumulated")
"""What the released code computes with its default sizes."""

_MEMORY = {
    "self_attn.in_proj_": "mix.project.",
    "self_attn.out_proj.": "mix.out.",
    "norm1.": "mix_norm.",
    "multihead_attn.q.": "state.query.",
    "multihead_attn.k.": "state.key.",
    "multihead_attn.v.": "state.value.",
    "multihead_attn.gk_proj.0.": "state.gate_down.",
    "multihead_attn.gk_proj.1.": "state.gate_up.",
    "multihead_attn.g_proj.": "state.read_gate.",
    "multihead_attn.g_norm.": "state.norm.",
    "multihead_attn.o_proj.": "state.out.",
    "norm2.": "state_norm.",
    "mlp.gate_proj.": "expand.",
    "mlp.down_proj.": "contract.",
    "mlp_norm.": "out_norm.",
}
_PREDICTOR = {
    "self_attn.in_proj_": "mix.project.",
    "self_attn.out_proj.": "mix.out.",
    "self_attn.linear1.": "mix.expand.",
    "self_attn.linear2.": "mix.contract.",
    "norm1.": "mix_norm.",
    "multihead_attn.in_proj_": "attention.project.",
    "multihead_attn.out_proj.": "attention.out.",
    "norm2.": "attention_norm.",
    "linear1.": "expand.",
    "linear2.": "contract.",
    "norm3.": "out_norm.",
}
_WHOLE = {
    "clustering.query_embed.weight": "memory.queries",
    "decoder.query_embed.weight": "predictor.queries",
    "encoder.norm_f.weight": "processor.norm.weight",
    "clustering_emb": "memory_position",
    "semantic_emb": "act_position",
    "input_dim_converter.weight": "project.weight",
    "input_dim_converter.bias": "project.bias",
}
_HEADS = {"": "action", "_verb": "verb", "_noun": "noun"}


def clam_name(official: str) -> str | None:
    """Our name of a released parameter; None for a buffer that nothing reads, or an alias.

    Raises:
        ValueError: The released CLAM has no such parameter.
    """
    if official in _WHOLE:
        return _WHOLE[official]
    if official == "decoder.pos_embed.pe" or official.startswith("head.classifier_future"):
        return None
    if found := re.fullmatch(r"head\.classifier_past(_verb|_noun|)\.(weight|bias)", official):
        return f"heads.{_HEADS[found[1]]}.{found[2]}"
    if found := re.fullmatch(r"encoder\.layers\.(\d+)\.norm\.weight", official):
        return f"processor.norms.{found[1]}.weight"
    if found := re.fullmatch(r"encoder\.layers\.(\d+)\.mixer\.(.+)", official):
        return f"processor.blocks.{found[1]}.{found[2]}"
    if found := re.fullmatch(r"(clustering|decoder)\.layers\.(\d+)\.(.+)", official):
        ours, names = {"clustering": ("memory", _MEMORY), "decoder": ("predictor", _PREDICTOR)}[
            found[1]
        ]
        for theirs, name in names.items():
            if found[3].startswith(theirs):
                return f"{ours}.layers.{found[2]}.{name}{found[3].removeprefix(theirs)}"
    raise ValueError(f"the released CLAM has no parameter called {official!r}.")


def clam_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released parameters, or those of a part of the model, under our names."""
    found = {ours: tensor for name, tensor in state.items() if (ours := clam_name(name))}
    for name in ("memory_position", "act_position"):
        if name in found:
            found[name] = rearrange(found[name], "1 1 hidden -> hidden")
    return found


def clam_from_official(
    state: Mapping[str, Tensor],
    *,
    num_heads: int = 8,
    act_tokens: int = 4,
    gate_temperature: float = 16.0,
    ahead: tuple[float, ...] | None = None,
    released_behaviour: bool = True,
) -> tuple[ClamConfig, dict[str, Tensor]]:
    """Translate a released checkpoint.

    Args:
        state: The official state dict, with or without the `module.` of `DataParallel`.
        num_heads: Attention heads, which no tensor tells.
        act_tokens: Recent tokens (K), which no tensor tells.
        gate_temperature: What the log of its gates is divided by.
        ahead: Seconds after a step that its queries name, one each; absent, a single query names
            what starts after 1 s, and several the next actions in order.
        released_behaviour: Whether the model shall compute what the released code does, which no
            stream can, or what the paper says.

    Raises:
        ValueError: It is not a checkpoint of CLAM, or its queries are not as many as moments.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    weights = clam_weights(state)
    _require_shared_heads(state)
    block = "processor.blocks.0"
    required = {
        *("predictor.queries", "processor.norm.weight", "heads.action.weight"),
        *(f"{block}.conv1d.weight", f"{block}.A_log", "predictor.layers.0.expand.weight"),
    }
    if "memory.queries" in weights:
        first = "memory.layers.0.state"
        required |= {f"{first}.key.weight", f"{first}.gate_down.weight"}
    if missing := sorted(required - weights.keys()):
        raise ValueError(
            f"the state dict must be that of the official CLAM, got one without {some(missing)}; "
            "check which model it belongs to."
        )
    queries, hidden = weights["predictor.queries"].shape
    if ahead is not None and len(ahead) != queries:
        raise ValueError(
            f"ahead must name a moment for each of the {queries} queries of the checkpoint, got "
            f"{ahead}."
        )
    own: dict[str, Any] = {}
    if "memory.queries" in weights:
        own["memory_queries"] = len(weights["memory.queries"])
        own["memory_layers"] = _layers(weights, "memory.layers")
        own["key_ratio"] = len(weights["memory.layers.0.state.key.weight"]) / hidden
        own["gate_rank"] = len(weights["memory.layers.0.state.gate_down.weight"])
    else:
        own["memory_queries"] = 0
    if ahead is not None:
        own["ahead"] = ahead
    elif queries > 1:
        own["num_coming"] = queries
    channels, _, taps = weights[f"{block}.conv1d.weight"].shape
    config = ClamConfig(
        feature_dim=weights["project.weight"].shape[1] if "project.weight" in weights else hidden,
        hidden_dim=hidden,
        num_layers=_layers(weights, "processor.blocks"),
        state_dim=weights[f"{block}.A_log"].shape[1],
        expand=channels // hidden,
        taps=taps,
        act_tokens=act_tokens,
        num_heads=num_heads,
        gate_temperature=gate_temperature,
        token_embeddings="memory_position" in weights,
        predictor_layers=_layers(weights, "predictor.layers"),
        predictor_dim=len(weights["predictor.layers.0.expand.weight"]),
        **own,
    )
    if released_behaviour:
        config = replace(config, gate_order=OFFICIAL.gate_order, positions=OFFICIAL.positions)
    return config, weights


def _require_shared_heads(state: Mapping[str, Tensor]) -> None:
    """Past and future have one classifier; released files name it twice."""
    for name, future in state.items():
        past = state.get(name.replace("classifier_future", "classifier_past"))
        if past is not None and not torch.equal(past, future):
            raise ValueError(
                f"the classifiers of past and future must be one, as released, got another {name}."
            )


def _layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.split(".")[2] for name in weights if name.startswith(f"{prefix}.")})
