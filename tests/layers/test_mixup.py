import pytest
import torch

from actioncast.layers.mixup import Mixup
from actioncast.types import IGNORE


def drawn(lengths: list[int], time: int, share: float = 0.75) -> Mixup:
    valid = torch.arange(time) < torch.tensor(lengths)[:, None]
    made = Mixup.draw(valid, 0.8)
    return Mixup(share=torch.tensor(share), partner=made.partner, step=made.step)


def test_rows_of_unequal_length_meet_at_their_ends() -> None:
    mixup = drawn([4, 2], 4)
    features = torch.tensor([[1.0, 2, 3, 4], [10, 20, 0, 0]])[..., None]
    mixed = mixup.features(features)[..., 0]
    assert mixed[0].tolist() == [0.75, 1.5, 2.25 + 2.5, 3 + 5]
    assert mixed[1, :2].tolist() == [7.5 + 0.75, 15 + 1]


def test_labels_come_from_where_the_features_do() -> None:
    mixup = drawn([4, 2], 4)
    labels = torch.tensor([[1, 2, 3, 4], [7, 8, IGNORE, IGNORE]])
    assert mixup.labels(labels).tolist() == [[IGNORE, IGNORE, 7, 8], [3, 4, IGNORE, IGNORE]]
    moments = labels[..., None].expand(-1, -1, 2)
    assert mixup.labels(moments)[..., 1].tolist() == mixup.labels(labels).tolist()
    assert mixup.of_row(torch.tensor([5, 6])).tolist() == [6, 5]


def test_an_empty_row_has_no_partner_and_is_none() -> None:
    mixup = drawn([3, 0], 3)
    assert (mixup.step == -1).all()


def test_shares_follow_their_beta() -> None:
    torch.manual_seed(0)
    valid = torch.ones(2, 1, dtype=torch.bool)
    shares = torch.stack([Mixup.draw(valid, 0.8).share for _ in range(4000)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    # Of Beta(a, a) the variance is 1 / (4 (2 a + 1)).
    assert shares.var().item() == pytest.approx(1 / (4 * 2.6), rel=0.06)
