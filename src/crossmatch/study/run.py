"""Run a study: base, data, adapters, merges with their proof, measurement, weight space, report."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crossmatch.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter
from crossmatch.analysis import independent, overlap
from crossmatch.checkpoint import MANIFEST, Checkpoint, file_digest, read_json, replace_json, side_digest
from crossmatch.errors import InputError
from crossmatch.evaluation import load_suite, merge_name
from crossmatch.evaluation.written import checkpoint_variants
from crossmatch.merging import DTYPE_ARGUMENTS, Output, Storage, execute, plan_merge
from crossmatch.progress import SILENT, Progress
from crossmatch.report import write_report
from crossmatch.rules import Weight, weight_json
from crossmatch.sample import DATA_VERSION, model_file, ontology_file, write_base, write_data
from crossmatch.study.check import check_recipe, variants_of
from crossmatch.study.explain import explain
from crossmatch.study.measure import Subject, audit_data, evaluate_variants, interfere
from crossmatch.study.recipe import SAMPLE, Recipe
from crossmatch.study.stages import Ledger
from crossmatch.training import StaleWorkError, train_stage
from crossmatch.verification import Claim, SampledProof, verify_claim

Weights = Mapping[str, Weight]


@dataclass(frozen=True)
class StudyResult:
    """What a study left: its directory and report, the verdicts by merge, seconds by stage that ran this time."""

    path: Path
    report: Path
    verdicts: dict[str, dict[str, Any]]
    summary: dict[str, Any] | None
    ran: dict[str, float]

    @property
    def verified(self) -> bool:
        """Whether every merge is verified."""
        return self.worst == "verified"

    @property
    def worst(self) -> str:
        """The worst verdict of all merges: `failed` before `inconclusive` before `verified`."""
        found = {v["verdict"] for v in self.verdicts.values()}
        return next((word for word in ("failed", "inconclusive") if word in found), "verified")


def run_study(recipe: Recipe, runs: str | Path = "runs", *, progress: Progress = SILENT) -> StudyResult:
    """Run or resume a study in `<runs>/<name>`; stages whose inputs are unchanged are skipped.

    Raises what the stages raise. A merge that fails its proof is not published; a published one that no longer passes
    is reported, and `verified` is false.
    """
    root = Path(runs) / recipe.name
    check_recipe(recipe)
    root.mkdir(parents=True, exist_ok=True)
    replace_json(root / "recipe.json", recipe.model_dump(mode="json"))
    ledger = Ledger(root, progress)
    base = _base(recipe, root, ledger)
    card = _data(recipe, root, ledger)
    adapters = {name: _adapter(recipe, name, base, root, ledger) for name in recipe.adapters}
    verdicts = {}
    for weights in recipe.mixtures:
        _merge(recipe, weights, base, adapters, root, ledger)
        verdicts[merge_name(weights)] = _verify(recipe, weights, base, adapters, root, ledger)
    summary = samples = audited = measured = None
    if recipe.evaluation:
        variants = variants_of(recipe, adapters)
        variants += checkpoint_variants(base, recipe.evaluation.checkpoints, variants)
        suites = [load_suite(_local(recipe, root, suite, ".yaml")) for suite in recipe.evaluation.suites]
        subject = Subject(recipe, base, adapters, variants, suites, _training_sets(recipe, root))
        audited = audit_data(subject, root, ledger)
        summary, samples = evaluate_variants(subject, audited, root, ledger)
        measured = interfere(subject, root, ledger)
    pairs = _analyse(recipe, adapters, root, ledger)
    changed = explain(base, adapters, root, ledger)
    facts = {
        "schema_version": 1,
        "study": recipe.name,
        "question": recipe.question,
        "base": {"name": base.source.hub_id or recipe.base, "digest": base.digest, "parameters": base.parameters},
        "data": card,
        "adapters": {name: _training_record(adapter) for name, adapter in adapters.items()},
        "verdicts": {name: read_json(root / "verify" / f"{name}.json") for name in verdicts},
        "summary": summary,
        "samples": samples,
        "overlap": pairs,
        "analysis": changed,
        "audit": audited,
        "interference": measured,
        "seconds": ledger.seconds(),
    }
    report = root / "report.html"
    replace_json(root / "report.json", facts)
    with progress.task("report") as task:
        write_report(facts, report)
        task.advance()
    return StudyResult(root, report, verdicts, summary, ledger.ran)


def _base(recipe: Recipe, root: Path, ledger: Ledger) -> Checkpoint:
    if not recipe.base.startswith(SAMPLE):
        return Checkpoint(recipe.base)
    if recipe.base != "sample:smollm2":
        raise InputError(f"base {recipe.base} is not in the sample; there is sample:smollm2")
    out = root / "base"

    def write_sample_base() -> None:
        with ledger.progress.task("dequantise SmolLM2-135M-Instruct") as task:
            _remove(out)
            write_base(out)
            task.advance()

    ledger.run("base", file_digest(model_file()), lambda: sorted(out.iterdir()), write_sample_base)
    return Checkpoint(out)


def _data(recipe: Recipe, root: Path, ledger: Ledger) -> dict[str, Any] | None:
    if recipe.sample is None:
        return None
    size, questions, out = recipe.sample.size, recipe.sample.questions, root / "data"
    inputs = [vars(size), file_digest(ontology_file()), DATA_VERSION, *([vars(questions)] if questions else [])]
    work = partial(write_data, out, size, arithmetic=questions)
    return ledger.run("data", inputs, lambda: sorted(out.iterdir()), work)


def _local(recipe: Recipe, root: Path, name: str, suffix: str) -> str:
    """A path from the recipe: `sample:x` lies in the run's data directory."""
    if not name.startswith(SAMPLE):
        return name
    if recipe.sample is None:
        raise InputError(f"{name} needs a `sample:` section in the recipe")
    return str(root / "data" / (name.removeprefix(SAMPLE) + suffix))


