from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from actioncast import __main__ as command_line
from actioncast import online_running
from actioncast.checkpoint import Checkpoint
from actioncast.data import Dataset, Split, Video
from actioncast.data.thumos14_files import NAMES
from actioncast.evaluation import selection_score
from actioncast.features import FeatureArray
from actioncast.inference import InferenceConfig, online_answers
from actioncast.models.base import Anticipator, Losses, RecurrentAnticipator
from actioncast.online_evaluation import LATENCY, score_online
from actioncast.online_running import answer_online, online_truth
from actioncast.passport import read_result, require_comparable
from actioncast.protocols import Online
from actioncast.runs import Loaded, trained_online
from actioncast.scoring import evaluate_run
from actioncast.timeline import Taxonomy, Timeline
from actioncast.training import TrainConfig
from actioncast.types import Observation, Prediction, Target, Task

TAXONOMY = Taxonomy.of("-abc", "-")
SPORTS = Taxonomy.of(NAMES, ("Background",))
RUNNING = InferenceConfig()
RATE = 4.0
NEAR = (0.25, 0.5)
"""Moments of one and of two steps at a stride of 1."""


def spelt(spelling: str, taxonomy: Taxonomy = TAXONOMY) -> np.ndarray:
    return np.array([taxonomy.labels.index(letter) for letter in spelling], int)


def video(spelling: str, number: int = 0, taxonomy: Taxonomy = TAXONOMY) -> Video:
    """A video whose feature vectors are its number and the number of the frame."""
    frames = spelt(spelling, taxonomy)
    features = np.stack([np.full(len(frames), number), np.arange(len(frames))], 1)
    return Video(
        id=f"v{number}",
        timeline=Timeline.from_frames(frames, RATE, taxonomy.labels),
        rate=RATE,
        num_frames=len(frames),
        features=FeatureArray(features.astype(np.float32)),
        group=f"v{number}",
    )


def sports(active: np.ndarray, number: int = 0) -> Video:
    """One whose frames have several labels."""
    return replace(
        video("-" * len(active), number),
        active=active,
        timeline=Timeline((), SPORTS.labels),
    )


class Oracle(Anticipator):
    """Knows every video by its number, and says what is true, or was true `late` frames ago."""

    tasks = frozenset({Task.ONLINE})

    def __init__(
        self,
        videos: list[Video],
        ahead: tuple[float, ...] = NEAR,
        late: int = 0,
        taxonomy: Taxonomy = TAXONOMY,
    ) -> None:
        super().__init__()
        self.taxonomy = taxonomy
        self.ahead = ahead
        self.late = late
        self.known = {
            i: torch.from_numpy(online_truth(v, len(taxonomy.labels), 1)).float()
            for i, v in enumerate(videos)
        }

    def losses(self, x: Observation, y: Target) -> Losses:
        raise NotImplementedError

    def predict(self, x: Observation) -> list[Prediction]:
        assert x.ahead in ((), self.ahead)
        return [self.one(single) for single in x]

    def one(self, x: Observation) -> Prediction:
        known = self.known[int(x.features[0, 0, 0])]
        frames = x.features[0, :, 1].long() - self.late
        ahead = [self.at(known, frames + round(s * x.rate)) for s in x.ahead]
        return Prediction(
            taxonomy=self.taxonomy,
            rate=x.rate,
            observed=x.frames_observed(0),
            past=self.at(known, frames),
            ahead=torch.stack(ahead, 1) if ahead else None,
        )

    def at(
        self, known: Float[Tensor, "frame label"], frames: Int[Tensor, " time"]
    ) -> Float[Tensor, "time label"]:
        inside = (frames >= 0) & (frames < len(known))
        return known[frames.clamp(0, len(known) - 1)] * inside[:, None]


