"""How well what was predicted puts in order what was measured."""

import numpy as np
from scipy.stats import rankdata

from crossmatch.statistics.estimates import Figure
from crossmatch.statistics.influence import Array

LEVEL = 0.95


def spearman(predicted: Array, measured: Array, *, draws: int = 2000, seed: int = 0) -> Figure:
    """Pearson's correlation of the ranks, ties at their mean rank; ranks are formed anew in every draw.

    predicted, measured: (n,); pairs with NaN in either are left out, and draws in which one side is the same
    everywhere. The draws depend on n and the seed alone.
    """
    known = np.isfinite(predicted) & np.isfinite(measured)
    x, y = predicted[known], measured[known]
    n = len(x)
    if n < 3:
        return Figure(None, None, None, n)
    value = float(_correlation(x[None], y[None])[0])
    if not np.isfinite(value):
        return Figure(None, None, None, n)
    drawn = np.random.default_rng(seed).integers(0, n, (draws, n))
    values = _correlation(x[drawn], y[drawn])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values[np.isfinite(values)], [tail, 1 - tail])
    return Figure(value, float(low), float(high), n)


def _correlation(x: Array, y: Array) -> Array:
    """(draws,) from (draws, n) each; NaN where one of them does not vary."""
    a, b = (rankdata(side, axis=1) - (side.shape[1] + 1) / 2 for side in (x, y))
    size = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.divide((a * b).sum(1), size, out=np.full(len(a), np.nan), where=size > 0)
