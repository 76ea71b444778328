"""Time the streaming step of CLAM in every engine, and say how far each is from PyTorch.

Full size (EPIC-KITCHENS-100: 106.9 M parameters, 3,806 actions) and a small preset, random weights,
standard normal frames, an answer after every frame, batch 1. All engines take turns, some steps
each, in rounds on the same frames; rounding is fitted on other frames. Random weights leave the
likeliest actions nearly tied, which is the hardest case for their agreement: between the fifth and
the sixth of 3,806 lie 0.03 of a logit. Exit status 1 if a limit is missed.

Leave OMP_PROC_BIND unset: the engines' threads would share one core. `--first` asks the system to
let nothing else run during the steps (needs root), for machines that are never quiet.
"""

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actioncast.checkpoint import Checkpoint
from actioncast.export.description import Precision
from actioncast.export.exporting import export_checkpoint
from actioncast.export.runtime import Engine, ExportedStream, StreamState
from actioncast.models.clam import CLAM
from actioncast.models.clam_config import ClamConfig
from actioncast.models.clam_state import ClamState
from actioncast.timeline import LabelSpace, Taxonomy

FULL = ClamConfig()
SMALL = ClamConfig(hidden_dim=384, predictor_layers=2, predictor_dim=1024)
"""Proposed as `clam-small`."""
LIMITS_MS = {
    ("full", "fp32"): 20.0,
    ("full", "int8"): 9.0,
    ("small", "fp32"): 4.0,
}
EQUAL, AGREEMENT, SMALL_PARAMETERS = 1e-5, 0.98, 12_000_000
ENGINES: dict[str, tuple[Precision, Engine]] = {
    "fp32": ("fp32", "onnxruntime"),
    "fp32 in OpenVINO": ("fp32", "openvino"),
    "bfloat16": ("bfloat16", "openvino"),
    "int8": ("int8", "openvino"),
}
Answered = tuple[np.ndarray, np.ndarray]
"""Probabilities of the action under way and of the action ahead."""


def kitchen() -> Taxonomy:
    """As many labels as EPIC-KITCHENS-100 has."""
    sizes = {"verb": 97, "noun": 300, "action": 3806}
    return Taxonomy({h: LabelSpace(tuple(f"{h} {i}" for i in range(n))) for h, n in sizes.items()})


class Eager:
    """The model itself, float32."""

    def __init__(self, model: CLAM) -> None:
        self.model = model
        self.state: ClamState = model.initial_state(1)

    def restart(self) -> None:
        """Forget everything."""
        self.state = self.model.initial_state(1)

    @torch.inference_mode()
    def step(self, frame: np.ndarray) -> Answered:
        """Take one frame in and answer."""
        model = self.model
        tokens, self.state = model.take_in(torch.from_numpy(frame)[None, None], self.state)
        past = model.scores(tokens[0])
        future = model.scores(model.answer(self.state)[0])
        probs = [{h: s[:, 1:].softmax(-1).numpy() for h, s in of.items()} for of in (past, future)]
        return probs[0]["action"][0], probs[1]["action"][0]


class Exported:
    """An engine."""

    def __init__(self, folder: Path, engine: Engine, threads: int) -> None:
        self.stream = ExportedStream(folder, threads, engine=engine)
        self.state: StreamState = self.stream.initial_state()

    def restart(self) -> None:
        """Forget everything."""
        self.state = self.stream.initial_state()

    def step(self, frame: np.ndarray) -> Answered:
        """Take one frame in and answer."""
        step = self.stream.step(frame, self.state)
        self.state = step.state
        assert step.future is not None
        return step.past["action"][0], step.future["action"][0]


@contextmanager
def alone(first: bool) -> Iterator[None]:
    """Real-time priority for every thread of this process."""

    def every(policy: int, priority: int) -> None:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))

    if first:
        every(os.SCHED_FIFO, 10)
    try:
        yield
    finally:
        if first:
            every(os.SCHED_OTHER, 0)


def answered(engine: Any, frames: np.ndarray, first: bool) -> tuple[np.ndarray, np.ndarray]:
    """All answers from the first frame on."""
    engine.restart()
    with alone(first):
        found = [engine.step(frame) for frame in frames]
    return np.stack([past for past, _ in found]), np.stack([future for _, future in found])


