"""`train` and `evaluate` for runs on short actions: what `__main__` hands on to."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from actioncast.checkpoint import json_bytes
from actioncast.clip_config import ClipTrainConfig
from actioncast.clip_evaluation import ScoresByHead
from actioncast.clip_runs import LoadedClips, is_clip_run, load_clip_run, train_clip_run
from actioncast.clip_scoring import (
    clip_probabilities,
    clip_result,
    coming_probabilities,
    coming_result,
)
from actioncast.clip_training import VALIDATION
from actioncast.options import Evaluate, TrainClips
from actioncast.passport import Result, write_result
from actioncast.progress import Reporter
from actioncast.runs import checkpoints, read_about, unfinished
from actioncast.side_by_side import end_of, print_table
from actioncast.submission import Supervision, write_submission

Say = Callable[[Sequence[str]], None]
UNASKED = (
    *("task", "horizon", "multiple", "seconds", "observed_ratios", "horizon_ratios"),
    *("rounded_observation", "legacy_last_segment", "num_samples", "combine", "plot", "videos"),
)
"""Options of `evaluate` that mean nothing to short actions."""


def train_clip_recipe(arguments: TrainClips, name: str, say: Say) -> Path:
    """Train; returns the folder of the run."""
    return train_clip_run(
        name,
        arguments.config,
        arguments.out / (arguments.name or name),
        data=arguments.data,
        machine=arguments.machine,
        resume=arguments.resume,
        say=say,
    )


def about_clips(folders: Sequence[Path]) -> bool:
    """Whether runs are about short actions.

    Raises:
        ValueError: Some are and some are not.
    """
    kinds = {
        folder: is_clip_run(read_about(next(iter(checkpoints(folder).values()))))
        for folder in folders
    }
    if len(set(kinds.values())) > 1:
        clips = next(folder for folder, is_clips in kinds.items() if is_clips)
        videos = next(folder for folder, is_clips in kinds.items() if not is_clips)
        raise ValueError(
            f"runs on short actions and on whole videos have no score in common, got {clips} and "
            f"{videos}; evaluate them apart."
        )
    return any(kinds.values())


def evaluate_clips(arguments: Evaluate, folders: Sequence[Path], say: Say) -> None:
    """Score runs on short actions, write their results, print one table a task.

    Raises:
        ValueError, FileNotFoundError: An option is of whole videos, or a run cannot be scored.
    """
    plain = Evaluate()
    for name in UNASKED:
        if getattr(arguments, name) != getattr(plain, name):
            raise ValueError(
                f"--{name.replace('_', '-')} is an option for whole videos, got a run on short "
                "actions; leave it out."
            )
    if arguments.submission is not None and len(folders) > 1:
        raise ValueError(f"--submission holds the answers of one run, got {len(folders)} runs.")
    levels = Supervision(
        pretraining=arguments.supervision[0],
        labels=arguments.supervision[1],
        data=arguments.supervision[2],
    )
    found: dict[str, dict[str, Result]] = {}
    written: list[Path] = []
    for folder in folders:
        part = arguments.split or VALIDATION
        loaded = load_clip_run(folder, arguments.data, part, arguments.device)
        odd = [sentence for sentence in (_foreign(loaded), unfinished(folder)) if sentence]
        say([*loaded.dataset.warnings, *odd])
        result, scores = _scored(loaded, arguments, " ".join(odd))
        found.setdefault(result.passport.task, {})[str(folder)] = result
        file = (arguments.out or folder / "results") / f"{_file(folder, loaded, arguments)}.json"
        write_result(result, file)
        written.append(file)
        if arguments.submission is not None and (task := loaded.config.task) != "coming_actions":
            write_submission(
                arguments.submission, scores, loaded.clips, loaded.dataset.taxonomy, task, levels
            )
            written.append(arguments.submission)
    if arguments.json:
        sys.stdout.write(json_bytes(found).decode())
    else:
        for results in found.values():
            print()
            print_table(results, allowed=("input", "features_causal", "selection"))
    for path in written:
        print(f"wrote {path}", file=sys.stderr)


def _scored(loaded: LoadedClips, arguments: Evaluate, note: str) -> tuple[Result, ScoresByHead]:
    """The result of a run, and what a submission holds; nothing of coming actions."""
    if loaded.config.task == "coming_actions":
        if arguments.submission is not None:
            raise ValueError(
                "--submission writes the answers of EPIC-KITCHENS' challenge, got a run on coming "
                "actions; leave it out."
            )
        answers = coming_probabilities(loaded, arguments.device, Reporter())
        return coming_result(loaded, answers, note), {}
    scores = clip_probabilities(loaded, arguments.device, Reporter())
    return clip_result(loaded, scores, note), scores


def _file(folder: Path, loaded: LoadedClips, arguments: Evaluate) -> str:
    # A result measured otherwise must not take the place of the ordinary one.
    config: ClipTrainConfig = loaded.config
    name: str = config.task
    if config.frames != "before_action":
        name += f"-{config.frames}"
    if loaded.part != VALIDATION:
        name += f"-{loaded.part}"
    if _foreign(loaded):
        name += f"-on-{loaded.dataset.name}-{loaded.dataset.fingerprint()}"
    if arguments.out is None or len(arguments.run) < 2:
        return name
    return "-".join([*end_of(folder, arguments.run).parts, name])


def _foreign(loaded: LoadedClips) -> str:
    trained, found = loaded.checkpoint.run.get("fingerprint"), loaded.dataset.fingerprint()
    if trained == found:
        return ""
    return (
        f"scored on other data ({loaded.dataset.name}, {found}) than the run was trained on "
        f"({trained}): what is scored may have trained."
    )
