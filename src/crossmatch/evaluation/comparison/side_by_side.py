"""Answers side by side: one row a question, one column a variant."""

from collections.abc import Sequence

from crossmatch.data.reasoning_formats import ReasoningFormat
from crossmatch.data.suites import Suite
from crossmatch.evaluation.conditions import OWN, Condition
from crossmatch.evaluation.metrics.reasoning_traces import parse_trace, utf16_spans
from crossmatch.evaluation.record import Records
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.results.record import RecordJson
from crossmatch.results.samples import SampleAnswerJson, SampleRowJson, SamplesJson, SampleSuiteJson, WrittenJson

Formats = tuple[ReasoningFormat, ...]


def side_by_side(
    records: Records,
    variants: Sequence[Variant],
    suites: Sequence[Suite],
    *,
    conditions: Sequence[Condition] = OWN,
) -> SamplesJson:
    """For every condition and suite its questions, each with the reference or right option and every variant's answer;
    of several seeds the first. Plain text has no answers to show.

    An answer in words has `marks`: [begin, end] of what counts as trace, in units of UTF-16. A choice that is both
    scored and generated shows the option, and the text under `generated`.
    """
    names = [variant.name for variant in variants]
    result: SamplesJson = {"schema_version": 1, "variants": names, "conditions": {}}
    for condition in conditions:
        found: dict[str, SampleSuiteJson] = {}
        for suite in suites:
            columns = [_first(records.get((v, suite.settings.name, condition.name), [])) for v in names]
            if all(columns) and suite.settings.kind != "text":
                rows = [_row(suite, list(answers)) for answers in zip(*columns, strict=True)]
                found[suite.settings.name] = {"kind": suite.settings.kind, "rows": rows}
        result["conditions"][condition.name] = found
    return result


def _first(rows: Sequence[RecordJson]) -> list[RecordJson]:
    seeds = [row["seed"] for row in rows if "seed" in row]
    return [row for row in rows if not seeds or row["seed"] == seeds[0]]


def _row(suite: Suite, answers: list[RecordJson]) -> SampleRowJson:
    first, formats = answers[0], suite.settings.reasoning_formats
    if suite.settings.kind == "choice":
        wanted, given = first["options"][first["right"]], [_chosen(a, formats) for a in answers]
    else:
        wanted = first.get("reference") or "; ".join(kind for kind, _ in first.get("checks", ()))
        given = [_given(a, formats) for a in answers]
    return {"id": first["id"], "question": first["question"], "reference": wanted, "answers": given}


def _chosen(answer: RecordJson, formats: Formats) -> SampleAnswerJson:
    """The option of the highest score and the generated text, each where it was asked for."""
    if "failed" in answer:
        return {"text": f"(no answer: {answer['failed']})", "right": None}
    written = _written(answer, formats) if "generated" in answer else None
    if "chosen" not in answer:
        return {**written} if written else {"text": ""}
    scored: SampleAnswerJson = {
        "text": answer["options"][answer["chosen"]],
        "right": answer["chosen"] == answer["right"],
    }
    return {**scored, "generated": written} if written else scored


def _written(answer: RecordJson, formats: Formats) -> WrittenJson:
    first = answer["generated"][0]
    return {**_marked(first["output"], formats, first.get("opened")), "right": first["chosen"] == answer["right"]}


def _given(answer: RecordJson, formats: Formats) -> SampleAnswerJson:
    if "failed" in answer:
        return {**_marked(f"(no answer: {answer['failed']})", formats)}
    return {**_marked(answer["output"], formats, answer.get("opened"))}


def _marked(text: str, formats: Formats, opened: str | None = None) -> WrittenJson:
    """A text with its traces: whether it has them, and where, as a page's script counts characters."""
    trace = parse_trace(text, formats, opened)
    marks = sorted(utf16_spans(text, trace.structural_spans + trace.lexical_spans))
    return {"text": text, "trace": trace.state, "lexical": trace.lexical, "marks": marks}
