"""Question files: made by anybody, for the clips of a data set, as JSON.

    {"format": 1, "source": "...", "mode": "oracle",
     "questions": {clip id: {"verb": "...", "noun": "..."}}}

`mode` may be absent: the questions are then taken for oracle ones, which is the cautious reading.
Predicted questions also say `ahead`, the seconds before a clip's start at which observation ended.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actioncast.files import replace_file
from actioncast.questions.leaks import LeakChecker, QuestionPair, plain
from actioncast.questions.modes import QuestionMode

FORMAT = 1
"""Version of the layout."""
SHOWN = 10
"""How many of many a message lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionFile:
    """Two questions for every clip, and where they come from."""

    source: str
    """Who made them: a model's name, or the templates and their seed."""
    mode: QuestionMode
    questions: Mapping[str, QuestionPair]
    """By the id of the clip."""
    ahead: float | None = None
    """Of predicted questions: seconds before a clip's start at which observation ended."""


def listed(items: Iterable[str]) -> str:
    """The first ten of them, and how many there are in all."""
    every = list(items)
    more = f", ... ({len(every)} in all)" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def write_questions(path: Path, file: QuestionFile) -> None:
    """Write a question file, replacing an older one whole.

    Raises:
        ValueError: There is no question to write.
    """
    if file.mode is QuestionMode.NONE or not file.questions:
        raise ValueError(
            f"a question file must hold questions, got {len(file.questions)} in the mode "
            f"{file.mode}; choose oracle, predicted or generic."
        )
    content = {
        "format": FORMAT,
        "source": file.source,
        "mode": file.mode.value,
        **({} if file.ahead is None else {"ahead": file.ahead}),
        "questions": {
            clip: {"verb": pair.verb, "noun": pair.noun} for clip, pair in file.questions.items()
        },
    }
    text = json.dumps(content, indent=1, ensure_ascii=False)
    replace_file(path, f"{text}\n".encode())


def read_questions(
    path: Path,
    ids: Iterable[str],
    *,
    checker: LeakChecker | None = None,
    answers: Mapping[str, tuple[int, int]] | None = None,
    mask: bool = False,
) -> QuestionFile:
    """Read the questions of these clips.

    With a checker, the other half of the action is masked in every question, and a question that
    names its own answer is refused. Answers are what the questions were made from: the annotation
    for oracle questions, the recognised actions for predicted ones. Masking predicted questions by
    the annotation would tell where a recogniser was right; clips without an answer pass as they
    are.

    Args:
        path: The file.
        ids: The clips that it must hold, all and no others.
        checker: Finds the answers.
        answers: Verb and noun by clip; needs a checker.
        mask: Mask what names its own answer instead of refusing it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no question file, lacks or exceeds the clips, holds what is no
            question, or a question that names its answer.
    """
    found = parse_questions(path)
    wanted = list(ids)
    _require_ids(path, wanted, found.questions)
    if checker is None or answers is None:
        return QuestionFile(
            source=found.source,
            mode=found.mode,
            questions={clip: found.questions[clip] for clip in wanted},
            ahead=found.ahead,
        )
    questions: dict[str, QuestionPair] = {}
    leaks: list[str] = []
    for clip in wanted:
        pair = found.questions[clip]
        if clip in answers:
            verb, noun = answers[clip]
            if mask:
                pair = pair.without_answers(checker, verb, noun)
            leaks += [
                f"{clip} ({head} question, {word!r})"
                for head, word in checker.leaks(pair, verb, noun)
            ]
            pair = pair.masked(checker, verb, noun)
        questions[clip] = pair
    if leaks:
        raise ValueError(
            f"{path}: a question must not name its own answer, got {listed(leaks)}; ask anew, or "
            "let the words be masked (--mask)."
        )
    return QuestionFile(
        source=found.source, mode=found.mode, questions=questions, ahead=found.ahead
    )


def parse_questions(path: Path) -> QuestionFile:
    """Read a question file, whatever clips it holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is broken, or holds what is no question.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no question file {path}; make one: actioncast questions {path} --data ..."
        )
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}.") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("questions"), dict):
        raise ValueError(
            f'{path} must be an object with "format", "source" and "questions", got '
            f"{_kind(content)}."
        )
    if content.get("format") != FORMAT:
        raise ValueError(f"{path}: format must be {FORMAT}, got {content.get('format')!r}.")
    if not isinstance(source := content.get("source"), str) or not source.strip():
        raise ValueError(f"{path}: source must say who made the questions, got {source!r}.")
    mode = content.get("mode", QuestionMode.ORACLE.value)
    known = [m.value for m in QuestionMode if m is not QuestionMode.NONE]
    if mode not in known:
        raise ValueError(f"{path}: mode must be one of {', '.join(known)}, got {mode!r}.")
    ahead = content.get("ahead")
    if ahead is not None and (
        isinstance(ahead, bool) or not isinstance(ahead, int | float) or not 0 <= ahead < 1e6
    ):
        raise ValueError(f"{path}: ahead must be seconds of 0 or more, got {ahead!r}.")
    questions: dict[str, QuestionPair] = {}
    odd: list[str] = []
    for clip, pair in content["questions"].items():
        if wrong := not_a_pair(pair):
            odd.append(f"{clip} ({wrong})")
        else:
            questions[clip] = QuestionPair(verb=plain(pair["verb"]), noun=plain(pair["noun"]))
    if odd:
        raise ValueError(
            f'{path}: every clip must have a "verb" and a "noun" question, two strings, got '
            f"{listed(odd)}."
        )
    return QuestionFile(source=source, mode=QuestionMode(mode), questions=questions, ahead=ahead)


def not_a_pair(value: object) -> str:
    """What is wrong with what should be two questions; empty if nothing is."""
    if not isinstance(value, dict):
        return _kind(value)
    for head in ("verb", "noun"):
        question = value.get(head)
        if not isinstance(question, str):
            return f"{head}: {_kind(question)}"
        if not any(character.isalpha() for character in question):
            return f"{head}: empty"
        if any(0xD800 <= ord(character) <= 0xDFFF for character in question):
            return f"{head}: half of a character, which no file can hold"
    if more := sorted(set(value) - {"verb", "noun"}):
        return f"also {', '.join(more)}"
    return ""


def _require_ids(path: Path, wanted: list[str], found: Mapping[str, QuestionPair]) -> None:
    known = set(wanted)
    missing = [clip for clip in wanted if clip not in found]
    extra = [clip for clip in found if clip not in known]
    if not missing and not extra:
        return
    said = []
    if missing:
        said.append(f"{len(missing)} are missing: {listed(missing)}")
    if extra:
        said.append(f"{len(extra)} are of no clip: {listed(extra)}")
    raise ValueError(
        f"{path} must hold the questions of {len(wanted)} clips, all and no others; "
        f"{'; '.join(said)}. Was it made for another part of the data?"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} must stand once, got it twice.")
        found[name] = value
    return found


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    if value is None:
        return "nothing"
    return names.get(type(value), "a number")