class Memory(RecurrentAnticipator[Tensor]):
    """An untrained GRU with a head for the present and one for each moment."""

    tasks = frozenset({Task.ONLINE})

    def __init__(self, ahead: tuple[float, ...] = NEAR) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.taxonomy, self.ahead = TAXONOMY, ahead
        self.gru = nn.GRU(2, 8, batch_first=True)
        self.head = nn.Linear(8, 4 * (1 + len(ahead)))

    def losses(self, x: Observation, y: Target) -> Losses:
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(1, batch_size, 8)

    def predict(self, x: Observation) -> list[Prediction]:
        hidden, _ = self.gru(x.features, self.initial_state(len(x)))
        return self.said(x, hidden)

    def step(self, x: Observation, state: Tensor) -> tuple[list[Prediction], Tensor]:
        hidden, state = self.gru(x.features, state)
        return self.said(x, hidden), state

    def said(self, x: Observation, hidden: Tensor) -> list[Prediction]:
        probs = self.head(hidden).unflatten(-1, (-1, 4)).softmax(-1)
        return [
            Prediction(
                taxonomy=TAXONOMY,
                rate=x.rate,
                observed=x.frames_observed(i),
                past=probs[i, valid, 0],
                ahead=probs[i, valid, 1:] if x.ahead else None,
            )
            for i, valid in enumerate(x.valid)
        ]


def untold(spelling: str, *rest: str) -> list[Video]:
    return [video(s, i) for i, s in enumerate((spelling, *rest))]


# Scores known by hand


def test_an_oracle_gets_a_hundred():
    videos = untold("---aaabbb--ccc", "--ccaa")
    scores = score_online(Oracle(videos), videos, Online(ahead=NEAR), RUNNING)
    hundreds = ("mAP", "cAP", "mof", "mAP ahead", "cAP ahead", "mof ahead", "mean")
    moments = [f"{name} {s}s" for name in ("mAP", "cAP", "mof") for s in (0.25, 0.5)]
    assert {scores.total[name] for name in (*hundreds, *moments)} == {100.0}
    zeros = ("onset delay (s)", "mean onset delay (s)", "missed starts", "false alarms/h")
    zeros += ("time-to-action error (s)", "never foreseen")
    assert {scores.total[name] for name in zeros} == {0.0}
    assert set(scores.total) == {*hundreds, *moments, *zeros}
    assert scores.videos["v1"]["mof 0.5s"] == 100.0
    assert set(scores.videos["v0"]) == {"mof", "mof 0.25s", "mof 0.5s", *zeros}


def test_an_oracle_that_comes_late_gets_what_a_hand_computes():
    videos = untold("--aaa---")
    scores = score_online(Oracle(videos, late=1), videos, Online(ahead=()), RUNNING).total
    # Three steps say a, two of them rightly; of all eight three are a.
    assert scores["mAP"] == pytest.approx(100 * (2 / 3 * 2 / 3 + 1 / 3 * 3 / 8))
    # Negatives weigh 3 / 5: precision 2 / (2 + 0.6) at two thirds, 3 / (3 + 3) at the end.
    assert scores["cAP"] == pytest.approx(100 * (2 / 3 * 2 / 2.6 + 1 / 3 * 1 / 2))
    # Wrong at the first step, which says nothing, at 2 and at 5.
    assert scores["mof"] == pytest.approx(100 * 5 / 8)
    assert scores["onset delay (s)"] == 0.25
    assert scores["mean"] == scores["mAP"]
    assert not any("ahead" in name or "action" in name for name in scores)


def test_a_late_oracle_is_late_about_the_future_too():
    videos = untold("---aaa--")
    scores = score_online(Oracle(videos, late=1), videos, Online(ahead=NEAR), RUNNING).total
    # About step t it says what step t - 1 was: 4, 5 and 6 get the score, 3, 4 and 5 are right.
    assert scores["mAP 0.5s"] == pytest.approx(100 * (2 / 3 * 2 / 3 + 1 / 3 * 3 / 8))
    # Six answers are about a step of the video; those about 3 and 6 are wrong.
    assert scores["mof 0.5s"] == pytest.approx(100 * 4 / 6)
    # Foreseen one step before, when it says two and not one.
    assert scores["time-to-action error (s)"] == 0.25
    assert scores["mean"] == pytest.approx((scores["mAP"] + scores["mAP ahead"]) / 2)


def test_nothing_was_said_about_the_first_steps_of_a_video():
    """TeSTra's zero scores: two of three true steps lie before the first answer about them."""
    videos = untold("aaa-----")
    scores = score_online(Oracle(videos), videos, Online(ahead=(0.5,)), RUNNING).total
    assert scores["mAP 0.5s"] == pytest.approx(100 * (1 / 3 + 2 / 3 * 3 / 8))
    assert scores["mof 0.5s"] == 100.0


