"""The probe of SustainScore: every question that a model answered well is asked it again, with constraints below it
that its own answer meets already (see `crossmatch.evaluation.metrics.sustain`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.checkpoint import bytes_digest
from crossmatch.data.suites import Item, Suite
from crossmatch.data.trace_blocks import opened_by
from crossmatch.data.turn_ends import Stops
from crossmatch.evaluation.conditions import Condition
from crossmatch.evaluation.inference.protocol import EOS, Failed, Generated, Model, item_seed
from crossmatch.evaluation.metrics.answer_extraction import read_choice
from crossmatch.evaluation.metrics.bleu_rouge import rouge_f
from crossmatch.evaluation.metrics.ifeval import Constraint, check
from crossmatch.evaluation.metrics.reasoning_traces import parse_trace
from crossmatch.evaluation.metrics.sustain import already_met, with_constraints
from crossmatch.evaluation.record import Record
from crossmatch.evaluation.runner.answer_log import Answers


@dataclass(frozen=True)
class Again:
    """A suite under a condition, whose questions are asked again; stops: where an answer ends."""

    suite: Suite
    condition: Condition
    tokenizer: Any
    stops: Stops = EOS

    def prompt(self, item: Item, constraints: Sequence[Constraint]) -> str:
        """The same dialogue, with constraints below its last question."""
        *before, last = self.suite.messages(item)
        turns = [*before, {**last, "content": with_constraints(last["content"], constraints)}]
        return self.condition.template.prompt(self.tokenizer, turns)

    def answer(self, prompt: str, output: str) -> str:
        """An output without its trace, which the prompt may have opened."""
        formats = self.suite.settings.reasoning_formats
        return parse_trace(output, formats, opened_by(prompt, formats)).answer

    def score(self, item: Item, answer: str) -> float:
        """The task's score of an answer without its trace, 0 to 1: right or wrong, or ROUGE-L's F."""
        if self.suite.settings.kind == "choice":
            return float(read_choice(answer, item.options, self.suite.settings.language) == item.answer)
        return float(rouge_f([answer], [item.reference])["rougeL"][0, 0]) / 100.0


def generated(value: Generated | Failed) -> Record:
    """What a sheet keeps of an answer."""
    if isinstance(value, Failed):
        return {"failed": value.reason}
    found = {"output": value.text, "truncated": value.truncated, "tokens": value.tokens}
    return {**found, "ended": value.ended} if value.ended is not None else found


def ask_again(
    model: Model, questions: Again, items: Sequence[Item], sheet: Answers, keep: Callable[[int, Record], None]
) -> None:
    """Ask what was answered with a score above zero; `keep` gets for every item the scores before and after.

    An item whose answer scores nothing, or meets no constraint that could be inserted, has nothing to lose: after is
    None. The greedy answer is asked for again greedily, a drawn one with the same random numbers.
    """
    seed, count = questions.condition.seeds[0], questions.suite.settings.sustain
    places, prompts, known = [], [], []
    for place, item in enumerate(items):
        first = sheet.get(f"answer {seed}", item.id)
        if "failed" in first:
            keep(place, {"failed": first["failed"]})
            continue
        answer = questions.answer(questions.prompt(item, ()), first["output"])
        before = questions.score(item, answer)
        constraints = already_met(answer, item_seed(0, item.id), count) if before > 0 else []
        if not constraints:
            keep(place, {"before": before, "after": None})
            continue
        places.append(place)
        prompts.append(questions.prompt(item, constraints))
        known.append((before, constraints))

    def done(index: int, value: Generated | Failed) -> None:
        item, (before, constraints) = items[places[index]], known[index]
        found = generated(value)
        if isinstance(value, Generated):
            answer = questions.answer(prompts[index], value.text)
            met = [check(*constraint, prompt=prompts[index], response=answer) for constraint in constraints]
            found |= {"before": before, "after": questions.score(item, answer), "met": sum(met)}
            found |= {"constraints": [[kind, dict(arguments)] for kind, arguments in constraints]}
            found |= {"prompt_digest": bytes_digest(prompts[index].encode())}
        keep(places[index], found)

    seeds = [item_seed(seed, items[place].id) for place in places]
    limit = questions.suite.settings.max_new_tokens
    model.generate(prompts, limit, questions.condition.decoding, seeds, done, questions.stops)
