"""Lightning's Trainer around the contract: loop, devices, precision, logs, resume.

The only file that imports lightning; models never do.
"""

import logging
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from actioncast.batches import ShuffledBatches, Variation, training_batches
from actioncast.checkpoint import save_checkpoint
from actioncast.data import Video
from actioncast.evaluation import selection_score
from actioncast.models.base import Anticipator
from actioncast.progress import Reporter
from actioncast.training import Machine, TrainConfig
from actioncast.types import Observation, Target

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
RESUME = "resume.ckpt"


class Training(lightning.LightningModule):
    """Sums a model's losses; AdamW, linear warm-up and cosine by epoch."""

    def __init__(self, model: Anticipator, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def on_train_epoch_start(self) -> None:
        """Seed dropout by epoch, so that a resumed run draws what an unbroken one draws."""
        torch.manual_seed(hash((self.config.seed, self.current_epoch, self.global_rank)))
        self.model.train()

    def training_step(self, batch: tuple[Observation, Target], _: int) -> Tensor:
        """One batch."""
        x, y = batch
        losses = self.model.losses(x, y)
        total = torch.stack(list(losses.values())).sum()
        logged = {f"train/{name}": value.detach() for name, value in losses.items()}
        self.log_dict(
            {**logged, "train/loss": total.detach()},
            on_step=False,
            on_epoch=True,
            batch_size=len(x),
            sync_dist=self.trainer.world_size > 1,
        )
        return total

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
        """AdamW and its schedule."""
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.lr_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "epoch"},
        }

    def lr_factor(self, epoch: int) -> float:
        """Learning rate of an epoch as a share of the peak (FUTR: LinearWarmupCosine by epoch)."""
        warmup, epochs = min(self.config.warmup_epochs, self.config.epochs), self.config.epochs
        if epoch < warmup:
            if self.config.warmup_from_zero:
                return epoch / max(warmup - 1, 1)
            return (epoch + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1)))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes the state to resume from so that the last good file survives a kill or a full disk."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ARG002
    ) -> None:
        """Write beside, flush, rename."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


class Selector(Callback):
    """Scores held-out videos now and then and keeps the best checkpoint."""

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        held: Sequence[Video],
        folder: Path,
        run: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.config = config
        self.held = list(held)
        self.folder = folder
        self.run = run
        self.best = -math.inf
        self.best_epoch = -1

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Training) -> None:  # type: ignore[override]
        """Validate, save, say how far training is."""
        epoch, last = trainer.current_epoch, trainer.current_epoch + 1 == self.config.epochs
        due = self.config.selection != "last" and (
            (epoch + 1) % self.config.validate_every == 0 or last
        )
        if due and trainer.is_global_zero:
            score = selection_score(module.model, self.held, self.config)
            module.train()
            for logger in trainer.loggers:
                logger.log_metrics({"validation/score": score}, step=trainer.global_step)
            if score > self.best:
                self.best, self.best_epoch = score, epoch
                self._save(module, "best")
        if last and trainer.is_global_zero:
            self._save(module, "last")
            if self.config.selection == "last":
                self._save(module, "best")
        trainer.strategy.barrier("selection")

    def _save(self, module: Training, folder: str) -> None:
        save_checkpoint(self.folder / folder, self.name, module.model, self.config.model, self.run)

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


def fit(
    model: Anticipator,
    name: str,
    config: TrainConfig,
    videos: Sequence[Video],
    held: Sequence[Video],
    folder: Path,
    machine: Machine,
    run: Mapping[str, Any],
) -> None:
    """Train; resume from the folder's last complete epoch if there is one."""
    if config.selection != "last" and not held:
        raise ValueError(
            f"selection on {config.selection} needs videos held out, got none: with so few videos "
            "or groups say --selection last."
        )
    sampler = ShuffledBatches(
        videos, config.observed_ratios, config.ratio_jitter, config.batch_size, config.seed
    )
    batches = training_batches(
        videos,
        sampler,
        config.protocol(),
        config.stride,
        model.taxonomy,
        machine.num_workers,
        Variation(config.warp, config.relabel),
    )
    selector = Selector(name, config, held, folder, run)
    callbacks: list[Callback] = [selector]
    if not machine.quiet:
        callbacks.append(Remaining(f"train {folder.name}", selector))
    # Last of all, so that the state it writes holds what the others decided in this epoch.
    callbacks.append(
        ModelCheckpoint(
            dirpath=folder,
            filename="resume",
            save_top_k=1,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    with quiet():
        trainer = _trainer(config, folder, machine, callbacks)
    resume = folder / RESUME
    with torch.random.fork_rng(), quiet():
        trainer.fit(
            Training(model, config),
            batches,
            ckpt_path=resume if resume.exists() else None,
            weights_only=True,
        )


def _trainer(
    config: TrainConfig, folder: Path, machine: Machine, callbacks: list[Callback]
) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        strategy="ddp_find_unused_parameters_true" if machine.devices > 1 else "auto",
        precision=PRECISIONS[machine.precision],  # type: ignore[arg-type]
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip or None,
        logger=[CSVLogger(folder, "logs", ""), TensorBoardLogger(folder, "logs", "")],
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        deterministic="warn",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lightning's advertisements and hints away from the user's progress line."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for text in (".*many workers.*", ".*exists and is not empty.*", ".*LeafSpec.*"):
                warnings.filterwarnings("ignore", text)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
