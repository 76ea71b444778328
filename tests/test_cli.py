import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import folders
from actioncast import __version__
from actioncast.__main__ import VERBS, _parsed, _protocols, _train_options, main
from actioncast.checkpoint import load_checkpoint
from actioncast.options import Evaluate
from actioncast.passport import read_result
from actioncast.recipes import RECIPES
from actioncast.runs import load_run
from actioncast.timeline_files import SUFFIXES as FILES
from actioncast.timeline_files import read_timeline
from actioncast.trunks.config import TrunkConfig
from actioncast.trunks.sources import load_source
from goldens import golden_file

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
PICTURES = (".png", ".svg", ".html")


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


Line = Callable[..., Said]


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Line:
    """Run a command line in this process."""

    def run(*words: str | Path | float) -> Said:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:  # --help
            code = int(stop.code or 0)
        caught = capsys.readouterr()
        return Said(code, caught.out, caught.err)

    return run


def refused(said: Said, *words: str) -> str:
    """Check that bad input ended as it must; return the sentence."""
    assert said.code == 2
    assert "Traceback" not in said.err
    notes = [line for line in said.err.splitlines() if not line.startswith("note: ")]
    assert notes, said
    assert notes[0].startswith("actioncast: "), said.err
    sentence = "\n".join(notes)
    for word in words:
        assert word in sentence
    return sentence


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data and trained runs that no test changes."""
    path = tmp_path_factory.mktemp("home")
    data = folders.write_folder(path / "kitchen", splits=2)
    words = ["--data", str(data), "--out", str(path / "runs")]
    assert main(["train", "futr", *folders.SMALL, *words]) == 0
    for name in ("n-gram", "repeat-last-action"):
        assert main(["train", name, *words]) == 0
    return path


def test_three_videos_of_random_features_train_evaluate_and_predict(
    tmp_path: Path, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's own folder: a mapping, no splits, no dataset.json, no code."""
    monkeypatch.chdir(tmp_path)
    folders.write_folder(Path("mine"), num_videos=3, about={})
    said = line("train", "futr", *folders.SMALL, "--data", "mine")
    assert said.code == 0, said.err
    assert "no splits" in said.err
    assert "15 frames per second assumed" in said.err
    assert "actioncast evaluate runs/futr" in said.out
    assert "\nnote:" not in said.out
    said = line("evaluate")
    assert said.code == 0, said.err
    assert "segmentation: mine, 1 split(s), 1 videos" in said.out
    assert "long_term-true_length" in said.out
    results = Path("runs/futr/results")
    assert {p.name for p in results.iterdir()} == {
        "segmentation.json",
        "long_term-true_length.json",
    }
    said = line("predict", "runs/futr", "mine/features/v0.npy", "--json")
    assert said.code == 0, said.err
    assert said.json["segments"]
    assert {segment["label"] for segment in said.json["segments"]} <= set(folders.NAMES)


# What is said to the user


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_verb(words: list[str], line: Line) -> None:
    said = line(*words)
    assert said.code == 0
    for verb in ("train", *VERBS):
        assert f"\n  {verb} " in said.out
    assert max(map(len, said.out.splitlines())) <= 100


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps(verb: str, line: Line) -> None:
    said = line(verb, "--help")
    assert said.code == 0
    assert f"usage: actioncast {verb}" in said.out
    assert "{None}" not in said.out
    assert "--no-json" not in said.out


def test_train_helps_with_recipes_and_with_values(line: Line) -> None:
    said = line("train", "--help")
    assert all(f"  {name} " in said.out for name in RECIPES)
    said = line("train", "futr", "--help")
    assert said.code == 0
    for words in ("--lr FLOAT", "--model.hidden-dim INT", "--resume", "observed_multiple"):
        assert words in said.out
    assert "add splits to a run" in " ".join(said.out.replace("│", " ").split())
    for option in (line.strip("│ ") for line in said.out.splitlines()):
        assert not option.startswith("--config"), option


