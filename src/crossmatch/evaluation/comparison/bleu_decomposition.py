"""Why a generation metric falls: diluted by a trace, longer, or other content. All as paired item statistics.

A part is (item statistics, statistic). Those of one name from `fall_parts` have one statistic for both variants and
rows over the same items: `paired_difference(mine, other, statistic)` is that part of the difference. Those of
`length_parts` are contrasts of the two.
"""

import numpy as np

from crossmatch.evaluation.metrics.bleu_rouge import ORDER
from crossmatch.statistics.estimates import Array, Contrast, Statistic

Parts = dict[str, tuple[Array, Statistic]]


def fall_parts(raw: Array, stripped: Array, statistic: Statistic) -> Parts:
    """`total` = `dilution` + `content`, of one variant's metric.

    raw, stripped: (n, k) item statistics of the output as it is and of its answer alone; statistic: the metric.
    total = S(raw); dilution = S(raw) - S(stripped), what the trace costs; content = S(stripped). Hence, between two
    variants, d(raw) = d(dilution) + d(content), exactly, in the data and in every draw.
    Raises ValueError if the two do not have the same items and columns.
    """
    if raw.shape != stripped.shape:
        raise ValueError(f"raw and stripped need the same items, not {raw.shape} and {stripped.shape}")
    rows = np.concatenate([raw, stripped], axis=1)
    k = raw.shape[1]

    def total(columns: Array) -> Array:
        return statistic(columns[:, :k])

    def dilution(columns: Array) -> Array:
        return statistic(columns[:, :k]) - statistic(columns[:, k:])

    def content(columns: Array) -> Array:
        return statistic(columns[:, k:])

    return {"total": (rows, total), "dilution": (rows, dilution), "content": (rows, content)}


def length_parts(score: Statistic) -> dict[str, Contrast]:
    """Split a difference in corpus BLEU (score) into dilution by length and the rest.

    Each part is a contrast of two variants' (draws, seeds * 10) mean rows of `bleu_statistics`, for
    `paired_contrast`. total: BLEU(mine) - BLEU(reference); length: what the reference's matches would score in
    hypotheses as long as mine, less what they score; rest = total - length. With no new match, precision falls as 1 /
    length: each order's total grows by the tokens added, and the brevity penalty is of the new length.
    """

    def total(mine: Array, reference: Array) -> Array:
        return score(mine) - score(reference)

    def length(mine: Array, reference: Array) -> Array:
        return score(_as_long(reference, mine)) - score(reference)

    def rest(mine: Array, reference: Array) -> Array:
        return score(mine) - score(_as_long(reference, mine))

    return {"total": total, "length": length, "rest": rest}


def _as_long(reference: Array, mine: Array) -> Array:
    """The reference's statistics at the lengths of mine, seed by seed: (draws, seeds * 10) each."""
    width = 2 * ORDER + 2
    longer = lengthened(reference.reshape(-1, width), mine.reshape(-1, width)[:, -2])
    return longer.reshape(reference.shape)


def lengthened(statistics: Array, length: Array) -> Array:
    """BLEU statistics with the hypothesis length set to `length` and no match gained; (draws, 10) and (draws,).

    Matches are lost only where a shorter hypothesis has no room for them.
    """
    added = (length - statistics[:, -2])[:, None]
    totals = np.maximum(statistics[:, ORDER : 2 * ORDER] + added, 0.0)
    matches = np.minimum(statistics[:, :ORDER], totals)
    return np.concatenate([matches, totals, length[:, None], statistics[:, -1:]], axis=1)
