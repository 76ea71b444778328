import csv
import errno
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import folders
from actioncast import training
from actioncast.__main__ import main
from actioncast.batches import CutVideos, Item, Variation
from actioncast.data import Dataset, open_dataset
from actioncast.data.collate import collate
from actioncast.features import FeatureSource
from actioncast.lightning_run import Training, _trainer, epochs_done
from actioncast.models.base import CountsFirst
from actioncast.models.futr import FUTR, FUTRConfig
from actioncast.models.semi_markov import SemiMarkovConfig
from actioncast.protocols import LongTerm
from actioncast.runs import checkpoints, load_run, train_run
from actioncast.scoring import evaluate_run
from actioncast.training import PLAN, RESUME, Machine, TrainConfig, build, prepare, train_split
from actioncast.types import Observation, Target, TrainingTimeline

CPU = Machine(accelerator="cpu", quiet=True)
LIVELY = folders.recipe(
    model=replace(folders.TINY, dropout=0.2),
    ratio_jitter=0.1,
    warp=0.2,
    epochs=6,
    selection="validation",
    validation_share=0.3,
    validate_every=2,
)
"""A recipe that draws random numbers wherever one can."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The number of threads changes the order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folders.write_folder(tmp_path / "data")


def opened(path: Path) -> Dataset:
    return open_dataset(path=path)


def trained(
    data: Path, folder: Path, config: TrainConfig, machine: Machine = CPU, **options: Any
) -> Path:
    train_run("tiny", config, folder, data=data, machine=machine, **options)
    return folder / "split1"


def weights(checkpoint: Path) -> dict[str, Tensor]:
    return load_file(checkpoint / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)


def about(checkpoint: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())["run"]
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@dataclass
class Counted:
    """Features that do something when they are read for the n-th time."""

    source: FeatureSource
    reads: list[int]
    at: int
    act: Callable[[], None]
    num_features: int = folders.WIDTH
    process: int = field(default_factory=os.getpid)

    def read(self, start: int, end: int, stride: int = 1) -> np.ndarray:
        self.reads.append(end)
        if len(self.reads) == self.at and os.getpid() == self.process:
            self.act()
        return self.source.read(start, end, stride)


def acting(
    dataset: Dataset, at: int, act: Callable[[], None], reads: list[int] | None = None
) -> Dataset:
    reads = [] if reads is None else reads
    videos = {
        name: replace(video, features=Counted(video.features, reads, at, act))
        for name, video in dataset.videos.items()
        if video.features is not None
    }
    return replace(dataset, videos=videos)


def interrupt() -> None:
    raise KeyboardInterrupt


def one_batch(data: Path, config: TrainConfig) -> tuple[Observation, Target]:
    dataset = opened(data)
    videos = dataset.select(dataset.split("1").train)
    cuts = CutVideos(videos, config.protocol(), config.stride, len(folders.NAMES), Variation())
    return collate([cuts[Item(i, 0.5)] for i in range(4)], "action")


# What is learned


def test_the_loss_falls_on_one_batch(data: Path) -> None:
    config = folders.recipe(model=replace(folders.TINY, dropout=0.0))
    x, y = one_batch(data, config)
    model = build(config, opened(data))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = torch.stack(list(model.losses(x, y).values())).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


def test_training_lowers_the_loss_and_leaves_checkpoints_and_logs(
    data: Path, tmp_path: Path
) -> None:
    folder = trained(data, tmp_path / "run", folders.recipe(epochs=8, lr=1e-2))
    logged = rows(folder)
    assert [row["epoch"] for row in logged] == [str(e) for e in range(8)]
    losses = [float(row["train/loss"]) for row in logged]
    assert losses[-1] < 0.8 * losses[0]
    parts = [float(logged[0][f"train/{name}"]) for name in ("past", "future", "duration")]
    assert losses[0] == pytest.approx(sum(parts))
    board = EventAccumulator(str(folder / "logs"))
    board.Reload()
    assert [e.value for e in board.Scalars("train/loss")] == pytest.approx(losses)
    for name in ("best", "last"):
        found = sorted(path.name for path in (folder / name).iterdir())
        assert found == ["config.json", "labels.json", "model.safetensors"]
    assert same(folder / "best", folder / "last")
    assert about(folder / "best")["epoch"] == 7


def test_one_seed_gives_one_result_and_another_another(data: Path, tmp_path: Path) -> None:
    first, again, other = (
        trained(data, tmp_path / name, replace(LIVELY, seed=seed, epochs=2))
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert same(first / "last", again / "last")
    assert not same(first / "last", other / "last")
    assert rows(first) == rows(again)


def test_every_epoch_shows_other_cuts_in_another_order(data: Path, tmp_path: Path) -> None:
    config, dataset = prepare(folders.recipe(ratio_jitter=0.2, epochs=2), opened(data))
    ends: list[int] = []
    watched = acting(dataset, 0, interrupt, ends)
    train_split(config, watched, "1", tmp_path / "run", CPU)
    items = 3 * len(dataset.split("1").train)
    assert len(ends) == 2 * items
    assert sorted(ends[:items]) != sorted(ends[items:])
    # A whole video is shown as it is.
    whole = {dataset.videos[name].num_frames for name in dataset.split("1").train}
    assert whole <= set(ends[:items]) & set(ends[items:])


def test_the_callers_random_state_is_left_alone(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(data, tmp_path / "run", folders.recipe(epochs=1))
    assert torch.rand(3).equal(expected)


class Gradients(Callback):
    """The gradients of every step."""

    def __init__(self) -> None:
        self.found: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:  # noqa: ARG002
        gradients = {n: p.grad.clone() for n, p in module.named_parameters()}
        self.found.append(gradients)


def test_two_accumulated_halves_give_the_gradient_of_the_whole(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """True where both halves count the same number of labels: every term is a mean."""
    monkeypatch.chdir(tmp_path)
    config = folders.recipe(model=replace(folders.TINY, dropout=0.0), epochs=1)
    two = Item(0, 0.5), Item(0, 0.5)
    dataset = opened(data)
    cuts = CutVideos([dataset.videos["v0"]], config.protocol(), 1, len(folders.NAMES), Variation())
    whole = [collate([cuts[item] for item in two * 2], "action")]
    halves = [collate([cuts[item] for item in two], "action")] * 2
    found = []
    for batches, accumulate in ((whole, 1), (halves, 2)):
        gradients = Gradients()
        changed = replace(config, accumulate=accumulate)
        trainer = _trainer(changed, CPU, [gradients], [])
        loader: Any = torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=lambda b: b)
        trainer.fit(Training(build(config, dataset), changed), loader)
        assert len(gradients.found) == 1
        found += gradients.found
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)
    assert any(gradient.abs().max() > 1e-3 for gradient in found[0].values())


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [(0, 0), (1, 1.111e-4), (5, 5.556e-4), (9, 1e-3), (10, 1e-3), (35, 5e-4), (59, 9.9e-7)],
)
def test_the_released_schedule_wastes_an_epoch(data: Path, epoch: int, lr: float) -> None:
    config = folders.recipe(epochs=60, warmup_epochs=10, warmup_from_zero=True)
    module = Training(build(config, opened(data)), config)
    assert 1e-3 * module.lr_factor(epoch) == pytest.approx(lr, rel=5e-3)


def test_our_schedule_wastes_none(data: Path, tmp_path: Path) -> None:
    config = folders.recipe(epochs=6, warmup_epochs=3, lr=0.3)
    logged = rows(trained(data, tmp_path / "run", config))
    lrs = [float(row["lr"]) for row in logged]
    assert lrs == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.225, 0.075])
    # A warm-up that outlasts training never reaches beyond its peak.
    module = Training(build(config, opened(data)), replace(config, epochs=2, warmup_epochs=9))
    assert [module.lr_factor(e) for e in range(2)] == [0.5, 1.0]


def test_bf16_trains_float32_weights(data: Path, tmp_path: Path) -> None:
    config = folders.recipe(epochs=1)
    folder = trained(data, tmp_path / "bf16", config, replace(CPU, precision="bf16"))
    full = trained(data, tmp_path / "fp32", config)
    assert all(
        w.dtype == torch.float32 and w.isfinite().all() for w in weights(folder / "last").values()
    )
    assert not same(folder / "last", full / "last")
    for name, weight in weights(full / "last").items():
        torch.testing.assert_close(weights(folder / "last")[name], weight, atol=0.02, rtol=0.1)


def test_machines_that_do_not_exist_are_refused(data: Path, tmp_path: Path) -> None:
    wrong = [(replace(CPU, precision="fp16"), "fp16 needs a GPU")]
    if not torch.cuda.is_available():
        wrong += [(Machine(accelerator="gpu"), "accelerator gpu needs a GPU")]
        wrong += [(Machine(precision="fp16"), "fp16 needs a GPU")]
    for machine, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            trained(data, tmp_path / "run", folders.recipe(), machine)
    for values in ({"devices": 0}, {"num_workers": -1}):
        with pytest.raises(ValueError, match="at least"):
            Machine(**values)
    assert not (tmp_path / "run").exists()


def test_a_constant_schedule_warms_up_and_stays(data: Path) -> None:
    config = folders.recipe(epochs=6, warmup_epochs=2, schedule="constant")
    module = Training(build(config, opened(data)), config)
    assert [module.lr_factor(e) for e in range(6)] == [0.5, 1, 1, 1, 1, 1]
    cold = Training(module.model, replace(config, warmup_epochs=0))
    assert {cold.lr_factor(e) for e in range(6)} == {1}


def test_the_optimiser_is_the_one_asked_for(data: Path) -> None:
    for name, kind in (("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)):
        config = folders.recipe(optimizer=name, weight_decay=0.25)
        found = Training(build(config, opened(data)), config).configure_optimizers()["optimizer"]
        assert type(found) is kind
        assert found.param_groups[0]["weight_decay"] == 0.25


# Offsets of a stride


OFFSETS = replace(LIVELY, stride=2, offsets=True, postprocess="median", postprocess_size=3)


def test_training_reads_from_every_offset_and_inference_averages_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts: list[int] = []
    losses = FUTR.losses

    def watched(self: FUTR, x: Observation, y: Target) -> Any:
        assert x.first is not None
        firsts.extend(x.first.tolist())
        return losses(self, x, y)

    monkeypatch.setattr(FUTR, "losses", watched)
    folder = trained(data, tmp_path / "run", OFFSETS)
    assert set(firsts) == {0, 1}
    (loaded,) = load_run(folder)
    running = loaded.inference()
    assert (running.offsets, running.postprocess, running.postprocess_size) == (True, "median", 3)
    result = evaluate_run([loaded], OFFSETS.protocol())
    assert result.passport.inference == "2 offsets averaged, median 3"
    plain = trained(data, tmp_path / "plain", replace(LIVELY, epochs=1))
    assert evaluate_run(load_run(plain), LIVELY.protocol()).passport.inference == ""


def test_a_resumed_run_draws_the_offsets_of_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    config, dataset = prepare(OFFSETS, opened(data))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_split(config, dataset, "1", whole, CPU)
    with pytest.raises(KeyboardInterrupt):
        train_split(config, acting(dataset, 30, interrupt), "1", broken, CPU)
    assert 0 < epochs_done(broken / RESUME) < config.epochs
    train_split(config, dataset, "1", broken, CPU)
    assert same(whole / "last", broken / "last")
    assert rows(whole) == rows(broken)


def test_a_checkpoint_from_before_offsets_runs_as_it_did(data: Path, tmp_path: Path) -> None:
    folder = trained(data, tmp_path / "run", folders.recipe(epochs=1))
    file = folder / "best" / "config.json"
    said = json.loads(file.read_text())
    for name in ("offsets", "postprocess", "postprocess_size", "optimizer", "schedule"):
        del said["run"]["training"][name]
    file.write_text(json.dumps(said))
    (loaded,) = load_run(folder)
    running = loaded.inference()
    assert (running.offsets, running.postprocess) == (False, "none")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"postprocess": "median"}, "postprocess_size must be at least 1 for median, got 0"),
        ({"offsets": True, "anchor": "end"}, "got anchor end; take anchor start, or no offsets"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        folders.recipe(**values)


# Models that count before they descend


def test_a_model_that_was_trained_and_saved_is_gone_from_memory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: else several stand side by side in a process that trains many."""
    alive: list[weakref.ref[Any]] = []

    def built(*given: Any) -> Any:
        model = build(*given)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(training, "build", built)
    gc.disable()
    try:
        trained(data, tmp_path / "run", folders.recipe(epochs=1))
        left = [model() is not None for model in alive]
    finally:
        gc.enable()
    assert left == [False]


