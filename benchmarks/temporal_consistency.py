"""Time the temporal consistency loss against a loop over frames and pairs.

Eight videos of 500 steps, the width of Breakfast's fine labels, runs of random length, the last
video half padding; forward and backward on one thread. Both run in turn on the same inputs, and the
median of the ratios of processor times counts. Exit status 1 if the limit is missed or values or
gradients differ.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "layers"))

import torch
from consistency_reference import consistency_in_a_loop
from torch import Tensor

from actioncast.layers.temporal_consistency import temporal_consistency
from actioncast.types import IGNORE

BATCH, TIME, HIDDEN = 8, 500, 48
FASTER = 10.0
"""Times that ours should be faster."""
MOST_DIFFERENT = 1e-5
FORMS = {"ours": temporal_consistency, "loop": consistency_in_a_loop}


def inputs(mean_run: int) -> tuple[Tensor, Tensor]:
    """Random vectors, and labels that change every `mean_run` frames on average."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(BATCH, TIME, HIDDEN, generator=generator)
    changes = torch.rand(BATCH, TIME, generator=generator) < 1 / mean_run
    labels = changes.cumsum(1) % HIDDEN
    labels[-1, TIME // 2 :] = IGNORE
    return vectors.requires_grad_(), labels


def trained(form: str, vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and its gradient."""
    intra, inter = FORMS[form](vectors, labels)
    loss = intra + inter
    (slope,) = torch.autograd.grad(loss, vectors)
    return loss.detach(), slope


def measured(mean_run: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of both, how many times faster ours is, and how far they differ."""
    given = inputs(mean_run)
    taken: dict[str, list[float]] = {form: [] for form in FORMS}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for i in range(rounds + 1):
        for form in FORMS:
            start = time.process_time()
            found[form] = trained(form, *given)
            if i:
                taken[form].append(time.process_time() - start)
    pairs = zip(found["ours"], found["loop"], strict=True)
    return {
        "mean_run": mean_run,
        "ms": {form: 1e3 * median(times) for form, times in taken.items()},
        "times_faster": median(b / a for a, b in zip(taken["ours"], taken["loop"], strict=True)),
        "off": max(float((own - true).abs().max() / true.abs().max()) for own, true in pairs),
    }


def main() -> int:
    """Print every figure, as a table and as a line of JSON; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured(mean_run, options.rounds) for mean_run in (50, 15)]
    for row in rows:
        print(
            f"runs of {row['mean_run']:2} frames: ours {row['ms']['ours']:8.2f} ms, loop "
            f"{row['ms']['loop']:8.2f} ms, ours {row['times_faster']:.0f} times faster; differs by "
            f"{row['off']:.1e}"
        )
    print(json.dumps(rows))
    missed = ["values"] * (max(row["off"] for row in rows) > MOST_DIFFERENT)
    missed += ["speed"] * (min(row["times_faster"] for row in rows) < FASTER)
    print(f"missed: {', '.join(missed)}" if missed else "every limit is kept")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