def _training_sets(recipe: Recipe, root: Path) -> dict[str, tuple[str, str]]:
    """Name -> file or hub data set and the adapter that it is for; a set of several adapters comes once."""
    found: dict[str, tuple[str, str]] = {}
    for name, adapter in sorted(recipe.adapters.items(), key=lambda entry: len(entry[1].sets)):
        for one in adapter.sets:
            file = _local(recipe, root, one, ".jsonl")
            same = [owner for known, owner in found.values() if known == file]
            if not any(recipe.adapters[owner].columns == adapter.columns for owner in same) or len(adapter.sets) == 1:
                found[name if len(adapter.sets) == 1 else f"{name}-{Path(file).stem}"] = file, name
    return found


def _adapter(recipe: Recipe, name: str, base: Checkpoint, root: Path, ledger: Ledger) -> Adapter:
    wanted = recipe.adapters[name]
    if wanted.path is not None:
        return Adapter(wanted.path)
    assert wanted.stage is not None
    out, data = root / "adapters" / name, [_local(recipe, root, one, ".jsonl") for one in wanted.sets]
    known = [file_digest(Path(one)) if Path(one).is_file() else one for one in data]
    template = wanted.train.template
    written = file_digest(Path(template)) if template and Path(template).is_file() else None
    text = side_digest(base.path)
    sets = known if len(known) > 1 else known[0]
    inputs = [base.digest, text, wanted.stage, sets, wanted.columns, wanted.train.model_dump(), written]

    def train() -> None:
        settings, columns, progress = wanted.train, wanted.columns, ledger.progress
        train_stage(base, wanted.stage or "pt", data, out, settings=settings, columns=columns, progress=progress)

    def train_anew() -> None:
        _remove(out)
        try:
            train()
        except StaleWorkError as error:
            # The run directory is ours: checkpoints of an earlier recipe are of no more use.
            ledger.progress.say(f"{error}; removed")
            _remove(out.with_name(out.name + ".work"))
            train()

    ledger.run(f"train-{name}", inputs, lambda: [out / CONFIG_FILE, out / WEIGHTS_FILE, out / MANIFEST], train_anew)
    return Adapter(out)


