"""The figures of an evaluation as text, at 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.cli.console import fitted
from crossmatch.cli.sections import print_sections

# What is read first; --json and summary.json have all.
_SHOWN = (
    *("exact", "exact_raw", "number", "number_raw"),
    *("bleu", "bleu_raw", "chrf", "rougeL", "length_ratio", "truncated"),
    *("trace_structural", "trace_lexical", "think_probability"),
    *("acc", "acc_norm", "acc_generated", "invalid", "followed_strict", "followed_loose", "sustained"),
    *("kl_first", "kl_answer", "kl_first_base", "kl_answer_base", "perplexity", "bits_per_byte"),
)
# Of several seeds the first alone is probed; all others are means over seeds.
_FIRST_SEED = "sustained"
# Kinds of variants that have tables of their own.
_APART = ("strength", "removal")


def print_summary(summary: Mapping[str, Any]) -> None:
    """One table a suite and condition: value, interval, paired difference against the reference, adjusted p."""
    reference = summary["reference"]
    for name, condition in summary["conditions"].items():
        print(f"\nunder {name}: differences against {reference}; p adjusted (Holm)")
        trained = summary.get("trained_with", {}).get(name, {})
        untrained = [adapter for adapter, alike in trained.items() if alike is False]
        unknown = [adapter for adapter, alike in trained.items() if alike is None]
        if untrained:
            print(f"  WARNING: {', '.join(untrained)} was trained with another template than this")
        if unknown:
            print(f"  unknown: with which template {', '.join(unknown)} was trained (no record beside it)")
        kept = [name for name, facts in summary["variants"].items() if facts["kind"] not in _APART]
        for suite, facts in condition["suites"].items():
            _suite(suite, facts, kept, condition["seeds"])
            if facts.get("clean"):
                _suite(f"{suite}, what no training data touch", facts["clean"], kept, condition["seeds"])
        for d in condition["divergence"]:
            if d["value"] is not None:
                line = f"{d['value']:+.1f} ({d['low']:+.1f} to {d['high']:+.1f})"
                print(f"  {d['variant']}: {d['surface']} against {d['choices']} diverge by {line}")
        print_sections(condition)


def _suite(name: str, facts: Mapping[str, Any], kept: Sequence[str], seeds: int) -> None:
    left = f", {facts['left_out']} rows left out" if facts["left_out"] else ""
    print(f"\n  {name}, n = {facts['n']}{left}")
    for variant, fault in (facts["incomplete"] or {}).items():
        print(f"    INCOMPLETE: {variant} has no answer to {fault['failed']} items ({fault['reason'][:60]})")
    for metric in [m for m in _SHOWN if m in facts["metrics"]]:
        whole = facts["metrics"][metric]
        if metric.endswith("_raw") and whole == facts["metrics"].get(metric.removesuffix("_raw")):
            continue
        entries = {variant: whole[variant] for variant in kept}
        of = f", first of {seeds} seeds" if metric == _FIRST_SEED and seeds > 1 else ""
        if all(e["value"] == 0 for e in entries.values()):
            bounds = [e["high"] for e in entries.values() if e["high"] is not None]
            print(f"  {metric}{of}: 0 for all" + (f" (up to {max(bounds):.3g})" if bounds else ""))
            continue
        counts = {e["n"] for e in entries.values() if e["n"]}
        print(f"  {metric}{of}" + (f" (n = {max(counts)})" if counts - {facts["n"]} else ""))
        for variant, e in entries.items():
            print(_row(variant, e))


def _row(variant: str, e: Mapping[str, Any]) -> str:
    if e["value"] is None:
        return f"    {variant:13} (none)"
    bounds = f"({e['low']:.3g} to {e['high']:.3g})" if e["low"] is not None else "(no interval)"
    d, tail = e["difference"], ""
    if d:
        tail = f"{d['value']:+.2g} ({d['low']:+.2g} to {d['high']:+.2g}) p={d['p_holm']:.2g}"
    return fitted(f"    {variant:13} {e['value']:.3g} {bounds:22}", tail, 18)
