"""The measurement on the page: one tab a condition, with tables, flips and the divergence picture."""

from collections.abc import Mapping
from typing import Any

from crossmatch.report.charts import divergence_chart
from crossmatch.report.strengths import strengths_view

Json = Mapping[str, Any]

# metric -> (title, number form, scale, what it is)
METRICS: Mapping[str, tuple[str, str, float, str]] = {
    "exact": (
        "exact %",
        ".1f",
        100.0,
        "the answer without its trace is the reference, but for case and full stop",
    ),
    "exact_raw": ("exact raw %", ".1f", 100.0, "the same of the whole output"),
    "number": ("number %", ".1f", 100.0, "the last number of the answer without its trace is the reference"),
    "number_raw": ("number raw %", ".1f", 100.0, "the same of the whole output"),
    "bleu": ("BLEU", ".1f", 1.0, "corpus BLEU-4 of the answer without its trace"),
    "bleu_raw": ("BLEU raw", ".1f", 1.0, "corpus BLEU-4 of the whole output"),
    "chrf": ("chrF", ".1f", 1.0, "corpus chrF of the answer without its trace"),
    "rougeL": ("ROUGE-L", ".1f", 1.0, "F-score of the answer without its trace, mean over items"),
    "rouge1": ("ROUGE-1", ".1f", 1.0, "F-score, mean over items"),
    "rouge2": ("ROUGE-2", ".1f", 1.0, "F-score, mean over items"),
    "lf_bleu4": ("LF BLEU-4", ".1f", 1.0, "as LLaMA-Factory has it: characters, whole output, mean over items"),
    "lf_rougeL": ("LF ROUGE-L", ".1f", 1.0, "as LLaMA-Factory has it: jieba words, whole output, mean over items"),
    "length_ratio": ("length", ".2f", 1.0, "length of the output over length of the reference"),
    "truncated": ("cut %", ".0f", 100.0, "outputs that were cut at the token limit"),
    "trace_structural": ("traces %", ".0f", 100.0, "outputs with a think block, by its tags"),
    "trace_lexical": ("openers %", ".0f", 100.0, "answers that begin with a reasoning phrase"),
    "openers_calibrated": ("openers - ref %", ".0f", 100.0, "the same, less their share among the references"),
    "think_probability": ("P(<think>)", ".1e", 1.0, "probability that the answer begins with <think>"),
    "opener_probability": ("P(opener)", ".1e", 1.0, "probability that the answer begins with a reasoning opener"),
    "first_entropy": ("entropy", ".2f", 1.0, "of the output's first token, in nats"),
    "first_margin": ("margin", ".2f", 1.0, "probability by which the first token is ahead of the second"),
    "answer_entropy": ("entropy, answer", ".2f", 1.0, "of the first token of the answer, behind its trace, in nats"),
    "answer_margin": ("margin, answer", ".2f", 1.0, "the margin there; answers that never begin have neither"),
    "acc": ("accuracy %", ".1f", 100.0, "option of highest log-likelihood"),
    "acc_norm": ("acc. norm %", ".1f", 100.0, "the same, divided by the option's length in characters"),
    "acc_majority": ("majority %", ".1f", 100.0, "right by the majority of option orders"),
    "acc_worst": ("every order %", ".1f", 100.0, "right under every option order"),
    "consistency": ("consistency %", ".0f", 100.0, "pairs of option orders that agree"),
    "acc_generated": ("generated %", ".1f", 100.0, "right by the generated text; an unreadable answer is wrong"),
    "invalid": ("unreadable %", ".1f", 100.0, "generated answers that name no option, nothing asked again"),
    "followed_strict": ("followed %", ".0f", 100.0, "items all of whose instructions were followed, strict"),
    "followed_loose": ("loose %", ".0f", 100.0, "the same, with any of eight variants of the output"),
    "instructions_strict": ("instructions %", ".0f", 100.0, "instructions that were followed, strict"),
    "sustained": (
        "sustained %",
        ".0f",
        100.0,
        "of the score left when constraints are added that the answer met already",
    ),
    "kl_first": ("KL first", ".3f", 1.0, "KL(variant || reference) of the answer's first token, in nats"),
    "kl_answer": ("KL answer", ".3f", 1.0, "KL(variant || reference) per token along the reference answer, in nats"),
    "kl_first_base": ("KL first, base", ".3f", 1.0, "KL(variant || base) of the answer's first token, in nats"),
    "kl_answer_base": ("KL answer, base", ".3f", 1.0, "KL(variant || base) per token along the reference answer"),
    "perplexity": ("perplexity", ".2f", 1.0, "of plain documents: exp of the mean negative log-likelihood per token"),
    "token_nats": ("nats / token", ".3f", 1.0, "negative log-likelihood per token; long documents weigh more"),
    "bits_per_byte": ("bits / byte", ".3f", 1.0, "the same per byte of UTF-8, which no tokenizer changes"),
}
# Of several seeds the first alone is probed; all others are means over seeds.
_FIRST_SEED = "sustained"
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
    charts: dict[str, Any] = {}
    known = [row for row in condition["divergence"] if row["value"] is not None]
    chart = f"divergence{number}"
    if known:
        charts[chart] = divergence_chart(known)
    suites = condition["suites"].items()
    # Scores stand there as they are, not in percent.
    titles = {metric: title.removesuffix(" %") for metric, (title, *_) in METRICS.items()}
    further, curves = strengths_view(number, condition, titles)
    charts |= curves
    view = {
        "name": name,
        "template": condition["template"],
        "decoding": condition["decoding"],
        "seeds": condition["seeds"],
        "untrained": [adapter for adapter, alike in trained.items() if alike is False],
        "unknown": [adapter for adapter, alike in trained.items() if alike is None],
        "tables": [_table(suite, facts, summary, condition["seeds"]) for suite, facts in suites],
        "flips": [
            {"suite": s, "what": what, "rows": _flips(f[key])}
            for s, f in suites
            for key, what in (("flips", "answers"), ("flips_generated", "generated answers"))
            if f.get(key)
        ],
        "falls": [{"suite": s, "rows": _falls(f["fall"])} for s, f in suites if f.get("fall")],
        "divergence": chart if known else None,
        "further": further,
    }
    return view, charts


