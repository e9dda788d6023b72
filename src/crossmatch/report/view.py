"""From the study's facts to what the page shows: texts, tables, chart specifications. No number is made here."""

from collections.abc import Mapping
from typing import Any

from crossmatch.report.charts import loss_chart, overlap_charts, weight_text
from crossmatch.report.proof import proof_view

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
_KINDS = {"base": "base", "adapter": "adapter alone", "merge": "merge", "control": "control: same weight, no partner"}


def build_view(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template needs, as plain JSON."""
    charts: dict[str, Any] = {}
    verdicts = []
    for number, (name, verdict) in enumerate(facts["verdicts"].items()):
        shown, drawn = proof_view(number, name, verdict)
        verdicts.append(shown)
        charts |= drawn
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
        "verdicts": verdicts,
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
