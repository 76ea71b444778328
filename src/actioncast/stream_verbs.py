"""`export` and `stream`: a recurrent checkpoint as graphs, and any model on a live stream."""

import json
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from jaxtyping import Float

from actioncast.checkpoint import Checkpoint, json_bytes, to_json
from actioncast.export.description import FILE, Precision, is_exported
from actioncast.export.exporting import export_checkpoint
from actioncast.export.pace import frames_between
from actioncast.export.sources import ExportedSource, Incoming, Source
from actioncast.features import LabelFeatures, read_header
from actioncast.models.clam import CLAM
from actioncast.own_files import read_finest
from actioncast.progress import Progress, Reporter
from actioncast.runs import checkpoints, load_checkpoints, read_about, resampled_by
from actioncast.stream_lines import FeatureLines, latency, said, spoken
from actioncast.stream_sources import ClamSource, ModelSource, require_width

STANDARD_INPUT = Path("-")
MOST_HEADER = 4096
"""Bytes that the header of an .npy file may take."""


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
    """a .npy file of features, (time, feature), of a run on labels a .txt file of them; or - for
    standard input, a frame a line as it comes: a JSON list, or numbers with commas or spaces
    between them"""
    every: str = ""
    """time between two answers: frames, as 8, or seconds, as 2s; absent, every frame that the model
    reads"""
    state: Path | None = None
    """file to go on from, if it is there, and to write the state to, however the stream ends"""
    save_every: str = "60s"
    """frames or seconds of the stream between two writes of the state on the way; 0 for none"""
    skip_seen: bool = False
    """leave out as many frames of the features as the state has seen: they hold the stream from its
    start"""
    bad_frames: Literal["refuse", "skip"] = "refuse"
    """what happens to a frame that holds NaN or infinity, or to a line that is no frame"""
    limit: int = 0
    """stop after so many frames; 0 takes all"""
    top: int = 1
    """how many actions each answer names"""
    rate: float = 0.0
    """frames per second of the features, which must be that of the training data; 0 takes it"""
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
    if arguments.skip_seen and arguments.state is None:
        raise ValueError("--skip-seen needs --state, which says how many frames were seen.")
    of_labels = arguments.features.suffix == ".txt"
    read_later = of_labels or arguments.features == STANDARD_INPUT
    held = None if read_later else read_frames(arguments.features)
    source = _source(arguments)
    if of_labels:
        held = read_labels(arguments, source)
    every = frames_between(arguments.every, source.pace)
    before = source.frames
    if before:
        _note(_going_on(source, arguments.skip_seen))
    if held is None:
        lines = FeatureLines(sys.stdin.buffer.readline, source.width, arguments.bad_frames, _note)
        taken = _answered(arguments, source, _part(lines, arguments, before), every, lines.clock)
    else:
        require_width(held, source.width)
        frames = held[before if arguments.skip_seen else 0 :][: arguments.limit or None]
        if not len(frames):
            _note(f"{arguments.features} holds {len(held)} frames, all of them seen before.")
        progress = progress or (_silent if sys.stdout.isatty() else Reporter())
        due = progress(range((before + len(frames)) // every - before // every + 1), "stream")
        taken = _answered(arguments, source, frames, every, time.perf_counter, due)
    if taken:
        print(latency(taken, every), file=sys.stderr)
    elif held is None and source.frames == before:
        _note("standard input held no frame.")


def readable(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer for people: a moment of frames, `in 5.86667 s`, in hundredths of a second."""

    def rounded(when: str) -> str:
        return re.sub(r"\d+\.\d+", lambda found: f"{round(float(found[0]), 2):g}", when)

    return {**facts, "ahead": [{**one, "when": rounded(one["when"])} for one in facts["ahead"]]}


def _part(lines: FeatureLines, arguments: Stream, before: int) -> Incoming:
    """The frames of standard input that are to be read."""
    first = before if arguments.skip_seen else 0
    return islice(lines, first, first + arguments.limit if arguments.limit else None)


def _answered(
    arguments: Stream,
    source: Source,
    frames: Incoming,
    every: int,
    clock: Callable[[], float],
    due: Iterable[object] | None = None,
) -> list[float]:
    """Print the answers, and keep the state however the stream ends; milliseconds of each."""
    before, answers = source.frames, source.answers(frames, every)
    taken: list[float] = []
    with warnings.catch_warnings(), ended_by_signal():
        warnings.showwarning = lambda message, *_, **__: _note(str(message))
        warnings.simplefilter("always", UserWarning)
        try:
            for _ in repeat(None) if due is None else due:
                started = clock()
                answer = next(answers, None)
                if answer is not None:
                    taken.append((clock() - started) * 1e3)
                    facts = said(answer, arguments.top) | {"ms": round(taken[-1], 3)}
                    print(
                        json.dumps(to_json(facts), ensure_ascii=False)
                        if arguments.json
                        else spoken(readable(facts)),
                        flush=True,
                    )
                elif due is None:
                    break
            # Frames after the last answer belong to the state all the same.
            rest = next(answers, None)
            assert rest is None
        finally:
            if arguments.state is not None and source.frames > before:
                source.save()
                _note(_kept(source, arguments.state))
    return taken


def _going_on(source: Source, skips: bool) -> str:
    seen = f"going on after {source.frames} frames ({source.pace.seconds(source.frames)})"
    if skips:
        return f"{seen}, which are left out of FEATURES."
    return f"{seen}; FEATURES must hold what comes after them, or say --skip-seen."


def _kept(source: Source, state: Path) -> str:
    return (
        f"kept the state after {source.frames} frames ({source.pace.seconds(source.frames)}) in "
        f"{state}; go on with the frames after them."
    )


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """SIGTERM ends what is inside as Ctrl-C does: whatever must be written still is."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may ask for signals.
        yield
        return

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
            save_every=arguments.save_every,
        )
    if arguments.threads:
        raise ValueError("--threads is for exported streams, got a run; set OMP_NUM_THREADS.")
    require_no_exports(arguments.source)
    checkpoint = one_checkpoint(arguments.source, arguments.split, arguments.device)
    if said := checkpoint.run["training"].get("labels_from", ""):
        raise ValueError(
            f"{arguments.source} reads labels of what was seen beside features (labels_from "
            f"{said}), but a stream has features alone; forecast from a file with `actioncast "
            "predict`, or stream a run that reads features."
        )
    if checkpoint.run["training"].get("captions", ""):
        raise ValueError(
            f"{arguments.source} reads captions of what was seen, but a stream has features alone; "
            "forecast from a file with `actioncast predict`, or stream a run that reads features."
        )
    if (every := resampled_by(checkpoint)) > 1:
        raise ValueError(
            f"{arguments.source} was trained on one of {every} frames alone (resample {every}), "
            "but a stream is answered on all of them; train with --stride in place of --resample, "
            "or forecast from a file with `actioncast predict`."
        )
    if isinstance(checkpoint.model, CLAM):
        return ClamSource(
            checkpoint,
            rate=arguments.rate,
            bad_frames=arguments.bad_frames,
            state=arguments.state,
            save_every=arguments.save_every,
            device=arguments.device,
        )
    if arguments.state is not None:
        raise ValueError(
            f"--state is for CLAM, whose state can be kept, got {type(checkpoint.model).__name__}; "
            "leave it out."
        )
    return ModelSource(
        checkpoint,
        rate=arguments.rate,
        bad_frames=arguments.bad_frames,
        device=arguments.device,
        window=arguments.window,
        horizon=arguments.horizon,
    )


def require_no_exports(folder: Path) -> None:
    """Raise a ValueError where a folder holds exported streams and is none itself."""
    found = [path.parent for path in sorted(folder.glob(f"*/{FILE}"))]
    if found:
        raise ValueError(
            f"{folder} holds the exported streams {', '.join(one.name for one in found)}; say "
            f"which: {found[0]}."
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
    # An empty array is a header alone, and cannot be mapped.
    if _is_empty(path):
        raise ValueError(f"{path} holds no frames; give features of one or more.")
    read_header(path)
    return np.load(path, mmap_mode="r")


def read_labels(arguments: Stream, source: Source) -> Float[np.ndarray, "time label"]:
    """A label file as the features of a run on labels: one column a label of the finest level.

    Raises:
        FileNotFoundError, ValueError: There is no such file, it names other labels, or the source
            reads features.
    """
    path = arguments.features
    if not path.exists():
        raise FileNotFoundError(f"the labels {path} do not exist.")
    if isinstance(source, ExportedSource) or _trained_on(arguments.source) != "labels":
        raise ValueError(
            f"{arguments.source} must be a run trained with --input labels to be given the label "
            f"file {path}; give a .npy file of features."
        )
    assert isinstance(source, ClamSource | ModelSource), "a run answers by its model"
    taxonomy = source.model.taxonomy
    frames = read_finest(path, taxonomy)
    return LabelFeatures(frames, len(taxonomy.finest)).read(0, len(frames))


def _trained_on(run: Path) -> str:
    """What a run reads; its splits are of one recipe."""
    training = read_about(next(iter(checkpoints(run).values()))).get("training", {})
    return str(training.get("input", ""))


def _is_empty(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > MOST_HEADER:
        return False
    try:
        return np.load(path).size == 0
    except (ValueError, OSError, EOFError):
        return False


def _silent(items: Sequence[Any], what: str) -> Iterator[Any]:  # noqa: ARG001
    return iter(items)


def _note(sentence: str) -> None:
    print(f"note: {sentence}", file=sys.stderr)
