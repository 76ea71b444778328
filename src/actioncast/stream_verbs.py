"""`export` and `stream`: a recurrent checkpoint as graphs, and any model on a live stream."""

import json
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import tyro
from jaxtyping import Float

from actioncast.checkpoint import Checkpoint, json_bytes, to_json
from actioncast.export.description import Precision, is_exported
from actioncast.export.exporting import export_checkpoint
from actioncast.export.pace import Pace
from actioncast.features import read_header
from actioncast.progress import Progress, Reporter
from actioncast.runs import checkpoints, load_checkpoints, read_about
from actioncast.stream_lines import FeatureLines
from actioncast.stream_sources import Answer, ExportedSource, Incoming, ModelSource, Source

STANDARD_INPUT = Path("-")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a checkpoint of CLAM as ONNX graphs: state in, state out, without PyTorch."""

    run: tyro.conf.Positional[Path]
    """run or checkpoint folder"""
    out: Path | None = None
    """folder to write; absent, exported/ and the precision in the run's folder"""
    precision: Precision = "fp32"
    """fp32 gives the numbers of the checkpoint; int8 and bfloat16 are fast and near"""
    split: str = ""
    """which split's checkpoint"""
    calibrate: Path | None = None
    """a .npy file of features, (time, feature), as the stream will bring them, for int8: what
    rounding does to their mean is put back; absent, nothing is"""
    json: bool = False
    """print the description of the stream as JSON"""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Answer frame by frame: what is being done, and what comes."""

    source: tyro.conf.Positional[Path]
    """run, checkpoint, or folder that `export` wrote"""
    features: tyro.conf.Positional[Path]
    """a .npy file of features, (time, feature); or - for standard input, a frame a line as it
    comes: a JSON list, or numbers with commas or spaces between them"""
    every: str = ""
    """time between two answers: frames, as 8, or seconds, as 2s; absent, every frame that the model
    reads"""
    state: Path | None = None
    """file to go on from, if it is there, and to write the state to at the end"""
    bad_frames: Literal["refuse", "skip"] = "refuse"
    """what happens to a frame that holds NaN or infinity, or to a line that is no frame"""
    limit: int = 0
    """stop after so many frames; 0 takes all"""
    top: int = 1
    """how many actions each answer names"""
    rate: float = 0.0
    """frames per second of the features; 0 is that of the training data"""
    window: float = 60.0
    """of a model without a memory: seconds that it may look back"""
    horizon: float = 10.0
    """of a model that names every frame to come: seconds to look ahead"""
    split: str = ""
    """of a run: which split's checkpoint"""
    threads: int = 0
    """of an exported stream: how many; 0 leaves it to its engine"""
    device: str = "cpu"
    """of a run: where the model runs"""
    json: bool = False
    """print a line of JSON for every answer"""


def export(arguments: Export) -> None:
    """Export a checkpoint.

    Raises:
        ValueError, FileNotFoundError: It cannot be exported, or a package is missing.
    """
    checkpoint = one_checkpoint(arguments.run, arguments.split)
    frames, named = None, ""
    if arguments.calibrate is not None:
        frames, named = read_frames(arguments.calibrate), arguments.calibrate.name
    elif arguments.precision == "int8":
        _note("no --calibrate: rounding is not corrected; give features to come nearer to fp32.")
    name = arguments.precision + (f"-split{arguments.split}" if arguments.split else "")
    out = arguments.out or arguments.run / "exported" / name
    about = export_checkpoint(checkpoint, out, arguments.precision, frames, named)
    if arguments.json:
        sys.stdout.write(json_bytes(about).decode())
        return
    size = sum(graph.bytes for graph in about.graphs.values()) / 1e6
    print(
        f"wrote {out}: {about.precision}, {size:.1f} MB of graphs, a state of "
        f"{about.num_floats:,} numbers; run it: actioncast stream {out} FEATURES.npy"
    )


