"""Whether a vector is critical, and how a metric runs with its strength.

A vector is critical if removing it hurts more than removing a random vector of its norm, and more than removing its own
deltas from other layers: the two show what taking anything of that size, or of that spectrum, away does.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from crossmatch.evaluation.comparison.paired import difference, pooled
from crossmatch.evaluation.metrics.metrics import Measured
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.results.figures import DifferenceJson
from crossmatch.results.metrics import STANDING
from crossmatch.results.summary import CriticalityJson, EntryJson, RemovedNullJson, StrengthPointJson, SuiteResultJson
from crossmatch.statistics.estimates import Difference
from crossmatch.statistics.multiple_tests import holm

Curves = dict[str, dict[str, dict[str, list[StrengthPointJson]]]]
Costs = dict[str, dict[str, CriticalityJson]]
Criticality = Literal["critical", "not critical", "undecided"]
LEVEL = 0.05


def strength_curves(variants: Sequence[Variant], suites: Mapping[str, SuiteResultJson]) -> Curves:
    """vector -> suite -> metric -> the figures by ascending strength, of the vectors of which strengths were asked for.

    base at 0, the adapter at 1; a control at a merge's weight is a point too. suites: the summary's own, whose figures
    these are.
    """
    found: Curves = {}
    for name in dict.fromkeys(n for v in variants if v.kind == "strength" for n in v.weights):
        points: dict[float, str] = {}
        for variant in variants:
            if variant.kind == "base":
                points[0.0] = variant.name
            weight = variant.weights.get(name)
            if len(variant.weights) == 1 and not variant.nulls and isinstance(weight, int | float):
                points.setdefault(float(weight), variant.name)
        found[name] = {
            suite: {
                metric: [_point(strength, points[strength], entries) for strength in sorted(points)]
                for metric, entries in facts["metrics"].items()
            }
            for suite, facts in suites.items()
        }
    return found


def criticality(variants: Sequence[Variant], measured: Mapping[str, Mapping[str, Measured]]) -> dict[str, Costs]:
    """vector -> suite -> metric -> what removing it, and what removing each null, costs, with the verdict.

    measured: suite -> variant -> metrics, of suites that all variants have answered. Only metrics of which more is
    better are judged. removed: score(tuned) - score(base); nulls: kind -> `drop`, the same of the nulls, all seeds
    pooled with the item as the unit, and `beyond`: how much more removing the vector costs, score(tuned - null) -
    score(base), paired, p adjusted (Holm) over suites and nulls of a metric.
    """
    base = next((v.name for v in variants if v.kind == "base"), None)
    found: dict[str, Costs] = {}
    for name in dict.fromkeys(n for v in variants if v.kind == "removal" for n in v.weights):
        tuned = next((v.name for v in variants if v.kind == "adapter" and name in v.weights), None)
        nulls: dict[str, list[str]] = {}
        for variant in (v for v in variants if v.kind == "removal" and name in v.weights):
            nulls.setdefault(variant.nulls[0].kind, []).append(variant.name)
        if base is None or tuned is None:
            continue
        table = {s: _suite(of, base, tuned, nulls) for s, of in measured.items() if tuned in of}
        _judge(table)
        found[name] = table
    return found


def _suite(
    of: Mapping[str, Measured], base: str, tuned: str, nulls: Mapping[str, Sequence[str]]
) -> dict[str, CriticalityJson]:
    result: dict[str, CriticalityJson] = {}
    for metric in (m for m in STANDING if m in of[tuned]):
        removed = difference(metric, of[tuned], of[base])
        facts: dict[str, RemovedNullJson] = {}
        for kind, names in nulls.items():
            both = pooled(metric, [of[n] for n in names])
            single = [difference(metric, of[tuned], of[n]) for n in names]
            facts[kind] = {
                "seeds": len(names),
                "drop": _json(difference(metric, of[tuned], both)),
                "by_seed": [d.value if d else None for d in single],
                "beyond": _json(difference(metric, both, of[base])),
            }
        result[metric] = {"n": len(of[tuned][metric][0]), "removed": _json(removed), "nulls": facts, "verdict": None}
    return result


def _judge(table: Costs) -> None:
    """Adjust over suites and nulls of one metric, then judge each suite by both nulls."""
    for metric in dict.fromkeys(m for suite in table.values() for m in suite):
        entries = [suite[metric] for suite in table.values() if metric in suite]
        family = [null["beyond"] for entry in entries for null in entry["nulls"].values() if null["beyond"]]
        for test, adjusted in zip(family, holm([test["p"] for test in family]), strict=True):
            test["p_holm"] = adjusted
        for entry in entries:
            entry["verdict"] = _verdict(entry["removed"], [null["beyond"] for null in entry["nulls"].values()])


def _verdict(removed: DifferenceJson | None, beyond: Sequence[DifferenceJson | None]) -> Criticality:
    """critical: removing it costs, and more than either null (p adjusted); not critical: the interval of the cost, or
    of its excess over a null, lies at or below zero."""
    tests = [test for test in beyond if test]
    if removed is None or len(tests) < len(beyond):
        return "undecided"
    if removed["high"] <= 0 or any(test["high"] <= 0 for test in tests):
        return "not critical"
    if removed["low"] > 0 and all(test["low"] > 0 and (test["p_holm"] or 0.0) < LEVEL for test in tests):
        return "critical"
    return "undecided"


def _point(strength: float, variant: str, entries: Mapping[str, EntryJson]) -> StrengthPointJson:
    entry = entries[variant]
    return {
        "strength": strength,
        "variant": variant,
        "value": entry["value"],
        "low": entry["low"],
        "high": entry["high"],
        "n": entry["n"],
    }


def _json(found: Difference | None) -> DifferenceJson | None:
    return found.to_dict() if found else None
