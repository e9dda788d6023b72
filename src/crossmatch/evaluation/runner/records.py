"""From answers to the records that are stored."""

import math
from collections.abc import Callable, Sequence

from crossmatch.checkpoint import bytes_digest
from crossmatch.data.suites import Item
from crossmatch.errors import DataError
from crossmatch.evaluation.metrics.answer_extraction import read_choice
from crossmatch.evaluation.metrics.choice_accuracy import original, shuffled
from crossmatch.evaluation.metrics.reasoning_traces import openers, parse_trace
from crossmatch.evaluation.record import Record
from crossmatch.evaluation.runner.answer_log import Answers
from crossmatch.evaluation.runner.answer_step import step_fields
from crossmatch.evaluation.runner.questions import Questions

# Characters of a document that its record shows; it has the digest of the whole.
_BEGINNING = 120


def _text_record(questions: Questions, item: Item, sheet: Answers) -> list[Record]:
    beginning = item.question if len(item.question) <= _BEGINNING else item.question[:_BEGINNING] + "..."
    size = len(item.question.encode())
    return [{**_asked(questions, item), "question": beginning, "bytes": size, **sheet.get("text", item.id)}]


def _compared(questions: Questions, item: Item, sheet: Answers) -> Record:
    if "kl" not in questions.parts or item not in questions.items("kl"):
        return {}
    return {"kl": sheet.get("kl", item.id)}


def _asked(questions: Questions, item: Item) -> Record:
    digest = bytes_digest(questions.prompts[item.id].encode())
    return {"id": item.id, "question": item.question, "prompt_digest": digest}


def answer_records(questions: Questions, item: Item, sheet: Answers) -> list[Record]:
    """The records of an item's answers, one for each seed."""
    settings = questions.suite.settings
    opening, compared = _opening(questions, item, sheet), _compared(questions, item, sheet)
    opened = _opened(questions, item)
    again = sheet.get("sustain", item.id) if settings.sustain else {}
    unknown = {k: v for part in (again, opening) for k, v in part.items() if k == "failed"}
    records = []
    for number, seed in enumerate(questions.condition.seeds):
        # An item of which a part was not answered counts as not answered: its figures would be those of fewer items.
        found = {**sheet.get(f"answer {seed}", item.id), **unknown}
        record = {**_asked(questions, item), "seed": seed}
        if questions.suite.settings.kind == "instructions":
            record["checks"] = [[kind, dict(arguments)] for kind, arguments in item.checks]
        else:
            record["reference"] = item.reference
        if "failed" in found:
            records.append({**record, "failed": found["failed"]})
            continue
        trace = parse_trace(found["output"], settings.reasoning_formats, opened.get("opened"))
        parsed = {"state": trace.state, "lexical": trace.lexical, "share": trace.share}
        records.append({**record, **found, **opened, "answer": trace.answer, "trace": parsed, **opening, **compared})
        records[-1] |= step_fields(sheet.get("steps", item.id)["steps"][number])
        if settings.sustain and seed == questions.condition.seeds[0]:
            records[-1]["sustain"] = again
    return records


def _opened(questions: Questions, item: Item) -> Record:
    """The format of the block that the prompt left open; of most prompts nothing."""
    opened = questions.opened(item)
    return {} if opened is None else {"opened": opened}


def _opening(questions: Questions, item: Item, sheet: Answers) -> Record:
    if not questions.scored:
        return {}
    found = sheet.get("opening", item.id)
    if "failed" in found:
        return {"failed": found["failed"]}
    names = openers(questions.suite.settings.language)
    scores = dict(zip(names, found["loglikelihoods"], strict=True))
    return {"opener_loglikelihoods": scores, "entropy": found["entropy"], "margin": found["margin"]}


def _choice_record(questions: Questions, item: Item, sheet: Answers) -> list[Record]:
    record: Record = {**_asked(questions, item), "options": list(item.options), "right": item.answer}
    between = questions.suite.settings.between
    for part in questions.parts:
        found = sheet.get(part, item.id)
        if "failed" in found:
            return [{**record, "failed": found["failed"]}]
        kind, _, number = part.partition(" ")
        if kind == "options":
            record |= _chosen(item, found["loglikelihoods"], questions.suite.continuations(item), between)
            record |= {"entropy": found["entropy"], "margin": found["margin"]}
            if questions.suite.settings.permutations:
                record["orders"] = [record["chosen"]]
        elif kind == "order":
            other, order = shuffled(item, questions.suite.settings.permutations, int(number))
            place = _chosen(other, found["loglikelihoods"], questions.suite.continuations(other), between)["chosen"]
            record["orders"].append(original(order, place))
        elif kind == "sustain":
            record["sustain"] = found
        elif kind == "steps":
            record["generated"] = [a | step_fields(s) for a, s in zip(record["generated"], found["steps"], strict=True)]
        else:
            opened, formats = _opened(questions, item), questions.suite.settings.reasoning_formats
            answer = parse_trace(found["output"], formats, opened.get("opened")).answer
            chosen = read_choice(answer, item.options, questions.suite.settings.language)
            record.setdefault("generated", []).append({"seed": int(number), **found, **opened, "chosen": chosen})
    return [record]


def check_scores(item: Item, scores: Sequence[float]) -> None:
    """Raise DataError where nothing could be chosen: an option without any probability is worse than others, but one
    whose log-likelihood is not a number is neither better nor worse."""
    if any(math.isnan(score) or score == math.inf for score in scores):
        reason = "a log-likelihood is not a number: the weights give NaN or infinite values"
        raise DataError(f"item {item.id}: {reason}; leave this variant out")


def _chosen(item: Item, scores: list[float], options: Sequence[str], between: str) -> Record:
    """The option of the highest log-likelihood; and of the highest per character of its own text, delimiter aside."""
    check_scores(item, scores)
    lengths = [max(1, len(option) - len(between)) for option in options]
    by_length = [score / length for score, length in zip(scores, lengths, strict=True)]
    best, normalised = scores.index(max(scores)), by_length.index(max(by_length))
    return {"loglikelihoods": scores, "chosen": best, "chosen_norm": normalised}


RECORDS: dict[str, Callable[[Questions, Item, Answers], list[Record]]] = {
    "choice": _choice_record,
    "text": _text_record,
}