def timed(
    engines: dict[str, Any], frames: np.ndarray, rounds: int, first: bool
) -> dict[str, list[float]]:
    """Milliseconds of steps; in each round every engine takes all frames."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            engine.restart()
            for frame in frames[:3]:
                engine.step(frame)
            with alone(first):
                for frame in frames:
                    start = time.perf_counter()
                    engine.step(frame)
                    taken[name].append(1e3 * (time.perf_counter() - start))
            time.sleep(0.3)
    return taken


def agreement(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Share of steps with the same five likeliest actions, and share of actions in common."""
    tops = [np.argsort(-probs, 1)[:, :5] for probs in (one, other)]
    shared = np.array([len(set(a) & set(b)) for a, b in zip(*tops, strict=True)])
    return float((shared == 5).mean()), float(shared.mean() / 5)


def measure(
    size: str, config: ClamConfig, options: argparse.Namespace, make: Callable[[str], Path]
) -> list[str]:
    """Print a table of one size; returns what was missed."""
    torch.manual_seed(options.seed)
    model = config.build(kitchen()).eval()
    count = sum(parameter.numel() for parameter in model.parameters())
    checkpoint = Checkpoint(model=model, name="clam", run={"rate": 4.0, "training": {"stride": 1}})
    drawn = np.random.default_rng(options.seed + 1)
    fitted = drawn.standard_normal((512, config.feature_dim)).astype(np.float32)
    frames = drawn.standard_normal((options.steps, config.feature_dim)).astype(np.float32)
    folders: dict[Precision, Path] = {}
    for precision in ("fp32", "bfloat16", "int8"):
        folders[precision] = make(f"{size}-{precision}")
        rounded = precision == "int8"
        export_checkpoint(checkpoint, folders[precision], precision, fitted if rounded else None)
    gc.collect()
    engines: dict[str, Any] = {"eager": Eager(model)}
    for name, (precision, engine) in ENGINES.items():
        engines[name] = Exported(folders[precision], engine, options.threads)
    right = answered(engines["eager"], frames, options.first)
    taken = timed(engines, frames[: options.timed], options.rounds, options.first)
    print(f"\n{size}: {count:,} parameters, {options.steps} steps")
    print("engine | ms a step, median (95th percentile) | furthest probability | same top 5, past "
          "and ahead | in common")  # fmt: skip
    missed = ["parameters"] * (size == "small" and count > SMALL_PARAMETERS)
    for name, engine in engines.items():
        found = right if name == "eager" else answered(engine, frames, options.first)
        off = max(float(np.abs(a - b).max()) for a, b in zip(found, right, strict=True))
        same = [agreement(a, b) for a, b in zip(found, right, strict=True)]
        middle, late = map(float, np.percentile(taken[name], [50, 95]))
        print(
            f"{name} | {middle:.2f} ({late:.2f}) | {off:.1e} | {same[0][0]:.3f} {same[1][0]:.3f} | "
            f"{same[0][1]:.4f} {same[1][1]:.4f}",
            flush=True,
        )
        missed += [f"{size} {name} time"] * (middle > LIMITS_MS.get((size, name), 1e9))
        missed += [f"{size} {name} values"] * (name.startswith("fp32") and off > EQUAL)
        low = bool(min(share for share, _ in same) < AGREEMENT)
        missed += [f"{size} {name} agreement"] * (name == "int8" and size == "full" and low)
    return missed


def main() -> int:
    """Print both tables; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="compared with PyTorch")
    parser.add_argument("--timed", type=int, default=40, help="steps an engine takes in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", nargs="+", choices=("full", "small"), default=("full", "small"))
    parser.add_argument("--first", action="store_true", help="real-time priority for the steps")
    options = parser.parse_args()
    if os.environ.get("OMP_PROC_BIND"):
        raise SystemExit("unset OMP_PROC_BIND: the engines' threads would share one core.")
    torch.set_num_threads(options.threads)
    missed = []
    with tempfile.TemporaryDirectory() as home:
        for size in options.sizes:
            config = {"full": FULL, "small": SMALL}[size]
            missed += measure(size, config, options, lambda name: Path(home) / name)
    print(f"missed: {', '.join(missed)}" if missed else "every limit is kept")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
