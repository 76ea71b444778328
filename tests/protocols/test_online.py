import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actioncast.data.thumos14_files import NAMES
from actioncast.layers.moments import steps_ahead
from actioncast.metrics import align_to_target, anticipation_scores, compared
from actioncast.protocols import Online, Question
from actioncast.timeline import LabelSpace

CAD120 = LabelSpace(("null", "reaching", "moving"))
SPORTS = LabelSpace(NAMES, frozenset({"Background"}))


def about(num_frames, shifts):
    """Answers that name the frame they are about: entry [t, i] holds t + shifts[i]."""
    return (np.arange(num_frames)[:, None] + np.array(shifts) + 0.0)[:, :, None]


def test_every_step_of_the_whole_video_is_asked():
    assert Online().questions(100, 4.0) == [Question(observed=100)]
    assert Online().ahead == (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


def test_what_is_no_action_has_no_score():
    assert Online().skipped(SPORTS) == {0, 21}
    assert Online().left_out_label(SPORTS) == 21
    assert Online().skipped(CAD120) == set()
    assert Online().left_out_label(CAD120) is None
    assert Online(skip=("null",)).skipped(CAD120) == {0}
    kitchen = LabelSpace(("background", "pour"), frozenset({"background"}))
    assert Online().skipped(kitchen) == {0}


def test_the_metric_says_what_is_skipped():
    assert Online().metric(SPORTS) == (
        "mAP and cAP per step, mean over the labels that occur without Background, Ambiguous; "
        "steps of Ambiguous left out; scores neither smoothed nor switched"
    )
    assert "none skipped; scores" in Online().metric(CAD120)


@pytest.mark.parametrize("ahead", [(0.0,), (-1.0,), (1.0, 0.5), (1.0, 1.0), (float("nan"),)])
def test_moments_must_lie_ahead_in_order(ahead):
    with pytest.raises(ValueError, match="ahead must be seconds above 0, each larger"):
        Online(ahead=ahead)


# Alignment


def test_entry_i_is_about_the_step_that_lies_shifts_i_ahead():
    shifts = steps_ahead((2.0, 4.0, 6.0), rate=1.5, stride=1)
    assert shifts == (3, 6, 9)
    aligned = align_to_target(about(12, shifts), shifts)[:, :, 0]
    for index, shift in enumerate(shifts):
        assert aligned[:shift, index].tolist() == [0] * shift
        assert aligned[shift:, index].tolist() == list(range(shift, 12))


def test_without_shifts_entry_i_is_about_the_next_step_but_i():
    scores = about(6, (1, 2, 3))
    assert (align_to_target(scores) == align_to_target(scores, (1, 2, 3))).all()


def test_a_video_shorter_than_a_moment_has_no_answer_about_it():
    assert align_to_target(about(4, (2, 4, 9)), (2, 4, 9))[:, :, 0].tolist() == [
        [0, 0, 0],
        [0, 0, 0],
        [2, 0, 0],
        [3, 0, 0],
    ]


def test_shifted_by_one_compares_with_the_step_before_and_drops_the_last_answers():
    """MiniROAD's test: of 6 frames and 2 moments the answers of 4 count, about 0 and 1 ahead."""
    scores = about(6, (1, 2)).repeat(6, axis=2)
    truth = np.eye(6, dtype=bool)
    (first, one), (second, two) = compared(scores, truth, (1, 2), "shifted_by_one")
    assert first[:, 0].tolist() == [1, 2, 3, 4]
    assert one.argmax(1).tolist() == [0, 1, 2, 3]
    assert second[:, 0].tolist() == [2, 3, 4, 5]
    assert two.argmax(1).tolist() == [1, 2, 3, 4]


def test_the_shift_by_one_rewards_an_answer_about_now():
    labels = np.array([0, 0, 1, 1, 2, 0, 3, 2, 1, 1, 0, 0])
    truth = np.eye(4, dtype=bool)[labels]
    now = np.repeat(truth[:, None].astype(float), 2, axis=1)
    about_now = {
        alignment: anticipation_scores(
            [now], [truth], skip={0}, ambiguous=None, alignment=alignment
        )[0].mean_ap
        for alignment in ("target", "shifted_by_one")
    }
    assert about_now["shifted_by_one"] == 1.0
    assert about_now["target"] < 0.6


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=25),
    st.sets(st.integers(1, 12), min_size=1, max_size=4).map(sorted),
)
def test_what_a_clairvoyant_says_is_compared_with_itself(frames, shifts):
    truth = np.eye(4, dtype=bool)[frames]
    said = np.zeros((len(truth), len(shifts), 4))
    for index, shift in enumerate(shifts):
        said[: max(0, len(truth) - shift), index] = truth[shift:]
    for (rows, labels), shift in zip(compared(said, truth, shifts), shifts, strict=True):
        assert (rows[shift:] == labels[shift:]).all()
        assert not rows[:shift].any()
        assert len(labels) == len(truth)


@pytest.mark.parametrize("shifts", [(1,), (0, 1), (1, 2, 3)])
def test_shifts_must_fit_the_scores(shifts):
    with pytest.raises(ValueError, match="shifts must be 1 frame or more for each of 2 horizons"):
        align_to_target(np.zeros((5, 2, 3)), shifts)
