"""The figures of an evaluation as text, at 80 columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.cli.console import plain
from crossmatch.cli.sections import print_sections
from crossmatch.report.metrics import distinct, is_clear, mde_of, names_against, p_text, seeds_note, telling, test_name

# Kinds of variants that have tables of their own.
_APART = ("strength", "removal")
# What a line says a difference is from; the other two are names.
_SHORT = {"difference_control": "control", "difference_null": "nulls"}
_WIDTH, _NAME, _CHANGE = 80, 18, 28
# Clean items of a suite with fewer are not shown.
_ENOUGH = 20


def print_summary(summary: Mapping[str, Any]) -> None:
    """One table a suite and condition, of the metrics that are read first: every value with its interval, every
    difference with interval, adjusted p and what the test would find."""
    names = names_against(summary)
    for name, condition in summary["conditions"].items():
        print(f"\nunder {name}")
        if names:
            print("  p: adjusted (Holm), * below 0.05; mde: what 4 such tests of 5 would find")
        trained = summary.get("trained_with", {}).get(name, {})
        untrained = [adapter for adapter, alike in trained.items() if alike is False]
        unknown = [adapter for adapter, alike in trained.items() if alike is None]
        if untrained:
            print(f"  WARNING: {', '.join(untrained)} was trained with another template than this")
        if unknown:
            print(f"  unknown: with which template {', '.join(unknown)} was trained (no record beside it)")
        kept = [name for name, facts in summary["variants"].items() if facts["kind"] not in _APART]
        for suite, facts in condition["suites"].items():
            _suite(suite, facts, (kept, names, condition["seeds"]))
            clean = facts.get("clean")
            if clean and clean["n"] >= _ENOUGH:
                _suite(f"{suite}, what no training data touch", clean, (kept, names, condition["seeds"]))
            elif clean:
                print(f"  no training data touch {clean['n']} of these: too few to tell anything; figures: --json")
        for row in distinct(condition["divergence"]):
            print("\n".join(_wrapped(_diverged(row))))
        print_sections(condition)


def _suite(name: str, facts: Mapping[str, Any], shared: tuple[Sequence[str], Mapping[str, str], int]) -> None:
    kept, names, seeds = shared
    left = f", {facts['left_out']} rows left out" if facts["left_out"] else ""
    print(f"\n  {name}, n = {facts['n']}{left}")
    for variant, fault in (facts["incomplete"] or {}).items():
        print(f"    INCOMPLETE: {variant} has no answer to {fault['failed']} items ({plain(fault['reason'][:60])})")
    shown, lines = telling(facts["metrics"], kept)
    for metric in shown:
        entries = {variant: facts["metrics"][metric][variant] for variant in kept}
        about = [f"n = {max(e['n'] for e in entries.values())}", test_name(entries), seeds_note(metric, seeds)]
        print(f"  {metric} ({', '.join(filter(None, about))})")
        for variant, entry in entries.items():
            for line in _rows(variant, entry, names):
                print(f"    {line}".rstrip())
    for line in lines:
        print("\n".join(_wrapped(line)))
    if further := len(facts["metrics"]) - len(shown) - len(lines):
        print(f"  {further} more: --json, summary.json")


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
            label = f"  less {_SHORT.get(key, name)}"
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
