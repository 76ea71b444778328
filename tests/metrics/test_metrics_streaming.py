import inspect
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actioncast.metrics import (
    available,
    detection_scores,
    false_alarms,
    named_labels,
    onset_delays,
    per_hour,
    steps_late,
    summarised,
    time_to_action_errors,
)

NOTHING = {0}
"""Label 0 is background in every example."""


def one_hot(spelling, num_labels=3):
    """A row for each digit; a dot is a row of zeros."""
    rows = np.zeros((len(spelling), num_labels))
    for step, letter in enumerate(spelling):
        if letter != ".":
            rows[step, int(letter)] = 1
    return rows


def true(spelling, num_labels=3):
    return one_hot(spelling, num_labels).astype(bool)


# Onset delay


def test_a_delay_runs_from_the_start_of_an_action_to_the_step_that_names_it():
    truth, said = true("0011102200"), one_hot("0001110020")
    assert onset_delays(said, truth, 4.0, skip=NOTHING).tolist() == pytest.approx(
        [0.25, np.nan], nan_ok=True
    )


def test_an_answer_before_the_start_or_after_the_end_is_no_onset():
    truth, said = true("00111000"), one_hot("01000110")
    assert np.isnan(onset_delays(said, truth, 1.0, skip=NOTHING)).tolist() == [True]


def test_each_run_of_a_label_is_an_action_of_its_own():
    truth, said = true("1101110111"), one_hot("0100111100")
    assert onset_delays(said, truth, 2.0, skip=NOTHING).tolist() == [0.5, 0.5, 0.0]


def test_a_threshold_names_several_labels_and_the_highest_names_one():
    truth = np.array([[False, True, True]] * 3)
    scores = np.array([[0.0, 0.5, 0.5], [0.0, 0.6, 0.7], [0.9, 0.6, 0.7]])
    assert onset_delays(scores, truth, 1.0, skip=NOTHING).tolist() == [0.0, 1.0]
    assert onset_delays(scores, truth, 1.0, skip=NOTHING, threshold=0.6).tolist() == [1.0, 1.0]
    assert named_labels(np.zeros((2, 3))).sum() == 0


def test_the_summary_counts_missed_starts_apart():
    found = summarised(np.array([0.0, 1.0, 5.0, np.nan]))
    assert (found.median, found.mean, found.missed) == (1.0, 2.0, 0.25)
    nothing = summarised(np.array([np.nan, np.nan]))
    assert nothing.missed == 1.0
    assert math.isnan(nothing.median)
    assert math.isnan(summarised(np.zeros(0)).missed)


# False alarms


def test_an_alarm_is_a_run_that_meets_no_true_action_of_its_label():
    truth = true("0011102200")
    assert false_alarms(one_hot("0001110020"), truth, skip=NOTHING) == 1
    # The first run of 1 touches the true one; 2 comes twice for nothing; background is no alarm.
    assert false_alarms(one_hot("0111220021"), truth, skip=NOTHING) == 3
    assert false_alarms(one_hot("0000000000"), truth, skip=NOTHING) == 0
    assert per_hour(1, 10, 4.0) == 1440.0
    assert math.isnan(per_hour(0, 0, 4.0))


def test_a_run_that_touches_an_ambiguous_step_is_no_alarm():
    truth = true("00300003", num_labels=4)
    said = one_hot("01100110", num_labels=4)
    skip = {0, 3}
    assert false_alarms(said, truth, skip=skip) == 2
    assert false_alarms(said, truth, skip=skip, ambiguous=3) == 1


# Time to action


def foreseen(rows, shifts, num_labels=3):
    """Answers from one spelling a moment."""
    assert len(rows) == len(shifts)
    return np.stack([one_hot(row, num_labels) for row in rows], 1)


def test_the_first_foresight_is_compared_with_the_time_that_was_left():
    truth = true("00001100")
    # At step 2 the model says: in 3 steps. It was in 2.
    said = foreseen(["00000000", "00000000", "00100000"], (1, 2, 3))
    found = time_to_action_errors(said, truth, (1, 2, 3), 4.0, skip=NOTHING)
    assert found.tolist() == [0.25]


def test_of_several_moments_the_shortest_counts_and_a_later_answer_does_not():
    truth = true("00001100")
    # At step 1, three steps before: in 2 and in 3. Right in 3, said in 2. At step 3 all is right.
    said = foreseen(["00010000", "01010000", "01010000"], (1, 2, 3))
    assert time_to_action_errors(said, truth, (1, 2, 3), 1.0, skip=NOTHING).tolist() == [1.0]


def test_an_action_never_foreseen_has_no_error_and_is_counted():
    truth = true("00001100")
    # Named at step 0, four steps before: farther than the longest moment, so for another action.
    said = foreseen(["10000000", "10000000", "10002200"], (1, 2, 3))
    found = time_to_action_errors(said, truth, (1, 2, 3), 1.0, skip=NOTHING)
    assert np.isnan(found).tolist() == [True]
    assert summarised(found).missed == 1.0


