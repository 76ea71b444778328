"""What readers broke once, so that nobody breaks it again."""

import math
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import folders
from actioncast.__main__ import main
from actioncast.checkpoint import load_checkpoint
from actioncast.data import open_frame_labels
from actioncast.data.collate import first_step
from actioncast.features import LabelFeatures
from actioncast.files import replace_file
from actioncast.layers.rollouts import DurationPool
from actioncast.protocols import LongTerm
from actioncast.training import TrainConfig


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mended")
    folders.write_folder(home / "kitchen", splits=2)
    data = ["--data", home / "kitchen", "--out", home / "runs", "--split", "1"]
    assert run("train", "n-gram", *data) == 0
    assert run("train", "futr", *folders.SMALL, *data) == 0
    return home


@pytest.mark.parametrize(("wrong_share", "blur"), [(0.5, 0.0), (0.0, 4.0), (0.5, 4.0)])
def test_spoilt_labels_do_not_see_the_future(wrong_share: float, blur: float):
    past = np.repeat([0, 1, 2, 0], [9, 7, 8, 6])
    for seed in range(50):
        one = LabelFeatures(np.append(past, [0] * 5 + [3] * 20), 4, wrong_share, blur, seed)
        other = LabelFeatures(np.append(past, [1] * 3), 4, wrong_share, blur, seed)
        np.testing.assert_array_equal(one.read(0, 30), other.read(0, 30))


def test_blur_delays_and_never_announces():
    frames = np.repeat([0, 1], 20)
    moved = [int((LabelFeatures(frames, 2, 0.0, 4.0, s).frames == 0).sum()) for s in range(200)]
    assert min(moved) == 20
    assert max(moved) > 24


def test_an_action_may_end_just_now():
    pool = DurationPool(np.array([3.0, 3.0, 6.0, 3.0, 3.0, 6.0]), np.array([0, 3, 6]))
    low, high = pool.lasting(0, 3.0)
    assert pool.values[low:high].tolist() == [3.0, 3.0, 6.0]
    low, high = pool.lasting(0, 3.5)
    assert pool.values[low:high].tolist() == [6.0]


def test_the_horizon_asked_for_does_not_depend_on_the_windows_scored():
    whole, short = LongTerm(), LongTerm(horizon_ratios=(0.1,))
    assert whole.question(1000, 0.2, 15.0) == short.question(1000, 0.2, 15.0)
    assert whole.window(1000, 0.2, 0.1) == short.window(1000, 0.2, 0.1)


def test_other_data_than_those_of_the_training_are_named(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folders.write_folder(tmp_path / "other", splits=2, seed=7)
    words = ["--data", tmp_path / "other", "--split", "1", "--out", tmp_path]
    assert run("evaluate", home / "runs" / "n-gram", *words) == 0
    assert "scored on other data" in capsys.readouterr().err
    (result,) = tmp_path.glob("*.json")
    assert result.name.endswith("-on-other.json")
    assert "scored on other data" in result.read_text()


def test_results_measured_otherwise_do_not_take_the_place_of_the_ordinary(home: Path):
    results = home / "runs" / "n-gram" / "results"
    assert run("evaluate", home / "runs" / "n-gram") == 0
    before = {path: path.read_bytes() for path in results.glob("*.json")}
    assert run("evaluate", home / "runs" / "n-gram", "--horizon-ratios", "0.1") == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    assert len(list(results.glob("*.json"))) == len(before) + 1


def test_a_diverged_model_is_refused(home: Path, tmp_path: Path):
    best = home / "runs" / "futr" / "split1" / "best"
    for name in ("config.json", "labels.json"):
        (tmp_path / name).write_bytes((best / name).read_bytes())
    weights = load_file(best / "model.safetensors")
    save_file(
        {key: value * math.nan for key, value in weights.items()}, tmp_path / "model.safetensors"
    )
    with pytest.raises(ValueError, match="NaN or infinity"):
        load_checkpoint(tmp_path)
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_a_rate_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="must be finite"):
        TrainConfig(lr=math.inf)
    with pytest.raises(ValueError, match="must be finite"):
        replace(TrainConfig(), clip=math.nan)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predict", "{run}", "x.npy", "--out", "a.html", "--out", "b.vtt"], "must stand once"),
        (["predict", "{run}", "x.npy", "--horizon", "inf"], "must be seconds that fit"),
        (["train", "n-gram", "--data", "{data}", "--input", "features"], "counts labels"),
        (["evaluate", "{run}", "--num-samples", "3"], "--combine"),
        (["evaluate", "{run}", "--plot", "a.pdf"], "--plot must end with"),
    ],
)
def test_what_would_be_lost_or_ignored_is_refused(
    home: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
):
    filled = [w.format(run=home / "runs" / "n-gram", data=home / "kitchen") for w in words]
    assert run(*filled) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_a_folder_of_oddly_named_splits_is_not_taken_for_none(tmp_path: Path):
    folders.write_folder(tmp_path / "kitchen", splits=0)
    (tmp_path / "kitchen" / "splits").mkdir()
    (tmp_path / "kitchen" / "splits" / "train1.txt").write_text("a")
    with pytest.raises(ValueError, match="no bundle by such a name"):
        open_frame_labels(tmp_path / "kitchen")


def test_a_fault_nobody_thought_of_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert run("compare", tmp_path / "deep.json") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_that_was_stopped_is_said_to_be(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run_folder = tmp_path / "run"
    shutil.copytree(home / "runs" / "futr", run_folder)
    assert run("evaluate", run_folder) == 0
    assert "stopped before its end" not in capsys.readouterr().err
    shutil.rmtree(run_folder / "split1" / "last")
    assert run("evaluate", run_folder, "--out", tmp_path) == 0
    assert "training of split1 was stopped before its end" in capsys.readouterr().err
    assert all("stopped before" in path.read_text() for path in tmp_path.glob("*.json"))


@pytest.mark.parametrize("observed", range(1, 25))
@pytest.mark.parametrize("stride", [1, 2, 5, 7])
def test_the_last_observed_frame_is_a_step_where_it_is_the_anchor(observed: int, stride: int):
    steps = range(first_step(observed, stride, "end"), observed, stride)
    assert steps[-1] == observed - 1
    assert 0 <= steps[0] < stride
    assert first_step(observed, stride, "start") == 0


def test_a_rename_is_made_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[bool] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    replace_file(tmp_path / "a", b"1")
    assert synced == [False, True]