def stream(arguments: Stream, progress: Progress | None = None) -> None:
    """Run a stream and print a line an answer.

    Raises:
        ValueError, FileNotFoundError: An option, the source or a frame is wrong.
    """
    if arguments.limit < 0 or arguments.top < 1 or arguments.rate < 0:
        raise ValueError(
            "--limit and --rate must be 0 or more and --top at least 1, got "
            f"{arguments.limit}, {arguments.rate:g} and {arguments.top}."
        )
    live = arguments.features == STANDARD_INPUT
    frames: Incoming = () if live else read_frames(arguments.features)
    source = _source(arguments)
    every = frames_between(arguments.every, source.pace)
    due: Iterable[object] = repeat(None)
    clock = time.perf_counter
    if isinstance(frames, np.ndarray):
        frames = frames[: arguments.limit] if arguments.limit else frames
        progress = progress or (_silent if sys.stdout.isatty() else Reporter())
        due = progress(range(-(-len(frames) // every)), "stream")
    else:
        lines = FeatureLines(sys.stdin.buffer.readline, source.width, arguments.bad_frames, _note)
        frames, clock = islice(lines, arguments.limit or None), lines.clock
    answers = source.answers(frames, every)
    taken: list[float] = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: _note(str(message))
        warnings.simplefilter("always", UserWarning)
        for _ in due:
            started = clock()
            answer = next(answers, None)
            if answer is None:
                break
            taken.append((clock() - started) * 1e3)
            facts = said(answer, arguments.top) | {"ms": round(taken[-1], 3)}
            print(_json_line(facts) if arguments.json else spoken(facts), flush=True)
    source.save()
    if taken:
        print(latency(taken, every), file=sys.stderr)
    elif live:
        _note("standard input held no frame.")


def _source(arguments: Stream) -> Source:
    """Whoever answers: an exported stream, or the model of a run."""
    if is_exported(arguments.source):
        odd = [
            f"--{name}"
            for name in ("split", "device", "window", "horizon")
            if getattr(arguments, name) != Stream.__dataclass_fields__[name].default
        ]
        if odd:
            raise ValueError(
                f"{odd[0]} is for runs, got the exported stream {arguments.source}; leave it out."
            )
        return ExportedSource(
            arguments.source,
            threads=arguments.threads,
            rate=arguments.rate,
            bad_frames=arguments.bad_frames,
            state=arguments.state,
        )
    if arguments.threads:
        raise ValueError("--threads is for exported streams, got a run; set OMP_NUM_THREADS.")
    checkpoint = one_checkpoint(arguments.source, arguments.split, arguments.device)
    return ModelSource(
        checkpoint,
        rate=arguments.rate,
        bad_frames=arguments.bad_frames,
        state=arguments.state,
        device=arguments.device,
        window=arguments.window,
        horizon=arguments.horizon,
    )


def one_checkpoint(folder: Path, split: str, device: str = "cpu") -> Checkpoint:
    """The checkpoint of a run that has one, or that of a split.

    Raises:
        ValueError: There are several and none is named.
    """
    found = checkpoints(folder)
    if len(found) > 1 and not split:
        raise ValueError(
            f"{folder} holds a checkpoint for each of the splits {', '.join(found)}; say which: "
            f"--split {next(iter(found))}."
        )
    kind = str(read_about(next(iter(found.values()))).get("kind", ""))
    return load_checkpoints(folder, split, device, kind)[0]


def read_frames(path: Path) -> Float[np.ndarray, "time feature"]:
    """Features of a stream, memory-mapped.

    Raises:
        FileNotFoundError, ValueError: There is no such file, or it holds something else.
    """
    if not path.exists():
        raise FileNotFoundError(f"the features {path} do not exist.")
    read_header(path)
    return np.load(path, mmap_mode="r")


def frames_between(every: str, pace: Pace) -> int:
    """Frames from one answer to the next, of `--every`.

    Raises:
        ValueError: It is no number of frames or seconds, or not whole strides.
    """
    word = every.strip().lower()
    try:
        seconds = word.endswith("s")
        amount = float(word.removesuffix("s")) if word else float(pace.stride)
    except ValueError:
        amount, seconds = 0.0, False
    frames = round(amount * pace.rate) if seconds and amount < 1e9 else amount
    if not 1 <= frames < 1e9 or frames != int(frames):
        raise ValueError(
            f"--every must be whole frames, as 8, or seconds, as 2s, at least one frame at "
            f"{pace.rate:g} a second, got {every!r}."
        )
    if int(frames) % pace.stride:
        up = -(-int(frames) // pace.stride) * pace.stride
        raise ValueError(
            f"--every must be a whole number of strides, got {int(frames)} frames and stride "
            f"{pace.stride}; say --every {up}."
        )
    return int(frames)


def said(answer: Answer, top: int) -> dict[str, Any]:
    """An answer as facts: the likeliest actions with their probabilities."""
    return {
        "time": round(answer.time, 4),
        "now": None if answer.now is None else likeliest(answer.now, answer.names, top),
        "ahead": [
            {"when": when, "actions": likeliest(row, answer.names, top)}
            for when, row in answer.ahead
        ],
    }


def likeliest(
    probs: Float[np.ndarray, " label"], names: Sequence[str], top: int
) -> list[dict[str, Any]]:
    """The likeliest labels first; none of a row of zeros, which names no action."""
    order = np.argsort(-probs, kind="stable")[:top]
    return [
        {"label": names[i], "probability": round(float(probs[i]), 4)} for i in order if probs[i] > 0
    ]


def spoken(facts: Mapping[str, Any]) -> str:
    """One line of facts for people."""
    parts = [f"{facts['time']:9.2f} s", f"now {_named(facts['now'])}"]
    parts += [f"{ahead['when']} {_named(ahead['actions'])}" for ahead in facts["ahead"]]
    return " | ".join(parts)


def _named(actions: Sequence[Mapping[str, Any]] | None) -> str:
    if not actions:
        return "-"
    return ", ".join(f"{one['label']} {one['probability']:.2f}" for one in actions)


def latency(milliseconds: Sequence[float], every: int) -> str:
    """What an answer took, without the first, in which an engine warms up."""
    rest = milliseconds[1:] or milliseconds
    p95 = float(np.percentile(rest, 95))
    frames = "frame" if every == 1 else f"{every} frames"
    return (
        f"{len(milliseconds)} answers, one every {frames}: median {median(rest):.2f} ms, 95th "
        f"percentile {p95:.2f} ms, first {milliseconds[0]:.2f} ms"
    )


def _json_line(facts: Mapping[str, Any]) -> str:
    return json.dumps(to_json(facts), ensure_ascii=False)


def _silent(items: Sequence[Any], what: str) -> Iterator[Any]:  # noqa: ARG001
    return iter(items)


def _note(sentence: str) -> None:
    print(f"note: {sentence}", file=sys.stderr)
