import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from actioncast.metrics import (
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)


def test_worked_example():
    probs = np.array([[0.75, 0.25], [0.75, 0.25], [0.4, 0.6], [0.45, 0.55]])
    labels = np.array([0, 1, 1, 1])
    bins = reliability_bins(probs, labels, 10)
    assert bins.num_samples.tolist() == [0] * 5 + [2, 0, 2, 0, 0]
    assert bins.confidence[[5, 7]] == pytest.approx([0.575, 0.75])
    assert bins.accuracy[[5, 7]] == pytest.approx([1.0, 0.5])
    assert np.isnan(bins.accuracy[[0, 6, 9]]).all()
    error = expected_calibration_error(probs, labels, 10)
    assert error == pytest.approx((2 * 0.425 + 2 * 0.25) / 4)
    expected = (2 * 0.0625 + 2 * 0.5625 + 2 * 0.16 + 2 * 0.2025) / 4
    assert brier_score(probs, labels) == pytest.approx(expected)
    logs = np.log([0.75, 0.25, 0.6, 0.55])
    assert negative_log_likelihood(probs, labels) == pytest.approx(-logs.mean())


def test_a_bin_has_its_upper_edge_and_not_its_lower():
    probs = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert reliability_bins(probs, np.array([0, 0]), 2).num_samples.tolist() == [1, 1]
    assert reliability_bins(probs, np.array([0, 0]), 4).num_samples.tolist() == [0, 1, 0, 1]


def test_perfect_and_worst():
    certain = np.eye(3)
    right, wrong = np.arange(3), np.array([1, 2, 0])
    for score, worst in (
        (expected_calibration_error, 1.0),
        (brier_score, 2.0),
        (negative_log_likelihood, np.inf),
    ):
        assert score(certain, right) == 0.0
        assert score(certain, wrong) == worst


def test_stated_confidence_that_holds_has_no_error():
    probs = np.tile([0.8, 0.2], (10, 1))
    labels = (np.arange(10) >= 8).astype(int)
    assert expected_calibration_error(probs, labels) == pytest.approx(0.0)
    assert expected_calibration_error(probs, 1 - labels) == pytest.approx(0.6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_bounds_and_literal_forms(seed, num_bins):
    rng = np.random.default_rng(seed)
    probs, labels = rng.dirichlet(np.ones(4), 30), rng.integers(0, 4, 30)
    literal = 0.0
    for k in range(num_bins):
        members = [
            (row.max(), row.argmax() == label)
            for row, label in zip(probs, labels, strict=True)
            if k / num_bins < row.max() <= (k + 1) / num_bins
        ]
        if members:
            confidence, is_correct = np.mean(members, axis=0)
            literal += len(members) / 30 * abs(confidence - is_correct)
    assert expected_calibration_error(probs, labels, num_bins) == pytest.approx(literal)
    bins = reliability_bins(probs, labels, num_bins)
    assert bins.num_samples.sum() == 30
    assert 0 <= brier_score(probs, labels) <= 2
    found = negative_log_likelihood(probs, labels)
    assert found == pytest.approx(log_loss(labels, probs, labels=range(4)))
    order = rng.permutation(30)
    assert brier_score(probs[order], labels[order]) == pytest.approx(brier_score(probs, labels))


@pytest.mark.parametrize(
    "score", [expected_calibration_error, brier_score, negative_log_likelihood, reliability_bins]
)
def test_wrong_input_is_refused_in_a_sentence(score):
    probs, labels = np.array([[0.5, 0.5]]), np.array([0])
    for wrong in (np.array([[0.9, 0.9]]), np.array([[1.5, -0.5]]), np.array([[np.nan, 0.5]])):
        with pytest.raises(ValueError, match="apply softmax"):
            score(wrong, labels)
    with pytest.raises(ValueError, match=r"labels must be integers in 0 to 1, got int64 from 2"):
        score(probs, np.array([2]))


@pytest.mark.parametrize("score", [brier_score, negative_log_likelihood, reliability_bins])
def test_one_label_for_each_row_is_asked_for_without_a_type_checker(score):
    with pytest.raises(ValueError, match="1 rows and 2 labels"):
        inspect.unwrap(score)(np.array([[0.5, 0.5]]), np.array([0, 1]))


def test_a_number_of_bins_is_required():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        reliability_bins(np.array([[0.5, 0.5]]), np.array([0]), 0)
