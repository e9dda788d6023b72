"""A worker: one loaded model whose weights change in place, and the cells that it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from crossmatch.adapter import Recorded, open_vector
from crossmatch.checkpoint import Checkpoint, value_digest
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.suite_rendering import render_suite
from crossmatch.data.suites import Suite
from crossmatch.data.turn_ends import declared_eos
from crossmatch.errors import DataError
from crossmatch.evaluation.conditions import Cell, Condition, Plan
from crossmatch.evaluation.runner.answer_log import Answers
from crossmatch.evaluation.runner.model_slot import Held
from crossmatch.evaluation.runner.questions import Questions
from crossmatch.evaluation.runner.requests import ask_missing
from crossmatch.evaluation.runner.template_check import ends_by_condition
from crossmatch.evaluation.shards.answer_logs import AnswerLogs
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.runtime import QUIET


@dataclass(frozen=True)
class Shard:
    """Some items of a cell. sheet: digest of all that decides its answers; ids: the items that are asked."""

    cell: Cell
    sheet: str
    ids: tuple[str, ...]

    @property
    def key(self) -> str:
        """Digest of its content."""
        return value_digest([self.sheet, *self.ids])

    @property
    def suite(self) -> Suite:
        """The cell's suite, with these items alone."""
        return of_items(self.cell.suite, self.ids)


def of_items(suite: Suite, ids: Sequence[str]) -> Suite:
    """A suite with these items alone, in this order."""
    items = {item.id: item for item in suite.items}
    return replace(suite, items=tuple(items[key] for key in ids))


@dataclass(frozen=True)
class Workplace:
    """What a worker is started from: where base and adapters are, under what is asked, where answers go.

    threads: of torch's operations (None: as they are). It can be pickled, and calling it starts the worker.
    """

    base: str
    adapters: Mapping[str, str]
    plan: Plan
    answers: Path
    threads: int | None = None

    def __call__(self) -> "ShardWorker":
        """Start a worker; its model is loaded with the first cell."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return ShardWorker(self)


class Asking:
    """How a suite is asked under a condition: prompts and ends of turns, each made once."""

    def __init__(self, base: Checkpoint, adapters: Mapping[str, Recorded]) -> None:
        self.base, self.adapters = base, adapters
        self._prompts: dict[tuple[str, str], dict[str, str]] = {}
        self._ends: dict[str, Any] = {}

    @cached_property
    def tokenizer(self) -> Any:
        """The base's."""
        return open_tokenizer(self.base.path)

    def questions(self, suite: Suite, condition: Condition, scored: bool) -> Questions:
        """What is asked of every item of a suite. Raises DataError for an item that cannot be rendered."""
        known = self._prompts.setdefault((suite.settings.name, condition.template.name), {})
        new = tuple(item for item in suite.items if item.id not in known)
        if new:
            known |= render_suite(replace(suite, items=new), condition.template, self.tokenizer)
        if condition.name not in self._ends:
            eos = declared_eos(self.base.path, self.tokenizer)
            self._ends |= ends_by_condition(self.tokenizer, [condition], eos, self.adapters)
        ends = self._ends[condition.name]
        return Questions(suite, condition, self.tokenizer, scored, known=known, ends=ends)


class ShardWorker:
    """Answers cells into a file of its own."""

    def __init__(self, workplace: Workplace) -> None:
        base = Checkpoint(workplace.base)
        adapters = {name: open_vector(path) for name, path in workplace.adapters.items()}
        self._held = Held(base, adapters, workplace.plan)
        self._asking = Asking(base, adapters)
        self._logs = AnswerLogs(workplace.answers)
        self._variant: Variant | None = None

    def answer(self, cell: Shard) -> None:
        """Ask what no worker has answered of a cell. Raises DataError, with variant and suite, for what cannot be
        asked, and for weights that give no numbers."""
        self._logs.refresh()
        sheet, suite = self._logs.sheet(cell.sheet), cell.suite
        questions = self._asking.questions(suite, cell.cell.condition, cell.cell.scored)
        if not unanswered(questions, sheet):
            return
        variant = cell.cell.variant
        if self._variant != variant:
            self._variant = variant
        try:
            ask_missing(self._held.become(self._variant or variant), questions, sheet, QUIET)
        except DataError as error:
            raise DataError(f"variant {variant.name}, suite {suite.settings.name}: {error}") from error

    def close(self) -> None:
        """Let go of its file."""
        self._logs.close()


def unanswered(questions: Questions, sheet: Answers) -> list[str]:
    """Ids of the items of which some part is not there yet."""
    found: dict[str, None] = {}
    for part in questions.parts:
        items = questions.items(part)
        found |= {items[place].id: None for place in sheet.missing(part, [item.id for item in items])}
    return list(found)
