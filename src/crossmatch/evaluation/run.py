"""Run suites on variants under conditions; every answer goes to a JSONL file with the digests of what produced it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import Checkpoint, side_digest, value_digest
from crossmatch.errors import DataError
from crossmatch.evaluation.asking import Questions, ask
from crossmatch.evaluation.conditions import Cell, Condition, Plan, cells
from crossmatch.evaluation.engine import Engine
from crossmatch.evaluation.model import Model
from crossmatch.evaluation.sheets import Record, Sheet
from crossmatch.evaluation.suites import Suite
from crossmatch.evaluation.variants import Variant
from crossmatch.progress import SILENT, Progress

Records = dict[tuple[str, str, str], list[Record]]
"""Records by names: (variant, suite, condition)."""
OWN = (Condition(),)
DEFAULT = Plan()
SERVED = Variant("served", "served", {})


def evaluate(
    base: Checkpoint,
    adapters: Mapping[str, Adapter],
    variants: Sequence[Variant],
    suites: Sequence[Suite],
    out: Path,
    *,
    plan: Plan = DEFAULT,
    progress: Progress = SILENT,
) -> Records:
    """Answer every suite with every variant under every condition of the plan.

    Records lie in `out/<variant>/<suite>.<condition>.jsonl`. What was made from the same digests is kept, so that the
    same call after an interruption goes on.
    """
    shared = [side_digest(base.path), plan.dtype]
    sheets: dict[tuple[str, str, str], Sheet] = {}
    records: Records = {}
    pending: list[Cell] = []
    models = {variant.name: variant.digest(base, adapters) for variant in variants}
    for cell in cells(variants, suites, plan.conditions):
        inputs = [models[cell.variant.name], cell.suite.digest, cell.condition.digest, cell.scored, *shared]
        sheet = sheets[cell.key] = Sheet(cell.file(out), value_digest(inputs))
        known = sheet.finished()
        if known is None:
            pending.append(cell)
        else:
            records[cell.key] = known
    if pending:
        with progress.task("load model") as loading:
            engine = Engine(base, getattr(torch, plan.dtype) if plan.dtype else None, plan.batch_size)
            loading.advance()
        ready = _becoming(engine, pending, adapters)
        records |= _answer(ready, sheets, models, progress, _amount(engine.tokenizer, pending))
    return records


@dataclass(frozen=True)
class Elsewhere:
    """A model that runs elsewhere.

    tokenizer: whose chat template renders the prompts; digest: of what is known of the server.
    """

    model: Model
    tokenizer: Any
    digest: str
    variant: Variant = SERVED


def evaluate_served(
    served: Elsewhere,
    suites: Sequence[Suite],
    out: Path,
    *,
    conditions: Sequence[Condition] = OWN,
    progress: Progress = SILENT,
) -> Records:
    """The same of a model that runs elsewhere. Items that it did not answer are marked as failed, and such a file is
    asked again by the next call."""
    records: Records = {}
    pending: list[Cell] = []
    sheets: dict[tuple[str, str, str], Sheet] = {}
    for cell in cells([served.variant], suites, conditions):
        inputs = [served.digest, cell.suite.digest, cell.condition.digest, cell.scored]
        sheet = sheets[cell.key] = Sheet(cell.file(out), value_digest(inputs))
        known = sheet.finished()
        if known is None or any("failed" in row for row in known):
            pending.append(cell)
        else:
            records[cell.key] = known
    total = _amount(served.tokenizer, pending)
    ready = ((cell, served.model, served.tokenizer) for cell in pending)
    return records | _answer(ready, sheets, {served.variant.name: served.digest}, progress, total)


def _becoming(
    engine: Engine, pending: Sequence[Cell], adapters: Mapping[str, Adapter]
) -> Iterator[tuple[Cell, Model, Any]]:
    current = None
    for cell in pending:
        if cell.variant is not current:
            engine.become(cell.variant.parts(adapters))
            current = cell.variant
        yield cell, engine, engine.tokenizer


def _amount(tokenizer: Any, pending: Sequence[Cell]) -> int:
    """Answers to come. Raises DataError before the first if a template cannot render a suite."""
    total = 0
    for cell in pending:
        questions = Questions(cell.suite, cell.condition, tokenizer, cell.scored)
        if not all(questions.prompt(item).strip() for item in cell.suite.items):
            raise DataError(f"suite {cell.suite.settings.name}: a prompt is empty under {cell.condition.name}")
        total += len(questions.parts) * len(cell.suite.items)
    return total


def _answer(
    ready: Iterator[tuple[Cell, Model, Any]],
    sheets: Mapping[tuple[str, str, str], Sheet],
    models: Mapping[str, str],
    progress: Progress,
    total: int,
) -> Records:
    records: Records = {}
    with progress.task("evaluate", total) as task:
        for cell, model, tokenizer in ready:
            variant, suite, condition = cell.key
            task.advance(0, f"{variant}, {suite}, {condition}")
            sheet = sheets[cell.key]
            sheet.start()
            try:
                answers = ask(model, Questions(cell.suite, cell.condition, tokenizer, cell.scored), sheet, task)
            finally:
                sheet.close()
            stamp = {"variant": variant, "suite": suite, "suite_version": cell.suite.settings.version}
            stamp |= {"condition": condition, "model_digest": models[variant]}
            records[cell.key] = [{**stamp, **answer} for answer in answers]
            sheet.finish(records[cell.key])
    return records
