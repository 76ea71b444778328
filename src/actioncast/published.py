"""Published scores of anticipation from true observed labels, to stand beside ours.

Protocol: Abu Farha et al., CVPR 2018: MoC pooled over a split, mean over splits, windows from the
true video length. Rows marked `reported, unverified` were quoted without the paper at hand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

CELLS = tuple(f"moc {a:g}/{b:g}" for a, b in product((0.2, 0.3), (0.1, 0.2, 0.3, 0.5)))
"""The eight cells, in the order in which papers print them."""
UNVERIFIED = "published: reported, unverified"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One method on one data set."""

    dataset: str
    method: str
    source: str
    cells: Mapping[str, float]
    mark: str = UNVERIFIED

    @property
    def mean(self) -> float:
        """Mean of the eight cells."""
        return sum(self.cells.values()) / len(self.cells)


def _row(dataset: str, method: str, source: str, *cells: float) -> PublishedRow:
    return PublishedRow(dataset, method, source, dict(zip(CELLS, cells, strict=True)))


_2018 = "Abu Farha et al., CVPR 2018"
_2019 = "Ke et al., CVPR 2019"
_2020 = "Sener et al., ECCV 2020"

FROM_LABELS: Sequence[PublishedRow] = (
    _row("breakfast", "Grammar", _2018, 48.92, 40.33, 36.24, 31.46, 52.66, 42.15, 38.38, 33.09),
    _row(
        "breakfast", "Nearest neighbour", _2018, 43.78, 37.26, 34.92, 29.84,
        44.12, 37.69, 35.70, 30.19,
    ),
    _row("breakfast", "CNN", _2018, 57.97, 49.12, 44.03, 39.26, 60.32, 50.14, 45.18, 40.51),
    _row("breakfast", "RNN", _2018, 60.35, 50.44, 45.28, 40.42, 61.45, 50.25, 44.90, 41.75),
    _row("breakfast", "TempAgg", _2020, 65.5, 55.5, 46.8, 40.1, 67.4, 56.1, 47.4, 41.5),
    _row("breakfast", "Time-Cond", _2019, 64.46, 56.27, 50.18, 43.99, 65.95, 55.94, 49.14, 44.23),
    _row("50salads", "Grammar", _2018, 28.69, 21.65, 18.32, 10.37, 26.71, 14.59, 11.69, 9.25),
    _row("50salads", "CNN", _2018, 36.08, 27.62, 21.43, 15.48, 37.36, 24.78, 20.78, 14.05),
    _row("50salads", "RNN", _2018, 42.30, 31.19, 25.22, 16.82, 44.19, 29.51, 19.96, 10.38),
    _row("50salads", "Time-Cond", _2019, 45.12, 33.23, 27.59, 17.27, 46.40, 34.80, 25.24, 13.84),
    _row("50salads", "TempAgg", _2020, 47.2, 34.6, 30.5, 19.1, 44.8, 32.7, 23.5, 15.3),
)  # fmt: skip
"""Anticipation from true labels, horizon from the true length."""


def published(dataset: str) -> list[PublishedRow]:
    """The rows of a data set."""
    return [row for row in FROM_LABELS if row.dataset == dataset]
