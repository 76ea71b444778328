import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import metrics_reference as reference
from actioncast.metrics import (
    align_to_target,
    anticipation_scores,
    average_precision,
    calibrated_average_precision,
    detection_scores,
    drop_ambiguous,
    smooth,
    switch_cliff_diving,
)

EXACT = {"rel": 0, "abs": 1e-9}


def arrays(case):
    scores = np.array(case["scores"], dtype=float)
    truth = np.zeros(scores.shape, dtype=bool)
    truth[tuple(np.array(case["ground_truth_positives"]).T)] = True
    return scores, truth


thumos_cases = pytest.mark.parametrize(
    "case", reference.golden_cases("ground_truth_positives", "scores"), indirect=True
)


@thumos_cases
def test_official_precisions_are_reproduced(case):
    assert len(arrays(case)[0]) == case["frames"]
    scores = detection_scores(*drop_ambiguous(*arrays(case)))
    for metric, values, mean in (
        ("AP", scores.average_precision, scores.mean_ap),
        ("cAP", scores.calibrated_average_precision, scores.mean_calibrated_ap),
    ):
        for evaluator in ("testra", "miniroad"):
            official = case["results"][f"{evaluator}_{metric}"]
            assert mean == pytest.approx(official["mean"], **EXACT)
            expected = {int(name[1:]): value for name, value in official["per_class"].items()}
            found = {label: values[label] for label in np.flatnonzero(~np.isnan(values))}
            assert found == pytest.approx(expected, **EXACT)


@thumos_cases
def test_official_means_with_ambiguous_frames_are_reproduced(case):
    scores = detection_scores(*arrays(case))
    suffix = "_without_removal_of_ambiguous"
    for metric, mean in (("AP", scores.mean_ap), ("cAP", scores.mean_calibrated_ap)):
        official = case["results"][f"testra_{metric}{suffix}"]["mean"]
        assert mean == pytest.approx(official, **EXACT)


@thumos_cases
@pytest.mark.parametrize(("name", "change"), [("smooth", smooth), ("switch", switch_cliff_diving)])
def test_official_means_after_processing_are_reproduced(case, name, change):
    scores, truth = arrays(case)
    mean = detection_scores(*drop_ambiguous(change(scores), truth)).mean_ap
    assert mean == pytest.approx(case["results"][f"testra_AP_{name}"]["mean"], **EXACT)


@pytest.mark.parametrize(
    "case",
    reference.golden_cases("sklearn_average_precision", "y", is_required=False),
    indirect=True,
)
def test_ties_are_those_of_scikit_learn(case):
    found = average_precision(np.array(case["s"], dtype=float), np.array(case["y"], dtype=bool))
    assert found == pytest.approx(case["sklearn_average_precision"], **EXACT)


def test_worked_example():
    scores, is_positive = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 0, 0], dtype=bool)
    assert average_precision(scores, is_positive) == pytest.approx(0.8333, abs=5e-5)
    assert calibrated_average_precision(scores, is_positive) == pytest.approx(0.875)


rankings = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30).filter(
    lambda frames: any(is_positive for _, is_positive in frames)
)


def unzipped(frames):
    scores, is_positive = zip(*frames, strict=True)
    return np.array(scores, dtype=float), np.array(is_positive)


@settings(max_examples=150, deadline=None)
@given(rankings)
def test_equal_to_the_literal_definition_and_scikit_learn(frames):
    scores, is_positive = unzipped(frames)
    lists = scores.tolist(), is_positive.tolist()
    found = average_precision(scores, is_positive)
    assert found == pytest.approx(average_precision_score(is_positive, scores), **EXACT)
    assert found == pytest.approx(reference.average_precision(*lists), **EXACT)
    calibrated = calibrated_average_precision(scores, is_positive)
    expected = reference.average_precision(*lists, calibrated=True)
    assert calibrated == pytest.approx(expected, **EXACT)


@settings(max_examples=50, deadline=None)
@given(rankings, st.randoms(use_true_random=False))
def test_order_of_frames_and_scale_of_scores_do_not_matter(frames, random):
    scores, is_positive = unzipped(frames)
    order = random.sample(range(len(scores)), len(scores))
    for metric in (average_precision, calibrated_average_precision):
        found = metric(np.exp(scores[order]), is_positive[order])
        assert found == pytest.approx(metric(scores, is_positive), **EXACT)