def test_the_version_is_said(line: Line) -> None:
    assert line("--version").out.strip() == __version__


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fly"], ["unknown verb 'fly'", "evaluate", "convert"]),
        (["train", "futurr"], ["unknown recipe 'futurr'", "futr-breakfast", "actioncast info"]),
        (["train", "--lr", "1"], ["train takes the recipe first"]),
        (["train", "futr", "--hidden", "3"], ["--hidden", "actioncast train futr --help"]),
        (["train", "futr", "--lr", "fast"], ["--lr", "fast"]),
        (["train", "futr", "--epochs", "0"], ["epochs must be at least 1, got 0"]),
        (["train", "futr", "--devices", "0"], ["devices must be at least 1"]),
        (["train", "futr", "--accelerator", "abacus"], ["abacus", "cpu"]),
        (["train", "futr", "--model.num-heads", "7"], ["multiple of num_heads"]),
        (["train", "futr", "--selection", "luck"], ["luck", "validation"]),
        (["train", "futr"], ["say which data: --data PATH"]),
        (["train", "futr", "--data", "no/where"], ["no/where does not exist"]),
        (["train", "futr-breakfast", "--data", "."], ["breakfast was looked for in breakfast"]),
        (["evaluate", "no/run"], ["the run no/run does not exist"]),
        (["evaluate", "--runs", "no"], ["no holds no run", "actioncast train"]),
        (["evaluate", "--horizon", "for_ever"], ["for_ever", "observed_multiple"]),
        (["predict"], ["RUN", "INPUT", "actioncast predict --help"]),
        (["predict", "no/run", "a.npy"], ["the run no/run does not exist"]),
        (["compare"], ["compare needs result files"]),
        (["compare", "no.json"], ["result file no.json does not exist"]),
        (["convert", "futr", "no.ckpt"], ["the checkpoint no.ckpt does not exist"]),
        (["convert", "bert", "no.ckpt"], ["bert", "futr", "actfusion", "diffact"]),
        (["convert", "futr", "no.ckpt", "--scale", "1"], ["--scale", "actfusion", "got futr"]),
        (["convert", "futr", "a", "--condition-layers", "1"], ["--condition-layers", "got futr"]),
        (["convert", "actfusion", "no.pt"], ["dataset must be one", "gtea", "say --dataset"]),
        (["convert", "diffact", "no.pt", "--dataset", "cad120"], ["50salads", "got 'cad120'"]),
        (["convert", "diffact", "no.pt", "--dataset", "gtea"], ["no.pt does not exist"]),
        (["convert", "diffact", "a", "--num-heads", "8"], ["--num-heads", "futr", "got diffact"]),
        (["convert", "actfusion", "a", "--scale", "big"], ["--scale", "big"]),
        (
            ["convert", "actfusion", "a", "--condition-layers", "1", "--condition-layers", "2"],
            ["--condition-layers must stand once"],
        ),
        (["info", "nothing"], ["'nothing' is no recipe, run folder or result file", "lists all"]),
        (["info", "futr-breakfst"], ["did you mean futr-breakfast"]),
        (["bench", "labels", "--data", "."], ["breakfast was looked for"]),
        (["bench", "labels", "--datasets", "synthetic", "--models", "gpt"], ["unknown recipe"]),
        (["bench", "readme"], ["the README README.md does not exist", "--readme"]),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    words: list[str],
    sentence: list[str],
    line: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACTIONCAST_DATA", raising=False)
    said = refused(line(*words), *sentence)
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []


# Broken data