def test_an_answer_about_now_is_right_under_the_shift_by_one_alone():
    videos = untold("--aaa--bb---")
    late = Oracle(videos, ahead=(0.25,), late=1)
    found = {
        alignment: score_online(
            late, videos, Online(ahead=(0.25,), alignment=alignment), RUNNING
        ).total
        for alignment in ("target", "shifted_by_one")
    }
    assert found["shifted_by_one"]["mAP 0.25s"] == 100.0
    assert found["shifted_by_one"]["mof 0.25s"] == 100.0
    assert found["target"]["mAP 0.25s"] < 70
    assert found["target"]["mAP"] == found["shifted_by_one"]["mAP"]


def test_background_and_ambiguous_have_no_score_and_ambiguous_steps_do_not_count():
    active = np.zeros((8, 22), bool)
    active[:, 0] = True
    active[2:5, [0, 5, 8]] = False, True, True
    active[6:, [0, 21]] = False, True
    videos = [sports(active)]
    model = Oracle(videos, ahead=(), taxonomy=SPORTS)
    scores = score_online(model, videos, Online(ahead=()), RUNNING)
    assert scores.total["mAP"] == 100.0
    assert scores.total["mof"] == 100.0
    # Both are under way, and one can be the most likely: the other start is missed.
    assert scores.total["missed starts"] == 50.0
    model.known[0][6:] = 0
    model.known[0][6:, 12] = 1
    said = score_online(model, videos, Online(ahead=()), RUNNING).total
    assert said["mAP"] == 100.0
    assert said["mof"] == 100.0
    assert said["false alarms/h"] == 0.0
    counted = score_online(model, videos, Online(ahead=(), left_out=""), RUNNING).total
    assert counted["mof"] == 75.0
    assert counted["false alarms/h"] == 1800.0


def test_ambiguous_steps_do_not_count_ahead_either():
    active = np.zeros((8, 22), bool)
    active[:, 0] = True
    active[3:5, [0, 12]] = False, True
    active[6:, [0, 21]] = False, True
    videos = [sports(active)]
    model = Oracle(videos, ahead=(0.25,), taxonomy=SPORTS)
    model.known[0][6:, 12] = 1
    found = {
        name: score_online(model, videos, Online(ahead=(0.25,), left_out=name), RUNNING).total[
            "mAP 0.25s"
        ]
        for name in ("Ambiguous", "")
    }
    # Counted, four steps have the score and two are right.
    assert found == {"Ambiguous": 100.0, "": 50.0}


def test_a_stride_samples_the_labels_of_several_actions():
    active = np.arange(5 * 22).reshape(5, 22) % 3 == 0
    assert (online_truth(sports(active), 22, 2) == active[[0, 2, 4]]).all()


def test_without_background_every_label_is_scored():
    taxonomy = Taxonomy.of(("null", "reach"))
    frames = np.array([0, 0, 1, 1])
    one = replace(video("----"), timeline=Timeline.from_frames(frames, RATE, taxonomy.labels))
    model = Oracle([one], ahead=(), taxonomy=taxonomy)
    model.known[0][0] = torch.tensor([0.0, 1.0])
    scores = score_online(model, [one], Online(ahead=()), RUNNING).total
    # null: the second step alone has the score, then all four; reach: three have it, two right.
    assert scores["mAP"] == pytest.approx(100 * ((1 / 2 + 1 / 2 * 2 / 4) + 2 / 3) / 2)


def test_a_stride_scores_the_steps_of_the_model():
    videos = untold("---aaaabbb--ccc", "--ccccaa")
    model = Oracle(videos, ahead=(0.5, 1.0))
    running = InferenceConfig(stride=2, anchor="end", batch_size=1)
    (first, second) = answer_online(model, videos, Online(ahead=(0.5, 1.0)), running)
    assert first.past.argmax(1).tolist() == spelt("---aaaabbb--ccc")[::2].tolist()
    assert (first.past == first.truth).all()
    assert (first.ahead[:-2, 1] == first.truth[2:]).all()
    assert second.past.shape == (4, 4)
    scores = score_online(model, videos, Online(ahead=(0.5, 1.0)), running).total
    assert scores["mAP 0.5s"] == scores["mAP"] == 100.0
    with pytest.raises(ValueError, match=r"whole number of steps of 0\.5 s .*got 0\.25 s"):
        score_online(Oracle(videos), videos, Online(ahead=(0.25,)), running)


