"""Text of a picture: how wide it is, where it breaks, and what of it fits; lengths in inches."""

import re
from functools import lru_cache

LABEL_SIZE = 8.5
"""Most points of a name on a segment."""


def fitting(name: str, label: int, inches: float, tall: float) -> str:
    """The name on one line or several, else the number that the legend gives it, else nothing."""
    size = label_size(tall)
    if size < 5 or inches <= 0:
        return ""
    if text_width(name, size) <= inches:
        return name
    lines = _broken(name, size, inches)
    fits = all(text_width(line, size) <= inches for line in lines)
    if fits and len(lines) * size * 1.15 <= (tall - 0.04) * 72:
        return "\n".join(lines)
    return str(label) if text_width(str(label), size) <= inches + 0.04 else ""


def label_size(tall: float) -> float:
    """Points of a name on a segment so tall."""
    return min(LABEL_SIZE, tall * 72 * 0.62)


def wrapped(text: str, size: float, inches: float, most: int, weight: str = "normal") -> list[str]:
    """The text on at most so many lines, the last one cut where it is too long."""
    lines = _broken(text, size, inches, weight)
    kept = [*lines[: most - 1], " ".join(lines[most - 1 :])] if len(lines) > most else lines
    return [cut(line, size, inches, weight) for line in kept] or [""]


def _broken(text: str, size: float, inches: float, weight: str = "normal") -> list[str]:
    """The text on lines of at most so many inches, broken after blanks, "_" and "-"."""
    lines: list[str] = []
    for word in re.findall(r"[^\s_-]*[_-]+|[^\s_-]+| ", text):
        if lines and text_width((lines[-1] + word).rstrip(), size, weight) <= inches:
            lines[-1] += word
        elif word != " ":
            lines.append(word)
    return [line.rstrip() for line in lines]


def cut(text: str, size: float, inches: float, weight: str = "normal") -> str:
    """The text, its end left out where it is too long."""
    if text_width(text, size, weight) <= inches:
        return text
    while text and text_width(text + "…", size, weight) > inches:
        text = text[:-1]
    return text.rstrip() + "…"


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Inches that a text takes, with a margin: hinting widens small letters."""
    return _width_of_one_point(text, weight) * size * 1.05


# A figure asks for the same few names thousands of times, and a font takes its time.
@lru_cache(maxsize=4096)
def _width_of_one_point(text: str, weight: str) -> float:
    from matplotlib.font_manager import FontProperties, findfont, get_font  # noqa: PLC0415

    font = get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    font.set_size(100, 72)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 / 100 / 72
