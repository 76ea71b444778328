"""Released checkpoints of ActFusion and DiffAct: their parameters, our names, and our config."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from actioncast.models.actfusion import ActFusionConfig
from actioncast.models.diffact import DiffActConfig
from actioncast.models.official import require_fit, some

Method = Literal["actfusion", "diffact"]

BIAS_ROWS = 20_000
"""Rows of a released table of position biases."""
FARTHEST_ROW = 100
"""Steps from the leftmost tap beyond which all taps read one row."""
SCHEDULE = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
)
"""Buffers that follow from the number of steps."""


def diffusion_from_official(
    method: Method,
    state: Mapping[str, Tensor],
    condition_layers: Sequence[int] | None = None,
    scale: float = 1.0,
) -> tuple[ActFusionConfig | DiffActConfig, dict[str, Tensor]]:
    """Translate a released state dict; the rows of the encoder's head are the labels.

    Args:
        method: Whose checkpoint.
        state: The released state dict, with or without the `module.` of `DataParallel`.
        condition_layers: Encoder layers that condition the denoiser, which no tensor tells: {5, 7,
            9} of 10, {7, 8, 9} of 12 as released, if absent. As released, -1 stands for the
            features themselves and -2 for the encoder's answer; order says nothing.
        scale: Of diffusion, which no tensor tells: 1 on 50 Salads, 0.5 on Breakfast and GTEA.

    Raises:
        ValueError: It is not a checkpoint of the method, or of another shape.
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    num_steps = len(state["betas"]) if "betas" in state else 1000
    for name in SCHEDULE:
        state.pop(name, None)
    encoder_layers, decoder_layers = (
        len({match[1] for name in state if (match := re.match(pattern, name))})
        for pattern in (r"encoder\.encoder\.layers\.(\d+)\.", r"decoder\.module\.layers\.(\d+)\.")
    )
    expected = official_names(method, encoder_layers, decoder_layers)
    missing, unexpected = sorted(expected - state.keys()), sorted(state.keys() - expected)
    if missing or unexpected or not encoder_layers or not decoder_layers:
        raise ValueError(
            f"the state dict must be that of the official {method}, got one without "
            f"{some(missing)}, and with {some(unexpected)} besides; check which model it belongs "
            "to."
        )
    encoder_dim, feature_dim, _ = state["encoder.conv_in.weight"].shape
    decoder_dim, num_labels, _ = state["decoder.conv_in.weight"].shape
    if condition_layers is None:
        condition_layers = (7, 8, 9) if encoder_layers == 12 else (5, 7, 9)
    layers = tuple(sorted({layer for layer in condition_layers if layer >= 0}))
    has_features, has_predictions = -1 in condition_layers, -2 in condition_layers
    condition = state["decoder.module.layers.0.att_linear_q.weight"].shape[1] - decoder_dim
    told = len(layers) * encoder_dim + has_features * feature_dim + has_predictions * num_labels
    if condition != told:
        raise ValueError(
            f"condition_layers must be those the checkpoint was trained with, {condition} channels "
            f"at {encoder_dim} a layer, got {tuple(condition_layers)}, which have {told}; say "
            "--condition-layers."
        )
    kind = ActFusionConfig if method == "actfusion" else DiffActConfig
    config = kind(
        feature_dim=feature_dim,
        encoder_layers=encoder_layers,
        encoder_dim=encoder_dim,
        encoder_taps=state["encoder.encoder.layers.0.conv_block.0.weight"].shape[2],
        decoder_layers=decoder_layers,
        decoder_dim=decoder_dim,
        decoder_taps=state["decoder.module.layers.0.conv_block.0.weight"].shape[2],
        step_dim=state["decoder.time_in.0.weight"].shape[0],
        condition_layers=layers,
        condition_features=has_features,
        condition_predictions=has_predictions,
        num_steps=num_steps,
        scale=scale,
    )
    weights = _translated(state, encoder_layers, decoder_layers)
    weights["label_weights"] = torch.ones(num_labels)
    require_fit(config, weights, num_labels)
    return config, weights


def official_names(method: Method, encoder_layers: int, decoder_layers: int) -> set[str]:
    """The parameters of a released state dict."""
    modules = ["encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out"]
    modules += ["decoder.time_in.0", "decoder.time_in.1", "decoder.module.time_proj"]
    layers = [f"encoder.encoder.layers.{i}" for i in range(encoder_layers)]
    layers += [f"decoder.module.layers.{i}" for i in range(decoder_layers)]
    parts = ("conv_block.0", "att_linear_q", "att_linear_k", "att_linear_v")
    modules += [f"{layer}.{part}" for layer in layers for part in (*parts, *FFN)]
    names = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    if method == "actfusion":
        names |= {"mask_token", *(f"{layer}.rel_pos_emb.weight" for layer in layers)}
    return names


FFN = ("ffn_block.0", "ffn_block.2")
MODULES = {
    "encoder.conv_in": "encoder.embed",
    "encoder.conv_out": "encoder.head",
    "decoder.conv_in": "decoder.embed",
    "decoder.conv_out": "decoder.head",
    "decoder.time_in.0": "decoder.step_in",
    "decoder.time_in.1": "decoder.step_out",
    "decoder.module.time_proj": "decoder.step_project",
}
LAYER_MODULES = {
    "conv_block.0": "conv",
    "att_linear_v": "value",
    "ffn_block.0": "expand",
    "ffn_block.2": "contract",
}


def bias_rows(taps: int, dilation: int) -> list[int]:
    """The rows of a released table of position biases that a layer reads, by tap.

    Counted from the leftmost tap, and clipped (sheet of differences: the table is directional).
    """
    return [BIAS_ROWS // 2 + min(tap * dilation, FARTHEST_ROW) for tap in range(taps)]


def _translated(
    state: Mapping[str, Tensor], encoder_layers: int, decoder_layers: int
) -> dict[str, Tensor]:
    names = dict(MODULES)
    weights: dict[str, Tensor] = {}
    for theirs, ours, count in (
        ("encoder.encoder.layers", "encoder.layers", encoder_layers),
        ("decoder.module.layers", "decoder.layers", decoder_layers),
    ):
        for i in range(count):
            for their_part, our_part in LAYER_MODULES.items():
                names[f"{theirs}.{i}.{their_part}"] = f"{ours}.{i}.{our_part}"
            for kind in ("weight", "bias"):
                both = [state[f"{theirs}.{i}.att_linear_{which}.{kind}"] for which in "qk"]
                weights[f"{ours}.{i}.query_key.{kind}"] = torch.cat(both)
            table = state.get(f"{theirs}.{i}.rel_pos_emb.weight")
            if table is not None:
                taps = state[f"{theirs}.{i}.conv_block.0.weight"].shape[2]
                weights[f"{ours}.{i}.bias"] = table[bias_rows(taps, 2**i), 0]
    for theirs, ours in names.items():
        for kind in ("weight", "bias"):
            weights[f"{ours}.{kind}"] = state[f"{theirs}.{kind}"]
    if "mask_token" in state:
        weights["token"] = state["mask_token"].flatten()
    return {name: tensor.contiguous() for name, tensor in weights.items()}
