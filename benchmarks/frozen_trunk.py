"""Weigh and time one training step through a frozen trunk against one through a trunk that learns.

ActionLLM on the real MiniLM, float32, 302 observed steps with text and features and 20 queries: 624
tokens. The other step is the same but that the trunk's weights ask for gradients and the optimiser
moves them. Memory is the most that tensors take at once, beyond the weights, in a step that is not
the first: forward pass, backward pass, the optimiser with what it keeps. What is stored between
forward and backward is weighed by itself, and so is what the optimiser keeps. Each step runs in a
process of its own. `--checkpointing` computes layers a second time.
Exit status 1 if the frozen step takes more than half of the memory.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from statistics import median

import torch
from torch import Tensor

from actioncast.models.actionllm import ActionLLM, ActionLLMConfig
from actioncast.timeline import Taxonomy
from actioncast.trunks import TrunkConfig
from actioncast.types import Observation, Target

STEPS, QUERIES, LABELS, WIDTH = 302, 20, 48, 2048
MOST = 0.5
"""Share of the memory that the frozen step may take."""
MEGABYTE = 2**20


def model_of(kind: str, *, checkpointing: bool) -> ActionLLM:
    """ActionLLM whose trunk is frozen, or learns."""
    # MiniLM has 512 places: text and features of one step share theirs.
    trunk = TrunkConfig(positions="step", gradient_checkpointing=checkpointing)
    config = ActionLLMConfig(trunk=trunk, feature_dim=WIDTH, num_queries=QUERIES)
    model = config.build(Taxonomy.of([f"action {i}" for i in range(LABELS)]))
    model.train()
    model.trunk.requires_grad_(kind == "learns")
    return model


def example() -> tuple[Observation, Target]:
    """A video of random features whose observed labels are known."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(LABELS, (1, STEPS), generator=generator)
    features = torch.randn(STEPS, WIDTH, generator=generator)
    seen = Observation.of_one(features, rate=15.0, horizon=500)
    seen = type(seen)(
        features=seen.features,
        valid=seen.valid,
        rate=seen.rate,
        horizon=seen.horizon,
        labels=labels,
    )
    future = torch.tensor([[3, 7, 1, LABELS]])
    shares = torch.tensor([[0.5, 0.25, 0.25, float("nan")]])
    truth = Target(frames={"action": labels}, next={}, future=future, durations=shares)
    return seen, truth


def peak(call: Callable[[], object]) -> int:
    """Most bytes that tensors made in a call take at once."""
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        call()
    found = profiler.kineto_results
    assert found is not None, "the profiler has results when it has ended"
    events = [event for event in found.events() if event.name() == "[memory]"]
    ordered = sorted(events, key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in ordered), default=0)


def stored(model: ActionLLM, seen: Observation, truth: Target) -> int:
    """Bytes kept for the backward pass, weights left out; each storage counts once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = model.losses(seen, truth)
    assert terms, "the graph, and with it what is kept, lives until here"
    return sum(kept.values())


def measure(kind: str, repeats: int, *, checkpointing: bool) -> dict[str, float]:
    """Memory in MB and seconds of one training step."""
    model = model_of(kind, checkpointing=checkpointing)
    seen, truth = example()
    moved = [p for p in model.parameters() if p.requires_grad]
    kept = stored(model, seen, truth)
    optimizer = torch.optim.AdamW(moved, lr=1e-4)

    def step() -> None:
        torch.stack(list(model.losses(seen, truth).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    # What the optimiser keeps from step to step counts as well.
    state = sum(x.nbytes for own in optimizer.state.values() for x in own.values())
    most = peak(step) + state
    times: list[float] = []
    for _ in range(repeats):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return {
        "peak": most / MEGABYTE,
        "stored": kept / MEGABYTE,
        "optimiser": state / MEGABYTE,
        "seconds": median(times),
        "moved": sum(p.numel() for p in moved),
        "tokens": model.sequence_length(seen),
    }


def main() -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=("frozen", "learns"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        torch.set_num_threads(given.threads)
        print(json.dumps(measure(given.one, given.repeats, checkpointing=given.checkpointing)))
        return 0
    rows: dict[str, dict[str, float]] = {}
    for kind in ("frozen", "learns"):
        words = [sys.executable, __file__, "--one", kind, *sys.argv[1:]]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        rows[kind] = json.loads(done.stdout.splitlines()[-1])
    share = rows["frozen"]["peak"] / rows["learns"]["peak"]
    if given.json:
        print(json.dumps({**rows, "share": share}, indent=1))
    else:
        print(
            f"{'trunk':8} {'tokens':>6} {'moved':>12} {'peak MB':>8} {'stored MB':>9} "
            f"{'optimiser MB':>12} {'s':>7}"
        )
        for kind, row in rows.items():
            print(
                f"{kind:8} {row['tokens']:>6.0f} {row['moved']:>12,.0f} {row['peak']:>8.1f} "
                f"{row['stored']:>9.1f} {row['optimiser']:>12.1f} {row['seconds']:>7.3f}"
            )
        print(f"the frozen step takes {share:.2f} of the memory; {MOST} is asked")
    return int(share > MOST)


if __name__ == "__main__":
    sys.exit(main())
