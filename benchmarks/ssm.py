"""Time and weigh the selective scan against the best loop that autograd differentiates.

Both run in turn on the same inputs, on one thread, and the median of the ratios counts. The loop
unbinds its inputs along time; one that slices them inside is 10 to 40 times slower still and is no
reference. Memory is what forward and backward add at their peak to the inputs, each form in a
process of its own. Exit status 1 if a limit is missed or the values differ.
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
from scan_reference import scan_in_a_loop
from torch import Tensor

from actioncast.layers import ssm
from actioncast.layers.scan_kernel import kernel as compiled_kernel
from actioncast.layers.ssm import Discretisation, selective_scan

STATES = 16
FORMS = ("kernel", "pytorch", "loop")
"""The compiled scan, what runs where no compiler is, and the reference."""
MOST_DIFFERENT = 1e-5
FORWARD_MS = 7.0
"""Limit of one forward pass at 1536 channels and 64 steps."""
TIMES_FASTER, SHARE_OF_MEMORY = 3.0, 0.2
"""Limits of forward and backward at 1024 steps, against the loop."""


def inputs(steps: int, channels: int, *, gradients: bool) -> dict[str, Tensor]:
    """Random inputs with steps as long as Mamba's first ones and longer."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    made = {
        "u": drawn(1, steps, channels),
        "delta": (drawn(1, steps, channels) - 2).exp(),
        "a": -torch.arange(1.0, STATES + 1).repeat(channels, 1),
        "b": drawn(1, steps, STATES),
        "c": drawn(1, steps, STATES),
    }
    return {name: value.requires_grad_(gradients) for name, value in made.items()}


def scan_of(form: str, held: bool) -> Callable[..., Tensor]:
    """One form of the scan."""
    if form == "loop":
        return lambda **given: scan_in_a_loop(**given, zero_order_hold=held)[0]
    kernel = compiled_kernel() if form == "kernel" else None
    if form == "kernel" and kernel is None:
        raise SystemExit("no C compiler here: the kernel cannot be timed.")
    how = Discretisation.ZERO_ORDER_HOLD if held else Discretisation.EULER

    def scan(**given: Tensor) -> Tensor:
        ssm.kernel = lambda: kernel
        return selective_scan(**given, discretisation=how).y

    return scan


def trained(scan: Callable[..., Tensor], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Forward and backward; every gradient."""
    for value in given.values():
        value.grad = None
    y = scan(**given)
    weigh = torch.linspace(-1, 1, y.shape[2])
    (y * weigh).sum().backward()
    return {name: value.grad for name, value in given.items() if value.grad is not None}


def seconds(run: Callable[[], object]) -> float:
    """Of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def forward(held: bool, rounds: int) -> dict[str, Any]:
    """1536 channels, 64 steps, no gradient."""
    given = inputs(64, 1536, gradients=False)
    runs: dict[str, list[float]] = {form: [] for form in FORMS}
    with torch.no_grad():
        for i in range(10 * rounds):
            for form in FORMS:
                scan = scan_of(form, held)
                taken = seconds(lambda scan=scan: scan(**given))  # type: ignore[misc]
                if i:
                    runs[form].append(taken)
        exact = {name: value.double() for name, value in given.items()}
        true = scan_in_a_loop(**exact, zero_order_hold=held)[0]
        off = float((scan_of("kernel", held)(**given) - true).abs().max() / true.abs().max())
    return {"ms": {form: 1e3 * median(taken) for form, taken in runs.items()}, "off": off}


def training(steps: int, held: bool, rounds: int) -> dict[str, Any]:
    """2048 channels, forward and backward."""
    given = inputs(steps, 2048, gradients=True)
    runs: dict[str, list[float]] = {form: [] for form in FORMS}
    for i in range(rounds + 1):
        for form in FORMS:
            scan = scan_of(form, held)
            taken = seconds(lambda scan=scan: trained(scan, given))  # type: ignore[misc]
            if i:
                runs[form].append(taken)
    loop = trained(scan_of("loop", held), given)
    off = {
        form: max(
            float((own - loop[name]).abs().max() / loop[name].abs().max())
            for name, own in trained(scan_of(form, held), given).items()
        )
        for form in FORMS[:2]
    }
    pairs = {
        form: median(a / b for a, b in zip(runs["loop"], runs[form], strict=True))
        for form in FORMS[:2]
    }
    times = {form: median(taken) for form, taken in runs.items()}
    return {"seconds": times, "times_faster": pairs, "off": off}


def work_mb(form: str, held: bool) -> float:
    """What forward and backward at 1024 steps add to this process at their peak."""
    small = inputs(2, 16, gradients=True)
    trained(scan_of(form, held), small)
    given = inputs(1024, 2048, gradients=True)
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mb("VmRSS")
    trained(scan_of(form, held), given)
    return status_mb("VmHWM") - before


def status_mb(field: str) -> float:
    """A line of this process's memory status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def weighed(held: bool) -> dict[str, float]:
    """Added memory of every form, each in a process of its own."""
    found = {}
    for form in FORMS:
        command = [sys.executable, __file__, "--weigh", form, *(["--hold"] if held else [])]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[form] = float(json.loads(done.stdout))
    return found


def main() -> int:
    """Print every figure; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--weigh", choices=FORMS)
    parser.add_argument("--hold", action="store_true", help="zero-order hold, for --weigh")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.weigh:
        print(json.dumps(work_mb(options.weigh, options.hold)))
        return 0
    missed = []
    for held in (False, True):
        name = "zero-order hold" if held else "Euler"
        found = forward(held, options.rounds)
        told = ", ".join(f"{form} {ms:.2f} ms" for form, ms in found["ms"].items())
        print(f"{name}, forward, d 1536, N 16, L 64: {told}; differs by {found['off']:.1e}")
        missed += [f"{name} forward"] * (found["ms"]["kernel"] > FORWARD_MS)
        missed += [f"{name} forward values"] * (found["off"] > MOST_DIFFERENT)
        for steps in (64, 1024):
            found = training(steps, held, options.rounds)
            for form in FORMS[:2]:
                print(
                    f"{name}, forward + backward, d 2048, N 16, L {steps}: loop "
                    f"{found['seconds']['loop']:.4f} s, {form} {found['seconds'][form]:.4f} s, "
                    f"{found['times_faster'][form]:.2f} times faster; gradients differ by "
                    f"{found['off'][form]:.1e}"
                )
                missed += [f"{name} {form} values"] * (found["off"][form] > MOST_DIFFERENT)
        missed += [f"{name} speed"] * (found["times_faster"]["kernel"] < TIMES_FASTER)
        memory = weighed(held)
        share = memory["kernel"] / memory["loop"]
        told = ", ".join(f"{form} {mb:.0f} MB" for form, mb in memory.items())
        print(f"{name}, added memory at L 1024: {told}; share of the kernel {share:.3f}")
        missed += [f"{name} memory"] * (share > SHARE_OF_MEMORY)
    print(f"missed: {', '.join(missed)}" if missed else "every limit is kept")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
