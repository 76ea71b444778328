import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from actioncast import clip_training
from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_runs import load_clip_run, train_clip_run
from actioncast.clip_sources import Sources, sources
from actioncast.clip_training import (
    ShuffledClips,
    build_for_clips,
    clip_batches,
    fit_widths,
    hold_out,
    train_clips,
)
from actioncast.data.action_history import HistoryConfig
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.epic_kitchens import open_epic_kitchens
from actioncast.lightning_parts import Training
from actioncast.models.futr import FUTRConfig
from actioncast.models.mamba_vl import MambaVL, MambaVLConfig
from actioncast.models.next_action_baselines import ClassFrequencyConfig, PairNGramConfig
from actioncast.optimisation import Optimisation, make_optimizer, parameter_groups, rate_share
from actioncast.questions.modes import QuestionMode
from actioncast.training import Machine
from clip_folders import write_kitchen

CPU = Machine(accelerator="cpu", quiet=True)
TINY = ClipTrainConfig(
    model=MambaVLConfig(hidden_dim=8, state_dim=2, dropout=0.2, drop_modality=0.2, balance=0.5),
    questions=QuestionMode.PREDICTED,
    text_encoder="hash:4",
    epochs=4,
    batch_size=8,
    warmup_epochs=1,
    lr=0.01,
    fast_lr=0.02,
    schedule_by="step",
    validation_share=0.3,
    validate_every=2,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def kitchen(tmp_path: Path) -> Path:
    return write_kitchen(tmp_path / "epic100")


def prepared(config: ClipTrainConfig, at: Path) -> tuple[ClipTrainConfig, ClipDataset, Sources]:
    dataset = open_epic_kitchens(at)
    shown = sources(config, dataset, at)
    return fit_widths(config, shown), dataset, shown


def weights(checkpoint: Path) -> dict[str, Any]:
    return load_file(checkpoint / "model.safetensors")


# Rates


PAPER = Optimisation(
    epochs=100,
    batch_size=128,
    lr=1e-3,
    fast_lr=3e-3,
    lr_start=1e-6,
    lr_end=1e-5,
    warmup_epochs=2,
    schedule_by="step",
)


@pytest.mark.parametrize(
    ("step", "rate", "fast"),
    [
        (0, 1e-6, 1e-6),
        # A third of the way up: a third of 9.99e-4, and of 2.999e-3, above the start.
        (33, 3.34e-4, 1e-6 + 2.999e-3 / 3),
        (99, 1e-3, 3e-3),
        (100, 1e-3, 3e-3),
        # Half of the way down: the mean of both ends.
        (2550, 5.05e-4, 1.505e-3),
        (5000, 1e-5, 1e-5),
    ],
)
def test_the_published_schedule_by_hand(step: int, rate: float, fast: float) -> None:
    """Fifty steps an epoch: 1e-6 to the peak in 100 steps, then a cosine down to 1e-5."""
    for peak, wanted in ((1e-3, rate), (3e-3, fast)):
        found = peak * rate_share(PAPER, step, 5000, 100, peak)
        assert found == pytest.approx(wanted, rel=1e-9)


@given(
    epochs=st.integers(1, 40),
    warmup=st.integers(0, 50),
    from_zero=st.booleans(),
    constant=st.booleans(),
)
def test_without_the_ends_the_schedule_is_futrs(
    epochs: int, warmup: int, from_zero: bool, constant: bool
) -> None:
    config = Optimisation(
        epochs=epochs,
        warmup_epochs=warmup,
        warmup_from_zero=from_zero,
        schedule="constant" if constant else "cosine",
    )
    up = min(warmup, epochs)
    for epoch in range(epochs):
        if epoch < up:
            wanted = epoch / max(up - 1, 1) if from_zero else (epoch + 1) / up
        elif constant:
            wanted = 1.0
        else:
            wanted = 0.5 * (1 + math.cos(math.pi * (epoch - up) / max(epochs - up, 1)))
        assert rate_share(config, epoch, epochs, up, config.lr) == wanted


def test_layers_learn_at_the_rates_and_decay_that_they_are_named_for(kitchen: Path) -> None:
    config, dataset, _ = prepared(replace(TINY, weight_decay=0.1, decay_biases=False), kitchen)
    model = build_for_clips(config, dataset)
    fast = {id(p) for p in model.fast_parameters()}
    groups = parameter_groups(model, config)
    assert groups[0]["lr"] == config.lr
    seen = set()
    for group in groups:
        for p in group["params"]:
            seen.add(id(p))
            assert group["lr"] == (0.02 if id(p) in fast else 0.01)
            spared = getattr(p, "_no_weight_decay", False) or p.ndim < 2
            assert group["weight_decay"] == (0 if spared else 0.1)
    assert seen == {id(p) for p in model.parameters()}
    marked = [p for p in model.parameters() if getattr(p, "_no_weight_decay", False)]
    assert any(p.ndim == 2 for p in marked), "A_log must be spared although it is a matrix"
    # Otherwise biases decay; what is marked never does.
    every = parameter_groups(model, replace(config, decay_biases=True, fast_lr=0.0))
    assert [group["weight_decay"] for group in every].count(0) == 1
    assert sum(len(g["params"]) for g in every if not g["weight_decay"]) == len(marked)


def test_stochastic_gradient_descent_has_momentum(kitchen: Path) -> None:
    config, dataset, _ = prepared(replace(TINY, optimizer="sgd"), kitchen)
    model = build_for_clips(config, dataset)
    optimizer = make_optimizer(parameter_groups(model, config), config)
    assert type(optimizer) is torch.optim.SGD
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


def test_a_rate_for_layers_that_nobody_names_is_refused(kitchen: Path) -> None:
    dataset = open_epic_kitchens(kitchen)
    model = FUTRConfig(hidden_dim=8, num_heads=2).build(dataset.taxonomy)
    for name in ("fast_lr", "backbone_lr"):
        with pytest.raises(ValueError, match=f"{name} must go with a model that names such"):
            Training(model, Optimisation(**{name: 0.1})).configure_optimizers()


def test_rates_that_are_none_are_refused() -> None:
    for name in ("fast_lr", "lr_start", "lr_end"):
        for rate in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name} must be a rate"):
                Optimisation(**{name: rate})
    with pytest.raises(ValueError, match="say one of them"):
        Optimisation(lr_start=1e-6, warmup_from_zero=True)


