"""FSDP: the trunk lies in parts, and all that is written is as without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import MixedPrecision

import folders
from actioncast.lightning_run import _strategy
from actioncast.lightning_sharding import SpreadStrategy, units
from actioncast.models.actionllm import ActionLLMConfig
from actioncast.timeline import Taxonomy
from actioncast.training import RESUME, Machine
from actioncast.trunks import TrunkConfig

transformers = pytest.importorskip("transformers")
LABELS = Taxonomy.of(folders.NAMES)
TINY = ActionLLMConfig(
    trunk=TrunkConfig(name="untrained:llama-tiny", dtype="bfloat16"),
    modalities="vision",
    feature_dim=folders.WIDTH,
    adapter_dim=8,
    num_queries=4,
    interaction_dim=8,
    interaction_heads=2,
    interaction_multiple=8,
    dropout=0.0,
)
SPREAD = Machine(strategy="fsdp", quiet=True)


def test_fsdp_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"strategy fsdp needs a GPU of CUDA .* say --strategy"):
        SPREAD.require()
    Machine(strategy="ddp").require()


def test_fsdp_needs_a_trunk():
    with pytest.raises(ValueError, match="spreads a frozen trunk, got FUTR, which has none"):
        units(folders.TINY.build(LABELS))


def test_a_layer_and_what_is_beside_the_layers_are_met_at_once():
    llama = transformers.models.llama.modeling_llama
    assert units(TINY.build(LABELS)) == {llama.LlamaDecoderLayer, llama.LlamaModel}


def test_the_strategy_is_that_of_the_machine():
    model = TINY.build(LABELS)
    spread = _strategy(SPREAD, 1, model)
    assert isinstance(spread, SpreadStrategy)
    assert spread.kwargs["auto_wrap_policy"]._module_classes == units(model)
    assert spread.kwargs["use_orig_params"]
    # Numbers keep their types: those of the trunk differ from ours.
    assert spread.mixed_precision_config == MixedPrecision()
    assert _strategy(Machine(), 1) == "auto"
    assert _strategy(Machine(), 2) == _strategy(Machine(strategy="ddp"), 1)
    assert str(_strategy(Machine(), 2)).startswith("ddp")


RANKS = """
import json
import os
import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import FullyShardedDataParallel

import folders
from actioncast.data import open_dataset
from actioncast.lightning_run import fit
from actioncast.training import Machine, build, prepare
from trunks.test_sharding import TINY

# FSDP takes a CPU only if it is told to.
start = FullyShardedDataParallel.__init__


def on_cpu(self, *given, **named):
    start(self, *given, **{**named, "device_id": torch.device("cpu")})


FullyShardedDataParallel.__init__ = on_cpu
data, out = map(Path, sys.argv[1:])
dataset = open_dataset(path=data)
split = dataset.split("1")
parts = [dataset.select(names) for names in (split.train, split.test)]
for folder, strategy, epochs in (
    ("plain", "ddp", 2),
    ("spread", "fsdp", 2),
    ("resumed", "fsdp", 1),
    ("resumed", "ddp", 2),
):
    values = {"schedule": "constant", "clip": 0.1, "selection": "test", "lr": 0.01}
    recipe = folders.recipe(model=TINY, epochs=epochs, **values)
    config, dataset = prepare(recipe, dataset)
    model = build(config, dataset)
    machine = Machine(accelerator="cpu", quiet=True, strategy=strategy)
    fit(model, "actionllm", config, *parts, out / folder, machine, {})
    there = sum(p.numel() for p in model.trunk.parameters())
    (out / f"{folder}-{strategy}-{os.environ['RANK']}.json").write_text(json.dumps(there))
"""


@pytest.mark.slow
def test_two_processes_with_the_trunk_in_parts_learn_and_write_what_ddp_does(tmp_path: Path):
    data, out = folders.write_folder(tmp_path / "data"), tmp_path / "out"
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    out.mkdir()
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(data), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    def held(run):
        return [json.loads((out / f"{run}-{rank}.json").read_text()) for rank in range(2)]

    whole = held("plain-ddp")[0]
    assert all(0.4 * whole < part < 0.6 * whole for part in held("spread-fsdp"))
    for folder in ("best", "last"):
        plain, spread, resumed = (
            load_file(out / run / folder / "model.safetensors")
            for run in ("plain", "spread", "resumed")
        )
        assert plain.keys() == spread.keys() == resumed.keys()
        for name, value in plain.items():
            assert torch.allclose(spread[name], value, atol=2e-3), name
            assert torch.allclose(resumed[name], value, atol=2e-3), name
    plain, spread = (
        torch.load(out / run / RESUME, weights_only=True) for run in ("plain", "spread")
    )
    assert plain["state_dict"].keys() == spread["state_dict"].keys()
    assert not [name for name in spread["state_dict"] if ".trunk." in name]
    for number, theirs in plain["optimizer_states"][0]["state"].items():
        ours = spread["optimizer_states"][0]["state"][number]
        assert torch.allclose(ours["exp_avg"], theirs["exp_avg"], atol=1e-4)