class CountingFUTR(FUTR, CountsFirst):
    """Remembers how many videos it counted, and that it had not descended yet."""

    counted: ClassVar[list[int]] = []

    def count(self, timelines: Sequence[TrainingTimeline]) -> None:
        self.counted.append(len(timelines))
        assert torch.is_grad_enabled()
        assert all(p.grad is None for p in self.parameters())


def test_a_model_that_counts_first_counts_the_videos_it_trains_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counting(config: TrainConfig, dataset: Dataset) -> CountingFUTR:
        return CountingFUTR(cast(FUTRConfig, config.model), dataset.taxonomy)

    monkeypatch.setattr(training, "build", counting)
    CountingFUTR.counted.clear()
    config, dataset = prepare(LIVELY, opened(data))
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_split(config, acting(dataset, 20, interrupt), "1", folder, CPU)
    train_split(config, dataset, "1", folder, CPU)
    held = len(about(folder / "best")["held_out"])
    assert held
    assert CountingFUTR.counted == 2 * [len(dataset.split("1").train) - held]
    train_split(config, dataset, "1", folder, CPU)
    assert len(CountingFUTR.counted) == 2


# Which checkpoint counts


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("last", "last epoch"),
        ("validation", "best on training videos held out"),
        ("test", "best on the test split, which flatters"),
    ],
)
def test_the_passport_says_how_the_checkpoint_was_chosen(
    data: Path, tmp_path: Path, selection: Any, words: str
) -> None:
    config = replace(LIVELY, selection=selection, validate_every=1, lr=0.02)
    folder = trained(data, tmp_path / "run", config)
    run, logged = about(folder / "best"), rows(folder)
    if selection == "last":
        assert run["epoch"] == config.epochs - 1
        assert "validation/score" not in logged[0]
    else:
        scores = [float(row["validation/score"]) for row in logged]
        assert run["score"] == max(scores)
        assert run["epoch"] == scores.index(max(scores))
    held = set(run["held_out"])
    parts = opened(data).split("1")
    assert held < set(parts.train)
    assert bool(held) == (selection == "validation")
    result = evaluate_run(load_run(folder), config.protocol())
    assert result.passport.selection == words
    if selection == "test":
        assert result.total["mean"] == pytest.approx(run["score"])


