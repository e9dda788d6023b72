"""One suite asked of one model under one condition: prompts, answers, and the records that they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crossmatch.checkpoint import bytes_digest
from crossmatch.evaluation.choices import extract_choice, original, permutations_of
from crossmatch.evaluation.conditions import Condition
from crossmatch.evaluation.model import Failed, FirstToken, Generated, Model
from crossmatch.evaluation.sheets import Record, Sheet
from crossmatch.evaluation.suites import Item, Suite
from crossmatch.evaluation.traces import OPENERS, parse_trace
from crossmatch.progress import Task


@dataclass(frozen=True)
class Questions:
    """A suite under a condition. scored: whether options and openers are scored; once per template is enough."""

    suite: Suite
    condition: Condition
    tokenizer: Any
    scored: bool = True

    @property
    def parts(self) -> list[str]:
        """What is asked of every item: `answer N` by seed, `opening`, `options`, `order N`."""
        settings, seeds = self.suite.settings, self.condition.seeds
        answers = [f"answer {seed}" for seed in seeds]
        if settings.kind == "choice":
            orders = [f"order {number}" for number in range(settings.permutations)]
            return [*(["options", *orders] if self.scored else []), *(answers if settings.generative else [])]
        return [*answers, *(["opening"] if self.scored else [])]

    def prompt(self, item: Item) -> str:
        """An item as the model reads it. Raises DataError if the template cannot render it."""
        if not self.suite.settings.chat:
            return self.suite.prompt_text(item)
        return self.condition.template.prompt(self.tokenizer, self.suite.messages(item))

    def shuffled(self, item: Item, number: int) -> tuple[Item, tuple[int, ...]]:
        """An item with its options in another order, and that order."""
        orders = permutations_of(len(item.options), self._orders(item), 0)
        order = orders[number % len(orders)]
        options = tuple(item.options[place] for place in order)
        return replace(item, options=options, answer=order.index(item.answer)), order

    def _orders(self, item: Item) -> int:
        count = 1
        for n in range(2, len(item.options) + 1):
            count *= n
        return min(self.suite.settings.permutations, count)


def ask(model: Model, questions: Questions, sheet: Sheet, task: Task) -> list[Record]:
    """Ask what the sheet does not have yet, and return one record per answer (generation) or item (others)."""
    items = questions.suite.items
    keys = [item.id for item in items]
    for part in questions.parts:
        open_places = sheet.missing(part, keys)
        task.advance(len(keys) - len(open_places))
        _ask_part(model, questions, part, [items[place] for place in open_places], sheet, task)
    make = _choice_record if questions.suite.settings.kind == "choice" else _answer_records
    prompts = {item.id: questions.prompt(item) for item in items}
    return [record for item in items for record in make(questions, item, prompts[item.id], sheet)]


def _ask_part(model: Model, questions: Questions, part: str, items: Sequence[Item], sheet: Sheet, task: Task) -> None:
    if not items:
        return
    kind, _, number = part.partition(" ")
    settings = questions.suite.settings
    if kind == "answer":
        decoding = next(d for d in questions.condition.decodings if d.seed == int(number))
        keep = _keeper(items, sheet, part, task)
        prompts, keys = [questions.prompt(item) for item in items], [item.id for item in items]
        model.generate(prompts, settings.max_new_tokens, decoding, keys, lambda i, value: keep(i, _generated(value)))
        return
    asked = [questions.shuffled(item, int(number))[0] if kind == "order" else item for item in items]
    options: list[Sequence[str]] = [OPENERS[settings.language]] * len(asked)
    if kind != "opening":
        options = [questions.suite.continuations(item) for item in asked]
    keep = _keeper(items, sheet, part, task)
    model.openings(
        [questions.prompt(item) for item in asked], options, lambda i, values, first: keep(i, _scored(values, first))
    )


def _keeper(items: Sequence[Item], sheet: Sheet, part: str, task: Task) -> Callable[[int, Record], None]:
    def keep(index: int, fields: Record) -> None:
        sheet.add(part, items[index].id, fields)
        task.advance()

    return keep


def _generated(value: Generated | Failed) -> Record:
    if isinstance(value, Failed):
        return {"failed": value.reason}
    return {"output": value.text, "truncated": value.truncated, "tokens": value.tokens}


def _scored(values: list[float] | Failed, first: FirstToken | None) -> Record:
    if isinstance(values, Failed):
        return {"failed": values.reason}
    seen = {"entropy": first.entropy, "margin": first.margin} if first else {"entropy": None, "margin": None}
    return {"loglikelihoods": values, **seen}


def _asked(questions: Questions, item: Item, prompt: str) -> Record:
    return {"id": item.id, "question": item.question, "prompt_digest": bytes_digest(prompt.encode())}


def _answer_records(questions: Questions, item: Item, prompt: str, sheet: Sheet) -> list[Record]:
    opening: Record = {}
    if questions.scored:
        found = sheet.get("opening", item.id)
        names = OPENERS[questions.suite.settings.language]
        scores = dict(zip(names, found["loglikelihoods"], strict=True)) if "loglikelihoods" in found else None
        opening = {"opener_loglikelihoods": scores, "entropy": found.get("entropy"), "margin": found.get("margin")}
    records = []
    for seed in questions.condition.seeds:
        found = sheet.get(f"answer {seed}", item.id)
        record = {**_asked(questions, item, prompt), "seed": seed}
        if questions.suite.settings.kind == "instructions":
            record["checks"] = [[kind, dict(arguments)] for kind, arguments in item.checks]
        else:
            record["reference"] = item.reference
        if "failed" in found:
            records.append({**record, **found})
            continue
        trace = parse_trace(found["output"])
        parsed = {"state": trace.state, "lexical": trace.lexical, "share": trace.share}
        records.append({**record, **found, "answer": trace.answer, "trace": parsed, **opening})
    return records


def _choice_record(questions: Questions, item: Item, prompt: str, sheet: Sheet) -> list[Record]:
    record = {**_asked(questions, item, prompt), "options": list(item.options), "right": item.answer}
    for part in questions.parts:
        found = sheet.get(part, item.id)
        if "failed" in found:
            return [{**record, "failed": found["failed"]}]
        kind, _, number = part.partition(" ")
        if kind == "options":
            record |= _chosen(found["loglikelihoods"], questions.suite.continuations(item))
            record |= {"entropy": found["entropy"], "margin": found["margin"]}
        elif kind == "order":
            other, order = questions.shuffled(item, int(number))
            place = _chosen(found["loglikelihoods"], questions.suite.continuations(other))["chosen"]
            record.setdefault("orders", []).append(original(order, place))
        else:
            chosen = extract_choice(found["output"], item.options)
            record.setdefault("generated", []).append({"seed": int(number), **found, "chosen": chosen})
    return [record]


def _chosen(scores: list[float], options: Sequence[str]) -> Record:
    by_length = [score / max(1, len(option.strip())) for score, option in zip(scores, options, strict=True)]
    best, normalised = scores.index(max(scores)), by_length.index(max(by_length))
    return {"loglikelihoods": scores, "chosen": best, "chosen_norm": normalised}
