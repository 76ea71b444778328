import json
import math
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actioncast.data.collate import cut
from actioncast.protocols import PROTOCOLS, HorizonSource, LongTerm, Question, Segmentation
from actioncast.protocols.long_term import (
    cut_then_stride,
    future_frames,
    observed_frames,
    pad_queries,
    rounded_observation,
    stride_then_cut,
    transcript,
)
from actioncast.timeline import run_lengths
from goldens import ROOT
from real_data import real_dataset

FOLDER = ROOT / "protocol"


@cache
def golden(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def golden_files() -> list[Any]:
    """Every golden file; without the folder one that skips, or an error in CI."""
    if not FOLDER.is_dir():
        if os.environ.get("CI") == "true":
            raise FileNotFoundError(f"CI must have protocol goldens in {FOLDER}, got no folder.")
        why = pytest.mark.skip(reason=f"no protocol goldens in {FOLDER}; set ACTIONCAST_GOLDEN")
        return [pytest.param(FOLDER, id="absent", marks=why)]
    files = sorted(FOLDER.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{FOLDER} must hold protocol goldens, got an empty folder.")
    return [pytest.param(file, id=file.stem) for file in files]


def golden_videos(part: str = "windows") -> list[Any]:
    """Every video of every golden file that has this part."""
    found: list[Any] = []
    for case in golden_files():
        (file,) = case.values
        if case.marks:
            found.append(pytest.param(file, 0, id=case.id, marks=case.marks))
            continue
        videos = golden(file)["videos"]
        if not videos:
            raise ValueError(f"{file} must hold videos, got none.")
        found += [
            pytest.param(file, i, id=f"{file.stem}-{video['video']}")
            for i, video in enumerate(videos)
            if part in video
        ]
    return found


every_video = pytest.mark.parametrize(("file", "index"), golden_videos())


def frames_of(file: Path, index: int) -> tuple[dict[str, Any], np.ndarray]:
    """A golden video and its labels, from the real label file through our loader."""
    whole = golden(file)
    video = whole["videos"][index]
    dataset = real_dataset(whole["dataset"])
    assert dataset.taxonomy.labels.names == tuple(
        sorted(whole["mapping"], key=whole["mapping"].__getitem__)
    )
    frames = dataset.videos[video["video"]].frames()
    assert len(frames) == video["T"]
    return video, frames


def rle(frames: np.ndarray) -> list[list[int]]:
    return [[label, end - first] for label, first, end in run_lengths(frames)]


def as_queries(
    labels: tuple[int, ...], shares: tuple[float, ...], about: dict[str, Any]
) -> tuple[list[float], list[float]]:
    """Targets and durations as the official sets write them: NONE, then pad."""
    padding = float(about["pad"])
    return (
        pad_queries([*labels, about["NONE"]], about["n_query"], padding),
        pad_queries([*shares, padding], about["n_query"], padding),
    )


@every_video
def test_scored_windows_are_those_of_the_official_evaluation(file: Path, index: int):
    video, frames = frames_of(file, index)
    protocol = LongTerm()
    assert video["windows"]
    for alpha, windows in video["windows"].items():
        assert windows
        for beta, window in windows.items():
            assert list(protocol.window(len(frames), float(alpha), float(beta))) == window


@every_video
def test_futr_items_are_those_of_the_official_training_set(file: Path, index: int):
    about = golden(file)["futr"]
    video, frames = frames_of(file, index)
    assert video["futr"]
    for alpha, item in video["futr"].items():
        pieces = cut_then_stride(len(frames), float(alpha), about["sample_rate"])
        seen = item["observed_frames"]
        assert [pieces.past.start, pieces.past.step, len(pieces.past)] == [
            seen["first"],
            seen["stride"],
            seen["count"],
        ]
        assert rle(frames[pieces.past]) == item["past_labels_rle"]
        told = transcript(frames[pieces.future])
        labels, durations = as_queries(told.labels, told.shares, about)
        assert labels == item["target"]
        assert durations == item["durations"]


@every_video
def test_training_samples_are_the_official_futr_items(file: Path, index: int):
    whole = golden(file)
    about = whole["futr"]
    video, _ = frames_of(file, index)
    dataset = labelled(whole["dataset"])
    annotated = dataset.videos[video["video"]]
    for alpha, item in video["futr"].items():
        question = LongTerm().question(annotated.num_frames, float(alpha), annotated.rate)
        sample = cut(annotated, question, about["sample_rate"], about["NONE"])
        assert len(sample.features) == item["observed_frames"]["count"]
        assert rle(sample.features.argmax(1)) == item["past_labels_rle"]
        assert rle(sample.frames) == item["past_labels_rle"]
        assert sample.future[-1] == about["NONE"]
        assert math.isnan(sample.durations[-1])
        labels, durations = as_queries(sample.future[:-1], sample.durations[:-1], about)
        assert labels == item["target"]
        assert durations == item["durations"]


@cache
def labelled(name: str) -> Any:
    from actioncast.data import LabelInput

    return real_dataset(name).with_label_input(LabelInput())


@pytest.mark.parametrize(("file", "index"), golden_videos("actionllm"))
def test_actionllm_items_are_those_of_the_official_set(file: Path, index: int):
    about = golden(file)["actionllm"]
    video, frames = frames_of(file, index)
    for case, item in video["actionllm"].items():
        alpha, start = case.split(",")
        pieces = stride_then_cut(len(frames), float(alpha), about["sample_rate"], int(start))
        seen = item["observed_frames"]
        assert [pieces.past.start, pieces.past.step, len(pieces.past)] == [
            seen["first"],
            seen["stride"],
            seen["count"],
        ]
        assert rle(frames[pieces.past]) == item["past_labels_rle"]
        told = transcript(frames[pieces.future])
        labels, durations = as_queries(told.labels, told.shares, about)
        assert labels == item["target"]
        assert durations == item["durations"]


@every_video
def test_the_released_actfusion_test_sees_these_frames(file: Path, index: int):
    stride = golden(file)["actfusion"]["sample_rate"]
    video, frames = frames_of(file, index)
    for alpha, item in video["actfusion_observation"].items():
        shown = [rounded_observation(len(frames), float(alpha), stride, o) for o in range(stride)]
        assert {len(steps) for steps in shown} == {item["obs_len"]}
        seen = sorted(frame for steps in shown for frame in steps)
        assert seen == list(range(*item["visible_raw_frames"]))
        boundary = observed_frames(len(frames), float(alpha))
        assert max(0, len(seen) - boundary) == item["frames_beyond_evaluation_start"]


@every_video
def test_a_rounded_question_shows_those_frames_and_asks_from_the_boundary(file: Path, index: int):
    stride = golden(file)["actfusion"]["sample_rate"]
    whole = golden(file)
    video = labelled(whole["dataset"]).videos[whole["videos"][index]["video"]]
    exact, rounded = LongTerm(), LongTerm(rounded_to_steps=True)
    for alpha, item in whole["videos"][index]["actfusion_observation"].items():
        question = rounded.question(video.num_frames, float(alpha), video.rate)
        assert replace(question, step_ratio=None) == exact.question(
            video.num_frames, float(alpha), video.rate
        )
        last = cut(video, question, stride, 0, first=stride - 1)
        assert len(last.features) == item["obs_len"]
        assert len(last.video_frames) == max(item["visible_raw_frames"][1], question.observed)


@given(st.integers(1, 400), st.sampled_from([0.2, 0.3, 0.5]), st.integers(1, 9))
def test_rounding_shows_less_than_a_stride_beyond_the_boundary(
    num_frames: int, alpha: float, stride: int
):
    shown = [rounded_observation(num_frames, alpha, stride, o) for o in range(stride)]
    last = max(steps[-1] for steps in shown if steps)
    assert all(steps.start == o for o, steps in enumerate(shown))
    assert last < num_frames
    assert last < max(observed_frames(num_frames, alpha), 1) + stride + 1


def test_only_the_true_length_can_be_rounded_to_steps():
    with pytest.raises(ValueError, match=r"needs horizon source true_length.*observed_multiple"):
        LongTerm(rounded_to_steps=True, horizon_source=HorizonSource.OBSERVED_MULTIPLE)


@pytest.mark.parametrize("file", golden_files())
def test_no_split_loses_a_video(file: Path):
    whole = golden(file)
    splits = real_dataset(whole["dataset"]).splits
    found = {
        f"{part}.split{name}.bundle": len(getattr(split, part))
        for name, split in splits.items()
        for part in ("train", "test")
    }
    assert found == whole["bundle_sizes"]


# Worked by hand: the FUTR sheet, section 10, case 1

CASE = np.repeat([0, 1, 2, 1, 3], [5, 6, 4, 5, 3])


@pytest.mark.parametrize(
    ("alpha", "past", "targets", "durations"),
    [
        (0.2, [0, 0], [0, 1, 2, 4, 6, 6], [0.25, 0.5, 0.25, 6, 6, 6]),
        (0.3, [0, 0], [1, 2, 1, 4, 6, 6], [0.5, 0.25, 0.25, 6, 6, 6]),
        (0.5, [0, 0, 1, 1], [2, 1, 3, 4, 6, 6], [0.5, 0.25, 0.25, 6, 6, 6]),
    ],
)
def test_worked_case_of_futr_targets(alpha, past, targets, durations):
    pieces = cut_then_stride(len(CASE), alpha, 3)
    assert CASE[pieces.past].tolist() == past
    told = transcript(CASE[pieces.future])
    about = {"NONE": 4, "pad": 6, "n_query": 6}
    assert as_queries(told.labels, told.shares, about) == (targets, durations)


def test_a_transcript_too_long_for_the_queries_loses_its_end():
    told = transcript(CASE[cut_then_stride(len(CASE), 0.2, 3).future])
    about = {"NONE": 4, "pad": 6, "n_query": 3}
    assert as_queries(told.labels, told.shares, about) == ([0, 1, 2], [0.25, 0.5, 0.25])


# Questions


@pytest.mark.parametrize(("num_frames", "end"), [(90, 62), (170, 118), (180, 125), (100, 70)])
def test_windows_end_where_float_products_say(num_frames: int, end: int):
    protocol = LongTerm(horizon_source=HorizonSource.SECONDS)
    assert protocol.window(num_frames, 0.2, 0.5) == (num_frames // 5, end)


def test_a_window_of_the_true_length_ends_with_the_frames_asked_for():
    """Two truncated products can be one frame less than the truncated sum."""
    shorter = [t for t in range(5, 300) if LongTerm().window(t, 0.3, 0.5)[1] < int(0.8 * t)]
    assert shorter
    for t in shorter:
        question = LongTerm().question(t, 0.3, 15.0)
        assert LongTerm().window(t, 0.3, 0.5)[1] == question.observed + question.horizon
        elsewhere = LongTerm(horizon_source=HorizonSource.OBSERVED_MULTIPLE)
        assert elsewhere.window(t, 0.3, 0.5)[1] == int(0.8 * t)


@settings(deadline=None)
@given(
    num_frames=st.integers(1, 20_000),
    alpha=st.sampled_from([0.2, 0.3]),
    beta=st.sampled_from([0.1, 0.2, 0.3, 0.5]),
    source=st.sampled_from(list(HorizonSource)),
)
def test_windows_lie_in_the_video_after_what_was_seen(num_frames, alpha, beta, source):
    protocol = LongTerm(horizon_source=source)
    start, end = protocol.window(num_frames, alpha, beta)
    question = protocol.question(num_frames, alpha, 15.0)
    assert question.observed == start <= max(start, end) <= num_frames
    assert abs((end - start) - beta * num_frames) <= 1 + 1e-6


def test_only_the_true_length_is_told():
    known = LongTerm().question(100, 0.2, 10.0)
    assert known == Question(observed=20, horizon=50, video_length=100)
    multiple = LongTerm(horizon_source=HorizonSource.OBSERVED_MULTIPLE, multiple=2.5)
    assert multiple.question(100, 0.3, 10.0) == Question(observed=30, horizon=75)
    seconds = LongTerm(horizon_source=HorizonSource.SECONDS, seconds=7.0)
    assert seconds.question(100, 0.3, 10.0) == Question(observed=30, horizon=70)


def test_one_question_for_each_observed_share():
    asked = LongTerm(observed_ratios=(0.1, 0.25)).questions(100, 10.0)
    assert [question.observed for question in asked] == [10, 25]
    assert Segmentation().questions(100, 10.0) == [Question(observed=100)]
    assert set(PROTOCOLS) == {"segmentation", "long_term", "online"}


@settings(deadline=None)
@given(st.integers(1, 50_000), st.sampled_from([0.1, 0.2, 0.3, 0.5]))
def test_counts_truncate(num_frames: int, ratio: float):
    assert 0 <= ratio * num_frames - future_frames(num_frames, ratio) < 1
    assert observed_frames(num_frames, ratio) == future_frames(num_frames, ratio)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"observed_ratios": ()}, r"observed_ratios must be shares within \(0, 1\], got \(\)"),
        ({"horizon_ratios": (0.0,)}, r"horizon_ratios must be shares within .* got \(0.0,\)"),
        ({"observed_ratios": (1.0,)}, "must fit into the video together, got .1.0,."),
        ({"observed_ratios": (0.6,)}, "must fit into the video together, got .0.6,."),
        ({"multiple": 0.0}, "must be positive numbers, got 0.0 and 300.0"),
        ({"seconds": math.nan}, "must be positive numbers, got 4.0 and nan"),
        ({"seconds": math.inf}, "must be positive numbers, got 4.0 and inf"),
    ],
)
def test_impossible_questions_are_refused(fields, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        LongTerm(**fields)


def test_halves_of_a_video_fit_together():
    assert LongTerm(observed_ratios=(0.5,)).window(10, 0.5, 0.5) == (5, 10)
    LongTerm(observed_ratios=(0.7,), horizon_ratios=(0.1, 0.2, 0.3))


# Transcripts


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_shares_of_a_transcript_sum_to_one(labels: list[int]):
    told = transcript(np.array(labels))
    assert sum(told.shares) == pytest.approx(1, abs=1e-5)
    assert told.after_end == 0
    assert all(a != b for a, b in zip(told.labels, told.labels[1:], strict=False))


def test_what_is_asked_beyond_the_end_is_told():
    told = transcript(np.array([1, 1, 2]), asked=12)
    assert told.labels == (1, 2)
    assert told.shares == pytest.approx((2 / 12, 1 / 12))
    assert told.after_end == pytest.approx(0.75)


def test_a_future_that_does_not_exist_is_all_after_the_end():
    told = transcript(np.array([], int), asked=5)
    assert (told.labels, told.shares, told.after_end) == ((), (), 1.0)
