"""Run suites on variants under conditions; every answer goes to a JSONL file with the digests of what produced it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossmatch.adapter import Recorded
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
    adapters: Mapping[str, Recorded],
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
    models = {variant.name: variant.digest(base, adapters) for variant in variants}
    for variant in variants:
        if variant.random:
            # What has no spectrum is refused before anything is asked.
            variant.parts(adapters)
    work = _Work(cells(variants, suites, plan.conditions), out, models, shared)
    if not work.pending:
        return work.records
    with progress.task("load model") as loading:
        engine = Engine(base, getattr(torch, plan.dtype) if plan.dtype else None, plan.batch_size)
        loading.advance()

    def become(variant: Variant) -> Model:
        engine.become(variant.parts(adapters))
        return engine

    return work.done(become, engine.tokenizer, progress)


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
    """The same of a model that runs elsewhere. What it did not answer is `failed`, and asked again by the next call."""
    work = _Work(cells([served.variant], suites, conditions), out, {served.variant.name: served.digest}, [])
    return work.done(lambda _: served.model, served.tokenizer, progress)


class _Work:
    """What is answered already, and what is still to be asked, one file after the other."""

    def __init__(self, todo: Sequence[Cell], out: Path, models: Mapping[str, str], shared: Sequence[Any]) -> None:
        self.records: Records = {}
        self.pending: list[tuple[Cell, Sheet]] = []
        self._models = models
        for cell in todo:
            inputs = [models[cell.variant.name], cell.suite.digest, cell.condition.digest, cell.scored, *shared]
            sheet = Sheet(cell.file(out), value_digest(inputs))
            known = sheet.finished()
            if known is None:
                self.pending.append((cell, sheet))
            else:
                self.records[cell.key] = known

    def done(self, become: Callable[[Variant], Model], tokenizer: Any, progress: Progress) -> Records:
        """Ask, and return all records. Raises DataError before the first question if a suite cannot be rendered."""
        asked = [(c, s, Questions(c.suite, c.condition, tokenizer, c.scored)) for c, s in self.pending]
        for cell, _, questions in asked:
            if not all(text.strip() for text in questions.prompts.values()):
                raise DataError(f"suite {cell.suite.settings.name}: a prompt is empty under {cell.condition.name}")
        current: Variant | None = None
        model: Model | None = None
        with progress.task("evaluate", sum(len(q.parts) * len(c.suite.items) for c, _, q in asked)) as task:
            for cell, sheet, questions in asked:
                variant, suite, condition = cell.key
                task.advance(0, f"{variant}, {suite}, {condition}")
                if model is None or cell.variant is not current:
                    model, current = become(cell.variant), cell.variant
                stamp = {"variant": variant, "suite": suite, "suite_version": cell.suite.settings.version}
                stamp |= {"condition": condition, "model_digest": self._models[variant]}
                with sheet:
                    rows = [{**stamp, **answer} for answer in ask(model, questions, sheet, task)]
                    sheet.finish(rows)
                self.records[cell.key] = rows
        return self.records
