"""Text scores as item statistics, so that every figure and every paired difference can be resampled."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from crossmatch.statistics.estimates import Array, Ratio

ORDER = 4
# Any other language: 13a, which is sacreBLEU's own for those that put spaces between words.
_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab"}
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_CJK}]|[^\W{_CJK}_]+")


@lru_cache
def _bleu(language: str) -> BLEU:
    # Orders are smoothed over the whole corpus: effective order is a matter of single sentences.
    return BLEU(tokenize=_TOKENIZERS.get(language, "13a"), effective_order=False)


def bleu_signature(language: str) -> str:
    """sacreBLEU's signature of the scores made here."""
    metric = _bleu(language)
    metric.corpus_score([""], [[""]])
    return str(metric.get_signature())


def bleu_statistics(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Array:
    """Sufficient statistics of BLEU-4, one row an item: 4 matches, 4 totals, hypothesis length, reference length."""
    metric, rows = _bleu(language), []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        score: Any = metric.corpus_score([hypothesis], [[reference]])
        rows.append([*score.counts, *score.totals, score.sys_len, score.ref_len])
    return np.array(rows, dtype=float).reshape(-1, 2 * ORDER + 2)


def bleu(statistics: Array, items: int) -> Array:
    """Corpus BLEU-4 (0 to 100) from mean sufficient statistics over `items` items, (draws, 10) to (draws,).

    sacreBLEU's definition with its exponential smoothing: the k-th order without a match counts as 2^-k matches.
    """
    sums = statistics * items
    matches, totals = sums[:, :ORDER], sums[:, ORDER : 2 * ORDER]
    hypothesis, reference = sums[:, -2], sums[:, -1]
    # A draw sums whole counts; products of means leave them a rounding error away from zero.
    none = matches < 0.5
    smoothed = np.where(none, 0.5 ** np.cumsum(none, axis=1), matches)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(smoothed / totals).mean(1)
        penalty = np.where(hypothesis < reference, 1 - reference / hypothesis, 0.0)
        value = 100 * np.exp(logs + penalty)
    return np.where((~none).any(1) & (totals > 0.5).all(1), value, 0.0)


length_ratio = Ratio(-2, -1)
"""Hypothesis length over reference length, in BLEU's tokens; (draws, 10) to (draws,)."""


def sentence_bleu_signature(language: str) -> str:
    """sacreBLEU's signature of the sentence scores made here."""
    metric = _sentence_bleu(language)
    metric.corpus_score([""], [[""]])
    return str(metric.get_signature())


def sentence_bleu(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Array:
    """Sentence BLEU-4 (0 to 100), one row an item, (n, 1), as sacreBLEU has it with its signature; take its mean."""
    metric = _sentence_bleu(language)
    pairs = zip(hypotheses, references, strict=True)
    return np.array([[metric.sentence_score(h, [r]).score] for h, r in pairs], dtype=float).reshape(-1, 1)


@lru_cache
def _sentence_bleu(language: str) -> BLEU:
    return BLEU(tokenize=_TOKENIZERS.get(language, "13a"), effective_order=True)


class Words:
    """Tokenizer for ROUGE: lower-case words, and every Chinese, Japanese or Korean character by itself.

    rouge-score's own keeps a-z and 0-9 alone: two identical Chinese sentences score zero with it.
    """

    def tokenize(self, text: str) -> list[str]:
        """Tokens of a text."""
        return _WORDS.findall(text.lower())


def rouge_f(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Array]:
    """ROUGE-1, -2 and -L F-scores (0 to 100), one row an item, by rouge-score with the tokenizer above."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds), tokenizer=Words())
    scores = [scorer.score(r, h) for h, r in zip(hypotheses, references, strict=True)]
    return {kind: np.array([[100 * s[kind].fmeasure] for s in scores]).reshape(-1, 1) for kind in kinds}
