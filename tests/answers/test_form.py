"""Answers that run long and what that takes of BLEU, from real texts scored and compared as an evaluation does."""

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
from test_answers import summary

from crossmatch.answers import answers_of
from crossmatch.answers.form import fall_text
from crossmatch.evaluation.comparison.summary import _adjust, _fall
from crossmatch.evaluation.metrics.bleu_rouge import bleu, bleu_statistics
from crossmatch.results.summary import AGAINST
from crossmatch.statistics.estimates import mean_of
from crossmatch.statistics.resampling import paired_difference

WORDS = "fever of the skin with pain that lasts a day and then goes away in most of those who have it".split()
SENTENCE = "so let us see what it is a kind of since each of these is one"
BLOCK = f"<think> {SENTENCE} </think>"


def measured(raws: list[str], answers: list[str], references: list[str]) -> dict[str, Any]:
    """BLEU of outputs and of answers, and tokens, as a table of an evaluation has them."""
    corpus = partial(bleu, items=len(references))
    return {
        "bleu_raw": (bleu_statistics(raws, references, "en"), corpus),
        "bleu": (bleu_statistics(answers, references, "en"), corpus),
        "tokens": [float(len(raw.split())) for raw in raws],
    }


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """A summary in which the merge says what sft says and then goes on, with or without a block."""
    rng = random.Random(4)
    references = [" ".join(rng.sample(WORDS, 9)) for _ in range(60)]
    said = [" ".join([*reference.split()[:7], *rng.sample(WORDS, 2)]) for reference in references]
    forms = {
        "sft": (said, said),
        "long": ([f"{text} {SENTENCE}" for text in said],) * 2,
        "block": ([f"{BLOCK} {text}" for text in said], said),
        "other": ([" ".join(rng.sample(WORDS, 9)) for _ in said],) * 2,
    }
    tables = {name: measured(*form, references) for name, form in forms.items()}
    sft, lengths, falls = tables["sft"], {}, {}
    for name, table in tables.items():
        mine, other = (np.array(one["tokens"])[:, None] for one in (table, sft))
        found = paired_difference(mine, other, mean_of)
        mean = sum(table["tokens"]) / 60
        bounds = {"value": mean, "low": mean, "high": mean, "n": 60, **dict.fromkeys(AGAINST)}
        lengths[name] = bounds | {"difference": found and found.to_dict()}
        falls[name] = _fall(table, sft)
    suite = {"metrics": {"output_tokens": lengths}, "fall": falls}
    _adjust({"define": suite}, list(tables))
    return {"define": suite}


def test_a_fall_by_length_alone_is_said_to_be_one(facts: Any) -> None:
    text = fall_text(facts, "long", "difference")
    total, length = (-facts["define"]["fall"]["long"][part]["value"] for part in ("total", "length"))
    assert text == f"BLEU of define falls by {total:.1f}, and length alone would cost {length:.1f}"
    assert abs(total - length) < 2


def test_a_fall_by_a_block_is_gone_without_it(facts: Any) -> None:
    assert fall_text(facts, "block", "difference").endswith("; without the traces it would fall by 0.0")


def test_a_fall_by_other_words_is_not_put_to_length(facts: Any) -> None:
    text = fall_text(facts, "other", "difference")
    assert text.startswith("BLEU of define falls by ")
    assert text.endswith(", not by length")


def test_no_fall_no_word(facts: Any) -> None:
    assert fall_text(facts, "sft", "difference") == ""
    assert fall_text(facts, "long", "difference_control") == ""


@pytest.mark.parametrize(("form", "said"), [("long", True), ("other", False)])
def test_no_trace_is_no_comfort_where_answers_run_long(facts: Any, form: str, said: bool) -> None:
    whole = summary()
    suite = whole["conditions"]["own.greedy"]["suites"]["define"]
    none = {"value": 0.0, "low": 0.0, "high": 0.01, "n": 400, "difference": None}
    suite["metrics"]["trace_structural"] = {"sft": none, "pt0.3+sft0.7": none}
    lengths = facts["define"]["metrics"]["output_tokens"]
    suite["metrics"]["output_tokens"] = {"sft": lengths["sft"], "pt0.3+sft0.7": lengths[form]}
    answer = next(a for a in answers_of({"summary": whole}, 2.0) if a["id"] == "traces-return")
    assert answer["outcome"] == "no"
    assert (" But its answers are 2.8 times as long as those of sft (25 and 9 tokens)" in answer["sentence"]) is said
    assert answer["short"].endswith(", but answers 2.8 times as long") is said
