"""Lightning's Trainer around the contract: loop, devices, precision, logs, resume.

It, `lightning_parts` and `lightning_sharding` alone import lightning; models never do.
"""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader

from actioncast.batches import ShuffledBatches, Variation, training_batches
from actioncast.data import Video
from actioncast.evaluation import selection_score
from actioncast.lightning_parts import (
    AtomicCheckpointIO,
    Epochs,
    MetricsFile,
    Order,
    Remaining,
    Selector,
    Training,
)
from actioncast.lightning_sharding import SpreadSelector, SpreadStrategy, SpreadTraining
from actioncast.models.base import Anticipator
from actioncast.optimisation import Optimisation
from actioncast.training import RESUME, Machine, TrainConfig
from actioncast.types import Observation, Target

Batches = DataLoader[tuple[Observation, Target]]
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


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
    """Train on videos cut at shares of their length; see `descend`.

    Raises:
        ValueError: Nothing can be held out, or the state to resume from cannot be read.
        KeyboardInterrupt: The user stopped it.
    """
    if config.selection != "last" and not held:
        raise ValueError(
            f"selection on {config.selection} needs videos held out, got none: with so few videos "
            "or groups say --selection last."
        )
    sampler = ShuffledBatches(
        videos,
        config.observed_ratios,
        config.ratio_jitter,
        config.batch_size,
        config.seed,
        config.stride if config.offsets else 0,
        config.starts,
    )
    batches = training_batches(
        videos,
        sampler,
        config.protocol(),
        config.stride,
        model.taxonomy,
        machine.num_workers,
        Variation(config.warp, config.relabel),
        config.anchor,
    )
    score = partial(selection_score, held=held, config=config)
    descend(
        model,
        name,
        config.model,
        config,
        batches,
        sampler,
        None if config.selection == "last" else score,
        folder,
        machine,
        run,
    )


def descend(
    model: Anticipator,
    name: str,
    model_config: object,
    config: Optimisation,
    batches: Batches,
    sampler: Epochs,
    score: Callable[[Anticipator], float] | None,
    folder: Path,
    machine: Machine,
    run: Mapping[str, Any],
) -> None:
    """Train on batches of anything; resume from the folder's last complete epoch if there is one.

    Args:
        model: Untrained.
        name: Of the model in `MODELS`.
        model_config: What it was built from.
        config: How its weights are moved.
        batches: The loader.
        sampler: What the loader draws from.
        score: Of a model, higher is better: the best epoch counts. Absent, the last one does.
        folder: Of the run.
        machine: Where it runs.
        run: What the checkpoints say of it.

    Raises:
        ValueError: The state to resume from cannot be read.
        KeyboardInterrupt: The user stopped it.
    """
    resume = folder / RESUME
    done = epochs_done(resume)
    # Workers ask for the first batches before training tells the epoch.
    sampler.set_epoch(done)
    spread = machine.strategy == "fsdp"
    select = SpreadSelector if spread else Selector
    selector = select(name, model_config, config, score, folder, run)
    callbacks: list[Callback] = [Order(sampler), selector]
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
    loggers: list[Logger] = [
        MetricsFile(folder / "logs" / "metrics.csv", done),
        TensorBoardLogger(folder, "logs", ""),
    ]
    with quiet():
        trainer = _trainer(config, machine, callbacks, loggers, model)
    with torch.random.fork_rng(), quiet(), _interruptible():
        trainer.fit(
            (SpreadTraining if spread else Training)(model, config),
            batches,
            ckpt_path=resume if done else None,
            weights_only=True,
        )


def epochs_done(resume: Path) -> int:
    """Complete epochs of a run that was stopped.

    Raises:
        ValueError: The file is broken, or holds code, which is never run.
    """
    if not resume.exists():
        return 0
    try:
        return int(torch.load(resume, map_location="cpu", weights_only=True)["epoch"]) + 1
    except OSError:
        raise
    except Exception:
        raise ValueError(
            f"{resume} must be the state that training wrote to go on from, got a file that is "
            "broken or holds code (none of it was run); take it away to train from the start."
        ) from None


def _processes(machine: Machine) -> tuple[int, int]:
    """Processes on each node, and nodes; torchrun knows both."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return machine.devices, 1
    devices = int(os.environ["LOCAL_WORLD_SIZE"])
    return devices, int(os.environ["WORLD_SIZE"]) // devices


def _strategy(
    machine: Machine, processes: int, model: Anticipator | None = None
) -> str | SpreadStrategy:
    """How processes share the work; one alone has nobody to share it with."""
    if machine.strategy == "fsdp":
        assert model is not None, "what is spread must be there"
        return SpreadStrategy(model, PRECISIONS[machine.precision])
    if machine.strategy == "auto" and processes == 1:
        return "auto"
    return "ddp_find_unused_parameters_true"


def _trainer(
    config: Optimisation,
    machine: Machine,
    callbacks: list[Callback],
    loggers: list[Logger],
    model: Anticipator | None = None,
) -> lightning.Trainer:
    devices, nodes = _processes(machine)
    strategy = _strategy(machine, devices * nodes, model)
    # FSDP brings its precision with it.
    precision: Any = PRECISIONS[machine.precision] if isinstance(strategy, str) else None
    return lightning.Trainer(
        accelerator=machine.accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=precision,
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.clip or None,
        logger=loggers,
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
def _interruptible() -> Iterator[None]:
    """Hand Ctrl-C and what a data worker raised on as they were; lightning and torch wrap them."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    except ValueError as error:
        if "Original Traceback" not in str(error):
            raise
        sentence = str(error).rstrip().rsplit("\nValueError: ", 1)[-1]
        raise ValueError(sentence) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lightning's advertisements and hints away from the user's progress line."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            unasked = (".*many workers.*", ".*exists and is not empty.*", ".*LeafSpec.*")
            # A frozen trunk never drops out.
            for text in (*unasked, ".*in eval mode at the start.*"):
                warnings.filterwarnings("ignore", text)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
