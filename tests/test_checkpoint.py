import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from actioncast.checkpoint import (
    FILES,
    from_json,
    json_bytes,
    load_checkpoint,
    read_official,
    replace_file,
    save_checkpoint,
    to_json,
)
from actioncast.models import MODELS
from actioncast.models.actfusion import ActFusionConfig
from actioncast.models.actionllm_config import ActionLLMConfig
from actioncast.models.base import Anticipator, ClipCounter, CountingAnticipator
from actioncast.models.baselines import NGramConfig, RepeatLastActionConfig
from actioncast.models.clam_config import ClamConfig
from actioncast.models.diffact import DiffActConfig
from actioncast.models.frame_classifier import FrameClassifierConfig
from actioncast.models.futr import FUTRConfig
from actioncast.models.mamba_vl import MambaVLConfig
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.models.online_baselines import OnlineGRUConfig, WindowTransformerConfig
from actioncast.models.semi_markov import SemiMarkovConfig
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.training import TrainConfig
from actioncast.trunks.config import TrunkConfig
from actioncast.types import Observation, Target
from grammars import TAXONOMY, observe, video

DENOISER: dict[str, Any] = {
    "feature_dim": len(TAXONOMY.labels),
    "encoder_layers": 3,
    "encoder_dim": 8,
    "decoder_layers": 2,
    "decoder_dim": 8,
    "condition_layers": (1, 2),
    "step_dim": 16,
    "inference_steps": 3,
}
TINY = {
    "actfusion": ActFusionConfig(**DENOISER),
    "diffact": DiffActConfig(**DENOISER),
    "futr": FUTRConfig(
        feature_dim=len(TAXONOMY.labels),
        hidden_dim=8,
        num_queries=3,
        num_heads=2,
        max_positions=40,
    ),
    "mm-ant": MMAntConfig(
        feature_dim=len(TAXONOMY.labels),
        hidden_dim=8,
        num_queries=3,
        num_heads=2,
        max_positions=40,
        encoder="hash:8",
        text_dim=8,
    ),
    "actionllm": ActionLLMConfig(
        trunk=TrunkConfig(name="untrained:bert-tiny"),
        feature_dim=len(TAXONOMY.labels),
        adapter_dim=8,
        num_queries=3,
        interaction_dim=8,
        interaction_heads=2,
        interaction_multiple=8,
    ),
    "semi-markov": SemiMarkovConfig(num_rollouts=20, contexts=(2, 1)),
    "n-gram": NGramConfig(context=1),
    "mamba-vl": MambaVLConfig(feature_dim=len(TAXONOMY.labels), modalities=(), hidden_dim=8),
    "clam": ClamConfig(
        feature_dim=len(TAXONOMY.labels),
        hidden_dim=8,
        num_heads=2,
        num_layers=1,
        predictor_layers=1,
        predictor_dim=8,
    ),
    "online-gru": OnlineGRUConfig(feature_dim=len(TAXONOMY.labels), hidden_dim=8),
    "frame-classifier": FrameClassifierConfig(feature_dim=len(TAXONOMY.labels), hidden_dim=8),
    "window-transformer": WindowTransformerConfig(
        feature_dim=len(TAXONOMY.labels), hidden_dim=8, num_heads=2, window=4
    ),
}
RUN = {"recipe": "a", "split": "1", "training": {"seed": 0, "stride": 2}}
VIDEOS = [
    video([("a", 12), ("b", 20), ("c", 30)], "p"),
    video([("a", 8), ("c", 25), ("b", 20)], "q"),
    video([("b", 17), ("a", 31), ("d", 7)], "r"),
]


def config_of(name: str) -> Any:
    return TINY.get(name, MODELS[name]())


def tiny(name: str = "futr", seed: int = 0) -> Anticipator:
    torch.manual_seed(seed)
    model = config_of(name).build(TAXONOMY)
    if isinstance(model, CountingAnticipator):
        model.fit(VIDEOS)
    elif isinstance(model, ClipCounter):
        x = asked()
        model.fit_clips([(x, Target(frames={}, next={"action": torch.tensor([1, 0])}))])
    return model.eval()


def asked() -> Observation:
    x = observe([("a", 9)], [("a", 5), ("b", 6)], horizon=12, length=40, num_samples=2)
    features = torch.nn.functional.one_hot(x.labels.clamp(min=0), len(TAXONOMY.labels))
    return replace(x, features=features.float() * x.valid[..., None])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "best", "futr", tiny(), config_of("futr"), RUN)
    return tmp_path / "best"


