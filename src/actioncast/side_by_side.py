"""Results side by side on a terminal: what they share in a line, then their table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from actioncast.passport import Result, differences, require_comparable
from actioncast.tables import clip_tables, is_about_clips, result_table
from actioncast.timeline import FINE


def print_table(
    results: Mapping[str, Result],
    *,
    allowed: Sequence[str] = (),
    shown: Sequence[str] | None = None,
    title: str = "",
    level: str = "",
) -> None:
    """Print results that are measured alike.

    Args:
        results: By name.
        allowed: Fields of the passport in which they may differ.
        shown: Fields that get a column; absent, those of input, questions and selection that
            differ.
        title: What stands before the line.
        level: Which labels were scored, in words; absent, as far as the passports say it.

    Raises:
        ValueError: They differ where they must not.
    """
    require_comparable(results, allowed)
    if shown is None:
        differing = differences([result.passport for result in results.values()])
        shown = [name for name in ("input", "selection") if name in differing]
    across = list(dict.fromkeys([*shown, *_said_differently(results)]))
    first = next(iter(results.values()))
    if not level and first.passport.label_level != FINE:
        level = f"{first.passport.label_level} labels"
    print(title + (f"{level} of " if level else "") + circumstances(first, across))
    if is_about_clips(results):
        print("\n\n".join(table.plain() for table in clip_tables(results, across)))
    else:
        print(result_table(results, across=across).plain())


def circumstances(result: Result, differing: Sequence[str] = ()) -> str:
    """What all results of a table share, in a line."""
    passport = result.passport
    counted = f"{len(passport.splits)} split(s), {passport.num_videos} videos"
    if passport.num_clips:
        counted = f"{', '.join(passport.splits)}, {passport.num_clips} actions"
        ahead = passport.anticipation_time
        counted += f", {passport.task}" + (f" after {ahead:g} s" if ahead else "")
    said = [
        f"{passport.dataset}, {counted}",
        "" if "input" in differing else f"input {passport.input}",
        passport.clip if passport.num_clips else "",
        "" if "questions" in differing or not passport.questions else passport.questions,
        passport.metric,
        f"horizon {passport.horizon_source}" if passport.horizon_source else "",
        passport.combined if not passport.num_clips else "",
        "" if "inference" in differing else passport.inference,
    ]
    return "; ".join(part for part in said if part)


def _said_differently(results: Mapping[str, Result]) -> list[str]:
    """Fields that a table must show where not all answers were made in one way."""
    passports = [result.passport for result in results.values()]
    return [
        name
        for name in ("inference", "questions")
        if len({getattr(passport, name) for passport in passports}) > 1
    ]


def label_of(path: Path, paths: Sequence[Path]) -> str:
    """The name of a result file among others."""
    return str(end_of(path, paths).with_suffix(""))


def end_of(path: Path, paths: Sequence[Path]) -> Path:
    """The shortest end of a path that tells it from the others."""
    for depth in range(1, len(path.parts) + 1):
        end = path.parts[-depth:]
        if sum(other.parts[-depth:] == end for other in paths) == 1:
            return Path(*end)
    return path
