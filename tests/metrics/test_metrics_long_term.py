import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics_reference as reference
from actioncast.metrics import (
    future_window,
    long_term_scores,
    moc,
    moc_counts,
)
from metrics_reference import digits, number

EXACT = {"rel": 0, "abs": 1e-9}


@pytest.mark.parametrize("case", reference.golden_cases("future_prediction", "gt"), indirect=True)
def test_official_counters_and_moc_are_reproduced(case):
    truth = [np.array(labels) for labels in case["gt"]]
    num_labels = case["num_classes"]
    for alpha, by_beta in case["result"].items():
        futures = [np.array(labels, dtype=int) for labels in case["future_prediction"][alpha]]
        betas = tuple(map(float, by_beta))
        cells = long_term_scores(
            {float(alpha): futures}, truth, num_labels, horizon_ratios=betas, missing="skip"
        )
        assert len(cells) == len(betas) > 0
        for cell, (beta, official) in zip(cells, by_beta.items(), strict=True):
            assert (cell.observed_ratio, cell.horizon_ratio) == (float(alpha), float(beta))
            assert cell.correct.tolist() == official["correct"]
            assert (cell.total - cell.correct).tolist() == official["incorrect"]
            assert np.count_nonzero(cell.total) == official["classes_counted"]
            assert cell.moc == pytest.approx(100 * number(official["MoC"]), nan_ok=True, **EXACT)
            for labels, future, (start, end) in zip(
                truth, futures, official["frames_evaluated"], strict=True
            ):
                first, last = future_window(len(labels), float(alpha), float(beta))
                assert [first, min(last, first + len(future))] == [start, end]


def test_worked_example_of_moc():
    truth = [digits("0000111222"), digits("1122220000")]
    predicted = [digits("0001110222"), digits("1122000000")]
    (cell,) = long_term_scores(
        {0.2: [labels[2:] for labels in predicted]}, truth, 3, horizon_ratios=(0.5,)
    )
    assert cell.correct.tolist() == [2, 2, 2]
    assert (cell.total - cell.correct).tolist() == [1, 1, 2]
    assert cell.moc == pytest.approx(100 * (2 / 3 + 2 / 3 + 1 / 2) / 3)
    assert cell.moc == pytest.approx(61.1111111111)


