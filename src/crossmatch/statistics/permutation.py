"""Exact intervals from exchanges: all values of a mean, or of a difference of two, that no exchange rejects.

A test by exchange compares a statistic with what it becomes when signs are flipped, or labels exchanged, which would
not matter if there were no effect. Its error is the stated one for any number of values, where a bootstrap of three or
four is far too short. The interval holds the effects that the two-sided test does not reject. Every exchange has one
effect at which it gives as much as was observed; the bounds are order statistics of those (Hartigan, 1969, "Using
subsample values as typical values", for sign flips; Garthwaite, 1996, for labels), so nothing is searched for.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from crossmatch.statistics.estimates import Array

# Exchanges that are drawn where there are more than that; the observed labels count as one further.
DRAWS = 3_999
_EVERY = 13
Bounds = tuple[float, float]


def flip_bounds(values: Array, tail: float) -> Bounds:
    """Bounds of a mean from flips of the signs of values (n,) about it; each is wrong in at most `tail` of cases.

    Assumes independent values, each symmetric about the mean. Infinite where no flip can reject at `tail`: a bound at
    2.5% needs 6 values.
    """
    flipped = _flips(len(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (flipped @ values) / flipped.sum(1)
    return _bounds(means, tail)


def exchange_bounds(blocks: Sequence[tuple[Array, Array]], tail: float, seed: int = 0) -> Bounds:
    """Bounds of a shift between two groups from exchanges of their labels inside blocks.

    blocks: (first, second) values of each block, neither empty. The statistic is the mean over blocks of mean(first) -
    mean(second). Assumes that the values of a block could bear either label, were it not for the shift; what a block
    has in common does not matter. Infinite where exchanges are too few to reject at `tail`.
    """
    rng = np.random.default_rng(seed)
    found, kept = np.zeros(DRAWS), np.zeros(DRAWS)
    for first, second in blocks:
        size, values = len(first), np.concatenate([first, second])
        ranks = rng.random((DRAWS, len(values))).argsort(1)
        chosen = (ranks < size) / size - (ranks >= size) / len(second)
        found += chosen @ values / len(blocks)
        # Of a shift of the first group an exchange keeps this share.
        kept += chosen[:, :size].sum(1) / len(blocks)
    value = sum(float(first.mean() - second.mean()) for first, second in blocks) / len(blocks)
    same = kept > 1 - 1e-9
    with np.errstate(divide="ignore", invalid="ignore"):
        shifts = np.where(same, np.nan, (value - found) / (1 - kept))
    return _bounds(np.append(shifts, np.nan), tail)


def _bounds(effects: Array, tail: float) -> Bounds:
    """The effects at which each exchange gives what was observed; NaN where it changes nothing and never rejects."""
    rejected = int(tail * len(effects) + 1e-9)
    low = np.sort(np.where(np.isnan(effects), -np.inf, effects))[rejected]
    high = np.sort(np.where(np.isnan(effects), np.inf, effects))[-1 - rejected]
    return float(low), float(high)


@lru_cache(maxsize=64)
def _flips(n: int) -> NDArray[np.float64]:
    """(flips, n): which values are flipped; all 2^n where they are few, else random ones and none."""
    if n <= _EVERY:
        return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)
    drawn = np.random.default_rng(0).integers(0, 2, (DRAWS, n)).astype(np.float64)
    return np.concatenate([np.zeros((1, n)), drawn])
