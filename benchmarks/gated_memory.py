"""Time and weigh the gated memory against the forms that keep the state of every step.

On a CPU: the last state alone, and what ten queries read after every step with its gradient, each
beside the best loop that keeps every state (`loop`) and the supplement's Algorithms 1 and 2 by the
word (`algorithms`). All run in turn on the same inputs, on one thread, and the median of the ratios
of processor times counts; `--limits` says against which. Memory is what a form adds at its peak to
the inputs, each in a process of its own. On a GPU: bandwidth of the kernel against a device copy of
as many bytes as its inputs and outputs have, and its time beside flash-linear-attention's gated
kernel, where that is installed. Exit status 1 if a limit is missed or values differ.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "layers"))

import torch
from gated_memory_reference import read_by_algorithms, read_in_a_loop, states_in_a_loop
from torch import Tensor
from torch.nn import functional as F

from actioncast.layers.gated_memory import final_state, read_all, triton_usable

HEADS, KEYS, VALUES = 8, 64, 128
FORMS = ("ours", "loop", "algorithms")
MOST_DIFFERENT = 1e-5
FINAL_FASTER, ALL_FASTER, SHARE_OF_MEMORY = 50.0, 10.0, 0.2
"""Limits of the last state at 128 steps, and of all steps at 1024 with their gradient."""
BANDWIDTH = 0.8
"""Share of a device copy's bandwidth that the kernel should reach."""

Read = Callable[..., Tensor]


def inputs(batch: int, steps: int, queries: int, *, gradients: bool) -> dict[str, Tensor]:
    """Random inputs with gates as published, logsigmoid / 16."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    made = {
        "queries": drawn(batch, HEADS, queries, KEYS),
        "log_gate": F.logsigmoid(drawn(batch, steps, HEADS, KEYS)) / 16,
        "k": drawn(batch, steps, HEADS, KEYS),
        "v": drawn(batch, steps, HEADS, VALUES),
    }
    return {name: value.requires_grad_(gradients) for name, value in made.items()}


def ours(**given: Tensor) -> Tensor:
    return read_all(**given).o


def loop(**given: Tensor) -> Tensor:
    return read_in_a_loop(**given)[0]


def algorithms(**given: Tensor) -> Tensor:
    return read_by_algorithms(**given)[0]


def ours_last(queries: Tensor, **given: Tensor) -> Tensor:  # noqa: ARG001
    return final_state(**given)


def loop_last(queries: Tensor, **given: Tensor) -> Tensor:  # noqa: ARG001
    return states_in_a_loop(**given)[:, -1]


def algorithms_last(queries: Tensor, **given: Tensor) -> Tensor:
    return read_by_algorithms(queries[:, :, :0], **given)[1]


READS: dict[str, Read] = {"ours": ours, "loop": loop, "algorithms": algorithms}
LASTS: dict[str, Read] = {"ours": ours_last, "loop": loop_last, "algorithms": algorithms_last}


def trained(read: Read, given: dict[str, Tensor], weigh: Tensor) -> dict[str, Tensor]:
    """Forward and backward; outputs and every gradient."""
    o = read(**given)
    gradients = torch.autograd.grad(o, list(given.values()), weigh)
    return {"o": o.detach(), **dict(zip(given, gradients, strict=True))}


def compared(runs: dict[str, Callable[[], Any]], rounds: int, repeat: int = 1) -> dict[str, Any]:
    """Medians of milliseconds, and of how many times faster ours is, round by round."""
    taken: dict[str, list[float]] = {form: [] for form in runs}
    for i in range(rounds + 1):
        for form, run in runs.items():
            start = time.process_time()
            for _ in range(repeat):
                run()
            if i:
                taken[form].append((time.process_time() - start) / repeat)
    faster = {
        form: median(a / b for a, b in zip(taken[form], taken["ours"], strict=True))
        for form in runs
        if form != "ours"
    }
    return {"ms": {form: 1e3 * median(t) for form, t in taken.items()}, "times_faster": faster}


def difference(found: Tensor, true: Tensor) -> float:
    """The largest one, as a share of the largest value."""
    return float((found - true).abs().max() / true.abs().max())


def last_state(rounds: int) -> dict[str, Any]:
    """128 steps of one sample, no gradient."""
    given = inputs(1, 128, 1, gradients=False)
    with torch.no_grad():
        runs = {form: lambda read=read: read(**given) for form, read in LASTS.items()}
        found = compared(runs, rounds, repeat=10)
        return {**found, "off": difference(ours_last(**given), loop_last(**given))}


def all_steps(queries: int, rounds: int) -> dict[str, Any]:
    """1024 steps of one sample, forward and backward."""
    given = inputs(1, 1024, queries, gradients=True)
    weigh = torch.randn(1, 1024, HEADS, queries, VALUES)
    runs = {form: lambda read=read: trained(read, given, weigh) for form, read in READS.items()}
    found = compared(runs, rounds)
    own, true = runs["ours"](), runs["loop"]()
    found["off"] = max(difference(own[name], true[name]) for name in own)
    found["mb"] = {form: weighed(form, queries) for form in FORMS}
    return found


def weighed(form: str, queries: int) -> float:
    """Added memory of a form, in a process of its own."""
    command = [sys.executable, __file__, "--weigh", form, "--queries", str(queries)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def work_mb(form: str, queries: int) -> float:
    """What forward and backward at 1024 steps add to this process at their peak."""
    small = inputs(1, 2, queries, gradients=True)
    trained(READS[form], small, torch.ones(1, 2, HEADS, queries, VALUES))
    given, weigh = (
        inputs(1, 1024, queries, gradients=True),
        torch.ones(1, 1024, HEADS, queries, 128),
    )
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mb("VmRSS")
    trained(READS[form], given, weigh)
    return status_mb("VmHWM") - before


def status_mb(field: str) -> float:
    """A line of this process's memory status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def on_gpu(rounds: int) -> dict[str, Any]:
    """16 samples of 4096 steps in bfloat16, forward alone."""
    given = {
        name: value.cuda().bfloat16()
        for name, value in inputs(16, 4096, 10, gradients=False).items()
    }
    with torch.no_grad():
        moved = sum(t.nbytes for t in (*given.values(), ours(**given)))
        # A copy reads one half of its traffic and writes the other.
        source = torch.empty(moved // 2, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        found: dict[str, Any] = {
            "kernel": triton_usable(given["v"]),
            "copy_ms": device_ms(lambda: target.copy_(source), rounds),
            "ours_ms": device_ms(lambda: ours(**given), rounds),
        }
        found["gb_per_s"] = moved / found["ours_ms"] / 1e6
        found["share_of_copy"] = found["copy_ms"] / found["ours_ms"]
        try:
            from fla.ops.gla import chunk_gla  # noqa: PLC0415
        except ImportError:
            return {**found, "fla": "not installed"}
        k, v, gates = (given[name] for name in ("k", "v", "log_gate"))
        # It takes one query a step: each query's own pass over the same keys and values.
        each = [q[:, None].expand_as(k).contiguous() for q in given["queries"].unbind(2)]
        found["fla_ms"] = device_ms(
            lambda: [chunk_gla(q, k, v, gates, scale=1.0) for q in each], rounds
        )
        found["fla_one_query_ms"] = device_ms(
            lambda: chunk_gla(each[0], k, v, gates, scale=1.0), rounds
        )
    return found


