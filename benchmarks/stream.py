"""Measure and draw what a stream costs as it gets longer, for CLAM and what it must beat.

Every model answers after every frame, the action under way and one moment ahead, each in a process
of its own: time of a step, time of the whole stream so far, memory added at the peak, and what the
stream carries. CLAM then runs for `--steps` frames (endurance), and at the published sizes for 480
frames with a clock at each component, beside Table C.12. Nothing is extrapolated: a model that
exceeds `--limit` seconds stops, and its curve ends there.

Exit status 1 if the endurance run's memory or time is not flat.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actioncast.models.base import RecurrentAnticipator
from actioncast.models.clam import CLAM
from actioncast.models.clam_config import ClamConfig
from actioncast.models.online_baselines import (
    OnlineGRUConfig,
    WindowTransformer,
    WindowTransformerConfig,
)
from actioncast.progress import Reporter
from actioncast.timeline import LabelSpace, Taxonomy
from actioncast.types import Observation

RATE, AHEAD = 4.0, (1.0,)
WINDOW = 128
"""Steps of the windowed transformer: 32 s, what CLAM is trained on."""
LATEST = 64
"""Steps whose median is the time of a step at some length; half the stream where it is shorter."""
WARM_UP = 2000
"""Frames before the first that the endurance run measures."""
END = 1000
"""Frames at either end of it that are compared."""
MOST_MB, MOST_SLOWER = 2.0, 1.1
"""Limits of the endurance run: memory gained, and the last steps' time over a young stream's."""
VIDEO = 480
"""Frames of Table C.12."""
PAPER = {"processor": 150.55, "memory": 105.36, "predictor": 300.19}
"""Table C.12: cumulative milliseconds over 480 frames, on the authors' GPU."""
LONGEST = 2**17
"""Frames that a stream of full context has room for."""
FRAMES = 512
"""Random frames that a stream repeats, so that the input takes no memory as it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How wide and deep every model is."""

    width: int
    layers: int
    verbs: int
    nouns: int
    actions: int

    def taxonomy(self) -> Taxonomy:
        """Labels that are numbers."""
        heads = {"verb": self.verbs, "noun": self.nouns, "action": self.actions}
        return Taxonomy({h: LabelSpace(tuple(map(str, range(n)))) for h, n in heads.items()})

    def clam(self, memory_queries: int = 10) -> CLAM:
        """With a memory, or without (0)."""
        return ClamConfig(
            feature_dim=self.width,
            hidden_dim=self.width,
            num_layers=self.layers,
            predictor_dim=4 * self.width,
            memory_queries=memory_queries,
            ahead=AHEAD,
        ).build(self.taxonomy())

    def transformer(self, window: int) -> WindowTransformer:
        """Of a window, or of all the past (0)."""
        return WindowTransformerConfig(
            feature_dim=self.width,
            hidden_dim=self.width,
            num_layers=self.layers,
            window=window,
            ahead=AHEAD,
        ).build(self.taxonomy())


MIDDLE = Sizes(width=256, layers=4, verbs=97, nouns=300, actions=3806)
FULL = Sizes(width=1024, layers=4, verbs=97, nouns=300, actions=3806)
"""Of the paper, on EPIC-KITCHENS-100."""


def answered(past: Tensor, ahead: Tensor) -> None:
    """What a prediction does with logits besides, so that every model does it."""
    past.softmax(-1)
    ahead.softmax(-1)


class Recurrent:
    """A stream of a model with a state."""

    def __init__(self, model: RecurrentAnticipator[Any], device: str) -> None:
        self.model = model.eval().to(device)
        # What CLAM foresees after the last frame stands in `next` whether or not it is asked ahead.
        self.ahead = () if isinstance(model, CLAM) else AHEAD
        self.start()

    def start(self) -> None:
        """Forget everything."""
        self.state = self.model.initial_state(1)

    def step(self, frame: Tensor) -> None:
        """Take one frame in and answer."""
        valid = torch.ones(1, 1, dtype=torch.bool, device=frame.device)
        none = torch.zeros(1, dtype=torch.long, device=frame.device)
        x = Observation(
            features=frame[None], valid=valid, rate=RATE, horizon=none, ahead=self.ahead
        )
        _, self.state = self.model.step(x, self.state)

    def carried(self) -> int:
        """Numbers that the stream holds for its next step."""
        if isinstance(self.state, Tensor):
            return self.state.numel()
        return int(self.state.num_floats)


