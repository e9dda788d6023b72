"""Figures of one variant in the form that the Hub reads from a model card: `model-index`."""

from typing import Any

from crossmatch.export.table import Json
from crossmatch.report.metric_text import telling
from crossmatch.results.metrics import metric_of

# The Hub's names of metrics that it knows.
_TYPES = {
    **dict.fromkeys(("acc", "acc_norm", "acc_worst", "acc_generated"), "accuracy"),
    **dict.fromkeys(("bleu", "bleu_raw"), "bleu"),
    "rougeL": "rouge",
    "exact": "exact_match",
    "number": "exact_match",
    "perplexity": "perplexity",
}


def eval_results(summary: Json, variant: str) -> list[Any]:
    """huggingface_hub's EvalResult of every figure that is read first of a variant, with n and 95% interval as args.

    Numbers are in percent and points, as the page has them. Suites with answers missing are left out.
    """
    from huggingface_hub import EvalResult

    found = []
    for condition, facts in summary["conditions"].items():
        for suite, of in facts["suites"].items():
            if of["incomplete"]:
                continue
            for metric in telling(of["metrics"], list(summary["variants"]))[0]:
                entry = of["metrics"][metric].get(variant)
                if entry is None or entry["value"] is None:
                    continue
                known = metric_of(metric)
                title, scale = known.title, known.unit.scale
                ends = {key: entry[key] * scale for key in ("low", "high") if entry[key] is not None}
                found.append(
                    EvalResult(
                        task_type="text-generation",
                        dataset_type=suite,
                        dataset_name=f"{suite} ({of['kind']}, {condition})",
                        dataset_args={"condition": condition, "blake3": of["digest"]},
                        metric_type=_TYPES.get(metric, metric),
                        metric_name=title,
                        metric_value=entry["value"] * scale,
                        metric_args={"n": entry["n"], **{f"{key}_95": value for key, value in ends.items()}},
                    )
                )
    return found