def test_one_score_for_all_gives_the_positive_rate_and_calibrated_one_half():
    is_positive = np.arange(10) < 3
    assert average_precision(np.zeros(10), is_positive) == pytest.approx(0.3)
    assert calibrated_average_precision(np.zeros(10), is_positive) == pytest.approx(0.5)
    assert average_precision(np.zeros(2), np.ones(2, dtype=bool)) == 1.0
    assert calibrated_average_precision(np.zeros(2), np.ones(2, dtype=bool)) == 1.0


def test_labels_that_never_occur_or_are_skipped_do_not_count():
    scores, truth = np.eye(3), np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=bool)
    found = detection_scores(scores, truth, skip={0})
    assert np.isnan(found.average_precision).tolist() == [True, False, True]
    assert found.mean_ap == pytest.approx(1 / 3)
    assert np.isnan(detection_scores(scores, truth, skip={0, 1}).mean_ap)


def test_smoothing_takes_the_maximum_of_five_frames():
    scores = np.array([0.0, 0, 0, 5, 0, 0, 0, 1])[:, None]
    assert smooth(scores)[:, 0].tolist() == [0, 5, 5, 5, 5, 5, 1, 1]
    assert smooth(scores[:1])[:, 0].tolist() == [0]
    assert scores[:, 0].tolist() == [0, 0, 0, 5, 0, 0, 0, 1]


def test_cliff_diving_counts_as_diving_where_it_is_higher():
    scores = np.zeros((2, 22))
    scores[0, [5, 8]] = 0.7, 0.2
    scores[1, [5, 8]] = 0.1, 0.4
    switched = switch_cliff_diving(scores)
    assert switched[:, 8].tolist() == [0.7, 0.4]
    assert switched[:, 5].tolist() == [0.7, 0.1]
    assert scores[0, 8] == 0.2


def test_ambiguous_frames_are_dropped_from_both():
    scores, truth = np.arange(6.0).reshape(3, 2), np.array([[1, 0], [1, 1], [0, 0]], dtype=bool)
    kept, labels = drop_ambiguous(scores, truth, column=1)
    assert kept.tolist() == [[0, 1], [4, 5]]
    assert labels.tolist() == [[True, False], [False, False]]


def test_a_score_is_compared_with_the_frame_it_is_about():
    # scores[t, i] holds the frame it is about, t + i + 1.
    num_frames, num_horizons = 6, 3
    about = 1.0 + np.arange(num_frames)[:, None] + np.arange(num_horizons)
    aligned = align_to_target(about[:, :, None])[:, :, 0]
    for index in range(num_horizons):
        assert aligned[: index + 1, index].tolist() == [0] * (index + 1)
        assert aligned[index + 1 :, index].tolist() == list(range(index + 1, num_frames))
    assert align_to_target(np.ones((2, 4, 1)))[:, :, 0].tolist() == [[0] * 4, [1, 0, 0, 0]]


def perfect(truth, num_horizons):
    """A clairvoyant: at frame t it says the labels of t + 1, t + 2 and so on."""
    scores = np.zeros((len(truth), num_horizons, truth.shape[1]))
    for index in range(num_horizons):
        scores[: -index - 1, index] = truth[index + 1 :]
    return scores


def test_anticipation_rewards_foresight_and_not_an_answer_about_now():
    # No label in the first frames: nothing has been said about them.
    labels = np.array([0, 0, 0, 1, 1, 2, 0, 3, 2, 1, 1, 3])
    truth = [np.eye(4, dtype=bool)[labels], np.eye(4, dtype=bool)[labels[::-1][3:]]]
    truth[1][:3] = [True, False, False, False]
    about_now = [np.repeat(t[:, None].astype(float), 3, axis=1) for t in truth]
    foresight = anticipation_scores([perfect(t, 3) for t in truth], truth, ambiguous=3)
    assert [scores.mean_ap for scores in foresight] == [1.0] * 3
    late = anticipation_scores(about_now, truth, ambiguous=3)
    assert all(scores.mean_ap < 1 for scores in late)


def test_wrong_input_is_refused_in_a_sentence():
    scores, is_positive = np.array([0.1, np.nan]), np.array([True, False])
    with pytest.raises(ValueError, match="must be finite"):
        average_precision(scores, is_positive)
    with pytest.raises(ValueError, match="0 of them positive"):
        average_precision(np.zeros(2), np.zeros(2, dtype=bool))
    with pytest.raises(ValueError, match="2 scores and 3 frames"):
        average_precision(np.zeros(2), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 2\)"):
        inspect.unwrap(detection_scores)(np.zeros((2, 3)), np.zeros((2, 2), dtype=bool))
    with pytest.raises(ValueError, match=r"lengths \[2\] and \[3\]"):
        anticipation_scores([np.zeros((2, 1, 2))], [np.zeros((3, 2), dtype=bool)])
