"""Every metric of an evaluation in one table; whoever measures, tests, orders or shows one takes it from here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SuiteKind = Literal["generation", "choice", "instructions", "text"]
Test = Literal["mcnemar", "randomisation"]
CHOICE: tuple[SuiteKind, ...] = ("choice",)
GENERATION: tuple[SuiteKind, ...] = ("generation",)
INSTRUCTIONS: tuple[SuiteKind, ...] = ("instructions",)
TEXT: tuple[SuiteKind, ...] = ("text",)
# Whatever a model writes: answers, followed instructions, choices in words.
ANSWERS: tuple[SuiteKind, ...] = ("generation", "choice", "instructions")
SPOKEN: tuple[SuiteKind, ...] = ("generation", "instructions")


@dataclass(frozen=True)
class Unit:
    """What the values of a metric are.

    scale: they are written as so many times the value; hundred: they run to 100, so that a point is 1 and not 0.01;
    test: of differences: `mcnemar` for shares of right items, with Wilson's interval, else randomisation, with the
    bootstrap.
    """

    scale: float = 1.0
    hundred: bool = False
    test: Test = "randomisation"


NUMBER, PERCENT, SCORE = Unit(), Unit(100.0), Unit(hundred=True)
# Of items that are right or wrong, each.
SHARE = Unit(100.0, test="mcnemar")


@dataclass(frozen=True)
class Metric:
    """One metric.

    title: for people; form: how the scaled value is written; suites: the kinds that have it; says: what it is, in one
    sentence; better: `more`, `less`, or None where neither is; first: whether it is read first; stands: its place among
    the metrics that may stand for a whole suite, None for the others; one_seed: whether only the first of several seeds
    is probed.
    """

    name: str
    title: str
    form: str
    unit: Unit
    suites: tuple[SuiteKind, ...]
    says: str
    better: Literal["more", "less"] | None = None
    first: bool = False
    stands: int | None = None
    one_seed: bool = False


# fmt: off
_TABLE = (
    Metric("exact", "exact %", ".1f", SHARE, GENERATION, better="more", first=True, stands=2,
           says="Answers that are the reference, but for case and full stop, without their trace."),
    Metric("exact_raw", "exact raw %", ".1f", SHARE, GENERATION, better="more",
           says="Outputs that are the reference, but for case and full stop."),
    Metric("number", "number %", ".1f", SHARE, GENERATION, better="more", first=True, stands=1,
           says="Answers whose last number is the reference, without their trace."),
    Metric("number_raw", "number raw %", ".1f", SHARE, GENERATION, better="more",
           says="Outputs whose last number is the reference."),
    Metric("bleu", "BLEU", ".1f", SCORE, GENERATION, better="more", first=True, stands=6,
           says="Corpus BLEU-4 of the answers without their traces."),
    Metric("bleu_raw", "BLEU raw", ".1f", SCORE, GENERATION, better="more", first=True,
           says="Corpus BLEU-4 of the whole outputs."),
    Metric("chrf", "chrF", ".1f", SCORE, GENERATION, better="more", stands=7,
           says="Corpus chrF of the answers without their traces."),
    Metric("chrf_raw", "chrF raw", ".1f", SCORE, GENERATION, better="more",
           says="Corpus chrF of the whole outputs."),
    Metric("sentence_bleu", "BLEU by item", ".1f", SCORE, GENERATION, better="more",
           says="Sentence BLEU of the answer without its trace, mean over items."),
    Metric("sentence_bleu_raw", "BLEU by item raw", ".1f", SCORE, GENERATION, better="more",
           says="Sentence BLEU of the whole output, mean over items."),
    Metric("rougeL", "ROUGE-L", ".1f", SCORE, GENERATION, better="more", first=True, stands=5,
           says="ROUGE-L F-score of the answer without its trace, mean over items."),
    Metric("rouge1", "ROUGE-1", ".1f", SCORE, GENERATION, better="more",
           says="ROUGE-1 F-score of the answer without its trace, mean over items."),
    Metric("rouge2", "ROUGE-2", ".1f", SCORE, GENERATION, better="more",
           says="ROUGE-2 F-score of the answer without its trace, mean over items."),
    Metric("rougeL_raw", "ROUGE-L raw", ".1f", SCORE, GENERATION, better="more",
           says="ROUGE-L F-score of the whole output, mean over items."),
    Metric("rouge1_raw", "ROUGE-1 raw", ".1f", SCORE, GENERATION, better="more",
           says="ROUGE-1 F-score of the whole output, mean over items."),
    Metric("rouge2_raw", "ROUGE-2 raw", ".1f", SCORE, GENERATION, better="more",
           says="ROUGE-2 F-score of the whole output, mean over items."),
    Metric("lf_bleu4", "LF BLEU-4", ".1f", SCORE, GENERATION, better="more",
           says="BLEU-4 as LLaMA-Factory has it: characters, whole output, mean over items."),
    Metric("lf_rougeL", "LF ROUGE-L", ".1f", SCORE, GENERATION, better="more",
           says="ROUGE-L as LLaMA-Factory has it: jieba words, whole output, mean over items."),
    Metric("lf_rouge1", "LF ROUGE-1", ".1f", SCORE, GENERATION, better="more",
           says="ROUGE-1 as LLaMA-Factory has it: jieba words, whole output, mean over items."),
    Metric("lf_rouge2", "LF ROUGE-2", ".1f", SCORE, GENERATION, better="more",
           says="ROUGE-2 as LLaMA-Factory has it: jieba words, whole output, mean over items."),
    Metric("lf_bleu4_stripped", "LF BLEU-4, no trace", ".1f", SCORE, GENERATION, better="more",
           says="LLaMA-Factory's BLEU-4 of the answer without its trace."),
    Metric("lf_rougeL_stripped", "LF ROUGE-L, no trace", ".1f", SCORE, GENERATION, better="more",
           says="LLaMA-Factory's ROUGE-L of the answer without its trace."),
    Metric("lf_rouge1_stripped", "LF ROUGE-1, no trace", ".1f", SCORE, GENERATION, better="more",
           says="LLaMA-Factory's ROUGE-1 of the answer without its trace."),
    Metric("lf_rouge2_stripped", "LF ROUGE-2, no trace", ".1f", SCORE, GENERATION, better="more",
           says="LLaMA-Factory's ROUGE-2 of the answer without its trace."),
    Metric("length_ratio", "length", ".2f", NUMBER, GENERATION, first=True,
           says="Length of the outputs over length of the references."),
    Metric("truncated", "cut %", ".0f", SHARE, ANSWERS, better="less", first=True,
           says="Outputs that were cut at the token limit."),
    Metric("trace_structural", "traces %", ".0f", SHARE, ANSWERS, first=True,
           says="Outputs with a reasoning block, by its markers."),
    Metric("trace_lexical", "openers %", ".0f", SHARE, ANSWERS, first=True,
           says="Answers that begin with a reasoning phrase."),
    Metric("trace_unclosed", "unclosed %", ".0f", SHARE, ANSWERS, better="less",
           says="Outputs whose trace never ends, so that they have no answer."),
    Metric("trace_untagged", "untagged traces %", ".0f", SHARE, ANSWERS,
           says="Answers that begin with the heading of a thinking process, without a tag."),
    Metric("hesitating", "hesitating %", ".0f", SHARE, ANSWERS,
           says="Answers with words of hesitation outside the trace (wait, hmm)."),
    Metric("hesitations", "hesitations", ".2f", NUMBER, ANSWERS,
           says="Words of hesitation outside the trace, for each answer."),
    Metric("output_tokens", "tokens", ".0f", NUMBER, ANSWERS,
           says="Tokens of an output with its trace, mean over items."),
    Metric("trace_share", "trace length %", ".1f", PERCENT, ANSWERS,
           says="Share of the output's characters that are trace."),
    Metric("openers_calibrated", "openers - ref %", ".0f", PERCENT, GENERATION,
           says="Answers that begin with a reasoning phrase, minus the references' rate."),
    Metric("think_probability", "P(<think>)", ".1e", NUMBER, SPOKEN, first=True,
           says="Probability that the output begins with `<think>`."),
    Metric("opener_probability", "P(opener)", ".1e", NUMBER, SPOKEN,
           says="Probability that the output begins with a reasoning opener."),
    Metric("first_entropy", "entropy", ".2f", NUMBER, ANSWERS,
           says="Entropy of the output's first token, in nats."),
    Metric("first_margin", "margin", ".2f", NUMBER, ANSWERS,
           says="Probability by which the first token is ahead of the second."),
    Metric("answer_entropy", "entropy, answer", ".2f", NUMBER, ANSWERS,
           says="Entropy of the answer's first token, behind its trace, in nats."),
    Metric("answer_margin", "margin, answer", ".2f", NUMBER, ANSWERS,
           says="Probability by which the answer's first token is ahead of the second."),
    Metric("kl_first", "KL first", ".3f", NUMBER, GENERATION,
           says="KL(variant || reference) of the answer's first token, in nats."),
    Metric("kl_answer", "KL answer", ".3f", NUMBER, GENERATION, first=True,
           says="KL(variant || reference) per token along the reference answer, in nats."),
    Metric("kl_first_base", "KL first, base", ".3f", NUMBER, GENERATION,
           says="KL(variant || base) of the answer's first token, in nats."),
    Metric("kl_answer_base", "KL answer, base", ".3f", NUMBER, GENERATION, first=True,
           says="KL(variant || base) per token along the reference answer, in nats."),
    Metric("acc", "accuracy %", ".1f", SHARE, CHOICE, better="more", first=True, stands=3,
           says="Right by the option of highest log-likelihood."),
    Metric("acc_norm", "acc. norm %", ".1f", SHARE, CHOICE, better="more", first=True, stands=8,
           says="Right by the option of highest log-likelihood per character."),
    Metric("acc_mean", "mean of orders %", ".1f", PERCENT, CHOICE, better="more",
           says="Accuracy, mean over orders of the options."),
    Metric("acc_majority", "majority %", ".1f", SHARE, CHOICE, better="more",
           says="Right by the majority of option orders."),
    Metric("acc_worst", "every order %", ".1f", SHARE, CHOICE, better="more", first=True,
           says="Right under every option order."),
    Metric("consistency", "consistency %", ".0f", PERCENT, CHOICE, better="more",
           says="Pairs of option orders that agree."),
    Metric("acc_generated", "generated %", ".1f", SHARE, CHOICE, better="more", first=True, stands=9,
           says="Right by the generated text; an unreadable answer is wrong."),
    Metric("invalid", "unreadable %", ".1f", SHARE, CHOICE, better="less", first=True,
           says="Generated answers that name no option, or several; nothing is asked again."),
    Metric("followed_strict", "followed %", ".0f", SHARE, INSTRUCTIONS, better="more", first=True, stands=4,
           says="Items all of whose instructions were followed, strict."),
    Metric("followed_loose", "loose %", ".0f", SHARE, INSTRUCTIONS, better="more", stands=10,
           says="Items all of whose instructions were followed by one of eight variants of the output."),
    Metric("instructions_strict", "instructions %", ".0f", PERCENT, INSTRUCTIONS, better="more", first=True,
           says="Single instructions that were followed, strict."),
    Metric("instructions_loose", "instructions loose %", ".0f", PERCENT, INSTRUCTIONS, better="more",
           says="Single instructions that were followed, loose."),
    Metric("instructions_strict_raw", "instructions raw %", ".0f", PERCENT, INSTRUCTIONS, better="more",
           says="Single instructions that the whole output follows, strict."),
    Metric("instructions_loose_raw", "instructions loose, raw %", ".0f", PERCENT, INSTRUCTIONS, better="more",
           says="Single instructions that the whole output follows, loose."),
    Metric("sustained", "sustained %", ".0f", PERCENT, ANSWERS, better="more", first=True, one_seed=True,
           says="Share of the score that is left when constraints are added that the answer met already."),
    Metric("perplexity", "perplexity", ".2f", NUMBER, TEXT, better="less", first=True,
           says="Perplexity of plain documents: exp of the mean negative log-likelihood per token."),
    Metric("token_nats", "nats / token", ".3f", NUMBER, TEXT, better="less",
           says="Negative log-likelihood per token of plain documents; long documents weigh more."),
    Metric("bits_per_byte", "bits / byte", ".3f", NUMBER, TEXT, better="less", first=True,
           says="Negative log-likelihood per byte of UTF-8 in bits, which no tokenizer changes."),
)
# fmt: on
CATALOGUE: Mapping[str, Metric] = {metric.name: metric for metric in _TABLE}
"""Metrics by name, in the order in which they are shown."""

STANDING = tuple(
    metric.name for metric in sorted((m for m in _TABLE if m.stands is not None), key=lambda metric: metric.stands or 0)
)
"""Metrics of which more is better; the first that a suite has stands for it. Of overlaps that is an F-score, a mean
over items: chrF weighs recall twice, so that an answer gains by being long."""


def metric_of(name: str) -> Metric:
    """A metric by its name; one that is not in the catalogue has its name as its title."""
    known = CATALOGUE.get(name)
    return known or Metric(name, name.replace("_", " "), ".3g", NUMBER, (), "See docs/evaluate.md.")


def better_is_more(name: str) -> bool | None:
    """Whether more is better; None where neither is, and for a metric that is not in the catalogue."""
    known = CATALOGUE.get(name)
    return None if known is None or known.better is None else known.better == "more"
