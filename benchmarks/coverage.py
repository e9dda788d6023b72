"""How often the 95% intervals of single figures hold the truth, on the sample's own answers.

python benchmarks/coverage.py                400 samples of every size (after `make demo`): about 6 minutes
python benchmarks/coverage.py --count 100    fewer
python benchmarks/coverage.py --differences  paired differences of variants that do not differ: about 5 minutes
python benchmarks/coverage.py --decisions    intervals and the yes of a margin that B misses: 10 minutes

The population is what five variants of `runs/sample` answered (40 definitions each, 20 documents each), or one variant
alone; samples of n items are drawn from it with replacement. The truth of a corpus score is that of a corpus of very
many such items. Below: the truth lies below the interval; above: above it.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmatch.evaluation.metrics.bleu_rouge import bleu, bleu_statistics, rouge_f
from crossmatch.evaluation.metrics.chrf import chrf, chrf_statistics
from crossmatch.evaluation.metrics.perplexity import perplexity
from crossmatch.evaluation.metrics.sustain import sustain, sustained
from crossmatch.statistics.estimates import Array, Corpus, Statistic, mean_of
from crossmatch.statistics.non_inferiority import non_inferiority
from crossmatch.statistics.proportions import mcnemar
from crossmatch.statistics.resampling import bootstrap, paired_difference

VARIANTS = ("base", "pt", "sft", "pt0.3+sft0.7", "sft0.7")
SIZES = (20, 40, 80, 200)


def read(root: Path, variant: str, suite: str) -> list[dict[str, Any]]:
    """The records of one variant."""
    file = root / "evaluate" / variant / f"{suite}.own.greedy.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def of_size(statistic: Statistic, n: int) -> Statistic:
    """A corpus score of n items, with an interval whatever n is; anything else as it is."""
    return Corpus(statistic.score, n, fewest=2) if isinstance(statistic, Corpus) else statistic


def coverage(population: Array, statistic: Statistic, n: int, count: int) -> str:
    """A row's last cells: held, below, above, in percent; a dash where there is no interval."""
    rng = np.random.default_rng(11)
    truth = float(of_size(statistic, 10**7)(population.mean(0, keepdims=True))[0])
    low = high = 0
    for _ in range(count):
        found = bootstrap(population[rng.integers(0, len(population), n)], of_size(statistic, n))
        if found.low is None or found.high is None:
            return "none | | "
        low, high = low + (truth < found.low), high + (truth > found.high)
    return f"{1 - (low + high) / count:.1%} | {low / count:.1%} | {high / count:.1%}"


Pair = Callable[[np.random.Generator, int], tuple[Array, Array]]


def _mean(draw: Callable[[np.random.Generator, int], Array]) -> Pair:
    return lambda rng, n: (draw(rng, n).reshape(n, 1), np.zeros((n, 1)))


def _both(population: Array) -> Pair:
    """Two answers to each of n items, of the same population."""
    return lambda rng, n: (
        population[rng.integers(0, len(population), n)],
        population[rng.integers(0, len(population), n)],
    )


