"""The literal form is the released network: the package's models are measured against it."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_reference import ReferenceDiffusion, step_embedding
from safetensors.torch import load_file
from torch import Tensor, nn

from goldens import golden_cases

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 0.0}


class Golden:
    """The released numbers of one case, and the literal form with the same weights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = json.loads((folder / "config.json").read_text())
        self.io = load_file(folder / "io.safetensors")

    @cached_property
    def model(self) -> ReferenceDiffusion:
        sizes = self.facts["hyper_parameters"]
        encoder, decoder = sizes["encoder_params"], sizes["decoder_params"]
        state = load_file(self.folder / "weights.safetensors")
        model = ReferenceDiffusion(
            num_labels=sizes["num_classes"],
            feature_dim=encoder["input_dim"],
            encoder_layers=encoder["num_layers"],
            encoder_dim=encoder["num_f_maps"],
            encoder_kernel=encoder["kernel_size"],
            decoder_layers=decoder["num_layers"],
            decoder_dim=decoder["num_f_maps"],
            decoder_kernel=decoder["kernel_size"],
            step_dim=decoder["time_emb_dim"],
            condition_layers=encoder["feature_layer_indices"],
            dropouts=(
                encoder["normal_dropout_rate"],
                encoder["channel_dropout_rate"],
                encoder["temporal_dropout_rate"],
                decoder["dropout_rate"],
            ),
            scale=sizes["snr_scale"],
            bias=sizes["pos"] == "rel",
            mask_token="mask_token" in state,
        )
        model.load_state_dict(state)
        return model.eval()

    def module(self, name: str) -> nn.Module:
        """The module whose output is recorded as `encoder.layer3` or the like."""
        half, part = name.split(".")
        stem = part.rstrip("0123456789")
        number = part.removeprefix(stem)
        inner = {"encoder": "encoder.encoder", "decoder": "decoder.module"}[half]
        paths = {
            "layer": f"{inner}.layers.{number}",
            "time_in": f"{half}.time_in.{number}",
            "time_proj": f"{inner}.time_proj",
            "conv_in": f"{half}.conv_in",
        }
        return self.model.get_submodule(paths[stem])

    def check_within(self, prefix: str, *args: Any) -> Any:
        """Run encoder or decoder, compare all that is recorded of its inside, give its answer."""
        half = prefix.rpartition(".")[2]
        where = prefix.removesuffix(half)
        sinusoid = self.io.get(f"{where}decoder.sinusoid") if half == "decoder" else None
        if sinusoid is not None:
            found = step_embedding(args[1], sinusoid.shape[1])
            torch.testing.assert_close(found, sinusoid, **CLOSE)
        names = [n for n in self.io if n.startswith(f"{prefix}.") and not n.endswith("sinusoid")]
        outputs: dict[str, Tensor] = {}
        handles = [
            self.module(name.removeprefix(where)).register_forward_hook(
                lambda _module, _args, output, name=name: outputs.update({name: output})
            )
            for name in names
        ]
        with torch.no_grad():
            answer = getattr(self.model, half)(*args)
        for handle in handles:
            handle.remove()
        for name in names:
            torch.testing.assert_close(outputs[name], self.io[name], **CLOSE, msg=named(name))
        return answer


def named(name: str) -> Any:
    return lambda message: f"{name}: {message}"


LOADED: dict[Path, Golden] = {}


def cases() -> list[Any]:
    """Every recorded network; a folder without weights has none."""
    found = []
    for method in ("actfusion", "diffact"):
        for case in golden_cases(method):
            folder: Path = case.values[0]
            if case.id == "absent" or (folder / "weights.safetensors").is_file():
                found.append(pytest.param(folder, id=f"{method}-{case.id}", marks=case.marks))
    assert found, "there must be at least one case with weights"
    return found


@pytest.fixture(params=cases())
def golden(request: pytest.FixtureRequest) -> Golden:
    folder: Path = request.param
    if folder not in LOADED:
        LOADED[folder] = Golden(folder)
    return LOADED[folder]


