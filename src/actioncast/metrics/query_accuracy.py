"""The "ant Acc" that m&m-Ant's released code prints, for comparison with it alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from actioncast.metrics.label_checks import check_integers


def legacy_ant_acc(
    predicted: Sequence[Int[np.ndarray, " _"]],
    futures: Sequence[Int[np.ndarray, " _"]],
    *,
    undefined: int | None = None,
    num_queries: int = 8,
) -> float:
    """Share of queries in percent that name the strided future frame of their own number.

    The mean over sequences of each one's own share (m&m-Ant sheet, section 5, ii). It is no measure
    of anticipation: a query stands for a segment and is held against a frame, so the right actions
    in the right order are wrong as soon as one lasts longer than a step; durations have no say; and
    of the future the first `num_queries` steps alone count, often seconds within one action, which
    a model wins that repeats the last one. `long_term_scores` measures anticipation.

    Args:
        predicted: The class of each query of every sequence, in order.
        futures: True classes of every stride-th future frame of every sequence.
        undefined: A true class that is left out.
        num_queries: How many queries and frames count at most.

    Returns:
        NaN where no frame is left. A sequence without one is left out of the mean.

    Raises:
        ValueError: Sequences or labels do not fit.
    """
    if len(predicted) != len(futures):
        raise ValueError(
            f"predicted must hold the {len(futures)} sequences of futures, got {len(predicted)}: "
            "pass the queries of each sequence."
        )
    shares = []
    for sequence, (queries, future) in enumerate(zip(predicted, futures, strict=True)):
        check_integers(queries, "predicted", sequence)
        check_integers(future, "true", sequence)
        truth = future[:num_queries]
        if len(queries) < len(truth):
            raise ValueError(
                f"each of the first {len(truth)} frames must have a query, got {len(queries)} "
                f"queries for sequence {sequence}: pass all, or a smaller num_queries."
            )
        counted = truth != undefined if undefined is not None else np.ones(len(truth), dtype=bool)
        if counted.any():
            shares.append((queries[: len(truth)] == truth)[counted].mean())
    return float(100.0 * np.mean(shares)) if shares else np.nan
