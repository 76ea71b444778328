"""Dilated attention against its definition, written with loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from actioncast.layers.attention import (
    DilatedLayer,
    Positions,
    dilated_attention,
    dropout,
    instance_norm,
    pointwise,
)


def literal_attention(
    queries: Tensor, keys: Tensor, values: Tensor, positions: Tensor, dilation: int
) -> Tensor:
    """Sheet section 2.1, steps 3 to 5, one number at a time."""
    batch, hidden, time = queries.shape
    taps = positions.shape[1]
    positions = positions.expand(batch, taps, time)
    rows = []
    for b in range(batch):
        columns = []
        for t in range(time):
            logits, seen = [], []
            for tap in range(taps):
                there = t + (tap - taps // 2) * dilation
                inside = 0 <= there < time
                key = keys[b, :, there] if inside else torch.zeros(hidden, dtype=keys.dtype)
                logit = (queries[b, :, t] @ key + positions[b, tap, t]) / math.sqrt(hidden)
                logits.append(logit + math.log(1.0 if inside else 1e-6))
                seen.append(values[b, :, there] if inside else torch.zeros_like(values[b, :, 0]))
            shares = torch.stack(logits).softmax(0)
            columns.append(sum(share * value for share, value in zip(shares, seen, strict=True)))
        rows.append(torch.stack(columns, -1))
    return torch.stack(rows)


def drawn(seed: int, batch: int, hidden: int, time: int, taps: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, hidden, time)] * 3 + [(1, taps, 1)]
    return tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    )


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 2),
    hidden=st.integers(1, 4),
    time=st.integers(1, 12),
    taps=st.sampled_from([1, 3, 5, 7]),
    dilation=st.sampled_from([1, 2, 4, 16]),
)
def test_it_is_what_its_definition_says(
    seed: int, batch: int, hidden: int, time: int, taps: int, dilation: int
) -> None:
    inputs = drawn(seed, batch, hidden, time, taps)
    found = dilated_attention(*inputs, dilation)
    expected = literal_attention(*inputs, dilation)
    # The released form adds log(1 + 1e-6) inside the video too, which cancels but for the taps
    # outside.
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed)).double()
    ours = torch.autograd.grad((found * direction).sum(), inputs)
    theirs = torch.autograd.grad((expected * direction).sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-6)


def test_its_gradient_is_its_slope() -> None:
    queries, keys, values, _ = drawn(0, 2, 3, 9, 5)
    positions = torch.randn(2, 5, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *x: dilated_attention(*x, 2), (queries, keys, values, positions)
    )


@pytest.mark.parametrize("hidden", [8, 80])
@pytest.mark.parametrize("positions", ["bias", "none", "embedding", "absolute"])
@pytest.mark.parametrize("condition", [0, 12])
def test_a_layer_answers_the_same_with_and_without_gradients(
    hidden: int, positions: Positions, condition: int
) -> None:
    """Two forms: one that keeps what the backward pass needs, one that adds in place."""
    torch.manual_seed(0)
    layer = DilatedLayer(hidden, 5, 2, 0.3, positions, condition).eval()
    x = torch.randn(2, hidden, 11)
    told = layer.project(torch.randn(2, condition, 11)) if condition else None
    kept = x.clone()
    with torch.no_grad():
        quick = layer(x, told)
    torch.testing.assert_close(layer(x, told), quick, atol=1e-5, rtol=1e-5)
    assert x.equal(kept), "a layer must leave its input as it is"


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (80, 7), (7, 300), (300, 80)])
def test_a_pointwise_map_is_a_linear_layer_at_every_step(rows: int, columns: int) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(rows, columns), torch.randn(rows), torch.randn(2, columns, 9)
    expected = torch.einsum("oh,bht->bot", weight, x) + bias[:, None]
    torch.testing.assert_close(pointwise(x, weight, bias), expected, atol=1e-4, rtol=1e-5)


def test_the_norm_spans_the_video_and_takes_one_step() -> None:
    x = torch.randn(2, 3, 50) * 4 + 7
    expected = torch.nn.functional.instance_norm(x)
    torch.testing.assert_close(instance_norm(x), expected, atol=1e-5, rtol=1e-5)
    assert instance_norm(x[..., :1]).eq(0).all()


def test_attention_in_half_precision_is_attention_in_single() -> None:
    inputs = [tensor.detach().to(torch.bfloat16) for tensor in drawn(1, 1, 4, 8, 3)]
    found = dilated_attention(*inputs, 1)
    expected = dilated_attention(*(tensor.float() for tensor in inputs), 1)
    assert found.dtype == torch.float32
    assert found.equal(expected)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    found = dropout(torch.ones(400_000), 0.3, training=True)
    assert float((found == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.01)
    assert found[found > 0].unique().tolist() == pytest.approx([1 / 0.7], rel=1e-4)
    assert dropout(found, 0.3, training=False) is found
    assert dropout(torch.ones(100), 0.999999, training=True).isfinite().all()
    layer = DilatedLayer(8, 3, 1, 0.5, "bias", 4)
    told = torch.randn(1, 4, 9)
    assert not layer.train().project(told).equal(layer.eval().project(told))