# Two ways of running a model


@pytest.mark.parametrize("kind", ["memory", "none"])
@pytest.mark.parametrize("stride", [1, 3])
def test_streamed_answers_equal_those_at_once(kind: str, stride: int):
    videos = untold("---aaaabbb--ccc", "--ccaa")
    ahead = (0.75, 1.5)
    model = Memory(ahead) if kind == "memory" else Oracle(videos, ahead=ahead, late=2)
    running = InferenceConfig(stride=stride)
    found = [
        answer_online(model, videos, Online(ahead=ahead, way=way), running)
        for way in ("at_once", "streamed")
    ]
    for once, streamed in zip(*found, strict=True):
        np.testing.assert_allclose(streamed.past, once.past, atol=1e-6)
        np.testing.assert_allclose(streamed.ahead, once.ahead, atol=1e-6)
        assert (streamed.truth == once.truth).all()
        assert len(once.seconds) == 0
        assert len(streamed.seconds) == len(once.past)
        assert (streamed.seconds > 0).all()


@pytest.mark.parametrize("way", ["at_once", "streamed"])
def test_nothing_is_dropped_of_a_model_left_in_training(way: Any):
    videos = untold("---aaaabbb--ccc")
    model = Memory()
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)
    (expected,) = answer_online(model.eval(), videos, Online(ahead=NEAR), RUNNING)
    (found,) = answer_online(model.train(), videos, Online(ahead=NEAR, way=way), RUNNING)
    np.testing.assert_allclose(found.past, expected.past, atol=1e-6)
    np.testing.assert_allclose(found.ahead, expected.ahead, atol=1e-6)


@pytest.mark.parametrize("kind", ["memory", "none"])
def test_no_step_is_said_to_show_frames_after_the_end(kind: str, monkeypatch: pytest.MonkeyPatch):
    """Of 8 frames at a stride of 3 the last step shows two."""
    videos = untold("--aaa---")
    model = Memory() if kind == "memory" else Oracle(videos)
    observed = []
    counting = Observation.frames_observed

    def frames_observed(self: Observation, i: int) -> int:
        observed.append(counting(self, i))
        return observed[-1]

    for name, said in (("said", Memory), ("one", Oracle)):
        own = getattr(said, name)

        def told(self: Any, x: Observation, *rest: Any, own: Any = own) -> Any:
            with monkeypatch.context() as within:
                within.setattr(Observation, "frames_observed", frames_observed)
                return own(self, x, *rest)

        monkeypatch.setattr(said, name, told)
    found = {}
    for way in ("at_once", "streamed"):
        observed.clear()
        answer_online(model, videos, Online(ahead=(), way=way), InferenceConfig(stride=3))
        found[way] = list(observed)
    assert found["at_once"] == [8]
    assert found["streamed"] == ([3, 3, 2] if kind == "memory" else [3, 6, 8])


def test_a_stride_makes_steps_longer_for_delays_and_alarms():
    """Of 24 frames every third is a step, 4 / 3 a second: - a - - b b - -."""
    videos = untold("---aaa------bbbbbb------")
    running = InferenceConfig(stride=3)
    scores = score_online(Oracle(videos, ahead=(), late=3), videos, Online(ahead=()), running)
    for found in (scores.total, scores.videos["v0"]):
        # It says all one step late: b half, a when it is over, which is one alarm in 6 s.
        assert found["onset delay (s)"] == pytest.approx(0.75)
        assert found["mean onset delay (s)"] == pytest.approx(0.75)
        assert found["missed starts"] == 50.0
        assert found["false alarms/h"] == pytest.approx(600.0)


