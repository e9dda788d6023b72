"""Intervals from exchanges: by hand, and how often they hold the truth."""

import math

import numpy as np
import pytest

from crossmatch.statistics.permutation import exchange_bounds, flip_bounds


def test_of_six_values_the_bounds_are_the_least_and_the_largest() -> None:
    values = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.6])
    assert flip_bounds(values, 0.025) == pytest.approx((1.0, 9.0))
    assert flip_bounds(values[:5], 0.025) == (-math.inf, math.inf)
    assert flip_bounds(values[:5], 0.05) == pytest.approx((1.0, 9.0))


def test_a_shift_moves_the_bounds_and_a_common_offset_does_not() -> None:
    rng = np.random.default_rng(0)
    blocks = [(rng.normal(size=3), rng.normal(size=4)) for _ in range(3)]
    low, high = exchange_bounds(blocks, 0.025)
    moved = [(first + 5 + i, second + i) for i, (first, second) in enumerate(blocks)]
    assert exchange_bounds(moved, 0.025) == pytest.approx((low + 5, high + 5))
    value = sum(first.mean() - second.mean() for first, second in blocks) / 3
    assert low < value < high


def test_too_few_exchanges_bound_nothing() -> None:
    blocks = [(np.array([1.0]), np.array([0.0, 0.1])) for _ in range(3)]
    assert exchange_bounds(blocks, 0.025) == (-math.inf, math.inf)


@pytest.mark.parametrize("layers", [3, 4])
def test_bounds_are_wrong_as_often_as_they_say(layers: int) -> None:
    rng, wrong, trials = np.random.default_rng(1), 0, 150
    for _ in range(trials):
        blocks = []
        for _ in range(layers):
            offset = rng.normal(0, 10)
            blocks.append((rng.normal(offset + 2, 1, 3), rng.normal(offset, 1, 4)))
        low, high = exchange_bounds(blocks, 0.025)
        wrong += not low <= 2 <= high
    assert wrong / trials <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("n", [6, 12, 20])
def test_flips_hold_the_mean(n: int) -> None:
    rng, trials = np.random.default_rng(n), 150
    held = 0
    for _ in range(trials):
        low, high = flip_bounds(rng.laplace(1.0, 1.0, n), 0.025)
        held += low <= 1.0 <= high
    assert held / trials >= 0.95 - 2.5 * math.sqrt(0.05 * 0.95 / trials)
