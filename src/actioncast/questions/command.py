"""`actioncast questions`: make a question file by templates or a language model, or check one."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from actioncast.data import DATA_VARIABLE
from actioncast.data.action_history import ActionHistory
from actioncast.data.clips import ActionClip, ClipDataset
from actioncast.data.epic_kitchens import class_categories, class_synonyms, open_epic_kitchens
from actioncast.progress import Progress, Reporter
from actioncast.questions.asking import (
    Partial,
    Subject,
    ask_all,
    failure_sentence,
    partial_file,
)
from actioncast.questions.endpoint import ChatEndpoint
from actioncast.questions.leaks import LeakChecker, QuestionPair
from actioncast.questions.modes import QuestionMode
from actioncast.questions.prompts import VERSION
from actioncast.questions.question_files import (
    QuestionFile,
    parse_questions,
    read_questions,
    write_questions,
)
from actioncast.questions.templates import QuestionBank


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Write two questions for every clip of a data set, or check a file of them."""

    out: tyro.conf.Positional[str] = ""
    """the JSON file to write"""
    data: Path = Path("epic100")
    """folder of the annotation, here or in $ACTIONCAST_DATA"""
    part: str = "validation"
    """whose clips: train or validation"""
    mode: Literal["oracle", "predicted", "generic"] = "oracle"
    """what they are made from: each clip's own annotation, the actions observed before it, or
    nothing"""
    seed: int = 0
    """which paraphrases the templates take"""
    ahead: float = 1.0
    """for predicted: seconds before the clip's start at which observation ends"""
    recount: int = 0
    """for predicted, by templates: how many observed actions the questions tell by name; 0 asks
    about the last one as the paper does, in clues"""
    endpoint: str = ""
    """base address of an OpenAI-compatible server, as https://api.openai.com/v1; absent, templates
    make the questions"""
    model: str = ""
    """name of the model there"""
    key_variable: str = "OPENAI_API_KEY"
    """environment variable that holds the key; empty, none is sent"""
    workers: int = 4
    """questions asked at once"""
    tries: int = 3
    """how often the model is asked about one clip until its answer is usable"""
    timeout: float = 120.0
    """seconds to wait for an answer"""
    check: Path | None = None
    """check this file instead; with an output, write it there as it would be read"""
    mask: bool = False
    """with --check: mask what gives its own answer away, instead of refusing it"""


def questions(arguments: Questions, progress: Progress | None = None) -> None:
    """Make or check questions.

    Raises:
        ValueError, FileNotFoundError: An option, the data or the file is wrong, the endpoint
            refuses, or clips are left without questions.
    """
    _require_options(arguments)
    folder = annotation_folder(arguments.data)
    dataset = open_epic_kitchens(folder)
    for sentence in dataset.warnings:
        print(f"actioncast: {sentence}", file=sys.stderr)
    clips = dataset.part(arguments.part)
    checker = LeakChecker(dataset.taxonomy, _class_notes(folder)[0])
    if arguments.check is not None:
        _check(arguments, arguments.check, clips, checker)
        return
    mode = QuestionMode(arguments.mode)
    out = Path(arguments.out)
    # Paid answers must not be lost to a folder that cannot be written.
    out.parent.mkdir(parents=True, exist_ok=True)
    if mode is QuestionMode.GENERIC:
        generic = QuestionBank(dataset.taxonomy, checker).generic()
        found: Mapping[str, QuestionPair] = {clip.id: generic for clip in clips}
        source = "generic"
    elif arguments.endpoint:
        source = f"{arguments.model}, prompts {VERSION}"
        if mode is QuestionMode.PREDICTED:
            source += f", last action observed until {arguments.ahead:g} s before"
        asker = Reporter() if progress is None else progress
        found = _by_model(arguments, dataset, clips, checker, source, asker)
    else:
        source = f"templates, seed {arguments.seed}"
        if mode is QuestionMode.PREDICTED:
            told = f"{arguments.recount} actions" if arguments.recount else "last action"
            source += f", {told} observed until {arguments.ahead:g} s before"
        found = by_templates(dataset, clips, checker, arguments, categories=_class_notes(folder)[1])
    ahead = arguments.ahead if mode is QuestionMode.PREDICTED else None
    write_questions(out, QuestionFile(source=source, mode=mode, questions=found, ahead=ahead))
    if arguments.endpoint:
        partial_file(out).unlink(missing_ok=True)
    print(f"wrote {out}: {len(found)} pairs; {mode.sentence}.")


def by_templates(
    dataset: ClipDataset,
    clips: Sequence[ActionClip],
    checker: LeakChecker,
    arguments: Questions,
    categories: Mapping[str, Mapping[int, str]] | None = None,
) -> dict[str, QuestionPair]:
    """The template questions of these clips."""
    bank = QuestionBank(dataset.taxonomy, checker, categories, arguments.seed)
    if arguments.mode == "generic":
        return {clip.id: bank.generic() for clip in clips}
    if arguments.mode == "oracle":
        return {clip.id: bank.pair(clip.verb, clip.noun, clip.id) for clip in clips}
    seen = observed_before(dataset, clips, arguments.ahead)
    if arguments.recount:
        return {clip.id: bank.after(seen[clip.id], clip.id, arguments.recount) for clip in clips}
    return {
        clip.id: bank.pair(*seen[clip.id][-1], clip.id) if seen[clip.id] else bank.generic()
        for clip in clips
    }