def test_detection_is_scored_when_its_answer_is_there(monkeypatch: pytest.MonkeyPatch):
    ticks = count()
    clock = SimpleNamespace(perf_counter=lambda: 0.3 * next(ticks))
    monkeypatch.setattr(online_running, "time", clock)
    videos = untold("--aaa-----")
    scores = score_online(
        Oracle(videos, ahead=()), videos, Online(ahead=(), way="streamed"), RUNNING
    ).total
    assert scores[LATENCY] == pytest.approx(300.0)
    # 0.3 s are two steps of 0.25 s: of the three steps that say a one is right.
    assert scores["mAP available"] == pytest.approx(100 * (1 / 3 * 1 / 3 + 2 / 3 * 3 / 10))
    assert scores["mAP"] == 100.0
    late = score_online(Oracle(videos, (), late=2), videos, Online(ahead=()), RUNNING).total
    assert scores["cAP available"] == pytest.approx(late["cAP"])


def test_no_answer_depends_on_the_batch():
    videos = untold("---aaaabbb--ccc", "--ccaa", "aa")
    alone = InferenceConfig(batch_size=1)
    for one, other in zip(
        answer_online(Memory(), videos, Online(ahead=NEAR), RUNNING),
        answer_online(Memory(), videos, Online(ahead=NEAR), alone),
        strict=True,
    ):
        np.testing.assert_allclose(one.past, other.past, atol=1e-6)
        np.testing.assert_allclose(one.ahead, other.ahead, atol=1e-6)


# What is refused


class Segmenter(Oracle):
    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})


class Mute(Oracle):
    def one(self, x: Observation) -> Prediction:
        return replace(super().one(x), ahead=None)


def test_a_model_of_other_tasks_is_refused_with_its_tasks():
    videos = untold("--aa")
    with pytest.raises(ValueError, match="Segmenter answers long_term, segmentation, not online"):
        score_online(Segmenter(videos), videos, Online(), RUNNING)


def test_moments_that_a_model_was_not_built_for_are_refused():
    videos = untold("--aa")
    with pytest.raises(ValueError, match=r"built to answer 0.25, 0.5 s ahead, got 0.75, 1 s"):
        score_online(Oracle(videos), videos, Online(ahead=(0.25, 0.75, 1.0)), RUNNING)


def test_some_of_its_moments_may_be_asked():
    videos = untold("--aabb--c")
    scores = score_online(Oracle(videos), videos, Online(ahead=(0.5,)), RUNNING).total
    assert scores["mAP 0.5s"] == scores["mAP ahead"] == 100.0
    assert "mAP 0.25s" not in scores


def test_an_answer_without_its_moments_is_refused():
    videos = untold("--aa")
    with pytest.raises(ValueError, match="got no past or no ahead; mend its predict"):
        score_online(Mute(videos), videos, Online(ahead=NEAR), RUNNING)


@pytest.mark.parametrize("way", ["at_once", "streamed"])
def test_what_looks_ahead_is_refused(way: Any):
    videos = untold("--aa")
    running = InferenceConfig(postprocess="mode", postprocess_size=3)
    with pytest.raises(ValueError, match="must come from the past alone, got offsets or postproc"):
        score_online(Oracle(videos), videos, Online(ahead=NEAR, way=way), running)
    with pytest.raises(ValueError, match="must come from the past alone"):
        next(online_answers(Oracle(videos), videos, NEAR, InferenceConfig(offsets=True)))


def test_scores_of_no_video_are_refused():
    with pytest.raises(ValueError, match="need a video at least"):
        score_online(Oracle([]), [], Online(), RUNNING)


# Selection, results and the command line


def test_a_training_selects_by_the_mean_of_now_and_ahead():
    videos = untold("aaa---a-b")
    config = TrainConfig(select_by="online")
    late = Oracle(videos, late=1)
    total = score_online(late, videos, Online(ahead=NEAR), RUNNING).total
    assert total["mAP"] != total["mAP ahead"]
    assert selection_score(late, videos, config) == pytest.approx(
        (total["mAP"] + (total["mAP 0.25s"] + total["mAP 0.5s"]) / 2) / 2
    )
    told = untold("---aaa--b")
    assert selection_score(Oracle(told), told, config) == 100.0


