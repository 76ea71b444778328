"""Training on short actions: which clips, in which order, held out by participant, and the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.utils.data import DataLoader, Sampler

from actioncast.checkpoint import save_checkpoint
from actioncast.clip_coming import selecting_distance
from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_evaluation import labels_of, selecting_score
from actioncast.clip_frames import RawFrames, SeenClips, collate_seen
from actioncast.clip_sources import Sources
from actioncast.clip_variation import VariedClips, varied_numbers
from actioncast.data.clip_samples import ClipSamples, collate_clips
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.inference import coming_actions, next_actions
from actioncast.models.base import Anticipator, ClipCounter, CountingAnticipator, CountsLabels
from actioncast.timeline import Taxonomy
from actioncast.training import Machine, begin, model_name, run_facts
from actioncast.types import Observation, Target, Task
from actioncast.video.backbones import build_backbone

TRAIN, VALIDATION = "train", "validation"
SPLIT = "1"
"""Name of the one split of train and validation, as run folders have one for each split."""
KIND = "clips"
"""What a checkpoint says of a run on short actions."""
ClipBatches = DataLoader[tuple[Observation, Target]]


class ShuffledClips(Sampler[list[int]]):
    """Every clip once an epoch, or a share of them drawn anew for each, in batches.

    The order depends on seed and epoch alone, so that training resumed at an epoch goes on as if it
    had never stopped. Under DDP each process takes every n-th batch; batches that do not go round
    are left out of the epoch. A share of the clips is numbered for an exchange of nouns
    (`clip_variation.VariedClips`).
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        seed: int,
        exchange: float = 0.0,
        share: float = 1.0,
    ) -> None:
        self.num_clips = num_clips
        self.num_shown = min(num_clips, max(1, round(share * num_clips)))
        self.batch_size = batch_size
        self.seed = seed
        self.exchange = exchange
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to iterate over; the trainer calls it."""
        self.epoch = epoch

    def batches(self, epoch: int) -> list[list[int]]:
        """All batches of an epoch."""
        seed = [self.seed, epoch]
        order = np.random.default_rng(seed).permutation(self.num_clips)[: self.num_shown].tolist()
        if self.exchange:
            order = varied_numbers(order, self.num_clips, self.exchange, seed)
        return [order[a : a + self.batch_size] for a in range(0, len(order), self.batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.batches(self.epoch)
        rank, world = _place()
        for i in range(len(self)):
            yield batches[(i * world + rank) % len(batches)]

    def __len__(self) -> int:
        num_batches = -(-self.num_shown // self.batch_size)
        return max(1, num_batches // _place()[1]) if num_batches else 0


def _place() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def clip_batches(
    clips: Sequence[ActionClip],
    sources: Sources,
    anticipation_time: float,
    *,
    sampler: ShuffledClips | None = None,
    varied: Taxonomy | None = None,
    supervise: bool = False,
    batch_size: int = 256,
    num_workers: int = 0,
) -> ClipBatches:
    """A loader of clips in the order of a sampler, or in their own.

    Args:
        clips: What is read.
        sources: What is shown of each.
        anticipation_time: Seconds.
        sampler: Says the order, and which clips are varied.
        varied: The labels of clips that the sampler varies; absent, it varies none.
        supervise: Label every step shown besides, for training.
        batch_size: Where there is no sampler.
        num_workers: Processes that read.
    """
    chosen: dict[str, Any] = {"batch_sampler": sampler} if sampler else {"batch_size": batch_size}
    dataset: Any = ClipSamples(clips, sources.every, supervise=supervise, truth=sources.sequences)
    collated: Any = collate_clips
    if varied is not None:
        dataset = VariedClips(dataset, varied)
    if isinstance(sources.first, RawFrames):
        dataset, collated = SeenClips(dataset, sources.first), collate_seen
    # Samples go in, batches come out, which torch's type cannot say.
    return DataLoader(
        dataset,
        collate_fn=partial(collated, anticipation_time=anticipation_time, rate=sources.rate),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        multiprocessing_context="fork" if num_workers > 0 else None,
        **chosen,
    )


def hold_out(
    clips: Sequence[ActionClip], share: float, seed: int
) -> tuple[list[ActionClip], list[ActionClip]]:
    """Cut training clips into a training and a held-out part, no participant on both sides.

    Whole participants are drawn until the held-out part has at least `share` of the clips. Of a
    single participant nothing can be held out.
    """
    people = sorted({clip.participant for clip in clips})
    count = {who: sum(clip.participant == who for clip in clips) for who in people}
    held, drawn = set[str](), 0
    for i in np.random.default_rng(seed).permutation(len(people))[: max(0, len(people) - 1)]:
        if drawn >= share * len(clips):
            break
        held.add(people[i])
        drawn += count[people[i]]
    return (
        [clip for clip in clips if clip.participant not in held],
        [clip for clip in clips if clip.participant in held],
    )


def fit_widths(config: ClipTrainConfig, sources: Sources) -> ClipTrainConfig:
    """The config whose model has the widths of what it is shown.

    Raises:
        ValueError: The model cannot read it, or does not name next actions.
    """
    model: Any = config.model
    name = model_name(model)
    known = {field.name for field in fields(model)}
    others = tuple((source.name, source.width) for source in sources.others)
    if others and "modalities" not in known:
        raise ValueError(
            f"{name} reads no modality besides the first, got {', '.join(n for n, _ in others)}; "
            "say --questions none and leave --objects out."
        )
    values: dict[str, Any] = {}
    if "feature_dim" in known:
        values["feature_dim"] = sources.first.width
        if isinstance(sources.first, RawFrames):
            values["feature_dim"] = build_backbone(model.backbone).width
    if "modalities" in known:
        values["modalities"] = others
    if "num_coming" in known:
        values["num_coming"] = config.num_actions if config.task == "coming_actions" else 0
    return replace(config, model=replace(model, **values)) if values else config


def build_for_clips(config: ClipTrainConfig, dataset: ClipDataset) -> Anticipator:
    """The untrained model of a seed; the caller's random state is left as it was.

    Raises:
        ValueError: It learns nothing from clips, or its input is another.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = config.model.build(dataset.taxonomy)
    coming = config.task == "coming_actions"
    wanted = Task.COMING if coming else Task.NEXT_ACTION
    if wanted not in model.tasks or isinstance(model, CountingAnticipator):
        learns = "learns from whole videos"
        if Task.NEXT_ACTION in model.tasks or Task.COMING in model.tasks:
            learns = "names one action" if coming else "names the actions to come"
        raise ValueError(
            f"{model_name(config.model)} {learns}, got clips of {dataset.name}; take a model of "
            f"{'coming' if coming else 'next'} actions."
        )
    if isinstance(model, ClipCounter) and config.input != "history":
        raise ValueError(
            f"{model_name(config.model)} counts observed actions, got input {config.input}; say "
            "--input history."
        )
    if isinstance(model, ClipCounter) and config.history.rate:
        raise ValueError(
            f"{model_name(config.model)} counts observed actions, got a history of "
            f"{config.history.rate:g} steps a second, which tells one action many times; say "
            "--history.rate 0."
        )
    return model


