"""Tables of results on short actions for the README: a row a recipe, seeds put together."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from actioncast.clip_evaluation import BOTH, JOINT, KNOWN
from actioncast.passport import Passport, Result, require_comparable
from actioncast.tables import Table, number

COLUMNS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "next action": (
        *((s, f"recall@5 {h}") for s in ("overall", "unseen", "tail") for h in ("verb", "noun")),
        *((subset, "recall@5 action") for subset in ("overall", "unseen", "tail")),
        ("overall", KNOWN),
        ("overall", JOINT),
    ),
    "recognition": (
        *(("overall", f"top-1 {head}") for head in ("verb", "noun", "action")),
        ("overall", BOTH),
    ),
}
"""Subset and score of every column, by task."""
NAMES: Mapping[str, str] = {
    "recall@5 action": "action",
    "recall@5 verb": "verb",
    "recall@5 noun": "noun",
    KNOWN: "action known in training",
    JOINT: JOINT,
}
SORTED_BY = ("overall", "recall@5 action")
COMING = "the next"
"""How the task of coming actions begins: their scores are distances, lower is better."""


def is_of_clips(result: Result) -> bool:
    """Whether a result is of short actions."""
    return result.passport.num_clips > 0


def clip_result_tables(results: Sequence[Result]) -> list[tuple[str, Table]]:
    """Heading and table for each data set and task, worst first.

    Raises:
        ValueError: Results that were not measured the same way.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.passport.dataset, result.passport.task), []).append(result)
    return [
        (_heading(own[0].passport), _table(task, own)) for (_, task), own in sorted(groups.items())
    ]


def _heading(passport: Passport) -> str:
    ahead = f" after {passport.anticipation_time:g} s" if passport.anticipation_time else ""
    return f"{passport.dataset}, {passport.task}{ahead}, {passport.num_clips:,} clips"


def _table(task: str, results: Sequence[Result]) -> Table:
    coming = task.startswith(COMING)
    columns = (
        # Their names tell how many actions were asked for.
        tuple((SORTED_BY[0], score) for score in results[0].total)
        if coming
        else next(own for name, own in COLUMNS.items() if task.startswith(name))
    )
    worst_first = columns[2] if coming else SORTED_BY
    named = {f"{r.passport.recipe}, seed {r.passport.seeds}": r for r in results}
    require_comparable(named, ("input", "selection"))
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(_row_name(result.passport), []).append(result)
    ordered = sorted(rows.items(), key=lambda row: _mean(row[1], *worst_first), reverse=coming)
    header = ("", *(f"{NAMES.get(score, score)}, {subset}" for subset, score in columns))
    cells = tuple((name, *(_cell(own, *at) for at in columns)) for name, own in ordered)
    return Table(header, cells)


def _row_name(passport: Passport) -> str:
    objects = " + objects" if "objects of VISOR" in passport.input else ""
    asked = passport.questions.partition(":")[0]
    questions = f" + {asked} questions" if asked else ""
    return f"{passport.recipe} (history{objects}{questions})"


def _values(results: Sequence[Result], subset: str, score: str) -> list[float]:
    return [result.splits[subset][score] for result in results]


def _mean(results: Sequence[Result], subset: str, score: str) -> float:
    return mean(_values(results, subset, score))


def _cell(results: Sequence[Result], subset: str, score: str) -> str:
    """The score; of several seeds the mean and the deviation between them."""
    values = _values(results, subset, score)
    shown = number(mean(values))
    return shown if len(values) < 2 else f"{shown} ± {number(stdev(values))}"
