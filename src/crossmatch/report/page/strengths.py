"""Strengths, criticality and sums of vectors, as the page shows them. No number is made here."""

from collections.abc import Mapping
from typing import Any

from crossmatch.report.charts import charts as pictures
from crossmatch.report.charts.charts import Spec
from crossmatch.report.text import plain

Json = Mapping[str, Any]
_NULLS = {"norm": "random, of equal norm", "shuffled": "its own, layers shuffled", "spectrum": "random, same spectrum"}
# What is drawn of a suite: the first of these that it has.
_DRAWN = ("number", "exact", "acc", "followed_strict", "bleu", "perplexity")


def strengths_view(number: int, condition: Json, titles: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Spec]]:
    """Curves over strengths, verdicts on vectors, and the sums' tables of one condition; its charts by name.

    titles: of metrics.
    """
    charts: dict[str, Spec] = {}
    curves = []
    for vector, suites in (condition.get("strengths") or {}).items():
        for suite, metrics in suites.items():
            metric = next((m for m in _DRAWN if m in metrics), None)
            rows = [{**p, "series": vector} for p in metrics.get(metric, ()) if p["low"] is not None]
            if metric is None or len(rows) < 2:
                continue
            title = titles.get(metric, metric)
            marks = _marks(condition["suites"].get(suite), metric, vector, condition)
            name = f"strength{number}.{len(charts)}"
            charts[name] = pictures.spec(
                pictures.curves(rows, "strength", x_title=f"strength of {vector}", y_title=title, marks=marks)
            )
            curves.append({"chart": name, "text": f"{suite}: {title} over the strength of {vector}."})
    view = {
        "curves": curves,
        "critical": [
            _critical(vector, suite, metric, found, titles)
            for vector, suites in (condition.get("critical") or {}).items()
            for suite, metrics in suites.items()
            for metric, found in metrics.items()
        ],
        "sums": _sums(condition.get("combination"), titles),
    }
    return view, charts


def _marks(suite: Json | None, metric: str, vector: str, condition: Json) -> list[dict[str, Any]]:
    """The tuned model less each null, where the vector's own removal is: at strength 0."""
    kinds = {}
    for metrics in (condition.get("critical") or {}).get(vector, {}).values():
        for found in metrics.values():
            kinds |= {kind: null["seeds"] for kind, null in found["nulls"].items()}
    entries = suite["metrics"].get(metric, {}) if suite else {}
    found = []
    for kind, seeds in kinds.items():
        for seed in range(seeds):
            entry = entries.get(f"{vector}-{kind}{seed}")
            if entry and entry["low"] is not None:
                bounds = {key: entry[key] for key in ("value", "low", "high")}
                found.append({**bounds, "series": vector, "strength": 0.0, "kind": f"less {_NULLS.get(kind, kind)}"})
    return found


def _critical(vector: str, suite: str, metric: str, found: Json, titles: Mapping[str, str]) -> dict[str, Any]:
    nulls = [
        {"title": _NULLS.get(kind, kind), "drop": _bounds(null["drop"]), "beyond": _bounds(null["beyond"], p=True)}
        for kind, null in found["nulls"].items()
    ]
    return {
        "vector": plain(vector),
        "suite": plain(suite),
        "metric": titles.get(metric, metric),
        "n": found["n"],
        "removed": _bounds(found["removed"]),
        "nulls": nulls,
        "verdict": found["verdict"],
    }


def _sums(found: Json | None, titles: Mapping[str, str]) -> dict[str, Any] | None:
    if not found:
        return None
    tables = [
        {**_table(table), "name": f"{table['suite']}, {titles.get(table['metric'], table['metric'])}"}
        for table in found["suites"]
    ]
    mean = found["mean"]
    if mean.get("figures"):
        tables.append({**_table(mean), "name": "mean over domains, normalised"})
    return {"tables": tables, "note": found["normalisation"], "why": mean.get("why")}


def _table(table: Json) -> dict[str, Any]:
    compared = [key for key in ("against_single", "against_joint") if table.get(key)]
    rows = [
        {
            "name": plain(name),
            "value": _value(figure),
            "cells": [_bounds(table[key]["differences"].get(name)) for key in compared],
        }
        for name, figure in table["figures"].items()
    ]
    verdicts = [
        {
            "other": plain(table[key]["other"]),
            "best": plain(table[key]["best"]["variant"]),
            "verdict": table[key]["best"]["verdict"],
            "bounds": _bounds(table[key]["best"]),
        }
        for key in compared
    ]
    return {"heads": [plain(table[key]["other"]) for key in compared], "rows": rows, "verdicts": verdicts}


def _value(figure: Json) -> str:
    if figure["value"] is None:
        return "–"
    bounds = f" ({figure['low']:.3g} to {figure['high']:.3g})" if figure["low"] is not None else ""
    return f"{figure['value']:.3g}{bounds}"


def _bounds(found: Json | None, *, p: bool = False) -> str:
    if not found or found["value"] is None:
        return "–"
    text = f"{found['value']:+.3g} ({found['low']:+.3g} to {found['high']:+.3g})"
    if p and found.get("p_holm") is not None:
        text += f", p = {found['p_holm']:.2g}"
    return text
