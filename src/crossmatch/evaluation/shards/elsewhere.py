"""Cells of an evaluation answered by an executor's workers, and taken from their files into the evaluation's own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint
from crossmatch.evaluation.conditions import Cell, Plan
from crossmatch.evaluation.runner.answer_log import Answers
from crossmatch.evaluation.runner.questions import Questions
from crossmatch.evaluation.shards.answer_logs import AnswerLogs
from crossmatch.evaluation.shards.worker import Asking, Shard, Workplace, unanswered
from crossmatch.executors import LOCAL, Executor, open_executor
from crossmatch.runtime import Progress, Task

# Items of a shard at most, and where workers put their answers until all is there.
SHARD, FOLDER = 64, "cells.work"


def have_answered(executor: Executor, shards: Sequence[Shard], task: Task) -> None:
    """Have shards answered. Raises the first error of one; what others have answered is kept."""
    sizes = {shard.key: len(shard.ids) for shard in shards}
    for shard in shards:
        executor.submit(shard.key, shard)
    for outcome in executor.collect():
        if outcome.error is not None:
            raise outcome.error
        task.advance(sizes[outcome.key])


def pieces(cell: Cell, sheet: str, ids: Sequence[str], most: int) -> Iterator[Shard]:
    """Items of a cell as shards. sheet: the digest of all that decides its answers."""
    for start in range(0, len(ids), most):
        yield Shard(cell, sheet, tuple(ids[start : start + most]))


def answer_elsewhere(
    base: Checkpoint,
    adapters: Mapping[str, Recorded],
    todo: Sequence[tuple[Cell, str]],
    plan: Plan,
    out: Path,
    progress: Progress,
) -> AnswerLogs:
    """Have cells (with the digests of their answers) answered by the workers of the plan's executor; all that is known
    afterwards. Written checkpoints are left to the caller: a worker holds the base. What is there is not asked again.
    """
    logs = AnswerLogs(out / FOLDER)
    logs.refresh()
    asking, shards = Asking(base, adapters), []
    left = {cell.variant.name for cell, _ in todo if cell.variant.checkpoint is not None}
    if left:
        progress.say(f"note: written checkpoints are asked in this process: {', '.join(sorted(left))}")
    for cell, sheet in todo:
        if cell.variant.checkpoint is None:
            questions = asking.questions(cell.suite, cell.condition, cell.scored)
            shards += pieces(cell, sheet, unanswered(questions, logs.sheet(sheet)), SHARD)
    if not shards:
        return logs
    places = {name: str(adapter.path) for name, adapter in adapters.items()}
    workplace = Workplace(str(base.path), places, replace(plan, executor=LOCAL), out / FOLDER)
    executor = open_executor(plan.executor, workplace, out / FOLDER / "jobs")
    try:
        with progress.task(f"evaluate on {plan.executor.kind}", sum(len(shard.ids) for shard in shards)) as task:
            have_answered(executor, shards, task)
    finally:
        executor.cancel()
    logs.refresh()
    return logs


def take_over(known: Answers, sheet: Answers, questions: Questions) -> None:
    """Put into a sheet what others have answered of it."""
    for part in questions.parts:
        keys = [item.id for item in questions.items(part)]
        absent = set(known.missing(part, keys))
        for place in sheet.missing(part, keys):
            if place not in absent:
                sheet.add(part, keys[place], known.get(part, keys[place]))
