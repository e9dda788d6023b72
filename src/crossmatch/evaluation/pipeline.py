"""One evaluation from request to summary, for the command line, a recipe and Python alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossmatch.adapter import Recorded, notes_on_bases
from crossmatch.answers import MARGIN, answers_of
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import differing_files, open_tokenizer
from crossmatch.data.suite_rendering import days_of
from crossmatch.data.suites import Suite
from crossmatch.errors import InputError
from crossmatch.evaluation.comparison.combination import Combination
from crossmatch.evaluation.comparison.side_by_side import side_by_side
from crossmatch.evaluation.comparison.summary import summarise
from crossmatch.evaluation.conditions import DEFAULT, Plan
from crossmatch.evaluation.record import Records
from crossmatch.evaluation.runner.runner import evaluate
from crossmatch.evaluation.runner.served_runner import Serving, ask_served
from crossmatch.evaluation.runner.template_check import stated_ends, trained_with
from crossmatch.evaluation.variants.variants import APART, SERVED, Variant
from crossmatch.export.results import EvaluationSummary, Tabled
from crossmatch.export.table import Table
from crossmatch.results.samples import SamplesJson
from crossmatch.results.summary import ServerJson, SummaryJson
from crossmatch.runtime import SILENT, Progress


@dataclass(frozen=True)
class EvaluationRequest:
    """What is asked of which models.

    variants: those that are asked here, in order; adapters: what they are made of; plan: under what they are asked, and
    the variant with which the others are compared (`kl_to`); serving: the model on a server, which is asked too, and
    first, since no model is loaded till then; clean: suite -> ids of its clean items, where an audit found others;
    combination: which variants are sums of vectors across domains; margin: points of a score, or percent of a
    perplexity, that a variant may lose and still be as good (`crossmatch.answers`).
    """

    base: Checkpoint
    suites: tuple[Suite, ...]
    variants: tuple[Variant, ...] = ()
    adapters: Mapping[str, Recorded] = field(default_factory=dict)
    plan: Plan = DEFAULT
    serving: Serving | None = None
    clean: Mapping[str, set[str]] = field(default_factory=dict)
    combination: Combination | None = None
    margin: float = MARGIN

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.every]
        if len({suite.settings.name for suite in self.suites}) < len(self.suites):
            raise InputError("two suites have the same name; their answers would overwrite each other")
        if names.count(SERVED.name) > 1:
            raise InputError("an adapter may not be called served beside --server; give it another name")
        if self.plan.kl_to not in names:
            raise InputError(f"--reference {self.plan.kl_to}: give one of {', '.join(names)}")

    @property
    def every(self) -> list[Variant]:
        """All variants, the served one first."""
        return [*([SERVED] if self.serving else []), *self.variants]


@dataclass(frozen=True)
class Evaluation(Tabled):
    """summary: every figure and difference, as `summary.json` has it; samples: answers side by side."""

    summary: SummaryJson
    samples: SamplesJson

    # In a notebook: those that are read first.
    _notebook = ("overview.",)

    def tables(self) -> dict[str, Table]:
        """Tables of the summary: overviews by suite, figures, differences, flips, falls."""
        return EvaluationSummary(self.summary).tables()

    def __repr__(self) -> str:
        return repr(EvaluationSummary(self.summary)).replace("EvaluationSummary", "Evaluation", 1)


def run_evaluation(request: EvaluationRequest, out: Path, *, progress: Progress = SILENT) -> Evaluation:
    """Ask, compare, summarise. Answers lie in `out`, a file for each variant, suite and condition; what was answered
    before is kept."""
    base, plan = request.base, request.plan
    records: Records = {}
    server: ServerJson | None = None
    trained: dict[str, dict[str, bool | None]] | None = None
    own: dict[str, bool | None] | None = None
    for suite in request.suites:
        if suite.unused:
            progress.say(f"note: {suite.settings.name}: columns that are not read: {', '.join(suite.unused)}")
    plain = any(condition.template.source is None for condition in plan.conditions)
    if plain and (note := differing_files(base.path, open_tokenizer(base.path))):
        progress.say(note)
    if request.serving:
        records, server = ask_served(
            request.base, request.serving, request.suites, plan, out, request.adapters, progress
        )
    if request.variants:
        own = _on_its_base(request, progress)
        records |= evaluate(base, request.adapters, request.variants, request.suites, out, plan=plan, progress=progress)
        trained = trained_with(base, request.adapters, plan.conditions)
    ends = stated_ends(base, request.adapters, plan.conditions)
    days = days_of(open_tokenizer(base.path), {c.name: c.template for c in plan.conditions})
    with progress.task("intervals and paired tests") as task:
        summary = summarise(
            records,
            request.every,
            request.suites,
            str(plan.kl_to),
            conditions=plan.conditions,
            clean=request.clean,
            combination=request.combination,
        )
        beside = [variant for variant in request.every if variant.kind not in APART]
        samples = side_by_side(records, beside, request.suites, conditions=plan.conditions)
        task.advance()
    if server is not None:
        summary["server"] = server
    if own is not None:
        summary["on_its_base"] = own
    if trained is not None:
        summary["trained_with"] = trained
    summary["turn_ends"] = ends
    if days:
        summary["days"] = days
    summary["answers"] = answers_of({"summary": summary}, request.margin)
    return Evaluation(summary, samples)


def _on_its_base(request: EvaluationRequest, progress: Progress) -> dict[str, bool | None]:
    """Whether a stored vector was made on these weights (None: it does not say); says where it was not."""
    made_on = {name: vector.made_on(request.base.digest) for name, vector in request.adapters.items()}
    for name in (name for name, own in made_on.items() if own is False):
        progress.say(f"note: {name} was made on other weights than {request.base.path} has")
    for note in notes_on_bases(request.adapters, request.base):
        progress.say(note)
    return made_on
