"""Merge: adapters into a base, or into one adapter."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmatch.errors import InputError
from crossmatch.runtime import SILENT, Progress

if TYPE_CHECKING:
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.delta import TuningVector
    from crossmatch.export.results import MergeManifest
    from crossmatch.merging import Output, Parts, Proof, Storage
    from crossmatch.rules import Recipe, Weight
    from crossmatch.sweeping.chosen import Chosen


def merge(
    base: "str | Path | Checkpoint | None" = None,
    parts: "Parts | None" = None,
    out: str | Path | None = None,
    *,
    adapter: "Mapping[str, str | Path | TuningVector] | None" = None,
    weight: "Mapping[str, Weight | str] | None" = None,
    output: "str | Path | Output | None" = None,
    rule: str = "linear",
    setting: Mapping[str, Any] | None = None,
    seed: int = 0,
    calibration: str | Path | None = None,
    to: str = "checkpoint",
    rank: int | None = None,
    dtype: str | None = None,
    rounding: str = "nearest",
    shard_size: str | None = None,
    tied: str = "refuse",
    tokenizer: str | None = None,
    verify: bool | None = None,
    overwrite: bool = False,
    any_base: bool = False,
    allow_partial_adapter: bool = False,
    durable: bool = False,
    sha256: bool = False,
    sign: str | Path | None = None,
    from_: str | Path | None = None,
    point: int | str | None = None,
    recipe: "Recipe | None" = None,
    storage: "Storage | None" = None,
    proof: "Proof | None" = None,
    progress: Progress = SILENT,
) -> "MergeManifest":
    """Merge adapters into a base: deltas weighted once, summed exactly, rounded once, proved, published whole.

    base: a directory, a hub id, or an open Checkpoint; adapter: name -> directory, hub id or open vector, and weight:
    name -> a number, or numbers by module as in `0.3,mlp:0.2`; or both as parts: name -> (tuning vector, weight).
    from_: a sweep's directory in place of all that, merged as it recommends, or at point (a number, or "repair").
    output (or out): the directory; setting: parameters of the rule, as `--set` takes them; verify: prove what is
    written (None: as the command does, but with parts); sign: a private key (PEM) to sign the files with; the other
    names are the command's options. Objects do in their place: recipe, storage, proof, and output an `Output`.

    The manifest is returned. Raises OutputError for a directory that is not empty, ProofError if what was written is
    not what was asked for, AdapterError, RuleError and InputError for what cannot be merged; nothing is left then.

        >>> import crossmatch
        >>> pair = {"pt": "runs/pt", "sft": "runs/sft"}
        >>> manifest = crossmatch.merge("models/base", adapter=pair, weight={"pt": 0.3, "sft": 0.7}, output="models/m")
        >>> manifest["predicate"]["verdict"]["verdict"]
        'verified'
    """
    from crossmatch.api.prove import opened, parts_of
    from crossmatch.checkpoint import check_key
    from crossmatch.checkpoint import sign as sign_files
    from crossmatch.export.results import MergeManifest
    from crossmatch.merging import Output, check_form, execute, merge_factors, plan_merge, read_storage
    from crossmatch.rules import Calibration, Recipe
    from crossmatch.verification import SampledProof

    where = out if out is not None else None if isinstance(output, Output) else output
    if where is None:
        raise InputError("no output given; add output=DIRECTORY")
    if sign is not None:
        check_key(Path(sign))
    if recipe is not None and (rule != "linear" or setting or seed or calibration):
        raise InputError("rule, setting, seed and calibration stand in the recipe, which is given")
    if storage is not None and (dtype or rounding != "nearest" or shard_size or tied != "refuse"):
        raise InputError("dtype, rounding, shard_size and tied stand in the storage, which is given")
    check_form(to, rank, checkpoint_only=bool(storage or dtype or rounding != "nearest" or shard_size or sha256))
    words = {name: str(value) for name, value in (setting or {}).items()}
    how = recipe or Recipe(rule, words, seed, Calibration(Path(calibration)) if calibration else None)
    chosen = None
    if from_ is not None:
        chosen = _chosen(from_, point, base, parts, adapter, weight, None if how == Recipe() else how)
        base, given, how = chosen.base, chosen.parts, chosen.recipe
    elif base is None or point is not None:
        raise InputError("point needs from_, the directory of a sweep" if base else "give a base, or from_ a sweep")
    elif (parts is None) == (adapter is None and weight is None):
        raise InputError("give adapter and weight by name, or parts, and not both")
    else:
        given = parts if parts is not None else parts_of(adapter or {}, weight or {})
    stored = storage or read_storage(dtype or (chosen.dtype if chosen else None), rounding, shard_size, tied)
    options = output if isinstance(output, Output) else Output(tokenizer, overwrite, any_base, durable, sha256)
    plan = plan_merge(opened(base), given, recipe=how, storage=stored, allow_partial=allow_partial_adapter)
    plan = replace(plan, recorded=chosen.recorded) if chosen else plan
    if to == "adapter":
        made = merge_factors(plan, where, rank=rank, output=options, progress=progress)
    else:
        wanted = verify if verify is not None else parts is None
        witness = proof or (SampledProof(progress=progress) if wanted else None)
        made = execute(plan, where, output=options, proof=witness, progress=progress)
    if sign is not None:
        sign_files(Path(where), Path(sign))
    return MergeManifest(made)


def _chosen(swept: str | Path, point: int | str | None, *beside: Any) -> "Chosen":
    """The point of a sweep. Raises InputError for what is given besides and comes from the sweep."""
    from crossmatch.sweeping.chosen import chosen_point

    if any(one is not None for one in beside):
        raise InputError("base, adapters, weights and rule are not given with from_: they come from the sweep")
    return chosen_point(Path(swept), None if point is None else str(point))
