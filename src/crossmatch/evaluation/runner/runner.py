"""Run suites on variants under conditions; every answer goes to a JSONL file with the digests of what produced it."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint, side_digest, value_digest
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.suite_rendering import render_suite
from crossmatch.data.suites import Suite
from crossmatch.data.turn_ends import Stops, declared_eos
from crossmatch.errors import DataError
from crossmatch.evaluation.conditions import DEFAULT, OWN, Cell, Condition, Plan, cells
from crossmatch.evaluation.inference.protocol import EOS, Model
from crossmatch.evaluation.metrics.reasoning_traces import openers
from crossmatch.evaluation.record import Records
from crossmatch.evaluation.runner.answer_log import Sheet
from crossmatch.evaluation.runner.kl import Comparison, Divergences
from crossmatch.evaluation.runner.model_slot import Held
from crossmatch.evaluation.runner.prompt_lengths import check_lengths
from crossmatch.evaluation.runner.questions import Questions
from crossmatch.evaluation.runner.requests import ask, records_of
from crossmatch.evaluation.runner.template_check import ends_by_condition, taught_ends
from crossmatch.evaluation.shards.answer_logs import AnswerLogs
from crossmatch.evaluation.shards.elsewhere import FOLDER, answer_elsewhere, take_over
from crossmatch.evaluation.shards.worker import unanswered
from crossmatch.evaluation.variants.variants import SERVED, Variant
from crossmatch.positions import fewest_positions
from crossmatch.results.record import RECORD_VERSION, RecordJson
from crossmatch.runtime import SILENT, Progress


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
    same call after an interruption goes on. With an executor its workers answer first, into `out/cells.work`; how far
    variants are from others (`kl`) and written checkpoints are asked here.
    """
    shared = shared_inputs(base, adapters, plan)
    models = {variant.name: variant.digest(base, adapters) for variant in variants}
    for variant in variants:
        if variant.nulls:
            # What has no null is refused before anything is asked.
            variant.parts(adapters)
    # The base's model leaves the memory for written checkpoints: these come last.
    variants = sorted(variants, key=lambda variant: variant.checkpoint is not None)
    others = _compared_with(variants, plan)
    roles = {role: models[other.name] for role, other in others.items()}
    work = _Work(cells(variants, suites, plan.conditions), out, models, shared, (plan.kl, roles))
    if not work.pending:
        return work.records
    tokenizer = open_tokenizer(base.path)
    work.render(tokenizer)
    for note in work.notes_on_lengths(tokenizer, base):
        progress.say(f"note: {note}")
    if plan.executor.kind != "local":
        work.logs = answer_elsewhere(base, adapters, work.todo, plan, out, progress)
    held = Held(base, adapters, plan, progress.say)
    with progress.task("load model") as loading:
        ends = ends_by_condition(tokenizer, plan.conditions, declared_eos(base.path, tokenizer), adapters)
        if work.logs is None and work.pending[0][0].variant.checkpoint is None:
            held.become(work.pending[0][0].variant)
        loading.advance()
    work.ends = ends
    records = work.done(held.become, tokenizer, progress, Divergences(held, others) if others else None)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    return records


def _compared_with(variants: Sequence[Variant], plan: Plan) -> dict[str, Variant]:
    """Role -> variant from which the KL of the others is taken."""
    if not plan.kl:
        return {}
    found = {"reference": next((v for v in variants if v.name == plan.kl_to), None)}
    found["base"] = next((v for v in variants if v.kind == "base" and v is not found["reference"]), None)
    return {role: variant for role, variant in found.items() if variant is not None}


@dataclass(frozen=True)
class Elsewhere:
    """A model that runs elsewhere.

    tokenizer: whose chat template renders the prompts; digest: of what is known of the server; eos: ends of sequence
    of the model that it is said to be; taught: adapters beside it, whose training may have put an end of its own.
    """

    model: Model
    tokenizer: Any
    digest: str
    variant: Variant = SERVED
    eos: frozenset[int] = frozenset()
    taught: Mapping[str, Recorded] = field(default_factory=dict)


def evaluate_served(
    served: Elsewhere,
    suites: Sequence[Suite],
    out: Path,
    *,
    conditions: Sequence[Condition] = OWN,
    progress: Progress = SILENT,
) -> Records:
    """The same of a model that runs elsewhere. What it did not answer is `failed`, and asked again by the next call.

    Raises DataError for a suite of plain texts: a server is not asked for them.
    """
    text = next((suite.settings.name for suite in suites if suite.settings.kind == "text"), None)
    if text is not None:
        raise DataError(f"suite {text}: plain texts are not asked of a server; leave it out, and measure it without")
    todo = cells([served.variant], suites, conditions)
    work = _Work(todo, out, {served.variant.name: served.digest}, _taught(served.taught))
    tokenizer = served.tokenizer
    work.render(tokenizer)
    work.ends = ends_by_condition(tokenizer, conditions, served.eos, served.taught)
    return work.done(lambda _: served.model, tokenizer, progress)


def shared_inputs(base: Checkpoint, adapters: Mapping[str, Recorded], plan: Plan) -> list[Any]:
    """What the digests of all cells of an evaluation hold besides their own inputs."""
    return [side_digest(base.path), plan.dtype, *_taught(adapters)]