def observed_before(
    dataset: ClipDataset, clips: Sequence[ActionClip], seconds: float
) -> dict[str, list[tuple[int, int]]]:
    """Verb and noun of what had started this long before each clip, the latest last."""
    history = ActionHistory(dataset, anticipation_time=seconds)
    found: dict[str, list[tuple[int, int]]] = {}
    for clip in clips:
        seen = history.observed(clip)
        found[clip.id] = list(zip(seen.verbs.tolist(), seen.nouns.tolist(), strict=True))
    return found


def annotation_folder(path: Path) -> Path:
    """A folder as given, or in `$ACTIONCAST_DATA`.

    Raises:
        FileNotFoundError: It is in neither place.
    """
    root = os.environ.get(DATA_VARIABLE)
    places = [path, *([Path(root) / path] if root else [])]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"there is no folder {' nor '.join(str(place) for place in places)}; say where the "
        f"annotation lies: --data PATH, or set {DATA_VARIABLE}."
    )


def _by_model(
    arguments: Questions,
    dataset: ClipDataset,
    clips: Sequence[ActionClip],
    checker: LeakChecker,
    source: str,
    progress: Progress,
) -> dict[str, QuestionPair]:
    endpoint = ChatEndpoint(
        url=arguments.endpoint,
        model=arguments.model,
        key_variable=arguments.key_variable,
        timeout=arguments.timeout,
    )
    found: dict[str, QuestionPair] = {}
    if arguments.mode == "oracle":
        subjects = [
            Subject(id=c.id, verb=c.verb, noun=c.noun, narration=c.narration) for c in clips
        ]
    else:
        generic = QuestionBank(dataset.taxonomy, checker).generic()
        seen = observed_before(dataset, clips, arguments.ahead)
        # As the paper does: the questions are about the action that was recognised last.
        subjects = [
            Subject(id=clip, verb=actions[-1][0], noun=actions[-1][1])
            for clip, actions in seen.items()
            if actions
        ]
        found = {clip: generic for clip, actions in seen.items() if not actions}
    about = {
        "model": source,
        "mode": arguments.mode,
        "data": f"{dataset.name} {dataset.fingerprint()} {arguments.part}",
        "ahead": f"{arguments.ahead:g}" if arguments.mode == "predicted" else "",
    }
    partial = Partial(partial_file(Path(arguments.out)), about)
    try:
        failures = ask_all(
            subjects,
            endpoint,
            checker,
            partial,
            tries=arguments.tries,
            workers=arguments.workers,
            progress=progress,
        )
    finally:
        partial.close()
    if failures:
        raise ValueError(failure_sentence(failures, partial))
    answers = found | partial.answers
    return {clip.id: answers[clip.id] for clip in clips}


def _check(
    arguments: Questions, path: Path, clips: Sequence[ActionClip], checker: LeakChecker
) -> None:
    mode = parse_questions(path).mode
    # What others were made from is not in the file; masking by the annotation would tell it.
    known = {clip.id: (clip.verb, clip.noun) for clip in clips} if mode.is_oracle else None
    if arguments.mask and known is None:
        raise ValueError(
            f"--mask must be for oracle questions, got {path} of {mode} ones: masked by the "
            "annotation, they would tell it."
        )
    file = read_questions(
        path, [clip.id for clip in clips], checker=checker, answers=known, mask=arguments.mask
    )
    if arguments.out:
        write_questions(Path(arguments.out), file)
    leaks = "none names its own answer" if known is not None else "answers are not checked"
    print(f"{path}: {len(file.questions)} pairs; {mode.sentence}; {leaks}; made by {file.source}.")


def _class_notes(
    folder: Path,
) -> tuple[Mapping[str, Mapping[int, Sequence[str]]], Mapping[str, Mapping[int, str]]]:
    """Synonyms and categories; none where the class files are absent."""
    try:
        return class_synonyms(folder), class_categories(folder)
    except FileNotFoundError as error:
        print(
            f"actioncast: without class files the names of the classes alone are looked for, no "
            f"synonyms ({error}).",
            file=sys.stderr,
        )
        return {}, {}


def _require_options(arguments: Questions) -> None:
    if not arguments.out and arguments.check is None:
        raise ValueError("say which file to write, or which to check: --check FILE.")
    if arguments.mask and arguments.check is None:
        raise ValueError("--mask must come with --check FILE: what is made here is masked already.")
    if arguments.endpoint and arguments.mode == "generic":
        raise ValueError("generic questions are made without a model; leave --endpoint away.")
    if arguments.model and not arguments.endpoint:
        raise ValueError("--model must come with --endpoint, the address of its server.")
    for name, least in (("workers", 1), ("tries", 1), ("recount", 0)):
        if getattr(arguments, name) < least:
            raise ValueError(f"--{name} must be {least} or more, got {getattr(arguments, name)}.")
    if Path(arguments.out).is_dir() and arguments.out:
        raise ValueError(f"the output must be a file, got the folder {arguments.out}.")
