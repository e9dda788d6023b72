"""Run suites on variants under conditions; every answer goes to a JSONL file with the digests of what produced it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import Checkpoint, side_digest, value_digest
from crossmatch.errors import DataError
from crossmatch.evaluation.asking import Questions, ask
from crossmatch.evaluation.conditions import Cell, Condition, cells
from crossmatch.evaluation.engine import Engine
from crossmatch.evaluation.model import Model
from crossmatch.evaluation.sheets import Record, Sheet
from crossmatch.evaluation.suites import Suite
from crossmatch.evaluation.variants import Variant
from crossmatch.progress import SILENT, Progress

Records = dict[tuple[str, str, str], list[Record]]
"""Records by names: (variant, suite, condition)."""
OWN = (Condition(),)


def evaluate(
    base: Checkpoint,
    adapters: Mapping[str, Adapter],
    variants: Sequence[Variant],
    suites: Sequence[Suite],
    out: Path,
    *,
    conditions: Sequence[Condition] = OWN,
    dtype: str | None = None,
    batch_size: int = 64,
    progress: Progress = SILENT,
) -> Records:
    """Answer every suite with every variant under every condition.

    Records lie in `out/<variant>/<suite>.<condition>.jsonl`. What was made from the same digests is kept, so that the
    same call after an interruption goes on. dtype: as which the variants' weights are stored before they are computed
    with (None: the base's own); batch_size: prompts at a time at most.
    """
    shared = [side_digest(base.path), dtype]
    sheets: dict[tuple[str, str, str], Sheet] = {}
    records: Records = {}
    pending: list[Cell] = []
    models = {variant.name: variant.digest(base, adapters) for variant in variants}
    for cell in cells(variants, suites, conditions):
        inputs = [models[cell.variant.name], cell.suite.digest, cell.condition.digest, cell.scored, *shared]
        sheet = sheets[cell.key] = Sheet(cell.file(out), value_digest(inputs))
        known = sheet.finished()
        if known is None:
            pending.append(cell)
        else:
            records[cell.key] = known
    if pending:
        with progress.task("load model") as loading:
            engine = Engine(base, getattr(torch, dtype) if dtype else None, batch_size)
            loading.advance()
        ready = _becoming(engine, pending, adapters)
        records |= _answer(ready, sheets, models, progress, _amount(engine, pending))
    return records


def evaluate_served(
    model: Model,
    tokenizer: object,
    variant: Variant,
    suites: Sequence[Suite],
    out: Path,
    *,
    conditions: Sequence[Condition] = OWN,
    digest: str,
    progress: Progress = SILENT,
) -> Records:
    """The same of a model that runs elsewhere; tokenizer: whose chat template renders the prompts; digest: of what is
    known of the server. Items that it did not answer are marked as failed."""
    todo = cells([variant], suites, conditions)
    sheets = {
        c.key: Sheet(c.file(out), value_digest([digest, c.suite.digest, c.condition.digest, c.scored])) for c in todo
    }
    records: Records = {key: known for key, sheet in sheets.items() if (known := sheet.finished()) is not None}
    pending = [cell for cell in todo if cell.key not in records]
    total = sum(len(Questions(c.suite, c.condition, tokenizer, c.scored).parts) * len(c.suite.items) for c in pending)
    ready = ((cell, model, tokenizer) for cell in pending)
    return records | _answer(ready, sheets, {variant.name: digest}, progress, total)


def _becoming(
    engine: Engine, pending: Sequence[Cell], adapters: Mapping[str, Adapter]
) -> Iterator[tuple[Cell, Model, object]]:
    current = None
    for cell in pending:
        if cell.variant is not current:
            engine.become(cell.variant.parts(adapters))
            current = cell.variant
        yield cell, engine, engine.tokenizer


def _amount(engine: Engine, pending: Sequence[Cell]) -> int:
    """Answers to come. Raises DataError before the first if a template cannot render a suite."""
    total = 0
    for cell in pending:
        questions = Questions(cell.suite, cell.condition, engine.tokenizer, cell.scored)
        if not all(questions.prompt(item).strip() for item in cell.suite.items):
            raise DataError(f"suite {cell.suite.settings.name}: a prompt is empty under {cell.condition.name}")
        total += len(questions.parts) * len(cell.suite.items)
    return total


def _answer(
    ready: Iterator[tuple[Cell, Model, object]],
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
