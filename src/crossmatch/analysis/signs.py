"""How often two changes pull an element in opposite directions; this needs every element, block of rows by block."""

import math

from crossmatch.analysis.change import Change
from crossmatch.analysis.nulls import Figure


def sign_conflict(first: Change, second: Change) -> Figure:
    """Share of elements with opposite signs, each weighted by min(|a|, |b|); of unrelated changes one half.

    The deviation of the null, sqrt(sum w^2) / (2 sum w), is that of independent elements; those of low-rank deltas are
    not, so that theirs is larger: judge it beside the cosine.
    """
    opposite = weights = squares = 0.0
    for (_, x), (_, y) in zip(first.rows.blocks(), second.rows.blocks(), strict=True):
        least = x.abs().minimum(y.abs())
        opposite += float(least[(x * y) < 0].double().sum())
        weights += float(least.double().sum())
        squares += float(least.double().square().sum())
    if weights == 0.0:
        return Figure(None, 0.5)
    return Figure(opposite / weights, 0.5, math.sqrt(squares) / (2 * weights))
