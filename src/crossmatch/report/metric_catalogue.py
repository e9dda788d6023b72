"""Metrics for readers: titles and number forms, which are read first, how a difference is said. No number is made."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
LEVEL = 0.05
# A probability below this, for all variants, is told in a line.
_RARE = 1e-4
_ROUNDING = 1e-12

# metric -> (title, number form, scale, what it is)
METRICS: Mapping[str, tuple[str, str, float, str]] = {
    "exact": (
        "exact %",
        ".1f",
        100.0,
        "the answer without its trace is the reference, except for case and full stop",
    ),
    "exact_raw": ("exact raw %", ".1f", 100.0, "the same of the whole output"),
    "number": ("number %", ".1f", 100.0, "the last number of the answer without its trace is the reference"),
    "number_raw": ("number raw %", ".1f", 100.0, "the same of the whole output"),
    "bleu": ("BLEU", ".1f", 1.0, "corpus BLEU-4 of the answer without its trace"),
    "bleu_raw": ("BLEU raw", ".1f", 1.0, "corpus BLEU-4 of the whole output"),
    "chrf": ("chrF", ".1f", 1.0, "corpus chrF of the answer without its trace"),
    "chrf_raw": ("chrF raw", ".1f", 1.0, "corpus chrF of the whole output"),
    "sentence_bleu": ("BLEU by item", ".1f", 1.0, "sentence BLEU of the answer without its trace, mean over items"),
    "sentence_bleu_raw": ("BLEU by item raw", ".1f", 1.0, "the same of the whole output"),
    "rougeL": ("ROUGE-L", ".1f", 1.0, "F-score of the answer without its trace, mean over items"),
    "rouge1": ("ROUGE-1", ".1f", 1.0, "F-score, mean over items"),
    "rouge2": ("ROUGE-2", ".1f", 1.0, "F-score, mean over items"),
    "rougeL_raw": ("ROUGE-L raw", ".1f", 1.0, "F-score of the whole output, mean over items"),
    "rouge1_raw": ("ROUGE-1 raw", ".1f", 1.0, "F-score of the whole output, mean over items"),
    "rouge2_raw": ("ROUGE-2 raw", ".1f", 1.0, "F-score of the whole output, mean over items"),
    "lf_bleu4": ("LF BLEU-4", ".1f", 1.0, "as LLaMA-Factory has it: characters, whole output, mean over items"),
    "lf_rougeL": ("LF ROUGE-L", ".1f", 1.0, "as LLaMA-Factory has it: jieba words, whole output, mean over items"),
    "lf_rouge1": ("LF ROUGE-1", ".1f", 1.0, "as LLaMA-Factory has it: jieba words, whole output, mean over items"),
    "lf_rouge2": ("LF ROUGE-2", ".1f", 1.0, "as LLaMA-Factory has it: jieba words, whole output, mean over items"),
    "lf_bleu4_stripped": ("LF BLEU-4, no trace", ".1f", 1.0, "the same of the answer without its trace"),
    "lf_rougeL_stripped": ("LF ROUGE-L, no trace", ".1f", 1.0, "the same of the answer without its trace"),
    "lf_rouge1_stripped": ("LF ROUGE-1, no trace", ".1f", 1.0, "the same of the answer without its trace"),
    "lf_rouge2_stripped": ("LF ROUGE-2, no trace", ".1f", 1.0, "the same of the answer without its trace"),
    "length_ratio": ("length", ".2f", 1.0, "length of the output over length of the reference"),
    "truncated": ("cut %", ".0f", 100.0, "outputs that were cut at the token limit"),
    "trace_structural": ("traces %", ".0f", 100.0, "outputs with a reasoning block, by its markers"),
    "trace_lexical": ("openers %", ".0f", 100.0, "answers that begin with a reasoning phrase"),
    "trace_unclosed": ("unclosed %", ".0f", 100.0, "outputs whose trace never ends, so that they have no answer"),
    "trace_untagged": (
        "untagged traces %",
        ".0f",
        100.0,
        "answers that begin with the heading of a thinking process, without a tag",
    ),
    "hesitating": ("hesitating %", ".0f", 100.0, "answers with words of hesitation outside the trace (wait, hmm)"),
    "hesitations": ("hesitations", ".2f", 1.0, "such words per answer"),
    "output_tokens": ("tokens", ".0f", 1.0, "tokens of an output, its trace among them, mean"),
    "trace_share": ("trace length %", ".1f", 100.0, "share of the output's characters that are trace"),
    "openers_calibrated": ("openers - ref %", ".0f", 100.0, "the same, minus the references' rate"),
    "think_probability": ("P(<think>)", ".1e", 1.0, "probability that the answer begins with <think>"),
    "opener_probability": ("P(opener)", ".1e", 1.0, "probability that the answer begins with a reasoning opener"),
    "first_entropy": ("entropy", ".2f", 1.0, "of the output's first token, in nats"),
    "first_margin": ("margin", ".2f", 1.0, "probability by which the first token is ahead of the second"),
    "answer_entropy": ("entropy, answer", ".2f", 1.0, "of the first token of the answer, after its trace, in nats"),
    "answer_margin": ("margin, answer", ".2f", 1.0, "the margin there; outputs without an answer have neither"),
    "acc": ("accuracy %", ".1f", 100.0, "option of highest log-likelihood"),
    "acc_norm": ("acc. norm %", ".1f", 100.0, "the same, divided by the option's length in characters"),
    "acc_mean": ("mean of orders %", ".1f", 100.0, "accuracy, mean over option orders"),
    "acc_majority": ("majority %", ".1f", 100.0, "right by the majority over option orders"),
    "acc_worst": ("every order %", ".1f", 100.0, "right under every option order"),
    "consistency": ("consistency %", ".0f", 100.0, "pairs of option orders that agree"),
    "acc_generated": ("generated %", ".1f", 100.0, "right by the generated text; an unreadable answer is wrong"),
    "invalid": ("unreadable %", ".1f", 100.0, "generated answers that name no option"),
    "followed_strict": ("followed %", ".0f", 100.0, "items all of whose instructions were followed, strict"),
    "followed_loose": ("loose %", ".0f", 100.0, "the same, with any of eight variants of the output"),
    "instructions_strict": ("instructions %", ".0f", 100.0, "instructions that were followed, strict"),
    "instructions_loose": ("instructions loose %", ".0f", 100.0, "instructions that were followed, loose"),
    "instructions_strict_raw": ("instructions raw %", ".0f", 100.0, "by the whole output, strict"),
    "instructions_loose_raw": ("instructions loose, raw %", ".0f", 100.0, "by the whole output, loose"),
    "sustained": (
        "sustained %",
        ".0f",
        100.0,
        "of the score kept when constraints are added that the answer already met",
    ),
    "kl_first": ("KL first", ".3f", 1.0, "KL(variant || reference) of the answer's first token, in nats"),
    "kl_answer": ("KL answer", ".3f", 1.0, "KL(variant || reference) per token along the reference answer, in nats"),
    "kl_first_base": ("KL first, base", ".3f", 1.0, "KL(variant || base) of the answer's first token, in nats"),
    "kl_answer_base": ("KL answer, base", ".3f", 1.0, "KL(variant || base) per token along the reference answer"),
    "perplexity": ("perplexity", ".2f", 1.0, "of plain documents: exp of the mean negative log-likelihood per token"),
    "token_nats": ("nats / token", ".3f", 1.0, "negative log-likelihood per token; long documents weigh more"),
    "bits_per_byte": ("bits / byte", ".3f", 1.0, "the same per byte of UTF-8, which no tokenizer changes"),
}

# What is read first of a suite, in this order.
TELLING = (
    *("exact", "number", "bleu", "bleu_raw", "rougeL", "length_ratio", "truncated"),
    *("trace_structural", "trace_lexical", "think_probability", "kl_answer", "kl_answer_base"),
    *("acc", "acc_norm", "acc_worst", "acc_generated", "invalid"),
    *("followed_strict", "instructions_strict", "sustained"),
    *("perplexity", "bits_per_byte"),
)
# Of several seeds the first alone is probed; all others are means over seeds.
_FIRST_SEED = ("sustained",)
# A difference's key -> what it is taken from; the first two are variants' names.
AGAINST = ("difference", "difference_base", "difference_control", "difference_null")


def described(metric: str) -> tuple[str, str, float, str]:
    """Title, number form, scale and meaning of any metric, of one without an entry here by its name."""
    return METRICS.get(metric) or (metric.replace("_", " "), ".3g", 1.0, "see docs/evaluate.md")


def seeds_note(metric: str, seeds: int) -> str:
    """Which seeds a metric is of, where it is not the mean over all."""
    return f"first of {seeds} seeds" if metric in _FIRST_SEED and seeds > 1 else ""


def order(present: Sequence[str]) -> list[str]:
    """All of these metrics: those with a title in their order, then the others."""
    return [*(m for m in METRICS if m in present), *(m for m in present if m not in METRICS)]


def telling(metrics: Json, variants: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which metrics of a suite are read first, and a line for each of these that has nothing to tell: why not."""
    shown, lines = [], []
    for metric in TELLING:
        if metric not in metrics:
            continue
        title, form, scale, _ = described(metric)
        entries = [metrics[metric][variant] for variant in variants if variant in metrics[metric]]
        if metric.endswith("_raw") and metrics[metric] == metrics.get(metric.removesuffix("_raw")):
            lines.append(f"{title}: the same, no output has a trace")
        elif entries and all(entry["value"] == 0 for entry in entries):
            highest = max((entry["high"] for entry in entries if entry["high"] is not None), default=None)
            bound = "" if highest is None else f" (the intervals end at {highest * scale:{form}} at most)"
            lines.append(f"{title}: 0 for all{bound}")
        elif metric == "think_probability" and all((entry["high"] or 0) < _RARE for entry in entries):
            lines.append(f"{title}: {max(entry['high'] or 0 for entry in entries):.0e} at most, for all")
        else:
            shown.append(metric)
    return shown, lines


