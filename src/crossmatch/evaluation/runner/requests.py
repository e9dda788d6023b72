"""One suite asked of one model under one condition: prompts, answers, and the records that they make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from crossmatch.data.suites import Item
from crossmatch.evaluation.inference.protocol import (
    DocumentScore,
    Failed,
    FirstToken,
    Generated,
    Model,
    Windows,
    item_seed,
)
from crossmatch.evaluation.metrics.choice_accuracy import shuffled
from crossmatch.evaluation.metrics.reasoning_traces import openers
from crossmatch.evaluation.record import Record
from crossmatch.evaluation.runner.answer_log import Answers
from crossmatch.evaluation.runner.answer_step import Asked, ask_steps
from crossmatch.evaluation.runner.questions import Questions
from crossmatch.evaluation.runner.records import RECORDS, answer_records, check_scores
from crossmatch.evaluation.runner.sustain_probe import ask_again, generated
from crossmatch.runtime import Task


def ask(model: Model, questions: Questions, sheet: Answers, task: Task) -> list[Record]:
    """Ask what the sheet does not have yet, and return one record per answer (generation) or item (others)."""
    ask_missing(model, questions, sheet, task)
    return records_of(questions, sheet)


def ask_missing(model: Model, questions: Questions, sheet: Answers, task: Task) -> None:
    """Ask what the sheet does not have yet."""
    model.too_long = questions.suite.settings.too_long
    answers = [part for part in questions.parts if part.startswith("answer ")]
    for part in questions.parts:
        if part not in answers:
            _ask_part(model, questions, part, _open(questions, part, sheet, task), sheet, task)
        elif part == answers[0]:
            _ask_answers(model, questions, {part: _open(questions, part, sheet, task) for part in answers}, sheet, task)


def records_of(questions: Questions, sheet: Answers) -> list[Record]:
    """One record per answer (generation) or item (others), of a sheet that has them all."""
    make = RECORDS.get(questions.suite.settings.kind, answer_records)
    return [record for item in questions.suite.items for record in make(questions, item, sheet)]


def _open(questions: Questions, part: str, sheet: Answers, task: Task) -> list[Item]:
    """The items of which this part is not there yet."""
    items = questions.items(part)
    places = sheet.missing(part, [item.id for item in items])
    task.advance(len(items) - len(places))
    return [items[place] for place in places]


def _ask_answers(
    model: Model, questions: Questions, open_items: Mapping[str, Sequence[Item]], sheet: Answers, task: Task
) -> None:
    """The answers of all seeds in one call, so that a prompt is read once for all of them."""
    asked = [(part, item) for part, items in open_items.items() for item in items]
    seeds = [item_seed(int(part.partition(" ")[2]), item.id) for part, item in asked]

    def done(index: int, value: Generated | Failed) -> None:
        part, item = asked[index]
        sheet.add(part, item.id, generated(value))
        task.advance()

    if asked:
        prompts = [questions.prompts[item.id] for _, item in asked]
        limit = questions.suite.settings.max_new_tokens
        model.generate(prompts, limit, questions.condition.decoding, seeds, done, questions.stops)


def _ask_part(model: Model, questions: Questions, part: str, items: Sequence[Item], sheet: Answers, task: Task) -> None:
    if not items:
        return
    kind, _, number = part.partition(" ")
    settings = questions.suite.settings
    keep = _keeper(items, sheet, part, task)
    if kind == "sustain":
        ask_again(model, questions.renderer, items, sheet, keep)
        return
    if kind == "steps":
        asked = Asked(questions.prompts, items, questions.condition.seeds, questions.suite.settings.reasoning_formats)
        ask_steps(model, asked, sheet, keep)
        return
    if kind == "kl" and questions.kl is not None:
        questions.kl.ask(
            questions.answered(items), lambda i, value: keep(i, {role: d and d.to_dict() for role, d in value.items()})
        )
        return
    if kind == "text":
        windows = Windows(settings.window, settings.overlap)
        model.documents([item.question for item in items], windows, lambda i, value: keep(i, _document(value)))
        return
    if kind == "opening":
        prompts = [questions.prompts[item.id] for item in items]
        options: list[Sequence[str]] = [openers(settings.language)] * len(items)
    else:
        asked = [
            shuffled(item, questions.suite.settings.permutations, int(number))[0] if kind == "order" else item
            for item in items
        ]
        texts = [questions.prompt(item) if kind == "order" else questions.prompts[item.id] for item in asked]
        pairs = [questions.scorable(text, item) for text, item in zip(texts, asked, strict=True)]
        prompts = [prompt for prompt, _ in pairs]
        options = [found for _, found in pairs]
    model.openings(prompts, options, lambda i, values, first: keep(i, _scored(items[i], values, first)))


def _keeper(items: Sequence[Item], sheet: Answers, part: str, task: Task) -> Callable[[int, Record], None]:
    def keep(index: int, fields: Record) -> None:
        sheet.add(part, items[index].id, fields)
        task.advance()

    return keep


def _scored(item: Item, values: list[float] | Failed, first: FirstToken | None) -> Record:
    if isinstance(values, Failed):
        return {"failed": values.reason}
    check_scores(item, values)
    seen = {"entropy": first.entropy, "margin": first.margin} if first else {"entropy": None, "margin": None}
    return {"loglikelihoods": values, **seen}


def _document(value: DocumentScore | Failed) -> Record:
    return {"failed": value.reason} if isinstance(value, Failed) else asdict(value)