def test_the_schedule_is_the_released_one(golden: Golden) -> None:
    names = [name for name in golden.io if name.startswith("schedule.")]
    assert len(names) == 4
    for name in names:
        table = getattr(golden.model.schedule, name.removeprefix("schedule."))
        torch.testing.assert_close(table, golden.io[name], atol=1e-12, rtol=1e-9)


def test_encoder_and_decoder_are_the_released_ones(golden: Golden) -> None:
    sizes = golden.facts["hyper_parameters"]
    for time in sizes["Ts"]:
        logits, condition = golden.check_within(f"T{time}.encoder", golden.io[f"T{time}.features"])
        torch.testing.assert_close(logits, golden.io[f"T{time}.encoder_logits"], **CLOSE)
        torch.testing.assert_close(condition, golden.io[f"T{time}.condition"], **CLOSE)
        for t in sizes["ts"][str(time)]:
            prefix = f"T{time}.t{t}"
            found = golden.check_within(
                f"{prefix}.decoder",
                golden.io[f"{prefix}.noisy"],
                torch.tensor([t]),
                golden.io[f"T{time}.condition"],
            )
            torch.testing.assert_close(
                found, golden.io[f"{prefix}.decoder_logits"], **CLOSE, msg=named(prefix)
            )


def test_frames_to_come_are_mask_tokens(golden: Golden) -> None:
    if not golden.facts.get("lta"):
        pytest.skip("this network does not anticipate")
    io, facts = golden.io, golden.facts["lta"]
    observed, token = io["lta.features_observed"], golden.model.mask_token.detach()
    assert observed.shape[2] == facts["obs_len"]
    whole = torch.cat([observed, token.expand(-1, -1, facts["full_len"] - facts["obs_len"])], 2)
    assert whole.equal(io["lta.encoder_input"])
    logits, condition = golden.check_within("lta.encoder", whole)
    torch.testing.assert_close(logits, io["lta.encoder_logits"], **CLOSE)
    torch.testing.assert_close(condition, io["lta.condition"], **CLOSE)
    prefix = f"lta.t{facts['t']}"
    with torch.no_grad():
        found = golden.model.decode(io[f"{prefix}.noisy"], torch.tensor([facts["t"]]), condition)
    torch.testing.assert_close(found, io[f"{prefix}.decoder_logits"], **CLOSE)


@pytest.mark.parametrize("drawn", ["from the seed", "as recorded"])
def test_every_step_of_the_sampler_is_the_released_one(golden: Golden, drawn: str) -> None:
    assert golden.facts["ddim"]
    for name, facts in golden.facts["ddim"].items():
        noises = None
        if drawn == "as recorded":
            noises = [golden.io[f"ddim.{name}.initial_noise"]]
            noises += list(golden.io.get(f"ddim.{name}.step_noise", []))
        states: list[tuple[Tensor, Tensor]] = []
        output = golden.model.sample(
            golden.io[facts["features"]],
            facts["full_len"],
            eta=facts["eta"],
            seed=facts["torch_manual_seed"],
            noises=noises,
            steps=facts["steps"],
            states=states,
        )
        assert [str(state.dtype).removeprefix("torch.") for state, _ in states] == (
            facts["noise_dtypes_as_drawn"][:1] + ["float64"] * (facts["steps"] - 1)
        )
        state, data = (torch.stack(found) for found in zip(*states, strict=True))
        torch.testing.assert_close(state, golden.io[f"ddim.{name}.state"], **CLOSE)
        torch.testing.assert_close(data, golden.io[f"ddim.{name}.x0_pred"], **CLOSE)
        torch.testing.assert_close(output, golden.io[f"ddim.{name}.output"], **CLOSE)


def variants(golden: Golden) -> list[str]:
    return sorted(n.split(".")[1] for n in golden.io if n.endswith(".decoder_ce_loss"))