def spoil(path: Path, what: str) -> list[str]:
    """Break a data set folder; the words that must be said."""
    labels, features = path / "groundTruth" / "v1.txt", path / "features" / "v1.npy"
    match what:
        case "missing_features":
            features.unlink()
            return ["v1.npy does not exist"]
        case "no_features":
            for file in (path / "features").iterdir():
                file.unlink()
            (path / "features").rmdir()
            return ["has no features/ folder", "--input labels"]
        case "empty_split":
            (path / "splits" / "train.split1.bundle").write_text("\n")
            return ["train.split1.bundle", "at least one video"]
        case "split_of_unknown":
            (path / "splits" / "test.split1.bundle").write_text("v0.txt\nghost.txt\n")
            return ["test.split1.bundle, line 2", "ghost"]
        case "unknown_label":
            lines = labels.read_text().splitlines()
            lines[6] = "juggle"
            labels.write_text("\n".join(lines))
            return ["v1.txt, line 7", "unknown label 'juggle'"]
        case "no_mapping":
            (path / "mapping.txt").unlink()
            return ["mapping.txt does not exist"]
        case "wrong_width":
            np.save(features, np.load(features)[:, :4])
            return ["v1.npy", "width 6", "width 4"]
        case "nan":
            array = np.load(features)
            array[3, 2] = np.nan
            np.save(features, array)
            return ["v1.npy", "NaN", "frame 3"]
        case "truncated":
            features.write_bytes(features.read_bytes()[:-40])
            return ["v1.npy is truncated"]
        case "no_numpy":
            features.write_bytes(b"not numpy")
            return ["v1.npy", "NumPy .npy file"]
        case "no_rate":
            (path / "dataset.json").write_text('{"rate": "fast"}')
            return ["dataset.json", "rate"]
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    [
        "missing_features",
        "no_features",
        "empty_split",
        "split_of_unknown",
        "unknown_label",
        "no_mapping",
        "wrong_width",
        "nan",
        "truncated",
        "no_numpy",
        "no_rate",
    ],
)
def test_broken_data_is_named_and_nothing_is_lost(what: str, line: Line, tmp_path: Path) -> None:
    data = folders.write_folder(tmp_path / "data", splits=2)
    train = ["train", "futr", *folders.SMALL, "--data", data, "--out", tmp_path / "runs"]
    assert line(*train, "--name", "good", "--split", "1").code == 0
    run = tmp_path / "runs" / "good"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    words = spoil(data, what)
    sentence = refused(line(*train, "--name", "bad"), *words)
    assert "\n" not in sentence
    assert not list((tmp_path / "runs").glob("bad/*/best"))
    if what == "nan":
        # Mended, the same command begins.
        np.save(data / "features" / "v1.npy", np.load(data / "features" / "v2.npy"))
        (data / "groundTruth" / "v1.txt").write_text((data / "groundTruth" / "v2.txt").read_text())
        assert line(*train, "--name", "bad").code == 0
    elif what != "no_rate":  # which the run knows
        refused(line("evaluate", run), *words)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_checkpoints_of_another_model_or_label_space_are_refused(
    home: Path, line: Line, tmp_path: Path
) -> None:
    best = home / "runs" / "futr" / "split1" / "best"
    for name in ("config.json", "labels.json", "model.safetensors"):
        (tmp_path / name).write_bytes((best / name).read_bytes())
    about = json.loads((tmp_path / "config.json").read_text())
    other = {**about, "config": {**about["config"], "hidden_dim": 16}}
    (tmp_path / "config.json").write_text(json.dumps(other))
    refused(line("evaluate", tmp_path), "belongs to another model, or to another label space")
    (tmp_path / "config.json").write_text(json.dumps(about | {"model": "gpt"}))
    refused(line("evaluate", tmp_path), "unknown model 'gpt'", "futr")
    odd = {**about, "config": {**about["config"], "width": 16}}
    (tmp_path / "config.json").write_text(json.dumps(odd))
    refused(line("evaluate", tmp_path), "unknown key 'width'")
    (tmp_path / "config.json").write_text(json.dumps(about))
    labels = (tmp_path / "labels.json").read_text()
    (tmp_path / "labels.json").write_text(labels.replace("stir", "shake"))
    refused(line("evaluate", tmp_path), "not the same in the same order", "shake")
    (tmp_path / "labels.json").write_text(labels.replace('"stir",', ""))
    refused(line("evaluate", tmp_path), "label space")
    (tmp_path / "labels.json").write_text(labels)
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    refused(line("evaluate", tmp_path), "complete safetensors file")
    (tmp_path / "model.safetensors").unlink()
    refused(line("evaluate", tmp_path), "model.safetensors is missing")


def test_runs_are_not_overwritten(home: Path, line: Line) -> None:
    words = ["--data", home / "kitchen", "--out", home / "runs"]
    refused(line("train", "n-gram", *words), "already holds a run", "--resume", "--name")
    said = line("train", "n-gram", *words, "--resume", "--json")
    assert said.code == 0
    best = {str(k): str(home / "runs" / "n-gram" / f"split{k}" / "best") for k in (1, 2)}
    assert said.json == {"run": str(home / "runs" / "n-gram"), "checkpoints": best}
    refused(line("train", "n-gram", *words, "--name", "x", "--split", "9"), "split must be one of")
    refused(line("train", "n-gram", *words, "--name", "x", "--split"), "say a split")
    assert not (home / "runs" / "x").exists()


# Evaluate and compare


def test_evaluate_prints_a_table_and_writes_results(home: Path, line: Line, tmp_path: Path) -> None:
    runs = [home / "runs" / name for name in ("n-gram", "repeat-last-action")]
    said = line("evaluate", *runs, "--out", tmp_path)
    assert said.code == 0, said.err
    rows = [row.split() for row in said.out.splitlines() if "/runs/" in row]
    assert [Path(row[0]).name for row in rows] == ["n-gram", "repeat-last-action"]
    assert {p.name for p in tmp_path.iterdir()} == {
        "n-gram-long_term-true_length.json",
        "repeat-last-action-long_term-true_length.json",
    }
    result = read_result(tmp_path / "n-gram-long_term-true_length.json")
    assert result.passport.splits == ("1", "2")
    assert result.passport.num_videos == 6
    assert rows[0][-1] == f"{result.total['mean']:.2f}"
    one = line("evaluate", runs[0], "--split", "2", "--json", "--out", tmp_path / "one")
    (only,) = one.json["long_term-true_length"].values()
    assert only["passport"]["splits"] == ["2"]
    assert only["total"] == pytest.approx(result.splits["2"])
    refused(line("evaluate", runs[0], "--split", "3"), "was trained on split 1, 2, got --split 3")


