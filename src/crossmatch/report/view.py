"""From the study's facts to what the page shows: texts, tables, chart specifications. No number is made here."""

import math
from collections.abc import Mapping
from typing import Any

from crossmatch.report.charts import loss_chart, overlap_charts, weight_text, weights_chart

# metric -> (title, number form, scale, what it is)
METRICS: Mapping[str, tuple[str, str, float, str]] = {
    "bleu": ("BLEU", ".1f", 1.0, "corpus BLEU-4 of the answer without its trace"),
    "bleu_raw": ("BLEU raw", ".1f", 1.0, "corpus BLEU-4 of the whole output"),
    "rouge1": ("ROUGE-1", ".1f", 1.0, "F-score, mean over items"),
    "rouge2": ("ROUGE-2", ".1f", 1.0, "F-score, mean over items"),
    "rougeL": ("ROUGE-L", ".1f", 1.0, "F-score, mean over items"),
    "length_ratio": ("length", ".2f", 1.0, "length of the output over length of the reference"),
    "trace_structural": ("traces %", ".0f", 100.0, "outputs with a think block, by its tags"),
    "trace_lexical": ("openers %", ".0f", 100.0, "answers that begin with a reasoning phrase"),
    "think_probability": ("P(<think>)", ".1e", 1.0, "probability that the answer begins with <think>"),
    "opener_probability": ("P(opener)", ".1e", 1.0, "probability that the answer begins with a reasoning opener"),
    "acc": ("accuracy %", ".1f", 100.0, "option of highest log-likelihood"),
    "acc_norm": ("acc. norm %", ".1f", 100.0, "the same, divided by the option's length in characters"),
}
_VERDICTS = {
    "verified": ("Verified", "is what it is said to be"),
    "failed": ("Failed", "is not what it is said to be"),
    "inconclusive": ("Inconclusive", "could not be judged"),
}
_KINDS = {"base": "base", "adapter": "adapter alone", "merge": "merge", "control": "control: same weight, no partner"}


def build_view(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template needs, as plain JSON."""
    charts: dict[str, Any] = {"weights": weights_chart(facts["verdicts"])}
    if losses := loss_chart(facts["adapters"]):
        charts["loss"] = losses
    if facts.get("overlap") and any(row["layer"] is not None for row in facts["overlap"]["modules"]):
        charts["cosine"], charts["energy"] = overlap_charts(facts["overlap"])
    summary = facts.get("summary")
    return {
        "study": facts["study"],
        "question": facts["question"],
        "base": facts["base"],
        "data": facts.get("data"),
        "adapters": facts["adapters"],
        "verdicts": [_verdict(name, verdict) for name, verdict in facts["verdicts"].items()],
        "reference": summary["reference"] if summary else None,
        "tables": [_table(name, suite, summary) for name, suite in summary["suites"].items()] if summary else [],
        "overlap": _overlap(facts.get("overlap")),
        "seconds": list(facts["seconds"].items()),
        "samples": facts.get("samples"),
        "charts": charts,
    }


def _overlap(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The overlap with its weights as text; None where the two have no tensor in common."""
    if not found or found["cosine"] is None:
        return None
    return {**found, "weights": [weight_text(w) for w in found["weights"]]}


def _verdict(name: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    word, meaning = _VERDICTS[verdict["verdict"]]
    weights = [
        {"name": key, "claimed": f"{w['claimed']:g}", "recovered": _with_error(w["recovered"], w["stderr"])}
        for key, w in verdict["weights"].items()
    ]
    tensors, modules, rounding = verdict["tensors"], verdict["modules"], verdict["rounding"]
    facts = [
        f"{modules['agree']} of {modules['adapted']} adapted modules agree with the claim",
        f"{tensors['untouched_identical']} of {tensors['total'] - modules['adapted']} other tensors are "
        "the base's own, bit for bit",
        f"rounded {rounding['route']}" if rounding["route"] else "no honest rounding explains the stored values",
    ]
    return {
        "name": name,
        "verdict": verdict["verdict"],
        "word": word,
        "meaning": meaning,
        "faults": verdict["faults"],
        "notes": verdict["notes"],
        "weights": weights,
        "facts": facts,
        "digest": verdict["digests"]["merged"][:16],
    }


def _with_error(value: float | None, error: float | None) -> str:
    if value is None or error is None:
        return "not identifiable"
    digits = 5 if error < 1e-5 else max(2, 1 - math.floor(math.log10(error)))
    shown = "<0.00001" if error < 1e-5 else f"{error:.{digits}f}"
    return f"{value:.{digits}f} ± {shown}"


def _table(name: str, suite: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    metrics = [metric for metric in METRICS if metric in suite["metrics"]]
    rows = []
    for variant, facts in summary["variants"].items():
        cells = [_cell(suite["metrics"][metric][variant], *METRICS[metric][1:3]) for metric in metrics]
        reference = variant == summary["reference"]
        rows.append({"variant": variant, "kind": _KINDS[facts["kind"]], "reference": reference, "cells": cells})
    heads = [{"title": METRICS[m][0], "help": METRICS[m][3]} for m in metrics]
    return {"name": name, "n": suite["n"], "signature": suite["signature"], "heads": heads, "rows": rows}


def _cell(entry: Mapping[str, Any], form: str, scale: float) -> dict[str, Any]:
    def show(value: float | None, sign: str = "") -> str:
        return "–" if value is None else format(value * scale, sign + form)

    difference = entry["difference"]
    if difference is None:
        return {
            "value": show(entry["value"]),
            "interval": f"{show(entry['low'])} to {show(entry['high'])}",
            "diff": None,
        }
    p = difference["p"]
    return {
        "value": show(entry["value"]),
        "interval": f"{show(entry['low'])} to {show(entry['high'])}",
        "diff": f"{show(difference['value'], '+')} ({show(difference['low'], '+')} to {show(difference['high'], '+')})",
        "p": "p < 0.001" if p < 0.001 else f"p = {p:.2g}",
        "flips": f"{difference['gained']} gained, {difference['lost']} lost"
        if difference["gained"] is not None
        else "",
        "test": difference["test"],
        "excludes_zero": difference["low"] > 0 or difference["high"] < 0,
    }
