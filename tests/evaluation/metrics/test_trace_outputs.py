"""How well traces, answers and hesitation are found: 234 outputs in the ways of some sixty public models, labelled.

They were written and labelled for this project before the expressions were widened; these were fitted to the part `seen`
alone, and `held_out` was only measured. Both are by one hand: what a model writes otherwise, they do not know.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossmatch.data.trace_blocks import SPECIAL_TOKENS, opened_by
from crossmatch.evaluation.metrics.answer_extraction import read_choice
from crossmatch.evaluation.metrics.reasoning_traces import Trace, parse_trace

ROWS = [json.loads(line) for line in Path(__file__).with_name("trace_outputs.jsonl").read_text("utf-8").splitlines()]
OPTIONS = ("Pulmonary embolism", "Pneumonia", "Heart failure", "Asthma")


def parsed(part: str) -> Iterator[tuple[dict[str, Any], Trace]]:
    for row in ROWS:
        if row["part"] == part:
            yield row, parse_trace(row["output"], opened=opened_by(row["prompt"]))


def bare(text: str) -> str:
    """A text without what ends turns, which generation takes away."""
    return re.sub(SPECIAL_TOKENS, "", text).strip()


def test_there_are_enough_of_both_parts() -> None:
    assert len({(row["prompt"], row["output"]) for row in ROWS}) == len(ROWS) >= 200
    assert all(sum(row["part"] == part for row in ROWS) >= 100 for part in ("seen", "held_out"))


@pytest.mark.parametrize("part", ["seen", "held_out"])
def test_whether_there_is_a_trace_and_whether_it_is_closed(part: str) -> None:
    wrong = [(row["output"], trace.state) for row, trace in parsed(part) if trace.state != row["state"]]
    assert len(wrong) <= 0.02 * len(ROWS) / 2, wrong


@pytest.mark.parametrize("part", ["seen", "held_out"])
def test_where_the_answer_begins_and_which_option_it_names(part: str) -> None:
    told = [(row, trace) for row, trace in parsed(part) if row["answer"] is not None]
    wrong = [(row["output"], trace.answer) for row, trace in told if bare(trace.answer) != bare(row["answer"])]
    assert len(wrong) <= 0.04 * len(told), wrong
    read = [(row, read_choice(trace.answer, OPTIONS)) for row, trace in parsed(part) if row["right"] is not None]
    assert [(row["output"], found) for row, found in read if found not in (None, row["right"])] == []
    assert sum(found is not None for _, found in read) >= 0.97 * len(read)


@pytest.mark.parametrize("part", ["seen", "held_out"])
def test_headings_and_hesitation_without_markers(part: str) -> None:
    rows = list(parsed(part))
    assert [row["output"] for row, trace in rows if trace.untagged != row["untagged"]] == []
    counted = [(row, trace) for row, trace in rows if row["hesitations"] is not None]
    assert [
        (row["output"], trace.hesitations) for row, trace in counted if trace.hesitations != row["hesitations"]
    ] == []