def test_runs_of_one_name_keep_their_results_apart(home: Path, line: Line, tmp_path: Path) -> None:
    words = ["--data", home / "kitchen", "--out", tmp_path / "again"]
    assert line("train", "n-gram", *words).code == 0
    runs = [home / "runs" / "n-gram", tmp_path / "again" / "n-gram"]
    assert line("evaluate", *runs, "--out", tmp_path / "out").code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "runs-n-gram-long_term-true_length.json",
        "again-n-gram-long_term-true_length.json",
    }


def test_evaluate_asks_as_in_training_or_as_told(home: Path, line: Line, tmp_path: Path) -> None:
    words = ["--data", home / "kitchen", "--out", tmp_path, "--split", "1"]
    told = ["--horizon-source", "observed_multiple", "--multiple", "2"]
    assert line("train", "n-gram", *words, *told).code == 0
    said = line("evaluate", tmp_path / "n-gram", "--json")
    (result,) = said.json["long_term-observed_multiple"].values()
    assert result["passport"]["horizon_source"] == "observed_multiple x 2"
    said = line("evaluate", tmp_path / "n-gram", "--json", "--horizon", "seconds", "--seconds", 9)
    (result,) = said.json["long_term-seconds"].values()
    assert result["passport"]["horizon_source"] == "seconds 9"
    refused(line("evaluate", tmp_path / "n-gram", "--task", "segmentation"), "NGram answers")
    refused(line("evaluate", tmp_path / "n-gram", "--observed-ratios", "1.5"), "within (0, 1]")
    refused(line("evaluate", tmp_path / "n-gram", "--device", "abacus"), "device", "abacus")
    refused(line("evaluate", tmp_path / "n-gram", "--combine", "best_of_samples"), "--num-samples")
    said = line(
        *("evaluate", tmp_path / "n-gram", "--json", "--num-samples", 3),
        *("--combine", "best_of_samples"),
    )
    (result,) = said.json["long_term-observed_multiple"].values()
    assert result["passport"]["combined"] == "best of samples, 3 drawn"


def test_frames_shown_beyond_the_boundary_are_said_and_do_not_compare(
    home: Path, line: Line, tmp_path: Path
) -> None:
    run = home / "runs" / "futr"
    words = ["evaluate", run, "--task", "long_term", "--out", tmp_path]
    assert line(*words).code == 0
    said = line(*words, "--rounded-observation")
    assert "frames beyond the boundary shown" in said.out
    plain, rounded = (
        tmp_path / f"{name}.json"
        for name in ("long_term-true_length", "long_term-true_length-rounded_observation")
    )
    refused(line("compare", plain, rounded), "horizon_source", "frames beyond the boundary shown")
    words += ["--rounded-observation", "--horizon", "observed_multiple"]
    refused(line(*words), "needs horizon source true_length")


def test_answers_made_in_two_ways_stand_in_one_table_that_says_so(
    home: Path, line: Line, tmp_path: Path
) -> None:
    words = ["--data", home / "kitchen", "--out", tmp_path, *folders.SMALL, "--split", "1"]
    smooth = ["--postprocess", "median", "--postprocess-size", 5, "--offsets"]
    assert line("train", "futr", *words, *smooth, "--name", "smooth").code == 0
    assert line("train", "futr", *words, "--name", "plain").code == 0
    runs = [tmp_path / name for name in ("smooth", "plain")]
    said = line("evaluate", *runs, "--task", "long_term")
    assert said.code == 0, said.err
    assert [cell in said.out for cell in ("inference", "median 5")] == [True, True]
    files = [run / "results" / "long_term-true_length.json" for run in runs]
    compared = line("compare", *files)
    assert "median 5" in compared.out
    assert "inference" not in line("compare", files[0]).out
    assert "median 5" in line("compare", files[0]).out


def test_what_a_run_was_trained_for_is_scored(home: Path) -> None:
    (loaded,) = load_run(home / "runs" / "futr", split="1")

    def tasks(*ratios: float) -> list[str]:
        values = {**loaded.training, "observed_ratios": ratios}
        checkpoint = replace(loaded.checkpoint, run={**loaded.checkpoint.run, "training": values})
        found = _protocols(Evaluate(), [replace(loaded, checkpoint=checkpoint)])
        return [type(protocol).__name__ for protocol in found]

    assert tasks(0.2, 0.3) == ["LongTerm"]
    assert tasks(0.3, 1.0) == ["Segmentation", "LongTerm"]
    assert tasks(1.0) == ["Segmentation"]
    # A model that hides frames itself learns to anticipate from whole videos.
    loaded.checkpoint.model.trains_on_whole_videos = True
    assert tasks(1.0) == ["Segmentation", "LongTerm"]


