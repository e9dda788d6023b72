"""LLaMA-Factory's `predict` metrics under their own names, so that published figures can be met on their own ground.

They are not the BLEU and ROUGE of `scores`: BLEU-4 is over characters in every language, ROUGE over jieba's words with
repeated n-grams counted once, and both are means of single sentences.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from crossmatch.statistics.estimates import Array

SIGNATURE = "lf|bleu4:chars,smooth:method3,mean|rouge:jieba,rouge_chinese-1.0.3,mean"
# rouge_chinese breaks a text into sentences here before it takes words; a line without words is then one empty word.
_BREAKS = (r"([。！？?])([^”’])", r"(\.{6})([^”’])", r"(…{2})([^”’])", r"([。！？?][”’])([^，。！？?])")
_EPSILON = 1e-8
# Texts whose words are kept: every variant and condition of an evaluation is held against the same references.
_KEPT = 4096


def factory_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Array]:
    """`lf_bleu4`, `lf_rouge1`, `lf_rouge2` and `lf_rougeL` (0 to 100), one row an item, (n, 1) each; take their means.

    ROUGE is 0 where either side has no word. The original rounds each item to 4 decimals; this does not.
    """
    rows = [_scores(h, r) for h, r in zip(hypotheses, references, strict=True)]
    names = ("lf_bleu4", "lf_rouge1", "lf_rouge2", "lf_rougeL")
    table = np.array(rows, dtype=float).reshape(-1, len(names))
    return {name: table[:, [column]] for column, name in enumerate(names)}


@lru_cache(maxsize=_KEPT)
def _scores(hypothesis: str, reference: str) -> tuple[float, float, float, float]:
    bleu = 100 * character_bleu(hypothesis, reference)
    mine, theirs = _words(hypothesis), _words(reference)
    if not any(mine) or not any(theirs):
        return bleu, 0.0, 0.0, 0.0
    once = [_overlap(_ngrams(mine, n), _ngrams(theirs, n)) for n in (1, 2)]
    return bleu, 100 * once[0], 100 * once[1], 100 * _f(common_subsequence(mine, theirs), len(mine), len(theirs))


def character_bleu(hypothesis: str, reference: str) -> float:
    """Sentence BLEU-4 (0 to 1) over characters, white space among them: nltk's, with smoothing method 3 (Chen and
    Cherry, 2014). 0 without a common character."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    found = sentence_bleu([list(reference)], list(hypothesis), smoothing_function=SmoothingFunction().method3)
    return float(found)  # type: ignore[arg-type]


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, with the rows of the table as bits (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    row = everything = (1 << len(first)) - 1
    for word in second:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & everything
    return len(first) - row.bit_count()


@lru_cache(maxsize=_KEPT)
def _words(text: str) -> tuple[str, ...]:
    spaced = " ".join(_segmenter().cut(text))
    for pattern in _BREAKS:
        spaced = re.sub(pattern, r"\1\n\2", spaced)
    return tuple(word for line in spaced.rstrip().split("\n") if line for word in line.split() or [""])


@lru_cache
def _segmenter() -> Any:
    import jieba

    segmenter = jieba.Tokenizer()
    # Its own way keeps the dictionary in a file in the shared temporary directory, and would read one put there.
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter


def _ngrams(words: Sequence[str], order: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + order]) for i in range(len(words) - order + 1)}


def _overlap(mine: set[tuple[str, ...]], theirs: set[tuple[str, ...]]) -> float:
    return _f(len(mine & theirs), len(mine), len(theirs))


def _f(common: int, mine: int, theirs: int) -> float:
    precision, recall = common / mine if mine else 0.0, common / theirs if theirs else 0.0
    return 2 * precision * recall / (precision + recall + _EPSILON)
