"""ActFusion and DiffAct against what the released code computed, and against their definitions."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_reference import ReferenceDiffusion
from safetensors.torch import load_file
from torch import Tensor

from actioncast.layers.diffusion import cosine_signal, ddim_steps, standard_noise
from actioncast.layers.frame_losses import class_weights
from actioncast.models.actfusion import ActFusionConfig
from actioncast.models.diffact import DiffActConfig
from actioncast.models.diffusion import DiffusionAnticipator
from actioncast.models.diffusion_official import (
    LAYER_MODULES,
    MODULES,
    bias_rows,
    diffusion_from_official,
)
from actioncast.timeline import Taxonomy
from goldens import golden_cases

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 0.0}


def network_cases() -> list[Any]:
    """Cases that hold weights; others are post-processing."""
    found = []
    for method in ("actfusion", "diffact"):
        for case in golden_cases(method):
            folder: Path = case.values[0]
            if not folder.is_dir() or (folder / "weights.safetensors").exists():
                found.append(pytest.param(folder, id=f"{method}-{case.id}", marks=case.marks))
    return found


each_case = pytest.mark.parametrize("case", network_cases())


class Golden:
    """One case: the released numbers, and our model with the same weights."""

    def __init__(self, folder: Path) -> None:
        self.facts = json.loads((folder / "config.json").read_text())
        self.io = load_file(folder / "io.safetensors")
        sizes = self.facts["hyper_parameters"]
        config, weights = diffusion_from_official(
            self.facts["method"],
            load_file(folder / "weights.safetensors"),
            sizes["encoder_params"]["feature_layer_indices"],
            sizes["snr_scale"],
        )
        config = replace(config, inference_steps=sizes["sampling_timesteps"])
        self.taxonomy = Taxonomy.of(map(str, range(sizes["num_classes"])))
        self.model = self.with_config(config, weights)
        self.config, self.weights = config, weights

    def with_config(self, config: Any, weights: dict[str, Tensor]) -> Any:
        model = config.build(self.taxonomy).eval()
        model.load_state_dict(weights)
        return model

    def seen(self, features: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits and condition of an encoder that sees the first steps of `total`."""
        steps = features.shape[2]
        visible = torch.arange(total or steps)[None] < steps
        with torch.no_grad():
            encoded = self.model.encode(features.mT, visible)
        return encoded.logits, encoded.condition

    def decoded(self, noisy: Tensor, step: int, condition: Tensor) -> Tensor:
        decoder = self.model.decoder
        with torch.no_grad():
            embedded = decoder.embed_steps(torch.tensor([step]))
            found: Tensor = decoder(noisy, embedded, decoder.project(condition))
        return found

    def names(self, pattern: str) -> list[str]:
        return sorted(name for name in self.io if pattern in name)


@pytest.fixture(scope="module")
def loaded() -> dict[Path, Golden]:
    return {}


def golden(case: Path, loaded: dict[Path, Golden]) -> Golden:
    if case not in loaded:
        loaded[case] = Golden(case)
    return loaded[case]


@each_case
def test_the_schedule_is_the_released_one(case: Path, loaded: dict[Path, Golden]) -> None:
    one = golden(case, loaded)
    signal = one.io["schedule.alphas_cumprod"]
    torch.testing.assert_close(cosine_signal(len(signal)), signal, atol=1e-15, rtol=1e-12)
    for sampling in one.facts["ddim"].values():
        assert ddim_steps(len(signal), sampling["steps"]) == sampling["times"]


@each_case
def test_the_encoder_is_the_released_one(case: Path, loaded: dict[Path, Golden]) -> None:
    one = golden(case, loaded)
    names = [name for name in one.names(".features") if name.startswith("T")]
    assert names
    for name in names:
        prefix = name.removesuffix(".features")
        logits, condition = one.seen(one.io[name])
        torch.testing.assert_close(logits, one.io[f"{prefix}.encoder_logits"], **CLOSE)
        torch.testing.assert_close(condition, one.io[f"{prefix}.condition"], **CLOSE)
        with torch.no_grad():
            _, outputs = one.model.encoder(one.io[name].mT, handed_out=range(99))
        for layer in one.names(f"{prefix}.encoder.layer"):
            index = int(layer.rpartition("layer")[2])
            torch.testing.assert_close(outputs[index], one.io[layer], **CLOSE)


@each_case
def test_the_denoiser_is_the_released_one(case: Path, loaded: dict[Path, Golden]) -> None:
    one = golden(case, loaded)
    names = [name for name in one.names(".decoder_logits") if name.startswith("T")]
    assert names
    for name in names:
        prefix, _, step = name.removesuffix(".decoder_logits").partition(".t")
        found = one.decoded(
            one.io[f"{prefix}.t{step}.noisy"], int(step), one.io[f"{prefix}.condition"]
        )
        torch.testing.assert_close(found, one.io[name], **CLOSE)