# Order and what is held out


@given(count=st.integers(1, 40), size=st.integers(1, 9), epoch=st.integers(0, 5))
def test_every_clip_comes_once_an_epoch(count: int, size: int, epoch: int) -> None:
    sampler = ShuffledClips(count, size, seed=3)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(count))
    assert batches == list(ShuffledClips(count, size, seed=3).batches(epoch))
    assert all(len(batch) == size for batch in batches[:-1])


@given(count=st.integers(1, 60), share=st.floats(0.01, 1), seed=st.integers(0, 5))
def test_an_epoch_may_show_a_share_of_the_clips(count: int, share: float, seed: int) -> None:
    sampler = ShuffledClips(count, 7, seed, share=share)
    shown = [i for batch in sampler for i in batch]
    assert len(shown) == len(set(shown)) == max(1, round(share * count))
    assert set(shown) <= set(range(count))
    assert len(sampler) == len(sampler.batches(0))
    again = ShuffledClips(count, 7, seed, share=share)
    assert again.batches(3) == sampler.batches(3)
    # Its clips are the first of a whole epoch.
    whole = [i for batch in ShuffledClips(count, 7, seed).batches(0) for i in batch]
    assert shown == whole[: len(shown)]


def test_each_epoch_draws_its_own_share() -> None:
    sampler = ShuffledClips(1000, 10, seed=0, share=0.25)
    drawn = [{i for batch in sampler.batches(epoch) for i in batch} for epoch in range(20)]
    assert all(len(own) == 250 for own in drawn)
    assert len(set.union(*drawn)) > 980
    assert 30 < len(drawn[0] & drawn[1]) < 95


def test_processes_share_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ShuffledClips(20, 4, seed=0).batches(0)
    found = []
    for rank in range(2):
        monkeypatch.setattr(clip_training, "_place", lambda rank=rank: (rank, 2))
        found.append(list(ShuffledClips(20, 4, seed=0)))
    assert found == [[whole[0], whole[2]], [whole[1], whole[3]]]


