"""What a module costs: parameters, and floating-point operations of one pass.

PyTorch's counter sees matrix products, convolutions and attention on GPUs; attention on CPUs is
counted here. A product and its sum are two operations: papers that give GFLOPs as fvcore counts
them mean `multiply_adds`.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle


@runtime_checkable
class CountsItself(Protocol):
    """A module whose own operations the counter does not see, or sees on some machines alone."""

    def own_flops(self, inputs: tuple[Any, ...], outputs: Any) -> int:
        """All operations of one pass besides those of the modules that it calls.

        They take the place of whatever the counter has seen of it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a module costs."""

    parameters: int
    """All of them; shared ones count once."""
    trained: int
    """Those that training moves."""
    flops: int
    """Operations of the pass that was measured; a product and its sum are two."""

    @property
    def multiply_adds(self) -> float:
        """A product and its sum counted as one."""
        return self.flops / 2

    def __add__(self, other: "Cost") -> "Cost":
        """The cost of two modules that share nothing."""
        return Cost(
            parameters=self.parameters + other.parameters,
            trained=self.trained + other.trained,
            flops=self.flops + other.flops,
        )


def measure(module: nn.Module, *inputs: Any) -> Cost:
    """Run a module once, in evaluation mode and without gradients, and count.

    A module and inputs on the device `meta` are measured without computing anything.
    """
    parameters = list(module.parameters())
    return Cost(
        parameters=sum(parameter.numel() for parameter in parameters),
        trained=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        flops=count_flops(module, *inputs),
    )


def count_flops(module: nn.Module, *inputs: Any) -> int:
    """Operations of one pass, in evaluation mode and without gradients."""
    modes = {part: part.training for part in module.modules()}
    counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    calls = _Calls(counter)
    handles = [handle for part in modes for handle in calls.watch(part)]
    try:
        module.eval()
        with torch.no_grad(), counter:
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes.items():
            part.training = mode
    return calls.total


@dataclass(slots=True)
class _Call:
    """A pass through a module that has begun."""

    seen_before: int
    seen_by_parts: int = 0
    """What the counter saw of the modules it called."""
    flops_of_parts: int = 0
    """What they cost."""


@dataclass(slots=True)
class _Calls:
    """Passes through modules, one within another."""

    counter: FlopCounterMode
    total: int = 0
    _open: list[_Call] = field(default_factory=list)

    def watch(self, module: nn.Module) -> tuple[RemovableHandle, RemovableHandle]:
        """Follow the passes through a module, until the handles are removed."""
        return (
            module.register_forward_pre_hook(self._begin),
            module.register_forward_hook(self._end),
        )

    def _begin(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG002
        self._open.append(_Call(self.counter.get_total_flops()))

    def _end(self, module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        call = self._open.pop()
        seen = self.counter.get_total_flops() - call.seen_before
        own = seen - call.seen_by_parts
        if isinstance(module, CountsItself):
            own = module.own_flops(inputs, outputs)
        flops = own + call.flops_of_parts
        if self._open:
            self._open[-1].seen_by_parts += seen
            self._open[-1].flops_of_parts += flops
        else:
            self.total = flops


def _attention_flops(
    query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any
) -> int:
    """Scores and their mixture: `(batch, head, token, feature)` each."""
    *many, tokens, width = query
    return 2 * math.prod(many) * tokens * key[-2] * (width + value[-1])


_CPU_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
}
"""Attention as CPUs compute it, which the counter does not know."""
