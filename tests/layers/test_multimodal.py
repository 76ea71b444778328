"""Fusion, reading, alignment and pooling of m&m-Ant's anticipation module."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from actioncast.layers.multimodal import Alignment, Reading, SelfFusion, pooled, windows
from actioncast.layers.transformer import attention_mask

HIDDEN, HEADS = 8, 2
NEAR = {"atol": 1e-6, "rtol": 0.0}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(build: Callable[[], nn.Module]) -> nn.Module:
    """With weights and biases, norms included, of no special value."""
    torch.manual_seed(0)
    module = build().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


def attended(attention: nn.Module, asked: Tensor, told: Tensor) -> Tensor:
    """What PyTorch's own attention makes of the same weights."""
    theirs = nn.MultiheadAttention(HIDDEN, HEADS, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": attention.project.weight,
            "in_proj_bias": attention.project.bias,
            "out_proj.weight": attention.out.weight,
            "out_proj.bias": attention.out.bias,
        }
    )
    found: Tensor = theirs(asked, told, told, need_weights=False)[0]
    return found


def test_fusion_is_attention_among_tokens_and_a_norm() -> None:
    """Sheet, section 3.4: Z <- LN(Z + MHSA(Z))."""
    fusion, tokens = made(lambda: SelfFusion(HIDDEN, HEADS, 0.1)), drawn(2, 5, HIDDEN)
    wanted = fusion.norm(tokens + attended(fusion.attention, tokens, tokens))
    torch.testing.assert_close(fusion(tokens, None), wanted, atol=1e-5, rtol=0)


def test_reading_keeps_the_queries_and_adds_what_tokens_say() -> None:
    reading = made(lambda: Reading(HIDDEN, HEADS, 0.1))
    queries, tokens = drawn(2, 3, HIDDEN), drawn(2, 5, HIDDEN, seed=1)
    wanted = reading.norm(queries + attended(reading.attention, queries, tokens))
    torch.testing.assert_close(reading(queries, tokens, None), wanted, atol=1e-5, rtol=0)


def test_alignment_reads_and_then_thinks() -> None:
    """Sheet, section 3.4: Q <- LN(Q + MHCA(Q, V, V)), Q <- LN(Q + FFN(Q))."""
    alignment = made(lambda: Alignment(HIDDEN, HEADS, 2 * HIDDEN, 0.1))
    queries, tokens = drawn(2, 3, HIDDEN), drawn(2, 5, HIDDEN, seed=1)
    read = alignment.reading(queries, tokens, None)
    wanted = alignment.norm(read + alignment.feedforward(read))
    torch.testing.assert_close(alignment(queries, tokens, None), wanted, **NEAR)


def test_masked_tokens_are_looked_at_by_nobody() -> None:
    known = torch.tensor([[True, False, True, True, False]])
    tokens, queries = drawn(1, 5, HIDDEN), drawn(1, 3, HIDDEN, seed=1)
    other = torch.where(known[..., None], tokens, torch.tensor(1e3))
    mask = attention_mask(known)
    fusion = made(lambda: SelfFusion(HIDDEN, HEADS, 0.1))
    torch.testing.assert_close(fusion(tokens, mask)[known], fusion(other, mask)[known], **NEAR)
    alone = fusion(tokens[:, known[0]], None)
    torch.testing.assert_close(fusion(tokens, mask)[known], alone[0], **NEAR)
    for module in (
        made(lambda: Reading(HIDDEN, HEADS, 0.1)),
        made(lambda: Alignment(HIDDEN, HEADS, HIDDEN, 0.1)),
    ):
        torch.testing.assert_close(
            module(queries, tokens, mask), module(queries, other, mask), **NEAR
        )


@pytest.mark.parametrize("kind", [SelfFusion, Reading, Alignment])
def test_dropout_acts_in_training_alone(kind: type[nn.Module]) -> None:
    sizes = (HIDDEN, HEADS, HIDDEN, 0.5) if kind is Alignment else (HIDDEN, HEADS, 0.5)
    module, tokens = made(lambda: kind(*sizes)), drawn(1, 5, HIDDEN)
    given_ = (tokens, None) if kind is SelfFusion else (tokens, tokens, None)
    assert module(*given_).equal(module(*given_))
    module.train()
    assert not module(*given_).equal(module(*given_))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 99))
def test_without_gaps_it_is_adaptive_average_pooling(tokens: int, count: int, seed: int) -> None:
    values = drawn(2, tokens, 3, seed=seed)
    every = torch.ones(2, tokens, dtype=torch.bool)
    wanted = F.adaptive_avg_pool1d(values.mT, count).mT
    torch.testing.assert_close(pooled(values, every, count), wanted, **NEAR)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 9), st.integers(0, 99))
def test_what_does_not_count_is_as_if_it_were_not_there(
    counts: list[bool], count: int, seed: int
) -> None:
    valid = torch.tensor([counts])
    values = drawn(1, len(counts), 3, seed=seed)
    odd = torch.where(valid[..., None], values, torch.nan)
    found = pooled(odd, valid, count)
    if not any(counts):
        assert not found.any()
        return
    kept = values[:, valid[0]]
    every = torch.ones(1, kept.shape[1], dtype=torch.bool)
    torch.testing.assert_close(found, pooled(kept, every, count), **NEAR)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 9))
def test_weights_of_a_window_sum_to_one_and_leave_no_token_out(
    counts: list[bool], count: int
) -> None:
    valid = torch.tensor([counts])
    weights = windows(valid, count)
    assert weights.shape == (1, count, len(counts))
    torch.testing.assert_close(weights.sum(-1), torch.full((1, count), float(any(counts))))
    assert (weights.sum(1) > 0).equal(valid)


def test_windows_worked_by_hand() -> None:
    """Five tokens of which one does not count, over three windows: tokens 0-1, 1-2 and 2-3."""
    valid = torch.tensor([[True, True, False, True, True], [False] * 5])
    half = 0.5
    wanted = [[half, half, 0, 0, 0], [0, half, 0, half, 0], [0, 0, 0, half, half]]
    assert windows(valid, 3).tolist() == [wanted, [[0.0] * 5] * 3]
