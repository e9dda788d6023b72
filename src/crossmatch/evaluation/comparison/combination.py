"""Sums of vectors trained apart, scored on each one's domain: beside the single vectors, and a jointly trained one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from crossmatch.evaluation.comparison.paired import best_of, difference, figure, primary, value_of
from crossmatch.evaluation.metrics.metrics import Measured
from crossmatch.evaluation.variants.variants import Variant, merge_name
from crossmatch.results.summary import (
    AgainstJson,
    CombinationJson,
    CombinedMeanJson,
    CombinedSuiteJson,
    GapJson,
    MeanAgainstJson,
)
from crossmatch.statistics.estimates import Array, Difference
from crossmatch.statistics.multiple_tests import holm
from crossmatch.statistics.resampling import interval_of, resampled, widening

NORMALISATION = (
    "mean over domains of (score - base) / (the domain's own vector - base) on the domain's first suite: 0 is the "
    "base, 1 what the own vector alone reaches; the divisor is the measured gain, taken as known"
)


@dataclass(frozen=True)
class Combination:
    """What is combined.

    domains: vector -> suites of its domain, of which the first stands for the domain; strengths: of every vector, each
    with each; joint: the vector that was trained on all domains together, or None.
    """

    domains: Mapping[str, tuple[str, ...]]
    strengths: tuple[float, ...]
    joint: str | None = None

    @property
    def points(self) -> list[dict[str, float]]:
        """Weights of the grid's points."""
        return [
            dict(zip(self.domains, point, strict=True)) for point in product(self.strengths, repeat=len(self.domains))
        ]

    def variants(self) -> list[Variant]:
        """The sums, as merges."""
        return [Variant(merge_name(weights), "merge", weights) for weights in self.points]


def combination_section(
    wanted: Combination, variants: Sequence[Variant], measured: Mapping[str, Mapping[str, Measured]]
) -> CombinationJson | None:
    """The scores of every point on every domain, their differences, and whether combining helps.

    measured: suite -> variant -> metrics, of suites that all variants have answered; None if a domain has none with a
    metric of which more is better. On a suite, and on the mean, a point is compared with the single vector that scores
    highest there by the same items (which favours the single one) and with the joint one. The mean is over domains,
    normalised as NORMALISATION says. Verdicts are on the best point of the grid, by intervals that hold for all points
    at once.
    """
    names = {v.name for v in variants}
    base = next(v.name for v in variants if v.kind == "base")
    points = [name for name in map(merge_name, wanted.points) if name in names]
    usable = {suite for suite, of in measured.items() if primary(list(of[base])) is not None}
    asked = {domain: [s for s in suites if s in usable] for domain, suites in wanted.domains.items()}
    if not all(asked.values()):
        return None
    tables = [
        _Domain(domain, suite, measured[suite], base, seed)
        for seed, (domain, suites) in enumerate(asked.items())
        for suite in suites
    ]
    singles = list(wanted.domains)
    first = [next(t for t in tables if t.domain == domain) for domain in asked]
    return {
        "singles": singles,
        "joint": wanted.joint,
        "normalisation": NORMALISATION,
        "points": [{"variant": p, "weights": w} for p, w in zip(points, wanted.points, strict=True)],
        "suites": [table.section(points, singles, wanted.joint) for table in tables],
        "mean": _mean(first, points, singles, wanted.joint),
    }