def test_validation_is_done_when_due_and_at_the_end(data: Path, tmp_path: Path) -> None:
    config = replace(LIVELY, epochs=5, validate_every=2, select_by="segmentation")
    logged = rows(trained(data, tmp_path / "run", config))
    assert [row["epoch"] for row in logged if row["validation/score"]] == ["1", "3", "4"]


def test_nothing_to_hold_out_is_said(tmp_path: Path) -> None:
    data = folders.write_folder(tmp_path / "two", num_videos=2)
    with pytest.raises(ValueError, match="say --selection last"):
        trained(data, tmp_path / "run", folders.recipe(selection="validation"))


def test_counting_models_count_and_are_done(data: Path, tmp_path: Path) -> None:
    config = TrainConfig(model=SemiMarkovConfig(), input="labels", selection="last")
    folder = trained(data, tmp_path / "run", config)
    before = (folder / "best" / "model.safetensors").stat().st_mtime_ns
    trained(data, tmp_path / "run", config, resume=True)
    assert (folder / "best" / "model.safetensors").stat().st_mtime_ns == before
    assert not (folder / RESUME).exists()


# Stopped and resumed


@pytest.mark.parametrize(
    ("at", "num_workers", "done"), [(5, 0, 0), (20, 0, 1), (24, 0, 2), (50, 0, 4), (6, 1, 3)]
)
def test_a_run_interrupted_anywhere_and_resumed_ends_as_an_unbroken_one(
    data: Path, tmp_path: Path, at: int, num_workers: int, done: int
) -> None:
    """An epoch trains on 9 samples, every second one validates on 4.

    With workers the features of validation alone are read in this process.
    """
    machine = replace(CPU, num_workers=num_workers)
    config, dataset = prepare(LIVELY, opened(data))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_split(config, dataset, "1", whole, CPU)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_split(config, acting(dataset, at, interrupt), "1", broken, machine)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (broken / "last").exists()
    assert epochs_done(broken / RESUME) == done
    train_split(config, dataset, "1", broken, machine)
    for name in ("best", "last"):
        assert same(whole / name, broken / name)
        assert about(whole / name) == about(broken / name)
    assert rows(whole) == rows(broken)


