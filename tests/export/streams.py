"""A small CLAM of three moments and three heads, and runs that hold it, for tests of its export."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from actioncast.checkpoint import Checkpoint, save_checkpoint
from actioncast.models.clam import CLAM
from actioncast.models.clam_config import ClamConfig
from actioncast.timeline import LabelSpace, Taxonomy

WIDTH, RATE, ACT_TOKENS = 6, 4.0, 3
KITCHEN = Taxonomy(
    {
        "verb": LabelSpace(("take", "put")),
        "noun": LabelSpace(("cup", "pan", "lid")),
        "action": LabelSpace(("take cup", "put cup", "take pan", "put lid")),
    },
    pairs=((0, 0), (1, 0), (0, 1), (1, 2)),
)
SIZES: dict[str, Any] = {
    "feature_dim": WIDTH,
    "hidden_dim": 16,
    "num_layers": 2,
    "state_dim": 4,
    "num_heads": 2,
    "act_tokens": ACT_TOKENS,
    "memory_queries": 4,
    "gate_rank": 4,
    "predictor_layers": 2,
    "predictor_dim": 24,
    "ahead": (0.5, 1.0),
}
RUN = {"rate": RATE, "training": {"stride": 1, "input": "features"}, "dataset": "kitchen"}


def clam(seed: int = 0, taxonomy: Taxonomy = KITCHEN, **more: Any) -> CLAM:
    torch.manual_seed(seed)
    return ClamConfig(**{**SIZES, **more}).build(taxonomy).eval()


def checkpoint(model: CLAM, **run: Any) -> Checkpoint:
    return Checkpoint(model=model, name="clam", run={**RUN, **run})


def write_run(folder: Path, model: CLAM, **run: Any) -> Path:
    save_checkpoint(folder / "split1" / "best", "clam", model, model.config, {**RUN, **run})
    return folder


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


@torch.inference_mode()
def eager(model: CLAM, given: np.ndarray) -> list[tuple[dict[str, Any], dict[str, Any], Any]]:
    """Probabilities of past and future by head and the state after each frame, in PyTorch."""
    state, found = model.initial_state(1), []
    for frame in given:
        tokens, state = model.take_in(torch.from_numpy(frame)[None, None], state)
        rows = [model._probabilities(v) for v in (tokens[:, 0], model.answer(state)[0])]
        past, future = ({head: row.numpy() for head, row in one.items()} for one in rows)
        found.append((past, future, state))
    return found