@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back(tmp_path: Path, name: str):
    model, config = tiny(name), config_of(name)
    save_checkpoint(tmp_path, name, model, config, RUN)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    found = load_checkpoint(tmp_path)
    assert (found.name, found.run) == (name, RUN)
    assert type(found.model) is type(model)
    assert not found.model.training
    assert found.model.config == config
    assert found.model.taxonomy == TAXONOMY
    for one, other in zip(model.predict(asked()), found.model.predict(asked()), strict=True):
        for field in ("past", "future", "samples"):
            own, read = getattr(one, field), getattr(other, field)
            assert (own is None) == (read is None)
            assert own is None or torch.equal(own, read)
        for head, probs in (one.next or {}).items():
            assert torch.equal(probs, other.next[head])
        assert any(answer is not None for answer in (one.past, one.future, one.next))


def test_labels_keep_their_background_and_heads(tmp_path: Path):
    heads = {
        "activity": LabelSpace(("tea", "größer")),
        "action": LabelSpace(tuple("abcdefgh"), frozenset("ab")),
    }
    model = config_of("futr").build(Taxonomy(heads, "action"))
    save_checkpoint(tmp_path, "futr", model, config_of("futr"), RUN)
    assert load_checkpoint(tmp_path).model.taxonomy == Taxonomy(heads, "action")


def test_the_same_model_gives_the_same_bytes(folder: Path, tmp_path: Path):
    save_checkpoint(tmp_path / "again", "futr", tiny(), config_of("futr"), RUN)
    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_nothing_is_pickled(folder: Path):
    for name in FILES:
        content = (folder / name).read_bytes()
        assert content[:2] != b"PK"
        with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError)):
            pickle.loads(content)


# Broken folders


