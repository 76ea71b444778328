"""Progress with remaining time: a bar on a terminal, a line now and then elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TextIO, TypeVar, runtime_checkable

ItemT = TypeVar("ItemT")


@runtime_checkable
class Progress(Protocol):
    """Wraps a sequence and reports while it is consumed."""

    def __call__(self, items: Sequence[ItemT], what: str) -> Iterable[ItemT]:
        """Yield the items."""


def silent(items: Sequence[ItemT], what: str) -> Iterable[ItemT]:  # noqa: ARG001
    """Report nothing."""
    return items


class Reporter:
    """Says how far a long job is and how long it will still take, on standard error.

    On a terminal one line is rewritten; elsewhere a line is printed every `every` seconds, so
    that a log stays readable.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        every: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.live = self.stream.isatty()
        self.every = 0.2 if self.live else every
        self.clock = clock

    def __call__(self, items: Sequence[ItemT], what: str) -> Iterator[ItemT]:
        """Yield the items and report in between."""
        started = said = self.clock()
        for done, item in enumerate(items):
            yield item
            if (now := self.clock()) - said >= self.every:
                said = now
                self.say(what, done + 1, len(items), now - started)
        self.close()

    def say(self, what: str, done: int, total: int, elapsed: float, more: str = "") -> None:
        """Report once."""
        left = elapsed / max(done, 1) * (total - done)
        width = 24
        filled = round(width * done / max(total, 1))
        bar = "#" * filled + "." * (width - filled)
        line = f"{what} [{bar}] {done}/{total}, {clock_time(left)} left{more}"
        if self.live:
            # A line that wraps could not be rewritten.
            columns = shutil.get_terminal_size().columns - 1
            self.stream.write(f"\r\x1b[2K{line[:columns]}")
        else:
            self.stream.write(f"{line}\n")
        self.stream.flush()

    def close(self) -> None:
        """Leave the line that was rewritten."""
        if self.live:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()


def clock_time(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
