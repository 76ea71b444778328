"""Questions by a language model for every clip: validated, resumable, several at once.

What was answered is appended, line by line, to a file beside the output. A run that was stopped
goes on from there.
"""

import json
import os
import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from actioncast.progress import Progress, silent
from actioncast.questions.endpoint import ChatEndpoint, EndpointError, RefusedError
from actioncast.questions.leaks import LeakChecker, QuestionPair, plain, spoken
from actioncast.questions.prompts import ask, ask_again, describe
from actioncast.questions.question_files import listed, not_a_pair

LONGEST = 400
"""Characters of a question; more is no question."""
SILENCES = 3
"""Clips in a row without any answer, after which the endpoint counts as down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An action to ask about."""

    id: str
    """Of the clip."""
    verb: int
    noun: int
    narration: str = ""


class UnusableError(Exception):
    """The model's answers about one action are no questions, however often it was asked."""


def ask_about(
    subject: Subject, endpoint: ChatEndpoint, checker: LeakChecker, tries: int
) -> QuestionPair:
    """Two questions about one action, masked.

    Raises:
        UnusableError: No answer of `tries` was usable.
        EndpointError: The endpoint gave no answer.
    """
    verb = spoken("verb", checker.names["verb"][subject.verb])
    noun = spoken("noun", checker.names["noun"][subject.noun])
    description = endpoint.complete(describe(subject.narration, verb, noun))
    first = ask(verb, noun, description)
    messages, trouble = first, ""
    for _ in range(tries):
        answer = endpoint.complete(messages)
        pair, trouble = parse_answer(answer)
        leaks = [] if pair is None else checker.leaks(pair, subject.verb, subject.noun)
        if pair is not None and not leaks:
            return pair.masked(checker, subject.verb, subject.noun)
        if leaks:
            trouble = ", ".join(f"the {head} question says {word!r}" for head, word in leaks)
        # Only the last attempt is shown: a chat of many mistakes teaches them.
        messages = ask_again(first, answer, "" if leaks else trouble, leaks)
    raise UnusableError(trouble)


def parse_answer(answer: str) -> tuple[QuestionPair | None, str]:
    """The questions in a model's answer, or what is wrong with it.

    Words or a code fence around the JSON are passed over.
    """
    start = answer.find("{")
    if start < 0:
        return None, "the answer holds no JSON object"
    try:
        value, _ = json.JSONDecoder().raw_decode(answer[start:])
    except (ValueError, RecursionError):
        return None, "the answer is broken JSON"
    if isinstance(value, dict):
        value = {head: value.get(head) for head in ("verb", "noun")}
    if wrong := not_a_pair(value):
        return None, f'the answer must have two strings, "verb" and "noun" ({wrong})'
    verb, noun = (" ".join(plain(value[head]).split()) for head in ("verb", "noun"))
    if max(len(verb), len(noun)) > LONGEST:
        return None, f"a question must have at most {LONGEST} characters"
    return QuestionPair(verb=verb, noun=noun), ""


def partial_file(out: Path) -> Path:
    """Where the answers of an unfinished run are kept: beside the output."""
    return out.with_name(f"{out.name}.partial.jsonl")


