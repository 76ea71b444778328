import math

import pytest
import torch
from torch.nn import functional as F

from actioncast.layers.equalised_loss import Equalisation, mixed_cross_entropy
from actioncast.types import IGNORE


def logits(rows: int = 5, labels: int = 4) -> torch.Tensor:
    return torch.randn(rows, labels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_label_is_pytorchs_cross_entropy(smoothing: float) -> None:
    labels = torch.tensor([0, 3, IGNORE, 1, 1])
    expected = F.cross_entropy(
        logits(), labels, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum"
    )
    found = mixed_cross_entropy(logits(), labels, smoothing=smoothing)
    assert found.item() == pytest.approx(expected.item() / 4, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_two_labels_are_a_soft_target(smoothing: float) -> None:
    one, two = torch.tensor([0, 3, 2, 1, 1]), torch.tensor([1, 3, 0, 2, 0])
    soft = 0.7 * F.one_hot(one, 4) + 0.3 * F.one_hot(two, 4)
    soft = (1 - smoothing) * soft + smoothing / 4
    expected = -(soft * logits().log_softmax(-1)).sum(-1).mean()
    found = mixed_cross_entropy(logits(), one, two, 0.7, smoothing=smoothing)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_nobody_named_takes_its_share_out() -> None:
    one, two = torch.tensor([0, IGNORE]), torch.tensor([IGNORE, 2])
    log_probs = logits(2).log_softmax(-1)
    expected = -(0.7 * log_probs[0, 0] + 0.3 * log_probs[1, 2]) / (0.7 + 0.3)
    found = mixed_cross_entropy(logits(2), one, two, torch.tensor(0.7))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_nothing_named_is_a_loss_of_zero_with_a_gradient_of_zero() -> None:
    scores = logits().requires_grad_()
    found = mixed_cross_entropy(scores, torch.full((5,), IGNORE))
    found.backward()
    assert found.item() == 0
    assert scores.grad is not None
    assert (scores.grad == 0).all()


def test_a_rare_class_is_left_out_where_it_is_no_target() -> None:
    rare = torch.tensor([False, False, True, True])
    labels = torch.tensor([0, 2])
    found = mixed_cross_entropy(logits(2), labels, equalised=Equalisation(rare, 1.0))
    scores = logits(2)
    # Of the first row both rare classes are left out, of the second the other one.
    first = -(scores[0, 0] - scores[0, :2].logsumexp(0))
    second = -(scores[1, 2] - scores[1, :3].logsumexp(0))
    assert found.item() == pytest.approx(((first + second) / 2).item(), rel=1e-4)


def test_with_a_smoothed_target_it_keeps_its_smoothed_weight() -> None:
    rare = torch.tensor([False, True])
    scores = torch.tensor([[0.0, 0.0]])
    found = mixed_cross_entropy(
        scores, torch.tensor([0]), smoothing=0.2, equalised=Equalisation(rare, 1.0)
    )
    total = 1 + 0.1
    expected = -(0.9 * math.log(1 / total) + 0.1 * math.log(0.1 / total))
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_where_nobody_named_the_partner_a_rows_own_class_is_its_whole_target() -> None:
    rare = torch.tensor([True, False])
    for one, two in ((0, IGNORE), (IGNORE, 0)):
        found = mixed_cross_entropy(
            torch.zeros(1, 2),
            torch.tensor([one]),
            torch.tensor([two]),
            0.7,
            equalised=Equalisation(rare, 1.0),
        )
        # Its weight in the softmax is 1, not the share of 0.7 or 0.3.
        assert found.item() == pytest.approx(math.log(2), rel=1e-5)


def test_a_class_is_left_out_as_often_as_said() -> None:
    torch.manual_seed(0)
    rows = 6000
    scores = torch.zeros(rows, 2)
    rare = torch.tensor([False, True])
    found = mixed_cross_entropy(
        scores, torch.zeros(rows, dtype=torch.long), equalised=Equalisation(rare, 0.95)
    )
    assert found.item() == pytest.approx(0.05 * math.log(2), rel=0.2)
