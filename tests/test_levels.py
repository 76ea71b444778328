"""Runs on one data set at two levels: what is trained, scored, told apart and kept."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import folders
from actioncast.__main__ import main
from actioncast.checkpoint import load_checkpoint
from actioncast.data import open_dataset
from actioncast.models.baselines import NGramConfig
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.passport import Result, read_result, require_comparable, write_result
from actioncast.protocols import LongTerm, Segmentation
from actioncast.runs import load_run, train_run
from actioncast.scoring import evaluate_run
from actioncast.training import Machine, TrainConfig

BY_LABEL = {"pour": "make", "stir": "make", "drink": "use", "wash": "use"}
PARENTS = np.array([0, 0, 1, 1])
CPU = Machine(accelerator="cpu", quiet=True)
HALF = LongTerm(observed_ratios=(0.3,), horizon_ratios=(0.5,))
RECIPE = folders.recipe(epochs=1)
COUNTING = folders.recipe(model=NGramConfig(context=1), input="labels")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of six videos, phases over actions; `activity.json` says what a video shows."""
    folder = folders.write_folder(tmp_path_factory.mktemp("levels") / "tiny", splits=2)
    about = {"level": "phase", "by_label": BY_LABEL}
    (folder / "hierarchy.json").write_text(json.dumps(about))
    shown = {f"v{i}": "tea" if i % 2 else "coffee" for i in range(6)}
    (folder / "activity.json").write_text(json.dumps({"level": "activity", "by_video": shown}))
    return folder


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny FUTR at every level, trained on both splits."""
    home = tmp_path_factory.mktemp("runs")
    return {
        level or "plain": train_run(
            "tiny", replace(RECIPE, level=level), home / (level or "plain"), data=data, machine=CPU
        )
        for level in ("", "fine", "coarse")
    }


def scored(folder: Path) -> Result:
    return evaluate_run(load_run(folder), HALF)


def trained(config: TrainConfig, data: Path, folder: Path) -> Path:
    return train_run("tiny", config, folder, data=data, machine=CPU, splits=["1"])


def test_a_passport_says_the_level(runs: dict[str, Path]):
    results = {name: scored(folder) for name, folder in runs.items()}
    assert [result.passport.label_level for result in results.values()] == [
        "fine",
        "fine",
        "coarse",
    ]
    assert all(0 <= value <= 100 for value in results["coarse"].total.values())


def test_results_of_two_levels_never_stand_side_by_side(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    files = [tmp_path / f"{name}.json" for name in ("fine", "coarse")]
    for file in files:
        write_result(scored(runs[file.stem]), file)
    results = {file.stem: read_result(file) for file in files}
    with pytest.raises(ValueError, match="label_level: fine: fine; coarse: coarse"):
        require_comparable(results)
    assert main(["compare", *map(str, files)]) == 2
    assert "label_level" in capsys.readouterr().err
    # What stands above the labels that are scored has no say in the score.
    require_comparable({"plain": scored(runs["plain"]), "fine": results["fine"]})


def test_a_checkpoint_keeps_levels_and_parents(runs: dict[str, Path]):
    for name, folder in runs.items():
        taxonomy = load_checkpoint(folder / "split1" / "best", "cpu").model.taxonomy
        if name == "plain":
            assert (taxonomy.levels, dict(taxonomy.parents)) == ((), {})
            continue
        assert taxonomy.levels == ("phase", "action")
        assert taxonomy.parents == {"phase": (0, 0, 1, 1)}
        assert taxonomy.primary == ("phase" if name == "coarse" else "action")
        assert taxonomy.level == name
        assert taxonomy.heads["phase"].names == ("make", "use")


def test_a_model_names_the_labels_of_its_level(runs: dict[str, Path], data: Path):
    (loaded,) = load_run(runs["coarse"], split="1")
    assert loaded.dataset.taxonomy.labels.names == ("make", "use")
    assert len(loaded.checkpoint.model.taxonomy.labels) == 2
    assert loaded.dataset.fingerprint() == loaded.checkpoint.run["fingerprint"]
    fine = open_dataset("", data)
    for name, video in loaded.dataset.videos.items():
        assert (video.frames() == PARENTS[fine.videos[name].frames()]).all()


def test_other_coarse_labels_are_other_data(data: Path, runs: dict[str, Path], tmp_path: Path):
    about = {"level": "phase", "by_label": {**BY_LABEL, "stir": "use"}}
    (tmp_path / "other.json").write_text(json.dumps(about))
    other = open_dataset("", data, level="coarse", hierarchy=str(tmp_path / "other.json"))
    (loaded,) = load_run(runs["coarse"], split="1")
    assert other.fingerprint() != loaded.dataset.fingerprint()
    assert other.taxonomy.labels.names == loaded.dataset.taxonomy.labels.names


def test_segmentation_is_scored_at_the_level_too(runs: dict[str, Path]):
    fine, coarse = (
        evaluate_run(load_run(runs[name]), Segmentation()) for name in ("fine", "coarse")
    )
    assert (fine.passport.label_level, coarse.passport.label_level) == ("fine", "coarse")
    assert set(fine.total) == set(coarse.total)


@pytest.mark.parametrize("change", [{"resample": 2}, {"warp": 0.1}, {"starts": 2}, {"stride": 3}])
def test_videos_on_other_grids_train_at_a_coarse_level(
    data: Path, tmp_path: Path, change: dict[str, float]
):
    folder = trained(
        folders.recipe(epochs=1, observed_ratios=(0.3, 0.6), level="coarse", **change),
        data,
        tmp_path / "run",
    )
    assert scored(folder).passport.label_level == "coarse"


# Labels that are read


def test_a_counting_model_counts_at_its_level_where_labels_say_it(data: Path, tmp_path: Path):
    """Two phases take turns: whoever is in one is in the other next."""
    totals = {}
    for level in ("fine", "coarse"):
        folder = trained(replace(COUNTING, level=level), data, tmp_path / level)
        result = scored(folder)
        assert result.passport.label_level == level
        totals[level] = result.total
    assert totals["fine"] != totals["coarse"]


def test_truth_beside_features_reaches_a_coarse_model_by_parents(data: Path, tmp_path: Path):
    config = folders.recipe(model=NGramConfig(context=1), labels_from="truth", level="coarse")
    folder = trained(config, data, tmp_path / "run")
    (loaded,) = load_run(folder)
    video = loaded.dataset.videos["v0"]
    seen = video.labels_seen(video.num_frames)
    assert seen is not None
    assert (seen == video.levels["action"]).all()
    mapped = video.at_own_level(seen)
    assert mapped is not None
    assert (mapped == video.frames()).all()
    labelled = trained(replace(COUNTING, level="coarse"), data, tmp_path / "labels")
    assert scored(folder).total == scored(labelled).total


def test_a_counting_model_says_so_where_no_level_follows_from_labels(data: Path, tmp_path: Path):
    config = replace(COUNTING, level="coarse", hierarchy="activity.json")
    with pytest.raises(ValueError, match=r"level 'activity' do not follow .* say --level fine"):
        trained(config, data, tmp_path / "run")


def test_a_hierarchy_is_found_again_from_elsewhere(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = tmp_path / "here"
    own.mkdir()
    (own / "mine.json").write_text((data / "activity.json").read_text())
    monkeypatch.chdir(own)
    config = replace(RECIPE, level="activity", hierarchy="mine.json")
    folder = trained(config, data, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert scored(folder).passport.label_level == "coarse"


def test_a_model_of_features_needs_no_labels_where_videos_say_the_level(data: Path, tmp_path: Path):
    config = replace(RECIPE, level="activity", hierarchy="activity.json")
    folder = trained(config, data, tmp_path / "run")
    result = scored(folder)
    assert result.passport.label_level == "coarse"
    (loaded,) = load_run(folder)
    assert loaded.dataset.taxonomy.labels.names == ("coffee", "tea")


def test_a_recogniser_of_plain_labels_serves_every_level_above_them(data: Path, tmp_path: Path):
    """It has seen the same videos, and names what the level is made from."""
    recogniser = train_run(
        "tiny", replace(RECIPE, observed_ratios=(1.0,)), tmp_path / "told", data=data, machine=CPU
    )
    config = folders.recipe(
        model=NGramConfig(context=1), labels_from=str(recogniser), level="coarse"
    )
    folder = trained(config, data, tmp_path / "run")
    result = scored(folder)
    assert result.passport.label_level == "coarse"
    assert result.passport.labels == "told"


# What the command line says


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--level", "verb"], "one of coarse, fine, phase, action, got 'verb'"),
        (["--hierarchy", "activity.json"], "hierarchy must come with a level"),
        (["--level", "coarse", "--hierarchy", "gone.json"], "--hierarchy must be a file"),
    ],
)
def test_a_level_that_is_not_there_is_refused(
    data: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    out = ["--out", str(tmp_path / "run"), *folders.SMALL]
    assert main(["train", "futr", "--data", str(data), *words, *out]) == 2
    assert said in capsys.readouterr().err


def test_a_checkpoint_meets_the_finest_labels_that_it_knows(
    data: Path, runs: dict[str, Path], tmp_path: Path
):
    """Labels as input, and text of them, would silently be others."""
    other = tmp_path / "other"
    shutil.copytree(data, other)
    names = [line.split()[1] for line in (other / "mapping.txt").read_text().splitlines()]
    turned = "".join(f"{i} {name}\n" for i, name in enumerate(reversed(names)))
    (other / "mapping.txt").write_text(turned)
    with pytest.raises(ValueError, match=r"labels of level 'action' .*another order"):
        load_run(runs["coarse"], other)
    (other / "mapping.txt").write_text((data / "mapping.txt").read_text())
    below = {**BY_LABEL, "stir": "use"}
    (other / "hierarchy.json").write_text(json.dumps({"level": "phase", "by_label": below}))
    with pytest.raises(ValueError, match="stand below others than when"):
        load_run(runs["coarse"], other)


def test_the_trainer_tells_the_epoch(data: Path, tmp_path: Path):
    """A first stage ends: what comes is learned from the second epoch on, also after a kill."""
    model = MMAntConfig(
        hidden_dim=8,
        num_heads=2,
        max_positions=80,
        encoder="hash:4",
        segmentation_epochs=1,
        objective="gated",
        consistency_peak=2,
        consistency_end=4,
    )
    config = folders.recipe(model=model, level="coarse", epochs=3)
    folder = trained(config, data, tmp_path / "run") / "split1"
    (log,) = folder.rglob("metrics.csv")
    rows = [row for row in csv.DictReader(log.open()) if row["train/future"]]
    assert [float(row["train/future"]) > 0 for row in rows] == [False, True, True]
    # The share of consistency is 0, a half and 1.
    assert [float(row["train/intra"]) > 0 for row in rows] == [False, True, True]
    assert [float(row["train/text"]) > 0 for row in rows] == [True, True, False]