def _merge(
    recipe: Recipe, weights: Weights, base: Checkpoint, adapters: Mapping[str, Adapter], root: Path, ledger: Ledger
) -> None:
    name = merge_name(weights)
    out = root / "merges" / name
    parts = {key: (adapters[key], weight) for key, weight in weights.items()}
    inputs = [_identity(base), _described(weights, adapters), recipe.dtype]
    inputs += ["partial"] * recipe.allow_partial_adapter

    def merge_anew() -> None:
        if not (out / MANIFEST).is_file():
            _remove(out)
        stored = Storage(DTYPE_ARGUMENTS[recipe.dtype] if recipe.dtype else None)
        plan = plan_merge(base, parts, storage=stored, allow_partial=recipe.allow_partial_adapter)
        proof = SampledProof(progress=ledger.progress)
        execute(plan, out, output=Output(overwrite=True), proof=proof, progress=ledger.progress)

    # Of the weights only the loss is noticed here: whether they are still what was written is for the proof to say.
    if not all((out / file).is_file() for file in {info.file.name for info in base.tensors.values()}):
        _remove(out)
    ledger.run(f"merge-{name}", inputs, lambda: [out / MANIFEST], merge_anew)


def _verify(
    recipe: Recipe, weights: Weights, base: Checkpoint, adapters: Mapping[str, Adapter], root: Path, ledger: Ledger
) -> dict[str, Any]:
    name = merge_name(weights)
    merged = Checkpoint(root / "merges" / name)
    parts = {key: (adapters[key], weight) for key, weight in weights.items()}
    inputs = [_identity(merged), _identity(base), _described(weights, adapters)]
    claim = Claim(base, parts, partial=tuple(parts) if recipe.allow_partial_adapter else ())
    out = root / "verify" / f"{name}.json"

    def judge() -> dict[str, Any]:
        verdict = verify_claim(merged, claim, progress=ledger.progress)
        out.parent.mkdir(exist_ok=True)
        replace_json(out, verdict.to_dict(detail=True))
        return verdict.to_dict()

    return ledger.run(f"verify-{name}", inputs, lambda: [out], judge)


def _analyse(recipe: Recipe, adapters: Mapping[str, Adapter], root: Path, ledger: Ledger) -> dict[str, Any] | None:
    """Overlap of the first two adapters of the first merge, at its weights."""
    pair = list(recipe.mixtures[0].items())[:2]
    if len(pair) < 2:
        return None
    (first, w1), (second, w2) = pair
    out = root / "overlap.json"

    def compare_pair() -> None:
        x, y = independent(adapters[first]), independent(adapters[second])
        rows = [o.to_dict() for o in overlap(x, y, (w1, w2))]
        total = x.cosine(y) if len(x) and len(y) else None
        facts = {"first": first, "second": second, "weights": [weight_json(w1), weight_json(w2)]}
        replace_json(out, {**facts, "cosine": total, "modules": rows})

    inputs = [adapters[first].digest, adapters[second].digest, weight_json(w1), weight_json(w2)]
    ledger.run("analyse", inputs, lambda: [out], compare_pair)
    return read_json(out)


def _training_record(adapter: Adapter) -> dict[str, Any]:
    """What training left beside an adapter, or what can be said of one from elsewhere."""
    file = adapter.path / MANIFEST
    record = read_json(file) if file.exists() else {}
    kept = ("stage", "data", "settings", "template", "steps", "tokens_seen", "loss", "versions", "seconds")
    return {"digest": adapter.digest, **{key: record.get(key) for key in kept}}


def _described(weights: Weights, adapters: Mapping[str, Adapter]) -> dict[str, list[Any]]:
    """Digests of a merge's adapters with their weights."""
    return {key: [adapters[key].digest, weight_json(weight)] for key, weight in weights.items()}


def _identity(checkpoint: Checkpoint) -> list[str]:
    """Digests of a checkpoint's weights and of its small files."""
    return [checkpoint.digest, side_digest(checkpoint.path)]


def _remove(directory: Path) -> None:
    """Remove a directory inside the run directory that this study wrote earlier."""
    if directory.exists():
        shutil.rmtree(directory)