def loaded(model: Oracle, videos: list[Video]) -> list[Loaded]:
    dataset = Dataset(
        name="kitchen",
        taxonomy=model.taxonomy,
        rate=RATE,
        videos={one.id: one for one in videos},
        splits={"1": Split((), tuple(one.id for one in videos))},
    )
    training = {
        **{"stride": 1, "anchor": "start", "input": "features", "selection": "last", "seed": 0},
        **{"observed_ratios": (1.0,), "horizon_source": "true_length"},
        **{"multiple": 4.0, "seconds": 300.0},
    }
    model.weight = nn.Parameter(torch.zeros(1))
    checkpoint = Checkpoint(model=model, name="oracle", run={"training": training})
    return [Loaded(checkpoint=checkpoint, dataset=dataset, split="1")]


def test_a_result_says_how_it_was_measured():
    videos = untold("---aaabbb--ccc", "--ccaa")
    run = loaded(Oracle(videos), videos)
    assert trained_online(run[0]) == Online(ahead=NEAR)
    result = evaluate_run(run, Online(ahead=NEAR))
    said = result.passport
    assert (said.task, said.ahead, said.way) == ("online", NEAR, "at once")
    assert said.alignment.startswith("target: the label of the moment itself")
    assert said.metric.endswith("occur without -; scores neither smoothed nor switched")
    assert said.trained_on == "every step of what is seen, and 0.25, 0.5 s ahead"
    assert said.horizon_source == ""
    assert result.total["mean"] == result.splits["1"]["mAP"] == 100.0
    assert set(result.videos) == {"v0", "v1"}
    assert result.recordings["mof"] == 100.0


def test_a_shifted_result_does_not_compare_with_an_aligned_one():
    videos = untold("---aaabbb--ccc")
    run = loaded(Oracle(videos), videos)
    results = {
        alignment: evaluate_run(run, Online(ahead=NEAR, alignment=alignment))
        for alignment in ("target", "shifted_by_one")
    }
    with pytest.raises(ValueError, match=r"alignment: target: target: .*; shifted_by_one: shift"):
        require_comparable(results)
    streamed = evaluate_run(run, Online(ahead=NEAR, way="streamed"))
    require_comparable({"once": results["target"], "streamed": streamed})
    assert streamed.passport.way.startswith("streamed, ")
    assert "ms a step (median, cpu, " in streamed.passport.way


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Score an oracle from the command line; exit code."""
    videos = untold("---aaabbb--ccc", "--ccaa")
    run = loaded(Oracle(videos), videos)
    for name, value in (
        ("load_run", lambda *_: run),
        ("about_clips", lambda _: False),
        ("unfinished", lambda _: ""),
    ):
        monkeypatch.setattr(command_line, name, value)
    return lambda *words: command_line.main(["evaluate", str(tmp_path / "run"), *words])


def test_the_command_line_scores_a_model_of_streams(
    evaluated: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert evaluated() == 0
    printed = capsys.readouterr().out
    assert "online: kitchen, 1 split(s), 2 videos" in printed
    assert "compared with target: the label of the moment itself; at once" in printed
    for column in ("mAP ahead", "mof 0.5s", "onset delay (s)", "never foreseen"):
        assert column in printed
    result = read_result(tmp_path / "run" / "results" / "online.json")
    assert result.total["cAP 0.25s"] == 100.0
    assert result.passport.ahead == NEAR


def test_another_measure_gets_a_file_of_its_own(evaluated: Any, tmp_path: Path):
    words = ("--task", "online", "--ahead", "0.5", "--alignment", "shifted_by_one")
    assert evaluated(*words, "--way", "streamed") == 0
    (file,) = (tmp_path / "run" / "results").iterdir()
    assert file.name == "online-ahead-0.5-shifted_by_one-streamed.json"
    assert LATENCY in read_result(file).total


def test_a_task_that_the_model_does_not_answer_is_refused(
    evaluated: Any, capsys: pytest.CaptureFixture[str]
):
    assert evaluated("--task", "long_term", "--way", "streamed") == 2
    assert "--way is an option for models of streams (--task online), got Oracle" in (
        capsys.readouterr().err
    )
    assert evaluated("--task", "segmentation") == 2
    assert "Oracle answers online, not segmentation" in capsys.readouterr().err
