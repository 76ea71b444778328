"""Where two coarse futures differ only by their fine history, describing it is what teaches them.

All learn from the same few videos in the same steps and fit them; who learns to name the fine
actions besides finds what is common to them, and who does not learns them by heart.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from actioncast.data import Video
from actioncast.data.collate import collate, cut
from actioncast.hierarchy_recipes import FLAT, INCONSISTENT, UNIMODAL
from actioncast.metrics import moc, moc_counts
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.protocols import LongTerm
from actioncast.timeline import Taxonomy, run_lengths
from actioncast.types import Observation, Prediction, Target, most_likely
from fine_history import ABOVE, COARSE, FINE, FineHistory, fine_history

SEEDS = (0, 1, 2)
"""Of the videos, and of the weights."""
STEPS, WARM, PEAK = 70, 10, 3e-3
DATA = FineHistory()
SMALL = MMAntConfig(
    feature_dim=DATA.feature_dim,
    hidden_dim=32,
    num_heads=4,
    num_queries=3,
    max_positions=DATA.half,
    encoder="hash:32",
)
ARMS = {"multi-modal": {}, "uni-modal": UNIMODAL, "flat": FLAT, "inconsistent": INCONSISTENT}


Batch = tuple[Observation, Target]


@cache
def halves(seed: int, matters: bool) -> tuple[Taxonomy, Batch, Batch]:
    """The first halves of the videos to train on and of those to test on, and what is true."""
    dataset = fine_history(replace(DATA, matters=matters, seed=seed))
    split = dataset.split("1")
    train, test = (dataset.select(names) for names in (split.train, split.test))
    return dataset.taxonomy, half(train), half(test)


def half(videos: Sequence[Video]) -> Batch:
    asked = [LongTerm().question(video.num_frames, 0.5, video.rate) for video in videos]
    samples = [cut(v, question, 1, len(COARSE)) for v, question in zip(videos, asked, strict=True)]
    return collate(samples, "activity")


def future_moc(said: Sequence[Prediction], y: Target) -> float:
    """MoC, in percent, of the other halves, of which each is one action throughout."""
    assert y.future is not None
    correct, total = np.zeros(len(COARSE), int), np.zeros(len(COARSE), int)
    for prediction, true in zip(said, y.future[:, 0].tolist(), strict=True):
        assert prediction.future is not None
        counts = moc_counts(most_likely(prediction.future), np.full(DATA.half, true), len(COARSE))
        correct, total = correct + counts[0], total + counts[1]
    return moc(correct, total)


@cache
def learned(arm: str, seed: int, matters: bool = True) -> dict[str, float]:
    """What one training comes to, in percent.

    MoC of the `future` and, on the videos trained on, how well it `fitted`; where fine actions are
    described, how many frames of the videos held out are `described` rightly.
    """
    taxonomy, train, test = halves(seed, matters)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = replace(SMALL, **ARMS[arm]).build(taxonomy).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=5e-3)
        for step in range(STEPS):
            fallen = max(0, step - WARM) / (STEPS - WARM)
            share = min(1.0, (step + 1) / WARM) * (1 + math.cos(math.pi * fallen)) / 2
            optimizer.param_groups[0]["lr"] = PEAK * share
            optimizer.zero_grad()
            torch.stack(list(model.losses(*train).values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()
    said = model.predict(test[0])
    scores = {
        "future": future_moc(said, test[1]),
        "fitted": future_moc(model.predict(train[0]), train[1]),
    }
    named = [prediction.levels["action"] for prediction in said if prediction.levels]
    if named:
        right = torch.stack(named).argmax(-1) == test[1].frames["action"]
        scores["described"] = 100 * float(right.float().mean())
    return scores


def mean(arm: str, score: str = "future", matters: bool = True) -> float:
    return float(np.mean([learned(arm, seed, matters)[score] for seed in SEEDS]))


@pytest.mark.slow
def test_multimodal_beats_unimodal_by_twenty_points_where_only_fine_history_tells() -> None:
    for seed in SEEDS:
        multi, uni = learned("multi-modal", seed), learned("uni-modal", seed)
        # Nobody is held back: both know the videos that they were trained on.
        assert min(multi["fitted"], uni["fitted"]) > 90, (seed, multi, uni)
        assert multi["future"] > uni["future"] + 20, (seed, multi, uni)
        assert multi["described"] > 80, (seed, multi)
        assert "described" not in uni
    assert mean("multi-modal") > mean("uni-modal") + 30
    assert mean("multi-modal") > 85


@pytest.mark.slow
def test_where_fine_history_tells_nothing_both_are_level_at_chance() -> None:
    multi, uni = (mean(arm, matters=False) for arm in ("multi-modal", "uni-modal"))
    assert abs(multi - uni) < 12, (multi, uni)
    assert max(abs(multi - 50), abs(uni - 50)) < 12, (multi, uni)


@pytest.mark.slow
def test_text_that_speaks_the_predicted_level_gains_nothing() -> None:
    """It describes every step of a video alike."""
    assert mean("flat", "fitted") > 75
    assert mean("flat") < mean("uni-modal") + 15
    assert mean("flat") < mean("multi-modal") - 20


@pytest.mark.slow
def test_the_names_of_fine_actions_are_what_gains_not_their_consistency() -> None:
    assert mean("inconsistent") > mean("uni-modal") + 20


# What the videos are


def test_what_is_seen_is_one_coarse_label_and_two_fine_ones_in_their_order() -> None:
    dataset = fine_history(DATA)
    assert dataset.taxonomy.primary == "activity"
    counted = np.zeros((len(COARSE), len(COARSE)), int)
    for video in dataset.videos.values():
        coarse, fine = video.frames(), video.frames_of("action")
        assert [COARSE.names[i] for i in coarse] == [ABOVE[FINE.names[i]] for i in fine]
        runs = [label for label, _, _ in run_lengths(fine)]
        assert len(runs) == 3
        assert [end for _, _, end in run_lengths(coarse)] == [DATA.half, 2 * DATA.half]
        assert FINE.names[runs[2]] == ("bake" if runs[0] < runs[1] else "fry")
        counted[coarse[0], coarse[-1]] += 1
    assert counted[:2, 2:].sum() == counted.sum() == DATA.num_train + DATA.num_test
    assert counted[:2, 2:].min() > 0.15 * counted.sum()


def test_how_often_a_fine_action_is_seen_tells_nothing() -> None:
    """Nor its share of the frames seen, which is drawn alike in both orders."""
    dataset = fine_history(replace(DATA, num_test=800))
    told: dict[int, list[float]] = {2: [], 3: []}
    for video in dataset.videos.values():
        fine = video.frames_of("action")[: DATA.half]
        told[video.frames()[-1]].append(float((fine % 2).mean()))
    baked, fried = (np.mean(shares) for shares in told.values())
    assert abs(baked - fried) < 0.04


def test_without_meaning_either_order_leads_anywhere() -> None:
    dataset = fine_history(replace(DATA, matters=False))
    ways = set()
    for video in dataset.videos.values():
        runs = [label for label, _, _ in run_lengths(video.frames_of("action"))]
        ways.add(tuple(runs))
    assert len(ways) == 8
