"""Intervals and paired tests: no figure without n and an interval, no difference without a test.

Sums over items are resampled as counts: a draw of n items with replacement is a vector of n counts, so that ten
thousand draws of any additive statistic are one matrix product.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from crossmatch.errors import DataError

DRAWS = 10_000
# Standard errors between no difference and one that is found in 80% at 5%: 1.96 + 0.84.
_POWER = 2.8
LEVEL = 0.95
_NOTHING = 1e-9
Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Maps resampled means of item statistics, (draws, columns), to values, (draws,)."""


@dataclass(frozen=True)
class Figure:
    """A value with its 95% interval; None where it is not defined (no items, or one item for an interval)."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """A paired difference with its 95% interval and two-sided p-value; test: how the p-value was made.

    gained, lost: items that only the first, or only the second, of two variants has right (choices only). mde: the
    difference that a test of 5% on as many items like these finds in four cases of five; p_holm: p, adjusted by Holm's
    procedure for the other differences of its family.
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

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def mean_of(columns: Array) -> Array:
    """The statistic that is the mean of the first column."""
    return columns[:, 0]


def proportion(successes: int, n: int) -> Figure:
    """Share of successes with its Wilson interval (Wilson, 1927)."""
    if n == 0:
        return Figure(None, None, None, 0)
    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return Figure(successes / n, float(interval.low), float(interval.high), n)


def bootstrap(items: Array, statistic: Statistic = mean_of, seed: int = 0) -> Figure:
    """A statistic of item rows (n, columns) with its percentile bootstrap interval over 10,000 draws of items."""
    n = len(items)
    if n == 0:
        return Figure(None, None, None, 0)
    value = float(statistic(items.mean(0, keepdims=True))[0])
    if n == 1:
        return Figure(value, None, None, 1)
    low, high = interval_of(np.concatenate([statistic(counts @ items) for counts in _draws(n, seed)]))
    return Figure(value, low, high, n)


def paired_bootstrap(first: Array, second: Array, statistic: Statistic = mean_of, seed: int = 0) -> Difference | None:
    """statistic(first) - statistic(second) over the same items, resampled together (Koehn, 2004).

    first, second: (n, columns). p = 2 min(P(d <= 0), P(d >= 0)) over the draws, at least 1/draws and
    at least 2^(1-n), below which no test on n pairs can be. None for n < 2.
    Raises ValueError if the two do not have the same items.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired items needed, not {first.shape} and {second.shape}")
    n = len(first)
    if n < 2:
        return None
    one, other = (float(statistic(items.mean(0, keepdims=True))[0]) for items in (first, second))
    value = 0.0 if math.isclose(one, other, rel_tol=1e-12) else one - other
    draws = np.concatenate([statistic(counts @ first) - statistic(counts @ second) for counts in _draws(n, seed)])
    low, high = interval_of(draws)
    p = min(1.0, max(1.0 / DRAWS, 2.0 ** (1 - n), 2.0 * min(float((draws <= 0).mean()), float((draws >= 0).mean()))))
    return Difference(value, low, high, n, p, "paired-bootstrap", mde=_POWER * float(np.nanstd(draws)))


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_], seed: int = 0) -> Difference | None:
    """Difference of two shares over the same items: exact McNemar test, paired bootstrap interval. None for n < 2."""
    difference = paired_bootstrap(first[:, None].astype(float), second[:, None].astype(float), seed=seed)
    if difference is None:
        return None
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return replace(difference, p=p, test="mcnemar-exact", gained=gained, lost=lost)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of a family of tests (Holm, 1979): the k-th smallest times the number of those not smaller,
    at most 1, never below a smaller one's."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def divergence(surface: tuple[Array, Array, Statistic], choices: tuple[Array, Array, Statistic]) -> Figure:
    """z(difference of a surface metric) - z(difference of choices), with its interval by the bootstrap.

    surface, choices: item rows of a variant, of the reference, and the statistic. A difference is divided by its own
    standard error, so that the index is in standard errors: below zero, the surface fell further than the choices. The
    two metrics have items of their own, which are drawn apart. Not defined (None) where a difference cannot vary.
    """
    parts = []
    for seed, (mine, other, statistic) in enumerate((surface, choices)):
        n = len(mine)
        if n < 2:
            return Figure(None, None, None, n)
        value = float(statistic(mine.mean(0, keepdims=True))[0] - statistic(other.mean(0, keepdims=True))[0])
        draws = np.concatenate([statistic(c @ mine) - statistic(c @ other) for c in _draws(n, seed)])
        spread = float(np.std(draws))
        if not spread > 0:
            return Figure(None, None, None, n)
        parts.append((value / spread, draws / spread, n))
    (first, one, n), (second, two, m) = parts
    low, high = interval_of(one - two)
    return Figure(first - second, low, high, min(n, m))


def _draws(n: int, seed: int) -> Iterator[Array]:
    """(some draws, n) weights of resampled means, 10,000 in all, in pieces that stay small for any n."""
    rng, size = np.random.default_rng(seed), max(1, min(DRAWS, 4_000_000 // n))
    if size == DRAWS:
        yield _kept(n, seed)
        return
    for start in range(0, DRAWS, size):
        yield rng.multinomial(n, np.full(n, 1.0 / n), size=min(size, DRAWS - start)) / n


@lru_cache(maxsize=4)
def _kept(n: int, seed: int) -> Array:
    """All draws of few items: hundreds of figures are made with the same ones, and drawing costs more than summing."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=DRAWS) / n


def resampled(tables: Sequence[Array], statistic: Statistic = mean_of, seed: int = 0) -> Array:
    """(draws, tables) values of a statistic of several item tables (n, columns), over one set of 10,000 draws."""
    pieces = [np.stack([statistic(counts @ t) for t in tables], 1) for counts in _draws(len(tables[0]), seed)]
    return np.concatenate(pieces)


def interval_of(draws: Array) -> tuple[float, float]:
    """The middle 95% of resampled values."""
    tail = (1 - LEVEL) / 2
    # A ratio may have draws in which nothing is below the line.
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        raise DataError("there are scores that are no numbers: the weights give NaN or infinite values")
    low, high = np.quantile(draws, [tail, 1 - tail])
    # Sums of counts leave a rounding error where the bound is zero, and verdicts ask on which side of it a bound lies.
    scale = float(np.abs(draws).max())
    return snapped(low, scale), snapped(high, scale)


def snapped(bound: float, scale: float) -> float:
    """A bound as a number, zero where it is no more than a rounding error of numbers as large as `scale` from it."""
    return 0.0 if abs(bound) < _NOTHING * scale else float(bound)
