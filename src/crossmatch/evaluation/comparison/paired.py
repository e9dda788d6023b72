"""One metric of one variant as a figure, and of two variants as a paired difference; verdicts on a family of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from crossmatch.evaluation.metrics.metrics import Measured
from crossmatch.results.metrics import STANDING, metric_of
from crossmatch.results.summary import BestPointJson
from crossmatch.statistics.estimates import Array, Corpus, Difference, Figure, Statistic
from crossmatch.statistics.proportions import mcnemar, proportion
from crossmatch.statistics.resampling import bootstrap, paired_difference, snapped

Decision = Literal["confirmed", "refuted", "undecided"]
_TAIL = 0.05


def primary(metrics: Sequence[str]) -> str | None:
    """The metric that stands for a suite: number, exact, acc, followed_strict or rougeL is the first; or None."""
    return next((metric for metric in STANDING if metric in metrics), None)


def figure(metric: str, measured: Measured) -> Figure:
    """A share with Wilson's interval, anything else with that of the bootstrap."""
    rows, statistic = measured[metric]
    return proportion(int(rows[:, 0].sum()), len(rows)) if _is_share(metric, rows) else bootstrap(rows, statistic)


def difference(metric: str, mine: Measured, other: Measured) -> Difference | None:
    """Paired difference over the same items: McNemar's test for shares, else randomisation. None for n < 2."""
    (rows, statistic), (others, beside) = mine[metric], other[metric]
    if isinstance(statistic, Corpus) and isinstance(beside, Corpus) and statistic.seeds != beside.seeds:
        (rows, statistic), (others, _) = _as_many(rows, statistic, beside), _as_many(others, beside, statistic)
    if _is_share(metric, rows) and _is_share(metric, others):
        return mcnemar(rows[:, 0] > 0.5, others[:, 0] > 0.5)
    return paired_difference(rows, others, statistic)


def pooled(metric: str, several: Sequence[Measured]) -> Measured:
    """Several variants as one: each item's rows averaged, or side by side for a corpus score: the item stays the
    unit."""
    tables, statistic = [measured[metric][0] for measured in several], several[0][metric][1]
    if isinstance(statistic, Corpus):
        # Each has a score of its own, of which the mean is taken.
        return {metric: (np.concatenate(tables, axis=1), replace(statistic, seeds=statistic.seeds * len(several)))}
    return {metric: (np.mean(tables, axis=0), statistic)}


def _as_many(rows: Array, statistic: Corpus, other: Corpus) -> tuple[Array, Corpus]:
    """The same score with seeds repeated, so that there are as many as the other's, repeated likewise."""
    times = math.lcm(statistic.seeds, other.seeds) // statistic.seeds
    return np.tile(rows, (1, times)), replace(statistic, seeds=statistic.seeds * times)


@dataclass(frozen=True)
class Best:
    """Whether the best of a family of differences is above zero.

    value: the largest difference, at `place`; low, high: the largest lower and the largest upper bound of intervals
    that hold together (95% for all of them at once): a 95% interval of the largest true difference. confirmed: low is
    above zero; refuted: high is not.
    """

    verdict: Decision
    value: float
    low: float
    high: float
    place: int

    def to_dict(self, names: Sequence[str]) -> BestPointJson:
        """As plain JSON; names: of the differences."""
        return {
            "verdict": self.verdict,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "variant": names[self.place],
        }


def best_of(values: Array, draws: Array, wider: float = 1.0) -> Best:
    """Judge the largest of differences (k,) from their resampled values (draws, k), made from the same draws of items.

    Intervals value_i -/+ c s_i, s_i the standard deviation of its draws and c the 95% quantile over draws of
    max_i |draw_i - value_i| / s_i: looking at k differences and naming the largest costs what it should. wider: by what
    the intervals are to be wider, for few items (`widening`).
    """
    spread = draws.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    reach = float(np.quantile(np.abs((draws - values) / scale).max(1), 1 - _TAIL)) * spread * wider
    size, place = float(np.abs(draws).max()), int(values.argmax())
    low, high = snapped((values - reach).max(), size), snapped((values + reach).max(), size)
    verdict: Decision = "confirmed" if low > 0 else "refuted" if high <= 0 else "undecided"
    return Best(verdict, float(values[place]), low, high, place)


def value_of(rows: Array, statistic: Statistic) -> float:
    """A statistic of item rows (n, columns)."""
    return float(statistic(rows.mean(0, keepdims=True))[0])


def _is_share(metric: str, rows: Array) -> bool:
    """Whether items are right or wrong; over several seeds they are something between."""
    return metric_of(metric).unit.test == "mcnemar" and bool(np.isin(rows[:, 0], (0.0, 1.0)).all())
