"""Weights as m&m-Ant's released code names them, to ours (sheet, section 10)."""

from collections.abc import Mapping

from torch import Tensor

LAYERS = {
    "input_embed": "embed",
    "fc_seg": "past_head",
    "fc": "future_head",
    "fc_len": "duration_head",
    "fc_l3": "generator.head",
    "context_projector": "project",
    "transformer.decoder.norm": "decoder_norm",
}
ATTENTIONS = {"in_proj_": "project.", "out_proj.": "out."}
ENCODER = {
    "self_attn": "attention",
    "linear1": "feedforward.expand",
    "linear2": "feedforward.contract",
    "norm1": "attention_norm",
    "norm2": "feedforward_norm",
}
DECODER = {
    "self_attn": "self_attention",
    "multihead_attn": "cross_attention",
    "linear1": "feedforward.expand",
    "linear2": "feedforward.contract",
    "norm1": "self_norm",
    "norm2": "cross_norm",
    "norm3": "feedforward_norm",
}
UNUSED = ("pos_enc.pos_table",)
"""Tables that follow from a formula."""


def from_official(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a released state dict by our names.

    Raises:
        ValueError: A tensor is of no layer of the released model.
    """
    return {
        "positions" if name == "pos_embedding" else _renamed(name): value[0]
        if name == "pos_embedding"
        else value
        for name, value in tensors.items()
        if name not in UNUSED
    }


def _renamed(name: str) -> str:
    for part, ours in (("encoder", ENCODER), ("decoder", DECODER)):
        start = f"transformer.{part}.layers."
        if name.startswith(start):
            number, layer, rest = name.removeprefix(start).split(".", 2)
            if layer in ours:
                return f"{part}.{number}.{ours[layer]}.{_attention(rest)}"
    if name.startswith("l3_attention."):
        return f"generator.attention.{_attention(name.removeprefix('l3_attention.'))}"
    layer, _, kind = name.rpartition(".")
    if layer in LAYERS:
        return f"{LAYERS[layer]}.{kind}"
    raise ValueError(f"a weight must be of a layer of the released m&m-Ant, got {name!r}.")


def _attention(name: str) -> str:
    for theirs, ours in ATTENTIONS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
