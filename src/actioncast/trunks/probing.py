"""Whether a trunk does as it is told: no table of architectures stays complete."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from actioncast.trunks.frozen import FrozenTrunk

TOKENS = 4
NOTHING = {torch.float32: 1e-4}
"""Greatest change, as a share of what a changed token itself changes by, that is rounding; shorter
types round more."""


def require_obedience(trunk: "FrozenTrunk", attentions: Sequence[nn.Module]) -> None:
    """Send four words through a trunk and see that they look where they may.

    Some models pass over a mask or over positions without a word, and some use one layer several
    times, so that its tuning would be several layers'. Not on the meta device, where nothing is
    computed.

    Args:
        trunk: With all its weights.
        attentions: Its attention of each layer.

    Raises:
        ValueError: The model cannot be fed vectors, or does not do what its config asks for.
    """
    table: Tensor = trunk.model.get_input_embeddings().weight  # type: ignore[operator]
    if table.device.type == "meta":
        return
    base, other = _words(table), _words(table, TOKENS)
    changed = torch.cat([base[:-1], other[-1:]])
    rows = torch.stack([base, changed, base, changed, base])
    valid = torch.ones(len(rows), TOKENS, dtype=torch.bool, device=rows.device)
    valid[2:4, -1] = False
    positions = None
    if trunk.config.positions == "step":
        positions = torch.arange(TOKENS, device=rows.device).repeat(len(rows), 1)
        positions[-1] //= 2
    counted = [_Counted(attention) for attention in attentions]
    try:
        with torch.no_grad():
            states = trunk(rows, valid, positions)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{_kind(trunk)} of transformers cannot be fed vectors with a mask of its own "
            f"({' '.join(str(error).split())[:200].rstrip('.')}); take another trunk."
        ) from None
    finally:
        for one in counted:
            one.handle.remove()
    _require(trunk, states, [one.calls for one in counted])


def _require(trunk: "FrozenTrunk", states: Tensor, calls: list[int]) -> None:
    whole, late, padded, late_padded, stepped = states
    if not states.isfinite().all():
        raise ValueError(
            f"the states of {_kind(trunk)} must be finite, got others in {trunk.config.dtype}; "
            "say dtype bfloat16 or float32."
        )
    if set(calls) != {1}:
        raise ValueError(
            f"a trunk must pass each of its layers once, got {_kind(trunk)}, which passes them "
            f"{', '.join(map(str, sorted(set(calls))))} times; take another trunk."
        )
    # Of rounding there is as much as the change itself is large.
    limit = NOTHING.get(trunk.dtype, 0.02) * float((whole - late)[-1].abs().max())
    reached = float((whole - late)[0].abs().max())
    if trunk.config.attention == "bidirectional" and reached == 0:
        raise ValueError(
            f"{_kind(trunk)} of transformers lets no token look at a later one, got attention "
            f"bidirectional; say attention causal, or take another trunk."
        )
    if trunk.config.attention == "causal" and float((whole - late)[:-1].abs().max()) > limit:
        raise ValueError(
            f"{_kind(trunk)} of transformers lets tokens look at later ones, got attention "
            f"causal; say attention bidirectional, or take another trunk."
        )
    if float((padded - late_padded)[:-1].abs().max()) > limit:
        raise ValueError(
            f"{_kind(trunk)} of transformers lets tokens look at padding, whatever its mask says; "
            f"take another trunk."
        )
    if trunk.config.positions == "step" and float((whole - stepped).abs().max()) <= limit:
        raise ValueError(
            f"{_kind(trunk)} of transformers counts tokens by itself, got positions step; say "
            f"positions sequence, or take another trunk."
        )


class _Counted:
    """How often a layer is passed."""

    def __init__(self, layer: nn.Module) -> None:
        self.calls = 0
        self.handle = layer.register_forward_pre_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1


def _words(table: Tensor, first: int = 0) -> Tensor:
    """Four words from the middle of a table, whose ends are not trained everywhere."""
    rows = torch.arange(first, first + TOKENS, device=table.device) + len(table) // 2
    return table[rows % len(table)].float()


def _kind(trunk: "FrozenTrunk") -> str:
    return f"{type(trunk.model).__name__} ({trunk.name})"
