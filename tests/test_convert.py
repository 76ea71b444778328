from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from actioncast.checkpoint import load_checkpoint
from actioncast.convert import convert_futr
from actioncast.runs import load_run
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
