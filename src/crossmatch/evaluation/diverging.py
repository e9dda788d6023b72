"""Whether the surface of answers fell further than the choices: the difference of one metric less that of another, each
in its own standard errors."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.evaluation.metrics import CHOICES, SURFACES, Measured
from crossmatch.evaluation.statistics import Standard, divergence, standardised

Suites = Mapping[str, Mapping[str, Measured]]
"""suite -> variant -> metrics, of suites that all variants have answered."""
Pairs = Sequence[tuple[str, str, str]]
"""(`reference` or `control`, variant, the variant that it is compared with)."""


def divergence_rows(own: Suites, scored: Suites, pairs: Pairs) -> list[dict[str, Any]]:
    """Every surface metric of every generation suite from every choice metric of every choice suite, for every pair.

    own: as answered under one condition; scored: under the decoding of its template under which options were scored,
    which does not act on them.
    """
    found = []
    for against, variant, other in pairs:
        surfaces = _differences((own,), SURFACES, variant, other, seed=0)
        choices = _differences((own, scored), CHOICES, variant, other, seed=1)
        for (first, surface), one in surfaces.items():
            for (second, choice), two in choices.items():
                row = {"surface": first, "choices": second, "variant": variant, "against": against, "other": other}
                metrics = {"surface_metric": surface, "choices_metric": choice}
                found.append({**row, **metrics, **divergence(one, two).to_dict()})
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
