"""The figures of an evaluation as text, at 80 columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.report.metric_text import (
    distinct,
    is_clear,
    mde_of,
    names_against,
    order,
    p_text,
    seeds_note,
    telling,
    test_name,
)
from crossmatch.report.text import fitted, printable
from crossmatch.results.metrics import STANDING

# Kinds of variants that have tables of their own.
_APART = ("strength", "removal")
# What a line says a difference is from; the other two are names.
_SHORT = {"difference_control": "control", "difference_null": "nulls"}
_WIDTH, _NAME, _CHANGE = 80, 18, 28
# Clean items of a suite with fewer are not shown.
_ENOUGH = 20


def print_summary(summary: Mapping[str, Any]) -> None:
    """One table a suite and condition, of every metric: every value with its interval, every
    difference with interval, adjusted p and what the test would find."""
    names = names_against(summary)
    for name, condition in summary["conditions"].items():
        print(f"\nunder {name}")
        if names:
            print("  p: adjusted (Holm), * below 0.05")
            print("  mde: smallest difference detectable with 80% power")
        ends = summary.get("turn_ends", {}).get(name)
        if ends:
            places = [*(token["text"] for token in ends["tokens"]), *ends["texts"]]
            print(fitted("  answers end at", printable(", ".join(places)) or "nothing but the limit", 4))
        trained = summary.get("trained_with", {}).get(name, {})
        untrained = [adapter for adapter, alike in trained.items() if alike is False]
        unknown = [adapter for adapter, alike in trained.items() if alike is None]
        if untrained:
            print(fitted("  WARNING:", f"{', '.join(untrained)} was trained with a different template or prompt", 4))
        if unknown:
            print(f"  unknown: the template that {', '.join(unknown)} was trained with (no record next to it)")
        kept = [name for name, facts in summary["variants"].items() if facts["kind"] not in _APART]
        for suite, facts in condition["suites"].items():
            _suite(suite, facts, (kept, names, condition["seeds"]))
            clean = facts.get("clean")
            if clean and clean["n"] >= _ENOUGH:
                _suite(f"{suite}, clean items", clean, (kept, names, condition["seeds"]))
            elif clean:
                print(
                    f"  {clean['n']} of these are clean (no training data): too few items to compare; figures: --json"
                )
        for row in distinct(condition["divergence"]):
            print("\n".join(_wrapped(_diverged(row))))
        print_sections(condition)


def _suite(name: str, facts: Mapping[str, Any], shared: tuple[Sequence[str], Mapping[str, str], int]) -> None:
    kept, names, seeds = shared
    left = f", {facts['left_out']} rows left out" if facts["left_out"] else ""
    print(f"\n  {name}, n = {facts['n']}{left}")
    for variant, fault in (facts["incomplete"] or {}).items():
        print(f"    INCOMPLETE: {variant} has no answer to {fault['failed']} items ({printable(fault['reason'][:60])})")
    shown, lines = telling(facts["metrics"], kept, every=True)
    for metric in shown:
        entries = {
            variant: facts["metrics"][metric][variant] for variant in kept if variant in facts["metrics"][metric]
        }
        about = [f"n = {max(e['n'] for e in entries.values())}", test_name(entries), seeds_note(metric, seeds)]
        print(f"  {metric} ({', '.join(filter(None, about))})")
        for variant, entry in entries.items():
            for line in _rows(variant, entry, names):
                print(f"    {line}".rstrip())
    for line in lines:
        print("\n".join(_wrapped(line)))


def _rows(variant: str, entry: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    """The value, then a line for each of the others that it is compared with."""
    if entry["value"] is None:
        yield f"{variant:{_NAME}} (none)"
        return
    bounds = f"({entry['low']:.3g} to {entry['high']:.3g})" if entry["low"] is not None else "(no interval)"
    yield f"{variant:{_NAME}} {entry['value']:.3g} {bounds}"
    for key, name in names.items():
        found = entry.get(key)
        if found:
            label = f"  vs {_SHORT.get(key, name)}"
            yield f"{label:{_NAME}} {_difference(found, entry['n'])}"


def _difference(found: Mapping[str, Any], n: int) -> str:
    change = f"{found['value']:+.2g} ({found['low']:+.2g} to {found['high']:+.2g})"
    p, mde = p_text(found).replace(" = ", "=").replace(" < ", "<").replace("not adjusted", "raw"), mde_of(found)
    notes = [f"{p}{'*' if is_clear(found) else ''}"]
    notes += [f"mde {mde:.2g}"] if mde is not None else []
    notes += [f"n={found['n']}"] if found["n"] != n else []
    return f"{change:{_CHANGE}} {' '.join(f'{note:9}' for note in notes)}"


def _diverged(row: Mapping[str, Any]) -> str:
    beside = " (from its own control)" if row.get("against") == "control" else ""
    pair = f"{row['variant']}{beside}: {row['surface_metric']} of {row['surface']} "
    pair += f"against {row['choices_metric']} of {row['choices']}"
    if row["value"] is None:
        return f"{pair}: no divergence; one of the two differences has no standard error, n = {row['n']}"
    return f"{pair} diverge by {row['value']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f}) standard errors"


def _wrapped(line: str) -> list[str]:
    """A line in pieces of 80 columns at most, indented."""
    import textwrap

    return textwrap.wrap(line, _WIDTH, initial_indent="  ", subsequent_indent="      ")


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
    """All of a suite's metrics, the one that stands for it first."""
    first = next(([metric] for metric in STANDING if metric in metrics), [])
    return [*first, *(metric for metric in order(list(metrics)) if metric not in first)]


def _curve(suite: str, metrics: Mapping[str, Any]) -> None:
    for metric in _shown(metrics):
        print(f"    {suite}, {metric}")
        for point in metrics[metric]:
            print(f"      {point['strength']:>6g}  {_value(point)}")


def _critical(suite: str, metric: str, facts: Mapping[str, Any]) -> None:
    print(f"    {suite}, {metric}, n = {facts['n']}: {facts['verdict']}")
    print(f"      removed          {_signed(facts['removed'])}")
    for kind, null in facts["nulls"].items():
        seeds = f"{null['seeds']} seed{'s' if null['seeds'] > 1 else ''}"
        head = f"      beyond {kind:9} {_signed(null['beyond'])}"
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


def _signed(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "(no test)"
    p = found["p_holm"] if found["p_holm"] is not None else found["p"]
    return f"{_short(found)} p={p:.2g}"


def _short(found: Mapping[str, Any] | None) -> str:
    return f"{found['value']:+.3g} ({found['low']:+.3g} to {found['high']:+.3g})" if found else "(none)"
