"""Why a generation metric falls: diluted by a trace, longer, or other content. All as paired item statistics.

A part is (item statistics, statistic). Those of one name from `fall_parts` have one statistic for both variants and
rows over the same items: `paired_bootstrap(mine, other, statistic)` is that part of the difference.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crossmatch.evaluation.scores import ORDER, bleu
from crossmatch.evaluation.statistics import Array, Statistic

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


@dataclass(frozen=True)
class LengthParts:
    """What length alone does to BLEU between two variants; each part is (item statistics, statistic) for `bootstrap`.

    total: BLEU(mine) - BLEU(reference); length: what the reference's matches would score in hypotheses as long as mine,
    less what they score; rest = total - length; share = length / total, not a number where total is 0.
    """

    total: tuple[Array, Statistic]
    length: tuple[Array, Statistic]
    rest: tuple[Array, Statistic]
    share: tuple[Array, Statistic]


def length_parts(mine: Array, reference: Array) -> LengthParts:
    """Split a difference in corpus BLEU into dilution by length and the rest.

    mine, reference: (n, 10) rows of `bleu_statistics` of two variants over the same items. With no new match, precision
    falls as 1 / length: each order's total grows by the tokens added, and the brevity penalty is of the new length.
    Raises ValueError if the two do not have the same items.
    """
    if mine.shape != reference.shape:
        raise ValueError(f"paired items needed, not {mine.shape} and {reference.shape}")
    n, k = mine.shape
    rows = np.concatenate([mine, reference], axis=1)

    def of(part: Callable[[Array, Array, Array], Array]) -> tuple[Array, Statistic]:
        def statistic(columns: Array) -> Array:
            own, other = columns[:, :k], columns[:, k:]
            return part(bleu(own, n), bleu(other, n), bleu(lengthened(other, own[:, -2]), n))

        return rows, statistic

    return LengthParts(
        of(lambda own, other, _: own - other),
        of(lambda _, other, longer: longer - other),
        of(lambda own, _, longer: own - longer),
        of(_share),
    )


def lengthened(statistics: Array, length: Array) -> Array:
    """BLEU statistics with the hypothesis length set to `length` and no match gained; (draws, 10) and (draws,).

    Matches are lost only where a shorter hypothesis has no room for them.
    """
    added = (length - statistics[:, -2])[:, None]
    totals = np.maximum(statistics[:, ORDER : 2 * ORDER] + added, 0.0)
    matches = np.minimum(statistics[:, :ORDER], totals)
    return np.concatenate([matches, totals, length[:, None], statistics[:, -1:]], axis=1)


def _share(own: Array, other: Array, longer: Array) -> Array:
    total = own - other
    return np.where(total != 0, (longer - other) / np.where(total != 0, total, 1.0), np.nan)