class _Domain:
    """One suite of one domain: scores of variants, and their values over the same draws of items."""

    def __init__(self, domain: str, suite: str, of: Mapping[str, Measured], base: str, seed: int) -> None:
        self.domain, self.suite, self.of, self.base, self.seed = domain, suite, of, base, seed
        metric = primary(list(of[base]))
        assert metric is not None, f"suite {suite} has no metric of which more is better"
        self.metric = metric

    def value(self, variant: str) -> float:
        """The score of a variant."""
        return value_of(*self.of[variant][self.metric])

    @property
    def n(self) -> int:
        """Its items."""
        return len(self.of[self.base][self.metric][0])

    def best(self, names: Sequence[str]) -> str:
        """The one that scores highest; the first of equals."""
        return max(names, key=self.value)

    def draws(self, names: Sequence[str]) -> Array:
        """(draws, names) scores over the same draws of items."""
        statistic = self.of[names[0]][self.metric][1]
        return resampled([self.of[name][self.metric][0] for name in names], statistic, self.seed)

    def section(self, points: Sequence[str], singles: Sequence[str], joint: str | None) -> CombinedSuiteJson:
        """Figures of all points and controls, differences of the points, verdicts on the best of them."""
        figures = {name: figure(self.metric, self.of[name]).to_dict() for name in [self.base, *points, *singles]}
        if joint is not None:
            figures[joint] = figure(self.metric, self.of[joint]).to_dict()
        result: CombinedSuiteJson = {
            "domain": self.domain,
            "suite": self.suite,
            "metric": self.metric,
            "figures": figures,
            "against_single": self._against(self.best(singles), points),
        }
        if joint is not None:
            result["against_joint"] = self._against(joint, points)
        return result

    def _against(self, other: str, points: Sequence[str]) -> AgainstJson:
        """Every point less another vector, and whether the best of them is above it."""
        tests = [difference(self.metric, self.of[p], self.of[other]) for p in points]
        draws = self.draws([*points, other])
        values = np.array([self.value(p) - self.value(other) for p in points])
        best = best_of(values, draws[:, :-1] - draws[:, -1:], widening(self.n))
        rows = {p: test.to_dict() if test else None for p, test in zip(points, tests, strict=True)}
        known = [row for row in rows.values() if row]
        for row, adjusted in zip(known, holm([row["p"] for row in known]), strict=True):
            row["p_holm"] = adjusted
        return {"other": other, "differences": rows, "best": best.to_dict(points)}

    def gain(self) -> Difference | None:
        """What the domain's own vector adds to the base."""
        return difference(self.metric, self.of[self.domain], self.of[self.base])


def _mean(
    domains: Sequence[_Domain], points: Sequence[str], singles: Sequence[str], joint: str | None
) -> CombinedMeanJson:
    """The normalised mean over domains; without values where a domain's own vector has no certain gain."""
    gains = {d.domain: d.gain() for d in domains}
    told = {name: gain.to_dict() if gain else None for name, gain in gains.items()}
    scale = {name: gain.value if gain and gain.low > 0 else None for name, gain in gains.items()}
    missing = [name for name, value in scale.items() if value is None]
    if missing:
        why = f"the vector of {', '.join(missing)} alone is not certainly better than the base on its own suite"
        return {"gains": told, "figures": None, "why": why}
    names = [*points, *singles, *([joint] if joint else [])]
    value, draws = np.zeros(len(names)), np.zeros((1, len(names)))
    for domain in domains:
        share = (scale[domain.domain] or 1.0) * len(domains)
        base = domain.value(domain.base)
        value = value + (np.array([domain.value(n) for n in names]) - base) / share
        drawn = domain.draws([domain.base, *names])
        draws = draws + (drawn[:, 1:] - drawn[:, :1]) / share
    place = {name: number for number, name in enumerate(names)}
    few = min(domain.n for domain in domains)
    bounds = [interval_of(draws[:, number], float(value[number]), few) for number in range(len(names))]
    k = len(points)

    def against(other: str) -> MeanAgainstJson:
        gaps, drawn = value[:k] - value[place[other]], draws[:, :k] - draws[:, [place[other]]]
        rows = {p: _gap(float(gaps[i]), drawn[:, i], few) for i, p in enumerate(points)}
        return {"other": other, "differences": rows, "best": best_of(gaps, drawn, widening(few)).to_dict(points)}

    result: CombinedMeanJson = {
        "gains": told,
        "figures": {n: {"value": float(value[i]), "low": bounds[i][0], "high": bounds[i][1]} for n, i in place.items()},
        "against_single": against(max(singles, key=lambda n: value[place[n]])),
    }
    if joint:
        result["against_joint"] = against(joint)
    return result


def _gap(value: float, draws: Array, n: int) -> GapJson:
    low, high = interval_of(draws, value, n)
    return {"value": value, "low": low, "high": high}
