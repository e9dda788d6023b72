"""Answers side by side: one row a question, one column a variant."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.evaluation.run import Record
from crossmatch.evaluation.suites import Suite
from crossmatch.evaluation.variants import Variant


def side_by_side(
    records: Mapping[tuple[str, str], list[Record]], variants: Sequence[Variant], suites: Sequence[Suite]
) -> dict[str, Any]:
    """For every suite its questions, each with the reference or right option and every variant's answer."""
    result: dict[str, Any] = {"variants": [v.name for v in variants], "suites": {}}
    for suite in suites:
        name = suite.settings.name
        columns = [records[v.name, name] for v in variants]
        rows = [_row(suite, list(answers)) for answers in zip(*columns, strict=True)]
        result["suites"][name] = {"kind": suite.settings.kind, "rows": rows}
    return result


def _row(suite: Suite, answers: list[Record]) -> dict[str, Any]:
    first = answers[0]
    if suite.settings.kind == "generation":
        given = [{"text": a["output"], "trace": a["trace"]["state"], "lexical": a["trace"]["lexical"]} for a in answers]
        return {"id": first["id"], "question": first["question"], "reference": first["reference"], "answers": given}
    given = [{"text": a["options"][a["chosen"]], "right": a["chosen"] == a["right"]} for a in answers]
    right = first["options"][first["right"]]
    return {"id": first["id"], "question": first["question"], "reference": right, "answers": given}
