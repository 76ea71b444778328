"""What every translation of a released checkpoint must check."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from actioncast.timeline import Taxonomy


@runtime_checkable
class Builds(Protocol):
    """The config of any model."""

    def build(self, taxonomy: Taxonomy) -> nn.Module:
        """Build the model for these labels."""


def require_fit(config: Builds, weights: Mapping[str, Tensor], num_labels: int) -> None:
    """Raise a ValueError where tensors have not the shapes that the model of a config has."""
    with torch.device("meta"):
        shapes = config.build(Taxonomy.of(map(str, range(num_labels)))).state_dict()
    wrong = [
        f"{name} {tuple(tensor.shape)} for {tuple(shapes[name].shape)}"
        for name, tensor in weights.items()
        if tensor.shape != shapes[name].shape
    ]
    if wrong:
        raise ValueError(
            f"the tensors of the state dict must fit {num_labels} labels and each other, got "
            f"{some(wrong)}; check which model it belongs to."
        )


def some(names: Sequence[str]) -> str:
    """The first of many names, for a sentence."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more or "none"