@given(seed=st.integers(0, 50), share=st.floats(0.05, 0.95))
def test_whole_participants_are_held_out(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    clips = [clip_of(f"P{int(rng.integers(6)):02}", i) for i in range(40)]
    trained, held = hold_out(clips, share, seed)
    people = {clip.participant for clip in clips}
    assert sorted(c.id for c in [*trained, *held]) == sorted(c.id for c in clips)
    assert not {c.participant for c in trained} & {c.participant for c in held}
    assert {c.participant for c in trained}
    if len(held) < share * len(clips):
        assert len({c.participant for c in trained}) == 1 < len(people)


def test_of_a_single_participant_nothing_is_held_out() -> None:
    clips = [clip_of("P01", i) for i in range(4)]
    assert hold_out(clips, 0.5, 0) == (clips, [])


def clip_of(who: str, i: int) -> ActionClip:
    return ActionClip(
        id=f"{who}_01_{i}",
        video=f"{who}_01",
        participant=who,
        start=float(i),
        stop=i + 1.0,
        verb=0,
        noun=0,
        action=0,
    )


def reads(monkeypatch: pytest.MonkeyPatch) -> list[ActionClip]:
    """Every clip that training reads from here on."""
    seen: list[ActionClip] = []
    read = clip_training.ClipSamples.__getitem__

    def watched(self: Any, i: int) -> Any:
        seen.append(self.clips[i])
        return read(self, i)

    monkeypatch.setattr(clip_training.ClipSamples, "__getitem__", watched)
    return seen


def test_selection_never_sees_the_validation_part(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = reads(monkeypatch)
    train_clip_run("tiny", TINY, tmp_path / "run", data=kitchen, machine=CPU)
    dataset = open_epic_kitchens(kitchen)
    validation = {clip.id for clip in dataset.part("validation")}
    assert {clip.id for clip in seen} == {clip.id for clip in dataset.part("train")}
    assert not {clip.id for clip in seen} & validation
    loaded = load_clip_run(tmp_path / "run", part="held_out")
    held = set(loaded.checkpoint.run["held_out"])
    assert held == {clip.participant for clip in loaded.clips}
    count = {who: sum(clip.participant == who for clip in seen) for who in ("P01", *held)}
    # Four epochs train everybody else; two validations read those held out.
    assert all(n == (2 * 12 if who in held else 4 * 12) for who, n in count.items())


def test_selection_on_test_reads_validation_and_says_so(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = reads(monkeypatch)
    config = replace(TINY, selection="test", epochs=1)
    train_clip_run("tiny", config, tmp_path / "run", data=kitchen, machine=CPU)
    assert {clip.video for clip in seen} >= {"P01_02", "P05_01"}
    loaded = load_clip_run(tmp_path / "run")
    assert loaded.checkpoint.run["held_out"] == []
    with pytest.raises(ValueError, match="held no participant out"):
        load_clip_run(tmp_path / "run", part="held_out")


# Runs


def test_a_stopped_run_resumed_ends_as_an_unbroken_one(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, dataset, shown = prepared(TINY, kitchen)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_clips(config, dataset, shown, whole, CPU)
    calls, losses = [], MambaVL.losses

    def stopping(self: MambaVL, x: Any, y: Any) -> Any:
        calls.append(len(x))
        if len(calls) == 11:
            raise KeyboardInterrupt
        return losses(self, x, y)

    monkeypatch.setattr(MambaVL, "losses", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_clips(config, dataset, shown, broken, CPU)
    assert not (broken / "last").exists()
    train_clips(config, dataset, shown, broken, CPU)
    for name in ("best", "last"):
        ours, theirs = weights(whole / name), weights(broken / name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours)
    # What is finished is left as it is.
    before = len(calls)
    train_clips(config, dataset, shown, broken, CPU)
    assert len(calls) == before


def test_a_run_goes_on_with_the_same_values_alone(kitchen: Path, tmp_path: Path) -> None:
    config = replace(TINY, epochs=1, selection="last")
    train_clip_run("tiny", config, tmp_path / "run", data=kitchen, machine=CPU)
    with pytest.raises(ValueError, match="already holds a run"):
        train_clip_run("tiny", config, tmp_path / "run", data=kitchen, machine=CPU)
    other = replace(config, anticipation_time=2.0)
    with pytest.raises(ValueError, match=r"anticipation_time was 1\.0 and is 2\.0"):
        train_clip_run("tiny", other, tmp_path / "run", data=kitchen, machine=CPU, resume=True)


def test_steps_train_and_are_told_to_nobody_who_is_scored(
    kitchen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training targets hold the steps of shown training clips; selection and scores have none."""
    found: list[Any] = []
    losses = MambaVL.losses

    def watched(self: MambaVL, x: Any, y: Any) -> Any:
        found.append((len(x), y))
        return losses(self, x, y)

    monkeypatch.setattr(MambaVL, "losses", watched)
    config = replace(
        TINY,
        history=HistoryConfig(rate=4.0, span=8.0),
        supervise="steps",
        clip_share=0.5,
        epochs=2,
    )
    train_clip_run("tiny", config, tmp_path / "run", data=kitchen, machine=CPU)
    loaded = load_clip_run(tmp_path / "run")
    held = set(loaded.checkpoint.run["held_out"])
    trained = [c for c in loaded.dataset.part("train") if c.participant not in held]
    assert sum(count for count, _ in found) == 2 * round(len(trained) / 2)
    for _, y in found:
        assert y.frames.keys() == y.starts.keys() == {"verb", "noun", "action"}
        last = (y.starts["action"] >= 0).long().flip(1).argmax(1)
        rows = torch.arange(len(last))
        seen = (y.starts["action"] >= 0).any(1)
        named = y.starts["action"].flip(1)[rows, last]
        assert (named[seen] == y.next["action"][seen]).all()
    (_, y), *_ = clip_batches(loaded.clips, loaded.sources, 1.0)
    assert not y.frames
    assert not y.starts
    assert loaded.sources.input == "annotated past actions at 4 steps a second over 8 s"


def test_training_learns_the_grammar(kitchen: Path) -> None:
    model = MambaVLConfig(hidden_dim=16, state_dim=2)
    config, dataset, shown = prepared(
        replace(TINY, model=model, questions=QuestionMode.NONE), kitchen
    )
    trained = build_for_clips(config, dataset)
    (batch,) = clip_batches(dataset.part("train"), shown, 1.0)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.02)
    first = last = 0.0
    for step in range(60):
        loss = torch.stack(list(trained.losses(*batch).values())).sum()
        first, last = (loss.item(), loss.item()) if not step else (first, loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < 0.7 * first


# What does not fit


def test_models_that_do_not_fit_are_refused(kitchen: Path) -> None:
    counting = replace(TINY, model=PairNGramConfig())
    with pytest.raises(ValueError, match="reads no modality besides the first, got questions"):
        prepared(counting, kitchen)
    videos = replace(TINY, model=FUTRConfig(), questions=QuestionMode.NONE)
    config, dataset, _ = prepared(videos, kitchen)
    with pytest.raises(ValueError, match="futr learns from whole videos"):
        build_for_clips(config, dataset)
    steps = replace(
        TINY,
        model=PairNGramConfig(),
        questions=QuestionMode.NONE,
        history=HistoryConfig(rate=4.0),
    )
    with pytest.raises(ValueError, match="tells one action many times"):
        build_for_clips(steps, dataset)
    seeing = replace(TINY, model=ClassFrequencyConfig(), input="features")
    with pytest.raises(ValueError, match="counts observed actions, got input features"):
        build_for_clips(seeing, dataset)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"frames": "inside_action"}, "got input history"),
        ({"task": "recognition"}, "need a question file"),
        ({"questions": QuestionMode.GENERIC, "question_file": "q"}, "must go with oracle"),
        ({"anticipation_time": 0.0}, "anticipation_time must be a positive"),
        ({"feature_rate": 0.0}, "feature_rate must be a positive"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(TINY, **values)


def test_data_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"was looked for in .*epic100"):
        train_clip_run("tiny", TINY, tmp_path / "run", data=tmp_path / "none", machine=CPU)


def test_balance_knows_the_clips_that_train_and_no_others(kitchen: Path, tmp_path: Path) -> None:
    """Neither those held out nor the validation part."""
    train_clip_run("tiny", replace(TINY, epochs=1), tmp_path / "run", data=kitchen, machine=CPU)
    loaded = load_clip_run(tmp_path / "run")
    held = set(loaded.checkpoint.run["held_out"])
    trained = [c for c in loaded.dataset.part("train") if c.participant not in held]
    assert held
    counts = np.bincount([clip.verb for clip in trained], minlength=3) + 1
    model: Any = loaded.checkpoint.model
    np.testing.assert_allclose(
        model.log_share_verb.numpy(), np.log(counts / counts.sum()), rtol=1e-5
    )


def test_an_epoch_and_a_seed_have_an_order_of_their_own() -> None:
    orders = {
        tuple(i for batch in ShuffledClips(50, 7, seed).batches(epoch) for i in batch)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4
    exchanged = {
        tuple(i for batch in ShuffledClips(50, 7, seed, 0.5).batches(epoch) for i in batch)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(i // 50 for i in order) for order in exchanged}) == 4


def test_seeds_give_other_weights_and_other_orders(kitchen: Path, tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        config = replace(TINY, seed=seed, epochs=1, selection="last")
        train_clip_run("tiny", config, tmp_path / str(seed), data=kitchen, machine=CPU)
        found.append(weights(tmp_path / str(seed) / "split1" / "best"))
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])
