"""Intervals, tests and the effects they find: what they say about data of which the truth is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from crossmatch.errors import DataError
from crossmatch.evaluation.comparison.divergence import divergence, standardised
from crossmatch.evaluation.metrics.bleu_rouge import length_ratio
from crossmatch.evaluation.metrics.perplexity import perplexity
from crossmatch.evaluation.metrics.sustain import sustain, sustained
from crossmatch.statistics.estimates import Array, mean_of
from crossmatch.statistics.multiple_tests import holm
from crossmatch.statistics.proportions import mcnemar, newcombe, power_of, proportion, smallest_effect
from crossmatch.statistics.resampling import bootstrap, paired_contrast, paired_difference

Draw = Callable[[np.random.Generator, int], Array]


def test_proportion_is_wilson() -> None:
    figure = proportion(8, 10)
    z, p, n = 1.959963984540054, 0.8, 10
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert figure.low == pytest.approx(centre - half)
    assert figure.high == pytest.approx(centre + half)
    assert proportion(0, 0).value is None


def test_mcnemar_is_exact() -> None:
    first = np.array([True] * 9 + [False] * 2 + [True] * 20)
    second = np.array([False] * 9 + [True] * 2 + [True] * 20)
    found = mcnemar(first, second)
    assert found is not None
    assert (found.gained, found.lost) == (9, 2)
    assert found.p == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)
    assert found.p == pytest.approx(binomtest(9, 11).pvalue)
    assert found.value == pytest.approx(7 / 31)
    same = mcnemar(first, first)
    assert same is not None
    assert (same.p, same.value) == (1.0, 0.0)


def test_small_numbers_have_intervals_like_large_ones() -> None:
    rows = np.random.default_rng(0).lognormal(size=(40, 1))
    large, small = bootstrap(rows), bootstrap(1e-14 * rows)
    assert small.low is not None
    assert large.low is not None
    assert small.low == pytest.approx(1e-14 * large.low)
    shift = paired_difference(1e-14 * rows, 1e-14 * rows[::-1])
    assert shift is not None
    assert shift.low < 0 < shift.high


def test_bootstrap_intervals_cover() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        figure = bootstrap(rng.normal(3.0, 2.0, (60, 1)))
        assert figure.low is not None
        assert figure.high is not None
        inside += figure.low <= 3.0 <= figure.high
    assert 0.89 <= inside / 200 <= 0.99


def test_paired_differences_use_the_pairs() -> None:
    rng = np.random.default_rng(2)
    common = rng.normal(0, 10, (50, 1))
    found = paired_difference(common + 0.5 + rng.normal(0, 0.1, (50, 1)), common)
    assert found is not None
    assert found.low > 0.4
    assert found.p <= 1e-3
    assert paired_difference(common[:1], common[:1]) is None
    with pytest.raises(ValueError, match="paired items"):
        paired_difference(common, common[:3])
    few = paired_difference(common[:3] + 5, common[:3])
    assert few is not None
    assert few.p == 0.25
    assert bootstrap(common[:1]).low is None
    assert bootstrap(common[:0]).value is None


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert holm([]) == []


def test_the_interval_of_paired_shares_is_newcombes() -> None:
    # Newcombe (1998), table II, method 10.
    assert newcombe(36, 12, 2, 50) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert newcombe(20, 12, 2, 50) == pytest.approx((0.0562, 0.3292), abs=5e-5)
    low, high = newcombe(20, 2, 12, 50)
    assert (low, high) == pytest.approx((-0.3292, -0.0562), abs=5e-5)


@pytest.mark.parametrize("right", [0, 7, 40])
def test_answers_that_do_not_flip_are_not_known_to_be_equal_for_ever(right: int) -> None:
    answers = np.arange(40) < right
    found = mcnemar(answers, answers)
    assert found is not None
    assert (found.value, found.p) == (0.0, 1.0)
    assert found.low < -0.03
    assert found.high > 0.03
    assert found.mde is not None
    assert found.mde >= 6 / 40


def paired_shares(rng: np.random.Generator, n: int, gain: float, loss: float) -> tuple[NDArray[np.bool_], ...]:
    """Answers of two variants: half of those that do not flip are right."""
    kind = rng.choice(3, size=n, p=[gain, loss, 1 - gain - loss])
    other = np.where(kind == 2, rng.random(n) < 0.5, kind == 1)
    return np.where(kind == 2, other, kind == 0), other


def test_newcombes_interval_covers_where_little_flips() -> None:
    rng = np.random.default_rng(0)
    for n, gain, loss in [(16, 0.1, 0.05), (40, 0.03, 0.03), (80, 0.2, 0.05)]:
        found = [mcnemar(*paired_shares(rng, n, gain, loss)) for _ in range(300)]
        inside = [d.low <= gain - loss <= d.high for d in found if d]
        assert np.mean(inside) >= 0.93


@pytest.mark.parametrize("n", [8, 20, 80, 300])
@pytest.mark.parametrize("share", [0.0, 0.025, 0.1, 0.4])
def test_a_share_as_large_as_the_smallest_effect_is_found(n: int, share: float) -> None:
    """By simulation: of samples with that difference, and as many flips as were seen, 5% McNemar finds four in five."""
    flips = round(share * n)
    mde = smallest_effect(n, flips)
    assert mde is not None
    assert mde >= 6 / n
    rng, discordance = np.random.default_rng(n), max(flips / n, mde)
    gain, loss = (discordance + mde) / 2, (discordance - mde) / 2
    counts = rng.multinomial(n, [gain, loss, 1 - gain - loss], size=1500)
    p = {(a, b): binomtest(a, a + b).pvalue if a + b else 1.0 for a, b in {(a, b) for a, b, _ in counts.tolist()}}
    power = np.mean([p[a, b] <= 0.05 for a, b, _ in counts.tolist()])
    assert power >= 0.8 - 0.035
    assert power == pytest.approx(power_of(mde, discordance, n), abs=0.035)
    # Nor is it larger than the worst case needs.
    worst = proportion(flips, n).high
    assert worst is not None
    assert mde <= 6 / n or power_of(mde, worst, n) == pytest.approx(0.8, abs=0.01)


def test_too_few_items_find_nothing() -> None:
    assert smallest_effect(5, 2) is None
    # What the spread of the draws said was 0.05, of which one case in five is found.
    assert power_of(0.05, 0.05, 80) < 0.3
    still = np.ones((30, 1))
    found = paired_difference(still, still)
    assert found is not None
    assert found.mde is None
    five = np.where(np.arange(30) < 5, 2.0, 1.0)[:, None]
    found = paired_difference(five, still)
    assert found is not None
    assert found.mde is None
    assert found.p == 2 * 0.5**5


def test_the_smallest_effect_on_a_mean_is_found() -> None:
    for n in (8, 60):
        rng, hits, stated, trials = np.random.default_rng(n), 0, [], 150
        for _ in range(trials):
            noise = rng.normal(0, 1, (n, 1))
            found = paired_difference(noise, np.zeros((n, 1)))
            assert found is not None
            assert found.mde is not None
            stated.append(found.mde)
        for _ in range(trials):
            shifted = paired_difference(rng.normal(np.mean(stated), 1, (n, 1)), np.zeros((n, 1)))
            hits += shifted is not None and shifted.p <= 0.05
        assert 0.7 < hits / trials < 0.93


def normal(rng: np.random.Generator, n: int) -> Array:
    return rng.normal(size=(n, 1))


def mostly_equal(rng: np.random.Generator, n: int) -> Array:
    return rng.normal(size=(n, 1)) * (rng.random((n, 1)) < 0.4)


def skewed(rng: np.random.Generator, n: int) -> Array:
    return rng.exponential(size=(n, 1)) - 1


@pytest.mark.parametrize(
    ("draw", "errs", "covers"), [(normal, 0.05, 0.95), (mostly_equal, 0.04, 0.95), (skewed, 0.1, 0.9)]
)
@pytest.mark.parametrize("n", [8, 16, 40])
def test_few_items_err_no_more_often_than_they_say(draw: Draw, errs: float, covers: float, n: int) -> None:
    rng, zero = np.random.default_rng(n), np.zeros((n, 1))
    found = [paired_difference(draw(rng, n), zero) for _ in range(250)]
    assert np.mean([d.p <= 0.05 for d in found if d]) <= errs + 0.03
    assert np.mean([d.low <= 0 <= d.high for d in found if d]) >= covers - 0.035


def test_sign_flips_are_all_counted_where_they_are_few() -> None:
    d = np.array([0.3, 1.1, -0.2, 0.9, 2.0, 0.4, 0.0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1).T
    exact = np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-12)
    found = paired_difference(d[:, None], np.zeros((7, 1)))
    assert found is not None
    assert (found.p, found.test) == (pytest.approx(exact), "randomisation")
    many = np.random.default_rng(0).normal(0.6, 1, (30, 1))
    drawn = paired_difference(many, np.zeros((30, 1)))
    assert drawn is not None
    assert 1 / 10_001 <= drawn.p < 0.05


def test_a_statistic_of_two_variants_is_tested_by_exchange() -> None:
    rng = np.random.default_rng(3)
    tokens = rng.integers(5, 40, (9, 1)).astype(float)
    tables = [np.concatenate([tokens * rng.uniform(1, 2, (9, 1)), tokens], 1) for _ in range(2)]

    def contrast(a: Array, b: Array) -> Array:
        return perplexity(a) - perplexity(b)

    values = []
    for swaps in range(2**9):
        swap = np.array([[bool(swaps >> i & 1)] for i in range(9)])
        one, other = np.where(swap, tables[1], tables[0]), np.where(swap, tables[0], tables[1])
        values.append(abs(float(contrast(one.mean(0)[None], other.mean(0)[None])[0])))
    found = paired_contrast(tables[0], tables[1], contrast)
    assert found is not None
    assert found.p == pytest.approx(np.mean(np.array(values) >= values[0] - 1e-12))
    assert found.low <= found.value <= found.high


def test_only_items_that_were_solved_count() -> None:
    """Ten items of which one was solved: nothing is known of how the score holds."""
    before, after = np.eye(10)[0], 0.5 * np.eye(10)[0]
    mine, other = sustain(before, after), sustain(before, before)
    figure = bootstrap(mine, sustained)
    assert (figure.value, figure.low, figure.high, figure.n) == (0.5, None, None, 1)
    assert paired_difference(mine, other, sustained) is None
    two = np.eye(10)[:2].sum(0)
    found = paired_difference(sustain(two, 0.5 * two), sustain(two, two), sustained)
    assert found is not None
    assert (found.n, found.p) == (2, 0.5)
    # One of the two variants solved one item: most draws say nothing of it.
    assert paired_difference(mine, sustain(np.ones(10), np.ones(10)), sustained) is None
    nobody = bootstrap(sustain(np.zeros(10), np.zeros(10)), sustained)
    assert (nobody.value, nobody.n) == (None, 0)


def test_draws_without_a_value_count_on_both_sides() -> None:
    # Solved by one variant: 4 of 40, so that one draw in 68 has none of them.
    some, all_of_them = (np.arange(40) < 4).astype(float), np.ones(40)
    found = paired_difference(sustain(some, some), sustain(all_of_them, 0.9 * all_of_them), sustained)
    assert found is not None
    assert found.n == 40
    few = (np.arange(40) < 3).astype(float)
    assert paired_difference(sustain(few, few), sustain(all_of_them, 0.9 * all_of_them), sustained) is None


def test_intervals_stay_where_values_can_be() -> None:
    table = np.zeros((6, 10))
    table[:, -1], table[0, -2] = 5.0, 9.0
    figure = bootstrap(table, length_ratio)
    assert figure.low == 0.0
    wide = bootstrap(np.array([[0.0], [1.0], [1.0], [1.0]]))
    assert wide.low is not None
    assert wide.high is not None
    assert 0.0 <= wide.low < wide.high <= 1.0
    with pytest.raises(DataError, match="no numbers"):
        bootstrap(np.array([[1.0], [math.nan]]))


def test_divergence_is_in_standard_errors() -> None:
    rng = np.random.default_rng(0)
    fallen = standardised(rng.normal(-1, 1, (400, 1)), np.zeros((400, 1)), mean_of)
    one, other = (rng.integers(0, 2, (300, 1)).astype(float) for _ in range(2))
    same = standardised(one, other, mean_of, 1)
    found = divergence(fallen, same)
    assert found.value is not None
    assert found.high is not None
    assert found.value < -15
    assert found.high < -10
    # Choices that are all alike differ by nothing: what the surface lost is what diverges.
    alike = divergence(fallen, standardised(one, one, mean_of, 1))
    assert fallen is not None
    assert alike.value == pytest.approx(fallen[0])
    assert alike.low is not None
    assert alike.high is not None
    assert alike.low < fallen[0] - 1.9
    assert fallen[0] + 1.9 < alike.high < 0
    still = np.ones((5, 1))
    assert divergence(standardised(still, still - 1, mean_of), same).value is None
    nothing = standardised(still, still, mean_of)
    assert divergence(nothing, nothing).value is None
    assert divergence(nothing, standardised(still[:1], still[:1], mean_of)).n == 0


@pytest.mark.parametrize("differing", [2, 3, 5, 8])
def test_bounds_lie_within_what_was_seen(differing: int) -> None:
    """With few items that differ, draws have hardly any spread, or none but a rounding error."""
    first, second = np.full((70, 1), 0.3), np.full((70, 1), 0.3)
    first[:differing, 0] += 1 / 3
    found = paired_difference(first, second)
    assert found is not None
    assert -0.01 < found.low <= found.value <= found.high <= 1 / 3
