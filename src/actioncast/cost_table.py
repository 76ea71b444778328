"""The table of what runs and recipes cost: Table III of ActionLLM, and what it leaves out."""

from collections.abc import Mapping

from actioncast.run_cost import RunCost
from actioncast.tables import Table


def cost_table(rows: Mapping[str, RunCost]) -> str:
    """A row each, by name, and under them how they were measured."""
    header = (
        *("", "learnable", "frozen", "GFLOP", "GMAC", "sequence"),
        *("seconds", "p95", "peak MB", "weights MB"),
    )
    cells = [
        (
            name,
            _weights(row.cost.learnable),
            _weights(row.cost.frozen),
            _scaled(row.cost.flops, 1e9),
            _scaled(row.cost.multiply_adds, 1e9),
            f"{row.cost.sequence_length:,}",
            _seconds(row.cost.seconds),
            _seconds(row.cost.seconds_p95),
            _scaled(row.cost.peak_bytes, 1e6),
            _scaled(row.cost.weight_bytes, 1e6),
        )
        for name, row in rows.items()
    ]
    table = Table(header, tuple(cells)).plain()
    return "\n".join([table, "", *_conditions(rows), *_measured(rows)])


def _conditions(rows: Mapping[str, RunCost]) -> list[str]:
    """What was asked, in as few sentences as there are conditions."""
    conditions: dict[str, list[str]] = {}
    for name, row in rows.items():
        conditions.setdefault(row.condition.sentence(), []).append(name)
    said = [
        f"{', '.join(names)}: {sentence}" if len(conditions) > 1 else sentence
        for sentence, names in conditions.items()
    ]
    if drawn := [name for name, row in rows.items() if row.condition.random_features]:
        said.append(f"random features, for want of true ones: {', '.join(drawn)}")
    widths: dict[int, list[str]] = {}
    for name, row in rows.items():
        if row.condition.width_assumed:
            widths.setdefault(row.condition.feature_dim, []).append(name)
    said += [
        f"features are assumed to be {width:,} wide; data that are there (--data PATH) tell their "
        f"width: {', '.join(names)}"
        for width, names in widths.items()
    ]
    said += [
        f"{name} reads the video from {row.cost.offsets} offsets of its stride; all are counted"
        for name, row in rows.items()
        if row.cost.offsets > 1
    ]
    return said


def _measured(rows: Mapping[str, RunCost]) -> list[str]:
    costs = [row.cost for row in rows.values() if row.cost.seconds is not None]
    said: list[str] = []
    if costs:
        times = [cost.repetitions for cost in costs]
        answers = " to ".join(map(str, dict.fromkeys((min(times), max(times)))))
        said.append(
            f"one answer on {costs[0].device}, {costs[0].threads} thread(s), PyTorch "
            f"{costs[0].torch}; seconds: median and 95th percentile of {answers} answers"
        )
    if counted := [name for name, row in rows.items() if row.cost.seconds is None]:
        said.append(f"counted from shapes, nothing was computed: {', '.join(counted)}")
    return [
        *said,
        "operations: products of matrices, convolutions, attention and scans; a product and its "
        "sum are two (GFLOP) or one (GMAC)",
        "peak MB: tensors made on the way to the answer, besides weights and features",
    ]


def _weights(count: int) -> str:
    """As papers write it: `17.38 M`; a dash for none."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return str(count or "-")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _scaled(value: float | None, unit: float) -> str:
    """Four digits or more; a dash for nothing."""
    if not value:
        return "-"
    scaled = value / unit
    return f"{scaled:,.2f}" if scaled >= 1 else f"{scaled:.4g}"
