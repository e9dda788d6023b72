"""Corpus BLEU: its interval holds the truth, there is none of few items, and seeds are averaged after scoring."""

from functools import partial

import numpy as np
import pytest

from crossmatch.data.suites import Item
from crossmatch.evaluation import Suite, SuiteSettings
from crossmatch.evaluation.comparison.bleu_decomposition import length_parts
from crossmatch.evaluation.comparison.paired import difference, figure, pooled
from crossmatch.evaluation.metrics.bleu_rouge import bleu, bleu_statistics
from crossmatch.evaluation.metrics.metrics import Measured, measure
from crossmatch.statistics.estimates import Array, Corpus
from crossmatch.statistics.resampling import bootstrap

REFERENCES = ["a disease of the small vessels", "raised pressure in the lung", "an enlarged liver of any cause"]
ANSWERS = (
    ["a disease of vessels", "pressure in the lung is raised", "liver"],
    ["disease of the small vessels of the heart", "raised blood pressure", "an enlarged liver or spleen"],
)


def measured(*seeds: list[str]) -> Measured:
    """The metrics of a suite of three items, of one or several seeds."""
    settings = SuiteSettings(name="ask", version=1, kind="generation", data="x.jsonl")
    suite = Suite(settings, tuple(Item(str(i), "q") for i in range(3)), "")
    rows = [
        {"seed": seed, "reference": reference, "output": answers[i], "answer": answers[i], "truncated": False}
        for i, reference in enumerate(REFERENCES)
        for seed, answers in enumerate(seeds)
    ]
    return measure(rows, suite)


def score(answers: list[str]) -> float:
    rows = bleu_statistics(answers, REFERENCES, "en")
    return float(bleu(rows.mean(0, keepdims=True), 3)[0])


def test_the_score_of_several_seeds_is_the_mean_of_theirs() -> None:
    one, other = ANSWERS
    assert figure("bleu", measured(one, one, one)).value == pytest.approx(score(one))
    both = measured(one, other)
    assert figure("bleu", both).value == pytest.approx((score(one) + score(other)) / 2)
    assert both["length_ratio"][0].shape == (3, 10)
    found = difference("bleu", both, measured(other, one))
    assert found is not None
    assert found.value == pytest.approx(0.0, abs=1e-9)


def test_variants_that_are_pooled_have_a_score_each() -> None:
    one, other = (measured(answers) for answers in ANSWERS)
    nulls = pooled("bleu", [one, other])
    expected = score(ANSWERS[0]) - (score(ANSWERS[0]) + score(ANSWERS[1])) / 2
    for found in (difference("bleu", one, nulls), difference("bleu", nulls, one)):
        assert found is not None
        assert abs(found.value) == pytest.approx(abs(expected))


def test_lengths_of_several_seeds_are_taken_seed_by_seed() -> None:
    one, other = ANSWERS
    (mine, statistic), (theirs, _) = measured(other, one)["bleu"], measured(one, one)["bleu"]
    parts = length_parts(statistic)
    means = mine.mean(0, keepdims=True), theirs.mean(0, keepdims=True)
    assert float((parts["length"](*means) + parts["rest"](*means))[0]) == pytest.approx(
        float(parts["total"](*means)[0])
    )
    alone = [measured(answers)["bleu"] for answers in (other, one, one)]
    single = length_parts(alone[0][1])["length"]
    columns = [rows.mean(0, keepdims=True) for rows, _ in alone]
    # The second seed says the same on both sides, so that its length explains nothing.
    assert float(parts["length"](*means)[0]) == pytest.approx(float(single(columns[0], columns[1])[0]) / 2)


def items(n: int, rng: np.random.Generator) -> Array:
    """BLEU's statistics of answers of which few are good: matches of higher orders are rare, and come together."""
    words = rng.integers(10, 30, n)
    good = rng.beta(0.25, 1.5, n)
    totals = np.stack([words - order for order in range(4)], axis=1)
    chances = np.stack([good ** (0.5 + 0.5 * order) for order in range(4)], axis=1)
    matches = rng.binomial(totals, chances)
    return np.column_stack([matches, totals, words, words]).astype(float)


def test_the_interval_of_a_corpus_score_holds_the_truth() -> None:
    rng, n, trials = np.random.default_rng(3), 80, 60
    whole = items(200_000, rng)
    truth = float(bleu(whole.mean(0, keepdims=True), len(whole))[0])
    above, plain = 0, 0
    for _ in range(trials):
        rows = items(n, rng)
        found, old = bootstrap(rows, Corpus(bleu, n)), bootstrap(rows, partial(bleu, items=n))
        assert found.low is not None
        assert found.high is not None
        assert old.high is not None
        above += truth > found.high
        plain += truth > old.high
    assert above <= 4
    # What it is corrected for.
    assert plain > above


def test_few_items_have_no_interval() -> None:
    rows = items(79, np.random.default_rng(0))
    found = bootstrap(rows, Corpus(bleu, 79))
    assert found.value is not None
    assert (found.low, found.high, found.n) == (None, None, 79)


def test_an_interval_stays_within_the_scale_and_about_its_value() -> None:
    for seed in range(3):
        found = bootstrap(items(80, np.random.default_rng(seed)), Corpus(bleu, 80))
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.value <= found.high <= 100
    same = np.tile([10.0, 9, 8, 7, 10, 9, 8, 7, 10, 10], (80, 1))
    perfect = bootstrap(same, Corpus(bleu, 80))
    assert perfect.low == perfect.high == perfect.value == pytest.approx(100)
