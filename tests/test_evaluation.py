import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from actioncast.data import SyntheticConfig, Video, synthetic_dataset
from actioncast.evaluation import (
    Scores,
    mean_over_splits,
    score_long_term,
    score_segmentation,
    selection_score,
)
from actioncast.features import FeatureArray, LabelFeatures
from actioncast.inference import InferenceConfig, answers
from actioncast.models import MODELS
from actioncast.models.actfusion import ActFusionConfig
from actioncast.models.actionllm_config import ActionLLMConfig
from actioncast.models.base import Anticipator, CountingAnticipator, Losses
from actioncast.models.baselines import NGramConfig, RepeatLastActionConfig
from actioncast.models.diffact import DiffActConfig
from actioncast.models.futr import FUTRConfig
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.models.semi_markov import SemiMarkovConfig
from actioncast.protocols import HorizonSource, LongTerm, Question, Segmentation
from actioncast.scoring import over_recordings
from actioncast.timeline import LabelSpace, Taxonomy, Timeline
from actioncast.training import TrainConfig
from actioncast.trunks.config import TrunkConfig
from actioncast.types import Observation, Prediction, Target, Task

TAXONOMY = Taxonomy.of("abcd")
RUNNING = InferenceConfig()
HALF = LongTerm(observed_ratios=(0.2,), horizon_ratios=(0.5,))


def spelt(spelling: str) -> np.ndarray:
    return np.array(["abcd".index(letter) for letter in spelling], int)


def video(spelling: str, number: int = 0, labels: Any = TAXONOMY.labels) -> Video:
    """A video whose feature vectors are its number and the number of the frame."""
    frames = spelt(spelling)
    features = np.stack([np.full(len(frames), number), np.arange(len(frames))], 1)
    return Video(
        id=f"v{number}",
        timeline=Timeline.from_frames(frames, 10.0, labels),
        rate=10.0,
        num_frames=len(frames),
        features=FeatureArray(features.astype(np.float32)),
    )


def probs(spelling: str) -> torch.Tensor:
    """Certainty of each letter; a dot names no action."""
    rows = [TAXONOMY.labels.index(letter) if letter != "." else -1 for letter in spelling]
    named = torch.tensor(rows, dtype=torch.long)
    return F.one_hot(named.clamp(min=0), 4).float() * (named >= 0)[:, None]


class Stub(Anticipator):
    """Says what it was told to say, by the number of the video and the frames observed.

    A part of an answer may be longer or shorter than asked for.
    """

    tasks = frozenset({Task.SEGMENTATION, Task.LONG_TERM})

    def __init__(
        self,
        futures: Mapping[tuple[int, int], str] = {},
        samples: Mapping[int, list[str]] = {},
        past: Mapping[int, str] = {},
    ) -> None:
        super().__init__()
        self.taxonomy = TAXONOMY
        self.futures, self.samples, self.past = futures, samples, past
        self.batches: list[int] = []

    def losses(self, x: Observation, y: Target) -> Losses:
        raise NotImplementedError

    def predict(self, x: Observation) -> list[Prediction]:
        self.batches.append(len(x))
        return [self.one(single, int(single.features[0, 0, 0])) for single in x]

    def one(self, x: Observation, number: int) -> Prediction:
        samples = None
        if number in self.samples and x.num_samples:
            samples = torch.from_numpy(np.stack([spelt(s) for s in self.samples[number]]))
        past = None
        if number in self.past:
            steps = x.features[0, :, 1].long()
            past = probs("".join(self.past[number][step] for step in steps.tolist()))
        horizon = int(x.horizon[0])
        future = self.futures.get((number, x.frames_observed(0)), "a" * horizon)
        return Prediction(
            taxonomy=TAXONOMY,
            rate=x.rate,
            observed=x.frames_observed(0),
            past=past,
            future=probs(future) if horizon else None,
            samples=samples,
        )


# Mean over classes, worked by hand


def test_frames_are_pooled_over_videos_before_classes_are_averaged():
    """Example of the metrics sheet, section 1."""
    truth = [video("aaaabbbccc", 0), video("bbccccaaaa", 1)]
    model = Stub({(0, 2): "abbba", (1, 2): "ccaaa"})
    # Predicted 0001110222 and 1122000000, frames 2 to 6.
    scores = score_long_term(model, truth, HALF, RUNNING)
    assert scores.total["moc 0.2/0.5"] == pytest.approx(61.111111)
    assert scores.total["mean"] == scores.total["moc 0.2/0.5"]
    assert scores.videos == {
        "v0": {"mof 0.2/0.5": pytest.approx(60.0)},
        "v1": {"mof 0.2/0.5": pytest.approx(60.0)},
    }


