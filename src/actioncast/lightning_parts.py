"""What lightning's Trainer is given: order, selection, progress, and how state reaches the disk."""

import csv
import io
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from actioncast.checkpoint import save_checkpoint
from actioncast.files import replace_file
from actioncast.models.base import Anticipator
from actioncast.optimisation import Optimisation, make_optimizer, parameter_groups, rate_share
from actioncast.progress import Reporter
from actioncast.types import Observation, Target


class Training(lightning.LightningModule):
    """Sums a model's losses; steps at a rate that changes by epoch or by step."""

    def __init__(self, model: Anticipator, config: Optimisation) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Seed dropout by epoch, so that a resumed run draws what an unbroken one draws.

        Not when an epoch starts: lightning does not say so of the first one after resuming.
        """
        if batch_idx == 0:
            self.model.begin_epoch(self.current_epoch)
            torch.manual_seed(hash((self.config.seed, self.current_epoch, self.global_rank)))

    def training_step(self, batch: tuple[Observation, Target], _: int) -> Tensor:
        """One batch."""
        x, y = batch
        losses = self.model.losses(x, y)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total.detach()):
            raise ValueError(
                f"the training loss must be a finite number, got {float(total.detach())} in epoch "
                f"{self.current_epoch + 1}; lower --lr, or say --clip 1."
            )
        logged = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(
            {**logged, "train/loss": total.detach(), "lr": self._lr()},
            on_step=False,
            on_epoch=True,
            batch_size=len(x),
            sync_dist=self.trainer.world_size > 1,
        )
        return total

    def _lr(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def transfer_batch_to_device(
        self,
        batch: tuple[Observation, Target],
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002
    ) -> tuple[Observation, Target]:
        """Move a batch; lightning cannot move frozen dataclasses."""
        x, y = batch
        return x.to(device), y.to(device)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser and its schedule."""
        groups = parameter_groups(self.model, self.config)
        optimizer = make_optimizer(groups, self.config)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, [self._share_of(group["lr"]) for group in groups]
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": self.config.schedule_by},
        }

    def lr_factor(self, step: int, peak: float | None = None) -> float:
        """Learning rate of an epoch, or of a step where it changes by step, as a share of its peak.

        By epoch it is FUTR's LinearWarmupCosine.
        """
        steps = 1
        if self.config.schedule_by == "step":
            steps = int(self.trainer.estimated_stepping_batches) // self.config.epochs
        epochs = self.config.epochs
        return rate_share(
            self.config,
            step,
            steps * epochs,
            steps * min(self.config.warmup_epochs, epochs),
            peak or self.config.lr,
        )

    def _share_of(self, peak: float) -> Callable[[int], float]:
        # Not a bound method, whose attributes would be written into the state to resume from.
        return lambda step: self.lr_factor(step, peak)


@runtime_checkable
class Epochs(Protocol):
    """A sampler of batches whose order is a function of the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to iterate over."""


class Order(Callback):
    """Tells the sampler which epoch it is; lightning tells samplers of items, not of batches."""

    def __init__(self, sampler: Epochs) -> None:
        self.sampler = sampler

    def on_train_epoch_start(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,  # noqa: ARG002
    ) -> None:
        """Draw another order, other shares and other paces."""
        self.sampler.set_epoch(trainer.current_epoch)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes the state to resume from so that the last good file survives a kill or a full disk."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ARG002
    ) -> None:
        """Serialise in memory: torch hides a full disk behind an error of its own."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        replace_file(Path(path), content.getvalue())


class MetricsFile(Logger):
    """Metrics as CSV, one row an epoch; a resumed run goes on with the rows it has.

    Lightning's own logger deletes them.
    """

    def __init__(self, path: Path, epochs_done: int) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, Any]] = {}
        if path.exists():
            with path.open(newline="") as file:
                rows = {int(row["epoch"]): dict(row) for row in csv.DictReader(file)}
            self.rows = {epoch: row for epoch, row in rows.items() if epoch < epochs_done}

    @property
    def name(self) -> str:
        """Of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """None."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """They stand in the checkpoint."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add to the row of an epoch and write the file."""
        epoch = int(metrics["epoch"])
        row = {"epoch": epoch, "step": step, **self.rows.get(epoch, {})}
        self.rows[epoch] = row | {k: v for k, v in metrics.items() if k != "epoch"}
        columns = dict.fromkeys(name for row in self.rows.values() for name in row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(columns))
        writer.writeheader()
        writer.writerows(self.rows.values())
        replace_file(self.path, text.getvalue().encode())


class Selector(Callback):
    """Scores a model now and then and keeps the best checkpoint."""

    everywhere = False
    """Whether every process scores, or the first alone."""

    def __init__(
        self,
        name: str,
        model_config: object,
        config: Optimisation,
        score: Callable[[Anticipator], float] | None,
        folder: Path,
        run: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.model_config = model_config
        self.config = config
        self.score = score
        self.folder = folder
        self.run = run
        self.best = -math.inf
        self.best_epoch = -1

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore[override]
        """Validate, save, say how far training is."""
        epoch, last = trainer.current_epoch, trainer.current_epoch + 1 == self.config.epochs
        due = (epoch + 1) % self.config.validate_every == 0 or last
        if self.score is not None and due and (trainer.is_global_zero or self.everywhere):
            score = self.score(module.model)
            module.train()
            # The step of what lightning logs of this epoch.
            step = trainer.global_step - 1
            for logger in trainer.loggers:
                logger.log_metrics({"validation/score": score, "epoch": epoch}, step=step)
            if score > self.best or self.best_epoch < 0:
                self.best, self.best_epoch = score, epoch
                self._save(module, "best", {"epoch": epoch, "score": score})
        if last and (trainer.is_global_zero or self.everywhere):
            if self.score is None:
                self._save(module, "best", {"epoch": epoch})
            self._save(module, "last", {"epoch": epoch})
        trainer.strategy.barrier("selection")

    def _save(self, module: Training, folder: str, chosen: Mapping[str, Any]) -> None:
        run = {**self.run, **chosen}
        # A model may have found out more of itself than it was built from, as a trunk's commit.
        config = getattr(module.model, "config", self.model_config)
        save_checkpoint(self.folder / folder, self.name, module.model, config, run)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]


class Remaining(Callback):
    """Says how far training is and how long it will still take."""

    def __init__(self, what: str, selector: Selector) -> None:
        self.what = what
        self.selector = selector
        self.reporter = Reporter()
        self.started = self.said = 0.0
        self.first_step = 0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Start the clock; a resumed run counts from where it resumed."""
        self.started = self.said = time.monotonic()
        self.first_step = trainer.current_epoch * max(int(trainer.num_training_batches), 1)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Report now and then."""
        now = time.monotonic()
        if now - self.said < self.reporter.every or not trainer.is_global_zero:
            return
        self.said = now
        batches = int(trainer.num_training_batches)
        done = trainer.current_epoch * batches + batch_idx + 1 - self.first_step
        total = (trainer.max_epochs or 0) * batches - self.first_step
        loss = trainer.callback_metrics.get("train/loss")
        more = f", epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        more += f", loss {float(loss):.3f}" if loss is not None else ""
        more += f", best {self.selector.best:.2f}" if math.isfinite(self.selector.best) else ""
        self.reporter.say(self.what, done, total, now - self.started, more)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:  # noqa: ARG002
        """Leave the line."""
        self.reporter.close()
