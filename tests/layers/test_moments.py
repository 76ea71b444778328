import math

import pytest
import torch

from actioncast.layers.moments import (
    active_ahead,
    excluded,
    labels_ahead,
    several_cross_entropy,
    steps_ahead,
)
from actioncast.types import IGNORE


def test_seconds_become_steps_of_the_models_grid() -> None:
    assert steps_ahead((0.25, 0.5, 2.0), rate=4.0, stride=1) == (1, 2, 8)
    assert steps_ahead((1.5, 6.0), rate=30.0, stride=15) == (3, 12)


def test_a_rate_that_is_no_binary_fraction_rounds_to_its_step() -> None:
    assert steps_ahead((20 / 30,), rate=1.5, stride=1) == (1,)


@pytest.mark.parametrize("seconds", [0.1, 0.0, 0.375, 0.3, 0.45])
def test_a_moment_between_steps_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"whole number of steps of 0\.25 s"):
        steps_ahead((seconds,), rate=4.0, stride=1)


def test_a_target_stands_at_the_step_at_which_it_is_said() -> None:
    labels = torch.tensor([[5, 6, 7, 8]])
    ahead = labels_ahead(labels, (1, 3, 9))
    assert ahead[0, :, 0].tolist() == [6, 7, 8, IGNORE]
    assert ahead[0, :, 1].tolist() == [8, IGNORE, IGNORE, IGNORE]
    assert ahead[0, :, 2].tolist() == [IGNORE] * 4


def test_several_actions_move_as_one_does() -> None:
    active = torch.zeros(1, 4, 3, dtype=torch.bool)
    active[0, 2, 0] = active[0, 2, 1] = active[0, 3, 2] = True
    moved = active_ahead(active, (1, 2))
    assert moved[0, 1, 0].tolist() == [True, True, False]
    assert moved[0, 0, 1].tolist() == [True, True, False]
    assert moved[0, 1, 1].tolist() == [False, False, True]
    assert not moved[0, 3].any()


def test_every_action_under_way_counts_and_rows_without_any_do_not() -> None:
    logits = torch.tensor([[[0.0, 0.0], [9.0, 1.0]]])
    active = torch.tensor([[[True, True], [False, False]]])
    assert several_cross_entropy(logits, active).item() == pytest.approx(2 * math.log(2))
    assert several_cross_entropy(logits, ~active & active).item() == 0


def test_smoothing_spreads_a_share_over_all_labels() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    active = torch.tensor([[True, False, True]])
    log_probs = logits.log_softmax(-1)[0]
    expected = -(0.9 * (log_probs[0] + log_probs[2]) + 0.1 * log_probs.mean())
    found = several_cross_entropy(logits, active, smoothing=0.1)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_nobody_knows_teaches_nothing_and_is_never_said() -> None:
    logits = torch.tensor([[1.0, 0.0, 5.0], [1.0, 0.0, 5.0]], requires_grad=True)
    active = torch.tensor([[True, False, False], [True, False, True]])
    found = several_cross_entropy(logits, active, smoothing=0.1, unknown=(2,))
    # Of the first row alone, over two labels.
    two = logits[0, :2].log_softmax(-1)
    assert found.item() == pytest.approx(-(0.9 * two[0] + 0.1 * two.mean()).item(), rel=1e-5)
    found.backward()
    assert logits.grad is not None
    assert (logits.grad[:, 2] == 0).all()
    assert (logits.grad[1] == 0).all()
    assert excluded(logits, (2,)).softmax(-1)[:, 2].tolist() == [0.0, 0.0]


def test_a_moment_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        steps_ahead((1.0, math.inf), rate=4.0, stride=1)