SHEET = [video("aaaaaabbbbcccccddddd", 0), video("b" * 8 + "c" * 17 + "d" * 5, 1)]
TOLD = {
    (0, 4): "aaaabbbbbb",
    (0, 6): "aaaabbbbbb",
    (1, 6): "bbccccddddddddd",
    (1, 9): "bbccccddddddddd",
}


def test_the_worked_case_of_the_futr_sheet():
    total = score_long_term(Stub(TOLD), SHEET, LongTerm(), RUNNING).total
    seen = [[total[f"moc {a}/{b}"] for b in (0.1, 0.2, 0.3, 0.5)] for a in (0.2, 0.3)]
    assert seen[0] == pytest.approx([100, 100 * 5 / 6, 100 * (1 + 2 / 3 + 4 / 7) / 3, 63.398693])
    assert seen[1] == pytest.approx([100 / 6, 100 / 3, 100 * 2 / 11, 100 * 0.2 / 3], abs=1e-4)
    assert total["mean"] == pytest.approx(np.mean(seen))


@pytest.mark.parametrize("source", [HorizonSource.OBSERVED_MULTIPLE, HorizonSource.SECONDS])
def test_frames_that_nobody_asked_for_are_wrong(source: HorizonSource):
    """Ten frames of one action: of the five scored two are asked for."""
    protocol = replace(HALF, horizon_source=source, multiple=1.0, seconds=0.2)
    scores = score_long_term(Stub(), [video("aaaaaaaaaa")], protocol, RUNNING)
    assert scores.total["moc 0.2/0.5"] == pytest.approx(40)
    assert scores.videos["v0"]["mof 0.2/0.5"] == pytest.approx(40)


def test_frames_that_a_model_leaves_out_are_wrong():
    scores = score_long_term(Stub({(0, 2): "aaa"}), [video("aaaaaaaaaa")], HALF, RUNNING)
    assert scores.total["moc 0.2/0.5"] == pytest.approx(60)


def test_frames_beyond_those_asked_for_do_not_count():
    scores = score_long_term(Stub({(0, 2): "aaaaabbbbb"}), [video("aaaaaaaaaa")], HALF, RUNNING)
    assert scores.total["moc 0.2/0.5"] == pytest.approx(100)


def test_rows_of_zeros_are_wrong():
    scores = score_long_term(Stub({(0, 2): "aa..a"}), [video("aaaaaaaaaa")], HALF, RUNNING)
    assert scores.total["moc 0.2/0.5"] == pytest.approx(60)


def test_every_cell_has_its_column_and_row():
    scores = score_long_term(Stub(TOLD), SHEET, LongTerm(), RUNNING)
    cells = [f"{a}/{b}" for a in (0.2, 0.3) for b in (0.1, 0.2, 0.3, 0.5)]
    assert list(scores.total) == [*[f"moc {cell}" for cell in cells], "mean"]
    assert list(scores.videos) == ["v0", "v1"]
    assert list(scores.videos["v0"]) == [f"mof {cell}" for cell in cells]


# Sampled futures


def test_sampled_futures_are_averaged_or_the_best_of_each_video_counts():
    truth = [video("aaaaaaaaaa", 0), video("aabbbbbbbb", 1)]
    model = Stub(samples={0: ["aaaaa", "ccccc"], 1: ["ccccc", "bbbbc"]})
    running = InferenceConfig(num_samples=2)
    mean = score_long_term(model, truth, HALF, running, "mean_of_samples")
    assert mean.total["moc 0.2/0.5"] == pytest.approx((50 + 40) / 2)
    assert mean.videos["v1"] == {"mof 0.2/0.5": pytest.approx(40)}
    best = score_long_term(model, truth, HALF, running, "best_of_samples")
    assert best.total["moc 0.2/0.5"] == pytest.approx((100 + 80) / 2)
    assert best.total["mean"] == best.total["moc 0.2/0.5"]
    assert best.videos["v0"] == {"mof 0.2/0.5": pytest.approx(100)}
    assert best.videos["v1"] == {"mof 0.2/0.5": pytest.approx(80)}
    likely = score_long_term(model, truth, HALF, running)
    assert likely.total["moc 0.2/0.5"] == pytest.approx(50)