def _longer(population: Array) -> Pair:
    """The same, where the first variant writes half as much again that matches nothing, and the second has no fewer
    matches: every second item the other way round, so that they do not differ."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        one, other = _both(population)(rng, n)
        # Columns: four of matches, four of totals, words of the answer, words of the reference.
        stretched = one.copy()
        stretched[:, 4:9] = np.round(1.5 * stretched[:, 4:9])
        swap = rng.random((n, 1)) < 0.5
        return np.where(swap, other, stretched), np.where(swap, stretched, other)

    return draw


def _sustained(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    tables = []
    for _ in range(2):
        before = (rng.random(n) < 0.6).astype(float)
        tables.append(sustain(before.tolist(), (before * (rng.random(n) < 0.7)).tolist()))
    return tables[0], tables[1]


def differences(scores: Array, documents: Array, count: int) -> Iterator[str]:
    """Rows of the table of differences."""
    cases: list[tuple[str, Pair, Callable[[int], Statistic]]] = [
        ("means, normal differences", _mean(lambda rng, n: rng.normal(size=n)), lambda _: mean_of),
        (
            "means, 60% of the items equal",
            _mean(lambda rng, n: rng.normal(size=n) * (rng.random(n) < 0.4)),
            lambda _: mean_of,
        ),
        ("means, skewed (exponential)", _mean(lambda rng, n: rng.exponential(size=n) - 1), lambda _: mean_of),
        (
            "means, very skewed (lognormal)",
            _mean(lambda rng, n: rng.lognormal(size=n) - np.exp(0.5)),
            lambda _: mean_of,
        ),
        ("corpus BLEU", _both(scores), lambda n: Corpus(bleu, n)),
        ("corpus BLEU, one variant longer", _longer(scores), lambda n: Corpus(bleu, n)),
        ("`sustained`", _sustained, lambda _: sustained),
        ("perplexity", _both(documents), lambda _: perplexity),
    ]
    yield "| | p <= 0.05 at n = 8, 16, 40 | interval holds it |\n|---|---|---|"
    for name, draw, statistic in cases:
        errs, holds = [], []
        for n in (8, 16, 40):
            rng = np.random.default_rng(n)
            found = [paired_difference(*draw(rng, n), statistic(n)) for _ in range(count)]
            known = [d for d in found if d is not None]
            errs.append(np.mean([d.p <= 0.05 for d in known]))
            holds.append(np.mean([d.low <= 0 <= d.high for d in known]))
        yield f"| {name} | {', '.join(f'{e:.3f}' for e in errs)} | {', '.join(f'{h:.3f}' for h in holds)} |"


def _flips(right: float, lost: float, gained: float) -> Pair:
    """A right or wrong answer, and another that loses and gains some."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        one, chance = rng.random(n) < right, rng.random(n)
        other = np.where(one, chance >= lost / right, chance < gained / (1 - right))
        return other.astype(np.float64)[:, None], one.astype(np.float64)[:, None]

    return draw


def _texts(rng: np.random.Generator, n: int, worse: float) -> Array:
    """Rows of BLEU: matches and totals of n-grams, words of answer and reference; a share of n-grams goes on to the
    next order, which differs widely between items."""
    words = rng.integers(8, 40, n)
    going = rng.beta(2, 2, n) * (1 - worse)
    matches, left = [], rng.binomial(words, 0.35 + 0.3 * going)
    for _ in range(4):
        matches.append(left)
        left = rng.binomial(np.maximum(left - 1, 0), going)
    return np.column_stack([*matches, *(words - order for order in range(4)), words, rng.integers(8, 40, n)]).astype(
        float
    )


def _documents(rng: np.random.Generator, n: int, spread: float) -> tuple[Array, Array]:
    tokens = rng.integers(50, 400, n)
    hard = rng.normal(2.5, 0.5, n)
    both = [tokens * (hard + more + rng.normal(0, 0.1, n)) for more in (rng.lognormal(-3, spread, n), 0.0)]
    return tuple(np.column_stack([nats, tokens, 4 * tokens]).astype(float) for nats in both)  # type: ignore[return-value]


Case = tuple[str, Pair, Callable[[int], Statistic] | None]
# None: shares. B comes first; it is worse than A in all.
DECISIONS: tuple[Case, ...] = (
    ("shares, 70% right, 15% flip", _flips(0.7, 0.1, 0.05), None),
    ("shares, 95% right, 3% flip", _flips(0.95, 0.02, 0.01), None),
    ("means, normal differences", _mean(lambda rng, n: rng.normal(-0.2, 1, n)), lambda _: mean_of),
    (
        "means, 60% of the items equal",
        _mean(lambda rng, n: rng.normal(-0.2, 1, n) * (rng.random(n) < 0.4)),
        lambda _: mean_of,
    ),
    ("means, losses exponential", _mean(lambda rng, n: -rng.exponential(size=n)), lambda _: mean_of),
    ("means, losses lognormal (1)", _mean(lambda rng, n: -rng.lognormal(0, 1, n)), lambda _: mean_of),
    ("means, losses lognormal (1.5)", _mean(lambda rng, n: -rng.lognormal(0, 1.5, n)), lambda _: mean_of),
    (
        "means, 2% of the items lose all",
        _mean(lambda rng, n: rng.normal(0, 0.05, n) - (rng.random(n) < 0.02)),
        lambda _: mean_of,
    ),
    ("corpus BLEU", lambda rng, n: (_texts(rng, n, 0.1), _texts(rng, n, 0.0)), lambda n: Corpus(bleu, n)),
    ("perplexity, light tails", lambda rng, n: _documents(rng, n, 0.5), lambda _: perplexity),
    ("perplexity, heavy tails", lambda rng, n: _documents(rng, n, 2.0), lambda _: perplexity),
)


