import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from actioncast.__main__ import main
from actioncast.checkpoint import load_checkpoint
from actioncast.clip_runs import load_clip_run
from actioncast.convert import convert_clam
from actioncast.data.epic_kitchens import open_epic_kitchens
from actioncast.models.clam import CLAM
from actioncast.models.clam_official import clam_from_official
from actioncast.stream_recipes import EK100
from actioncast.training import training_facts
from clip_folders import write_kitchen
from epic_folders import real_path
from goldens import golden_file

COUNTS = {"action": 6, "verb": 3, "noun": 2}
HEADS = ("", "_verb", "_noun")
SIZES: dict[str, Any] = {"num_heads": 4, "act_tokens": 4}
# As RULSTM numbers them: nouns in the order of their digits, and not by verb first.
PAIRS = ((2, 1), (2, 0), (1, 0), (1, 1), (0, 0), (0, 1))


def released(counts: Mapping[str, int] = COUNTS, queries: int = 1) -> dict[str, Tensor]:
    """The released network of the golden case, with classifiers of so many classes besides one."""
    state = load_file(golden_file("clam/full/weights.safetensors"))
    generator = torch.Generator().manual_seed(0)
    for head, count in zip(HEADS, counts.values(), strict=True):
        for part, shape in (("weight", (count + 1, 32)), ("bias", (count + 1,))):
            tensor = torch.randn(shape, generator=generator)
            state[f"head.classifier_past{head}.{part}"] = tensor
            state[f"head.classifier_future{head}.{part}"] = tensor.clone()
    if queries > 1:
        state = several(state, queries)
    return state


def several(state: dict[str, Tensor], queries: int) -> dict[str, Tensor]:
    """The same with several queries, which attend to one another where one passes two layers."""
    state["decoder.query_embed.weight"] = torch.randn(queries, 32)
    for layer in range(3):
        own = f"decoder.layers.{layer}.self_attn"
        for part in ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"):
            del state[f"{own}.{part}"]
        state[f"{own}.in_proj_weight"] = torch.randn(96, 32) / 6
        state[f"{own}.in_proj_bias"] = torch.zeros(96)
        state[f"{own}.out_proj.weight"] = torch.randn(32, 32) / 6
        state[f"{own}.out_proj.bias"] = torch.zeros(32)
    return state


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    """A kitchen with RULSTM's list of actions and the features of the golden case's width."""
    folder = write_kitchen(tmp_path / "epic100")
    rows = [f"{i},{verb},{noun},an action" for i, (verb, noun) in enumerate(PAIRS)]
    (folder / "actions.csv").write_text("\n".join(["id,verb,noun,action", *rows]) + "\n")
    (folder / "features").mkdir()
    videos = sorted(open_epic_kitchens(folder).by_video())
    info = [f"{video},35.0,50.0,1920x1080" for video in videos]
    (folder / "EPIC_100_video_info.csv").write_text(
        "\n".join(["video_id,duration,fps,resolution", *info]) + "\n"
    )
    for video in videos:
        values = np.random.default_rng(len(video)).standard_normal((140, 20))
        np.save(folder / "features" / f"{video}.npy", values.astype(np.float32))
    return folder


def saved(state: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, folder / "r.pt")
    return folder / "r.pt"


def test_a_converted_model_computes_what_the_released_code_does(
    kitchen: Path, tmp_path: Path
) -> None:
    """Tokens and answers of the golden case, through classifiers of our own."""
    state = released()
    folder = convert_clam(saved(state, tmp_path), tmp_path / "out", data=kitchen, **SIZES)
    model = load_checkpoint(folder).model
    assert isinstance(model, CLAM)
    io = load_file(golden_file("clam/full/io.safetensors"))
    _, weights = clam_from_official(
        load_file(golden_file("clam/full/weights.safetensors")), num_heads=4
    )
    with torch.no_grad():
        tokens, answers = model.read(io["x"], torch.ones(io["x"].shape[:2], dtype=torch.bool), None)
        for found, name in ((tokens, "past"), (answers, "future")):
            scores = found @ weights["heads.verb.weight"].T + weights["heads.verb.bias"]
            torch.testing.assert_close(scores, io[f"official.{name}_verbs"], atol=1e-5, rtol=0)


def test_classes_are_those_of_the_annotation_in_the_order_of_rulstm(
    kitchen: Path, tmp_path: Path
) -> None:
    folder = convert_clam(saved(released(), tmp_path), tmp_path / "out", data=kitchen, **SIZES)
    checkpoint = load_checkpoint(folder)
    taxonomy = checkpoint.model.taxonomy
    assert taxonomy.pairs == PAIRS
    assert taxonomy.labels.names[0] == "wash pan"
    assert not any(space.background for space in taxonomy.heads.values())
    facts = json.loads(json.dumps(training_facts(EK100)))
    assert checkpoint.run["training"] == facts | {"selection": "test"}
    assert checkpoint.run["recipe"] == "converted from r.pt"
    model: Any = checkpoint.model
    assert (model.config.gate_order, model.config.positions) == ("reversed", "accumulated")
    assert model.config.background_output
    assert (model.config.ahead, model.config.num_coming) == ((1.0,), 0)