@each_case
def test_what_is_to_come_is_the_token_of_the_released_test(
    case: Path, loaded: dict[Path, Golden]
) -> None:
    one = golden(case, loaded)
    if one.facts["method"] != "actfusion":
        pytest.skip("the released DiffAct does not anticipate")
    total = one.facts["lta"]["full_len"]
    logits, condition = one.seen(one.io["lta.features_observed"], total)
    torch.testing.assert_close(logits, one.io["lta.encoder_logits"], **CLOSE)
    torch.testing.assert_close(condition, one.io["lta.condition"], **CLOSE)
    step = one.facts["lta"]["t"]
    found = one.decoded(one.io[f"lta.t{step}.noisy"], step, condition)
    torch.testing.assert_close(found, one.io[f"lta.t{step}.decoder_logits"], **CLOSE)


def sampled(
    one: Golden, name: str, noises: Iterator[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Our probabilities and the released ones of a sampling; by its seed, or from given noise."""
    facts = one.facts["ddim"][name]
    model = one.with_config(replace(one.config, eta=facts["eta"]), one.weights)
    features = one.io[facts["features"]]
    _, condition = one.seen(features, facts["full_len"] or features.shape[2])
    with torch.no_grad():
        found = (
            model.denoise(condition, facts["torch_manual_seed"])
            if noises is None
            else model.denoise_from(model.decoder.project(condition), noises)
        )
    return found, one.io[f"ddim.{name}.output"]


@each_case
def test_recorded_noise_gives_the_released_samples(case: Path, loaded: dict[Path, Golden]) -> None:
    one = golden(case, loaded)
    assert one.facts["ddim"]
    for name in one.facts["ddim"]:
        first = one.io[f"ddim.{name}.initial_noise"]
        steps = one.io.get(
            f"ddim.{name}.step_noise", torch.zeros(len(ddim_steps(1000, 25)), *first.shape)
        )
        found, released = sampled(one, name, chain([first], steps))
        torch.testing.assert_close(found, released, **CLOSE)


@each_case
def test_the_released_seed_gives_the_released_samples(
    case: Path, loaded: dict[Path, Golden]
) -> None:
    one = golden(case, loaded)
    for name, facts in one.facts["ddim"].items():
        stream = standard_noise(
            tuple(one.io[f"ddim.{name}.initial_noise"].shape), facts["torch_manual_seed"], "cpu"
        )
        assert next(stream).equal(one.io[f"ddim.{name}.initial_noise"])
        found, released = sampled(one, name)
        torch.testing.assert_close(found, released, **CLOSE)


VARIANTS: dict[str, dict[str, Any]] = {
    "classweight": {"class_weights": True},
    "unweighted": {},
    "softlabel": {},
}
TERMS = {
    "encoder_ce_loss": "encoder_frames",
    "encoder_mse_loss": "encoder_smoothing",
    "decoder_ce_loss": "decoder_frames",
    "decoder_mse_loss": "decoder_smoothing",
    "decoder_boundary_loss": "decoder_boundary",
}
WEIGHTS = {
    "encoder_ce_loss": "encoder_weight",
    "encoder_mse_loss": "encoder_smoothing_weight",
    "encoder_boundary_loss": "encoder_boundary_weight",
    "decoder_ce_loss": "decoder_weight",
    "decoder_mse_loss": "decoder_smoothing_weight",
    "decoder_boundary_loss": "decoder_boundary_weight",
}


def trained(one: Golden, variant: str) -> tuple[DiffusionAnticipator, dict[str, Tensor]]:
    """A model and its terms for the recorded draws of a variant of the loss."""
    facts, io = one.facts["loss"], one.io
    values: dict[str, Any] = {WEIGHTS[name]: value for name, value in facts["lambda_"].items()}
    values["class_weights"] = variant.startswith("classweight")
    if variant == "softlabel":
        values["soft_labels"] = facts["soft_label_sigma"]
    weights = {**one.weights, "label_weights": io["loss.class_weights"]}
    model = one.with_config(replace(one.config, **values), weights)
    boundaries = io["loss.boundary"][:, 0]
    visible = torch.ones(boundaries.shape, dtype=torch.bool)
    if variant.endswith("condboundary"):
        visible = boundaries < 0.5
    elif "loss.mask" in io:
        visible = io["loss.mask"][:, 0] > 0
    terms = model.video_losses(
        io["loss.features"].mT,
        io["loss.labels"][None],
        boundaries,
        visible,
        io["loss.t"],
        io["loss.noise"],
    )
    return model, terms


def variants(one: Golden) -> list[str]:
    return sorted({name.split(".")[1] for name in one.names("decoder_ce_loss")})


@each_case
def test_every_loss_term_is_the_released_one(case: Path, loaded: dict[Path, Golden]) -> None:
    one = golden(case, loaded)
    labels = one.io["loss.train_labels_for_weights"].flatten().long()
    counts = torch.bincount(labels, minlength=len(one.io["loss.class_weights"]))
    found = class_weights(counts)
    torch.testing.assert_close(found.float(), one.io["loss.class_weights"], **CLOSE)
    assert variants(one)
    for variant in variants(one):
        _, terms = trained(one, variant)
        for theirs, ours in TERMS.items():
            released = one.io[f"loss.{variant}.{theirs}"][0]
            weight = one.facts["loss"]["lambda_"][theirs]
            torch.testing.assert_close(terms[ours] / weight, released, **CLOSE)
        total = torch.stack(list(terms.values())).sum()
        torch.testing.assert_close(total, one.io[f"loss.{variant}.total"][0], **CLOSE)


@each_case
def test_gradients_are_the_released_ones(case: Path, loaded: dict[Path, Golden]) -> None:
    one = golden(case, loaded)
    compared = 0
    for variant in variants(one):
        model, terms = trained(one, variant)
        torch.stack(list(terms.values())).sum().backward()
        for name in one.names(f"loss.{variant}.grad."):
            released = one.io[name]
            found = gradient(model, name.split(".grad.")[1], released)
            tolerance = 1e-5 * float(released.abs().max())
            torch.testing.assert_close(found, released, atol=tolerance, rtol=0.0)
            compared += 1
    assert compared


def gradient(model: Any, theirs: str, released: Tensor) -> Tensor:
    """The gradient of a released parameter."""
    parameters = dict(model.named_parameters())
    if theirs == "mask_token":
        return parameters["token"].grad[None, :, None]
    path, _, kind = theirs.rpartition(".")
    if path in MODULES:
        return parameters[f"{MODULES[path]}.{kind}"].grad
    half, layer, part = (
        path.replace("encoder.encoder", "encoder")
        .replace("decoder.module", "decoder")
        .replace("layers.", "")
        .split(".", 2)
    )
    ours = model.get_submodule(f"{half}.layers.{layer}")
    if part.startswith("rel_pos_emb"):
        rows = torch.tensor(bias_rows(ours.conv.kernel_size[0], ours.dilation)) - 10_000
        return torch.zeros(len(released)).index_add(0, rows, ours.bias.grad)[:, None]
    if part in ("att_linear_q", "att_linear_k"):
        both: Tensor = getattr(ours.query_key, kind).grad
        return both.chunk(2)[part.endswith("k")]
    return getattr(getattr(ours, LAYER_MODULES[part]), kind).grad


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameters_are_counted_as_published() -> None:
    salads = Taxonomy.of(map(str, range(19)))
    breakfast = Taxonomy.of(map(str, range(48)))
    wide: dict[str, Any] = {
        "encoder_layers": 12,
        "encoder_dim": 256,
        "decoder_dim": 128,
        "decoder_taps": 5,
        "condition_layers": (7, 8, 9),
    }
    with torch.device("meta"):
        assert count(ActFusionConfig().build(salads)) == 1_216_614 + 10 * 5 + 8 * 7
        assert count(ActFusionConfig(**wide).build(breakfast)) == 11_914_848 + 20 * 5
        assert count(ActFusionConfig(positions="none").build(salads)) == 1_216_614
        # A token fewer than ActFusion.
        assert count(DiffActConfig().build(salads)) == 1_216_614 - 2048
        assert count(DiffActConfig(**wide).build(breakfast)) == 11_914_848 - 2048


def test_taps_far_from_the_first_share_a_row_of_the_released_table() -> None:
    assert bias_rows(5, 16) == [10_000, 10_016, 10_032, 10_048, 10_064]
    assert bias_rows(7, 64) == [10_000, 10_064, *[10_100] * 5]


def test_another_scale_is_that_of_the_literal_form() -> None:
    """Breakfast and GTEA diffuse labels as -0.5 and 0.5."""
    torch.manual_seed(0)
    literal = ReferenceDiffusion(
        num_labels=5,
        feature_dim=6,
        encoder_layers=3,
        encoder_dim=8,
        encoder_kernel=5,
        decoder_layers=2,
        decoder_dim=8,
        decoder_kernel=5,
        step_dim=16,
        condition_layers=(1, 2),
        dropouts=(0.5, 0.5, 0.5, 0.1),
        scale=0.5,
        bias=True,
        mask_token=True,
    ).eval()
    config, weights = diffusion_from_official("actfusion", literal.state_dict(), (1, 2), 0.5)
    model = config.build(Taxonomy.of("abcde")).eval()
    model.load_state_dict(weights)
    features, noise = torch.randn(1, 6, 40), torch.randn(1, 5, 40)
    visible = torch.ones(1, 40, dtype=torch.bool)
    with torch.no_grad():
        condition = model.encode(features.mT, visible).condition
        torch.testing.assert_close(
            model.denoise(condition, 7), literal.sample(features, seed=7), **CLOSE
        )
    labels = torch.arange(40) // 8
    mask = (torch.arange(40) < 25)[None, None].float()
    step, boundary = torch.tensor([400]), torch.rand(1, 1, 40)
    theirs = literal.training_loss(features, labels, mask, step, noise, boundary)
    ours = model.video_losses(
        features.mT, labels[None], boundary[:, 0], mask[:, 0] > 0, step, noise
    )
    torch.testing.assert_close(torch.stack(list(ours.values())).sum(), theirs["total"], **CLOSE)
