"""Weights as ActionLLM's released code names them, to ours (sheet, section 11.1)."""

from collections.abc import Mapping

import torch
from torch import Tensor

STREAMS = {"text": ("text", "text"), "visual": ("visual", "visual"), "queries": ("Q", "query")}
"""What the released code calls a stream: in its attention, and in its norms and layers."""
ATTENTION = "adapter_multimodal_attention.attn."
BLOCK = "adapter_multimodal_attention."
LAYERS = {
    "adapter_proj.conv_A": "adapter.0",
    "adapter_proj.conv_B": "adapter.2",
    "adapter_multi_down": "down",
    "adapter_multi_up": "up",
    "output_seg_text": "past_heads.text",
    "output_seg_vis": "past_heads.visual",
    "output_action": "future_head",
    "adapter_output_duration": "duration_head",
}
TUNING = {
    "conv_A.weight": "down.weight",
    "conv_A.bias": "down.bias",
    "conv_D.weight": "up",
    "conv_D.bias": "up_bias",
    "conv_B.weight": "unused_up",
    "conv_B.bias": "unused_up_bias",
    "expert_weights.weight": "unused_router.weight",
    "expert_weights.bias": "unused_router.bias",
}


def from_official(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Everything but the trunk, by our names.

    Args:
        tensors: A released state dict, its trunk and its position table too or not. A released
            checkpoint holds no heads that name actions: they are then absent here.
    """
    found: dict[str, Tensor] = {}
    for theirs, ours in LAYERS.items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in tensors:
                found[f"{ours}.{kind}"] = tensors[f"{theirs}.{kind}"]
    for name, value in tensors.items():
        if name.startswith("layers.") and ".adapter_attn." in name:
            number, part = name.removeprefix("layers.").split(".adapter_attn.")
            if part in TUNING:
                flat = value.squeeze(-1) if value.ndim == 3 else value
                found[f"tuning.{number}.{TUNING[part]}"] = flat
    if f"{ATTENTION}query_Q.weight" in tensors:
        found |= _interaction(tensors)
    return found


def _interaction(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for stream, (short, long) in STREAMS.items():
        for kind in ("weight", "bias"):
            found[f"interaction.projections.{stream}.{kind}"] = torch.cat(
                [tensors[f"{ATTENTION}{part}_{short}.{kind}"] for part in ("query", "key", "value")]
            )
            found[f"interaction.outputs.{stream}.{kind}"] = tensors[
                f"{ATTENTION}out_{short}.{kind}"
            ]
        found[f"interaction.attention_norms.{stream}.weight"] = tensors[
            f"{BLOCK}attn_{long}_norm.weight"
        ]
        found[f"interaction.norms.{stream}.weight"] = tensors[f"{BLOCK}ffn_{long}_norm.weight"]
        for theirs, ours in (("w1", "gate"), ("w2", "contract"), ("w3", "expand")):
            found[f"interaction.feedforward.{stream}.{ours}.weight"] = tensors[
                f"{BLOCK}ffn_{long}.{theirs}.weight"
            ]
    return found
