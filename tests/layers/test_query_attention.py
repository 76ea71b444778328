import pytest
import torch
from torch import Tensor, nn

from actioncast.layers.query_attention import QueryAttention

NEAR = {"atol": 1e-6, "rtol": 1e-5}


def attention() -> QueryAttention:
    torch.manual_seed(0)
    made = QueryAttention(12, 3, 0.0)
    nn.init.normal_(made.project.bias)
    return made.eval()


def torchs(own: QueryAttention) -> nn.MultiheadAttention:
    """PyTorch's, with the same weights."""
    made = nn.MultiheadAttention(12, 3, batch_first=True)
    made.in_proj_weight = own.project.weight
    made.in_proj_bias = own.project.bias
    made.out_proj = own.out
    return made.eval()


def tensors(queries: int, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    valid = torch.rand(4, tokens) < 0.6
    valid[:, 0] = True
    made = [torch.randn(4, n, 12) for n in (queries, tokens, tokens)]
    return made[0], made[1], made[2], valid


@pytest.mark.parametrize("queries", [1, 2, 3, 8])
def test_both_orders_give_pytorchs_answer(queries: int) -> None:
    own = attention()
    q, k, v, valid = tensors(queries, 7)
    expected, _ = torchs(own)(q, k, v, key_padding_mask=~valid)
    torch.testing.assert_close(own(q, k, v, valid), expected, **NEAR)
    torch.testing.assert_close(own.gather(own.ask(q), k, v, valid), expected, **NEAR)
    torch.testing.assert_close(own._projected(q, k, v, valid), expected, **NEAR)


def test_both_orders_have_the_same_gradients() -> None:
    own = attention()
    q, k, v, valid = tensors(1, 7)
    found = []
    for way in (own._projected, lambda *x: own.gather(own.ask(x[0]), *x[1:])):
        own.zero_grad()
        way(q, k, v, valid).square().sum().backward()
        found.append([p.grad.clone() for p in own.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_dropped_weights_drop_the_bias_of_values_too() -> None:
    own = attention().train()
    own.dropout = 0.5
    q, k, v, _ = tensors(1, 3)
    means = []
    for way in (own._projected, lambda *x: own.gather(own.ask(x[0]), *x[1:])):
        torch.manual_seed(2)
        with torch.no_grad():
            means.append(torch.stack([way(q, k, v, None) for _ in range(4000)]).mean(0))
    torch.testing.assert_close(means[0], means[1], atol=0.05, rtol=0)


def test_queries_may_be_shared_by_rows() -> None:
    own = attention()
    q, k, v, valid = tensors(1, 5)
    shared = q[:1].expand(4, -1, -1)
    torch.testing.assert_close(
        own.gather(own.ask(q[:1]), k, v, valid), own(shared, k, v, valid), **NEAR
    )