def test_the_best_sample_is_chosen_for_each_window_by_itself():
    protocol = LongTerm(observed_ratios=(0.2,), horizon_ratios=(0.1, 0.5))
    model = Stub(samples={0: ["acccc", "caaaa"]})
    running = InferenceConfig(num_samples=2)
    best = score_long_term(model, [video("aaaaaaaaaa")], protocol, running, "best_of_samples")
    assert best.total["moc 0.2/0.1"] == pytest.approx(100)
    assert best.total["moc 0.2/0.5"] == pytest.approx(80)


def test_one_best_sample_is_the_sample():
    model = Stub(samples={0: ["abbba"], 1: ["ccaaa"]})
    truth = [video("aaaabbbccc", 0), video("bbccccaaaa", 1)]
    running = InferenceConfig(num_samples=1)
    totals = [
        score_long_term(model, truth, HALF, running, combine).total["moc 0.2/0.5"]
        for combine in ("mean_of_samples", "best_of_samples")
    ]
    assert totals == pytest.approx([61.111111] * 2)


def test_samples_must_be_asked_for():
    with pytest.raises(ValueError, match="combine=mean_of_samples needs num_samples of 1 or more"):
        score_long_term(Stub(), [video("aaaaaaaaaa")], HALF, RUNNING, "mean_of_samples")


def test_a_model_without_samples_says_so():
    running = InferenceConfig(num_samples=2)
    with pytest.raises(ValueError, match="combine=best_of_samples needs a model that samples"):
        score_long_term(Stub(), [video("aaaaaaaaaa")], HALF, running, "best_of_samples")


# Segmentation


def test_segmentation_scores_whole_videos():
    """Rows of the table of the metrics sheet, section 2, with the present convention."""
    model = Stub(past={0: "aaabbabccc", 1: "aaaaaabbbb"})
    scores = score_segmentation(
        model, [video("aaaabbbccc", 0), video("aaaaaaaabb", 1)], Segmentation(), RUNNING
    )
    assert scores.total["mof"] == pytest.approx(80)
    assert scores.total["edit"] == pytest.approx((60 + 100) / 2)
    assert scores.videos["v0"] == {"mof": pytest.approx(80), "edit": pytest.approx(60)}
    # Of 5 predicted and 3 true segments 3, 3 and 2 agree, and 2 of 2 and 2.
    f1 = [100 * 2 * agreeing / (7 + 5) for agreeing in (5, 5, 4)]
    assert [scores.total[f"f1@{o}"] for o in (10, 25, 50)] == pytest.approx(f1)
    assert scores.total["mean"] == pytest.approx(np.mean([80, 80, *f1]))


def test_the_legacy_end_of_the_last_segment_can_be_had():
    truth, model = [video("aaaaaaaabb")], Stub(past={0: "aaaaaabbbb"})
    found = [
        score_segmentation(model, truth, Segmentation(legacy_last_segment=legacy), RUNNING).total
        for legacy in (False, True)
    ]
    assert [total["f1@50"] for total in found] == pytest.approx([100, 50])


