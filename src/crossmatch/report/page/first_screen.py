"""The top of the page: answers in sentences, the compact table, what to do, and every question by itself."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.report.answer_sentences import next_step, sentences
from crossmatch.report.compact_table import compact
from crossmatch.report.text import plain
from crossmatch.results.metrics import metric_of

Json = Mapping[str, Any]
_FIRST = ("is-as-claimed", "test-set-clean", "interferes")
_OPENS = re.compile(r"^(Yes|No|Cannot tell): ")


def gist_view(answers: Sequence[Json], summary: Json | None) -> dict[str, Any]:
    """What the template shows of the answers, and of the summary's first table."""
    return {
        "sentences": [plain(text) for text in sentences(_first(answers, measured=summary is not None))],
        "next": plain(next_step(answers) or "").removeprefix("next: "),
        "answers": [_answer(answer) for answer in answers],
        "table": _table(summary) if summary else None,
    }


def _first(answers: Sequence[Json], *, measured: bool) -> list[Json]:
    """Of a page that measures a task, answers about weights alone stand further below."""
    return [a for a in answers if not measured or a["id"] in _FIRST or a["condition"]]


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.+-]+", "-", plain(name)).strip("-.") or "report"


def _answer(answer: Json) -> dict[str, Any]:
    text = _OPENS.sub("", plain(answer["sentence"]))
    style = "unsure" if answer["outcome"] == "cannot tell" else "good" if answer["outcome"] == answer["good"] else "bad"
    return {
        "question": plain(answer["question"]),
        "condition": answer["condition"],
        "outcome": answer["outcome"],
        "style": style,
        "sentence": text if text.startswith(answer["about"] or text) else text[:1].upper() + text[1:],
        "next": plain(answer["next"] or ""),
        "evidence": [{"where": plain(e["where"]), "text": plain(e["text"])} for e in answer["evidence"]],
    }


def _table(summary: Json) -> dict[str, Any] | None:
    found = compact(summary)
    if found is None or not found.columns:
        return None
    heads = [
        {"title": column.title, "suite": plain(column.suite), "n": column.n, "help": metric_of(column.metric).says}
        for column in found.columns
    ]
    rows = [
        {"name": name, "reference": name == found.reference, "cells": [c.shown(name) for c in found.columns]}
        for name in found.rows()
    ]
    return {"heads": heads, "rows": rows, "reference": found.reference, "condition": found.condition}
