"""The measuring stages of a study: what training data and suites share, the evaluation, interference."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmatch.adapter import Adapter
from crossmatch.analysis.interference.suite_pair import find_pair, measure_pair
from crossmatch.answers import MARGIN
from crossmatch.checkpoint import Checkpoint, file_digest, read_json, replace_json, side_digest
from crossmatch.evaluation import Suite, Variant
from crossmatch.evaluation.conditions import RECORDS_VERSION, SUMMARY_VERSION, Plan, cells, conditions_of
from crossmatch.evaluation.inference.batch_memory import parse_memory
from crossmatch.rules import weight_json
from crossmatch.study.ledger import Ledger
from crossmatch.study.preflight import combination_of
from crossmatch.study.recipe import EvaluationRecipe, Recipe


@dataclass(frozen=True)
class Subject:
    """What is measured. data: training set -> its file or hub data set, and an adapter that was trained on it here."""

    recipe: Recipe
    base: Checkpoint
    adapters: Mapping[str, Adapter]
    variants: list[Variant]
    suites: list[Suite]
    data: Mapping[str, tuple[str, str]]

    @property
    def wanted(self) -> EvaluationRecipe:
        """What the recipe says of it."""
        assert self.recipe.evaluation is not None
        return self.recipe.evaluation


def audit_data(subject: Subject, root: Path, ledger: Ledger) -> dict[str, Any] | None:
    """Every training set against every suite, and against each other; None without local training data."""
    local = {name: file for name, (file, _) in subject.data.items() if Path(file).is_file()}
    if not local:
        return None
    out = root / "audit.json"
    columns = {name: subject.recipe.adapters[subject.data[name][1]].columns for name in local}
    inputs = [[n, file_digest(Path(f)), columns[n]] for n, f in local.items()]

    def work() -> None:
        """Compare every set with every other."""
        from crossmatch.evaluation.audit import SuiteCorpus, audit, open_corpus

        train = {name: open_corpus(file, columns[name]) for name, file in local.items()}
        held_out = {suite.settings.name: SuiteCorpus(suite) for suite in subject.suites}
        replace_json(out, audit(train, held_out, progress=ledger.progress).to_dict())

    ledger.run("audit", [inputs, [suite.digest for suite in subject.suites]], lambda: [out], work)
    return read_json(out)


def evaluate_variants(
    subject: Subject, audited: Mapping[str, Any] | None, root: Path, ledger: Ledger
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answers, summary and samples; figures of the items that no training data touch are given beside."""
    wanted, base, adapters, recipe = subject.wanted, subject.base, subject.adapters, subject.recipe
    out, summary_file, samples_file = root / "evaluate", root / "summary.json", root / "samples.json"
    conditions = conditions_of(wanted.templates, wanted.decodings)
    clean = {name: set(found["clean"]) for name, found in (audited or {}).get("held_out", {}).items()}
    inputs = [
        # Answers were made with the default margin before it could be set.
        wanted.model_dump(exclude={"margin"} if wanted.margin == MARGIN else None),
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
        plan = Plan(conditions, recipe.dtype, wanted.batch_size, wanted.kl, wanted.reference, memory)
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
        replace_json(summary_file, found.summary)
        replace_json(samples_file, found.samples)

    files = [cell.file(out) for cell in cells(subject.variants, subject.suites, conditions)]
    ledger.run("evaluate", inputs, lambda: [*files, summary_file, samples_file], work)
    return read_json(summary_file), read_json(samples_file)


def interfere(subject: Subject, root: Path, ledger: Ledger) -> dict[str, Any] | None:
    """Interference of the other adapter of the first merge with the reference, predicted and measured; None if it is
    not asked for, or there are not two adapters and a suite with references."""
    wanted, weights = subject.wanted, subject.recipe.mixtures[0]
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
        replace_json(out, facts)

    ledger.run("interference", inputs, lambda: [out], work)
    return read_json(out)