def edited(name: str, act: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
        act(value)
        (folder / name).write_text(json.dumps(value), encoding="utf-8")

    return write


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


BAD = {
    "unknown key": (
        edited("config.json", lambda about: about["config"].update(hidden_dims=8)),
        r"config.json: unknown key 'hidden_dims'; FUTRConfig has feature_dim, hidden_dim,",
    ),
    "key of the folder": (
        edited("config.json", lambda about: about.update(extra=1)),
        r"config.json must hold config, format, model, run, got .*'extra'",
    ),
    "missing key": (
        edited("config.json", lambda about: about.pop("run")),
        r"config.json must hold config, format, model, run, got \['config', 'format', 'model'\]",
    ),
    "wrong type": (
        edited("config.json", lambda about: about["config"].update(hidden_dim="wide")),
        r"config.json: hidden_dim: Input should be a valid integer.*, got 'wide'",
    ),
    "impossible value": (
        edited("config.json", lambda about: about["config"].update(num_heads=3)),
        r"config.json: .*hidden_dim must be a multiple of num_heads, got 8 and 3",
    ),
    "unknown model": (
        edited("config.json", lambda about: about.update(model="futurist")),
        r"config.json: unknown model 'futurist'; the models are repeat-last-action, .*futr",
    ),
    "a model that is no name": (
        edited("config.json", lambda about: about.update(model=["futr"])),
        r"config.json: unknown model \['futr'\]; the models are",
    ),
    "other format": (
        edited("config.json", lambda about: about.update(format=2)),
        r"config.json must be of format 1, got 2; it was written by another version",
    ),
    "no JSON": (written("config.json", b"{"), r"config.json must be JSON, got Expecting"),
    "not UTF-8": (written("labels.json", b"\xff"), r"labels.json must be JSON, got .*utf-8"),
    "JSON list": (written("labels.json", b"[]"), r"labels.json must hold .*, got list"),
    "other labels": (
        edited("labels.json", lambda about: about["heads"]["action"].update(names=["a", "b"])),
        r"model.safetensors belongs to another model, or to another label space.*past_head",
    ),
    "labels without names": (
        edited("labels.json", lambda about: about["heads"]["action"].pop("names")),
        r"labels.json must hold the label names of every head, got .*'names'",
    ),
    "labels without the primary head": (
        edited("labels.json", lambda about: about.update(primary="verb")),
        r"labels.json must hold the label names .*'verb' must be one of \['action'\]",
    ),
    "heads in a list": (
        edited("labels.json", lambda about: about.update(heads=[])),
        r"labels.json must hold the label names of every head",
    ),
    "truncated weights": (
        cut_short,
        r"model.safetensors must be a complete safetensors file, got a broken one",
    ),
    "no weights": (
        written("model.safetensors", b""),
        r"model.safetensors must be a complete safetensors file",
    ),
    "weights of another model": (
        lambda folder: save_file({"w": torch.ones(2)}, folder / "model.safetensors"),
        r"model.safetensors belongs to another model, .*Missing key",
    ),
    "other width": (
        edited("config.json", lambda about: about["config"].update(hidden_dim=16)),
        r"model.safetensors belongs to another model, .*size mismatch",
    ),
}


@pytest.mark.parametrize(("act", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_broken_folder_is_named_in_one_sentence(folder: Path, act, sentence: str):
    act(folder)
    with pytest.raises(ValueError, match=sentence) as raised:
        load_checkpoint(folder)
    assert str(folder) in str(raised.value)


def test_a_counting_model_belongs_to_its_labels(tmp_path: Path):
    save_checkpoint(tmp_path, "n-gram", tiny("n-gram"), config_of("n-gram"), RUN)
    edited("labels.json", lambda about: about["heads"]["action"].update(names=["a", "b"]))(tmp_path)
    sentence = r"model.safetensors belongs to another label space .* label 3, got names for 2"
    with pytest.raises(ValueError, match=sentence):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing; give a folder that"):
        load_checkpoint(folder)


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"the checkpoint folder .*nowhere does not exist"):
        load_checkpoint(tmp_path / "nowhere")


# A save that does not come to its end


def weight(folder: Path) -> float:
    """The one number that all weights of a folder are."""
    tensors = load_checkpoint(folder).model.state_dict().values()
    numbers = {float(number) for tensor in tensors for number in tensor.flatten()[:5]}
    assert len(numbers) == 1
    return numbers.pop()


def filled(number: float) -> Anticipator:
    model = tiny()
    for parameter in model.parameters():
        parameter.data.fill_(number)
    return model


def save(folder: Path, number: float) -> None:
    save_checkpoint(folder, "futr", filled(number), config_of("futr"), RUN)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_full_disk_leaves_a_good_checkpoint(tmp_path: Path, monkeypatch, failing: str, call: int):
    save(tmp_path, 1.0)
    calls = 0
    owner = os if failing == "fsync" else Path
    real = getattr(owner, failing)

    def fails(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(owner, failing, fails)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 2.0)
    monkeypatch.undo()
    assert weight(tmp_path) in ((1.0,) if call == 1 else (1.0, 2.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_a_first_save_that_fails_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch):
    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, 1.0)
    assert not list(tmp_path.iterdir())


def test_what_a_kill_left_half_written_is_cleared_by_the_next_save(folder: Path):
    (folder / ".model.safetensors.a1b2").write_bytes(b"half")
    (folder / ".something.else").write_bytes(b"not ours")
    save(folder, 3.0)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*FILES, ".something.else"])


KILLED = """
import itertools, os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_checkpoint import save, weight
folder = Path(sys.argv[1])
save(folder, 1.0)
for i in range(1, 16):
    saved, says = os.pipe()
    child = os.fork()
    if not child:
        for number in itertools.count(1000.0 * i):
            save(folder, number)
            os.write(says, b".")
    os.read(saved, 1)
    time.sleep(random.Random(i).uniform(0, 0.01))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert 1000 * i <= weight(folder) < 1000 * (i + 1)
save(folder, 0.0)
assert weight(folder) == 0.0
print(*sorted(path.name for path in folder.iterdir()))
"""


def test_a_kill_leaves_a_good_checkpoint(tmp_path: Path):
    """A child is killed in the midst of saving, again and again."""
    script = KILLED.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "best")],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.returncode, done.stderr
    assert done.stdout.split() == sorted(FILES)


def test_a_file_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "deep" / "x.json"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


# JSON


class Colour(Enum):
    RED = "red"


def test_everything_a_config_holds_becomes_json():
    value = {"a": (1, 2.5), "b": frozenset("yx"), "c": Colour.RED, "d": Path("x/y"), 3: None}
    assert to_json(value) == {"a": [1, 2.5], "b": ["x", "y"], "c": "red", "d": "x/y", "3": None}
    assert json_bytes({"ß": 1}) == '{\n "ß": 1\n}\n'.encode()


@pytest.mark.parametrize("name", MODELS)
def test_every_config_comes_back_from_json(name: str):
    config = config_of(name)
    value = json.loads(json_bytes(config))
    assert from_json(MODELS[name], value, "here") == config


