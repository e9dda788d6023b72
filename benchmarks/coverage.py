"""How often the 95% intervals of single figures hold the truth, on the sample's own answers.

python benchmarks/coverage.py                400 samples of every size (after `make demo`): about 6 minutes
python benchmarks/coverage.py --count 100    fewer

The population is what five variants of `runs/sample` answered (40 definitions each, 20 documents each), or one variant
alone; samples of n items are drawn from it with replacement. The truth of a corpus score is that of a corpus of very
many such items. Below: the truth lies below the interval; above: above it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from crossmatch.evaluation.metrics.bleu_rouge import bleu, bleu_statistics, rouge_f
from crossmatch.evaluation.metrics.chrf import chrf, chrf_statistics
from crossmatch.evaluation.metrics.perplexity import perplexity
from crossmatch.statistics.estimates import Array, Corpus, Statistic, mean_of
from crossmatch.statistics.resampling import bootstrap

VARIANTS = ("base", "pt", "sft", "pt0.3+sft0.7", "sft0.7")
SIZES = (20, 40, 80, 200)


def read(root: Path, variant: str, suite: str) -> list[dict[str, Any]]:
    """The records of one variant."""
    file = root / "evaluate" / variant / f"{suite}.own.greedy.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def of_size(statistic: Statistic, n: int) -> Statistic:
    """A corpus score of n items; anything else as it is."""
    return Corpus(statistic.score, n) if isinstance(statistic, Corpus) else statistic


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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--sample", type=Path, default=Path("runs/sample"))
    given = parser.parse_args()
    answers = {v: read(given.sample, v, "define") for v in VARIANTS}
    rows = [row for of in answers.values() for row in of]
    texts, references = [row["answer"] for row in rows], [row["reference"] for row in rows]
    documents = [row for v in VARIANTS for row in read(given.sample, v, "documents")]
    scores = bleu_statistics(texts, references, "en")
    populations: list[tuple[str, str, Array, Statistic]] = [("bleu", "all", scores, Corpus(bleu, 1))]
    for number, variant in enumerate(VARIANTS):
        size = len(answers[variant])
        populations.append(("bleu", variant, scores[number * size : (number + 1) * size], Corpus(bleu, 1)))
    populations += [
        ("chrf", "all", chrf_statistics(texts, references), chrf),
        ("rougeL", "all", rouge_f(texts, references)["rougeL"], mean_of),
        ("perplexity", "all", np.array([[d["nats"], d["tokens"], d["bytes"]] for d in documents], float), perplexity),
    ]
    print("| figure | population | n | held | truth below | truth above |\n|---|---|---|---|---|---|")
    for name, whose, population, statistic in populations:
        for n in SIZES:
            print(f"| {name} | {whose} | {n} | {coverage(population, statistic, n, given.count)} |", flush=True)


if __name__ == "__main__":
    main()