@pytest.mark.parametrize(("num_frames", "end"), [(90, 62), (170, 118), (180, 125), (100, 70)])
def test_windows_end_where_float_products_end(num_frames, end):
    assert future_window(num_frames, 0.2, 0.5) == (num_frames // 5, end)
    (cell,) = long_term_scores(
        {0.2: [np.zeros(num_frames, dtype=int)]},
        [np.zeros(num_frames, dtype=int)],
        1,
        horizon_ratios=(0.5,),
    )
    assert cell.total.tolist() == [end - num_frames // 5]


def test_only_this_cell_departs_from_exact_arithmetic_289_times():
    exact = {0.1: 3, 0.2: 4, 0.3: 5, 0.5: 7}
    departures = {
        beta: sum(future_window(n, 0.2, beta)[1] != tenths * n // 10 for n in range(1, 20001))
        for beta, tenths in exact.items()
    }
    assert departures == {0.1: 0, 0.2: 0, 0.3: 0, 0.5: 289}


def test_frames_that_a_prediction_lacks_are_wrong_or_skipped():
    truth, future = [digits("0011111111")], {0.2: [digits("11")]}
    wrong, skipped = (
        long_term_scores(future, truth, 2, horizon_ratios=(0.1, 0.5), missing=missing)
        for missing in ("wrong", "skip")
    )
    assert [cell.total.tolist() for cell in wrong] == [[0, 1], [0, 5]]
    assert [cell.correct.tolist() for cell in wrong] == [[0, 1], [0, 2]]
    assert [cell.total.tolist() for cell in skipped] == [[0, 1], [0, 2]]
    assert [cell.moc for cell in skipped] == [100.0, 100.0]


def test_missing_frames_are_wrong_by_default():
    nothing = {0.3: [np.zeros(0, dtype=int)]}
    cells = long_term_scores(nothing, [digits("0000000000")], 1)
    assert [cell.moc for cell in cells] == [0.0] * 4
    assert [cell.total.tolist() for cell in cells] == [[1], [2], [3], [5]]


def test_horizons_come_in_the_order_asked_for():
    truth = [digits("0011100110")]
    cells = long_term_scores({0.2: [truth[0][2:]]}, truth, 2, horizon_ratios=(0.5, 0.1, 0.3, 0.1))
    assert [cell.horizon_ratio for cell in cells] == [0.5, 0.1, 0.3, 0.1]
    assert [int(cell.total.sum()) for cell in cells] == [5, 1, 3, 1]


def test_no_frame_at_all_has_no_moc():
    (cell,) = long_term_scores({0.2: [digits("1")]}, [digits("1")], 2, horizon_ratios=(0.1,))
    assert np.isnan(cell.moc)


def test_moc_counts_of_one_window():
    correct, total = moc_counts(np.array([0, -1, 9, 1]), digits("0011"), 3)
    assert correct.tolist() == [1, 1, 0]
    assert total.tolist() == [2, 2, 0]
    assert moc(correct, total) == 50.0


@st.composite
def futures(draw, num_labels=4):
    """Videos from one frame on, and futures too short, too long, empty, outside the vocabulary."""
    truth, predicted = [], []
    for _ in range(draw(st.integers(1, 5))):
        num_frames = draw(st.integers(1, 60))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        segments = rng.integers(0, num_labels, 6)
        truth.append(segments[np.sort(rng.integers(0, 6, num_frames))])
        predicted.append(rng.integers(-1, num_labels + 1, draw(st.integers(0, 70))))
    return predicted, truth


@settings(max_examples=150, deadline=None)
@given(futures(), st.sampled_from(["wrong", "skip"]), st.floats(0.05, 0.5))
def test_long_term_scores_equal_the_literal_definition(videos, missing, odd_ratio):
    predicted, truth = videos
    lists = [labels.tolist() for labels in predicted], [labels.tolist() for labels in truth]
    ratios = (0.1, 0.2, odd_ratio, 0.3, 0.5)
    asked = dict.fromkeys((0.2, 0.3, odd_ratio), predicted)
    cells = long_term_scores(asked, truth, 4, horizon_ratios=ratios, missing=missing)
    for cell, (alpha, beta) in zip(cells, ((a, b) for a in asked for b in ratios), strict=True):
        correct, total = reference.moc_counts(*lists, 4, alpha, beta, missing=missing)
        assert cell.correct.tolist() == correct
        assert cell.total.tolist() == total
        assert cell.moc == pytest.approx(reference.moc(correct, total), nan_ok=True, **EXACT)


@settings(max_examples=50, deadline=None)
@given(futures(), st.randoms(use_true_random=False), st.permutations(range(4)))
def test_moc_ignores_the_order_of_videos_and_the_names_of_labels(videos, random, names):
    predicted, truth = videos
    order = random.sample(range(len(truth)), len(truth))
    names = np.array([*names, 4, -1])
    before = long_term_scores({0.3: predicted}, truth, 4)
    after = long_term_scores(
        {0.3: [names[predicted[v]] for v in order]}, [names[truth[v]] for v in order], 4
    )
    for first, second in zip(before, after, strict=True):
        assert first.moc == pytest.approx(second.moc, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(futures(), st.integers(0, 3))
def test_truth_scores_100_and_a_constant_one_class_of_all(videos, label):
    _, truth = videos
    perfect = {0.2: [labels[int(0.2 * len(labels)) :] for labels in truth]}
    constant = {0.2: [np.full(len(labels), label) for labels in truth]}
    for right, same in zip(
        long_term_scores(perfect, truth, 4), long_term_scores(constant, truth, 4), strict=True
    ):
        num_present = np.count_nonzero(right.total)
        if num_present:
            assert right.moc == 100.0
            expected = 100.0 / num_present if same.total[label] else 0.0
            assert same.moc == pytest.approx(expected)


def test_wrong_long_term_input_is_refused_in_a_sentence():
    video = digits("0011")
    with pytest.raises(ValueError, match=r"predicted\[0.2\] must hold the 2 videos .* got 1"):
        long_term_scores({0.2: [video]}, [video, video], 2)
    with pytest.raises(ValueError, match="at least one video"):
        long_term_scores({0.2: []}, [], 2)
    with pytest.raises(ValueError, match=r"sum to at most 1, got 0\.6 and 0\.5"):
        long_term_scores({0.6: [video]}, [video], 2)
    with pytest.raises(ValueError, match="must be positive"):
        long_term_scores({0.2: [video]}, [video], 2, horizon_ratios=(0.0,))
    with pytest.raises(ValueError, match=r"true labels must lie in 0 to 0, got 0 to 1"):
        long_term_scores({0.2: [video]}, [digits("0001111000")], 1)
    with pytest.raises(ValueError, match="got 4 and 3"):
        inspect.unwrap(moc_counts)(video, video[:3], 2)
    with pytest.raises(ValueError, match=r"predicted labels \(item 0\) must be integers"):
        inspect.unwrap(long_term_scores)({0.2: [np.array([np.nan])]}, [video], 2)
    with pytest.raises(ValueError, match="missing must be 'wrong' or 'skip', got 'ignore'"):
        inspect.unwrap(long_term_scores)({0.2: [video]}, [video], 2, missing="ignore")
