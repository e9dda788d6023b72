"""Shares of right items: Wilson's interval, and of two over the same items the exact test, Newcombe's interval, and the
smallest difference that the test finds."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, binomtest

from crossmatch.statistics.estimates import Array, Difference, Figure
from crossmatch.statistics.resampling import FEWEST, LEVEL, POWER

_STEPS = 30


def proportion(successes: int, n: int) -> Figure:
    """Share of successes with its Wilson interval (Wilson, 1927)."""
    if n == 0:
        return Figure(None, None, None, 0)
    return Figure(successes / n, *_wilson(successes, n), n)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference | None:
    """Difference of two shares over the same items, (n,) each: exact McNemar test, Newcombe's interval. None for n < 2.

    p = 2 P(Binomial(gained + lost, 1/2) <= min(gained, lost)), at most 1. Raises ValueError if the two do not have the
    same items.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired items needed, not {first.shape} and {second.shape}")
    n, gained, lost = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    if n < 2:
        return None
    low, high = newcombe(int((first & second).sum()), gained, lost, n)
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    mde = smallest_effect(n, gained + lost)
    return Difference((gained - lost) / n, low, high, n, p, "mcnemar-exact", gained=gained, lost=lost, mde=mde)


def newcombe(both: int, gained: int, lost: int, n: int) -> tuple[float, float]:
    """95% interval of the difference of two shares over the same n items (Newcombe, 1998, method 10).

    Wilson's bounds of both shares, squared and added with their correlation phi, whose numerator is made smaller by n/2
    where it is positive. Not of length zero where no item flips: another n items may.
    """
    neither = n - both - gained - lost
    one, other = both + gained, both + lost
    (low1, high1), (low2, high2) = _wilson(one, n), _wilson(other, n)
    p1, p2 = one / n, other / n
    numerator = both * neither - gained * lost
    numerator = max(numerator - n / 2, 0.0) if numerator > 0 else float(numerator)
    margins = math.sqrt(one * (n - one) * other * (n - other))
    phi = numerator / margins if margins else 0.0
    below = _added(p1 - low1, high2 - p2, phi)
    above = _added(high1 - p1, p2 - low2, phi)
    return (gained - lost) / n - below, (gained - lost) / n + above


@lru_cache(maxsize=4096)
def smallest_effect(n: int, discordant: int) -> float | None:
    """The smallest difference of two shares that the exact test (5%, two-sided) finds in four cases of five.

    discordant: of n items, those that one variant alone has right. As many are assumed to flip as Wilson's upper bound
    of their share says, or as the difference itself needs. At least 6 / n, fewer flips being never significant; None
    for n < 6.
    """
    if n < FEWEST:
        return None
    share = _wilson(discordant, n)[1]
    low, high = FEWEST / n, 1.0
    if power_of(low, share, n) >= POWER:
        return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of(middle, share, n) >= POWER else (middle, high)
    return high


def power_of(difference: float, discordance: float, n: int) -> float:
    """Share of cases in which the exact test finds a difference, of n items of which `discordance` flip (at least as
    many as the difference needs)."""
    discordance = min(1.0, max(discordance, difference))
    upward = min(1.0, (discordance + difference) / (2 * discordance))
    flips = np.arange(FEWEST, n + 1)
    critical = _critical(n)
    found = binom.cdf(critical, flips, 1 - upward) + binom.cdf(critical, flips, upward)
    return float(binom.pmf(flips, n, discordance) @ found)


@lru_cache(maxsize=16)
def _critical(n: int) -> Array:
    """For 6 to n flips: how many may be on the rarer side for 2 P(Binomial(flips, 1/2) <= them) <= 5%."""
    flips = np.arange(FEWEST, n + 1)
    tail = (1 - LEVEL) / 2
    found = binom.ppf(tail, flips, 0.5)
    # The quantile is the first that is not below the tail.
    return np.where(binom.cdf(found, flips, 0.5) <= tail, found, found - 1)


def _wilson(successes: int, n: int) -> tuple[float, float]:
    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _added(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))