def test_evaluate_takes_the_run_trained_last(home: Path, line: Line, tmp_path: Path) -> None:
    words = ["--data", home / "kitchen", "--out", tmp_path, "--split", "1"]
    for name in ("second", "first"):
        assert line("train", "repeat-last-action", *words, "--name", name).code == 0
    for path in (tmp_path / "first").rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert line("evaluate", "--runs", tmp_path).code == 0
    assert (tmp_path / "second" / "results").is_dir()
    assert not (tmp_path / "first" / "results").exists()


def test_evaluate_draws(home: Path, line: Line, tmp_path: Path) -> None:
    plots = [tmp_path / f"a{suffix}" for suffix in PICTURES]
    runs = [home / "runs" / name for name in ("n-gram", "futr")]
    said = line(
        "evaluate", *runs, "--out", tmp_path / "out", "--task", "long_term", "--plot", *plots
    )
    # Features and labels as input stand in one table only because evaluate was asked for both.
    assert said.code == 0, said.err
    assert all(plot.stat().st_size > 500 for plot in plots)
    page = plots[-1].read_text()
    assert all(name in page for name in ("truth", "n-gram", "futr"))
    said = line(
        *("evaluate", runs[0], "--out", tmp_path / "out"),
        *("--plot", tmp_path / "b.svg", "--videos", "v0", "v2"),
    )
    assert said.code == 0, said.err
    assert (tmp_path / "b-v0.svg").exists()
    assert (tmp_path / "b-v2.svg").exists()
    plot = ["--plot", tmp_path / "c.svg"]
    refused(line("evaluate", runs[0], *plot, "--videos", "v77"), "has no video 'v77'")
    refused(line("evaluate", runs[0], "--plot", tmp_path / "c.bmp"), ".png, .svg, .html")


def test_compare_refuses_what_differs_and_says_how(home: Path, line: Line, tmp_path: Path) -> None:
    runs = [home / "runs" / name for name in ("n-gram", "repeat-last-action", "futr")]
    assert line("evaluate", *runs, "--task", "long_term", "--out", tmp_path).code == 0
    files = [tmp_path / f"{run.name}-long_term-true_length.json" for run in runs]
    said = line("compare", *files[:2])
    assert said.code == 0, said.err
    assert "input true labels" in said.out
    sentence = refused(line("compare", *files), "input:", "features_causal:", "--across input")
    assert "dataset:" not in sentence
    said = line("compare", *files, "--across", "input", "features_causal")
    assert said.code == 0, said.err
    assert "unknown" in said.out
    said = line("compare", *files, "--across", "input", "features_causal", "--json")
    assert {Path(name).name.split("-long")[0] for name in said.json} == {r.name for r in runs}
    refused(line("compare", *files, "--across", "inputs"), "--across must name fields", "input")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    refused(line("compare", broken), "must be a result file in JSON")
    broken.write_text('{"passport": 3}')
    refused(line("compare", broken), "broken.json")


# Predict


def test_predict_from_features_labels_and_videos(home: Path, line: Line, tmp_path: Path) -> None:
    kitchen, runs = home / "kitchen", home / "runs"
    outs = [tmp_path / f"f{suffix}" for suffix in (*PICTURES, *FILES)]
    for run, source in (
        (runs / "futr", kitchen / "features" / "v0.npy"),
        (runs / "n-gram", kitchen / "groundTruth" / "v0.txt"),
        (runs / "futr", "v0"),
    ):
        said = line("predict", run, source, "--now", 3, "--horizon", 4, "--out", *outs)
        assert said.code == 0, said.err
        assert str(source) in said.out
        assert any(name in said.out for name in folders.NAMES)
        labels = load_checkpoint(run / "split1" / "best").model.taxonomy.labels
        for out in outs:
            assert out.stat().st_size > 50
            if out.suffix in FILES:
                found = read_timeline(out, labels)
                assert found.timeline.end <= 7 + 1e-6
                assert any(segment.start >= 3 - 1e-6 for segment in found.timeline)
            out.unlink()
        said = line("predict", run, source, "--now", 3, "--horizon", 4, "--json")
        assert said.json["now"] == 3
        parts = [segment["part"] for segment in said.json["segments"]]
        assert parts == sorted(parts, reverse=True)
        assert set(parts) == {"past", "future"}
    # Both layouts of an array hold the same video.
    array = np.load(kitchen / "features" / "v0.npy")
    np.save(tmp_path / "turned.npy", array.T)
    one = line("predict", runs / "futr", kitchen / "features" / "v0.npy", "--json").json
    two = line("predict", runs / "futr", tmp_path / "turned.npy", "--json").json
    assert one == two


