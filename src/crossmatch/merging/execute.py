"""Run a plan: stream tensor by tensor into a partial directory, prove it, publish it by one rename."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from crossmatch.adapter import Recorded, notes_on_bases
from crossmatch.checkpoint import (
    INDEX,
    MANIFEST,
    Checkpoint,
    Unchanged,
    atomic_directory,
    check_apart,
    sync,
    write_json,
)
from crossmatch.delta import TuningVector
from crossmatch.errors import ProofError
from crossmatch.export.results import MergeManifest
from crossmatch.merging.manifest import merge_manifest
from crossmatch.merging.model_card import write_card
from crossmatch.merging.plan import MergePlan, Parts, Storage, check_bases, plan_merge
from crossmatch.merging.side_files import copy_side_files, side_files
from crossmatch.merging.writer import Stream, Witness
from crossmatch.result_kinds import MERGE_MANIFEST
from crossmatch.results.verdict import ManifestVerdictJson
from crossmatch.rules import Recipe
from crossmatch.runtime import SILENT, Progress


class Proof(Protocol):
    """Judges what is written: by what it sees on the way, by what it finds at the end, or both."""

    def watch(
        self, base: Checkpoint, claim: Mapping[str, tuple[TuningVector, float]], *, stochastic: bool = False
    ) -> Witness | None:
        """Begin, before anything is written. base: as the adapters saw it; claim: what will be said of the result."""
        ...

    def verdict(self, path: Path) -> ManifestVerdictJson:
        """Judge a written directory that is not published yet: a mapping with a `verdict`, for the manifest."""
        ...


@dataclass(frozen=True)
class Output:
    """What is written beside the tensors, and how carefully.

    tokenizer: whose tokenizer and template (None: the adapter's that was trained with its own, else the base's);
    overwrite: replace an earlier output of ours; any_base: merge adapters into another base than they say they were
    trained on; durable: wait until the disk has everything before the rename; sha256: digests of that kind as well;
    away: the directory will not stay here, so that no path of an input is recorded.
    """

    tokenizer: str | None = None
    overwrite: bool = False
    any_base: bool = False
    durable: bool = False
    sha256: bool = False
    away: bool = False


def write(
    base: Checkpoint,
    vector: TuningVector,
    out: str | Path,
    *,
    storage: Storage | None = None,
    output: Output | None = None,
    proof: Proof | None = None,
) -> MergeManifest:
    """Write base + vector as a checkpoint: `merge` with the vector's own terms as parts, named by their directories.

    `merged = 0.3 * pt + 0.7 * sft; write(base, merged, "models/merged")`. Returns and raises what `merge` does.
    """
    parts: dict[str, tuple[TuningVector, float]] = {}
    for weight, source in vector.terms:
        stem = source.path.name if isinstance(source, Recorded) else "vector"
        name, count = stem, 1
        while name in parts:
            count += 1
            name = f"{stem}-{count}"
        parts[name] = (source if isinstance(source, TuningVector) else TuningVector(source), weight)
    return merge(base, parts, out, storage=storage, output=output, proof=proof)


def merge(
    base: Checkpoint,
    parts: Parts,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    storage: Storage | None = None,
    output: Output | None = None,
    proof: Proof | None = None,
) -> MergeManifest:
    """Merge `parts` (name -> (tuning vector, weight)) into `base` by a rule and write the result.

    Returns the manifest. Raises what `plan_merge` and `execute` raise.
    """
    return execute(plan_merge(base, parts, recipe=recipe, storage=storage), out, output=output, proof=proof)


def execute(
    plan: MergePlan,
    out: str | Path,
    *,
    output: Output | None = None,
    proof: Proof | None = None,
    progress: Progress = SILENT,
) -> MergeManifest:
    """Write round(W + D) for every tensor of a plan, and return the manifest that lies beside it.

    Sums are formed in float64 and rounded once; tensors without a delta are copied byte for byte. Memory: a few blocks
    of rows, and the factors of the modules that they belong to. Raises OutputError if `out` is not empty (unless
    `output.overwrite`), ProofError if the proof says `failed`, CheckpointError if an input changes meanwhile; in all
    cases, as after any error, nothing is left at `out`.
    """
    out, output = Path(out), output or Output()
    base = plan.fit.base.original
    adapters = plan.adapters
    check_apart(out, [base.path, *(a.path for a in adapters.values())])
    sides = side_files(plan, output.tokenizer)
    inputs = Unchanged([*base.layout.files, *(file for a in adapters.values() for file in a.paths)])
    with atomic_directory(out, overwrite=output.overwrite) as partial:
        with progress.task("merge", plan.nbytes) as task:
            random = plan.storage.rounding == "stochastic"
            witness = proof.watch(plan.fit.base, plan.vector.claim(), stochastic=random) if proof else None
            stream = Stream(plan, partial, witness=witness, task=task, sha256=output.sha256)
            stream.run(durable=output.durable)
        inputs.check()
        if stream.base_digests.keys() == {file.name for file in base.layout.files}:
            base.note_digests(stream.base_digests)
        if not output.any_base:
            check_bases(base, adapters)
            for note in notes_on_bases(adapters, base):
                progress.say(note)
        _write_index(plan, partial)
        copy_side_files(sides, partial, _config_changes(plan))
        verdict = proof.verdict(partial) if proof else None
        if verdict and verdict["verdict"] == "failed":
            raise ProofError(f"the merge failed its own proof ({', '.join(verdict['faults'])}); {out} was not written")
        manifest = merge_manifest(plan, sides, stream.digests, partial, verdict, away=output.away)
        write_card(partial, manifest)
        MERGE_MANIFEST.write(partial / MANIFEST, manifest)
        if output.durable:
            sync(partial)
    return MergeManifest(manifest)


def _config_changes(plan: MergePlan) -> dict[str, Any]:
    """Fields of config.json that would no longer be true: dtype, vocabulary, tied embeddings."""
    view = plan.fit.base
    changes = {key: value for key, value in view.config.items() if view.original.config.get(key) != value}
    stored = {str(t.dtype).split(".")[-1] for t in plan.tensors if t.dtype.is_floating_point}
    if plan.storage.dtype is not None and len(stored) == 1:
        keys = [key for key in ("dtype", "torch_dtype") if key in view.config] or ["dtype"]
        changes |= dict.fromkeys(keys, stored.pop())
    return changes


def _write_index(plan: MergePlan, out: Path) -> None:
    if plan.storage.shard_bytes is None and plan.fit.base.layout.index is None:
        return
    if plan.storage.shard_bytes is not None and len(plan.files()) == 1:
        return
    names = {tensor.name: tensor.file for tensor in plan.tensors}
    write_json(out / INDEX, {"metadata": {"total_size": plan.nbytes}, "weight_map": dict(sorted(names.items()))})