class Reread:
    """A stream of a transformer that reads its window, or all of the past, anew at every step."""

    def __init__(self, model: WindowTransformer, device: str) -> None:
        self.model = model.eval().to(device)
        self.start()

    def start(self) -> None:
        """Forget everything."""
        parameter = next(self.model.parameters())
        # Memory that is not written to is not taken.
        room = 0 if self.model.config.window else LONGEST
        self.past = parameter.new_empty(1, room, self.model.config.feature_dim)
        self.seen = 0

    def step(self, frame: Tensor) -> None:
        """Take one frame in and answer."""
        self.seen += 1
        if window := self.model.config.window:
            self.past = read = torch.cat([self.past, frame[None]], 1)[:, -window:]
        else:
            self.past[0, self.seen - 1] = frame[0]
            read = self.past[:, : self.seen]
        answered(*self.model.newest(read))

    def carried(self) -> int:
        """Numbers that the stream holds for its next step."""
        return min(self.seen, self.model.config.window or self.seen) * self.past.shape[2]


class Kept:
    """A stream of a full context whose keys and values are kept."""

    def __init__(self, model: WindowTransformer, device: str) -> None:
        self.model = model.eval().to(device)
        self.start()

    def start(self) -> None:
        """Forget everything."""
        self.kept: Sequence[tuple[Tensor, Tensor]] = ()

    def step(self, frame: Tensor) -> None:
        """Take one frame in and answer."""
        past, ahead, self.kept = self.model.extend(frame[None], self.kept)
        answered(past, ahead)

    def carried(self) -> int:
        """Numbers that the stream holds for its next step."""
        return sum(part.numel() for pair in self.kept for part in pair)


Stream = Recurrent | Reread | Kept
MODELS: dict[str, Callable[[Sizes, str], Stream]] = {
    "CLAM": lambda sizes, device: Recurrent(sizes.clam(), device),
    "CLAM without memory": lambda sizes, device: Recurrent(sizes.clam(0), device),
    "GRU": lambda sizes, device: Recurrent(
        OnlineGRUConfig(feature_dim=sizes.width, hidden_dim=sizes.width, ahead=AHEAD).build(
            sizes.taxonomy()
        ),
        device,
    ),
    f"transformer, window {WINDOW}": lambda sizes, device: Reread(
        sizes.transformer(WINDOW), device
    ),
    "transformer, full context": lambda sizes, device: Reread(sizes.transformer(0), device),
    "transformer, full context, kept keys": lambda sizes, device: Kept(
        sizes.transformer(0), device
    ),
}
COLOURS = dict(
    zip(MODELS, ("#e15759", "#f28e2b", "#4e79a7", "#59a14f", "#7e0360", "#b07aa1"), strict=True)
)


class Clock:
    """Seconds of one call; on a GPU until it is done.

    Time of the processor alone leaves out what other processes of a shared machine take.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.on_gpu = options.device.startswith("cuda")
        self.now = time.process_time if options.clock == "cpu" else time.perf_counter

    def __call__(self, run: Callable[[], object]) -> float:
        """Run it and say how long it took."""
        self._wait()
        start = self.now()
        run()
        self._wait()
        return self.now() - start

    def _wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()


def frames_of(sizes: Sizes, device: str) -> Sequence[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(FRAMES, sizes.width, generator=generator).to(device)[:, None].unbind(0)


def status_mb(field: str) -> float:
    """A line of this process's memory status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def reset_peak(device: str) -> None:
    Path("/proc/self/clear_refs").write_text("5")
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def memory_mb(device: str, field: str) -> float:
    """Of this process, or of its tensors on a GPU; at its peak (VmHWM), or as it is (VmRSS)."""
    if not device.startswith("cuda"):
        return status_mb(field)
    peak = field == "VmHWM"
    taken = torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    return taken / 2**20