def test_a_killed_run_resumed_ends_as_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    words = [*folders.SMALL, "--data", str(data), "--out", str(tmp_path / "runs")]
    words += ["--epochs", "25", "--warp", "0.2", "--selection", "validation"]
    words += ["--validation-share", "0.3"]
    assert main(["train", "futr", *words, "--name", "whole"]) == 0
    folder = tmp_path / "runs" / "broken" / "split1"
    process = folders.start("train", "futr", *words, "--name", "broken")
    wait_for(folder / RESUME, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert not (folder / "last").exists()
    assert 0 < epochs_done(folder / RESUME) < 25
    assert main(["train", "futr", *words, "--name", "broken"]) == 2
    assert main(["train", "futr", *words, "--name", "broken", "--resume"]) == 0
    whole = tmp_path / "runs" / "whole" / "split1"
    for name in ("best", "last"):
        assert same(whole / name, folder / name)
        assert about(whole / name) == about(folder / name)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_finished_run_is_left_as_it_is(data: Path, tmp_path: Path) -> None:
    folder = trained(data, tmp_path / "run", folders.recipe())
    files = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    trained(data, tmp_path / "run", folders.recipe(), resume=True)
    after = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}
    assert after == files


def test_a_changed_recipe_is_refused_with_its_fields(data: Path, tmp_path: Path) -> None:
    folder = trained(data, tmp_path / "run", folders.recipe())
    changed = folders.recipe(lr=0.01, model=replace(folders.TINY, hidden_dim=16))
    with pytest.raises(ValueError, match="begun with other values") as caught:
        trained(data, tmp_path / "run", changed, resume=True)
    for words in ("lr was 0.001 and is 0.01", "model.hidden_dim was 8 and is 16", "--name"):
        assert words in str(caught.value)
    assert "epochs" not in str(caught.value)
    labels = next(iter((data / "groundTruth").glob("*.txt")))
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    with pytest.raises(ValueError, match="data was"):
        trained(data, tmp_path / "run", folders.recipe(), resume=True)
    (folder / PLAN).write_text("{")
    with pytest.raises(ValueError, match="must be JSON"):
        trained(data, tmp_path / "run", folders.recipe(), resume=True)


