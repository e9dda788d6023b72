"""Whether the surface of answers fell further than the choices: the difference of one metric less that of another, each
in its own standard errors."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from crossmatch.evaluation.metrics.metrics import CHOICES, SURFACES, Measured
from crossmatch.results.summary import DivergenceRowJson
from crossmatch.statistics.estimates import Array, Figure, Statistic
from crossmatch.statistics.resampling import NOTHING, bootstrap_counts, interval_of

Standard = tuple[float, Array, int]


def standardised(mine: Array, other: Array, statistic: Statistic, seed: int = 0) -> Standard | None:
    """A paired difference over its own standard error. 0 where all draws are 0: equal answers differ by nothing.

    None for fewer than 2 items, and where a difference that is not zero does not vary.
    """
    n = len(mine)
    if n < 2:
        return None
    value = float(statistic(mine.mean(0, keepdims=True))[0] - statistic(other.mean(0, keepdims=True))[0])
    draws = np.concatenate([statistic(c @ mine) - statistic(c @ other) for c in bootstrap_counts(n, seed)])
    spread = float(np.std(draws)) * math.sqrt(n / (n - 1))
    if spread > NOTHING * float(np.abs(draws).max()):
        return value / spread, draws / spread, n
    return None if draws.any() else (0.0, draws, n)


def divergence(surface: Standard | None, choices: Standard | None) -> Figure:
    """z(difference of a surface metric) - z(difference of choices), with its interval by the bootstrap.

    Both in their own standard errors: below zero, the surface fell further than the choices. The two metrics have items
    of their own, which must have been drawn apart (seeds). Without a value where one of the two has none; without an
    interval where neither varies.
    """
    if surface is None or choices is None:
        return Figure(None, None, None, min(found[2] if found else 0 for found in (surface, choices)))
    (first, one, n), (second, two, m) = surface, choices
    draws, few = one - two, min(n, m)
    if not draws.any():
        return Figure(None, None, None, few)
    return Figure(first - second, *interval_of(draws, first - second, few), few)


Suites = Mapping[str, Mapping[str, Measured]]
"""suite -> variant -> metrics, of suites that all variants have answered."""
Pairs = Sequence[tuple[str, str, str]]
"""(`reference` or `control`, variant, the variant that it is compared with)."""


def divergence_rows(own: Suites, scored: Suites, pairs: Pairs) -> list[DivergenceRowJson]:
    """Every surface metric of every generation suite from every choice metric of every choice suite, for every pair.

    own: as answered under one condition; scored: under the decoding of its template under which options were scored,
    which does not act on them.
    """
    found: list[DivergenceRowJson] = []
    for against, variant, other in pairs:
        surfaces = _differences((own,), SURFACES, variant, other, seed=0)
        choices = _differences((own, scored), CHOICES, variant, other, seed=1)
        for (first, surface), one in surfaces.items():
            for (second, choice), two in choices.items():
                found.append(
                    {
                        "surface": first,
                        "choices": second,
                        "variant": variant,
                        "against": against,
                        "other": other,
                        "surface_metric": surface,
                        "choices_metric": choice,
                        **divergence(one, two).to_dict(),
                    }
                )
    return found


def _differences(
    places: Sequence[Suites], metrics: Sequence[str], variant: str, other: str, *, seed: int
) -> dict[tuple[str, str], Standard | None]:
    """(suite, metric) -> the difference of two variants, from the first place that has it."""
    found: dict[tuple[str, str], Standard | None] = {}
    for metric in metrics:
        for suite, of in (entry for place in places for entry in place.items()):
            if metric in of[variant] and metric in of[other] and (suite, metric) not in found:
                table, statistic = of[variant][metric]
                found[suite, metric] = standardised(table, of[other][metric][0], statistic, seed)
    return found