def test_a_test_video_is_predicted_by_the_split_that_never_saw_it(home: Path, line: Line) -> None:
    run = home / "runs" / "futr"
    for video, split in (("v0", "1"), ("v1", "2")):
        chosen = line("predict", run, video, "--json").json
        assert chosen == line("predict", run, video, "--json", "--split", split).json
        other = {"1": "2", "2": "1"}[split]
        assert chosen != line("predict", run, video, "--json", "--split", other).json
    refused(line("predict", run, "v0", "--split", "3"), "got --split 3")
    features = home / "kitchen" / "features" / "v0.npy"
    refused(line("predict", run, features, "--split", "3"), "got --split 3")
    one = line("predict", run, features, "--json", "--split", "2").json
    assert one["segments"] != line("predict", run, features, "--json").json["segments"]


def test_predict_beside_another_run_and_the_truth(home: Path, line: Line, tmp_path: Path) -> None:
    kitchen, runs = home / "kitchen", home / "runs"
    page = tmp_path / "page.html"
    truth = kitchen / "groundTruth" / "v0.txt"
    words = ["--beside", runs / "repeat-last-action", "--truth", truth, "--now", 3, "--out", page]
    said = line("predict", runs / "n-gram", truth, *words, "--json")
    assert [one["run"] for one in said.json] == ["n-gram", "repeat-last-action"]
    assert all(name in page.read_text() for name in ("truth", "n-gram", "repeat-last-action"))


def test_predict_refuses_what_it_cannot_read(home: Path, line: Line, tmp_path: Path) -> None:
    futr, ngram = home / "runs" / "futr", home / "runs" / "n-gram"
    features = home / "kitchen" / "features" / "v0.npy"
    labels = home / "kitchen" / "groundTruth" / "v0.txt"
    array = np.load(features)
    np.save(tmp_path / "narrow.npy", array[:, :3])
    np.save(tmp_path / "nan.npy", np.where(np.arange(len(array))[:, None] == 5, np.nan, array))
    np.save(tmp_path / "flat.npy", array[0])
    (tmp_path / "cut.npy").write_bytes(features.read_bytes()[:-9])
    (tmp_path / "odd.txt").write_text("pour\njuggle\n")
    np.save(tmp_path / "long.npy", np.zeros((20_100, folders.WIDTH), np.float32))
    refused(line("predict", futr, tmp_path / "no.npy"), "no.npy does not exist")
    refused(line("predict", futr, tmp_path / "narrow.npy"), "vectors of width 6")
    refused(line("predict", futr, tmp_path / "nan.npy"), "nan.npy", "NaN", "frame 5")
    refused(line("predict", futr, tmp_path / "flat.npy"), "flat.npy", "(time, feature)")
    refused(line("predict", futr, tmp_path / "cut.npy"), "truncated")
    refused(line("predict", futr, tmp_path / "long.npy"), "at most 20000 steps")
    refused(line("predict", ngram, tmp_path / "odd.txt"), "odd.txt, line 2", "'juggle'")
    refused(line("predict", futr, labels), "reads features", "--input labels")
    refused(line("predict", ngram, features), "reads labels")
    refused(line("predict", futr, "v77"), "'v77'", ".npy", ".txt")
    refused(line("predict", futr, features, "--now", "-1"), "0 or more")
    refused(line("predict", futr, "v0", "--horizon", "-1"), "0 or more")
    refused(line("predict", futr, features, "--now", "0.01"), "--now must leave a frame")
    refused(line("predict", futr, features, "--device", "cuda:99"), "device")
    said = line("predict", futr, features, "--out", tmp_path / "a.docx")
    refused(said, ".png", ".csv", "a.docx")
    refused(line("predict", futr, features, "--out", tmp_path / "no" / "x"), ".png")


# Convert and info


def official(tmp_path: Path, prefix: str) -> tuple[Path, Path]:
    """A released checkpoint and its golden case."""
    weights = golden_file("futr/small/weights.safetensors")
    state = {f"{prefix}{name}": tensor for name, tensor in load_file(weights).items()}
    path = tmp_path / "official.ckpt"
    torch.save(state, path)
    return path, weights.parent


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_converted_checkpoint_predicts_as_the_official_code(
    prefix: str, line: Line, tmp_path: Path
) -> None:
    path, case = official(tmp_path, prefix)
    golden = json.loads((case / "config.json").read_text())
    tensors, out = load_file(case / "io.safetensors"), tmp_path / "converted"
    heads = golden["hyper_parameters"]["n_head"]
    said = line(
        *("convert", "futr", path, "--out", out, "--num-heads", heads),
        *("--stride", 1, "--rate", 1, "--split", "1"),
    )
    assert said.code == 0, said.err
    model = load_checkpoint(out).model
    clips = 0
    for name, wanted in tensors.items():
        axes = golden["tensors"][name].get("axes", "")
        source = re.search(r"same as (\w+) row (\d+) cut to (\d+)", axes)
        if source is None or not name.endswith(".seg"):
            continue
        features = tensors[f"{source[1]}.features"][int(source[2]), : int(source[3])]
        with torch.inference_mode():
            outputs = model(features[None], torch.ones(1, len(features), dtype=torch.bool))
        for ours, part in zip(outputs, ("seg", "action", "duration"), strict=True):
            official_ = tensors[f"{name.removesuffix('seg')}{part}"]
            torch.testing.assert_close(ours, official_, atol=1e-5, rtol=0)
        np.save(tmp_path / "clip.npy", features.numpy())
        said = line("predict", out, tmp_path / "clip.npy", "--json")
        assert said.code == 0, said.err
        named = [
            int(segment["label"].removeprefix("action_"))
            for segment in said.json["segments"]
            if segment["part"] == "past"
            for _ in range(round(segment["end"] - segment["start"]))
        ]
        assert named == wanted.reshape(len(features), -1).argmax(-1).tolist()
        clips += 1
    assert clips