def test_the_splits_of_a_run_are_of_one_recipe(tmp_path: Path) -> None:
    """Whichever are trained in which order, and before any is."""
    data = folders.write_folder(tmp_path / "data", splits=2)
    run = tmp_path / "run"
    trained(data, run, folders.recipe(epochs=1), splits=["1"])
    for splits in (["2"], ["1", "2"], ["2", "1"]):
        with pytest.raises(ValueError, match=r"split1 was begun with other values \(lr was 0.001"):
            trained(data, run, folders.recipe(epochs=1, lr=0.01), splits=splits, resume=True)
        assert not (run / "split2").exists()
    trained(data, run, folders.recipe(epochs=1), splits=["2"], resume=True)
    shutil.rmtree(run / "split1")
    with pytest.raises(ValueError, match=r"split2 was begun with other values"):
        trained(data, run, folders.recipe(epochs=2), splits=["1"], resume=True)


def test_a_run_whose_splits_were_trained_otherwise_is_scored_and_says_so(tmp_path: Path) -> None:
    data = folders.write_folder(tmp_path / "data", splits=2)
    plain, other = folders.recipe(epochs=1), folders.recipe(epochs=1, lr=0.01, dataset="data")
    train_run("futr-50salads", plain, tmp_path / "run", data=data, machine=CPU, splits=["1"])
    train_run("futr-50salads", other, tmp_path / "other", data=data.parent, machine=CPU)
    alike = evaluate_run(load_run(tmp_path / "other"), other.protocol()).passport
    assert "lr 0.01" in alike.changed
    assert alike.note == ""
    shutil.copytree(tmp_path / "other" / "split2", tmp_path / "run" / "split2")
    mixed = evaluate_run(load_run(tmp_path / "run"), plain.protocol(), note="before.").passport
    assert "lr 0.01" in mixed.changed
    assert mixed.note == (
        "before. its splits were trained with other values than one another (lr 0.001, 0.01)."
    )


def test_another_machine_may_go_on(data: Path, tmp_path: Path) -> None:
    config, dataset = prepare(LIVELY, opened(data))
    with pytest.raises(KeyboardInterrupt):
        train_split(config, acting(dataset, 30, interrupt), "1", tmp_path / "run", CPU)
    other = replace(CPU, precision="bf16")
    train_split(config, dataset, "1", tmp_path / "run", other)
    assert len(rows(tmp_path / "run")) == config.epochs


def test_a_run_that_failed_before_its_first_epoch_can_be_begun_anew(
    data: Path, tmp_path: Path
) -> None:
    file = data / "features" / "v0.npy"
    good = np.load(file)
    np.save(file, np.full_like(good, np.nan))
    with pytest.raises(ValueError, match=r"v0.npy must hold finite numbers"):
        trained(data, tmp_path / "run", folders.recipe())
    np.save(file, good)
    trained(data, tmp_path / "run", folders.recipe(lr=0.01))


