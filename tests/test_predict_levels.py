"""Files of one's own forecast by runs at two levels of labels, and what is said of the levels."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folders
from actioncast.__main__ import main
from actioncast.models.baselines import NGramConfig
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.own_files import own_video, read_finest, read_truth
from actioncast.passport import require_comparable
from actioncast.runs import load_checkpoints, load_run, train_run
from actioncast.seeing import Forecast, forecast_input
from actioncast.stream_verbs import readable
from actioncast.tables import level_said
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.training import Machine, TrainConfig
from test_passport import RESULT

BY_LABEL = {"pour": "make", "stir": "make", "drink": "use", "wash": "use"}
PARENTS = np.array([0, 0, 1, 1])
FINE = LabelSpace(folders.NAMES)
PHASES = Taxonomy(
    {"phase": LabelSpace(("make", "use")), "action": FINE},
    "phase",
    levels=("phase", "action"),
    parents={"phase": (0, 0, 1, 1)},
)
TEA = Taxonomy(
    {"activity": LabelSpace(("coffee", "tea")), "action": FINE},
    "activity",
    levels=("activity", "action"),
)
SMALL = MMAntConfig(
    feature_dim=folders.WIDTH,
    hidden_dim=8,
    num_queries=4,
    num_heads=2,
    num_encoder_layers=1,
    feedforward_factor=2,
    max_positions=80,
    encoder="hash:8",
)
LABELS = folders.recipe(model=replace(SMALL, text="none"), input="labels", epochs=1)
CONFIGS = {
    "features": folders.recipe(epochs=1),
    "fine": folders.recipe(epochs=1, level="fine"),
    "coarse": folders.recipe(epochs=1, level="coarse"),
    "labels": replace(LABELS, level="coarse"),
    "activity": replace(LABELS, level="coarse", hierarchy="activity.json"),
    "counting": folders.recipe(model=NGramConfig(context=1), input="labels", level="coarse"),
}
"""Runs on one folder, by name."""


@dataclass
class Said:
    code: int
    out: str
    err: str


Line = Callable[..., Said]


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Line:
    def run(*words: str | Path | float) -> Said:
        capsys.readouterr()
        code = main([str(word) for word in words])
        caught = capsys.readouterr()
        return Said(code, caught.out, caught.err)

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of six videos, phases over actions; `activity.json` says what a video shows."""
    folder = folders.write_folder(tmp_path_factory.mktemp("levels") / "tiny", splits=2)
    about = {"level": "phase", "by_label": BY_LABEL}
    (folder / "hierarchy.json").write_text(json.dumps(about))
    shown = {f"v{i}": "tea" if i % 2 else "coffee" for i in range(6)}
    (folder / "activity.json").write_text(json.dumps({"level": "activity", "by_video": shown}))
    return folder


def trained(config: TrainConfig, data: Path, folder: Path) -> Path:
    machine = Machine(accelerator="cpu", quiet=True)
    return train_run("tiny", config, folder, data=data, machine=machine, splits=["1"])


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("runs")
    made = {name: trained(config, data, home / name) for name, config in CONFIGS.items()}
    whole = folders.recipe(epochs=1, observed_ratios=(1.0,))
    made["recogniser"] = trained(whole, data, home / "recogniser")
    given = replace(SMALL, text="given")
    config = folders.recipe(model=given, epochs=1, level="coarse", labels_from="truth")
    made["given"] = trained(config, data, home / "given")
    return made


def written(path: Path, names: Sequence[str]) -> Path:
    path.write_text("\n".join(names) + "\n")
    return path


def truth_of(data: Path, video: str = "v0") -> Path:
    return data / "groundTruth" / f"{video}.txt"


def above(data: Path, folder: Path, video: str = "v0") -> Path:
    """The phases of a video as a label file."""
    actions = truth_of(data, video).read_text().split()
    return written(folder / f"{video}.txt", [BY_LABEL[name] for name in actions])


def parts(forecast: Forecast) -> list[tuple[float, float, int, float]]:
    return [(round(s.start, 6), round(s.end, 6), s.label, s.score) for s in forecast.timeline]


# Files of one's own


@pytest.mark.parametrize("name", ["labels", "activity", "counting"])
def test_a_label_file_is_forecast_as_the_video_that_it_annotates(
    runs: dict[str, Path], data: Path, name: str
):
    """A run on labels reads the finest ones, whatever level it names, wherever they come from."""
    file = forecast_input(runs[name], str(truth_of(data)), now=3.0, horizon=4.0)
    video = forecast_input(runs[name], "v0", now=3.0, horizon=4.0)
    assert parts(file) == parts(video)
    assert file.timeline.labels.names == file.taxonomy.labels.names
    assert file.taxonomy.level == "coarse"