def test_nobody_can_foresee_what_starts_with_the_video_or_falls_between_the_moments():
    silent = foreseen(["000000"], (3,))
    assert len(time_to_action_errors(silent, true("110000"), (3,), 1.0, skip=NOTHING)) == 0
    # Starts at step 1: no step lies three before it, and from step 0 three ahead it is over.
    assert len(time_to_action_errors(silent, true("010000"), (3,), 1.0, skip=NOTHING)) == 0
    assert len(time_to_action_errors(silent, true("011100"), (3,), 1.0, skip=NOTHING)) == 1


def test_an_earlier_action_of_the_same_label_must_have_ended():
    truth = true("0110110")
    # What is said at step 2 is right, but while the first action runs: step 3 alone can foresee.
    said = foreseen(["0000000", "0011000"], (1, 2))
    found = time_to_action_errors(said, truth, (1, 2), 1.0, skip=NOTHING)
    # The first starts at 1: at step 0 nothing is said. The second: at step 3, in 2; it was in 1.
    assert found.tolist() == pytest.approx([np.nan, 1.0], nan_ok=True)


# Available scores


def test_an_answer_stands_at_the_step_at_which_it_has_come():
    scores = one_hot("0112")
    assert available(scores, 4.0, 0.3).tolist() == one_hot("..01").tolist()
    assert available(scores, 4.0, 0.25).tolist() == one_hot(".011").tolist()
    assert available(scores, 4.0, 9.0).tolist() == one_hot("....").tolist()
    assert steps_late(0.1, 30.0) == 3
    assert steps_late(0.001, 30.0) == 1


def test_what_arithmetic_adds_to_whole_steps_is_no_step_and_a_moment_more_is_one():
    assert 0.28 * 25.0 > 7
    assert steps_late(0.28, 25.0) == 7
    assert steps_late(0.1 + 1e-12, 30.0) == 3
    assert steps_late(0.1001, 30.0) == 4


def test_detection_is_scored_when_its_answer_is_there():
    truth = true("00111000")
    late = detection_scores(available(one_hot("00111000"), 4.0, 0.2), truth, skip=NOTHING)
    # Three steps are named, two of them right; then all others, one of them right.
    assert late.mean_ap == pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 3 / 8)


@pytest.mark.parametrize("latency", [-0.1, math.nan, math.inf])
def test_a_latency_that_is_none_is_refused(latency):
    with pytest.raises(ValueError, match="latency must be 0 seconds or more"):
        steps_late(latency, 4.0)


# Properties


labels = st.lists(st.integers(0, 3), min_size=1, max_size=30)
shifts = st.sets(st.integers(1, 6), min_size=1, max_size=4).map(sorted)


def clairvoyant(truth, moments):
    """At every step the labels of the steps ahead; nothing beyond the end."""
    said = np.zeros((len(truth), len(moments), truth.shape[1]))
    for i, shift in enumerate(moments):
        said[: max(0, len(truth) - shift), i] = truth[shift:]
    return said


@settings(max_examples=150, deadline=None)
@given(labels, shifts)
def test_a_perfect_answer_is_never_late_and_never_wrong(frames, moments):
    truth = np.eye(4, dtype=bool)[frames]
    delays = onset_delays(truth.astype(float), truth, 4.0, skip=NOTHING)
    assert not delays.any()
    assert false_alarms(truth.astype(float), truth, skip=NOTHING) == 0
    errors = time_to_action_errors(clairvoyant(truth, moments), truth, moments, 4.0, skip=NOTHING)
    assert not errors.any()
    assert not np.isnan(errors).any()
    starts = [t for t, label in enumerate(frames) if label and (not t or frames[t - 1] != label)]
    assert len(delays) == len(starts)
    assert len(errors) <= len(starts)


@settings(max_examples=100, deadline=None)
@given(labels, st.integers(0, 5), st.floats(0.5, 30))
def test_delays_grow_by_the_delay_of_the_answers(frames, late, rate):
    truth = np.eye(4, dtype=bool)[frames]
    delayed = available(truth.astype(float), rate, late / rate)
    for delay in onset_delays(delayed, truth, rate, skip=NOTHING):
        assert math.isnan(delay) or delay <= late / rate + 1e-9
    assume(late == 0)
    assert (delayed == truth).all()


@settings(max_examples=100, deadline=None)
@given(labels, st.floats(0, 3), st.floats(0, 3))
def test_latencies_in_whole_steps_add_up(frames, one, other):
    scores = np.eye(4)[frames]
    whole = [steps_late(latency, 4.0) / 4.0 for latency in (one, other)]
    twice = available(available(scores, 4.0, whole[0]), 4.0, whole[1])
    assert (twice == available(scores, 4.0, sum(whole))).all()
    assert (available(scores, 4.0, 0.0) == scores).all()


def test_no_function_changes_its_input():
    scores, truth = one_hot("0112"), true("0112")
    before = scores.copy(), truth.copy()
    inspect.unwrap(available)(scores, 4.0, 0.3)
    false_alarms(scores, truth, ambiguous=2)
    onset_delays(scores, truth, 1.0)
    assert (scores == before[0]).all()
    assert (truth == before[1]).all()
