"""Prove: what is inside a merged checkpoint."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossmatch.adapter import open_vector
from crossmatch.checkpoint import DTYPE_WORDS, Checkpoint, is_quantised, locate
from crossmatch.delta import TuningVector
from crossmatch.errors import InputError, one_of
from crossmatch.rules import Recipe, Weight, parse_weight
from crossmatch.runtime import SILENT, Progress
from crossmatch.verification import (
    DEFAULTS,
    Claim,
    Parts,
    Thresholds,
    Verdict,
    claim_from_manifest,
    verify_claim,
    with_signature,
)
from crossmatch.verification import identify as identify_vectors

Model = str | Path | Checkpoint
Vector = str | Path | TuningVector


def verify(
    merged: Model,
    base: Model | None = None,
    parts: Parts | None = None,
    *,
    adapter: Mapping[str, Vector] | None = None,
    weight: Mapping[str, Weight | str] | None = None,
    recipe: Recipe | None = None,
    thresholds: Thresholds = DEFAULTS,
    quick: bool = False,
    calibration: str | Path | None = None,
    dtype: str | None = None,
    public_key: str | Path | None = None,
    allow_partial_adapter: bool = False,
    progress: Progress = SILENT,
) -> Verdict:
    """Judge the claim that `merged` is round(base + sum_i weight_i * D_i) and nothing else.

    merged, base: a directory, a hub id, or an open Checkpoint; adapter: name -> directory, hub id or open vector, and
    weight: name -> its claimed weight; or both as parts: name -> (tuning vector, weight). What is left out comes from
    the manifest beside `merged`, whose inputs must be unchanged. recipe: another rule than the weighted sum; quick:
    some rows of every tensor instead of all; calibration: the calibration file of a merge that used one; dtype: claim
    that it is stored so (float32, bfloat16, float16); public_key: a PEM file, against which model.sig is checked, too;
    allow_partial_adapter: take truncated or untrained adapters as they are.

    The verdict is `verified`, `failed` or `inconclusive`; `weights` holds what was claimed and recovered, with standard
    errors; `faults` names what is wrong. No forward pass; base and merged are read once. Raises CheckpointError or
    AdapterError for what cannot be read, InputError for half a claim, RuleError for weights that are not finite.

        >>> import crossmatch
        >>> verdict = crossmatch.verify("models/merged")
        >>> verdict.verdict
        'verified'
        >>> round(verdict.weights["pt"].recovered, 3)
        0.3
    """
    one_of("dtype", dtype, (None, *DTYPE_WORDS))
    if parts is None and adapter is not None and weight is not None:
        parts = parts_of(adapter, weight)
    if parts is not None and base is not None:
        vectors: Parts = {name: (_vector(one), w) for name, (one, w) in parts.items()}
        claim = Claim(opened(base), vectors, recipe or Recipe())
    elif parts is not None or weight is not None or (not isinstance(merged, Checkpoint) and is_quantised(merged)):
        raise InputError("half a claim; give base, adapter and weight, or nothing but `merged` and its manifest")
    else:
        paths = {name: _path(one, name) for name, one in (adapter or {}).items()}
        said = None if base is None else _path(base, "base")
        claim = claim_from_manifest(opened(merged), said, paths, None if calibration is None else Path(calibration))
        claim = replace(claim, recipe=recipe) if recipe is not None else claim
    claim = replace(claim, dtypes=(DTYPE_WORDS[dtype],)) if dtype else claim
    claim = replace(claim, partial=tuple(claim.parts)) if allow_partial_adapter else claim
    verdict = verify_claim(merged, claim, thresholds=thresholds, quick=quick, progress=progress)
    if public_key is None:
        return verdict
    return with_signature(verdict, locate(_path(merged, "merged")).path, Path(public_key))


def identify(
    merged: Model,
    base: Model,
    adapter: Mapping[str, Vector] | None = None,
    *,
    candidates: Mapping[str, Vector] | None = None,
    thresholds: Thresholds = DEFAULTS,
    progress: Progress = SILENT,
) -> Verdict:
    """Say which of some adapters are in `merged`, how much of each, and whether anything else is; nothing is claimed.

    merged, base: a directory, a hub id, or an open Checkpoint; adapter: name -> directory, hub id or open vector (also
    called candidates). The verdict is `identified`, `failed` if something else is in the file, `inconclusive` if the
    data cannot tell;
    `evidence["absent"]` names adapters of which nothing is there. Raises as `verify` does.

        >>> import crossmatch
        >>> found = crossmatch.identify("models/merged", "models/base", {"pt": "runs/pt", "sft": "runs/sft"})
        >>> {name: round(weight.recovered, 2) for name, weight in found.weights.items()}
        {'pt': 0.3, 'sft': 0.7}
    """
    vectors = {name: _vector(one) for name, one in (adapter or candidates or {}).items()}
    return identify_vectors(merged, opened(base), vectors, thresholds=thresholds, progress=progress)


def inspect(path: str | Path) -> Mapping[str, Any]:
    """What a checkpoint, an adapter or a stored vector is: tensors, sizes, dtypes, ranks, scales, template, digests.

    path: a directory or a hub id. The fields are those of `crossmatch inspect --json`.

        >>> import crossmatch
        >>> facts = crossmatch.inspect("runs/pt")
        >>> facts["kind"], facts["ranks"]
        ('adapter', {'8': 14})
    """
    from crossmatch.console import Terminal
    from crossmatch.vectors.facts import inspect_path

    return inspect_path(path, Terminal())


def parts_of(adapter: Mapping[str, Vector], weight: Mapping[str, Weight | str]) -> Parts:
    """Adapters with their weights, by name. Raises InputError for one without the other."""
    lone = sorted(set(adapter) ^ set(weight))
    if lone:
        raise InputError(f"{lone[0]} has {'no weight' if lone[0] in adapter else 'no adapter'}; give both by one name")
    read = {name: parse_weight(one) if isinstance(one, str | float | int) else one for name, one in weight.items()}
    return {name: (_vector(one), read[name]) for name, one in adapter.items()}


def opened(model: Model) -> Checkpoint:
    """A checkpoint, opened if it is not yet."""
    return model if isinstance(model, Checkpoint) else Checkpoint(model)


def _vector(vector: Vector) -> TuningVector:
    return vector if isinstance(vector, TuningVector) else open_vector(vector)


def _path(source: Model | Vector, name: str) -> str | Path:
    path = source if isinstance(source, str | Path) else getattr(source, "path", None)
    if not isinstance(path, str | Path):
        raise InputError(f"{name}: a sum of vectors is in no manifest; give it as parts, with base and weights")
    return path