def test_background_is_no_segment():
    labels = Taxonomy.of("abcd", background="a")
    model = Stub(past={0: "abbbbaac"})  # as in the table, with other letters
    model.taxonomy = labels
    scores = score_segmentation(
        model, [video("aabbbacc", labels=labels.labels)], Segmentation(), RUNNING
    )
    assert scores.total["edit"] == pytest.approx(100)
    assert scores.total["f1@50"] == pytest.approx(100)


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_a_stride_is_undone_exactly(stride: int):
    """Each step is held until the next; the last until the end."""
    spelling = "aaaabbbccddaaaabbc"
    held = "".join(spelling[i // stride * stride] for i in range(len(spelling)))
    model = Stub(past={0: spelling})
    ((_, answer),) = answers(
        model, [(video(spelling), Question(observed=18))], InferenceConfig(stride=stride)
    )
    assert torch.equal(answer.prediction.past, probs(held))
    scores = score_segmentation(
        model, [video(spelling)], Segmentation(), InferenceConfig(stride=stride)
    )
    assert scores.total["mof"] == pytest.approx(
        100 * np.mean([x == y for x, y in zip(held, spelling, strict=True)])
    )


def test_a_stride_anchored_at_the_end_reads_the_last_frame():
    running = InferenceConfig(stride=3, anchor="end")
    asked = [(video("aabbbccd"), Question(observed=8))]
    ((_, answer),) = answers(Stub(past={0: "aabbbccd"}), asked, running)
    # Steps are frames 1, 4 and 7.
    assert torch.equal(answer.prediction.past, probs("aaaabbbd"))


def test_unnamed_frames_of_the_past_are_wrong():
    model = Stub(past={0: "aa..bb"})
    scores = score_segmentation(model, [video("aaabbb")], Segmentation(), RUNNING)
    assert scores.total["mof"] == pytest.approx(100 * 4 / 6)


# Other levels of a hierarchy

LEVELS = Taxonomy(
    {"activity": LabelSpace(tuple("ab")), "action": LabelSpace(tuple("abcd"), frozenset("d"))},
    "activity",
    levels=("activity", "action"),
)


def two_levels(activities: str, actions: str, number: int = 0) -> Video:
    coarse = video(activities, number, LEVELS.labels)
    return replace(coarse, levels={"action": spelt(actions)})


class TwoLevels(Stub):
    """Says of both levels what it was told, by the number of the video."""

    def __init__(self, past: Mapping[int, str], actions: Mapping[int, str]) -> None:
        super().__init__(past=past)
        self.taxonomy, self.actions = LEVELS, actions

    def one(self, x: Observation, number: int) -> Prediction:
        steps = x.features[0, :, 1].long().tolist()
        said = {"action": probs("".join(self.actions[number][step] for step in steps))}
        answer = super().one(x, number)
        assert answer.past is not None
        return replace(answer, taxonomy=LEVELS, past=answer.past[:, :2], levels=said)


HIERARCHY = [two_levels("aaaaaaaaaa", "aaaabbbccc", 0), two_levels("bbbbbbbbbb", "aaaaaaaabb", 1)]
SAYS = TwoLevels({0: "aaaaaaaabb", 1: "bbbbbbbbbb"}, {0: "aaabbabccc", 1: "aaaaaaaa.b"})


def test_the_other_levels_of_a_hierarchy_are_scored_after_the_mean():
    scores = score_segmentation(SAYS, HIERARCHY, Segmentation(), RUNNING)
    names = ["mof", "edit", "f1@10", "f1@25", "f1@50"]
    of_actions = [f"action {name}" for name in [*names, "distinct"]]
    assert list(scores.total) == [*names, "mean", *of_actions]
    assert scores.total["mof"] == pytest.approx(90)
    assert scores.total["action mof"] == pytest.approx(100 * 17 / 20)
    # Of v0 as in the table; of v1 the unnamed frame is a segment too many.
    assert scores.total["action edit"] == pytest.approx((60 + 100 * 2 / 3) / 2)
    # Of 5 and 3 predicted and 3 and 2 true ones 3, 3 and 2 agree, and 2 of 2 and 2.
    f1 = [100 * 2 * agreeing / (5 + 3 + 3 + 2) for agreeing in (5, 5, 4)]
    assert [scores.total[f"action f1@{o}"] for o in (10, 25, 50)] == pytest.approx(f1)
    assert scores.videos["v1"] == {
        "mof": pytest.approx(100),
        "edit": pytest.approx(100),
        "action mof": pytest.approx(90),
        "action edit": pytest.approx(100 * 2 / 3),
        "action distinct": pytest.approx(100),
    }


def test_other_levels_have_no_say_in_the_scores_of_the_primary_one():
    alone = score_segmentation(Stub(past=SAYS.past), HIERARCHY, Segmentation(), RUNNING)
    both = score_segmentation(SAYS, HIERARCHY, Segmentation(), RUNNING)
    assert {name: both.total[name] for name in alone.total} == dict(alone.total)
    assert len(both.total) > len(alone.total)


def test_a_level_that_has_collapsed_answers_few_distinct_labels():
    collapsed = TwoLevels(SAYS.past, {0: "aaaaaaaaaa", 1: ".........."})
    scores = score_segmentation(collapsed, HIERARCHY, Segmentation(), RUNNING)
    # One of three, and none of two: a frame that is not named names no label.
    assert scores.videos["v0"]["action distinct"] == pytest.approx(100 / 3)
    assert scores.videos["v1"]["action distinct"] == 0
    assert scores.total["action distinct"] == pytest.approx(100 / 6)


def test_background_of_a_level_is_its_own():
    told = TwoLevels({0: "aaaaaaaa"}, {0: "aadddbbc"})
    truth = [two_levels("aaaaaaaa", "aabbdddc")]
    assert score_segmentation(told, truth, Segmentation(), RUNNING).total["action edit"] == 100


def test_videos_too_short_for_a_share_are_refused_or_left_out_of_it():
    # A fifth of the second video is less than a frame.
    truth = [video("aaaabbbbbbbb", 0), video("abbb", 1)]
    model = Stub({(0, 2): "aabbbb", (0, 6): "bbbbbb", (1, 2): "aa"})
    asked = LongTerm(observed_ratios=(0.2, 0.5), horizon_ratios=(0.5,))
    with pytest.raises(ValueError, match=r"share of 0\.2 leaves no frame .*--too-short leave_out"):
        score_long_term(model, truth, asked, RUNNING)
    found = score_long_term(model, truth, replace(asked, too_short="leave_out"), RUNNING)
    alone = score_long_term(model, truth[:1], asked, RUNNING)
    assert found.total["moc 0.2/0.5"] == alone.total["moc 0.2/0.5"] == 100
    # Of the share that leaves a frame both count: the second video's is named wrongly.
    assert found.total["moc 0.5/0.5"] == 75
    assert list(found.videos["v1"]) == ["mof 0.5/0.5"]


def test_levels_come_back_to_the_grid_of_the_video():
    running = InferenceConfig(stride=3)
    total = score_segmentation(SAYS, HIERARCHY, Segmentation(), running).total
    # Frames 0, 3, 6 and 9 are held: aaabbbbbbc and aaaaaaaaab.
    assert total["action mof"] == pytest.approx(100 * (7 + 9) / 20)


@pytest.mark.parametrize(
    "running",
    [
        InferenceConfig(postprocess="purge", postprocess_size=1),
        InferenceConfig(stride=2, postprocess="median", postprocess_size=3),
        InferenceConfig(stride=2, offsets=True),
        InferenceConfig(stride=3, offsets=True, postprocess="mode", postprocess_size=3),
    ],
)
def test_levels_are_finished_as_the_primary_one_is(running: InferenceConfig):
    says, truth = "aabaabbbbabb", "aaaaabbaabbb"
    told = TwoLevels({0: says}, {0: says})
    total = score_segmentation(told, [two_levels(truth, truth)], Segmentation(), running).total
    for score in ("mof", "edit", "f1@10"):
        assert total[f"action {score}"] == total[score]
    assert total["mof"] < 100


def test_a_level_that_videos_are_not_labelled_at_is_not_scored():
    truth = [replace(one, levels={}) for one in HIERARCHY]
    total = score_segmentation(SAYS, truth, Segmentation(), RUNNING).total
    assert not [name for name in total if name.startswith("action")]


# Running a model


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_order_and_batch_size_do_not_matter(batch_size: int):
    rng = np.random.default_rng(3)
    spellings = ["".join(rng.choice(list("abcd"), size=n)) for n in (30, 11, 23, 40, 12)]
    truth = [video(s, i) for i, s in enumerate(spellings)]
    futures = {
        (i, int(a * len(s))): "".join(rng.choice(list("abcd"), size=len(s) // 2))
        for i, s in enumerate(spellings)
        for a in (0.2, 0.3)
    }
    model = Stub(futures, past={i: s[::-1] for i, s in enumerate(spellings)})
    first = score_long_term(model, truth, LongTerm(), InferenceConfig(batch_size=5))
    running = InferenceConfig(batch_size=batch_size)
    model.batches.clear()
    other = score_long_term(model, truth[::-1], LongTerm(), running)
    assert other.total == pytest.approx(first.total)
    assert dict(other.videos) == dict(first.videos)
    assert list(other.videos) == [f"v{i}" for i in (4, 3, 2, 1, 0)]
    assert sum(model.batches) == 10
    assert max(model.batches) == min(batch_size, 7)
    whole = [
        score_segmentation(model, videos, Segmentation(), running)
        for videos in (truth, truth[::-1])
    ]
    assert whole[0].total == pytest.approx(whole[1].total)
    assert dict(whole[0].videos) == dict(whole[1].videos)


def test_every_answer_carries_its_question():
    videos = [video("aaaaaaaaaa", 0), video("bbbb", 1)]
    asked = [(v, Question(observed=n, horizon=2)) for v, n in zip(videos, (9, 3), strict=True)]
    found = dict(answers(Stub(), asked, RUNNING))
    assert {i: answer.video.id for i, answer in found.items()} == {0: "v0", 1: "v1"}
    assert [found[i].question.observed for i in (0, 1)] == [9, 3]


@pytest.mark.parametrize("name", ["stride", "batch_size", "num_samples"])
def test_impossible_ways_to_run_are_refused(name: str):
    with pytest.raises(ValueError, match="stride and batch_size must be at least 1 and num_sam"):
        InferenceConfig(**{name: -1})


def test_a_model_answers_its_tasks_alone():
    model = RepeatLastActionConfig().build(TAXONOMY)
    with pytest.raises(ValueError, match=r"RepeatLastAction answers .*, not segmentation\."):
        score_segmentation(model, [video("aab")], Segmentation(), RUNNING)
    deaf = Stub()
    deaf.tasks = frozenset({Task.SEGMENTATION})  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"Stub answers segmentation, not long_term\."):
        score_long_term(deaf, [video("aab")], LongTerm(), RUNNING)


# Means and splits


def test_a_total_is_the_unweighted_mean_of_the_splits():
    scores = {
        "1": Scores(total={"mof": 10.0, "mean": 2.0}, videos={"a": {}}),
        "2": Scores(total={"mof": 40.0, "mean": 3.0}, videos={}),
    }
    assert mean_over_splits(scores) == {"mof": 25.0, "mean": 2.5}


def test_an_unknown_split_is_an_error():
    dataset = synthetic_dataset(SyntheticConfig(num_videos=12))
    assert dataset.split("4") is dataset.splits["4"]
    with pytest.raises(ValueError, match="split must be one of 1, 2, 3, 4, got '5'"):
        dataset.split("5")


def test_selection_uses_the_score_that_was_asked_for():
    model = Stub(TOLD, past={0: "a" * 20, 1: "b" * 30})
    long_term = score_long_term(model, SHEET, LongTerm(), RUNNING).total["mean"]
    assert selection_score(model, SHEET, TrainConfig()) == pytest.approx(long_term)
    segmentation = selection_score(model, SHEET, TrainConfig(select_by="segmentation"))
    assert segmentation == pytest.approx(100 * (6 + 8) / 50)
    both = selection_score(model, SHEET, TrainConfig(select_by="both"))
    averages = score_segmentation(model, SHEET, Segmentation(), RUNNING).total["mean"]
    assert both == pytest.approx((averages + long_term) / 2)


def test_the_selection_score_is_that_of_the_finished_answer():
    """One odd frame in a hundred, which a purge takes out."""
    told = "a" * 50 + "b" + "a" * 49
    model = Stub({}, past={0: told})
    one = [video("a" * 100)]
    plain, finished = (
        selection_score(model, one, TrainConfig(select_by="segmentation", **values))
        for values in ({}, {"postprocess": "purge", "postprocess_size": 1})
    )
    assert (plain, finished) == (99, 100)
    offsets = TrainConfig(select_by="segmentation", stride=5, offsets=True)
    assert selection_score(model, one, offsets) == pytest.approx(100)
    assert model.batches[-1] == 5


# Nothing after the boundary, and no length that is not told, reaches an answer

DATASET = synthetic_dataset(SyntheticConfig(num_videos=16, num_people=8))
VIDEOS = list(DATASET.videos.values())
NUM_LABELS = len(DATASET.taxonomy.labels)
DENOISER: dict[str, Any] = {
    "feature_dim": NUM_LABELS,
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
        feature_dim=NUM_LABELS,
        hidden_dim=16,
        num_queries=4,
        num_heads=2,
        max_positions=1000,
        end_takes_time=True,
    ),
    "semi-markov": SemiMarkovConfig(num_rollouts=30, contexts=(2,), balances=(0.5,)),
    "n-gram": NGramConfig(context=2),
    "mm-ant": MMAntConfig(
        feature_dim=NUM_LABELS,
        hidden_dim=16,
        num_queries=4,
        num_heads=2,
        max_positions=1000,
        encoder="hash:8",
        end_takes_time=True,
    ),
    "actionllm": ActionLLMConfig(
        trunk=TrunkConfig(name="untrained:llama-tiny"),
        feature_dim=NUM_LABELS,
        adapter_dim=8,
        num_queries=4,
        interaction_dim=8,
        interaction_heads=2,
        interaction_multiple=8,
        end_takes_time=True,
    ),
}


def tiny(name: str) -> Anticipator:
    torch.manual_seed(1)
    model = TINY.get(name, MODELS[name]()).build(DATASET.taxonomy)
    if isinstance(model, CountingAnticipator):
        model.fit([one.counted() for one in VIDEOS])
    return model


def labelled(frames: np.ndarray, rate: float = 5.0) -> Video:
    return Video(
        id="asked",
        timeline=Timeline.from_frames(frames, rate, DATASET.taxonomy.labels),
        rate=rate,
        num_frames=len(frames),
        features=LabelFeatures(frames, NUM_LABELS),
        observed_labels=frames,
    )


def spoilt(one: Video, boundary: int, num_frames: int, seed: int) -> Video:
    """Another video with the same first frames."""
    rng = np.random.default_rng(seed)
    later = rng.integers(NUM_LABELS, size=num_frames - boundary)
    return labelled(np.append(one.frames()[:boundary], later))


def answer(model: Anticipator, one: Video, question: Question, stride: int) -> Prediction:
    running = InferenceConfig(stride=stride, num_samples=3)
    ((_, found),) = answers(model, [(one, question)], running)
    return found.prediction


def agree(one: Prediction, other: Prediction) -> bool:
    pairs = [(one.past, other.past), (one.future, other.future), (one.samples, other.samples)]
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


LOOKING_AHEAD = [name for name in MODELS if Task.LONG_TERM in tiny(name).tasks]


@pytest.mark.parametrize("source", [HorizonSource.OBSERVED_MULTIPLE, HorizonSource.SECONDS])
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("name", LOOKING_AHEAD)
def test_the_future_and_the_length_change_no_answer(name: str, stride: int, source: HorizonSource):
    model = tiny(name)
    protocol = LongTerm(horizon_source=source, seconds=12.0)
    one = labelled(np.resize(VIDEOS[2].frames(), 200))
    asked = protocol.question(200, 0.3, one.rate)
    first = answer(model, one, asked, stride)
    assert len(first.future) == asked.horizon
    for num_frames, ratio in ((200, 0.3), (120, 0.5), (600, 0.1), (61, 60.5 / 61)):
        same = replace(protocol, observed_ratios=(0.1,), horizon_ratios=(0.001,))
        question = same.question(num_frames, ratio, one.rate)
        assert question == asked
        other = spoilt(one, 60, num_frames, seed=num_frames)
        assert agree(answer(model, other, question, stride), first)


@pytest.mark.parametrize("name", LOOKING_AHEAD)
def test_the_leak_guard_would_see_a_leak(name: str):
    """What is before the boundary does change answers, and so does a length that is told."""
    model = tiny(name)
    one = labelled(np.resize(VIDEOS[2].frames(), 200))
    question = Question(observed=60, horizon=100)
    frames = one.frames()
    frames[20:60] = (frames[20:60] + 1) % NUM_LABELS
    changed = labelled(frames)
    assert not agree(answer(model, changed, question, 1), answer(model, one, question, 1))
    if name in ("semi-markov", "n-gram"):
        told = [
            answer(model, one, replace(question, video_length=length), 1) for length in (200, 900)
        ]
        assert not agree(*told)


def test_a_score_that_is_no_number_stays_one():
    """A window without a frame has no accuracy."""
    protocol = LongTerm(observed_ratios=(0.2,), horizon_ratios=(0.1, 0.5))
    scores = score_long_term(Stub({(0, 1): "aa"}), [video("aaaaa")], protocol, RUNNING)
    assert math.isnan(scores.videos["v0"]["mof 0.2/0.1"])
    assert scores.videos["v0"]["mof 0.2/0.5"] == pytest.approx(100)


def test_a_video_without_a_score_takes_none_from_the_others():
    """A video too short for a share has no score of it, wherever it stands."""
    short, long = ("b", {"mof 0.5": 3.0}), ("a", {"mof 0.1": 1.0, "mof 0.5": 2.0})
    for rows in ([short, long], [long, short]):
        found = over_recordings(rows)
        assert (found["mof 0.1"], found["mof 0.5"], found["recordings"]) == (1.0, 2.5, 2)
        assert "mof 0.1 +-" not in found