def test_a_data_worker_says_what_is_wrong(data: Path, tmp_path: Path) -> None:
    file = data / "features" / "v0.npy"
    np.save(file, np.full_like(np.load(file), np.nan))
    with pytest.raises(ValueError, match=r"v0.npy must hold finite numbers") as caught:
        trained(data, tmp_path / "run", folders.recipe(), replace(CPU, num_workers=1))
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_state_that_holds_code_is_not_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "futr", *folders.SMALL, "--data", str(data), "--out", str(tmp_path / "runs")]
    folder = tmp_path / "runs" / "futr" / "split1"
    folder.mkdir(parents=True)
    state = {"epoch": 0, "state_dict": Evil(tmp_path / "ran")}
    torch.save(state, folder / RESUME)
    assert main([*words, "--resume"]) == 2
    said = capsys.readouterr().err
    assert "holds code" in said
    assert "Traceback" not in said
    assert not (tmp_path / "ran").exists()
    # The file does run code where it is trusted, so the test can fail.
    torch.load(folder / RESUME, weights_only=False)
    assert (tmp_path / "ran").exists()
    (folder / RESUME).write_bytes(b"PK\x03\x04 cut off")
    assert main([*words, "--resume"]) == 2
    assert "is broken" in capsys.readouterr().err


def test_a_full_disk_leaves_the_last_good_state(data: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk."""
    config, dataset = prepare(LIVELY, opened(data))
    whole, folder = tmp_path / "whole", tmp_path / "run"
    train_split(config, dataset, "1", whole, CPU)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        size = (folder / RESUME).stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))

    try:
        with pytest.raises(OSError, match="File too large") as caught:
            train_split(config, acting(dataset, 30, fill), "1", folder, CPU)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert epochs_done(folder / RESUME) >= 1
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []
    train_split(config, dataset, "1", folder, CPU)
    assert same(whole / "best", folder / "best")


def test_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    trained(data, tmp_path / "run", folders.recipe(epochs=1))
    with pytest.raises(ValueError, match="already holds a run; say --resume"):
        trained(data, tmp_path / "run", folders.recipe(epochs=1))
    said: list[str] = []
    trained(data, tmp_path / "other", folders.recipe(epochs=1), resume=True, say=said.extend)
    assert "holds no run to go on with" in said[0]


# Many processes


RANKS = """
import sys
import torch
from pathlib import Path
from actioncast.data import open_dataset
from actioncast.lightning_run import fit
from actioncast.training import Machine, build, prepare
import folders

if __name__ == "__main__":
    data, out = map(Path, sys.argv[1:])
    config, dataset = prepare(folders.recipe(epochs=2, lr=0.01), open_dataset(path=data))
    model = build(config, dataset)
    videos = dataset.select(dataset.split("1").train)
    machine = Machine(accelerator="cpu", quiet=True)
    fit(model, "futr", config, videos, [], out, machine, {})
    import os
    torch.save(model.state_dict(), out / f"rank{os.environ['RANK']}.pt")
"""


def test_two_processes_of_torchrun_agree(data: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "ranks.py", tmp_path / "out"
    script.write_text(RANKS)
    out.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(data), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(out / f"rank{i}.pt", weights_only=True) for i in range(2))
    assert all(one[name].equal(two[name]) for name in one)
    saved = weights(out / "last")
    assert all(saved[name].equal(one[name]) for name in saved)
    assert len(rows(out)) == 2


def test_devices_2_trains_every_split_and_writes_once(tmp_path: Path) -> None:
    data = folders.write_folder(tmp_path / "data", splits=2, num_videos=6)
    runs = tmp_path / "runs"
    words = ["--data", data, "--out", runs, "--devices", 2, "--json"]
    code, out, err = folders.run("train", "futr", *folders.SMALL, *words)
    assert code == 0, err
    assert "Traceback" not in err
    said = json.loads(out)
    assert said["checkpoints"] == {
        str(k): str(runs / "futr" / f"split{k}" / "best") for k in (1, 2)
    }
    for folder in checkpoints(runs / "futr").values():
        assert [row["epoch"] for row in rows(folder.parent)] == ["0", "1"]
        events = list((folder.parent / "logs").glob("events*"))
        assert len(events) == 1
    assert evaluate_run(load_run(runs / "futr"), LongTerm()).total["mean"] >= 0
