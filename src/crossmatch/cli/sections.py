"""Strengths, criticality and combination as text, at 80 columns."""

from collections.abc import Mapping
from typing import Any

from crossmatch.cli.console import fitted

# Of a suite's metrics the first of these is shown; --json and summary.json have all.
_FIRST = ("number", "exact", "acc", "followed_strict", "rougeL", "bleu")


def print_sections(condition: Mapping[str, Any]) -> None:
    """The sections that a condition has, one table each."""
    for name, suites in condition.get("strengths", {}).items():
        print(f"\n  base + g {name}, by g")
        for suite, metrics in suites.items():
            _curve(suite, metrics)
    for name, suites in condition.get("critical", {}).items():
        print(f"\n  is {name} critical? the cost of removing it, and how much more than a null's")
        for suite, metrics in suites.items():
            for metric in _shown(metrics):
                _critical(suite, metric, metrics[metric])
    if condition.get("combination"):
        _combination(condition["combination"])


def _shown(metrics: Mapping[str, Any]) -> list[str]:
    return next(([metric] for metric in _FIRST if metric in metrics), [])


def _curve(suite: str, metrics: Mapping[str, Any]) -> None:
    for metric in _shown(metrics):
        print(f"    {suite}, {metric}")
        for point in metrics[metric]:
            print(f"      {point['strength']:>6g}  {_value(point)}")


def _critical(suite: str, metric: str, facts: Mapping[str, Any]) -> None:
    print(f"    {suite}, {metric}, n = {facts['n']}: {facts['verdict']}")
    print(f"      removed          {_difference(facts['removed'])}")
    for kind, null in facts["nulls"].items():
        seeds = f"{null['seeds']} seed{'s' if null['seeds'] > 1 else ''}"
        head = f"      beyond {kind:9} {_difference(null['beyond'])}"
        print(fitted(head, f" ({seeds} cost {_short(null['drop'])})", 23))


def _combination(found: Mapping[str, Any]) -> None:
    also = " and the joint one" if found["joint"] else ""
    print(f"\n  sums of vectors; differences against the best single vector{also}")
    for table in found["suites"]:
        print(f"    {table['domain']}: {table['suite']}, {table['metric']}")
        _points(table, table["figures"])
    mean = found["mean"]
    if mean["figures"] is None:
        print(f"    mean over domains: not defined; {mean['why']}")
        return
    print("    mean over domains, 0 the base, 1 what each domain's own vector reaches")
    _points(mean, mean["figures"])


def _points(table: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    compared = [key for key in ("against_single", "against_joint") if key in table]
    for name, figure in figures.items():
        gaps = [table[key]["differences"].get(name) for key in compared]
        tail = "  ".join(_short(gap) for gap in gaps if gap)
        print(fitted(f"      {name:28} {_value(figure)} ", tail, 8))
    for key in compared:
        best, other = table[key]["best"], table[key]["other"]
        bounds = f"{best['value']:+.3g} (simultaneous {best['low']:+.3g} to {best['high']:+.3g})"
        print(fitted(f"      better than {other}: {best['verdict']}; best point {best['variant']}", bounds, 8))


def _value(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "(none)"
    bounds = f"({figure['low']:.3g} to {figure['high']:.3g})" if figure["low"] is not None else "(no interval)"
    return f"{figure['value']:.3g} {bounds}"


def _difference(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "(no test)"
    p = found["p_holm"] if found["p_holm"] is not None else found["p"]
    return f"{_short(found)} p={p:.2g}"


def _short(found: Mapping[str, Any] | None) -> str:
    return f"{found['value']:+.3g} ({found['low']:+.3g} to {found['high']:+.3g})" if found else "(none)"