def device_ms(run: Callable[[], Any], rounds: int) -> float:
    """The median time of a run on the device."""
    taken = []
    for i in range(10 * rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if i >= 3:
            taken.append(start.elapsed_time(end))
    return median(taken)


def told(name: str, found: dict[str, Any]) -> str:
    """Lines of a table."""
    lines = [f"{name}; differs by {found['off']:.1e}"]
    for form in FORMS:
        faster = found["times_faster"].get(form)
        mb = f"{found['mb'][form]:8.0f} MB" if "mb" in found else ""
        ratio = "" if faster is None else f"   ours {faster:.1f} times faster"
        lines.append(f"  {form:10s} {found['ms'][form]:9.3f} ms {mb}{ratio}")
    return "\n".join(lines)


def main() -> int:
    """Print every figure, as a table and as a line of JSON; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--limits", choices=FORMS[1:], default="loop", help="whom limits are against"
    )
    parser.add_argument("--weigh", choices=FORMS)
    parser.add_argument("--queries", type=int, default=10, help="for --weigh")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.weigh:
        print(json.dumps(work_mb(options.weigh, options.queries)))
        return 0
    last = last_state(options.rounds)
    print(told("last state, 128 steps", last))
    found = {"last_state": last}
    for queries in (10, 1):
        found[f"all_steps_{queries}"] = all_steps(queries, options.rounds)
        name = f"all steps with gradient, 1024 steps, queries: {queries}"
        print(told(name, found[f"all_steps_{queries}"]))
    read, missed = found["all_steps_10"], []
    if torch.cuda.is_available():
        found["gpu"] = on_gpu(options.rounds)
        print(found["gpu"])
        missed += ["bandwidth"] * (found["gpu"]["share_of_copy"] < BANDWIDTH)
    print(json.dumps(found))
    missed += ["values"] * (max(last["off"], read["off"]) > MOST_DIFFERENT)
    missed += ["last state"] * (last["times_faster"][options.limits] < FINAL_FASTER)
    missed += ["all steps"] * (read["times_faster"][options.limits] < ALL_FASTER)
    missed += ["memory"] * (read["mb"]["ours"] > SHARE_OF_MEMORY * read["mb"][options.limits])
    print(f"missed: {', '.join(missed)}" if missed else "every limit is kept")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
