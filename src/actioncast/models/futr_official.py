"""Released checkpoints of FUTR, translated: their parameters under our names, and our config."""

import re
from collections.abc import Mapping

from einops import rearrange
from torch import Tensor

from actioncast.models.futr import FUTRConfig
from actioncast.models.official import require_fit, some


def futr_from_official(
    state: Mapping[str, Tensor], num_heads: int = 8
) -> tuple[FUTRConfig, dict[str, Tensor]]:
    """Translate a released checkpoint; the rows of `past_head` are the labels.

    Args:
        state: the official state dict, with or without the `module.` of `DataParallel`.
        num_heads: attention heads, which no tensor tells; every released model has 8.

    Raises:
        ValueError: it is not a checkpoint of FUTR, or of another shape.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    state.pop("pos_enc.pos_table", None)
    num_encoder_layers, num_decoder_layers = (
        len({match[1] for name in state if (match := re.match(pattern, name))})
        for pattern in (
            r"transformer\.encoder\.layers\.(\d+)\.",
            r"transformer\.decoder\.layers\.(\d+)\.",
        )
    )
    names = official_names(num_encoder_layers, num_decoder_layers)
    missing, unexpected = sorted(names.keys() - state), sorted(state.keys() - names)
    if missing or unexpected or not num_encoder_layers or not num_decoder_layers:
        raise ValueError(
            f"the state dict must be that of the official FUTR, got one without {some(missing)}, "
            f"and with {some(unexpected)} besides; check which model it belongs to."
        )
    weights = {names[name]: tensor for name, tensor in state.items()}
    weights["positions"] = rearrange(weights["positions"], "1 time hidden -> time hidden")
    num_queries, hidden_dim = weights["queries"].shape
    config = FUTRConfig(
        feature_dim=weights["embed.weight"].shape[1],
        hidden_dim=hidden_dim,
        num_queries=num_queries,
        num_encoder_layers=num_encoder_layers,
        num_decoder_layers=num_decoder_layers,
        num_heads=num_heads,
        feedforward_factor=len(weights["encoder.0.feedforward.expand.weight"]) // hidden_dim,
        max_positions=len(weights["positions"]),
        fill="last_query",
    )
    num_labels = len(weights["past_head.weight"])
    require_fit(config, weights, num_labels)
    return config, weights


def official_names(num_encoder_layers: int, num_decoder_layers: int) -> dict[str, str]:
    """Our name of every parameter, by its name in the official code."""
    modules = {
        "input_embed": "embed",
        "transformer.decoder.norm": "decoder_norm",
        "fc_seg": "past_head",
        "fc": "future_head",
        "fc_len": "duration_head",
    }
    attentions = {}
    for i in range(num_encoder_layers):
        theirs, ours = f"transformer.encoder.layers.{i}", f"encoder.{i}"
        attentions[f"{theirs}.self_attn"] = f"{ours}.attention"
        modules |= _feedforward_names(theirs, ours)
        modules[f"{theirs}.norm1"] = f"{ours}.attention_norm"
        modules[f"{theirs}.norm2"] = f"{ours}.feedforward_norm"
    for i in range(num_decoder_layers):
        theirs, ours = f"transformer.decoder.layers.{i}", f"decoder.{i}"
        attentions[f"{theirs}.self_attn"] = f"{ours}.self_attention"
        attentions[f"{theirs}.multihead_attn"] = f"{ours}.cross_attention"
        modules |= _feedforward_names(theirs, ours)
        modules[f"{theirs}.norm1"] = f"{ours}.self_norm"
        modules[f"{theirs}.norm2"] = f"{ours}.cross_norm"
        modules[f"{theirs}.norm3"] = f"{ours}.feedforward_norm"
    names = {"pos_embedding": "positions", "query_embed.weight": "queries"}
    for kind in ("weight", "bias"):
        names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in modules.items()}
        for theirs, ours in attentions.items():
            names[f"{theirs}.in_proj_{kind}"] = f"{ours}.project.{kind}"
            names[f"{theirs}.out_proj.{kind}"] = f"{ours}.out.{kind}"
    return names


def _feedforward_names(theirs: str, ours: str) -> dict[str, str]:
    return {
        f"{theirs}.linear1": f"{ours}.feedforward.expand",
        f"{theirs}.linear2": f"{ours}.feedforward.contract",
    }