def test_the_past_that_a_counting_run_was_told_is_shown_at_its_level(
    runs: dict[str, Path], data: Path
):
    found = forecast_input(runs["counting"], str(truth_of(data)), now=4.0, horizon=2.0)
    frames = read_finest(truth_of(data), found.taxonomy)
    past = found.timeline.crop(0.0, 4.0).to_frames(20, 5.0)
    assert (past == PARENTS[frames[:20]]).all()


def test_labels_of_another_level_than_the_run_reads_are_named(
    runs: dict[str, Path], data: Path, tmp_path: Path, line: Line
):
    said = line("predict", runs["labels"], above(data, tmp_path))
    assert said.code == 2
    wanted = "labels of the finest level, action: pour, stir, drink, wash."
    assert re.search(
        rf"v0.txt, line 1: unknown label '(make|use)'; this run reads {wanted}", said.err
    )


@pytest.mark.parametrize("source", ["recogniser", "files"])
def test_new_features_reach_a_model_that_is_told_finer_labels(
    runs: dict[str, Path], data: Path, tmp_path: Path, source: str, line: Line
):
    """The same labels give the same forecast, of a video of the data and of its features alone."""
    new = tmp_path / "new.npy"
    np.save(new, np.load(data / "features" / "v0.npy"))
    giver = runs["recogniser"]
    if source == "files":
        giver = tmp_path / "told"
        giver.mkdir()
        (giver / "new.txt").write_text(truth_of(data).read_text())
    words = ("--now", 3, "--horizon", 4, "--labels-from", giver)
    said = line("predict", runs["given"], new, *words, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["label_level"] == "coarse"
    theirs = giver if source == "recogniser" else "truth"
    found, wanted = (
        forecast_input(runs["given"], one, now=3.0, horizon=4.0, labels_from=str(by))
        for one, by in ((str(new), giver), ("v0", theirs))
    )
    assert parts(found) == parts(wanted)


def test_a_video_of_ones_own_knows_what_stands_above_its_labels(runs: dict[str, Path], data: Path):
    (loaded,) = load_run(runs["labels"])
    ours = own_video(truth_of(data), "labels", loaded.checkpoint.model, 5.0)
    theirs = loaded.dataset.videos["v0"]
    assert (ours.above_finest, theirs.above_finest) == (True, True)
    assert ours.parents is not None
    assert ours.parents.tolist() == PARENTS.tolist()
    assert (ours.frames() == theirs.frames()).all()
    assert ours.features is not None
    assert ours.features.num_features == len(folders.NAMES)
    (fine,) = load_checkpoints(runs["fine"])
    ours = own_video(data / "features" / "v0.npy", "features", fine.model, 5.0)
    assert (ours.above_finest, ours.parents) == (False, None)


def test_a_stream_of_labels_reads_them_from_a_file(
    runs: dict[str, Path], data: Path, tmp_path: Path, line: Line
):
    file = truth_of(data)
    frames = read_finest(file, PHASES)
    np.save(tmp_path / "hot.npy", np.eye(4, dtype=np.float32)[frames])
    words = ("--every", "2s", "--horizon", 4)
    told, hot = (
        line("stream", runs["labels"], one, *words) for one in (file, tmp_path / "hot.npy")
    )
    assert (told.code, hot.code) == (0, 0), told.err
    assert told.out == hot.out
    assert told.out.count("\n") == -(-len(frames) // 10)
    assert set(re.findall(r"[a-z]+ (?=0\.|1\.)", told.out)) <= {"make ", "use ", "in "}
    said = line("stream", runs["coarse"], file)
    assert said.code == 2
    assert "trained with --input labels to be given the label file" in said.err
    said = line("stream", runs["labels"], above(data, tmp_path))
    assert (said.code, "reads labels of the finest level, action" in said.err) == (2, True)


def test_a_moment_of_a_stream_is_told_in_hundredths():
    facts: dict[str, Any] = {
        "ahead": [{"when": when} for when in ("in 5.86667 s", "in 0.5 s", "in 12 s", "next 1")]
    }
    assert [one["when"] for one in readable(facts)["ahead"]] == [
        "in 5.87 s",
        "in 0.5 s",
        "in 12 s",
        "next 1",
    ]
    assert facts["ahead"][0]["when"] == "in 5.86667 s"


# The truth


def test_a_truth_of_finer_labels_is_told_by_what_stands_above(tmp_path: Path):
    file = written(tmp_path / "a.txt", ["pour", "drink", "wash"])
    assert read_truth(file, PHASES).tolist() == [0, 1, 1]
    own = written(tmp_path / "b.txt", ["use", "make", "make"])
    assert read_truth(own, PHASES).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("names", "taxonomy", "said"),
    [
        (["pour", "drink"], TEA, "'pour'; this run names labels of the level activity: coffee, "),
        (["juggle"], PHASES, r"'juggle'; .* phase: make, use\. Give .* or of action, from which"),
        (["make"], PHASES.at("fine"), "'make'; this run names labels of the level action: pour, "),
        (["juggle"], Taxonomy.of(folders.NAMES), "'juggle'; mapping.txt must list every action"),
    ],
)
def test_a_truth_of_another_level_is_answered_with_what_the_run_names(
    names: list[str], taxonomy: Taxonomy, said: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=rf"a.txt, line 1: unknown label {said}"):
        read_truth(written(tmp_path / "a.txt", names), taxonomy)


def test_predict_takes_the_truth_at_either_level(runs: dict[str, Path], data: Path, tmp_path: Path):
    features = str(data / "features" / "v0.npy")
    fine, coarse = (
        forecast_input(runs["coarse"], features, truth=truth)
        for truth in (truth_of(data), above(data, tmp_path))
    )
    assert fine.truth is not None
    assert fine.truth == coarse.truth
    assert {fine.truth.labels.names[s.label] for s in fine.truth} == {"make", "use"}


# What is said of the level


def test_tables_and_forecasts_name_the_level(runs: dict[str, Path], tmp_path: Path, line: Line):
    for name, level in (
        ("fine", "fine labels (action, 4 names)"),
        ("coarse", "coarse labels (phase, 2 names)"),
        ("features", ""),
    ):
        said = line("evaluate", runs[name], "--task", "long_term", "--out", tmp_path / name)
        captions = [one for one in said.out.splitlines() if one.startswith("long_term")]
        of = f"{level} of " if level else ""
        assert [one.startswith(f"long_term-true_length: {of}tiny, 1 sp") for one in captions] == [
            True
        ]
        compared = line("compare", tmp_path / name / "long_term-true_length.json").out
        assert compared.startswith("coarse labels of tiny" if name == "coarse" else "tiny")
        said = line("predict", runs[name], "v0")
        header = f"v0, by {name}" + (f": {level}" if level else "")
        assert said.out.splitlines()[0] == header


def test_a_level_between_others_is_called_by_its_name():
    low = Taxonomy(
        {"high": LabelSpace(("a",)), "mid": LabelSpace(("b", "c")), "low": FINE},
        "mid",
        levels=("high", "mid", "low"),
    )
    assert level_said(low) == "mid labels (2 names)"


def test_no_picture_shows_two_levels(runs: dict[str, Path], tmp_path: Path, line: Line):
    fine, coarse = runs["fine"], runs["coarse"]
    page = tmp_path / "both.html"
    said = line("predict", fine, "v0", "--beside", coarse, "--out", page)
    assert said.code == 2
    assert f"{fine} names the fine level (action), {coarse} the coarse one (phase)" in said.err
    assert not page.exists()
    said = line("predict", fine, "v0", "--beside", runs["features"], "--out", page)
    assert said.code == 0, said.err
    said = line("evaluate", fine, coarse, "--json", "--plot", tmp_path / "tests.html")
    assert (said.code, "the coarse one (phase)" in said.err) == (2, True)
    # As text each stands by itself.
    assert line("predict", fine, "v0", "--beside", coarse).code == 0


def test_no_table_holds_two_levels_whatever_is_said():
    other = replace(RESULT, passport=replace(RESULT.passport, label_level="coarse", input="x"))
    with pytest.raises(ValueError, match="label_level") as raised:
        require_comparable({"a": RESULT, "b": other})
    assert str(raised.value).endswith(
        "\nScores of two levels of labels never stand in one table; compare each level by itself."
    )
    assert "--across" not in str(raised.value)
    for results in ({"a": RESULT, "b": other}, {"a": RESULT}):
        with pytest.raises(ValueError, match="--across must name fields other than label_level"):
            require_comparable(results, ("input", "label_level"))


def test_runs_that_stand_in_no_table_are_told_which_command_takes_across(
    runs: dict[str, Path], tmp_path: Path, line: Line
):
    folder = folders.write_folder(tmp_path / "other", splits=2, seed=1)
    other = trained(CONFIGS["features"], folder, tmp_path / "run")
    said = line("evaluate", runs["features"], other, "--task", "long_term")
    assert said.code == 2
    assert "say actioncast compare FILE... --across dataset" in said.err
    file = other / "results" / "long_term-true_length.json"
    assert f"wrote {file}" in said.err
    assert file.exists()
