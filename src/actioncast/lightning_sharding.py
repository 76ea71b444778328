"""FSDP for models with a frozen trunk: its weights lie in parts on all GPUs, met layer by layer.

What learns is small, and so is what is saved: no file ever holds the trunk, and no process puts it
together.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.precision import FSDPPrecision
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    MixedPrecision,
    StateDictType,
)
from torch.distributed.fsdp import FullyShardedDataParallel as Spread
from torch.optim import Optimizer

from actioncast.lightning_parts import Selector, Training
from actioncast.trunks import FrozenTrunk
from actioncast.trunks.frozen import trunk_layers


def units(model: nn.Module) -> set[type[nn.Module]]:
    """What is met at once: a layer of the trunk, and what the trunk has beside its layers.

    The latter apart from what learns, as one unit has numbers of one type.

    Raises:
        ValueError: The model has no trunk.
    """
    trunks = [part for part in model.modules() if isinstance(part, FrozenTrunk)]
    if not trunks:
        raise ValueError(
            f"strategy fsdp spreads a frozen trunk, got {type(model).__name__}, which has none; "
            "say --strategy ddp."
        )
    layers = [layer for trunk in trunks for layer in trunk_layers(trunk.model, trunk.name)]
    return {type(part) for part in (*layers, *(trunk.model for trunk in trunks))}


class SpreadStrategy(FSDPStrategy):
    """Lightning's, which keeps every weight in its type and writes files as those of one device."""

    def __init__(self, model: nn.Module, precision: Any) -> None:
        super().__init__(
            auto_wrap_policy=units(model),
            use_orig_params=True,
            state_dict_type="full",
            mixed_precision=MixedPrecision(),
            precision_plugin=_SpreadPrecision(precision),
        )

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All that is saved, in the first process."""
        module = self.lightning_module
        assert module is not None
        with whole(self.model), _aside(module):
            state = module.state_dict() if self.global_rank == 0 else {}
            return {key: value.detach().cpu().clone() for key, value in state.items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """That of one device, in the first process; lightning's numbers frozen weights too."""
        assert self.model is not None
        with _full_states(self.model):
            state: dict[str, Any] = Spread.optim_state_dict(self.model, optimizer)
        numbers = {name: i for i, name in enumerate(self._names(optimizer))}
        return {
            "state": {
                numbers[name]: {key: value.cpu() for key, value in values.items()}
                for name, values in state.get("state", {}).items()
            },
            "param_groups": [
                {**group, "params": [numbers[name] for name in group["params"]]}
                for group in state.get("param_groups", [])
            ],
        }

    def load_checkpoint(
        self,
        checkpoint_path: Any,
        weights_only: bool | None = True,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Go on from a file: lightning's own hands tensors over that are not read yet."""
        path = self.broadcast(checkpoint_path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        module = self.lightning_module
        assert module is not None
        assert self.model is not None
        with whole(self.model, writeback=True):
            module.load_state_dict(checkpoint.pop("state_dict"))
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            names = self._names(optimizer)
            named = {
                "state": {names[i]: value for i, value in state["state"].items()},
                "param_groups": [
                    {**group, "params": [names[i] for i in group["params"]]}
                    for group in state["param_groups"]
                ],
            }
            with _full_states(self.model):
                own = Spread.optim_state_dict_to_load(self.model, optimizer, named)
            optimizer.load_state_dict(own)
        return checkpoint

    def _names(self, optimizer: Optimizer) -> list[str]:
        """Of what an optimiser moves, in its order, without what FSDP puts into names."""
        assert self.model is not None
        known = {
            id(parameter): name.replace("_fsdp_wrapped_module.", "")
            for name, parameter in self.model.named_parameters()
        }
        return [known[id(p)] for group in optimizer.param_groups for p in group["params"]]


class _SpreadPrecision(FSDPPrecision):
    """Casts nothing: lightning's would make a trunk of 16 bits one of 32."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        return module

    def convert_input(self, data: Any) -> Any:
        return data


class SpreadTraining(Training):
    """Clips gradients by the norm over all processes."""

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,  # noqa: ARG002
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Each process has a part of every gradient."""
        root = self.trainer.strategy.model
        if gradient_clip_val and isinstance(root, Spread):
            root.clip_grad_norm_(gradient_clip_val)


class SpreadSelector(Selector):
    """Scores in every process, as each brings its parts of the trunk; writes in the first."""

    everywhere = True

    @property
    def state_key(self) -> str:
        """Where a state to resume from holds its state: such a run can go on without FSDP."""
        return Selector.__qualname__

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore[override]
        """Validate, save, say how far training is."""
        with whole(trainer.strategy.model):
            super().on_train_epoch_end(trainer, module)

    def _save(self, module: Training, folder: str, chosen: Mapping[str, Any]) -> None:
        with _aside(module):
            if module.global_rank == 0:
                super()._save(module, folder, chosen)


@contextmanager
def whole(root: nn.Module | None, *, writeback: bool = False) -> Iterator[None]:
    """Put together what learns, in every process; the trunk stays in parts."""
    assert isinstance(root, Spread), "within a training with FSDP"
    with Spread.summon_full_params(root, recurse=False, writeback=writeback):
        yield


def _full_states(root: nn.Module | None) -> Any:
    """States of whole tensors."""
    assert isinstance(root, Spread), "within a training with FSDP"
    return Spread.state_dict_type(
        root,
        StateDictType.FULL_STATE_DICT,
        FullStateDictConfig(offload_to_cpu=True),
        # What is offloaded is not cloned, and on a CPU stays a view of what is gathered next.
        FullOptimStateDictConfig(offload_to_cpu=False),
    )


@contextmanager
def _aside(module: nn.Module) -> Iterator[None]:
    """Take trunks out of a module, whose state dict would gather them to leave them out."""
    places = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, FrozenTrunk)
    ]
    orders = [(parent, list(parent._modules)) for parent, _, _ in places]
    for parent, name, _ in places:
        del parent._modules[name]
    try:
        yield
    finally:
        for parent, name, child in places:
            parent._modules[name] = child
        for parent, order in orders:
            for name in order:
                parent._modules[name] = parent._modules.pop(name)
