"""Intervals and paired tests: no figure without n and an interval, no difference without a test.

Intervals are the bootstrap's, which are too short for few items, made as much wider as Student's are than the normal
ones. Those of one corpus score are corrected for its bias and skewness as well, and there are none of few items.
p-values are those of a randomisation: under "no difference" it does not matter which of two answers to an item is
called whose. Sums over items are resampled as counts: a draw of n items with replacement is a vector of n counts, so
that ten thousand draws of any additive statistic are one matrix product.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from crossmatch.errors import DataError
from crossmatch.statistics.estimates import Array, Contrast, Corpus, Difference, Figure, Ratio, Statistic, mean_of

DRAWS = 10_000
LEVEL = 0.95
# Share of cases in which a difference as large as `mde` is found.
POWER = 0.8
# With fewer pairs no two-sided test can say p < 0.05: 2^(1 - 5) is above it.
FEWEST = 6
# Of fewer values the studentised bootstrap's error has too few to be estimated from.
_STUDENTISED = 10
NOTHING = 1e-9
_NO_NUMBERS = "there are scores that are no numbers: the weights give NaN or infinite values"
"""Maps resampled means of item statistics, (draws, columns), to values, (draws,)."""
"""Maps resampled means of two variants to what is between them, (draws,)."""


def bootstrap(items: Array, statistic: Statistic = mean_of, seed: int = 0) -> Figure:
    """A statistic of item rows (n, columns) with its widened bootstrap interval over 10,000 draws of items.

    The interval stays between the least and the largest value drawn: a share does not become more than 1. That of a
    corpus score is `_corrected`, and None below its fewest items.
    Raises DataError for items whose value is no number.
    """
    items = items[_informed(statistic, items)]
    n = len(items)
    if n == 0:
        return Figure(None, None, None, 0)
    value = float(statistic(items.mean(0, keepdims=True))[0])
    if n == 1:
        return Figure(_finite(value), None, None, 1)
    if isinstance(statistic, Corpus) and n < statistic.fewest:
        return Figure(_finite(value), None, None, n)
    draws = np.concatenate([statistic(counts @ items) for counts in bootstrap_counts(n, seed)])
    if isinstance(statistic, Corpus):
        return Figure(_finite(value), *_corrected(items, statistic, value, draws), n)
    low, high = interval_of(draws, _finite(value), n)
    if not (math.isfinite(low) and math.isfinite(high)):
        return Figure(value, None, None, n)
    least, most = (float(bound(draws[np.isfinite(draws)])) for bound in (np.min, np.max))
    return Figure(value, max(low, least), min(high, most), n)


def _corrected(items: Array, statistic: Corpus, value: float, draws: Array) -> tuple[float, float]:
    """The interval of a corpus score of item rows (n, columns), from its value and its draws.

    The bootstrap's with bias correction and acceleration (BCa; Efron, 1987), at Student's quantiles; above at least the
    jackknife's of the logarithm, since rare long matches, which make much of a score, are more often missing from few
    items than there too often. Coverage: docs/evaluate.md.
    """
    n = len(items)
    reach = float(t.ppf((1 + LEVEL) / 2, n - 1))
    without = statistic.of((items.sum(0) - items) / (n - 1), n - 1)
    apart = without.mean() - without
    spread = float((apart**2).sum())
    if not spread > 0:
        return value, value
    acceleration = float((apart**3).sum()) / (6 * spread**1.5)
    edge = 1 / len(draws)
    below = np.clip((np.sum(draws < value) + 0.5 * np.sum(draws == value)) * edge, edge, 1 - edge)
    offset = float(norm.ppf(below))

    def level(z: float) -> float:
        bent = 1 - acceleration * (offset + z)
        moved = offset + (offset + z) / bent if bent > 0 else math.copysign(math.inf, z)
        return float(np.clip(norm.cdf(moved), edge, 1 - edge))

    wide = reach * math.sqrt(n / (n - 1))
    low = float(np.quantile(draws, level(-wide), method="lower"))
    high = float(np.quantile(draws, level(wide), method="higher"))
    if value > 0 and (without > 0).all():
        logs = np.log(without)
        bias = (n - 1) * (float(logs.mean()) - math.log(value))
        error = math.sqrt((n - 1) / n * float(((logs - logs.mean()) ** 2).sum()))
        # Far beyond any score the exponential has no number.
        high = max(high, math.exp(min(math.log(value) - bias + reach * error, 700.0)))
    return min(low, value), min(max(high, value), statistic.most)


def paired_difference(first: Array, second: Array, statistic: Statistic = mean_of, seed: int = 0) -> Difference | None:
    """statistic(first) - statistic(second) over the same items, (n, columns) each; see `paired_contrast`.

    The interval of a mean reaches at least as far as the studentised bootstrap's, which follows skewed values: with a
    few large losses the other says "not worse" up to three times as often as it should (docs/compare.md).
    """
    if first.shape != second.shape:
        raise ValueError(f"paired items needed, not {first.shape} and {second.shape}")
    kept = _informed(statistic, first) | _informed(statistic, second)
    found = paired_contrast(first[kept], second[kept], lambda a, b: statistic(a) - statistic(b), seed)
    if found is None or statistic is not mean_of or found.n < _STUDENTISED:
        return found
    low, high = _studentised((first[kept] - second[kept])[:, 0], seed)
    return replace(found, low=min(found.low, low), high=max(found.high, high))


def _studentised(values: Array, seed: int) -> tuple[float, float]:
    """The 95% interval of the mean of values (n,) by the bootstrap of (mean* - mean) / error*; no bound (infinite the
    other way) on a side where too many draws have no spread."""
    mean, tail = float(values.mean()), (1 - LEVEL) / 2
    apart = values - mean
    error = math.sqrt(float(np.square(apart).mean()))
    pieces = []
    for counts in bootstrap_counts(len(values), seed):
        moved = counts @ apart
        squares = counts @ np.square(apart)
        variance = squares - np.square(moved)
        # A draw of equal values has no spread but what the subtraction rounds.
        flat = variance <= NOTHING * squares
        pieces.append(np.where(flat, np.copysign(np.inf, moved), moved / np.sqrt(np.where(flat, 1.0, variance))))
    ratios = np.concatenate(pieces)
    least, most = np.quantile(ratios, tail, method="lower"), np.quantile(ratios, 1 - tail, method="higher")
    scale = float(np.abs(values).max(initial=0.0))
    # With few values that differ the error of a draw can be as good as nothing: no bound lies beyond what was seen.
    low = snapped(max(mean - float(most) * error, values.min()), scale) if np.isfinite(most) else math.inf
    high = snapped(min(mean - float(least) * error, values.max()), scale) if np.isfinite(least) else -math.inf
    return low, high


def paired_contrast(first: Array, second: Array, contrast: Contrast, seed: int = 0) -> Difference | None:
    """What is between two variants over the same items, (n, columns) each, with interval and p-value.

    The interval is the bootstrap's over pairs, widened. p: share of the ways to exchange the two variants' rows, item
    by item, that give as much or more, either way (Fisher's randomisation; for a mean, sign flips; for corpus metrics
    Riezler and Maxwell, 2005): of all ways where there are at most 10,000, else of 10,000 random ones and the one that
    was. mde: (t_0.975 + t_0.8) standard errors. None for n < 2, and where too many draws are not defined to give an
    interval. Raises ValueError if the two do not have the same items.
    """
    if first.shape != second.shape:
        raise ValueError(f"paired items needed, not {first.shape} and {second.shape}")
    n = len(first)
    if n < 2:
        return None
    middle, half = ((first + second) / 2).mean(0, keepdims=True), (first - second) / (2 * n)
    value = float(contrast(first.mean(0, keepdims=True), second.mean(0, keepdims=True))[0])
    if not math.isfinite(value):
        return None
    both = np.concatenate([first, second], axis=1)
    k = first.shape[1]
    drawn = [counts @ both for counts in bootstrap_counts(n, seed)]
    draws = np.concatenate([contrast(columns[:, :k], columns[:, k:]) for columns in drawn])
    value = snapped(value, float(np.abs(draws[np.isfinite(draws)]).max(initial=0.0)))
    low, high = interval_of(draws, value, n)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    p = _exchanged(middle, half, contrast, value)
    return Difference(value, low, high, n, p, "randomisation", mde=_found(draws, n, int(half.any(1).sum())))


def _exchanged(middle: Array, half: Array, contrast: Contrast, value: float) -> float:
    """Two-sided p-value of the exchange of rows; middle: mean of both variants, half: half their difference over n."""
    half = half[half.any(1)]
    few = 2 ** len(half) <= DRAWS
    beyond = 0 if few else 1
    for signs in [_every(len(half))] if few else _signs(len(half)):
        change = signs @ half
        found = np.abs(contrast(middle + change, middle - change))
        # What is not defined may be anything. Equal sums in another order differ in their last digits.
        beyond += int((~(found < abs(value) * (1 - NOTHING))).sum())
    return beyond / (2 ** len(half) if few else DRAWS + 1)


def _found(draws: Array, n: int, differing: int) -> float | None:
    """The smallest effect from the spread of draws; None where fewer items differ than any test needs."""
    spread = float(np.std(draws[np.isfinite(draws)]))
    if differing < FEWEST or not spread > 0:
        return None
    error = spread * math.sqrt(n / (n - 1))
    return float(t.ppf((1 + LEVEL) / 2, n - 1) + t.ppf(POWER, n - 1)) * error


"""A difference and its draws, in standard errors, and its items."""


def bootstrap_counts(n: int, seed: int) -> Iterator[Array]:
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


def _signs(n: int) -> Iterator[Array]:
    """(some draws, n) random signs, 10,000 in all, in pieces that stay small for any n."""
    rng, size = np.random.default_rng(0), max(1, min(DRAWS, 4_000_000 // n))
    if size == DRAWS:
        yield _kept_signs(n)
        return
    for start in range(0, DRAWS, size):
        yield rng.choice((-1.0, 1.0), size=(min(size, DRAWS - start), n))


@lru_cache(maxsize=4)
def _kept_signs(n: int) -> Array:
    return np.random.default_rng(0).choice((-1.0, 1.0), size=(DRAWS, n))


@lru_cache(maxsize=16)
def _every(n: int) -> Array:
    """All (2^n, n) signs."""
    return np.array(list(product((-1.0, 1.0), repeat=n)))


def resampled(tables: Sequence[Array], statistic: Statistic = mean_of, seed: int = 0) -> Array:
    """(draws, tables) values of a statistic of several item tables (n, columns), over one set of 10,000 draws."""
    pieces = [np.stack([statistic(counts @ t) for t in tables], 1) for counts in bootstrap_counts(len(tables[0]), seed)]
    return np.concatenate(pieces)


def interval_of(draws: Array, value: float, n: int) -> tuple[float, float]:
    """The middle 95% of resampled values of n items, made wider about the value; infinite where it has no bound.

    What is not defined in a draw may be anything, and counts on either side.
    Raises DataError if nothing is defined.
    """
    if not np.isfinite(draws).any():
        raise DataError(_NO_NUMBERS)
    tail, known = (1 - LEVEL) / 2, np.isfinite(draws)
    # The order statistic itself: between a value and infinity there is nothing to interpolate.
    low = np.quantile(np.where(known, draws, -np.inf), tail, method="lower")
    high = np.quantile(np.where(known, draws, np.inf), 1 - tail, method="higher")
    # Sums of counts leave a rounding error where the bound is zero, and verdicts ask on which side of it a bound lies.
    scale, factor = float(np.abs(draws[known]).max()), widening(n)
    return snapped(value + factor * (low - value), scale), snapped(value + factor * (high - value), scale)


@lru_cache(maxsize=256)
def widening(n: int) -> float:
    """By how much Student's interval of n items is wider than the bootstrap's: t / z * sqrt(n / (n - 1))."""
    level = (1 + LEVEL) / 2
    return float(t.ppf(level, n - 1) / norm.ppf(level)) * math.sqrt(n / (n - 1))


def _informed(statistic: Statistic, items: Array) -> NDArray[np.bool_]:
    return statistic.informed(items) if isinstance(statistic, Ratio) else np.ones(len(items), dtype=bool)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise DataError(_NO_NUMBERS)
    return value


def snapped(bound: float, scale: float) -> float:
    """A bound as a number, zero where it is no more than a rounding error of numbers as large as `scale` from it."""
    return 0.0 if abs(bound) < NOTHING * scale else float(bound)
