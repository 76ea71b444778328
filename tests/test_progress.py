import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from actioncast.progress import Progress, Reporter, clock_time, silent


class Clock:
    """Goes on when asked to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "log").open("w+") as file:
        yield file


def written(log: TextIO) -> str:
    log.seek(0)
    return log.read()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0:00"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (125, "2:05"),
        (3600, "1:00:00"),
        (7384, "2:03:04"),
    ],
)
def test_times_as_people_write_them(seconds: float, words: str) -> None:
    assert clock_time(seconds) == words


def test_a_log_gets_a_line_now_and_then_with_the_remaining_time(log: TextIO) -> None:
    clock = Clock()
    reporter = Reporter(log, every=15.0, clock=clock)
    seen = []
    for item in reporter(list(range(10)), "work"):
        seen.append(item)
        clock.now += 10
    assert seen == list(range(10))
    lines = written(log).splitlines()
    assert len(lines) == 5
    assert re.fullmatch(r"work \[#{5}\.{19}\] 2/10, 1:20 left", lines[0])
    assert lines[-1].startswith("work [" + "#" * 24 + "] 10/10, 0:00 left")
    assert "\r" not in written(log)


def test_quick_work_is_not_reported(log: TextIO) -> None:
    list(Reporter(log)(list(range(1000)), "work"))
    assert written(log) == ""


def everything(outer: int) -> str:
    """What was written to the other end of a terminal, which is closed."""
    said = b""
    with contextlib.suppress(OSError):
        while part := os.read(outer, 4096):
            said += part
    os.close(outer)
    return said.decode()


def test_a_terminal_line_is_rewritten_never_wrapped_and_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    outer, inner = os.openpty()
    with os.fdopen(inner, "w") as terminal:
        clock = Clock()
        reporter = Reporter(terminal, clock=clock)
        for _ in reporter(list(range(4)), "a long name for a piece of work"):
            clock.now += 1
    said = everything(outer)
    assert "\n" not in said
    lines = [line for line in said.split("\r\x1b[2K") if line]
    assert len(lines) == 4
    assert max(map(len, lines)) < 40
    assert said.endswith("\r\x1b[2K")


def test_more_can_be_said(log: TextIO) -> None:
    Reporter(log).say("train", 3, 4, 30.0, ", loss 0.5")
    assert written(log).endswith("3/4, 0:10 left, loss 0.5\n")
    # Nothing done, and nothing to do.
    Reporter(log).say("train", 0, 0, 0.0)
    assert written(log).endswith("0/0, 0:00 left\n")


def test_silence_is_progress_too(log: TextIO) -> None:
    progress: Progress = silent
    assert list(progress([1, 2], "work")) == [1, 2]
    assert isinstance(Reporter(log), Progress)
