"""The measurement on the page: one tab a condition, with tables, flips and the divergence picture."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.report.metric_text import (
    against_of,
    is_clear,
    mde_of,
    names_against,
    order,
    p_text,
    seeds_note,
    telling,
    test_name,
)
from crossmatch.report.page.divergence import divergence_view
from crossmatch.report.page.strengths import strengths_view
from crossmatch.results.metrics import CATALOGUE, metric_of

Json = Mapping[str, Any]

_KINDS = {
    "base": "base",
    "adapter": "adapter alone",
    "merge": "merge",
    "control": "control: same weight, no partner",
    "null": "random deltas of the same spectrum",
    "served": "on a server",
    "strength": "the adapter at another strength",
    "removal": "the adapter less a null",
    "checkpoint": "written checkpoint",
}
# Table of flips -> what flipped, and the accuracy that it changes.
_FLIPS = {"flips": ("answers", "acc"), "flips_generated": ("generated answers", "acc_generated")}
LEVELS = ("exact", "normalised", "ngram", "near")
_PARTS = {
    "total": "BLEU of the whole output",
    "dilution": "dilution by the trace",
    "content": "content of the answer",
    "length": "what the length alone explains",
}


def measured_view(number: int, name: str, summary: Json) -> tuple[dict[str, Any], dict[str, Any]]:
    """One condition's tab, and its charts by name."""
    condition = summary["conditions"][name]
    trained = summary.get("trained_with", {}).get(name, {})
    divergence, charts = divergence_view(number, name, summary)
    suites, names = condition["suites"].items(), names_against(summary)
    # Scores stand there as they are, not in percent.
    titles = {name: metric.title.removesuffix(" %") for name, metric in CATALOGUE.items()}
    further, curves = strengths_view(number, condition, titles)
    charts |= curves
    view = {
        "name": name,
        "template": condition["template"],
        "decoding": condition["decoding"],
        "seeds": condition["seeds"],
        "ends": _ends(summary.get("turn_ends", {}).get(name)),
        "untrained": [adapter for adapter, alike in trained.items() if alike is False],
        "unknown": [adapter for adapter, alike in trained.items() if alike is None],
        "tables": [_table(suite, facts, summary, names, condition["seeds"]) for suite, facts in suites],
        "elsewhere": _elsewhere(name, summary),
        "flips": [_flips(s, f, key, summary) for s, f in suites for key in _FLIPS if f.get(key)],
        "falls": [_falls(s, f, summary) for s, f in suites if f.get("fall")],
        "divergence": divergence,
        "further": further,
    }
    return view, charts


def _ends(found: Json | None) -> str | None:
    """The places at which answers end, in words; None of an evaluation that did not record them."""
    if not found:
        return None
    return ", ".join([*(token["text"] for token in found["tokens"]), *found["texts"]]) or "nothing but the limit"


def _elsewhere(name: str, summary: Json) -> list[str]:
    """Suites that other conditions have and this one has not: why, and where they are."""
    here, lines = summary["conditions"][name]["suites"], []
    for suite in dict.fromkeys(s for c in summary["conditions"].values() for s in c["suites"] if s not in here):
        homes = [other for other, c in summary["conditions"].items() if suite in c["suites"]]
        kind = summary["conditions"][homes[0]]["suites"][suite]["kind"]
        why = "no template and no decoding acts on a text" if kind == "text" else "no decoding acts on what is scored"
        lines.append(f"{suite} is not asked again here, since {why}: see {', '.join(homes)}.")
    return lines


def _table(name: str, suite: Json, summary: Json, names: Mapping[str, str], seeds: int) -> dict[str, Any]:
    """What is read first, a row a variant; `all`: every figure, a row a metric; `clean`: the same of clean items."""
    shown, lines = telling(suite["metrics"], list(summary["variants"]))
    rows = []
    for variant, facts in summary["variants"].items():
        reference = variant == summary["reference"]
        kind = _KINDS[facts["kind"]] + (f"; {facts['note']}" if facts.get("note") else "")
        cells = [_cell(suite, metric, variant, names) for metric in shown]
        rows.append({"variant": variant, "kind": kind, "reference": reference, "cells": cells})
    faults = [f"{v}: no answer to {f['failed']} items ({f['reason']})" for v, f in (suite["incomplete"] or {}).items()]
    clean = suite.get("clean")
    return {
        "name": name,
        "n": suite["n"],
        "left_out": suite["left_out"],
        "incomplete": faults,
        "signatures": suite["signatures"],
        "heads": [_head(metric, suite, seeds) for metric in shown],
        "rows": rows,
        "lines": lines,
        "all": _whole(suite, list(summary["variants"]), names, seeds),
        "clean": {"n": clean["n"], **_whole(clean, list(summary["variants"]), names, seeds)} if clean else None,
    }


