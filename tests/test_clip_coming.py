import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from actioncast.__main__ import main
from actioncast.clip_bench import clip_result_tables
from actioncast.clip_coming import candidates, score_coming, selecting_distance
from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_runs import load_clip_run, train_clip_run
from actioncast.clip_scoring import coming_probabilities, coming_result
from actioncast.clip_sources import Sources, sources
from actioncast.clip_training import build_for_clips, clip_batches, hold_out
from actioncast.data.clip_sequences import ClipSequences, ObservedSegments
from actioncast.data.clips import ClipDataset
from actioncast.data.ego4d import open_ego4d
from actioncast.data.feature_steps import FeatureSteps
from actioncast.inference import coming_actions
from actioncast.models.base import Anticipator, Losses
from actioncast.models.clam_config import ClamConfig
from actioncast.models.mamba_vl import MambaVLConfig
from actioncast.passport import read_result, require_comparable
from actioncast.questions.modes import QuestionMode
from actioncast.timeline import Taxonomy
from actioncast.training import Machine
from actioncast.types import Observation, Prediction, Target, Task
from ego4d_folders import write_ego4d
from goldens import golden_file

FEW = ClipTrainConfig(
    task="coming_actions",
    dataset="ego4d",
    num_observed=3,
    num_actions=4,
    span=8.0,
    input="features",
    feature_rate=1.875,
)