def test_a_checkpoint_that_holds_code_needs_trust(line: Line, tmp_path: Path) -> None:
    path, _ = official(tmp_path, "")
    state = torch.load(path, weights_only=True)
    torch.save({"state_dict": state, "extra": Mark(tmp_path / "ran")}, path)
    words = ["convert", "futr", path, "--out", tmp_path / "out"]
    refused(line(*words), "--trust")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
    assert line(*words, "--trust").code == 0
    assert (tmp_path / "ran").exists()


class Mark:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_what_cannot_be_converted_is_said(line: Line, tmp_path: Path) -> None:
    path, _ = official(tmp_path, "")
    mapping = tmp_path / "mapping.txt"
    mapping.write_text("0 pour\n1 stir\n")
    said = line("convert", "futr", path, "--mapping", mapping, "--out", tmp_path / "out")
    refused(said, "names 2 labels, the checkpoint")
    torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    refused(line("convert", "futr", path), "must be that of the official FUTR")
    path.write_bytes(path.read_bytes()[:300])
    refused(line("convert", "futr", path), "PyTorch checkpoint")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["actfusion", "diffact"])
def test_a_released_diffusion_model_converts_and_predicts(
    method: str, line: Line, tmp_path: Path
) -> None:
    weights = golden_file(f"{method}/salads_small/weights.safetensors")
    state = {f"module.{name}": tensor for name, tensor in load_file(weights).items()}
    path, out = tmp_path / "official.pt", tmp_path / "converted"
    torch.save({"model": state, "epoch": 3}, path)
    said = line(
        *("convert", method, path, "--dataset", "50salads", "--out", out),
        *("--condition-layers", 1, 2, 3),
    )
    assert said.code == 0, said.err
    assert said.out == f"wrote {out}\n"
    said = line("info", out)
    assert said.code == 0, said.err
    for words in (method, "parameters", "7 labels", "converted from official.pt", "50salads"):
        assert words in said.out
    np.save(tmp_path / "clip.npy", np.zeros((90, 32), np.float32))
    said = line("predict", out, tmp_path / "clip.npy", "--horizon", 2, "--json")
    assert said.code == 0, said.err
    assert {segment["part"] for segment in said.json["segments"]} == {"past", "future"}
    assert "futures" not in said.json
    page = tmp_path / "page.html"
    words = ["--horizon", 2, "--num-samples", 3, "--out", page]
    said = line("predict", out, tmp_path / "clip.npy", *words, "--json")
    assert len(said.json["futures"]) == 3
    for future in said.json["futures"]:
        assert (future[0]["start"], future[-1]["end"]) == (3.0, 5.0)
    assert all(f"future {i}" in page.read_text() for i in (1, 2, 3))


def test_what_cannot_be_converted_to_a_diffusion_model_is_said(line: Line, tmp_path: Path) -> None:
    weights = golden_file("actfusion/salads_small/weights.safetensors")
    path, mapping, out = (tmp_path / name for name in ("a.pt", "mapping.txt", "out"))
    torch.save(load_file(weights), path)
    mapping.write_text("0 pour\n1 stir\n")
    words = ["convert", "actfusion", path, "--dataset", "50salads", "--out", out]
    layers = ["--condition-layers", 1, 2, 3]
    refused(line(*words), "condition_layers must be layers of the encoder, 0 to 3")
    refused(line(*words, *layers[:3]), "48 channels at 16 a layer", "--condition-layers")
    refused(line(*words, *layers, "--mapping", mapping), "names 2 labels, the checkpoint 7")
    refused(line(*words, *layers, "--stride", 0), "stride must be at least 1")
    refused(line(*words, *layers, "--rate", -15), "rate must be positive")
    refused(
        line("convert", "diffact", path, "--dataset", "50salads", "--out", out, *layers),
        "must be that of the official diffact",
    )
    refused(line("convert", "futr", path, "--out", out), "must be that of the official FUTR")
    path.write_bytes(path.read_bytes()[:300])
    refused(line(*words, *layers), "PyTorch checkpoint")
    assert not out.exists()