def test_a_converted_model_is_scored_with_features(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = saved(released(), tmp_path), tmp_path / "out"
    words = ["convert", "clam", str(path), "--data", str(kitchen), "--out", str(out)]
    assert main([*words, "--num-heads", "4"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "cannot stream; --paper converts one that can" in said
    loaded = load_clip_run(out)
    assert len(loaded.clips) == 24
    assert main(["evaluate", str(out), "--json"]) == 0
    caught = capsys.readouterr()
    assert "features, 20 wide" in caught.out
    assert "other data" not in caught.err
    features = kitchen / "features" / "P01_01.npy"
    assert main(["stream", str(out), str(features)]) == 2
    assert "which no stream can" in capsys.readouterr().err
    assert main([*words, "--num-heads", "4", "--paper"]) == 0
    assert "--paper" not in capsys.readouterr().out
    assert main(["stream", str(out), str(features), "--limit", "3"]) == 0
    assert "in 1 s" in capsys.readouterr().out


def test_several_queries_are_moments_ahead_or_the_next_actions_in_order(
    kitchen: Path, tmp_path: Path
) -> None:
    path = saved(released(queries=2), tmp_path)
    folder = convert_clam(path, tmp_path / "moments", data=kitchen, ahead=(0.5, 2.0), **SIZES)
    loaded = load_clip_run(folder)
    model: Any = loaded.checkpoint.model
    assert (model.config.ahead, model.config.num_coming) == ((0.5, 2.0), 0)
    assert loaded.config.anticipation_time == 0.5
    folder = convert_clam(path, tmp_path / "order", data=kitchen, **SIZES)
    run = load_checkpoint(folder)
    model = run.model
    assert (model.ahead, model.config.num_coming) == ((), 2)
    training = run.run["training"]
    assert (training["task"], training["num_actions"]) == ("coming_actions", 2)
    for wrong in ((1.0,), (0.5, 1.0, 2.0)):
        with pytest.raises(ValueError, match="a moment for each of the 2 queries"):
            convert_clam(path, tmp_path / "no", data=kitchen, ahead=wrong, **SIZES)
    assert not (tmp_path / "no").exists()


def test_next_actions_in_order_are_scored_too(
    kitchen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = saved(released(queries=2), tmp_path), tmp_path / "out"
    convert_clam(path, out, data=kitchen, **SIZES)
    assert main(["evaluate", str(out)]) == 0
    assert "wrote" in capsys.readouterr().err


def test_what_does_not_belong_to_the_annotation_is_refused(kitchen: Path, tmp_path: Path) -> None:
    for counts, found in (
        ({"action": 6, "verb": 4, "noun": 2}, "4 verbs, 2 nouns, 6 actions besides"),
        ({"action": 5, "verb": 3, "noun": 2}, "3 verbs, 2 nouns, 5 actions besides"),
    ):
        path = saved(released(counts), tmp_path)
        with pytest.raises(ValueError, match=f"3 verbs, 2 nouns, 6 actions, got {found}"):
            convert_clam(path, tmp_path / "out", data=kitchen, **SIZES)
    path = saved(released(), tmp_path)
    (kitchen / "actions.csv").unlink()
    with pytest.raises(ValueError, match=r"must hold RULSTM's actions\.csv"):
        convert_clam(path, tmp_path / "out", data=kitchen, **SIZES)
    with pytest.raises(FileNotFoundError, match="epic100 was looked for"):
        convert_clam(path, tmp_path / "out", data=tmp_path / "nowhere", **SIZES)
    assert not (tmp_path / "out").exists()


def broken(how: str) -> dict[str, Tensor]:
    state = released()
    if how == "missing":
        del state["decoder.layers.1.norm2.weight"]
    elif how == "shape":
        state["decoder.layers.1.linear1.weight"] = torch.zeros(7, 32)
    elif how == "memory":
        del state["clustering.layers.0.multihead_attn.k.weight"]
    elif how == "futures":
        state["head.classifier_future_verb.bias"] = torch.ones(4)
    elif how == "futr":
        return load_file(golden_file("futr/small/weights.safetensors"))
    return state


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", r"fit each other, got Missing .*predictor\.layers\.1\.attention_norm\.weight"),
        ("shape", r"fit each other, got size mismatch for predictor\.layers\.1\.expand\.weight"),
        ("memory", r"without memory\.layers\.0\.state\.key\.weight"),
        ("futures", r"must be one, as released, got another head\.classifier_future_verb\.bias"),
        ("futr", "the released CLAM has no parameter called"),
    ],
)
def test_another_checkpoint_is_refused(how: str, words: str, kitchen: Path, tmp_path: Path) -> None:
    path = saved(broken(how), tmp_path)
    with pytest.raises(ValueError, match=words):
        convert_clam(path, tmp_path / "out", data=kitchen, **SIZES)
    assert not (tmp_path / "out").exists()


def test_options_of_other_methods_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["clam", "a", "--mapping", "m"], "--mapping must go with futr or actfusion or diffact"),
        (["clam", "a", "--scale", "1"], "--scale must go with actfusion or diffact, got clam"),
        (["futr", "a", "--paper"], "--paper must go with clam, got futr"),
        (["diffact", "a", "--ahead", "1", "2"], "--ahead must go with clam, got diffact"),
        (["futr", "a", "--data", "d"], "--data must go with clam"),
    ):
        assert main(["convert", *words]) == 2
        assert said in capsys.readouterr().err


def test_our_actions_are_numbered_as_those_of_the_released_classifier() -> None:
    """Its data set gives every pair the `id` of RULSTM's actions.csv, plus one."""
    folder = real_path("epic100")
    taxonomy = open_epic_kitchens(folder).taxonomy
    rows = (folder / "rulstm" / "actions.csv").read_text().splitlines()[1:]
    numbered = {int(i): (int(v), int(n)) for i, v, n, _ in (row.split(",", 3) for row in rows)}
    assert taxonomy.pairs == tuple(numbered[i] for i in range(len(rows)))
    sizes = [len(taxonomy.heads[head]) for head in ("verb", "noun", "action")]
    assert sizes == [97, 300, 3806]
