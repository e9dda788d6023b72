"""How often the 95% intervals of single figures hold the truth, on the sample's own answers.

python benchmarks/coverage.py                400 samples of every size (after `make demo`): about 6 minutes
python benchmarks/coverage.py --count 100    fewer
python benchmarks/coverage.py --differences  paired differences of variants that do not differ: about 5 minutes

The population is what five variants of `runs/sample` answered (40 definitions each, 20 documents each), or one variant
alone; samples of n items are drawn from it with replacement. The truth of a corpus score is that of a corpus of very
many such items. Below: the truth lies below the interval; above: above it.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crossmatch.evaluation.metrics.bleu_rouge import bleu, bleu_statistics, rouge_f
from crossmatch.evaluation.metrics.chrf import chrf, chrf_statistics
from crossmatch.evaluation.metrics.perplexity import perplexity
from crossmatch.evaluation.metrics.sustain import sustain, sustained
from crossmatch.statistics.estimates import Array, Corpus, Statistic, mean_of
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--differences", action="store_true")
    parser.add_argument("--sample", type=Path, default=Path("runs/sample"))
    given = parser.parse_args()
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
