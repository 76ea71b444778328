import math

import pytest
import torch

from actioncast.layers.rotary import RotaryLayer, turned, turns_of


def test_the_turn_of_a_step_by_hand() -> None:
    """Four channels are two pairs: one turns by the step, one by a hundredth of it."""
    turns = turns_of(torch.zeros(1, 3, 8), 4)
    angles = torch.tensor([[0.0, 0.0], [1.0, 0.01], [2.0, 0.02]])
    torch.testing.assert_close(turns[0], angles.cos())
    torch.testing.assert_close(turns[1], angles.sin())
    x = torch.tensor([1.0, 0.0, 0.0, 5.0]).expand(1, 1, 3, 4)
    last = turned(x, turns)[0, 0, 2]
    expected = [math.cos(2), -5 * math.sin(0.02), math.sin(2), 5 * math.cos(0.02)]
    torch.testing.assert_close(last, torch.tensor(expected))


def test_products_tell_distances_alone() -> None:
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).expand(-1, -1, -1, 9, -1)
    turns = turns_of(torch.zeros(1, 9, 1, dtype=torch.float64), 8)
    products = turned(query, turns)[0, 0] @ turned(key, turns)[0, 0].T
    for distance in range(-8, 9):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert products[0].unique().numel() == 9


def test_late_steps_turn_as_exactly_as_early_ones() -> None:
    """In single precision the angle of a step this late would be off by a thousandth."""
    late = turns_of(torch.zeros(1, 16385, 1), 64)[0, -1]
    rates = [10_000.0 ** (-n / 32) for n in range(32)]
    expected = torch.tensor([math.cos(16384 * rate) for rate in rates])
    torch.testing.assert_close(late, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4])
def test_asked_for_the_last_step_alone_it_answers_the_same(steps: int) -> None:
    torch.manual_seed(0)
    layer = RotaryLayer(8, 2, 16, 0.5).eval()
    x = torch.randn(2, steps, 8)
    for causal in (False, True):
        every = layer(x, None, causal, False)
        torch.testing.assert_close(layer(x, None, causal, True), every[:, -1:])


def test_a_causal_layer_looks_at_nothing_later_and_a_masked_one_at_nothing_masked() -> None:
    torch.manual_seed(0)
    layer = RotaryLayer(8, 2, 16, 0.0).eval()
    x = torch.randn(1, 6, 8)
    changed = x.clone()
    changed[:, 3:] += 1
    assert layer(x, None, True, False)[:, :3].equal(layer(changed, None, True, False)[:, :3])
    mask = torch.tensor([True, True, True, False, False, False])[None, None, None]
    assert layer(x, mask, False, False)[:, :3].equal(layer(changed, mask, False, False)[:, :3])
    assert not layer(x, None, False, False)[:, :3].equal(layer(changed, None, False, False)[:, :3])