def test_an_unknown_key_is_found_inside_another_config():
    with pytest.raises(ValueError, match=r"here: unknown key 'labels.noise'; TrainConfig has"):
        from_json(TrainConfig, {"labels": {"noise": 1}}, "here")


def test_no_object_is_no_config():
    with pytest.raises(ValueError, match=r"here: FUTRConfig: .*, got \[1\]"):
        from_json(FUTRConfig, [1], "here")


# Other people's checkpoints


class Payload:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.where,)


STATE = {"w": torch.arange(3.0), "b": torch.ones(1)}


@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_a_malicious_pickle_is_refused_and_never_run(tmp_path: Path, protocol: str):
    path, trap = tmp_path / "official.pt", tmp_path / "trap"
    value = {"state_dict": STATE, "extra": Payload(trap)}
    if protocol == "torch":
        torch.save(value, path)
    else:
        path.write_bytes(pickle.dumps({"extra": Payload(trap)}, protocol=2))
    with pytest.raises(ValueError, match=r"holds more than tensors, .* any code in it; say"):
        read_official(path)
    assert not trap.exists()
    if protocol == "torch":
        assert read_official(path, trust=True).keys() == STATE.keys()
        assert trap.exists()  # so that the trap is known to work


@pytest.mark.parametrize(
    "value",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 3},
        {"model_state_dict": STATE, "optimiser": {"lr": 0.1}},
        {"model": STATE},
    ],
)
def test_state_dicts_are_found_where_they_usually_lie(tmp_path: Path, value):
    torch.save(value, tmp_path / "official.pt")
    found = read_official(tmp_path / "official.pt")
    assert found.keys() == STATE.keys()
    assert torch.equal(found["w"], STATE["w"])


def test_safetensors_are_read(tmp_path: Path):
    save_file(STATE, tmp_path / "official.safetensors")
    assert torch.equal(read_official(tmp_path / "official.safetensors")["w"], STATE["w"])


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_trusted_module_gives_its_state(tmp_path: Path, wrapped: bool):
    module = nn.Linear(2, 3)
    path = tmp_path / "official.pt"
    torch.save({"model": module, "epoch": 2} if wrapped else module, path)
    with pytest.raises(ValueError, match="say --trust"):
        read_official(path)
    assert torch.equal(read_official(path, trust=True)["weight"], module.weight)


@pytest.mark.parametrize("value", [[1, 2], {"w": torch.ones(1), "epoch": 3}, 5])
def test_other_content_is_no_state_dict(tmp_path: Path, value):
    torch.save(value, tmp_path / "official.pt")
    sentence = f"must hold a state dict of tensors, got {type(value).__name__}"
    with pytest.raises(ValueError, match=sentence):
        read_official(tmp_path / "official.pt")


@pytest.mark.parametrize("content", [b"", b"hello world\n", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("trust", [False, True])
def test_other_files_are_no_checkpoint(tmp_path: Path, content: bytes, trust: bool):
    (tmp_path / "official.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"official.pt must be a PyTorch checkpoint, got a file"):
        read_official(tmp_path / "official.pt", trust)


def test_broken_safetensors_are_named(tmp_path: Path):
    (tmp_path / "official.safetensors").write_bytes(b"12345678{}")
    with pytest.raises(ValueError, match=r"official.safetensors must be a safetensors file, got"):
        read_official(tmp_path / "official.safetensors")


def test_a_missing_official_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"the checkpoint .*official.pt does not exist"):
        read_official(tmp_path / "official.pt")


def test_pairs_of_verb_and_noun_are_kept(tmp_path: Path):
    heads = {
        "verb": LabelSpace(("take", "put")),
        "noun": LabelSpace(("cup", "pan")),
        "action": LabelSpace(("take cup", "put pan")),
    }
    taxonomy = Taxonomy(heads, "action", ((0, 0), (1, 1)))
    config = RepeatLastActionConfig()
    save_checkpoint(tmp_path, "repeat-last-action", config.build(taxonomy), config, {})
    assert load_checkpoint(tmp_path).model.taxonomy == taxonomy
    with pytest.raises(ValueError, match=r"a noun of 0..1, got \(2, 0\)"):
        Taxonomy(heads, "action", ((0, 0), (2, 0)))
    with pytest.raises(ValueError, match="each of 2 actions, got 1"):
        Taxonomy(heads, "action", ((0, 0),))
    with pytest.raises(ValueError, match="got none called noun, verb"):
        Taxonomy({"action": heads["action"]}, "action", ((0, 0), (1, 1)))
