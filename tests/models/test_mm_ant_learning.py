"""Where two coarse futures differ only by their fine history, describing it is what teaches them.

All learn from the same few videos in the same steps and fit them; who learns to name the fine
actions besides finds what is common to them, and who does not learns them by heart.
"""

from functools import cache

import numpy as np
import pytest
import torch

from actioncast.data.collate import collate, cut
from actioncast.evaluation import score_long_term, score_segmentation
from actioncast.hierarchy_recipes import FLAT, INCONSISTENT, UNIMODAL
from actioncast.inference import InferenceConfig
from actioncast.models.mm_ant_config import MMAntConfig
from actioncast.protocols import LongTerm, Segmentation
from actioncast.types import IGNORE, most_likely
from fine_history import COARSE, FINE, FineHistory, fine_history

SEEDS = (0, 1, 2)
"""Of the videos, and of the weights."""
STEPS, WARM, PEAK = 80, 12, 3e-3
HALF = LongTerm(observed_ratios=(0.5,), horizon_ratios=(0.5,))
CELL = "moc 0.5/0.5"
SMALL = MMAntConfig(
    feature_dim=FineHistory().feature_dim,
    hidden_dim=32,
    num_heads=4,
    num_queries=3,
    max_positions=2 * FineHistory().half,
    encoder="hash:32",
)
ARMS = {"multi-modal": {}, "uni-modal": UNIMODAL, "flat": FLAT, "inconsistent": INCONSISTENT}
pytestmark = pytest.mark.slow


@cache
def learned(arm: str, seed: int, matters: bool = True) -> dict[str, float]:
    """Scores in percent of one training: MoC of the future, `fitted` on the videos trained on."""
    dataset = fine_history(FineHistory(matters=matters, seed=seed))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SMALL.__class__(**{**_fields(SMALL), **ARMS[arm]}).build(dataset.taxonomy).train()
        split = dataset.split("1")
        seen, held = dataset.select(split.train), dataset.select(split.test)
        asked = [(video, HALF.question(video.num_frames, 0.5, video.rate)) for video in seen]
        batch = collate([cut(*one, 1, len(COARSE)) for one in asked], "activity")
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=5e-3)
        for step in range(STEPS):
            fall = np.pi * max(0, step - WARM) / (STEPS - WARM)
            rate = min(1.0, (step + 1) / WARM) * (1 + np.cos(fall)) / 2
            optimizer.param_groups[0]["lr"] = PEAK * float(rate)
            optimizer.zero_grad()
            torch.stack(list(model.losses(*batch).values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()
    running = InferenceConfig(batch_size=len(held))
    found = {
        "future": score_long_term(model, held, HALF, running).total[CELL],
        "fitted": score_long_term(model, seen, HALF, running).total[CELL],
    }
    # Of the half that it is asked from: the model has no positions for more than it was shown.
    asked = [(video, HALF.question(video.num_frames, 0.5, video.rate)) for video in held]
    x, y = collate([cut(*one, 1, len(COARSE)) for one in asked], "activity")
    for head in ("action",):
        named = [most_likely(p.levels[head]) for p in model.predict(x) if head in p.levels]
        if named:
            found["described"] = 100 * float((np.stack(named) == y.frames[head].numpy()).mean())
    return found