def train_clips(
    config: ClipTrainConfig,
    dataset: ClipDataset,
    sources: Sources,
    folder: Path,
    machine: Machine,
    recipe: str = "",
    data: Path | None = None,
) -> Path:
    """Train on the train part, leave `best/` and `last/`; goes on where a kill stopped it.

    A run that is finished is left as it is.

    Args:
        config: The recipe, after `fit_widths`.
        dataset: The data.
        sources: What is shown of each clip.
        folder: Of the run's one split.
        machine: Where it runs.
        recipe: Its name, for the passport.
        data: Where the data lies, so that `evaluate` finds it.

    Returns:
        The folder of the selected checkpoint.

    Raises:
        ValueError: The folder holds a run with other values, or nothing can be held out.
    """
    clips, held = list(sources.asked(dataset, TRAIN)), list[ActionClip]()
    model = build_for_clips(config, dataset)
    counts = isinstance(model, ClipCounter)
    if config.selection == "validation" and not counts:
        clips, held = hold_out(clips, config.validation_share, config.seed)
    elif config.selection == "test" and not counts:
        held = list(sources.asked(dataset, VALIDATION))
    if config.selection != "last" and not counts and not held:
        raise ValueError(
            f"selection on {config.selection} needs clips held out, got none: with a single "
            "participant say --selection last."
        )
    begin(folder, config, dataset.fingerprint())
    if (folder / ("best" if counts else "last") / "config.json").exists():
        return folder / "best"
    about = describe_clips(config, dataset, sources, recipe, data, held)
    name, ahead = model_name(config.model), config.protocol().anticipation_time
    if isinstance(model, ClipCounter):
        model.fit_clips(clip_batches(clips, sources, ahead))
        save_checkpoint(folder / "best", name, model, config.model, about)
        return folder / "best"
    if isinstance(model, CountsLabels):
        # Of all that may be learned from, those too that no clip is asked after.
        kept = {clip.participant for clip in clips}
        found = labels_of([clip for clip in dataset.part(TRAIN) if clip.participant in kept])
        model.count_labels({head: torch.from_numpy(labels) for head, labels in found.items()})

    from actioncast.lightning_run import descend  # noqa: PLC0415  (lightning takes seconds)

    sampler = ShuffledClips(
        len(clips), config.batch_size, config.seed, config.exchange, config.clip_share
    )
    workers = machine.num_workers
    varied = dataset.taxonomy if config.exchange else None
    batches = clip_batches(
        clips,
        sources,
        ahead,
        sampler=sampler,
        varied=varied,
        supervise=config.supervise == "steps",
        num_workers=workers,
    )
    watched = clip_batches(held, sources, ahead, num_workers=workers) if held else None

    def score(trained: Anticipator) -> float:
        assert watched is not None
        device = str(next(trained.parameters()).device)
        if sources.sequences is not None:
            answers = coming_actions(trained, watched, device)
            return selecting_distance(answers, sources.sequences.truth(held), config.select_by)
        assert config.task != "coming_actions"
        scores = next_actions(trained, watched, device)
        return selecting_score(scores, held, config.task, config.select_by)

    chosen = None if watched is None else score
    descend(model, name, config.model, config, batches, sampler, chosen, folder, machine, about)
    return folder / "best"


def describe_clips(
    config: ClipTrainConfig,
    dataset: ClipDataset,
    sources: Sources,
    recipe: str,
    data: Path | None,
    held: Sequence[ActionClip],
) -> Mapping[str, Any]:
    """What a checkpoint says of the run that made it."""
    on_train = config.selection == "validation"
    return {
        "kind": KIND,
        **run_facts(config, dataset.name, dataset.fingerprint(), recipe, data),
        "split": SPLIT,
        "held_out": sorted({clip.participant for clip in held}) if on_train else [],
        "input": sources.input,
        "questions": sources.questions,
    }