class Partial:
    """The answers so far, in a file of one JSON object a line."""

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        """Open the file, or begin it.

        Args:
            path: The file.
            about: What the answers depend on; another run's answers are not mixed in.

        Raises:
            ValueError: The file is of another run, or broken.
        """
        self.path = path
        self.answers: dict[str, QuestionPair] = {}
        self._stream: TextIO | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_bytes() if path.exists() else b""
        # A kill may have cut the last line short.
        whole = text[: text.rfind(b"\n") + 1]
        lines = whole.decode(errors="replace").splitlines()
        if lines:
            self._read(lines, dict(about))
        if len(whole) < len(text):
            os.truncate(path, len(whole))
        self._stream = path.open("a", encoding="utf-8")
        if not lines:
            self._append({"about": dict(about)})

    def add(self, clip: str, pair: QuestionPair) -> None:
        """Keep an answer, on disk at once."""
        self.answers[clip] = pair
        self._append({"id": clip, "verb": pair.verb, "noun": pair.noun})

    def close(self) -> None:
        """Close the file; it stays."""
        if self._stream is not None:
            self._stream.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self._stream is not None
        self._stream.write(f"{json.dumps(line, ensure_ascii=False)}\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _read(self, lines: Sequence[str], about: Mapping[str, str]) -> None:
        try:
            was = json.loads(lines[0])["about"]
            for line in lines[1:]:
                found = json.loads(line)
                pair = QuestionPair(verb=str(found["verb"]), noun=str(found["noun"]))
                self.answers[str(found["id"])] = pair
        except (ValueError, LookupError, TypeError):
            raise ValueError(
                f"{self.path} holds broken lines; mend or delete it to begin anew."
            ) from None
        if was != about:
            other = [name for name in about if was.get(name) != about[name]] or ["layout"]
            raise ValueError(
                f"{self.path} was begun with another {', '.join(other)}; finish that run, delete "
                "the file to begin anew, or give another output."
            )


def ask_all(
    subjects: Sequence[Subject],
    endpoint: ChatEndpoint,
    checker: LeakChecker,
    partial: Partial,
    *,
    tries: int = 3,
    workers: int = 4,
    progress: Progress = silent,
) -> dict[str, str]:
    """Ask about every action that has no answer yet; returns what is wrong, by clip.

    Raises:
        EndpointError: The endpoint refuses, or has fallen silent; what came is kept.
    """
    waiting = [subject for subject in subjects if subject.id not in partial.answers]
    failures: dict[str, str] = {}
    silences = 0
    results = _answers(waiting, endpoint, checker, tries, min(workers, len(waiting)))
    try:
        for _ in progress(range(len(waiting)), "questions"):
            subject, answer = next(results)
            if isinstance(answer, QuestionPair):
                partial.add(subject.id, answer)
                silences = 0
            elif isinstance(answer, UnusableError):
                failures[subject.id] = str(answer)
                silences = 0
            elif isinstance(answer, EndpointError):
                failures[subject.id] = str(answer)
                silences += 1
                if isinstance(answer, RefusedError) or silences == SILENCES:
                    raise EndpointError(
                        f"{answer} {len(partial.answers)} of {len(subjects)} clips are answered "
                        f"and kept in {partial.path}; the same command goes on from there."
                    )
            else:
                raise answer
    finally:
        results.close()
    return failures


def _answers(
    subjects: Sequence[Subject],
    endpoint: ChatEndpoint,
    checker: LeakChecker,
    tries: int,
    workers: int,
) -> Generator[tuple[Subject, QuestionPair | Exception], None, None]:
    """Answers as they come, by threads that end with the program."""
    jobs: queue.SimpleQueue[Subject] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[Subject, QuestionPair | Exception]] = queue.SimpleQueue()
    stopped = threading.Event()
    for subject in subjects:
        jobs.put(subject)

    def work() -> None:
        while not stopped.is_set():
            try:
                subject = jobs.get_nowait()
            except queue.Empty:
                return
            try:
                results.put((subject, ask_about(subject, endpoint, checker, tries)))
            except Exception as error:
                if isinstance(error, RefusedError):
                    # Whatever else would be asked is refused too.
                    stopped.set()
                results.put((subject, error))

    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in subjects:
            yield results.get()
    finally:
        stopped.set()


def failure_sentence(failures: Mapping[str, str], partial: Partial) -> str:
    """What is said of a run that ends without all its questions."""
    each = listed(f"{clip} ({why})" for clip, why in sorted(failures.items()))
    return (
        f"{len(failures)} clips have no questions: {each}. The other answers are kept in "
        f"{partial.path}; the same command asks about these again."
    )