def _table(name: str, suite: Json, summary: Json, seeds: int) -> dict[str, Any]:
    metrics = [metric for metric in METRICS if metric in suite["metrics"]]
    rows = []
    for variant, facts in summary["variants"].items():
        cells = [_cell(suite["metrics"][metric][variant], *METRICS[metric][1:3]) for metric in metrics]
        reference = variant == summary["reference"]
        kind = _KINDS[facts["kind"]] + (f"; {facts['note']}" if facts.get("note") else "")
        rows.append({"variant": variant, "kind": kind, "reference": reference, "cells": cells})
    counts = {m: max(entry["n"] for entry in suite["metrics"][m].values()) for m in metrics}
    faults = [f"{v}: no answer to {f['failed']} items ({f['reason']})" for v, f in (suite["incomplete"] or {}).items()]
    return {
        "name": name,
        "n": suite["n"],
        "left_out": suite["left_out"],
        "incomplete": faults,
        "signatures": suite["signatures"],
        "heads": [
            {
                "title": METRICS[m][0],
                "help": METRICS[m][3],
                "n": counts[m],
                "note": f"first of {seeds} seeds" if m == _FIRST_SEED and seeds > 1 else "",
            }
            for m in metrics
        ],
        "rows": rows,
        "clean": _table(name, suite["clean"], summary, seeds) if suite.get("clean") else None,
    }


def _cell(entry: Json, form: str, scale: float) -> dict[str, Any]:
    def show(value: float | None, sign: str = "") -> str:
        return "–" if value is None else format(value * scale, sign + form)

    bounds = f"{show(entry['low'])} to {show(entry['high'])}" if entry["value"] is not None else ""
    difference = entry["difference"]
    if difference is None:
        return {"value": show(entry["value"]), "interval": bounds, "diff": None}
    p = difference["p_holm"] if difference["p_holm"] is not None else difference["p"]
    flips = f"; {difference['gained']} gained, {difference['lost']} lost" if difference["gained"] is not None else ""
    found = f"; a difference of {show(difference['mde'])} would be found" if difference["mde"] is not None else ""
    return {
        "value": show(entry["value"]),
        "interval": bounds,
        "diff": f"{show(difference['value'], '+')} ({show(difference['low'], '+')} to {show(difference['high'], '+')})",
        "p": "p < 0.001" if p < 0.001 else f"p = {p:.2g}",
        "test": f"{difference['test']}, p adjusted by Holm{flips}{found}",
        "excludes_zero": difference["low"] > 0 or difference["high"] < 0,
    }


def _flips(table: Json) -> list[dict[str, Any]]:
    return [
        {
            "variant": variant,
            **{key: f[key] for key in ("kept", "gained", "lost", "wrong_alike", "wrong_otherwise")},
            "ids": [*f["lost_ids"], *f["gained_ids"]],
        }
        for variant, found in table.items()
        for f in (found if isinstance(found, list) else [found])[:1]
    ]


def _falls(falls: Json) -> list[dict[str, Any]]:
    rows = []
    for variant, found in falls.items():
        parts = found[0] if isinstance(found, list) else found
        cells = []
        for part, title in _PARTS.items():
            d = parts[part]
            text = "–" if not d or d["value"] is None else f"{d['value']:+.1f} ({d['low']:+.1f} to {d['high']:+.1f})"
            cells.append({"title": title, "text": text})
        rows.append({"variant": variant, "cells": cells})
    return rows


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
