"""One suite asked of one model under one condition: prompts, answers, and the records that they make."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import factorial
from typing import Any

from crossmatch.checkpoint import bytes_digest
from crossmatch.evaluation.again import Again, ask_again, generated
from crossmatch.evaluation.choices import extract_choice, original, permutations_of
from crossmatch.evaluation.conditions import Condition
from crossmatch.evaluation.kl import Answered, Comparison
from crossmatch.evaluation.model import DocumentScore, Failed, FirstToken, Generated, Model, Windows, item_seed
from crossmatch.evaluation.sheets import Record, Sheet
from crossmatch.evaluation.suites import Item, Suite
from crossmatch.evaluation.traces import OPENERS, parse_trace
from crossmatch.progress import Task

# Characters of a document that its record shows; it has the digest of the whole.
_BEGINNING = 120


@dataclass(frozen=True)
class Questions:
    """A suite under a condition.

    scored: whether options and openers are scored; once per template is enough. kl: how a variant is compared with
    others on the reference answers of the first `compared` items (None: it is not).
    """

    suite: Suite
    condition: Condition
    tokenizer: Any
    scored: bool = True
    kl: Comparison | None = None
    compared: int = 0

    @property
    def parts(self) -> list[str]:
        """What is asked of every item: `answer N` by seed, `sustain`, `opening`, `kl`, `options`, `order N`, `text`."""
        settings, seeds = self.suite.settings, self.condition.seeds
        answers = [f"answer {seed}" for seed in seeds]
        if settings.kind == "text":
            return ["text"]
        if settings.kind == "choice":
            orders = [f"order {number}" for number in range(settings.permutations)]
            generated = [*answers, *self._again] if settings.generative else []
            return [*(["options", *orders] if self.scored else []), *generated]
        compared = self.scored and self.kl is not None and settings.kind == "generation"
        asked = [*answers, *self._again]
        return [*asked, *(["opening"] if self.scored else []), *(["kl"] if compared else [])]

    @property
    def _again(self) -> list[str]:
        """Asked after the answers: the same with constraints that these meet already; of several seeds the first."""
        return ["sustain"] if self.suite.settings.sustain else []

    def items(self, part: str) -> tuple[Item, ...]:
        """The items of which a part is asked."""
        return self.suite.items[: self.compared] if part == "kl" else self.suite.items

    @property
    def renderer(self) -> Again:
        """How an item is asked again."""
        return Again(self.suite, self.condition, self.tokenizer)

    def answered(self, items: Sequence[Item]) -> list[Answered]:
        """Items with their reference answers, as these go on from the prompt."""
        between = self.suite.settings.between
        return [Answered(item.id, self.prompts[item.id], between + item.reference) for item in items]

    def prepare(self) -> None:
        """Have what others must be asked for."""
        if self.kl is not None and "kl" in self.parts:
            self.kl.prepare(self.answered(self.items("kl")))

    @property
    def count(self) -> int:
        """How much there is to ask."""
        return sum(len(self.items(part)) for part in self.parts)

    @cached_property
    def prompts(self) -> dict[str, str]:
        """Every item as the model reads it, by its id. Raises DataError if the template cannot render one."""
        return {item.id: self.prompt(item) for item in self.suite.items}

    def prompt(self, item: Item) -> str:
        """An item, with its options as they stand, as the model reads it. Raises DataError if it cannot be rendered."""
        if self.suite.settings.kind == "text":
            return item.question
        if not self.suite.settings.chat:
            return self.suite.prompt_text(item)
        return self.condition.template.prompt(self.tokenizer, self.suite.messages(item))

    def shuffled(self, item: Item, number: int) -> tuple[Item, tuple[int, ...]]:
        """An item with its options in another order than the given one, and that order; few options have few orders,
        which then come again."""
        count = min(self.suite.settings.permutations + 1, factorial(len(item.options)))
        others = permutations_of(len(item.options), count, 0)[1:]
        order = others[number % len(others)]
        options = tuple(item.options[place] for place in order)
        return replace(item, options=options, answer=order.index(item.answer)), order


def ask(model: Model, questions: Questions, sheet: Sheet, task: Task) -> list[Record]:
    """Ask what the sheet does not have yet, and return one record per answer (generation) or item (others)."""
    answers = [part for part in questions.parts if part.startswith("answer ")]
    for part in questions.parts:
        if part not in answers:
            _ask_part(model, questions, part, _open(questions, part, sheet, task), sheet, task)
        elif part == answers[0]:
            _ask_answers(model, questions, {part: _open(questions, part, sheet, task) for part in answers}, sheet, task)
    make = _RECORDS.get(questions.suite.settings.kind, _answer_records)
    return [record for item in questions.suite.items for record in make(questions, item, sheet)]


def _open(questions: Questions, part: str, sheet: Sheet, task: Task) -> list[Item]:
    """The items of which this part is not there yet."""
    items = questions.items(part)
    places = sheet.missing(part, [item.id for item in items])
    task.advance(len(items) - len(places))
    return [items[place] for place in places]


def _ask_answers(
    model: Model, questions: Questions, open_items: Mapping[str, Sequence[Item]], sheet: Sheet, task: Task
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
        model.generate(prompts, limit, questions.condition.decoding, seeds, done)


def _ask_part(model: Model, questions: Questions, part: str, items: Sequence[Item], sheet: Sheet, task: Task) -> None:
    if not items:
        return
    kind, _, number = part.partition(" ")
    settings = questions.suite.settings
    keep = _keeper(items, sheet, part, task)
    if kind == "sustain":
        ask_again(model, questions.renderer, items, sheet, keep)
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
    asked = [questions.shuffled(item, int(number))[0] if kind == "order" else item for item in items]
    options: list[Sequence[str]] = [OPENERS[settings.language]] * len(asked)
    if kind != "opening":
        options = [questions.suite.continuations(item) for item in asked]
    prompts = [questions.prompt(item) if kind == "order" else questions.prompts[item.id] for item in asked]
    model.openings(prompts, options, lambda i, values, first: keep(i, _scored(values, first)))


def _keeper(items: Sequence[Item], sheet: Sheet, part: str, task: Task) -> Callable[[int, Record], None]:
    def keep(index: int, fields: Record) -> None:
        sheet.add(part, items[index].id, fields)
        task.advance()

    return keep


def _scored(values: list[float] | Failed, first: FirstToken | None) -> Record:
    if isinstance(values, Failed):
        return {"failed": values.reason}
    seen = {"entropy": first.entropy, "margin": first.margin} if first else {"entropy": None, "margin": None}
    return {"loglikelihoods": values, **seen}


def _document(value: DocumentScore | Failed) -> Record:
    return {"failed": value.reason} if isinstance(value, Failed) else asdict(value)


def _text_record(questions: Questions, item: Item, sheet: Sheet) -> list[Record]:
    beginning = item.question if len(item.question) <= _BEGINNING else item.question[:_BEGINNING] + "..."
    size = len(item.question.encode())
    return [{**_asked(questions, item), "question": beginning, "bytes": size, **sheet.get("text", item.id)}]


def _compared(questions: Questions, item: Item, sheet: Sheet) -> Record:
    if "kl" not in questions.parts or item not in questions.items("kl"):
        return {}
    return {"kl": sheet.get("kl", item.id)}


def _asked(questions: Questions, item: Item) -> Record:
    digest = bytes_digest(questions.prompts[item.id].encode())
    return {"id": item.id, "question": item.question, "prompt_digest": digest}


def _answer_records(questions: Questions, item: Item, sheet: Sheet) -> list[Record]:
    settings = questions.suite.settings
    opening, compared = _opening(questions, item, sheet), _compared(questions, item, sheet)
    again = sheet.get("sustain", item.id) if settings.sustain else {}
    unknown = {k: v for part in (again, opening) for k, v in part.items() if k == "failed"}
    records = []
    for seed in questions.condition.seeds:
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
        trace = parse_trace(found["output"])
        parsed = {"state": trace.state, "lexical": trace.lexical, "share": trace.share}
        records.append({**record, **found, "answer": trace.answer, "trace": parsed, **opening, **compared})
        if settings.sustain and seed == questions.condition.seeds[0]:
            records[-1]["sustain"] = again
    return records


def _opening(questions: Questions, item: Item, sheet: Sheet) -> Record:
    if not questions.scored:
        return {}
    found = sheet.get("opening", item.id)
    if "failed" in found:
        return {"failed": found["failed"]}
    names = OPENERS[questions.suite.settings.language]
    scores = dict(zip(names, found["loglikelihoods"], strict=True))
    return {"opener_loglikelihoods": scores, "entropy": found["entropy"], "margin": found["margin"]}


def _choice_record(questions: Questions, item: Item, sheet: Sheet) -> list[Record]:
    record: Record = {**_asked(questions, item), "options": list(item.options), "right": item.answer}
    for part in questions.parts:
        found = sheet.get(part, item.id)
        if "failed" in found:
            return [{**record, "failed": found["failed"]}]
        kind, _, number = part.partition(" ")
        if kind == "options":
            record |= _chosen(found["loglikelihoods"], questions.suite.continuations(item))
            record |= {"entropy": found["entropy"], "margin": found["margin"]}
            if questions.suite.settings.permutations:
                record["orders"] = [record["chosen"]]
        elif kind == "order":
            other, order = questions.shuffled(item, int(number))
            place = _chosen(found["loglikelihoods"], questions.suite.continuations(other))["chosen"]
            record["orders"].append(original(order, place))
        elif kind == "sustain":
            record["sustain"] = found
        else:
            chosen = extract_choice(found["output"], item.options)
            record.setdefault("generated", []).append({"seed": int(number), **found, "chosen": chosen})
    return [record]


def _chosen(scores: list[float], options: Sequence[str]) -> Record:
    by_length = [score / max(1, len(option.strip())) for score, option in zip(scores, options, strict=True)]
    best, normalised = scores.index(max(scores)), by_length.index(max(by_length))
    return {"loglikelihoods": scores, "chosen": best, "chosen_norm": normalised}


_RECORDS: dict[str, Callable[[Questions, Item, Sheet], list[Record]]] = {
    "choice": _choice_record,
    "text": _text_record,
}
