"""The command line: one function a verb.

Bad input ends with one sentence on standard error and exit code 2, never a traceback.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import tyro

from actioncast import __version__
from actioncast.checkpoint import json_bytes
from actioncast.clip_recipes import CLIP_RECIPES
from actioncast.clip_verbs import about_clips, evaluate_clips, train_clip_recipe
from actioncast.online_verbs import (
    is_online,
    online_key,
    online_protocol,
    print_online,
    refuse_online_options,
)
from actioncast.options import (
    Bench,
    Compare,
    Convert,
    Demo,
    Evaluate,
    Info,
    Predict,
    Train,
    TrainClips,
)
from actioncast.passport import Result, read_result, require_comparable, write_result
from actioncast.progress import Progress, Reporter
from actioncast.protocols import LongTerm, Online, Segmentation, VideoProtocol
from actioncast.questions.command import Questions, questions
from actioncast.recipes import RECIPES, recipe
from actioncast.runs import (
    Loaded,
    checkpoints,
    foreign_data,
    latest_run,
    load_run,
    require_caption_readers,
    require_label_readers,
    train_run,
    trained_protocol,
    unfinished,
)
from actioncast.scoring import evaluate_run
from actioncast.side_by_side import end_of, label_of, print_table
from actioncast.stream_verbs import Export, Stream, export, stream
from actioncast.tables import level_said
from actioncast.training import is_first_process
from actioncast.types import Task

ArgumentsT = TypeVar("ArgumentsT")


def train(arguments: Train | TrainClips, name: str) -> None:
    """Train."""
    if isinstance(arguments, TrainClips):
        folder = train_clip_recipe(arguments, name, _warn)
    else:
        folder = train_run(
            name,
            arguments.config,
            arguments.out / (arguments.name or name),
            data=arguments.data,
            rate=arguments.rate,
            splits=arguments.split,
            machine=arguments.machine,
            resume=arguments.resume,
            say=_warn,
        )
    if not is_first_process():
        return
    if arguments.json:
        _print_json({"run": str(folder), "checkpoints": checkpoints(folder)})
    else:
        print(f"trained {folder}; score it: actioncast evaluate {folder}")


def evaluate(arguments: Evaluate) -> None:
    """Score."""
    from actioncast.seeing import draw_test_videos, require_picture  # noqa: PLC0415

    folders = arguments.run or (latest_run(arguments.runs),)
    if arguments.out is not None and arguments.out.suffix == ".json":
        raise ValueError(
            f"--out must be a folder, into which each task writes its file, got {arguments.out}."
        )
    require_label_readers(folders, arguments.labels_from)
    require_caption_readers(folders, arguments.captions)
    if about_clips(folders):
        refuse_online_options(arguments, (), "a run on short actions")
        if arguments.trunk:
            raise ValueError(
                f"--trunk must go with a run that stands on a language model, got {folders[0]}, a "
                "run on short actions; leave it out."
            )
        evaluate_clips(arguments, folders, _warn)
        return
    if arguments.submission is not None:
        raise ValueError(
            "--submission holds short actions of EPIC-KITCHENS-100, got a run on whole videos."
        )
    _require_samples(arguments)
    for path in arguments.plot:
        require_picture(path)
    found: dict[str, dict[str, Result]] = {}
    written: list[Path] = []
    loaded_runs = {}
    for folder in folders:
        loaded = load_run(
            folder,
            arguments.data,
            arguments.split,
            arguments.device,
            arguments.labels_from,
            arguments.trunk,
            arguments.captions,
        )
        loaded_runs[str(folder)] = loaded
        other = foreign_data(loaded)
        on = loaded[0].dataset.name if other else ""
        odd = [sentence for sentence in (other, unfinished(folder)) if sentence]
        _warn([*loaded[0].dataset.warnings, *odd])
        for protocol in _protocols(arguments, loaded):
            result = evaluate_run(
                loaded,
                protocol,
                num_samples=arguments.num_samples,
                combine=arguments.combine,
                device=arguments.device,
                note=" ".join(odd),
                progress=_progress(),
            )
            key = _key(result.passport.task, protocol, arguments)
            found.setdefault(key, {})[str(folder)] = result
            where = arguments.out or folder / "results"
            file = where / f"{_file(folder, key, arguments, on)}.json"
            write_result(result, file)
            written.append(file)
    if arguments.json:
        _print_json(found)
    else:
        _print_results(found, loaded_runs, written)
    if arguments.plot:
        written += draw_test_videos(loaded_runs, arguments.plot, arguments.videos)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)


def _print_results(
    found: Mapping[str, Mapping[str, Result]],
    runs: Mapping[str, Sequence[Loaded]],
    written: Sequence[Path],
) -> None:
    """Print a table for every key; where there can be none, say at least what was written."""
    allowed = ("input", "features_causal", "selection")
    for key, results in found.items():
        # A run without a hierarchy scores the same labels as one at its finest level.
        levels = (level_said(runs[run][0].dataset.taxonomy) for run in results)
        level = next(filter(None, levels), "")
        print()
        try:
            if key.startswith("online"):
                print_online(results, allowed, f"{key}: {level} of " if level else f"{key}: ")
            else:
                print_table(results, allowed=allowed, title=f"{key}: ", level=level)
        except ValueError:
            _warn([f"wrote {path}" for path in written])
            raise


def _require_samples(arguments: Evaluate) -> None:
    if arguments.num_samples and arguments.combine == "most_likely":
        raise ValueError(
            "--num-samples must come with --combine mean_of_samples or best_of_samples, got "
            "most_likely, which scores no sample."
        )
    if arguments.combine != "most_likely" and not arguments.num_samples:
        raise ValueError(
            f"--combine {arguments.combine} must come with --num-samples of 1 or more, got 0."
        )


def _key(task: str, protocol: VideoProtocol, arguments: Evaluate) -> str:
    """Results under one key stand in one table."""
    if isinstance(protocol, LongTerm):
        return f"{task}-{protocol.horizon_source}"
    return task + online_key(arguments) if isinstance(protocol, Online) else task


def _file(folder: Path, key: str, arguments: Evaluate, on: str) -> str:
    # A result measured otherwise must not take the place of the ordinary one.
    plain = Evaluate()
    asked = ("observed_ratios", "horizon_ratios", "combine", "num_samples")
    for name in ("split", *(asked if key.startswith("long_term") else ())):
        if (value := getattr(arguments, name)) != getattr(plain, name):
            said = "-".join(map(str, value)) if isinstance(value, tuple) else value
            key += f"-{name}-{said}"
    for name in ("labels_from", "captions"):
        if value := getattr(arguments, name):
            key += f"-{name}-{Path(value).name}"
    for name in ("multiple", "seconds"):
        if (value := getattr(arguments, name)) is not None and value != getattr(plain, name):
            key += f"-{name}-{value:g}"
    if arguments.rounded_observation and key.startswith("long_term"):
        key += "-rounded_observation"
    if arguments.legacy_last_segment:
        key += "-legacy"
    if on:
        key += f"-on-{on}"
    if arguments.out is None or len(arguments.run) < 2:
        return key
    return "-".join([*end_of(folder, arguments.run).parts, key])


def _protocols(arguments: Evaluate, loaded: Sequence[Loaded]) -> list[VideoProtocol]:
    model = loaded[0].checkpoint.model
    trained = trained_protocol(loaded[0])
    ratios = loaded[0].training["observed_ratios"]
    segments = max(ratios) >= 1 and Task.SEGMENTATION in model.tasks
    anticipates = min(ratios) < 1 or model.trains_on_whole_videos
    anticipates = anticipates and Task.LONG_TERM in model.tasks
    chosen: list[VideoProtocol] = []
    wanted = arguments.task
    # What a model of streams says of the past it says without looking ahead: its own table tells.
    segments = segments and not is_online(loaded[0])
    if wanted == "segmentation" or (wanted == "all" and segments):
        chosen.append(Segmentation(legacy_last_segment=arguments.legacy_last_segment))
    if wanted == "long_term" or (wanted == "all" and anticipates):
        chosen.append(
            LongTerm(
                observed_ratios=arguments.observed_ratios,
                horizon_ratios=arguments.horizon_ratios,
                horizon_source=arguments.horizon or trained.horizon_source,
                multiple=trained.multiple if arguments.multiple is None else arguments.multiple,
                seconds=trained.seconds if arguments.seconds is None else arguments.seconds,
                rounded_to_steps=arguments.rounded_observation,
            )
        )
    if wanted == "online" or (wanted == "all" and is_online(loaded[0])):
        chosen.append(online_protocol(arguments, loaded[0]))
    refuse_online_options(arguments, chosen, f"{type(model).__name__}")
    if not chosen:
        raise ValueError(f"{type(model).__name__} was trained for no task that can be scored here.")
    return chosen


def compare(arguments: Compare) -> None:
    """Compare."""
    if not arguments.results:
        raise ValueError("compare needs result files, for example runs/*/results/*.json.")
    results = {label_of(path, arguments.results): read_result(path) for path in arguments.results}
    if arguments.json:
        require_comparable(results, arguments.across)
        _print_json({who: result.total for who, result in results.items()})
        return
    print_table(results, allowed=arguments.across, shown=arguments.across)


def predict(arguments: Predict) -> None:
    """Forecast."""
    from actioncast.plotting import SUFFIXES as PICTURES  # noqa: PLC0415
    from actioncast.plotting import print_timeline  # noqa: PLC0415
    from actioncast.seeing import (  # noqa: PLC0415
        forecast_facts,
        forecast_input,
        require_one_level,
        write_forecast,
    )

    runs = (arguments.run, *arguments.beside)
    require_label_readers(runs, arguments.labels_from)
    require_caption_readers(runs, arguments.captions)
    forecasts = [
        forecast_input(
            run,
            arguments.input,
            data=arguments.data,
            split=arguments.split,
            now=arguments.now,
            horizon=arguments.horizon,
            rate=arguments.rate,
            truth=arguments.truth,
            num_samples=arguments.num_samples,
            device=arguments.device,
            labels_from=arguments.labels_from,
            trunk=arguments.trunk,
            captions=arguments.captions,
        )
        for run in runs
    ]
    if any(path.suffix.lower() in PICTURES for path in arguments.out):
        require_one_level(
            {str(run): one.taxonomy for run, one in zip(runs, forecasts, strict=True)}
        )
    rows = forecasts[0].rows()
    rows += [row for other in forecasts[1:] for row in replace(other, truth=None).rows()]
    for path in arguments.out:
        write_forecast(forecasts[0], rows, path)
    if arguments.json:
        facts = [forecast_facts(one) for one in forecasts]
        _print_json(facts[0] if len(facts) == 1 else facts)
        return
    for one in forecasts:
        level = level_said(one.taxonomy)
        print(f"{arguments.input}, by {one.name}" + (f": {level}" if level else ""))
        print_timeline(one.timeline, one.now)
    for path in arguments.out:
        print(f"wrote {path}", file=sys.stderr)


def convert(arguments: Convert) -> None:
    """Convert."""
    from actioncast.convert import convert_clam, convert_diffusion, convert_futr  # noqa: PLC0415

    method, plain = arguments.method, Convert.__dataclass_fields__
    given: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in set().union(*CONVERTS.values())
        if getattr(arguments, name) != plain[name].default
    }
    for name in sorted(given.keys() - CONVERTS[method]):
        owners = [owner for owner, names in CONVERTS.items() if name in names]
        raise ValueError(
            f"--{name.replace('_', '-')} must go with {' or '.join(owners)}, got {method}, which "
            "has no such thing; leave it out."
        )
    function: Any = {
        "futr": convert_futr,
        "clam": convert_clam,
        "actfusion": partial(convert_diffusion, "actfusion"),
        "diffact": partial(convert_diffusion, "diffact"),
    }[method]
    folder = function(arguments.checkpoint, arguments.out, trust=arguments.trust, **given)
    released = method == "clam" and not arguments.paper
    said = ": what the released code computes, which cannot stream; --paper converts one that can"
    print(f"wrote {folder}{said * released}")


def info(arguments: Info) -> None:
    """Say what is there."""
    from actioncast.inventory import describe, describe_cost  # noqa: PLC0415

    if arguments.cost:
        description = describe_cost(
            arguments.what, arguments.backbone, arguments.asked, _progress()
        )
    elif arguments.backbone:
        raise ValueError("--backbone must go with --cost, whose table it stands in; say both.")
    elif arguments.asked != Info().asked:
        raise ValueError(
            "what is asked of a model must go with --cost, whose table tells what it takes; say "
            "both."
        )
    elif len(arguments.what) > 1:
        raise ValueError(
            f"info describes one thing at a time, got {len(arguments.what)}; with --cost it puts "
            "several into one table."
        )
    else:
        description = describe("".join(arguments.what))
    if arguments.json:
        _print_json(description.facts)
    else:
        print(description.text)


def bench(arguments: Bench) -> None:
    """Run the benchmark from labels."""
    from actioncast import bench as benchmark  # noqa: PLC0415

    if arguments.what == "readme":
        print(benchmark.write_readme(arguments.out.parent, arguments.readme))
        return
    results = benchmark.bench_labels(
        data=arguments.data,
        datasets=arguments.datasets,
        models=arguments.models,
        horizons=arguments.horizons,
        splits=arguments.splits,
        seed=arguments.seed,
        out=arguments.out,
        runs=arguments.runs,
        workers=arguments.workers,
        retrain=arguments.retrain,
    )
    if arguments.json:
        _print_json(results)
    else:
        print(benchmark.tables(results))


def demo(arguments: Demo) -> None:
    """Run the main job on embedded data."""
    from actioncast.demo import run_demo  # noqa: PLC0415

    run_demo(arguments.out)


def _progress() -> Progress:
    return Reporter()


def _warn(sentences: Sequence[str]) -> None:
    for sentence in dict.fromkeys(sentences) if is_first_process() else ():
        print(f"note: {sentence}", file=sys.stderr)


def _print_json(value: object) -> None:
    sys.stdout.write(json_bytes(value).decode())


VERBS: Mapping[str, tuple[type, Callable[[Any], None]]] = {
    "evaluate": (Evaluate, evaluate),
    "predict": (Predict, predict),
    "compare": (Compare, compare),
    "bench": (Bench, bench),
    "questions": (Questions, questions),
    "convert": (Convert, convert),
    "export": (Export, export),
    "stream": (Stream, stream),
    "info": (Info, info),
    "demo": (Demo, demo),
}
"""Every verb but `train`, which has options of its own for each recipe."""


STYLE = (
    tyro.conf.EnumChoicesFromValues,
    tyro.conf.DisallowNone,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)
"""How options look: `--horizon seconds`, `--rate FLOAT`, `--json`, RUN."""


OF_VIDEOS = frozenset({"mapping", "dataset", "split", "stride", "rate"})
CONVERTS: Mapping[str, frozenset[str]] = {
    "futr": OF_VIDEOS | {"num_heads"},
    "actfusion": OF_VIDEOS | {"condition_layers", "scale"},
    "diffact": OF_VIDEOS | {"condition_layers", "scale"},
    "clam": frozenset({"data", "num_heads", "act_tokens", "gate_temperature", "ahead", "paper"}),
}
"""Options of `convert` that mean something to a method."""
LISTS = (
    *("--out", "--plot", "--split", "--across", "--beside", "--videos", "--models"),
    *("--condition-layers", "--supervision", "--ahead"),
)
"""Options that take several values after one name; of two names the first would be lost."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _run(words)
    except (
        *(ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError),
        ImportError,
    ) as error:
        print(f"actioncast: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read our output has gone; what is left to flush goes nowhere, without a complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"actioncast: {error.strerror or error}{where}; nothing that was there before is lost.",
            file=sys.stderr,
        )
        return 2
    except Exception as error:
        # The last resort for input that nobody thought of: a sentence, and the trace on request.
        if os.environ.get("ACTIONCAST_TRACEBACK"):
            raise
        print(
            f"actioncast: this input cannot be read ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}); set ACTIONCAST_TRACEBACK=1 to see where.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        goes_on = "; the same command with --resume goes on" if words[:1] == ["train"] else ""
        print(f"\nactioncast: stopped{goes_on}.", file=sys.stderr)
        return 130
    return 0


def _run(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return
    if words[0] == "--version":
        print(__version__)
        return
    verb, rest = words[0], words[1:]
    if verb == "train":
        _run_train(rest)
        return
    if verb not in VERBS:
        raise ValueError(f"unknown verb {verb!r}; the verbs are train, {', '.join(VERBS)}.")
    kind, function = VERBS[verb]
    function(_parsed(kind, rest, verb))


def _run_train(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print("usage: actioncast train RECIPE [--data PATH] [options]\n")
        print("recipes (actioncast train RECIPE --help lists every value):")
        recipes = {**RECIPES, **CLIP_RECIPES}
        width = max(map(len, recipes))
        for name, (sentence, _) in recipes.items():
            print(f"  {name:{width}} {sentence}")
        return
    train(*_train_options(words))


def _train_options(words: Sequence[str]) -> tuple[Train | TrainClips, str]:
    """The options of `train` and the name of the recipe, which comes first."""
    name, rest = words[0], _with_trunk(words[1:])
    if name.startswith("-"):
        raise ValueError(f"train takes the recipe first, got {name!r}: actioncast train RECIPE ...")
    if name in CLIP_RECIPES:
        clips = TrainClips(config=CLIP_RECIPES[name][1])
        return _parsed(TrainClips, rest, f"train {name}", clips), name
    return _parsed(Train, rest, f"train {name}", Train(config=recipe(name))), name


def _with_trunk(words: Sequence[str]) -> list[str]:
    """Say `--trunk NAME` as what it means: this language model, all of its layers."""
    said: list[str] = []
    rest = iter(words)
    for word in rest:
        option, _, value = word.partition("=")
        if option != "--trunk":
            said.append(word)
            continue
        name = value or next(rest, "")
        if not name or name.startswith("--"):
            raise ValueError(
                "--trunk must be followed by the name of a language model or a folder."
            )
        said += ["--model.trunk.name", name]
        if not any(w.split("=")[0] == "--model.trunk.num-layers" for w in words):
            said += ["--model.trunk.num-layers", "0"]
    return said


def _parsed(
    kind: type[ArgumentsT], words: list[str], verb: str, default: ArgumentsT | None = None
) -> ArgumentsT:
    """The options of a verb.

    Raises:
        ValueError: An option is unknown, stands twice or cannot be read; tyro would print a box, or
            take the last of two.
    """
    options = [word.split("=")[0] for word in words if word in LISTS]
    if twice := sorted({option for option in options if options.count(option) > 1}):
        raise ValueError(f"{twice[0]} must stand once, got it twice; list all its values after it.")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=words,
                prog=f"actioncast {verb}",
                description=kind.__doc__,
                default=tyro.MISSING_NONPROP if default is None else default,
                config=STYLE,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    # What stands in the box above its first rule: what is wrong.
    lines = [line.strip("│╭╰╮╯ ") for line in said.getvalue().splitlines()[1:]]
    end = next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))
    sentence = " ".join(" ".join(lines[:end]).split()).rstrip(".")
    raise ValueError(f"{sentence}; see actioncast {verb} --help.")


def _usage() -> str:
    sentences = {"train": Train.__doc__ or ""} | {
        verb: kind.__doc__ or "" for verb, (kind, _) in VERBS.items()
    }
    lines = ["usage: actioncast VERB [options]; actioncast VERB --help lists them.", ""]
    lines += [f"  {verb:10} {sentence.splitlines()[0]}" for verb, sentence in sentences.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
