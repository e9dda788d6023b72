"""The measuring stages of a study: what training data and suites share, the evaluation, interference."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import Adapter
from crossmatch.analysis.interference.suite_pair import find_pair, measure_pair
from crossmatch.answers import MARGIN
from crossmatch.checkpoint import Checkpoint, file_digest, side_digest
from crossmatch.evaluation import Suite, Variant
from crossmatch.evaluation.conditions import RECORDS_VERSION, Plan, cells, conditions_of
from crossmatch.evaluation.inference.batch_memory import parse_memory
from crossmatch.executors import LOCAL, ExecutorOptions
from crossmatch.result_kinds import AUDIT, INTERFERENCE, SAMPLES, SUMMARY
from crossmatch.results.audit import AuditJson
from crossmatch.results.interference import InterferenceJson
from crossmatch.results.samples import SamplesJson
from crossmatch.results.summary import SUMMARY_VERSION, SummaryJson
from crossmatch.rules import weight_json
from crossmatch.study.ledger import Ledger
from crossmatch.study.preflight import combination_of
from crossmatch.study.recipe import EvaluationRecipe, Recipe


@dataclass(frozen=True)
class Subject:
    """What is measured. data: training set -> its file or hub data set, and an adapter that was trained on it here;
    executor: where it is asked."""

    recipe: Recipe
    base: Checkpoint
    adapters: Mapping[str, Adapter]
    variants: list[Variant]
    suites: list[Suite]
    data: Mapping[str, tuple[str, str]]
    executor: ExecutorOptions = LOCAL

    @property
    def wanted(self) -> EvaluationRecipe:
        """What the recipe says of it."""
        assert self.recipe.evaluation is not None
        return self.recipe.evaluation


def audit_data(subject: Subject, root: Path, ledger: Ledger) -> AuditJson | None:
    """Every training set against every suite, and against each other; None where no training set is known."""
    sets = {name: file for name, (file, _) in subject.data.items()}
    unknown = [name for name, adapter in subject.recipe.adapters.items() if adapter.path is not None]
    for name in unknown:
        ledger.progress.say(f"note: adapter {name} was trained elsewhere; what it was trained on is not audited")
    if not sets:
        return None
    out = root / "audit.json"
    columns = {name: subject.recipe.adapters[subject.data[name][1]].columns for name in sets}
    inputs = [[n, file_digest(Path(f)) if Path(f).is_file() else f, columns[n]] for n, f in sets.items()]

    def work() -> None:
        """Compare every set with every other."""
        from crossmatch.evaluation.audit import SuiteCorpus, audit, open_corpus

        train = {name: open_corpus(file, columns[name]) for name, file in sets.items()}
        held_out = {suite.settings.name: SuiteCorpus(suite) for suite in subject.suites}
        report = audit(train, held_out, progress=ledger.progress)
        for note in report.notes:
            ledger.progress.say(f"note: audit: {note}")
        facts = report.to_dict()
        facts["notes"] = [*report.notes, *(f"{name}: trained elsewhere, its data not known" for name in unknown)]
        AUDIT.replace(out, facts)

    ledger.run("audit", [inputs, unknown, [suite.digest for suite in subject.suites]], lambda: [out], work)
    return AUDIT.read(out)


def evaluate_variants(
    subject: Subject, audited: AuditJson | None, root: Path, ledger: Ledger
) -> tuple[SummaryJson, SamplesJson]:
    """Answers, summary and samples; figures of the items that no training data touch are given beside."""
    wanted, base, adapters, recipe = subject.wanted, subject.base, subject.adapters, subject.recipe
    out, summary_file, samples_file = root / "evaluate", root / "summary.json", root / "samples.json"
    conditions = conditions_of(wanted.templates, wanted.decodings)
    clean = {name: set(found["clean"]) for name, found in (audited["held_out"] if audited else {}).items()}
    inputs = [
        wanted.model_dump(exclude=_unused(wanted)),
        side_digest(base.path),
        recipe.dtype,
        [condition.digest for condition in conditions],
        RECORDS_VERSION,
        SUMMARY_VERSION,
        [[v.name, v.digest(base, adapters)] for v in subject.variants],
        [suite.digest for suite in subject.suites],
        {name: sorted(ids) for name, ids in clean.items()},
    ]

    def work() -> None:
        """Ask, and summarise what was answered."""
        from crossmatch.evaluation.comparison.clean_items import touched
        from crossmatch.evaluation.pipeline import EvaluationRequest, run_evaluation

        memory = parse_memory(wanted.memory)
        asked = conditions, recipe.dtype, wanted.batch_size, wanted.kl, wanted.reference, memory
        plan = Plan(*asked, executor=subject.executor)
        names = dict(zip(wanted.suites, [s.settings.name for s in subject.suites], strict=True))
        request = EvaluationRequest(
            base,
            tuple(subject.suites),
            tuple(subject.variants),
            adapters,
            plan,
            clean=touched(clean, subject.suites),
            combination=combination_of(recipe, names),
            margin=wanted.margin,
        )
        found = run_evaluation(request, out, progress=ledger.progress)
        SUMMARY.replace(summary_file, found.summary)
        SAMPLES.replace(samples_file, found.samples)

    files = [cell.file(out) for cell in cells(subject.variants, subject.suites, conditions)]
    ledger.run("evaluate", inputs, lambda: [*files, summary_file, samples_file], work)
    say = ledger.progress.say
    return SUMMARY.read(summary_file, say), SAMPLES.read(samples_file, say)


def _unused(wanted: EvaluationRecipe) -> set[str]:
    """Settings that came later, where they are not used: an evaluation that was made before stays as it is."""
    return {name for name, plain in (("merges", ()), ("margin", MARGIN)) if getattr(wanted, name) == plain}


def interfere(subject: Subject, root: Path, ledger: Ledger) -> InterferenceJson | None:
    """Interference of the other adapter of the first merge with the reference, predicted and measured; None if it is
    not asked for, or there are not two adapters and a suite with references."""
    wanted, weights = subject.wanted, subject.recipe.measured[0]
    if not wanted.interference:
        return None
    found = find_pair(weights, wanted.reference, subject.suites)
    if isinstance(found, str):
        ledger.progress.say(f"interference: not measured; {found}")
        return None
    pair = {name: subject.adapters[name] for name in found.names}
    chosen = {name: weights[name] for name in pair}
    out = root / "interference.json"
    inputs = [
        [subject.base.digest, side_digest(subject.base.path), found.suite.digest, wanted.interference],
        [[name, adapter.digest, weight_json(chosen[name])] for name, adapter in pair.items()],
    ]

    def work() -> None:
        """Predict, ablate, compare."""
        facts = measure_pair(subject.base, pair, chosen, found.suite, wanted.interference, progress=ledger.progress)
        INTERFERENCE.replace(out, facts)

    ledger.run("interference", inputs, lambda: [out], work)
    return INTERFERENCE.read(out)
