"""`evaluate` for models of streams: what `__main__` hands on to."""

from collections.abc import Mapping, Sequence

from actioncast.options import Evaluate
from actioncast.passport import Result, require_comparable
from actioncast.protocols import Online, VideoProtocol
from actioncast.runs import Loaded, trained_online
from actioncast.side_by_side import circumstances
from actioncast.tables import result_table
from actioncast.types import Task

OPTIONS = ("ahead", "alignment", "way")
"""Options of `evaluate` that mean something to the online protocol alone."""


def is_online(loaded: Loaded) -> bool:
    """Whether a run holds a model of streams."""
    return Task.ONLINE in loaded.checkpoint.model.tasks


def online_protocol(arguments: Evaluate, loaded: Loaded) -> Online:
    """What the options ask of a model of streams; the moments are its own where none are said."""
    return Online(
        ahead=arguments.ahead or trained_online(loaded).ahead,
        alignment=arguments.alignment,
        way=arguments.way,
    )


def refuse_online_options(arguments: Evaluate, protocols: Sequence[VideoProtocol], of: str) -> None:
    """Raise a ValueError where an option of the online protocol is said and nothing is so scored.

    Args:
        arguments: What was said.
        protocols: What is scored.
        of: What the run is, for the message.
    """
    if any(isinstance(protocol, Online) for protocol in protocols):
        return
    if said := _said(arguments):
        raise ValueError(
            f"--{said[0]} is an option for models of streams (--task online), got {of}; leave it "
            "out."
        )


def online_key(arguments: Evaluate) -> str:
    """What stands in the name of a result file for options that are not the ordinary ones."""
    parts = []
    for name in _said(arguments):
        value = getattr(arguments, name)
        parts.append(
            "-".join(["ahead", *(f"{moment:g}" for moment in value)]) if name == "ahead" else value
        )
    return "".join(f"-{part}" for part in parts)


def print_online(results: Mapping[str, Result], allowed: Sequence[str], title: str) -> None:
    """Print three tables: detection, anticipation by moment, and what a deployment feels.

    Raises:
        ValueError: The results are not measured alike.
    """
    require_comparable(results, allowed)
    first = next(iter(results.values()))
    said = f"{title}{circumstances(first)}; compared with {first.passport.alignment}"
    ways = {result.passport.way for result in results.values()}
    print(f"{said}; {ways.pop()}" if len(ways) == 1 else said)
    names = list(dict.fromkeys(name for one in results.values() for name in one.total))
    ahead = [name for name in names if name.endswith("s") and name[-2].isdigit()]
    leading = [name for name in names if name.split()[0] in ("mAP", "cAP", "mof", "mean")]
    leading = [name for name in leading if name not in ahead]
    felt = [name for name in names if name not in (*ahead, *leading)]
    print(result_table(results, leading).plain())
    for metric in ("mAP", "cAP", "mof"):
        if columns := [name for name in ahead if name.startswith(metric)]:
            print(f"\n{result_table(results, columns).plain()}")
    print(f"\n{result_table(results, felt).plain()}")


def _said(arguments: Evaluate) -> list[str]:
    plain = Evaluate()
    return [name for name in OPTIONS if getattr(arguments, name) != getattr(plain, name)]
