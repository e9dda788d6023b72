"""From the records of one variant, suite and condition to item statistics of every metric that they allow."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from crossmatch.data.suites import Suite
from crossmatch.evaluation.metrics.bleu_rouge import (
    bleu,
    bleu_signature,
    bleu_statistics,
    length_ratio,
    rouge_f,
    sentence_bleu,
    sentence_bleu_signature,
)
from crossmatch.evaluation.metrics.choice_accuracy import order_statistics
from crossmatch.evaluation.metrics.chrf import chrf, chrf_signature, chrf_statistics
from crossmatch.evaluation.metrics.exact_match import exact_matches, number_matches
from crossmatch.evaluation.metrics.ifeval import followed, instruction_level
from crossmatch.evaluation.metrics.llamafactory import factory_scores
from crossmatch.evaluation.metrics.perplexity import bits_per_byte, mean_of_known, nats_per_token, perplexity
from crossmatch.evaluation.metrics.reasoning_traces import Trace, calibrated, opener_statistics, parse_trace
from crossmatch.evaluation.metrics.sustain import sustain, sustained
from crossmatch.results.record import GeneratedChoiceJson, RecordJson
from crossmatch.statistics.estimates import Array, Corpus, Statistic, mean_of

Measured = dict[str, tuple[Array, Statistic]]
"""metric -> (item statistics (items, columns), statistic); where an item has several seeds, its rows are averaged,
or lie side by side where each seed has a corpus score."""

# What the divergence of a study is made of; each with what it is made of besides.
SURFACE, CHOICE, GENERATED = "bleu", "acc", "acc_generated"
SURFACES, CHOICES = (SURFACE, "bleu_raw"), (CHOICE, GENERATED)
# Families of scores by overlap with the reference.
OVERLAPS = ("bleu", "chrf", "sentence_bleu", "rouge", "lf")


def signatures(suite: Suite) -> dict[str, str]:
    """How scores are made where there is more than one way: sacreBLEU's signatures, the windows of texts."""
    settings = suite.settings
    if settings.kind == "text":
        return {"perplexity": f"window:{settings.window}|overlap:{settings.overlap}|first:bos-or-eos|mean:tokens"}
    if settings.kind != "generation" or settings.match == "number":
        return {}
    language = settings.language
    return {
        "bleu": bleu_signature(language),
        "sentence_bleu": sentence_bleu_signature(language),
        "chrf": chrf_signature(),
    }


def measure(rows: Sequence[RecordJson], suite: Suite, *, overlaps: Sequence[str] = OVERLAPS) -> Measured:
    """Item statistics of all metrics; items without an answer (`failed`) must have been taken out.

    overlaps: families of scores by overlap that are wanted; they are most of the time that this takes.
    """
    if suite.settings.kind == "choice":
        return _choices(rows, suite) | _sustained(rows, 1)
    if suite.settings.kind == "text":
        return _documents(rows)
    seeds, traces = len({row["seed"] for row in rows}) or 1, [_trace(row, suite) for row in rows]
    follows = suite.settings.kind == "instructions"
    measured = _instructions(rows) if follows else _generation(rows, suite, traces, overlaps)
    measured |= _traces(rows, traces) | _divergences(rows) | _sustained(rows, seeds)
    if seeds == 1:
        return measured
    # Seeds of one item are not independent: the item is the unit that is drawn.
    return {name: _by_item(table, statistic, seeds) for name, (table, statistic) in measured.items()}