def test_info_knows_everything(home: Path, line: Line, tmp_path: Path) -> None:
    runs = home / "runs"
    assert line("evaluate", runs / "n-gram", "--out", tmp_path).code == 0
    result = tmp_path / "long_term-true_length.json"
    for what, words in (
        ((), ["futr", "breakfast", "long_term"]),
        (("futr-breakfast",), ["hidden_dim", "128", "published sizes"]),
        (
            (runs / "futr",),
            ["parameters", "splits 1, 2", "segmentation", "  hidden_dim           8"],
        ),
        ((runs / "futr" / "split1" / "best",), ["parameters", "fingerprint", "epoch"]),
        ((runs / "n-gram",), ["n-gram, 0 parameters"]),
        ((result,), ["moc 0.2/0.1", "fingerprint"]),
    ):
        said = line("info", *what)
        assert said.code == 0, said.err
        assert all(word in said.out for word in words), said.out
        assert isinstance(line("info", *what, "--json").json, dict)
    refused(line("info", tmp_path), "holds no checkpoint")


def command_lines(page: Path) -> list[str]:
    """The lines of a page's code blocks that begin with `actioncast`."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("actioncast ")]


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", *PAGES], ids=lambda page: page.stem)
def test_the_command_lines_that_pages_show_can_be_read(page: Path) -> None:
    for shown in command_lines(page):
        verb, *words = shlex.split(shown, comments=True)[1:]
        if verb == "train":
            _train_options(words)
        else:
            _parsed(VERBS[verb][0], words, verb)


def test_pages_show_command_lines() -> None:
    assert len(command_lines(REPOSITORY / "README.md")) > 20
    shown = command_lines(REPOSITORY / "docs" / "language_models.md")
    assert "actioncast evaluate runs/actionllm-cad120" in shown


def test_a_run_whose_frozen_model_has_moved_is_told_where_it_is(line: Line, tmp_path: Path) -> None:
    there, gone = tmp_path / "there", tmp_path / "gone"
    load_source(TrunkConfig(name="untrained:llama-tiny")).model.save_pretrained(gone)
    small = {"adapter_dim": 4, "num_queries": 3, "modalities": "vision", "interaction": "none"}
    words = [x for key, value in small.items() for x in (f"--model.{key.replace('_', '-')}", value)]
    words += ["--epochs", 1, "--split", 1, "--accelerator", "cpu", "--quiet"]
    words += ["--out", tmp_path, "--trunk", gone]
    data = folders.write_folder(tmp_path / "kitchen", splits=2)
    assert line("train", "actionllm", "--data", data, *words).code == 0
    gone.rename(there)
    features = data / "features" / "v0.npy"
    run = tmp_path / "actionllm"
    for verb in (("evaluate", run), ("predict", run, features)):
        refused(line(*verb), "not the frozen model that it stands on")
        said = line(*verb, "--trunk", there)
        assert said.code == 0, said.err
    refused(line("evaluate", run, "--trunk", "untrained:bert-tiny"), "another trunk")


# Real processes


def test_a_process_ends_with_2_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    code, out, err = folders.run("train", "futr", "--data", tmp_path / "no")
    assert code == 2
    assert not out
    assert err.startswith("actioncast: ")
    assert err.count("\n") == 1


def test_output_that_nobody_reads_is_no_error() -> None:
    """As in `actioncast info | head -0`."""
    process = folders.start("info")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 0


def test_ctrl_c_ends_with_130_and_resume_goes_on(tmp_path: Path, line: Line) -> None:
    data = folders.write_folder(tmp_path / "data")
    words = ["train", "futr", *folders.SMALL, "--data", data, "--out", tmp_path / "runs"]
    # Enough that none is done before the signal arrives.
    words += ["--epochs", 120]
    process = folders.start(*words)
    state = tmp_path / "runs" / "futr" / "split1" / "resume.ckpt"
    until = time.monotonic() + 60
    while not state.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    # As people do: once more where the first one met code that swallows it.
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "actioncast: stopped; the same command with --resume goes on." in err
    assert "Traceback" not in err
    refused(line("evaluate", tmp_path / "runs" / "futr"), "--resume")
    said = line(*words, "--resume")
    assert said.code == 0, said.err
    assert line("evaluate", tmp_path / "runs" / "futr").code == 0


def test_the_demo_runs(line: Line, tmp_path: Path) -> None:
    said = line("demo", "--out", tmp_path)
    assert said.code == 0, said.err
    assert all((tmp_path / f"timeline{suffix}").exists() for suffix in PICTURES)
