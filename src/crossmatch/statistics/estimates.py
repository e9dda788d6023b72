"""What every figure is: an estimate, a difference, a ratio, with intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossmatch.results.figures import DifferenceJson, FigureJson

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
Contrast = Callable[[Array, Array], Array]


@dataclass(frozen=True)
class Ratio:
    """A statistic that is a ratio of sums over items, or a function of it: (draws, columns) to (draws,).

    top, bottom: the columns; of: what is made of the ratio. Not a number where nothing is below the line. Items that
    have nothing in either column carry no information: they are no part of n.
    """

    top: int
    bottom: int
    of: Callable[[Array], Array] | None = None

    def __call__(self, columns: Array) -> Array:
        """The values of draws."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = columns[:, self.top] / columns[:, self.bottom]
        return value if self.of is None else self.of(value)

    def informed(self, items: Array) -> NDArray[np.bool_]:
        """Which items (n, columns) carry information."""
        return (items[:, self.top] != 0) | (items[:, self.bottom] != 0)


@dataclass(frozen=True)
class Corpus:
    """A score of whole corpora, which is not linear in items: the mean over seeds of score(mean rows, items).

    Rows of several seeds lie side by side: (draws, seeds * columns) to (draws,). Averaged before they are scored they
    would be another corpus, of another score. fewest: items below which no interval is known to hold; most: the largest
    value.
    """

    score: Callable[[Array, int], Array]
    items: int
    seeds: int = 1
    fewest: int = 40
    most: float = 100.0

    def __call__(self, columns: Array) -> Array:
        """The values of draws."""
        return self.of(columns, self.items)

    def of(self, columns: Array, items: int) -> Array:
        """The same of another number of items."""
        by_seed = columns.reshape(len(columns), self.seeds, -1)
        return np.mean([self.score(by_seed[:, seed], items) for seed in range(self.seeds)], axis=0)


@dataclass(frozen=True)
class Figure:
    """A value with its 95% interval; None where it is not defined (no items, or one item for an interval)."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> FigureJson:
        """As plain JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Difference:
    """A paired difference with its 95% interval and two-sided p-value; test: how the p-value was made.

    n: items that carry information. gained, lost: items that only the first, or only the second, of two variants has
    right (choices only). mde: the difference that a test of 5% on as many items like these finds in four cases of five,
    None where nothing is known of it; p_holm: p, adjusted by Holm's procedure for the other differences of its family.
    """

    value: float
    low: float
    high: float
    n: int
    p: float
    test: str
    gained: int | None = None
    lost: int | None = None
    mde: float | None = None
    p_holm: float | None = None

    def to_dict(self) -> DifferenceJson:
        """As plain JSON."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "p": self.p,
            "test": self.test,
            "gained": self.gained,
            "lost": self.lost,
            "mde": self.mde,
            "p_holm": self.p_holm,
        }


def mean_of(columns: Array) -> Array:
    """The statistic that is the mean of the first column."""
    return columns[:, 0]