def _whole(suite: Json, variants: Sequence[str], names: Mapping[str, str], seeds: int) -> dict[str, Any]:
    rows = [
        {**_head(metric, suite, seeds), "metric": metric, "cells": [_cell(suite, metric, v, names) for v in variants]}
        for metric in order(list(suite["metrics"]))
    ]
    return {"variants": variants, "rows": rows}


def _head(metric: str, suite: Json, seeds: int) -> dict[str, Any]:
    title, meaning = metric_of(metric).title, metric_of(metric).says
    entries = suite["metrics"][metric]
    n = max((entry["n"] for entry in entries.values()), default=0)
    note = seeds_note(metric, seeds)
    return {"title": title, "help": meaning, "n": n, "test": test_name(entries), "note": note}


def _cell(suite: Json, metric: str, variant: str, names: Mapping[str, str]) -> dict[str, Any]:
    """A value, its interval, and what it differs from each of `names` by."""
    form, scale = metric_of(metric).form, metric_of(metric).unit.scale
    entries = suite["metrics"][metric]
    entry = entries[variant]
    known = entry["value"] is not None and entry["low"] is not None
    bounds = f"{_number(entry['low'], form, scale)} to {_number(entry['high'], form, scale)}" if known else ""
    count = max(other["n"] for other in entries.values())
    diffs = [
        {"key": key, "other": other, **_difference(entry[key], form, scale, count)}
        for key, other in names.items()
        if entry.get(key)
    ]
    return {"value": _number(entry["value"], form, scale), "interval": bounds, "diffs": diffs}


def _difference(found: Json, form: str, scale: float, count: int) -> dict[str, Any]:
    """One difference as text; its n where it is not the column's (`count`)."""
    flips = f"; {found['gained']} gained, {found['lost']} lost" if found.get("gained") is not None else ""
    mde = mde_of(found)
    return {
        "text": _bounded(found, form, scale),
        "p": p_text(found),
        "mde": f"mde {_number(mde, form, scale)}" if mde is not None else "",
        "n": "" if found["n"] == count else f"n = {found['n']}",
        "test": f"{found['test']}{flips}",
        "stands_out": is_clear(found),
    }


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "–" if value is None else format(value * scale, form)


def _bounded(found: Json, form: str, scale: float = 1.0) -> str:
    value, low, high = (_number(found[key], f"+{form}", scale) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _flips(name: str, suite: Json, flips: str, summary: Json) -> dict[str, Any]:
    """Answers that flipped; what becomes of the accuracy by it, tested, stands beside."""
    what, metric = _FLIPS[flips]
    rows = []
    for variant, against, found in against_of(suite[flips]):
        key = "difference_control" if against == "control" else "difference"
        difference = suite["metrics"].get(metric, {}).get(variant, {}).get(key)
        change = f"{_bounded(difference, '.1f', 100.0)}, {p_text(difference)}" if difference else "–"
        counts = {k: found[k] for k in ("kept", "gained", "lost", "wrong_alike", "wrong_otherwise")}
        n = sum(counts.values())
        ids = [*found["lost_ids"], *found["gained_ids"]]
        other = "its own control" if against == "control" else summary["reference"]
        rows.append({"variant": variant, "other": other, **counts, "n": n, "change": change, "ids": ids})
    return {"suite": name, "what": what, "rows": rows}


def _falls(name: str, suite: Json, summary: Json) -> dict[str, Any]:
    """The difference in BLEU taken apart, each part with its interval, its n, and its p where it is tested."""
    rows = []
    for variant, against, parts in against_of(suite["fall"]):
        cells = []
        for part, title in _PARTS.items():
            found = parts.get(part)
            if not found or found["value"] is None:
                cells.append({"title": title, "text": "–", "p": ""})
                continue
            counted = [f"n = {found['n']}"] if found.get("n") else []
            said = ", ".join([p_text(found), *counted] if p_text(found) else counted)
            cells.append({"title": title, "text": _bounded(found, ".1f"), "p": said})
        other = "its own control" if against == "control" else summary["reference"]
        rows.append({"variant": variant, "other": other, "cells": cells})
    return {"suite": name, "rows": rows}


def audit_view(found: Json | None) -> list[dict[str, Any]]:
    """What training sets share with held-out sets and with each other: one row a pair."""
    rows = []
    for pair in (found or {}).get("pairs", ()):
        whole = {o["level"]: o for o in pair["overlaps"] if o["scope"] == "whole"}
        cells = [f"{whole[level]['found']} of {whole[level]['n']}" if level in whole else "–" for level in LEVELS]
        rows.append(
            {
                "train": pair["train"],
                "against": pair["against"],
                "cells": cells,
                "found": f"{pair['found']} of {pair['documents']}",
            }
        )
    return rows