class Sayer(Anticipator):
    """Says the same to everybody, or what it is given."""

    tasks: ClassVar = frozenset({Task.COMING})

    def __init__(self, taxonomy: Taxonomy, answers: list[Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.taxonomy, self.answers, self.asked = taxonomy, answers, 0

    def losses(self, x: Observation, y: Target) -> Losses:  # noqa: ARG002
        return {}

    def predict(self, x: Observation) -> list[Prediction]:
        said = [self.answers[(self.asked + i) % len(self.answers)] for i in range(len(x))]
        self.asked += len(x)
        return [
            Prediction(taxonomy=self.taxonomy, rate=1.0, observed=0, coming=one) for one in said
        ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return write_ego4d(tmp_path / "ego4d")


def opened(config: ClipTrainConfig, home: Path) -> tuple[ClipDataset, Sources, ClipSequences]:
    dataset = open_ego4d(home)
    shown = sources(config, dataset, home)
    assert shown.sequences is not None
    return dataset, shown, shown.sequences


def one_hot(labels: list[int], size: int) -> np.ndarray:
    return np.eye(size)[labels]


# Scores


def test_a_constant_by_hand() -> None:
    """Verbs 1 2 1 0 against 1 1 1 1: half are wrong; nouns 0 0 1 1 against 1 1 1 1 as well."""
    truth = {"verb": np.array([[1, 2, 1, 0]]), "noun": np.array([[0, 0, 1, 1]])}
    probs = {"verb": one_hot([1] * 4, 3)[None], "noun": one_hot([1] * 4, 2)[None]}
    found = score_coming(probs, truth)
    assert found["ED@4 verb"] == 50
    # ED@1 to ED@4 of verbs: 0, 1/2, 1/3, 1/2; of nouns: 1, 1, 2/3, 1/2.
    assert found["AUED verb"] == pytest.approx(100 * (0.25 + 5 / 12 + 5 / 12) / 3)
    assert found["ED@4 noun"] == 50
    assert found["AUED noun"] == pytest.approx(100 * (1 + 5 / 6 + 7 / 12) / 3)
    # Only the third pair is right.
    assert found["ED@4 action"] == 75
    assert selecting_distance(probs, truth, "verb") == 50
    assert selecting_distance(probs, truth, "mean") == pytest.approx(100 - 175 / 3)


def test_a_swap_counts_one_by_name_alone() -> None:
    truth = {"verb": np.array([[1, 2, 3, 4]]), "noun": np.array([[0, 0, 0, 0]])}
    probs = {"verb": one_hot([1, 3, 2, 4], 5)[None], "noun": one_hot([0] * 4, 1)[None]}
    found = score_coming(probs, truth)
    assert (found["ED@4 verb"], found["ED@4 verb, swaps as one"]) == (50, 25)
    assert (found["ED@4 action"], found["ED@4 action, swaps as one"]) == (50, 25)
    assert found["ED@4 noun"] == found["ED@4 noun, swaps as one"] == 0


def test_published_cases_score_as_published() -> None:
    cases = json.loads(golden_file("metrics/ego4d_ed.json").read_text())
    told = 0
    for case in cases["cases"] if isinstance(cases, dict) else cases:
        labels = {head: np.array(case["labels"][head]) for head in ("verb", "noun")}
        said = {head: np.array(case["predictions"][head]) for head in ("verb", "noun")}
        if said["verb"].shape[2] != 1 or labels["verb"].shape[1] < 2:
            continue
        told += 1
        probs = {h: np.eye(max(said[h].max(), 999) + 1)[said[h][..., 0]] for h in said}
        found = score_coming(probs, labels)
        size = labels["verb"].shape[1]
        for head, official in case["results"].items():
            assert found[f"ED@{size} {head}"] == pytest.approx(100 * official["ED"][-1], abs=1e-9)
            assert found[f"AUED {head}"] == pytest.approx(100 * official["AUED"], abs=1e-9)
    assert told


def test_candidates_are_drawn_as_they_are_probable() -> None:
    probs = {
        "verb": np.tile([0.5, 0.0, 0.3, 0.2], (50, 20, 1)),
        "noun": np.tile([0.1, 0.9], (50, 20, 1)),
    }
    drawn = candidates(probs, 5, seed=3)
    assert drawn["verb"].shape == drawn["action"].shape == (50, 20, 5)
    shares = np.bincount(drawn["verb"].ravel(), minlength=4) / drawn["verb"].size
    assert shares == pytest.approx([0.5, 0, 0.3, 0.2], abs=0.03)
    assert shares[1] == 0
    assert np.mean(drawn["noun"]) == pytest.approx(0.9, abs=0.03)
    # Neither candidates nor heads are copies of one another.
    assert not (drawn["verb"][..., 0] == drawn["verb"][..., 1]).all()
    again = candidates(probs, 5, seed=3)
    assert all((again[head] == drawn[head]).all() for head in drawn)
    assert (candidates(probs, 5, seed=4)["verb"] != drawn["verb"]).any()
    assert (candidates(probs, 1, seed=0)["verb"] == 0).all()
    with pytest.raises(ValueError, match="at least 1 candidate"):
        candidates(probs, 0, seed=0)


def test_verbs_and_nouns_are_drawn_apart() -> None:
    alike = np.full((30, 4, 3), 1 / 3)
    drawn = candidates({"verb": alike, "noun": alike}, 2, seed=0)
    assert 0.2 < np.mean(drawn["verb"] == drawn["noun"]) < 0.5


@pytest.mark.parametrize("total", [0.25, 4.0])
def test_probabilities_need_not_sum_to_one(total: float) -> None:
    rng = np.random.default_rng(0)
    probs = {"verb": rng.random((9, 4, 5)), "noun": rng.random((9, 4, 3))}
    probs = {head: rows / rows.sum(-1, keepdims=True) for head, rows in probs.items()}
    drawn = candidates(probs, 20, seed=1)
    scaled = candidates({head: total * rows for head, rows in probs.items()}, 20, seed=1)
    assert all((scaled[head] == drawn[head]).all() for head in drawn)


def test_of_more_candidates_the_best_counts() -> None:
    rng = np.random.default_rng(0)
    truth = {"verb": rng.integers(0, 3, (40, 6)), "noun": rng.integers(0, 2, (40, 6))}
    probs = {"verb": np.full((40, 6, 3), 1 / 3), "noun": np.full((40, 6, 2), 1 / 2)}
    two, twenty = (score_coming(probs, truth, count, seed=1) for count in (2, 20))
    assert all(twenty[name] < two[name] for name in two)


def test_another_number_of_answers_is_refused() -> None:
    truth = {"verb": np.zeros((2, 4), int), "noun": np.zeros((2, 4), int)}
    probs = {"verb": np.ones((2, 5, 3)), "noun": np.ones((2, 5, 2))}
    with pytest.raises(ValueError, match="as are asked for, 4, got 5"):
        inspect.unwrap(score_coming)(probs, truth)


# Samples and models


def test_an_oracle_is_at_no_distance_and_a_constant_is_not(home: Path) -> None:
    dataset, shown, sequences = opened(FEW, home)
    asked = shown.asked(dataset, "validation")
    truth = sequences.truth(asked)
    sizes = {head: len(space) for head, space in dataset.taxonomy.heads.items()}
    oracle = [
        {h: torch.eye(sizes[h])[torch.tensor(truth[h][i])] for h in ("verb", "noun")}
        for i in range(len(asked))
    ]
    batches = clip_batches(asked, shown, 0.0, batch_size=5)
    found = coming_actions(Sayer(dataset.taxonomy, oracle), batches)
    assert found["verb"].shape == (12, 4, 3)
    assert set(score_coming(found, truth).values()) == {0.0}
    constant = [
        {h: torch.eye(sizes[h])[torch.zeros(4, dtype=torch.long)] for h in ("verb", "noun")}
    ]
    found = coming_actions(Sayer(dataset.taxonomy, constant), batches)
    scored = score_coming(found, truth)
    # Of 4 verbs that go round at least one is the first; 5 examples have its noun and 7 the other.
    assert 60 < scored["ED@4 verb"] < 75
    assert scored["ED@4 noun"] == pytest.approx(100 * 7 / 12)
    with pytest.raises(ValueError, match="names no coming action"):
        coming_actions(Sayer(dataset.taxonomy, constant), batches, heads=("action",))


def test_batches_ask_for_what_comes(home: Path) -> None:
    dataset, shown, sequences = opened(replace(FEW, supervise="steps"), home)
    assert isinstance(shown.first, FeatureSteps)
    assert shown.rate == 1.875
    asked = shown.asked(dataset, "train")
    (x, y), *_ = clip_batches(asked, shown, 0.0, batch_size=100, supervise=True)
    assert x.features.shape == (21, 15, 6)
    assert (x.rate, x.anticipation_time) == (1.875, 0.0)
    assert not y.next
    assert not y.starts
    assert {head: rows.shape for head, rows in y.coming.items()} == dict.fromkeys(
        ("verb", "noun", "action"), (21, 4)
    )
    assert y.coming["verb"].tolist() == sequences.truth(asked)["verb"].tolist()
    assert y.frames["verb"].shape == x.valid.shape
    named = y.frames["verb"] >= 0
    assert (x.features[..., :3].argmax(-1)[named] == y.frames["verb"][named]).all()


def test_observed_actions_are_another_input(home: Path) -> None:
    dataset, shown, _ = opened(replace(FEW, input="history"), home)
    assert isinstance(shown.first, ObservedSegments)
    assert shown.input == "verbs and nouns of the 3 actions observed, by people"
    (x, _), *_ = clip_batches(shown.asked(dataset, "validation"), shown, 0.0)
    assert x.features.shape == (12, 3, 3 + 2 + 2)
    assert x.labels is not None


def test_recordings_are_held_out_whole(home: Path) -> None:
    dataset, shown, _ = opened(FEW, home)
    trained, held = hold_out(list(shown.asked(dataset, "train")), 0.3, 0)
    assert held
    assert trained
    assert not {one.participant for one in trained} & {one.participant for one in held}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"questions": QuestionMode.GENERIC}, "coming_actions reads features or the actions"),
        ({"input": "history", "exchange": 0.2}, "coming_actions reads features or the actions"),
        ({"objects": True}, "coming_actions reads features or the actions"),
        ({"candidates": 0}, "candidates must be at least 1"),
        ({"task": "next_action", "candidates": 5}, "with task coming_actions alone"),
        ({"num_actions": 0}, "num_observed and num_actions must be at least 1"),
        ({"span": 0.0}, "span must be a positive number"),
        ({"every_step": True}, "every_step reads feature files"),
        ({"input": "history", "supervise": "steps"}, "supervise steps must go with"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FEW, **values)


# Runs

TINY = ClamConfig(
    hidden_dim=16,
    processor="gru",
    num_layers=1,
    num_heads=2,
    memory_queries=2,
    predictor_layers=1,
    predictor_dim=16,
    label_smoothing=0.0,
    mixup=0.0,
    dropout=0.0,
    head_dropout=0.0,
    equalise_below=0.0,
)


@pytest.fixture
def trained(home: Path, tmp_path: Path) -> Path:
    config = replace(
        FEW,
        model=TINY,
        supervise="steps",
        epochs=60,
        batch_size=8,
        lr=0.01,
        validation_share=0.3,
        validate_every=30,
        select_by="mean",
    )
    machine = Machine(accelerator="cpu", quiet=True)
    return train_clip_run("tiny", config, tmp_path / "run", data=home, machine=machine)


def test_a_run_learns_what_comes_and_is_scored(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is done goes round: whoever sees where it is knows all that comes."""
    loaded = load_clip_run(trained)
    assert loaded.checkpoint.model.config.num_coming == 4  # type: ignore[union-attr]
    assert len(loaded.clips) == 12
    assert loaded.checkpoint.run["held_out"]
    assert main(["evaluate", str(trained)]) == 0
    result = read_result(trained / "results" / "coming_actions.json")
    # The best constant is above 60 for verbs and above 40 for nouns.
    assert result.total["ED@4 verb"] < 40
    assert result.total["ED@4 noun"] < 20
    assert list(result.splits) == ["overall"]
    said = result.passport
    assert said.task == "the next 4 actions after 3"
    assert said.clip.startswith("the 8 s that end with the last of 3 actions observed")
    assert said.combined == "most likely"
    assert "Levenshtein's, as Ego4D's released code counts" in said.metric
    assert (said.num_clips, said.num_videos, said.dataset) == (12, 2, "ego4d")
    assert said.anticipation_time == 0.0
    assert "ED@4 verb" in capsys.readouterr().out
    (_, table), *_ = clip_result_tables([result, result])
    assert "ED@4 action, swaps as one, overall" in table.header
    assert main(["evaluate", str(trained), "--submission", str(trained / "x.json")]) == 2
    assert not (trained / "x.json").exists()


def test_several_candidates_stand_in_the_passport(trained: Path) -> None:
    loaded = load_clip_run(trained)
    several = replace(loaded, config=replace(loaded.config, candidates=5, seed=7))
    result = coming_result(several, coming_probabilities(several))
    assert result.passport.combined == "best of 5 drawn, seed 7"
    one = coming_result(loaded, coming_probabilities(loaded))
    with pytest.raises(ValueError, match="combined"):
        require_comparable({"one": one, "five": result})


def test_models_of_another_task_are_refused(home: Path) -> None:
    dataset, _, _ = opened(FEW, home)
    with pytest.raises(ValueError, match="names one action, got clips of ego4d; take a model of c"):
        build_for_clips(replace(FEW, model=MambaVLConfig()), dataset)
    following = replace(FEW, task="next_action", model=replace(TINY, num_coming=4))
    with pytest.raises(ValueError, match="names the actions to come, got clips"):
        build_for_clips(following, dataset)
