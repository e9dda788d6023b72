"""Run a plan: stream tensor by tensor into a partial directory, prove it, publish it by one rename."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import (
    INDEX,
    MANIFEST,
    Checkpoint,
    Source,
    atomic_directory,
    check_apart,
    text_facts,
    write_json,
    write_safetensors,
)
from crossmatch.delta import TuningVector, merged_rows
from crossmatch.errors import CheckpointError, OutputError, ProofError
from crossmatch.merging.plan import MergePlan, Parts, PlannedTensor, check_bases, plan_merge
from crossmatch.merging.rules import get_rule
from crossmatch.merging.sidecar import SideFiles, copy_side_files, side_files
from crossmatch.progress import SILENT, Progress, Task

Prove = Callable[[Path], Mapping[str, Any]]
"""Judges a written directory; its answer has a `verdict` and goes into the manifest."""

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:crossmatch:merge:1"
COPY_BYTES = 1 << 22


@dataclass(frozen=True)
class Output:
    """How a merge is stored: dtype of all floating tensors (None: the base's), tokenizer's source, overwriting.

    any_base: merge adapters into another base than the one that they say they were trained on.
    """

    dtype: torch.dtype | None = None
    tokenizer: str | None = None
    overwrite: bool = False
    any_base: bool = False


def write(
    base: Checkpoint, vector: TuningVector, out: str | Path, *, output: Output | None = None, prove: Prove | None = None
) -> dict[str, Any]:
    """Write base + vector as a checkpoint: `merge` with the vector's own terms as parts, named by their directories.

    `merged = 0.3 * pt + 0.7 * sft; write(base, merged, "models/merged")`. Returns and raises what `merge` does.
    """
    parts: dict[str, tuple[TuningVector, float]] = {}
    for weight, source in vector.terms:
        stem = source.path.name if isinstance(source, Adapter) else "vector"
        name, count = stem, 1
        while name in parts:
            count += 1
            name = f"{stem}-{count}"
        parts[name] = (source if isinstance(source, TuningVector) else TuningVector(source), weight)
    return merge(base, parts, out, output=output or Output(), prove=prove)


def merge(
    base: Checkpoint,
    parts: Parts,
    out: str | Path,
    *,
    rule: str = "linear",
    output: Output | None = None,
    prove: Prove | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write round(W + sum_i weight_i * D_i) for every tensor, and return the manifest that lies beside it.

    Sums are formed in float64 and rounded once; tensors without a delta are copied byte
    for byte. Memory: one block of rows, and one module's factors. `prove` is called with the directory before it is
    published. Raises OutputError if `out` is not empty (unless `output.overwrite`), ProofError if the proof says
    `failed`; in both cases, as after any error, nothing is left at `out`.
    """
    out, output = Path(out), output or Output()
    adapters = {name: v for name, (v, _) in parts.items() if isinstance(v, Adapter)}
    check_apart(out, [base.path, *(a.path for a in adapters.values())])
    plan = plan_merge(base, parts, rule=rule, dtype=output.dtype)
    if not output.any_base:
        check_bases(base, adapters)
    sides = side_files(base, parts, output.tokenizer)
    with atomic_directory(out, overwrite=output.overwrite) as partial:
        with progress.task("merge", plan.nbytes) as task:
            subjects = {
                file: write_safetensors(
                    partial / file,
                    [(t.name, t.dtype, t.shape) for t in tensors],
                    _blocks(base, parts, plan, tensors, task),
                )
                for file, tensors in _by_file(plan).items()
            }
        _write_index(base, plan, partial)
        stored = {str(t.dtype).split(".")[-1] for t in plan.tensors}
        copy_side_files(sides, partial, stored.pop() if output.dtype is not None and len(stored) == 1 else None)
        verdict = dict(prove(partial)) if prove else None
        if verdict and verdict["verdict"] == "failed":
            raise ProofError(f"the merge failed its own proof ({', '.join(verdict['faults'])}); {out} was not written")
        manifest = _manifest(base, parts, plan, sides, subjects, partial, verdict)
        write_json(partial / MANIFEST, manifest)
    return manifest


def _blocks(
    base: Checkpoint, parts: Parts, plan: MergePlan, tensors: list[PlannedTensor], task: Task
) -> Iterator[memoryview | bytearray]:
    rule = get_rule(plan.rule)
    for tensor in tensors:
        if tensor.action == "copy":
            for start in range(0, tensor.nbytes, COPY_BYTES):
                raw = base.raw(tensor.name, start, min(COPY_BYTES, tensor.nbytes - start))
                if tensor.dtype.is_floating_point:
                    _check_finite(base, tensor, torch.frombuffer(raw, dtype=tensor.dtype), source_too=True)
                yield raw
        elif not tensor.shape:
            yield _bytes(base[tensor.name].to(tensor.dtype))
        else:
            used = [parts[name] for name in tensor.parts]
            delta = rule([v[tensor.name] for v, _ in used], [w for _, w in used]) if used else None
            for start, stop in base.blocks(tensor.name):
                rows = base.rows(tensor.name, start, stop)
                done = merged_rows(rows, delta, start, stop, tensor.dtype) if delta else rows.to(tensor.dtype)
                _check_finite(base, tensor, done, source_too=not bool(torch.isfinite(rows).all()))
                yield _bytes(done)
        task.advance(tensor.nbytes, tensor.name)


def _check_finite(base: Checkpoint, tensor: PlannedTensor, block: torch.Tensor, *, source_too: bool) -> None:
    if bool(torch.isfinite(block).all()):
        return
    if source_too:
        raise CheckpointError(f"{base.path}: {tensor.name} holds NaN or infinite values; fetch or save the base again")
    form = str(tensor.dtype).split(".")[-1]
    raise OutputError(f"{tensor.name} overflows {form}; store the merge in bfloat16 or float32 (--dtype)")


def _bytes(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _by_file(plan: MergePlan) -> dict[str, list[PlannedTensor]]:
    files: dict[str, list[PlannedTensor]] = {}
    for tensor in plan.tensors:
        files.setdefault(tensor.file, []).append(tensor)
    return files


def _write_index(base: Checkpoint, plan: MergePlan, out: Path) -> None:
    if base.layout.index is None:
        return
    weight_map = {tensor.name: tensor.file for tensor in sorted(plan.tensors, key=lambda t: t.name)}
    write_json(out / INDEX, {"metadata": {"total_size": plan.nbytes}, "weight_map": weight_map})


def _manifest(
    base: Checkpoint,
    parts: Parts,
    plan: MergePlan,
    sides: SideFiles,
    subjects: Mapping[str, str],
    out: Path,
    verdict: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """An in-toto Statement v1: the files as subjects, how they were made as the predicate. No times, no host."""
    adapters = {}
    for name, (vector, weight) in parts.items():
        known = (
            {**_origin(vector.source, out), "digest": vector.digest, "files": vector.file_digests}
            if isinstance(vector, Adapter)
            else {"path": None, "digest": None}
        )
        adapters[name] = {"weight": float(weight), **known}
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"blake3": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "schema_version": 1,
            "base": {**_origin(base.source, out), "digest": base.digest, "files": base.file_digests},
            "adapters": adapters,
            "rule": plan.rule,
            "dtypes": sorted({str(t.dtype).split(".")[-1] for t in plan.tensors}),
            "tensors": {action: plan.count(action) for action in ("merge", "copy", "cast")},
            "route": "once",
            "tokenizer_from": sides.tokenizer_from,
            "text": text_facts(out).to_dict(),
            "versions": {
                "crossmatch": version("crossmatch"),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "verdict": verdict,
        },
    }


def _origin(source: Source, partial: Path) -> dict[str, str | None]:
    """Where an input lies, relative to the output directory, so that both can move together."""
    where = None if source.hub_id else os.path.relpath(source.path.resolve(), partial.resolve())
    return {"path": where, "hub_id": source.hub_id, "revision": source.revision}