def terms_of(golden: Golden, variant: str) -> dict[str, Tensor]:
    io = golden.io
    chosen = {
        "classweight": {"class_weights": io["loss.class_weights"]},
        "unweighted": {},
        "softlabel": {"soft_targets": io["loss.soft_targets"]},
        "classweight_condboundary": {
            "class_weights": io["loss.class_weights"],
            "condition_mask": (io["loss.boundary"] < 0.5).float(),
        },
    }
    return golden.model.training_loss(
        io["loss.features"],
        io["loss.labels"],
        io.get("loss.mask"),
        io["loss.t"],
        io["loss.noise"],
        io["loss.boundary"],
        lambdas=golden.facts["loss"]["lambda_"],
        **chosen[variant],
    )


def test_training_reads_what_the_released_code_reads(golden: Golden) -> None:
    io = golden.io
    one_hot = nn.functional.one_hot(io["loss.labels"], golden.model.num_labels).T[None].float()
    noisy = golden.model.diffused(one_hot, io["loss.t"], io["loss.noise"])
    torch.testing.assert_close(noisy, io["loss.event_diffused"], **CLOSE)
    features = io["loss.features"]
    if "loss.mask" in io:
        features = torch.where(io["loss.mask"] > 0, features, golden.model.mask_token.detach())
        assert features.equal(io["loss.masked_features"])
    with torch.no_grad():
        logits, condition = golden.model.encode(features)
        denoised = golden.model.decode(noisy, io["loss.t"], condition)
    torch.testing.assert_close(logits, io["loss.encoder_logits"], **CLOSE)
    torch.testing.assert_close(denoised, io["loss.decoder_logits"], **CLOSE)


def test_every_loss_term_is_the_released_one(golden: Golden) -> None:
    assert {"classweight", "unweighted", "softlabel"} <= set(variants(golden))
    for variant in variants(golden):
        terms = terms_of(golden, variant)
        recorded = {
            name.rpartition(".")[2]: value[0]
            for name, value in golden.io.items()
            if name.startswith(f"loss.{variant}.") and name.count(".") == 2 and value.numel() == 1
        }
        assert recorded.keys() == terms.keys()
        for name, value in recorded.items():
            torch.testing.assert_close(
                terms[name].detach(), value, **CLOSE, msg=named(f"{variant}.{name}")
            )


def test_gradients_are_the_released_ones(golden: Golden) -> None:
    for variant in variants(golden):
        golden.model.zero_grad()
        terms_of(golden, variant)["total"].backward()
        prefix = f"loss.{variant}.grad."
        names = [name for name in golden.io if name.startswith(prefix)]
        assert names
        for name in names:
            path, _, rows = name.removeprefix(prefix).partition("[")
            gradient = golden.model.get_parameter(path).grad
            assert gradient is not None
            if rows:
                gradient = gradient[slice(*map(int, rows.rstrip("]").split(":")))]
            recorded = golden.io[name]
            tolerance = 1e-5 * float(recorded.abs().max())
            torch.testing.assert_close(
                gradient, recorded, atol=tolerance, rtol=0.0, msg=named(name)
            )


def small_model() -> ReferenceDiffusion:
    """Of three labels, features 5 wide, two layers either side."""
    torch.manual_seed(0)
    model = ReferenceDiffusion(
        3, 5, 2, 4, 3, 2, 4, 3, 8, [0, 1], (0.5, 0.5, 0.5, 0.1), 1.0, True, True
    )
    return model.eval()


def test_a_video_with_nothing_hidden_is_segmented_by_either_way() -> None:
    model = small_model()
    features = torch.randn(5, 32)
    whole = model.tas(features, 4)
    assert model.lta(features, 32, 4).equal(whole)
    observed = model.lta(features[:, :9], 32, 4)
    assert observed.shape == whole.shape
    assert not observed.allclose(whole)


def test_offsets_are_averaged_as_far_as_the_shortest_reaches() -> None:
    model = small_model()
    features = torch.randn(1, 5, 30)
    answers = [model.sample(features[:, :, offset::4], seed=2)[:, :, :7] for offset in range(4)]
    found = model.tas(features[0], 4, seed=2)
    torch.testing.assert_close(found, sum(answers) / 4)
    torch.testing.assert_close(found.sum(1), torch.ones(1, 7))
