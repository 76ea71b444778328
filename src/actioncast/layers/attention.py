"""Dilated local attention: every step looks at `tap` neighbours that lie `dilation` steps apart.

As in DiffAct and ActFusion (a modified ASFormer layer): the taps of step t are the steps
t + (j - tap // 2) * dilation. Inside, tensors run channels first, [batch, hidden, time], so that a
tap is a shifted slice of contiguous memory: no index is built and nothing is gathered.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Positions = Literal["bias", "none", "embedding", "absolute"]
"""What attention knows of where a neighbour lies: a learned scalar for each tap of a layer,
nothing, a learned vector for each tap (Shaw et al., 2018), or one for each step of the video."""

OUTSIDE = math.log(1e-6)
"""What the logit of a neighbour outside the video is lowered by. Its key and value are zero, so
that all it does is take a millionth of a share away, as in the released networks."""

NARROW = 64
"""Channels up to which a product of matrices beats a convolution of kernel size 1 on CPUs."""


def dropout(x: Float[Tensor, "*any"], share: float, training: bool) -> Float[Tensor, "*any"]:
    """Drop activations, and scale up what is left.

    On CPUs 16 random bits decide about each, for torch's own dropout draws a number apiece, which
    takes longer than the layers around it; the share is exact to a 65,536th, and so is the scale.
    """
    if not training or not share:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, share)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    dropped = min(round(share * 2**16), 2**16 - 1)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(bits, dropped - 2**15, out=torch.empty(x.shape))
    return x * kept.mul_(2**16 / (2**16 - dropped))


def pointwise(
    x: Float[Tensor, "batch hidden time"],
    weight: Float[Tensor, "out hidden"],
    bias: Float[Tensor, " out"],
) -> Float[Tensor, "batch out time"]:
    """The same linear map at every step."""
    if x.shape[1] <= NARROW and weight.shape[0] <= 4 * NARROW:
        matrices = repeat(weight, "out hidden -> batch out hidden", batch=len(x))
        return torch.baddbmm(rearrange(bias, "out -> 1 out 1"), matrices, x)
    return F.conv1d(x, rearrange(weight, "out hidden -> out hidden 1"), bias)


def instance_norm(
    x: Float[Tensor, "batch hidden time"], valid: Float[Tensor, "batch 1 time"] | None = None
) -> Float[Tensor, "batch hidden time"]:
    """Normalise every channel over the whole video; one step becomes zeros.

    Args:
        x: What is normalised.
        valid: 1 at the steps of a video, 0 where it is padded; absent, there is no padding.
    """
    if valid is None:
        return F.layer_norm(x, x.shape[-1:])
    steps = valid.sum(2, keepdim=True).clamp(min=1)
    centred = x - (x * valid).sum(2, keepdim=True) / steps
    variance = (centred.square() * valid).sum(2, keepdim=True) / steps
    return centred * (variance + 1e-5).rsqrt()


def dilated_attention(
    queries: Float[Tensor, "batch hidden time"],
    keys: Float[Tensor, "batch hidden time"],
    values: Float[Tensor, "batch hidden time"],
    positions: Float[Tensor, "#batch tap #time"],
    dilation: int,
) -> Float[Tensor, "batch hidden time"]:
    """Attend to the taps of every step.

    Logits are (query . key + position) / sqrt(hidden); a tap outside the video has the key and the
    value zero and its logit is lowered by `OUTSIDE`.

    Args:
        queries: Of every step.
        keys: Of every step.
        values: Of every step.
        positions: What is added to the logit of each tap before the division.
        dilation: Steps between taps.
    """
    if queries.dtype not in (torch.float32, torch.float64):
        queries, keys, values = queries.float(), keys.float(), values.float()
    attend: Callable[..., Tensor] = _DilatedAttention.apply  # which torch leaves untyped
    return attend(queries, keys, values, positions.to(queries.dtype), dilation)


def spans(taps: int, dilation: int, time: int) -> list[tuple[int, slice, slice]]:
    """The taps that reach into the video: tap, the steps that have it, and the steps it is."""
    found = []
    for tap in range(taps):
        offset = (tap - taps // 2) * dilation
        start, end = max(0, -offset), min(time, time - offset)
        if start < end:
            found.append((tap, slice(start, end), slice(start + offset, end + offset)))
    return found


def attention_weights(
    queries: Float[Tensor, "batch hidden time"],
    keys: Float[Tensor, "batch hidden time"],
    positions: Float[Tensor, "#batch tap #time"],
    dilation: int,
) -> Float[Tensor, "batch tap time"]:
    """The share of its attention that every step gives to each of its taps."""
    batch, hidden, time = queries.shape
    taps = positions.shape[1]
    logits = queries.new_full((batch, taps, time), OUTSIDE * math.sqrt(hidden))
    for tap, here, there in spans(taps, dilation, time):
        torch.sum(queries[..., here] * keys[..., there], 1, out=logits[:, tap, here])
    return logits.add_(positions).mul_(1 / math.sqrt(hidden)).softmax(1)


def add_attended(
    onto: Float[Tensor, "batch hidden time"],
    weights: Float[Tensor, "batch tap time"],
    values: Float[Tensor, "batch hidden time"],
    dilation: int,
) -> Float[Tensor, "batch hidden time"]:
    """Add the weighted values to a tensor, in place."""
    for tap, here, there in spans(weights.shape[1], dilation, values.shape[2]):
        onto[..., here].addcmul_(weights[:, tap, None, here], values[..., there])
    return onto


class _DilatedAttention(torch.autograd.Function):
    """Keeps the weights alone: autograd would keep every shifted product."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        positions: Tensor,
        dilation: int,
    ) -> Tensor:
        weights = attention_weights(queries, keys, positions, dilation)
        ctx.save_for_backward(queries, keys, values, weights)
        ctx.dilation, ctx.positions_shape = dilation, positions.shape
        return add_attended(torch.zeros_like(values), weights, values, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        queries, keys, values, weights = ctx.saved_tensors
        reached = spans(weights.shape[1], ctx.dilation, values.shape[2])
        grad_weights = torch.zeros_like(weights)
        grad_values = torch.zeros_like(values)
        for tap, here, there in reached:
            product = grad[..., here] * values[..., there]
            torch.sum(product, 1, out=grad_weights[:, tap, here])
            grad_values[..., there].addcmul_(weights[:, tap, None, here], grad[..., here])
        grad_logits = grad_weights.sub_((weights * grad_weights).sum(1, keepdim=True)).mul_(weights)
        grad_logits.mul_(1 / math.sqrt(queries.shape[1]))
        grad_queries, grad_keys = torch.zeros_like(queries), torch.zeros_like(keys)
        for tap, here, there in reached:
            slope = grad_logits[:, tap, None, here]
            grad_queries[..., here].addcmul_(slope, keys[..., there])
            grad_keys[..., there].addcmul_(slope, queries[..., here])
        grad_positions = grad_logits.sum_to_size(ctx.positions_shape)
        return grad_queries, grad_keys, grad_values, grad_positions, None


class DilatedLayer(nn.Module):
    """Dilated convolution and dilated attention side by side, norm, feed-forward, residual.

    y = x + FFN(IN(conv(x) + attention(x))). A condition, where there is one, enters queries and
    keys only; what they take from it is computed once by `project` and can be used again for as
    long as the condition stays.

    Args:
        hidden: Channels.
        taps: Kernel size of convolution and attention; odd.
        dilation: Steps between taps.
        dropout: Probability of dropping an activation that the layer reads.
        positions: What attention knows of where a neighbour lies.
        condition: Channels of the condition; 0 has none.
    """

    def __init__(
        self,
        hidden: int,
        taps: int,
        dilation: int,
        dropout: float,
        positions: Positions,
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.dropout = dropout
        self.conv = nn.Conv1d(hidden, hidden, taps, dilation=dilation, padding=taps // 2 * dilation)
        self.query_key = nn.Conv1d(hidden + condition, 2 * hidden, 1)
        self.value = nn.Conv1d(hidden, hidden, 1)
        self.expand = nn.Conv1d(hidden, hidden, 1)
        self.contract = nn.Conv1d(hidden, hidden, 1)
        self.bias = nn.Parameter(torch.randn(taps)) if positions == "bias" else None
        self.embedding = (
            nn.Parameter(torch.randn(taps, hidden) / math.sqrt(hidden))
            if positions == "embedding"
            else None
        )

    def project(
        self, condition: Float[Tensor, "batch condition time"]
    ) -> Float[Tensor, "batch pair time"]:
        """What queries and keys take from a condition."""
        assert self.query_key.bias is not None
        kept = dropout(condition, self.dropout, self.training)
        weight = self.query_key.weight[:, -condition.shape[1] :, 0]
        return pointwise(kept, weight, self.query_key.bias)

    def forward(
        self,
        x: Float[Tensor, "batch hidden time"],
        projected: Float[Tensor, "batch pair time"] | None = None,
        valid: Float[Tensor, "batch 1 time"] | None = None,
    ) -> Float[Tensor, "batch hidden time"]:
        """One layer.

        Args:
            x: Its input.
            projected: What `project` made of the condition.
            valid: 1 at the steps of a video, 0 where it is padded, which then is as if it were
                not; absent, there is no padding.
        """
        seen = dropout(x, self.dropout, self.training)
        if valid is not None:
            seen = seen * valid
        queries, keys = self._queries_keys(seen, projected).chunk(2, 1)
        values = _linear(seen, self.value)
        if valid is not None:
            keys, values = keys * valid, values * valid
        mixed = self.conv(seen)
        if torch.is_grad_enabled():
            mixed = mixed + dilated_attention(
                queries, keys, values, self._positions(queries, valid), self.dilation
            )
        else:
            mixed = mixed.to(values.dtype)
            positions = self._positions(queries, valid)
            weights = attention_weights(queries, keys, positions, self.dilation)
            add_attended(mixed, weights, values, self.dilation)
        normed = instance_norm(mixed, valid)
        return _linear(_linear(normed, self.expand).relu_(), self.contract).add_(x)

    def _queries_keys(
        self, x: Float[Tensor, "batch hidden time"], projected: Tensor | None
    ) -> Float[Tensor, "batch pair time"]:
        assert self.query_key.bias is not None
        weight = self.query_key.weight[:, : x.shape[1], 0]
        if projected is None:
            return pointwise(x, weight, self.query_key.bias)
        if x.shape[1] <= NARROW:
            return torch.baddbmm(projected, weight.expand(len(x), -1, -1), x)
        return pointwise(x, weight, torch.zeros_like(self.query_key.bias)) + projected

    def _positions(
        self,
        queries: Float[Tensor, "batch hidden time"],
        valid: Float[Tensor, "batch 1 time"] | None,
    ) -> Float[Tensor, "#batch tap #time"]:
        taps = self.conv.kernel_size[0]
        found: Tensor
        if self.bias is not None:
            found = rearrange(self.bias, "tap -> 1 tap 1")
        elif self.embedding is not None:
            found = torch.einsum("th,bhn->btn", self.embedding, queries)
        else:
            found = queries.new_zeros(1, taps, 1)
        if valid is None:
            return found
        _, hidden, time = queries.shape
        beyond = queries.new_zeros(len(queries), taps, time)
        for tap, here, there in spans(taps, self.dilation, time):
            beyond[:, tap, here] = 1 - valid[:, 0, there]
        return found + beyond * (OUTSIDE * math.sqrt(hidden))


def _linear(
    x: Float[Tensor, "batch hidden time"], layer: nn.Conv1d
) -> Float[Tensor, "batch out time"]:
    assert layer.bias is not None
    return pointwise(x, layer.weight[..., 0], layer.bias)
