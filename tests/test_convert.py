import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from actioncast.checkpoint import load_checkpoint
from actioncast.convert import RELEASED, convert_diffusion, convert_futr
from actioncast.models.diffusion_official import SCHEDULE, Method
from actioncast.recipes import recipe
from actioncast.runs import load_run
from actioncast.training import training_facts
from actioncast.types import Observation
from goldens import golden_file


@pytest.fixture
def weights() -> Path:
    return golden_file("futr/small/weights.safetensors")


def test_any_container_of_the_same_tensors_gives_the_same_checkpoint(
    weights: Path, tmp_path: Path
) -> None:
    state = load_file(weights)
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "plain.ckpt")
    torch.save(parallel, tmp_path / "parallel.ckpt")
    torch.save({"epoch": 3, "state_dict": parallel}, tmp_path / "wrapped.pth")
    save_file(parallel, tmp_path / "parallel.safetensors")
    folders = [
        convert_futr(path, tmp_path / path.stem.replace(".", "_") / path.suffix[1:], num_heads=4)
        for path in (weights, *sorted(p for p in tmp_path.iterdir() if p.is_file()))
    ]
    assert len(folders) == 5
    first = load_file(folders[0] / "model.safetensors")
    for folder in folders[1:]:
        other = load_file(folder / "model.safetensors")
        assert first.keys() == other.keys()
        assert all(first[name].equal(other[name]) for name in first)


def test_names_come_from_the_mapping(weights: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("".join(f"{i} act {i}\n" for i in range(5)))
    folder = convert_futr(weights, tmp_path / "out", mapping=mapping, num_heads=4, stride=6)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.model.taxonomy.labels.names == tuple(f"act {i}" for i in range(5))
    assert checkpoint.run["training"]["stride"] == 6
    assert checkpoint.run["training"]["selection"] == "test"
    assert checkpoint.run["recipe"] == "converted from weights.safetensors"
    with pytest.raises(ValueError, match="does not say where its data lies; say --data"):
        load_run(folder)


def test_a_wrong_number_of_heads_is_refused_and_writes_nothing(
    weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="hidden_dim must be a multiple of num_heads"):
        convert_futr(weights, tmp_path / "out", num_heads=5)
    assert not (tmp_path / "out").exists()


# ActFusion and DiffAct

BOTH = ("actfusion", "diffact")
each_method = pytest.mark.parametrize("method", BOTH)
LAYERS = (1, 2, 3)
"""Encoder layers that condition the denoiser of the golden networks."""
CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 0.0}


def released(method: str) -> dict[str, Tensor]:
    """A released state dict: the parameters, and the buffers of the schedule beside them."""
    state = load_file(golden_file(f"{method}/salads_small/weights.safetensors"))
    return state | {name: torch.zeros(1000, dtype=torch.float64) for name in SCHEDULE}


def converted(method: Method, state: dict[str, Tensor], folder: Path, **values: Any) -> Path:
    """Convert a state dict that lies in a PyTorch file."""
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "released.pt")
    values = {"dataset": "50salads", "condition_layers": LAYERS, **values}
    return convert_diffusion(method, folder / "released.pt", folder / "ours", **values)


@each_method
def test_any_container_of_a_diffusion_model_gives_the_same_checkpoint(
    method: Method, tmp_path: Path
) -> None:
    state = released(method)
    weights = {name: tensor for name, tensor in state.items() if name not in SCHEDULE}
    parallel = {f"module.{name}": tensor for name, tensor in state.items()}
    containers: dict[str, Any] = {
        "weights": weights,
        "state": state,
        "parallel": parallel,
        "model": {"model": state, "optimizer": {"state": {}, "step": 3}, "epoch": 7},
        "state_dict": {"state_dict": parallel, "epoch": 7},
    }
    folders = [converted(method, state, tmp_path / name) for name, state in containers.items()]
    save_file(parallel, tmp_path / "parallel.safetensors")
    path = tmp_path / "parallel.safetensors"
    folders.append(
        convert_diffusion(
            method, path, tmp_path / "ours", dataset="50salads", condition_layers=LAYERS
        )
    )
    assert len(folders) == 6
    first = load_file(folders[0] / "model.safetensors")
    about = json.loads((folders[0] / "config.json").read_text())
    for folder in folders[1:]:
        other = load_file(folder / "model.safetensors")
        assert first.keys() == other.keys()
        assert all(first[name].equal(other[name]) for name in first)
        assert json.loads((folder / "config.json").read_text())["config"] == about["config"]


@each_method
def test_a_converted_diffusion_model_answers_as_the_official_code(
    method: Method, tmp_path: Path
) -> None:
    folder = converted(method, released(method), tmp_path)
    case = golden_file(f"{method}/salads_small/config.json")
    facts, io = json.loads(case.read_text()), load_file(case.parent / "io.safetensors")
    checkpoint = load_checkpoint(folder)
    model: Any = checkpoint.model.eval()
    names = [name for name in io if name.startswith("T") and name.endswith(".features")]
    assert names
    for name in names:
        features = io[name].mT
        with torch.inference_mode():
            encoded = model.encode(features, torch.ones(features.shape[:2], dtype=torch.bool))
        wanted = io[name.replace(".features", ".encoder_logits")]
        torch.testing.assert_close(encoded.logits, wanted, **CLOSE)
    assert facts["ddim"]
    for name, sampling in facts["ddim"].items():
        config = replace(model.config, eta=sampling["eta"], seed=sampling["torch_manual_seed"])
        same = config.build(model.taxonomy).eval()
        same.load_state_dict(model.state_dict())
        (features,) = io[sampling["features"]].mT
        to_come = (sampling["full_len"] or len(features)) - len(features)
        (found,) = same.predict(Observation.of_one(features, 1.0, to_come))
        answer = found.past if found.future is None else torch.cat([found.past, found.future])
        torch.testing.assert_close(answer.mT[None], io[f"ddim.{name}.output"], **CLOSE)


