"""Tables of results, for terminals and for Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actioncast.passport import Passport, Result
from actioncast.published import PublishedRow
from actioncast.timeline import Taxonomy


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header; the first column is left-aligned, the others right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def plain(self) -> str:
        """Aligned columns."""
        everything = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in everything) for i in range(len(self.header))]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in everything
        ]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])

    def markdown(self) -> str:
        """A Markdown table."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        return "\n".join(
            "| " + " | ".join(row) + " |" for row in [self.header, tuple(rule), *self.rows]
        )


def result_table(
    results: Mapping[str, Result], columns: Sequence[str] = (), across: Sequence[str] = ()
) -> Table:
    """One row a result; `across` adds a column for each field of the passport that differs."""
    everything = dict.fromkeys(name for result in results.values() for name in result.total)
    names = list(columns) or list(everything)
    header = ("", *across, *[short(name) for name in names])
    rows = [
        (
            who,
            *[_field(result.passport, name) for name in across],
            *[number(result.total.get(name)) for name in names],
        )
        for who, result in results.items()
    ]
    return Table(header, tuple(rows))


def is_about_clips(results: Mapping[str, Result]) -> bool:
    """Whether results are of short actions, which are shown by subset."""
    return all(result.passport.num_clips for result in results.values())


def clip_tables(results: Mapping[str, Result], across: Sequence[str] = ()) -> list[Table]:
    """The leading scores of short actions by subset, then what else was scored, of all clips.

    The first three scores of a result lead: recall@5, or top-1 accuracy in recognition.
    """
    first = next(iter(results.values()))
    leading, rest = list(first.total)[:3], list(first.total)[3:]
    cells = [(subset, name) for subset in first.splits for name in leading]
    named = [f"{subset} {name.split()[-1]}" for subset, name in cells]
    header = (leading[0].split()[0], *across, *named)
    rows = [
        (
            who,
            *[_field(result.passport, name) for name in across],
            *[number(result.splits.get(subset, {}).get(name)) for subset, name in cells],
        )
        for who, result in results.items()
    ]
    return [Table(header, tuple(rows)), result_table(results, rest)]


def with_published(
    table: Table, results: Sequence[Result], rows: Sequence[PublishedRow], cells: Sequence[str]
) -> Table:
    """Add published rows, each marked as such with its source, sorted with ours by mean."""
    ours = [(result.total["mean"], row) for result, row in zip(results, table.rows, strict=True)]
    theirs = [
        (
            row.mean,
            (
                f"{row.method}, {row.source} [{row.mark}]",
                *[number(row.cells.get(cell)) for cell in cells],
                number(row.mean),
            ),
        )
        for row in rows
    ]
    ordered = sorted([*ours, *theirs], key=lambda pair: pair[0])
    return Table(table.header, tuple(row for _, row in ordered))


def level_said(taxonomy: Taxonomy) -> str:
    """Which labels of a hierarchy: `coarse labels (phase, 3 names)`; empty where there is none."""
    if not taxonomy.levels:
        return ""
    head = "" if taxonomy.level == taxonomy.primary else f"{taxonomy.primary}, "
    return f"{taxonomy.level} labels ({head}{len(taxonomy.labels)} names)"


def number(value: float | None) -> str:
    """Two decimals, or a dash."""
    return "-" if value is None or value != value else f"{value:.2f}"  # noqa: PLR0124


def short(name: str) -> str:
    """A column's header."""
    return name.removeprefix("moc ").removeprefix("mof ") if "/" in name else name


def _field(passport: Passport, name: str) -> str:
    value = getattr(passport, name)
    if name == "questions":
        # Whose actions they are about; the rest of the sentence would be wider than the table.
        return str(value).partition(":")[0] or "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
