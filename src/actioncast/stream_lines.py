"""Features as lines of text, one frame a line, read as they come; and answers as lines."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from actioncast.export.sources import Answer

NUMPY = b"\x93NUMPY"
"""How an `.npy` file begins."""


class FeatureLines:
    """The frames of a stream of lines; each is taken when it has come, and none is kept.

    A line holds the numbers of one frame: a JSON list, or numbers with commas or spaces between
    them. An empty line is no frame. A line that cannot be read is refused, or stands as a frame of
    NaN for whoever skips such frames, so that the frames after it keep their time.

    Args:
        next_line: Gives the next line when it has come, and nothing at the end of the input.
        width: Numbers of a frame; None takes that of the first line.
        bad_frames: What happens to a line that cannot be read.
        note: Told about the first of such lines in a row where they are skipped.
    """

    def __init__(
        self,
        next_line: Callable[[], bytes],
        width: int | None,
        bad_frames: Literal["refuse", "skip"],
        note: Callable[[str], None],
    ) -> None:
        self.next_line, self.width = next_line, width
        self.bad_frames, self.note = bad_frames, note
        self.waited = 0.0
        self.broken = False

    def __iter__(self) -> Iterator[Float[np.ndarray, " feature"]]:
        """Yield frames until the input ends.

        Raises:
            ValueError: A line is no frame; it is named by its number, from 1.
        """
        number = 0
        while line := self._next():
            number += 1
            if number == 1 and line.startswith(NUMPY):
                raise ValueError(
                    "standard input must be lines of numbers, got an .npy file; give its path "
                    "in the place of -."
                )
            if line.strip():
                yield self._frame(line, number)

    def clock(self) -> float:
        """Seconds, standing still while a line is waited for: that is no latency of an answer."""
        return time.perf_counter() - self.waited

    def _next(self) -> bytes:
        started = time.perf_counter()
        line = self.next_line()
        self.waited += time.perf_counter() - started
        return line

    def _frame(self, line: bytes, number: int) -> Float[np.ndarray, " feature"]:
        said = "a list of numbers"
        try:
            frame = numbers_of(line)
        except ValueError as error:
            frame, found = np.zeros(0, np.float32), str(error)
        else:
            found = f"{len(frame)}"
            if self.width is None and len(frame):
                self.width = len(frame)
            if len(frame) == self.width:
                self.broken = False
                return frame
        if self.width is not None:
            said = f"{self.width} numbers"
        sentence = f"line {number} must be {said}, got {found}"
        if self.bad_frames == "refuse" or self.width is None:
            raise ValueError(f"{sentence}; mend it, or skip such lines: --bad-frames skip.")
        if not self.broken:
            self.note(f"{sentence}; it and such lines after it stand for frames of NaN.")
        self.broken = True
        return np.full(self.width, np.nan, np.float32)


def numbers_of(line: bytes) -> Float[np.ndarray, " feature"]:
    """The numbers of a line: a JSON list, or numbers with commas or spaces between them.

    Raises:
        ValueError: It holds something else; the message is what was found.
    """
    try:
        text = line.decode("utf-8-sig").strip()
        if text.startswith("["):
            found = json.loads(text)
            if any(isinstance(one, bool) or not isinstance(one, int | float) for one in found):
                raise ValueError
            values = [float(one) for one in found]
        else:
            values = [float(word) for word in text.replace(",", " ").split()]
    except (ValueError, OverflowError, RecursionError):
        text = line.decode("utf-8", "replace").strip()
        raise ValueError(repr(text[:40] + "..." * (len(text) > 40))) from None
    # A number beyond float32 is infinite, and such a frame is refused or skipped as any other.
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)


def said(answer: Answer, top: int) -> dict[str, Any]:
    """An answer as facts: the likeliest actions with their probabilities."""
    return {
        "frame": answer.frames,
        "seconds": round(answer.seconds, 4),
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
    parts = [f"{facts['seconds']:9.2f} s", f"now {_named(facts['now'])}"]
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