@pytest.mark.parametrize(("method", "dataset"), RELEASED)
def test_what_a_checkpoint_does_not_tell_is_that_of_the_release(
    method: Method, dataset: str, tmp_path: Path
) -> None:
    folder = converted(method, released(method), tmp_path, dataset=dataset, split="2")
    checkpoint = load_checkpoint(folder)
    config: Any = recipe(RELEASED[method, dataset])
    scale = {"50salads": 1.0, "breakfast": 0.5, "gtea": 0.5}[dataset]
    model: Any = checkpoint.model
    assert model.config.scale == config.model.scale == scale
    assert model.config.condition_layers == LAYERS
    assert (model.config.encoder_layers, model.config.decoder_layers) == (4, 3)
    assert (model.config.inference_steps, model.config.eta) == (25, 1.0)
    facts = training_facts(replace(config, selection="test"))
    assert checkpoint.run["training"] == json.loads(json.dumps(facts))
    stride = {"50salads": 8, "breakfast": 1, "gtea": 1}[dataset]
    smoothing = {"50salads": ("median", 30), "breakfast": ("median", 15), "gtea": ("purge", 3)}
    training = checkpoint.run["training"]
    assert training["stride"] == stride
    assert (training["postprocess"], training["postprocess_size"]) == smoothing[dataset]
    assert checkpoint.run["rate"] == {"50salads": 30, "breakfast": 15, "gtea": 15}[dataset]
    assert (checkpoint.run["dataset"], checkpoint.run["split"]) == (dataset, "2")


def test_what_is_said_stands_in_the_place_of_the_release(tmp_path: Path) -> None:
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("".join(f"{i} act {i}\n" for i in range(7)))
    folder = converted(
        "actfusion", released("actfusion"), tmp_path, mapping=mapping, scale=0.7, stride=4, rate=15
    )
    checkpoint = load_checkpoint(folder)
    model: Any = checkpoint.model
    assert model.config.scale == 0.7
    assert (checkpoint.run["training"]["stride"], checkpoint.run["rate"]) == (4, 15)
    assert model.taxonomy.labels.names == tuple(f"act {i}" for i in range(7))


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("att_linear", "attention"): tensor for name, tensor in state.items()}


def of_labels(state: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """A state dict with the parameters of `number` labels."""
    found = dict(state)
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias"):
        found[name] = torch.zeros(number, *state[name].shape[1:])
    for name in ("decoder.conv_out.weight", "decoder.conv_out.bias"):
        found[name] = torch.zeros(number, *state[name].shape[1:])
    width = state["decoder.conv_in.weight"].shape[0]
    found["decoder.conv_in.weight"] = torch.zeros(width, number, 1)
    return found


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dataset": ""}, "dataset must be one that actfusion was released for"),
        ({"dataset": "cad120"}, "50salads, breakfast, gtea, got 'cad120'"),
        ({"condition_layers": ()}, r"layers of the encoder, 0 to 3, got \(5, 7, 9\)"),
        ({"condition_layers": (), "dataset": "breakfast"}, r"encoder, 0 to 3, got \(7, 8, 9\)"),
        ({"condition_layers": (), "dataset": "gtea"}, r"48 channels at 16 a layer, got \(7, 9\)"),
        (
            {"condition_layers": (1, 2)},
            r"48 channels at 16 a layer, got \(1, 2\), which have 32; say",
        ),
        ({"scale": 0.0}, "scale positive"),
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"rate": 0.0}, "rate must be positive"),
    ],
)
def test_what_does_not_fit_a_diffusion_checkpoint_is_said(
    values: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        converted("actfusion", released("actfusion"), tmp_path, **values)
    assert not (tmp_path / "ours").exists()


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    actfusion, diffact = (released(method) for method in BOTH)
    futr = load_file(golden_file("futr/small/weights.safetensors"))
    lacking = "must be that of the official actfusion"
    for number, state in enumerate((diffact, futr, renamed(actfusion))):
        with pytest.raises(ValueError, match=lacking):
            converted("actfusion", state, tmp_path / str(number))
    with pytest.raises(ValueError, match="must be that of the official diffact"):
        converted("diffact", actfusion, tmp_path / "last")
    with pytest.raises(ValueError, match="must be that of the official FUTR"):
        convert_futr(tmp_path / "last" / "released.pt", tmp_path / "ours")


def test_labels_of_another_data_set_are_noticed(tmp_path: Path) -> None:
    """Condition layers and scale would be those of the wrong release, without a word."""
    state = of_labels(released("actfusion"), 19)
    with pytest.raises(ValueError, match="19 labels, as a model of 50salads does"):
        converted("actfusion", state, tmp_path, dataset="breakfast")
    assert converted("actfusion", state, tmp_path, dataset="50salads")


def test_futr_has_the_stride_and_rate_of_its_data_set(weights: Path, tmp_path: Path) -> None:
    for dataset, wanted in (("", (3, 15)), ("breakfast", (3, 15)), ("50salads", (6, 30))):
        folder = convert_futr(weights, tmp_path / f"of-{dataset}", num_heads=4, dataset=dataset)
        run = load_checkpoint(folder).run
        assert (run["training"]["stride"], run["rate"]) == wanted