def names_against(summary: Json) -> dict[str, str]:
    """What differences are taken from, by key: of those that some figure of the summary has."""
    base = next((name for name, facts in summary["variants"].items() if facts["kind"] == "base"), "base")
    names = dict(zip(AGAINST, (summary["reference"], base, "its own control", "its random nulls"), strict=True))
    entries = [
        entry
        for condition in summary["conditions"].values()
        for suite in condition["suites"].values()
        for table in suite["metrics"].values()
        for entry in table.values()
    ]
    found = {key: name for key, name in names.items() if any(entry.get(key) for entry in entries)}
    if summary["reference"] == base:
        found.pop("difference_base", None)
    return found


def against_of(found: Any) -> list[tuple[str, str, Json]]:
    """(variant, `reference` or `control`, facts) of a table by variant (a row, or several), or of a list of rows."""
    pairs = [(row["variant"], row) for row in found] if isinstance(found, list) else list(found.items())
    return [
        (variant, row.get("against") or "reference", row)
        for variant, value in pairs
        for row in (value if isinstance(value, list) else [value])
    ]


def distinct(rows: Sequence[Json]) -> Iterator[Json]:
    """Rows of a divergence, but for those of raw outputs where these are the answers, since none has a trace."""
    found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        metric = str(row.get("surface_metric", "")).removesuffix("_raw")
        key = *(row.get(k) for k in ("variant", "against", "surface", "choices", "choices_metric")), metric
        figures = (row["value"], row["low"], row["high"])
        if found.setdefault(key, figures) != figures or metric == row.get("surface_metric", ""):
            yield row


def is_clear(difference: Json) -> bool:
    """Whether a difference is to stand out: its p, adjusted for its family, is below 0.05."""
    return difference.get("p_holm") is not None and difference["p_holm"] < LEVEL


def mde_of(difference: Json) -> float | None:
    """What the test would find; None where nothing varies, so that a difference of nothing but rounding would do."""
    mde = difference.get("mde")
    return mde if mde is not None and mde > _ROUNDING * abs(difference["value"]) else None


def p_text(difference: Json) -> str:
    """The adjusted p; one that is not adjusted says so."""
    adjusted = difference.get("p_holm")
    p = difference.get("p") if adjusted is None else adjusted
    if p is None:
        return ""
    text = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    return text if adjusted is not None else f"{text} (not adjusted)"


def test_name(entries: Json) -> str:
    """How the differences of one metric were tested, where all were in one way."""
    tests = {entry[key]["test"] for entry in entries.values() for key in AGAINST if entry.get(key)}
    return min(tests).replace("-", " ").replace("mcnemar", "McNemar") if len(tests) == 1 else ""