def cell_digest(cell: Cell, model: str, shared: Sequence[Any], kl: tuple[int, Mapping[str, str]] = (0, {})) -> str:
    """Digest of all that can change the answers of a cell; model: the variant's digest, kl: what with."""
    settings = cell.suite.settings
    inputs = [model, cell.suite.digest, cell.condition.digest, cell.scored, *shared]
    if kl[1] and cell.scored and settings.kind == "generation":
        inputs.append({"kl": kl})
    if cell.scored and settings.kind in ("generation", "instructions") and settings.language != "en":
        # The openers that are scored were others when records got their version.
        inputs.append({"openers": openers(settings.language)})
    return value_digest(inputs)


def _taught(adapters: Mapping[str, Recorded]) -> list[Any]:
    """What a digest holds of ends of turns that no template and no config names."""
    found = taught_ends(adapters)
    return [{"turn_end": found}] if found else []


class _Work:
    """What is answered already, and what is still to be asked, one file after the other."""

    def __init__(
        self,
        todo: Sequence[Cell],
        out: Path,
        models: Mapping[str, str],
        shared: Sequence[Any],
        kl: tuple[int, Mapping[str, str]] = (0, {}),
    ) -> None:
        self.records: Records = {}
        self.pending: list[tuple[Cell, Sheet]] = []
        # What workers of an executor have answered.
        self.logs: AnswerLogs | None = None
        self._models, self._compared = models, kl[0] if kl[1] else 0
        self._prompts: dict[tuple[str, str], dict[str, str]] = {}
        self.ends: Mapping[str, Stops] = {}
        for cell in todo:
            sheet = Sheet(cell.file(out), cell_digest(cell, models[cell.variant.name], shared, kl))
            known = sheet.finished()
            if known is None:
                self.pending.append((cell, sheet))
            else:
                self.records[cell.key] = known

    @property
    def todo(self) -> list[tuple[Cell, str]]:
        """What is still to be asked, with the digests of its answers."""
        return [(cell, sheet.digest) for cell, sheet in self.pending]

    def render(self, tokenizer: Any) -> None:
        """All prompts that are to be asked, once for all variants. Raises DataError for one that cannot be rendered."""
        for cell, _ in self.pending:
            key = cell.suite.settings.name, cell.condition.template.name
            if key not in self._prompts:
                self._prompts[key] = render_suite(cell.suite, cell.condition.template, tokenizer)

    def notes_on_lengths(self, tokenizer: Any, base: Checkpoint) -> list[str]:
        """What is cut of rendered prompts, once for all variants. Raises DataError for one that does not fit."""
        models = {cell.variant.checkpoint or base for cell, _ in self.pending}
        most = fewest_positions([model.path for model in models])
        checked = {(c.suite.settings.name, c.condition.template.name, c.scored): c for c, _ in self.pending}
        found = [check_lengths(self._questions(c, tokenizer, None), most) for c in checked.values()]
        return list(dict.fromkeys(note for note in found if note is not None))

    def done(
        self,
        become: Callable[[Variant], Model],
        tokenizer: Any,
        progress: Progress,
        divergences: Divergences | None = None,
    ) -> Records:
        """Ask what has been rendered, and return all records."""
        asked = [(c, s, self._questions(c, tokenizer, divergences)) for c, s in self.pending]
        prepared = False
        with progress.task("evaluate", sum(q.count for _, _, q in asked)) as task:
            for place, (cell, sheet, questions) in enumerate(asked):
                variant, suite, condition = cell.key
                task.advance(0, f"{variant}, {suite}, {condition}")
                if cell.variant.checkpoint is not None and not prepared:
                    prepared = True
                    for _, _, later in asked[place:]:
                        later.prepare()
                stamp = {
                    "schema_version": RECORD_VERSION,
                    "variant": variant,
                    "suite": suite,
                    "suite_version": cell.suite.settings.version,
                }
                stamp |= {"condition": condition, "model_digest": self._models[variant]}
                with sheet:
                    if self.logs is not None:
                        take_over(self.logs.sheet(sheet.digest), sheet, questions)
                    try:
                        if unanswered(questions, sheet):
                            answers = ask(become(cell.variant), questions, sheet, task)
                        else:
                            answers = records_of(questions, sheet)
                            task.advance(questions.count)
                    except DataError as error:
                        raise DataError(f"variant {variant}, suite {suite}: {error}") from error
                    # Made of parts as they were kept; the log holds them to their form.
                    rows: list[RecordJson] = [cast(RecordJson, {**stamp, **answer}) for answer in answers]
                    sheet.finish(rows)
                self.records[cell.key] = rows
        return self.records

    def _questions(self, cell: Cell, tokenizer: Any, divergences: Divergences | None) -> Questions:
        known = self._prompts[cell.suite.settings.name, cell.condition.template.name]
        ends = self.ends.get(cell.condition.name, EOS)
        compared = self._compared
        questions = Questions(
            cell.suite, cell.condition, tokenizer, cell.scored, compared=compared, known=known, ends=ends
        )
        if divergences is None:
            return questions
        _, suite, condition = cell.key
        return replace(questions, kl=Comparison(divergences, cell.variant, f"{suite}.{condition}"))
