"""chrF as item statistics: F-score of character n-grams, which needs no tokenizer (Popović, 2015).

Equal to sacreBLEU's corpus chrF, whose signature is printed with it.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.chrf import CHRF

from crossmatch.statistics.estimates import Array

ORDER = CHRF.CHAR_ORDER
BETA = CHRF.BETA


def chrf_signature() -> str:
    """sacreBLEU's signature of the scores made here."""
    metric = CHRF()
    metric.corpus_score([""], [[""]])
    return str(metric.get_signature())


def chrf_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """Sufficient statistics of chrF, (n, 18): n-grams of the hypothesis, of the reference, and common, for orders 1-6.

    White space does not count. n-grams of the hypothesis count as none where the reference has none of that order.
    """
    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        mine, theirs = _ngrams(hypothesis), _ngrams(reference)
        totals = [h.total() if r else 0 for h, r in zip(mine, theirs, strict=True)]
        common = [(h & r).total() for h, r in zip(mine, theirs, strict=True)]
        rows.append([*totals, *(r.total() for r in theirs), *common])
    return np.array(rows, dtype=float).reshape(-1, 3 * ORDER)


def chrf(statistics: Array) -> Array:
    """Corpus chrF (0 to 100) from mean sufficient statistics, (draws, 18) to (draws,).

    F = (1 + b^2) P R / (b^2 P + R), b = 2, with P and R the means over the orders that both sides have; 0 where none.
    """
    hypothesis, reference, common = np.split(statistics, 3, axis=1)
    both = (hypothesis > 0) & (reference > 0)
    orders = np.maximum(both.sum(1), 1)
    precision = np.where(both, common / np.where(both, hypothesis, 1.0), 0.0).sum(1) / orders
    recall = np.where(both, common / np.where(both, reference, 1.0), 0.0).sum(1) / orders
    weighted = BETA**2 * precision + recall
    return np.where(weighted > 0, 100 * (1 + BETA**2) * precision * recall / np.where(weighted > 0, weighted, 1.0), 0.0)


def _ngrams(text: str) -> list[Counter[str]]:
    dense = "".join(text.split())
    return [Counter(dense[i : i + n] for i in range(len(dense) - n + 1)) for n in range(1, ORDER + 1)]