def stream_cost(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One stream, read off at every length."""
    torch.manual_seed(0)
    sizes, device = sizes_of(options), options.device
    frames, clock = frames_of(sizes, device), Clock(options)
    run = MODELS[name](sizes, device)
    for frame in frames[:8]:
        run.step(frame)
    run.start()
    taken = np.ones(max(options.lengths))
    reset_peak(device)
    before = memory_mb(device, "VmRSS")
    found: list[dict[str, float]] = []
    reporter, began, seen = Reporter(), time.perf_counter(), 0
    for seen in reporter(range(1, max(options.lengths) + 1), name):
        frame = frames[seen % FRAMES]
        taken[seen - 1] = clock(lambda frame=frame: run.step(frame))  # type: ignore[misc]
        if seen in options.lengths:
            latest = taken[max(seen // 2, seen - LATEST) : seen]
            found.append(
                {
                    "length": seen,
                    "step_ms": 1e3 * float(np.median(latest)),
                    "total_s": float(taken[:seen].sum()),
                    "peak_mb": memory_mb(device, "VmHWM") - before,
                    "carried_floats": run.carried(),
                }
            )
        if time.perf_counter() - began > options.limit:
            break
    reporter.close()
    parameters = sum(p.numel() for p in run.model.parameters())
    stopped = seen if seen < max(options.lengths) else None
    return {"parameters": parameters, "at": found, "stopped_after": stopped}


def endurance(options: argparse.Namespace) -> dict[str, Any]:
    """CLAM for as many frames as asked: memory and time at either end.

    A machine may be slower at the end for reasons of its own. So the last frames are taken in turn
    with as many of a young stream of the same model, and these two are what is compared; the time
    of the first frames is told beside them.
    """
    torch.manual_seed(0)
    sizes, device = sizes_of(options), options.device
    frames, clock = frames_of(sizes, device), Clock(options)
    run = Recurrent(sizes.clam(), device)
    young = Recurrent(run.model, device)
    taken, compared = np.ones(options.steps), np.ones(END)
    whole = WARM_UP + options.steps
    marks = {*range(WARM_UP, whole, max(options.steps // 20, 1)), whole}
    resident: list[tuple[int, float]] = []
    for i in Reporter()(range(whole), "endurance"):
        frame = frames[i % FRAMES]
        seconds = clock(lambda frame=frame: run.step(frame))  # type: ignore[misc]
        if i >= WARM_UP:
            taken[i - WARM_UP] = seconds
        if (left := whole - 1 - i) < END or i < WARM_UP:
            compared[-1 - left % END] = clock(lambda frame=frame: young.step(frame))  # type: ignore[misc]
        if i + 1 in marks:
            resident.append((i + 1 - WARM_UP, memory_mb(device, "VmRSS")))
    first, last, beside = (
        1e3 * float(np.median(part)) for part in (taken[:END], taken[-END:], compared)
    )
    gained = resident[-1][1] - resident[0][1]
    return {
        "steps": options.steps,
        "first_ms": first,
        "last_ms": last,
        "young_ms": beside,
        "gained_mb": gained,
        "resident_mb": resident,
        "state_floats": run.carried(),
        "flat_memory": abs(gained) <= MOST_MB,
        "flat_time": last / beside <= MOST_SLOWER,
        "flat_time_since_the_first": last / first <= MOST_SLOWER,
    }


def components(options: argparse.Namespace) -> dict[str, Any]:
    """Cumulative time of each part over the frames of Table C.12, at the published sizes."""
    torch.manual_seed(0)
    clock, frames = Clock(options), frames_of(FULL, options.device)
    model = FULL.clam()
    run = Recurrent(model, options.device)
    assert model.memory is not None
    spent = dict.fromkeys((*PAPER, "heads"), 0.0)
    clocked(model.processor, ("run",), "processor", spent, clock)
    clocked(model.memory, ("write", "read", "every"), "memory", spent, clock)
    clocked(model.predictor, ("forward",), "predictor", spent, clock)
    clocked(model, ("scores",), "heads", spent, clock)
    for frame in frames[:20]:
        run.step(frame)
    run.start()
    for part in spent:
        spent[part] = 0.0
    whole = 0.0
    for i in Reporter()(range(VIDEO), "components"):
        frame = frames[i % FRAMES]
        whole += clock(lambda frame=frame: run.step(frame))  # type: ignore[misc]
    silent = [part for part, seconds in spent.items() if not seconds]
    assert not silent, f"no time was spent in {silent}: CLAM calls them by other names"
    ms = {part: 1e3 * seconds for part, seconds in spent.items()}
    ms["rest"] = 1e3 * whole - sum(ms.values())
    return {
        "frames": VIDEO,
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_floats": run.carried(),
        "ms": ms,
        "whole_ms": 1e3 * whole,
        "paper_ms": PAPER,
    }


def clocked(
    part: torch.nn.Module,
    methods: Sequence[str],
    name: str,
    spent: dict[str, float],
    clock: Clock,
) -> None:
    """Put a clock at methods of a part; they must not call one another."""
    for method in methods:
        call = getattr(part, method)

        def timed(*given: Any, _call: Callable[..., Any] = call, **named: Any) -> Any:
            answer: list[Any] = []
            spent[name] += clock(lambda: answer.append(_call(*given, **named)))
            return answer[0]

        setattr(part, method, timed)


def sizes_of(options: argparse.Namespace) -> Sizes:
    return FULL if options.full else MIDDLE


def elsewhere(what: str, options: argparse.Namespace) -> dict[str, Any]:
    """The same in a process of its own."""
    given = [*sys.argv[1:], "--only", what]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    if options.threads > 1:
        environment |= {"OMP_PROC_BIND": "true"}
    command = [sys.executable, __file__, *given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def printed(found: dict[str, Any], lengths: Sequence[int]) -> None:
    """Every figure as a table."""
    for key, told in (
        ("step_ms", "time of a step, ms"),
        ("total_s", "time of the stream so far, s"),
        ("peak_mb", "memory added at the peak, MB"),
        ("carried_floats", "numbers that a stream carries"),
    ):
        print(f"\n{told + ', after':<37}" + "".join(f"{length:>12}" for length in lengths))
        for name, cost in found["models"].items():
            at = {row["length"]: row[key] for row in cost["at"]}
            digits = ",.0f" if key == "carried_floats" else ".3f"
            shown = (f"{at[n]:{digits}}" if n in at else "-" for n in lengths)
            print(f"{name:<37}" + "".join(f"{value:>12}" for value in shown))
    for name, cost in found["models"].items():
        if cost["stopped_after"]:
            limit = found["limit_s"]
            print(f"{name} stopped after {cost['stopped_after']} frames, at {limit:g} s")
    if run := found.get("endurance"):
        print(
            f"\nCLAM over {run['steps']} frames: {run['first_ms']:.3f} ms a step at first, "
            f"{run['last_ms']:.3f} ms at last, where a young stream takes {run['young_ms']:.3f} "
            f"ms; memory gained {run['gained_mb']:+.2f} MB; state of {run['state_floats']} numbers"
        )
    if parts := found.get("components"):
        told = f"CLAM at the published sizes over {parts['frames']} frames, ms"
        print(f"\n{told:<50}{'here':>10}{'paper':>9}")
        for part, ms in parts["ms"].items():
            paper = f"{parts['paper_ms'][part]:>9.2f}" if part in parts["paper_ms"] else ""
            print(f"{part:<50}{ms:>10.2f}{paper}")
        here = f"{found['machine']['device']}, {found['machine']['clock']} time"
        print(f"here: {here}; paper: Table C.12, the authors' GPU")


def draw(found: dict[str, Any], folder: Path) -> None:
    """Four panels against length, both axes logarithmic."""
    import matplotlib  # noqa: PLC0415  # slow to import, and only the picture needs it

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    matplotlib.rcParams |= {"svg.hashsalt": "actioncast", "font.size": 9}
    figure, panels = pyplot.subplots(2, 2, figsize=(10, 7.6), sharex=True)
    for axes, (key, told) in zip(
        panels.flat,
        (
            ("step_ms", "time of a step, ms"),
            ("total_s", "time of the stream so far, s"),
            ("peak_mb", "memory added at the peak, MB (from 0.1)"),
            ("carried_floats", "numbers that a stream carries"),
        ),
        strict=True,
    ):
        for name, cost in found["models"].items():
            lengths = [row["length"] for row in cost["at"]]
            values = [max(row[key], 0.1 if key == "peak_mb" else 0) for row in cost["at"]]
            stopped = cost["stopped_after"]
            label = f"{name} (stopped after {stopped} frames)" if stopped else name
            axes.plot(lengths, values, "o-", color=COLOURS[name], label=label, markersize=4)
            if stopped and lengths:
                axes.plot(lengths[-1], values[-1], "x", color=COLOURS[name], markersize=11, mew=2)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(found["lengths"], [str(length) for length in found["lengths"]])
        axes.minorticks_off()
        axes.set_title(told, loc="left")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[1]:
        axes.set_xlabel("frames of the stream")
    names, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(names, labels, loc="lower center", ncols=2, frameon=False)
    sizes = found["sizes"]
    figure.suptitle(
        f"Cost against length: width {sizes['width']}, {sizes['layers']} layers, "
        f"{found['machine']['device']}, {found['machine']['clock']} time",
        x=0.02,
        ha="left",
    )
    figure.tight_layout(rect=(0, 0.03 + 0.025 * -(-len(labels) // 2), 1, 1))
    for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        figure.savefig(folder / f"stream.{kind}", dpi=150, metadata=metadata)


def keep(found: dict[str, Any], folder: Path) -> None:
    """Write what is known so far, so that a run that is broken off leaves it."""
    (folder / "stream.json").write_text(json.dumps(found, indent=1) + "\n")


def machine(options: argparse.Namespace) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    cpu = f"{(names or [platform.machine()])[0]}, {options.threads} thread(s)"
    on_gpu = options.device.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu else cpu
    return {
        "device": device,
        "torch": torch.__version__,
        "threads": options.threads,
        "clock": options.clock,
    }


def main() -> int:
    """Run, write, draw and print; 1 if the endurance run was not flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("stream"), help="folder of the results")
    parser.add_argument("--full", action="store_true", help="the paper's sizes: width 1024")
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 256, 1024, 4096, 16384])
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a model may take")
    parser.add_argument(
        "--steps", type=int, default=100_000, help="frames of the endurance run; 0 leaves it out"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu where others use the machine"
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 1 <= min(options.lengths) <= max(options.lengths) <= LONGEST:
        parser.error(f"lengths must be within 1 and {LONGEST}, got {options.lengths}.")
    if 0 < options.steps < 2 * END:
        parser.error(f"steps must be 0, or at least {2 * END}, got {options.steps}.")
    if options.only:
        torch.set_num_threads(options.threads)
        with torch.inference_mode():
            kinds = {"endurance": endurance, "components": components}
            kind = kinds.get(options.only)
            told = kind(options) if kind else stream_cost(options.only, options)
        print(json.dumps(told))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "machine": machine(options),
        "sizes": asdict(sizes_of(options)),
        "lengths": sorted(options.lengths),
        "limit_s": options.limit,
        "models": {},
    }
    for name in Reporter()(options.models, "models"):
        found["models"][name] = elsewhere(name, options)
        keep(found, options.out)
    draw(found, options.out)
    found["components"] = elsewhere("components", options)
    keep(found, options.out)
    if options.steps:
        found["endurance"] = elsewhere("endurance", options)
        keep(found, options.out)
    printed(found, found["lengths"])
    run = found.get("endurance", {"flat_memory": True, "flat_time": True})
    missed = [key for key in ("flat_memory", "flat_time") if not run[key]]
    print(f"\nmissed: {', '.join(missed)}" if missed else "\nevery limit is kept")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
