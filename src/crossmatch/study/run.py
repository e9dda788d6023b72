"""Run a study: base, data, adapters, merges with their proof, measurement, weight space, report."""

from dataclasses import dataclass
from pathlib import Path

from crossmatch.answers import MARGIN, answers_of
from crossmatch.checkpoint import replace_json
from crossmatch.evaluation import load_suite, merge_name
from crossmatch.evaluation.variants.checkpoints import checkpoint_variants
from crossmatch.executors import LOCAL, ExecutorOptions
from crossmatch.export.results import Tabled, tables_of
from crossmatch.export.table import Table
from crossmatch.merging.card_answers import write_answers
from crossmatch.merging.model_card import add_results
from crossmatch.report import write_report
from crossmatch.result_kinds import REPORT, VERDICT
from crossmatch.results.answers import AnswerJson
from crossmatch.results.study import ReportJson
from crossmatch.results.summary import SummaryJson
from crossmatch.results.verdict import VerdictJson
from crossmatch.runtime import SILENT, Progress
from crossmatch.study.ledger import Ledger
from crossmatch.study.preflight import check_recipe, render_all, variants_of
from crossmatch.study.recipe import Recipe, local_path
from crossmatch.study.stages.analysis import explain, overlap_of_pair
from crossmatch.study.stages.evaluation import Subject, audit_data, evaluate_variants, interfere
from crossmatch.study.stages.merging import merge_and_publish, verify_merge
from crossmatch.study.stages.training import open_base, train_adapter, training_record, training_sets, write_sample


@dataclass(frozen=True)
class StudyResult(Tabled):
    """What a study left: its directory and report, the verdicts by merge, seconds by stage that ran this time, and what
    it answers (`crossmatch.answers`)."""

    path: Path
    report: Path
    verdicts: dict[str, VerdictJson]
    summary: SummaryJson | None
    ran: dict[str, float]
    answers: list[AnswerJson]

    # In a notebook: the answer, and what is read first of every suite.
    _notebook = ("weights", "overview.")

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {verdict['verdict']}" for name, verdict in self.verdicts.items())
        return f"StudyResult({str(self.path)!r}: {found})"

    def tables(self) -> dict[str, Table]:
        """Every table of the study's report.json."""
        return tables_of(REPORT.read(self.path / "report.json"))

    @property
    def verified(self) -> bool | None:
        """Whether every merge that was written is verified; None where none was."""
        return self.worst == "verified" if self.verdicts else None

    @property
    def worst(self) -> str:
        """The worst verdict of all merges: `failed` before `inconclusive` before `verified`, as without any."""
        found = {v["verdict"] for v in self.verdicts.values()}
        return next((word for word in ("failed", "inconclusive") if word in found), "verified")


def run_study(
    recipe: Recipe,
    runs: str | Path = "runs",
    *,
    executor: ExecutorOptions = LOCAL,
    progress: Progress = SILENT,
) -> StudyResult:
    """Run or resume a study in `<runs>/<name>`; stages whose inputs are unchanged are skipped. executor: where the
    questions of its evaluation are asked.

    Raises what the stages raise. A merge that fails its proof is not published; a published one that no longer passes
    is reported, and `verified` is false.
    """
    root = Path(runs) / recipe.name
    check_recipe(recipe)
    render_all(recipe, root)
    root.mkdir(parents=True, exist_ok=True)
    replace_json(root / "recipe.json", recipe.model_dump(mode="json"))
    ledger = Ledger(root, progress)
    base = open_base(recipe, root, ledger)
    card = write_sample(recipe, root, ledger)
    adapters = {name: train_adapter(recipe, name, base, root, ledger) for name in recipe.adapters}
    verdicts = {}
    for weights in recipe.mixtures:
        merge_and_publish(recipe, weights, base, adapters, root, ledger)
        verdicts[merge_name(weights)] = verify_merge(recipe, weights, base, adapters, root, ledger)
    summary = samples = audited = measured = None
    if recipe.evaluation:
        variants = variants_of(recipe, adapters)
        variants += checkpoint_variants(base, recipe.evaluation.checkpoints, variants)
        suites = [load_suite(local_path(recipe, root, suite, ".yaml")) for suite in recipe.evaluation.suites]
        subject = Subject(recipe, base, adapters, variants, suites, training_sets(recipe, root), executor)
        audited = audit_data(subject, root, ledger)
        summary, samples = evaluate_variants(subject, audited, root, ledger)
        measured = interfere(subject, root, ledger)
        for name in verdicts:
            if not add_results(root / "merges" / name, summary, name):
                progress.say(f"the card of {name} was changed by hand; the results were not put into it")
    pairs = overlap_of_pair(recipe, adapters, root, ledger)
    changed = explain(base, adapters, root, ledger)
    facts: ReportJson = {
        "schema_version": 1,
        "study": recipe.name,
        "question": recipe.question,
        "base": {"name": base.source.hub_id or recipe.base, "digest": base.digest, "parameters": base.parameters},
        "data": card,
        "adapters": {name: training_record(adapter) for name, adapter in adapters.items()},
        "verdicts": {name: VERDICT.read(root / "verify" / f"{name}.json") for name in verdicts},
        "summary": summary,
        "samples": samples,
        "overlap": pairs,
        "analysis": changed,
        "audit": audited,
        "interference": measured,
        "seconds": ledger.seconds(),
    }
    facts["answers"] = answers_of(facts, recipe.evaluation.margin if recipe.evaluation else MARGIN)
    for name in verdicts:
        write_answers(root / "merges" / name, name, facts["answers"])
    report = root / "report.html"
    REPORT.replace(root / "report.json", facts)
    with progress.task("report") as task:
        write_report(facts, report)
        task.advance()
    return StudyResult(root, report, verdicts, summary, ledger.ran, facts["answers"])