def _by_item(table: Array, statistic: Statistic, seeds: int) -> tuple[Array, Statistic]:
    """Rows of all seeds of an item as one: averaged, or side by side where each seed has a score of its own."""
    if isinstance(statistic, Corpus):
        return table.reshape(-1, seeds * table.shape[1]), replace(statistic, items=len(table) // seeds, seeds=seeds)
    return table.reshape(-1, seeds, table.shape[1]).mean(1), statistic


def _column(values: Sequence[float | bool]) -> Array:
    return np.array(values, dtype=float).reshape(-1, 1)


def _choices(rows: Sequence[RecordJson], suite: Suite) -> Measured:
    measured: Measured = {}
    if rows and "chosen" in rows[0]:
        measured["acc"] = _column([r["chosen"] == r["right"] for r in rows]), mean_of
        measured["acc_norm"] = _column([r["chosen_norm"] == r["right"] for r in rows]), mean_of
        measured |= _first_tokens(rows)
    if rows and "orders" in rows[0]:
        found = order_statistics([r["orders"] for r in rows], [r["right"] for r in rows])
        measured |= {f"acc_{name}" if name != "consistency" else name: (t, mean_of) for name, t in found.items()}
    if rows and "generated" in rows[0]:
        right = [np.mean([g["chosen"] == r["right"] for g in r["generated"]]) for r in rows]
        invalid = [np.mean([g["chosen"] is None for g in r["generated"]]) for r in rows]
        measured["acc_generated"] = _column([float(x) for x in right]), mean_of
        measured["invalid"] = _column([float(x) for x in invalid]), mean_of
        answers = [row["generated"] for row in rows]
        traces = [[_trace(answer, suite) for answer in group] for group in answers]
        measured |= _outputs(answers, traces) | _steps(answers)
    return measured


def _documents(rows: Sequence[RecordJson]) -> Measured:
    table = np.array([[row["nats"], row["tokens"], row["bytes"]] for row in rows], dtype=float).reshape(-1, 3)
    return {
        "perplexity": (table, perplexity),
        "token_nats": (table, nats_per_token),
        "bits_per_byte": (table, bits_per_byte),
    }


def _instructions(rows: Sequence[RecordJson]) -> Measured:
    asked = [[(kind, arguments) for kind, arguments in row["checks"]] for row in rows]
    questions = [row["question"] for row in rows]
    found: Measured = {}
    for name, loose in (("strict", False), ("loose", True)):
        raw = followed(asked, questions, [row["output"] for row in rows], loose=loose)
        stripped = followed(asked, questions, [row["answer"] for row in rows], loose=loose)
        found[f"followed_{name}"] = stripped, mean_of
        found[f"instructions_{name}"] = stripped, instruction_level
        found[f"instructions_{name}_raw"] = raw, instruction_level
    return found


def _generation(rows: Sequence[RecordJson], suite: Suite, traces: Sequence[Trace], overlaps: Sequence[str]) -> Measured:
    answers, outputs = [row["answer"] for row in rows], [row["output"] for row in rows]
    match, references = suite.settings.match, [row["reference"] for row in rows]
    found: Measured = {}
    for suffix, texts in (("", answers), ("_raw", outputs)) if match else ():
        found[f"exact{suffix}"] = exact_matches(texts, references), mean_of
        if match == "number":
            found[f"number{suffix}"] = number_matches(texts, references, suite.settings.language), mean_of
    # A number has no words to overlap with.
    if match == "number":
        return found
    found |= _overlap(answers, outputs, references, suite.settings.language, overlaps)
    # A difference of two rates over the same answers is a mean of differences.
    openers = opener_statistics(traces, references)
    return found | {"openers_calibrated": (calibrated(openers)[:, None], mean_of)}


def _overlap(
    answers: Sequence[str], outputs: Sequence[str], references: Sequence[str], language: str, families: Sequence[str]
) -> Measured:
    same = answers == outputs
    corpus = Corpus(bleu, len(references))
    found: Measured = {}
    for suffix, texts in (("", answers), ("_raw", outputs)):
        if suffix and same:
            # Nothing was stripped: both are the same numbers.
            found |= {f"{name}_raw": value for name, value in found.items() if not name.startswith("lf_")}
            break
        if "bleu" in families:
            found[f"bleu{suffix}"] = bleu_statistics(texts, references, language), corpus
        if "chrf" in families:
            found[f"chrf{suffix}"] = chrf_statistics(texts, references), chrf
        if "sentence_bleu" in families:
            found[f"sentence_bleu{suffix}"] = sentence_bleu(texts, references, language), mean_of
        if "rouge" in families:
            found |= {f"{kind}{suffix}": (table, mean_of) for kind, table in rouge_f(texts, references).items()}
    if "lf" in families:
        # LLaMA-Factory's own are of the whole output: traces stay in.
        own = {name: (table, mean_of) for name, table in factory_scores(outputs, references).items()}
        stripped = {} if same else factory_scores(answers, references)
        found |= own | {f"{n}_stripped": (stripped[n], mean_of) if stripped else own[n] for n in own}
    if "bleu" in families:
        found["length_ratio"] = found["bleu_raw"][0], length_ratio
    return found


def _divergences(rows: Sequence[RecordJson]) -> Measured:
    """KL to the reference and to the base, of the items that were compared; none where there is nothing to compare."""
    found: Measured = {}
    for role, end in (("reference", ""), ("base", "_base")):
        some = [kl for row in rows if (kl := (row.get("kl") or {}).get(role))]
        if some:
            found[f"kl_first{end}"] = _column([kl["first"] for kl in some]), mean_of
            table = np.array([[kl["nats"], kl["tokens"]] for kl in some], dtype=float)
            found[f"kl_answer{end}"] = table, nats_per_token
    return found


def _sustained(rows: Sequence[RecordJson], seeds: int) -> Measured:
    """Score after over score before, on items that had a score to lose; of several seeds the first."""
    found = [row.get("sustain") for row in rows]
    probed = [probe for probe in found if probe]
    if not probed:
        return {}
    # Where nobody solved anything, no item carries information: a figure of n = 0 says so.
    before = [probe["before"] if probe["after"] is not None else 0.0 for probe in probed]
    table = sustain(before, [probe["after"] or 0.0 for probe in probed])
    # Items have a row for each seed.
    return {"sustained": (np.repeat(table, seeds, axis=0), sustained)}


def _trace(answer: RecordJson | GeneratedChoiceJson, suite: Suite) -> Trace:
    """The trace of a recorded output, parsed anew: what a record says of it may be older than the list of openers."""
    return parse_trace(answer["output"], suite.settings.reasoning_formats, answer.get("opened"))


def _outputs(
    answers: Sequence[Sequence[RecordJson | GeneratedChoiceJson]], traces: Sequence[Sequence[Trace]]
) -> Measured:
    """Traces, their wording, and lengths of outputs; answers: for every row one or more, which are averaged, and
    traces: what was found in each of them."""

    def column(values: Iterable[Sequence[float | bool]]) -> Array:
        return _column([float(np.mean(group)) for group in values])

    found: Measured = {
        "trace_structural": (column([t.structural for t in group] for group in traces), mean_of),
        "trace_lexical": (column([t.lexical for t in group] for group in traces), mean_of),
        "trace_share": (column([t.share for t in group] for group in traces), mean_of),
        "trace_untagged": (column([t.untagged for t in group] for group in traces), mean_of),
        "trace_unclosed": (column([t.state == "unclosed" for t in group] for group in traces), mean_of),
        "hesitating": (column([t.hesitations > 0 for t in group] for group in traces), mean_of),
        "hesitations": (column([t.hesitations for t in group] for group in traces), mean_of),
        "truncated": (column([answer["truncated"] for answer in group] for group in answers), mean_of),
    }
    # Records of models that run elsewhere may not tell it.
    tokens = [[answer.get("tokens") for answer in group] for group in answers]
    if all(count is not None for group in tokens for count in group):
        found["output_tokens"] = column([count or 0 for count in group] for group in tokens), mean_of
    return found


def _steps(answers: Sequence[Sequence[RecordJson | GeneratedChoiceJson]]) -> Measured:
    """Entropy and margin where answers begin, of those that do; none where a model does not tell, or records are older
    than this figure."""
    found: Measured = {}
    for name in ("answer_entropy", "answer_margin"):
        known = [[value for a in group if (value := a.get(name)) is not None] for group in answers]
        if any(known) and all(name in answer for group in answers for answer in group):
            found[name] = np.array([[sum(values), len(values)] for values in known], dtype=float), mean_of_known
    return found


def _traces(rows: Sequence[RecordJson], traces: Sequence[Trace]) -> Measured:
    answers = [[row] for row in rows]
    found = _outputs(answers, [[trace] for trace in traces]) | _steps(answers)
    openers = [row.get("opener_loglikelihoods") for row in rows]
    if rows and all(openers):
        kept = [o for o in openers if o]
        found["think_probability"] = _column([math.exp(o["<think>"]) for o in kept]), mean_of
        found["opener_probability"] = _column([sum(map(math.exp, o.values())) for o in kept]), mean_of
    return found | _first_tokens(rows)


def _first_tokens(rows: Sequence[RecordJson]) -> Measured:
    """Entropy and margin of the token with which the answer begins, where the model tells them."""
    found: Measured = {}
    for name in ("entropy", "margin"):
        values = [row.get(name) for row in rows]
        if rows and all(value is not None for value in values):
            found[f"first_{name}"] = _column([float(value) for value in values if value is not None]), mean_of
    return found
