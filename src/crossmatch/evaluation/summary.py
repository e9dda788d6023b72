"""From records to figures: every metric with n and interval, every difference paired and tested."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from crossmatch.evaluation.run import Record
from crossmatch.evaluation.scores import bleu, bleu_signature, bleu_statistics, length_ratio, rouge_f
from crossmatch.evaluation.statistics import (
    Array,
    Difference,
    Figure,
    Statistic,
    bootstrap,
    mcnemar,
    mean_of,
    paired_bootstrap,
    proportion,
)
from crossmatch.evaluation.suites import Suite
from crossmatch.evaluation.variants import Variant
from crossmatch.rules import weight_json

# metric -> (item statistics, statistic); a metric of one 0/1 column is a share: Wilson interval, McNemar test.
Measured = dict[str, tuple[Array, Statistic]]
SHARES = ("acc", "acc_norm", "trace_structural", "trace_lexical")


def summarise(
    records: Mapping[tuple[str, str], list[Record]],
    variants: Sequence[Variant],
    suites: Sequence[Suite],
    reference: str,
) -> dict[str, Any]:
    """Figures of every variant and suite, and paired differences against `reference` (a variant's name).

    All variants must have answered the same items; that is checked. Returns plain JSON.
    """
    result: dict[str, Any] = {"schema_version": 1, "reference": reference, "variants": {}, "suites": {}}
    for variant in variants:
        result["variants"][variant.name] = {
            "kind": variant.kind,
            "weights": {k: weight_json(w) for k, w in variant.weights.items()},
        }
    for suite in suites:
        name = suite.settings.name
        measured = {v.name: measure(records[v.name, name], suite) for v in variants}
        asked = {v.name: [(r["id"], r["prompt_digest"]) for r in records[v.name, name]] for v in variants}
        if any(ids != asked[reference] for ids in asked.values()):
            raise ValueError(f"suite {name}: variants answered different prompts; they cannot be compared")
        result["suites"][name] = {
            "kind": suite.settings.kind,
            "version": suite.settings.version,
            "digest": suite.digest,
            "n": len(suite.items),
            "signature": bleu_signature(suite.settings.language) if suite.settings.kind == "generation" else None,
            "metrics": {
                metric: {v.name: _entry(metric, measured[v.name], measured[reference]) for v in variants}
                for metric in measured[reference]
            },
        }
    return result


def measure(rows: Sequence[Record], suite: Suite) -> Measured:
    """Item statistics of all metrics that a suite's records allow."""
    if suite.settings.kind == "choice":
        acc = [[float(r["chosen"] == r["right"])] for r in rows]
        norm = [[float(r["chosen_norm"] == r["right"])] for r in rows]
        return {"acc": (np.array(acc), mean_of), "acc_norm": (np.array(norm), mean_of)}
    language, references = suite.settings.language, [r["reference"] for r in rows]
    raw = bleu_statistics([r["output"] for r in rows], references, language)
    stripped = bleu_statistics([r["answer"] for r in rows], references, language)
    corpus: Callable[[Array], Array] = partial(bleu, items=len(rows))
    rouge = {kind: (values, mean_of) for kind, values in rouge_f([r["answer"] for r in rows], references).items()}
    structural = [[float(r["trace"]["state"] in ("closed", "unclosed", "close_only"))] for r in rows]
    lexical = [[float(r["trace"]["lexical"])] for r in rows]
    think = [[math.exp(r["opener_loglikelihoods"]["<think>"])] for r in rows]
    opener = [[sum(math.exp(v) for v in r["opener_loglikelihoods"].values())] for r in rows]
    return {
        "bleu": (stripped, corpus),
        "bleu_raw": (raw, corpus),
        **rouge,
        "length_ratio": (raw, length_ratio),
        "trace_structural": (np.array(structural), mean_of),
        "trace_lexical": (np.array(lexical), mean_of),
        "think_probability": (np.array(think), mean_of),
        "opener_probability": (np.array(opener), mean_of),
    }


def _entry(metric: str, mine: Measured, reference: Measured) -> dict[str, Any]:
    figure, difference = _figure(metric, mine), _difference(metric, mine, reference)
    return {**figure.to_dict(), "difference": difference.to_dict() if difference else None}


def _figure(metric: str, measured: Measured) -> Figure:
    rows, statistic = measured[metric]
    return proportion(int(rows.sum()), len(rows)) if metric in SHARES else bootstrap(rows, statistic)


def _difference(metric: str, mine: Measured, reference: Measured) -> Difference | None:
    if mine is reference:
        return None
    rows, statistic = mine[metric]
    others = reference[metric][0]
    if metric in SHARES:
        return mcnemar(rows[:, 0] > 0.5, others[:, 0] > 0.5)
    return paired_bootstrap(rows, others, statistic)
