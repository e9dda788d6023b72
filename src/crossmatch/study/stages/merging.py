"""The stages that merge and prove."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import MANIFEST, Checkpoint, side_digest
from crossmatch.evaluation import merge_name
from crossmatch.merging import DTYPE_ARGUMENTS, Output, Storage, execute, plan_merge
from crossmatch.result_kinds import VERDICT
from crossmatch.results.verdict import VerdictJson
from crossmatch.rules import Weight, weight_json
from crossmatch.study.ledger import Ledger, remove
from crossmatch.study.recipe import Recipe
from crossmatch.verification import Claim, SampledProof, verify_claim

Weights = Mapping[str, Weight]


def merge_and_publish(
    recipe: Recipe, weights: Weights, base: Checkpoint, adapters: Mapping[str, Adapter], root: Path, ledger: Ledger
) -> None:
    """Write one merge, unless what it is made of is unchanged; it is published only if its proof passes."""
    name = merge_name(weights)
    out = root / "merges" / name
    parts = {key: (adapters[key], weight) for key, weight in weights.items()}
    inputs = [_identity(base), _described(weights, adapters), recipe.dtype]
    inputs += ["partial"] * recipe.allow_partial_adapter

    def merge_anew() -> None:
        if not (out / MANIFEST).is_file():
            remove(out)
        stored = Storage(DTYPE_ARGUMENTS[recipe.dtype] if recipe.dtype else None)
        plan = plan_merge(base, parts, storage=stored, allow_partial=recipe.allow_partial_adapter)
        proof = SampledProof(progress=ledger.progress)
        execute(plan, out, output=Output(overwrite=True), proof=proof, progress=ledger.progress)

    # Of the weights only the loss is noticed here: whether they are still what was written is for the proof to say.
    if not all((out / file).is_file() for file in {info.file.name for info in base.tensors.values()}):
        remove(out)
    ledger.run(f"merge-{name}", inputs, lambda: [out / MANIFEST], merge_anew)


def verify_merge(
    recipe: Recipe, weights: Weights, base: Checkpoint, adapters: Mapping[str, Adapter], root: Path, ledger: Ledger
) -> VerdictJson:
    """The verdict on a published merge, as `verify --json` has it."""
    name = merge_name(weights)
    merged = Checkpoint(root / "merges" / name)
    parts = {key: (adapters[key], weight) for key, weight in weights.items()}
    inputs = [_identity(merged), _identity(base), _described(weights, adapters)]
    claim = Claim(base, parts, partial=tuple(parts) if recipe.allow_partial_adapter else ())
    out = root / "verify" / f"{name}.json"

    def judge() -> VerdictJson:
        verdict = verify_claim(merged, claim, progress=ledger.progress)
        out.parent.mkdir(exist_ok=True)
        VERDICT.replace(out, verdict.to_dict(detail=True))
        return verdict.to_dict()

    return ledger.run(f"verify-{name}", inputs, lambda: [out], judge)


def _described(weights: Weights, adapters: Mapping[str, Adapter]) -> dict[str, list[Any]]:
    """Digests of a merge's adapters with their weights."""
    return {key: [adapters[key].digest, weight_json(weight)] for key, weight in weights.items()}


def _identity(checkpoint: Checkpoint) -> list[str]:
    """Digests of a checkpoint's weights and of its small files."""
    return [checkpoint.digest, side_digest(checkpoint.path)]
