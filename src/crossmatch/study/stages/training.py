"""The stages that make base, data and adapters."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from crossmatch.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter
from crossmatch.checkpoint import MANIFEST, Checkpoint, file_digest, read_json, side_digest
from crossmatch.errors import InputError
from crossmatch.result_kinds import TRAINING
from crossmatch.results.study import DataCardJson, StudyAdapterJson
from crossmatch.study.ledger import Ledger, remove
from crossmatch.study.recipe import SAMPLE, Recipe, local_path
from crossmatch.study.sample import DATA_VERSION, model_file, ontology_file, write_base, write_data
from crossmatch.training import StaleWorkError, train_stage


def open_base(recipe: Recipe, root: Path, ledger: Ledger) -> Checkpoint:
    """The base: a checkpoint, or the bundled sample's, written first."""
    if not recipe.base.startswith(SAMPLE):
        return Checkpoint(recipe.base)
    if recipe.base != "sample:smollm2":
        raise InputError(f"base {recipe.base} is not in the sample; there is sample:smollm2")
    out = root / "base"

    def write_sample_base() -> None:
        with ledger.progress.task("dequantise SmolLM2-135M-Instruct") as task:
            remove(out)
            write_base(out)
            task.advance()

    ledger.run("base", file_digest(model_file()), lambda: sorted(out.iterdir()), write_sample_base)
    return Checkpoint(out)


def write_sample(recipe: Recipe, root: Path, ledger: Ledger) -> DataCardJson | None:
    """Write the sample's data; what it holds, or None for a recipe without it."""
    if recipe.sample is None:
        return None
    size, out = recipe.sample, root / "data"
    questions = [size.arithmetic.model_dump()] if size.arithmetic else []
    inputs = [size.terms, file_digest(ontology_file()), DATA_VERSION, *questions]
    return ledger.run("data", inputs, lambda: sorted(out.iterdir()), partial(write_data, out, size))


def training_sets(recipe: Recipe, root: Path) -> dict[str, tuple[str, str]]:
    """Name -> file or hub data set and the adapter that it is for; a set of several adapters comes once."""
    found: dict[str, tuple[str, str]] = {}
    for name, adapter in sorted(recipe.adapters.items(), key=lambda entry: len(entry[1].sets)):
        for one in adapter.sets:
            file = local_path(recipe, root, one, ".jsonl")
            same = [owner for known, owner in found.values() if known == file]
            if not any(recipe.adapters[owner].columns == adapter.columns for owner in same) or len(adapter.sets) == 1:
                found[name if len(adapter.sets) == 1 else f"{name}-{Path(file).stem}"] = file, name
    return found


def train_adapter(recipe: Recipe, name: str, base: Checkpoint, root: Path, ledger: Ledger) -> Adapter:
    """An adapter of the recipe: read, or trained first."""
    wanted = recipe.adapters[name]
    if wanted.path is not None:
        return Adapter(wanted.path)
    assert wanted.stage is not None
    out, data = root / "adapters" / name, [local_path(recipe, root, one, ".jsonl") for one in wanted.sets]
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
        remove(out)
        try:
            train()
        except StaleWorkError as error:
            # The run directory is ours: checkpoints of an earlier recipe are of no more use.
            ledger.progress.say(f"{error}; removed")
            remove(out.with_name(out.name + ".work"))
            train()

    ledger.run(f"train-{name}", inputs, lambda: [out / CONFIG_FILE, out / WEIGHTS_FILE, out / MANIFEST], train_anew)
    return Adapter(out)


def training_record(adapter: Adapter) -> StudyAdapterJson:
    """What training left beside an adapter, or what can be said of one from elsewhere."""
    file = adapter.path / MANIFEST
    known = read_json(file) if file.exists() else {}
    # What another program left there under this name is no record of ours.
    record: Mapping[str, Any] = TRAINING.known(known, str(file)) if known.get("kind") == "adapter" else {}
    return {
        "digest": adapter.digest,
        "stage": record.get("stage"),
        "data": record.get("data"),
        "settings": record.get("settings"),
        "template": record.get("template"),
        "steps": record.get("steps"),
        "tokens_seen": record.get("tokens_seen"),
        "loss": record.get("loss"),
        "versions": record.get("versions"),
        "seconds": record.get("seconds"),
    }