def decisions(count: int, sizes: Sequence[int]) -> Iterator[str]:
    """Rows: how often the interval of B - A holds the truth, and how often `yes` is said at a margin that it misses."""
    yield "| | n | interval holds it | yes (2.5% meant) |\n|---|---|---|---|"
    for name, draw, statistic in DECISIONS:
        truth = _truth(draw, statistic)
        for n in sizes:
            rng, held, yes, known = np.random.default_rng(n), 0, 0, 0
            for _ in range(count if n < 500 else max(count // 4, 1)):
                first, second = draw(rng, n)
                if statistic is None:
                    found = mcnemar(first[:, 0] > 0.5, second[:, 0] > 0.5)
                else:
                    found = paired_difference(first, second, statistic(n))
                if found is not None:
                    judged = non_inferiority(found, abs(truth), higher_is_better=truth < 0, family=1)
                    held, yes, known = (
                        held + (found.low <= truth <= found.high),
                        yes + (judged.answer == "yes"),
                        known + 1,
                    )
            yield f"| {name} | {n} | {held / known:.1%} | {yes / known:.1%} |"


def _truth(draw: Pair, statistic: Callable[[int], Statistic] | None) -> float:
    """B - A of very many items."""
    rng, made = np.random.default_rng(0), (lambda _: mean_of) if statistic is None else statistic
    means = [[rows.mean(0) for rows in draw(rng, 100_000)] for _ in range(40)]
    one, other = (np.mean([m[side] for m in means], 0)[None] for side in (0, 1))
    value = made(10**7)
    return float((value(one) - value(other))[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--differences", action="store_true")
    parser.add_argument("--decisions", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 40, 80, 200, 1000], help="of --decisions")
    parser.add_argument("--sample", type=Path, default=Path("runs/sample"))
    given = parser.parse_args()
    if given.decisions:
        for line in decisions(given.count, given.sizes):
            print(line, flush=True)
        return
    answers = {v: read(given.sample, v, "define") for v in VARIANTS}
    rows = [row for of in answers.values() for row in of]
    texts, references = [row["answer"] for row in rows], [row["reference"] for row in rows]
    documents = [row for v in VARIANTS for row in read(given.sample, v, "documents")]
    scores = bleu_statistics(texts, references, "en")
    texts_of = np.array([[d["nats"], d["tokens"], d["bytes"]] for d in documents], float)
    if given.differences:
        for line in differences(scores, texts_of, given.count):
            print(line, flush=True)
        return
    populations: list[tuple[str, str, Array, Statistic]] = [("bleu", "all", scores, Corpus(bleu, 1))]
    for number, variant in enumerate(VARIANTS):
        size = len(answers[variant])
        populations.append(("bleu", variant, scores[number * size : (number + 1) * size], Corpus(bleu, 1)))
    populations += [
        ("chrf", "all", chrf_statistics(texts, references), chrf),
        ("rougeL", "all", rouge_f(texts, references)["rougeL"], mean_of),
        ("perplexity", "all", texts_of, perplexity),
    ]
    print("| figure | population | n | held | truth below | truth above |\n|---|---|---|---|---|---|")
    for name, whose, population, statistic in populations:
        for n in SIZES:
            shown = isinstance(statistic, Corpus) and n < statistic.fewest
            held = coverage(population, statistic, n, given.count)
            print(f"| {name} | {whose} | {n}{' (not given)' if shown else ''} | {held} |", flush=True)


if __name__ == "__main__":
    main()
