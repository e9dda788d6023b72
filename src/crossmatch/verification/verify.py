"""Verify: which sum of deltas is really in a file, and is everything else the base's?"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import Checkpoint
from crossmatch.progress import SILENT, Progress
from crossmatch.rules import Recipe
from crossmatch.verification.claim import Claim, Parts, Resolved
from crossmatch.verification.judge import (
    DEFAULTS,
    ModuleVerdict,
    Thresholds,
    judge_module,
    name_weights,
    resolves,
    skipped,
)
from crossmatch.verification.recover import Estimate, Strata, estimate
from crossmatch.verification.rounding import Violations
from crossmatch.verification.scan import NOT_CHECKED, ModuleScan, Scan, changed_config, scan
from crossmatch.verification.verdict import RecoveredWeight, Verdict


def verify(
    merged: str | Path | Checkpoint,
    base: Checkpoint,
    parts: Parts,
    *,
    recipe: Recipe | None = None,
    thresholds: Thresholds = DEFAULTS,
    progress: Progress = SILENT,
) -> Verdict:
    """Judge the claim that `merged` is round(base + sum_i weight_i * D_i) and nothing else.

    parts: name -> (tuning vector, claimed weight); recipe: another rule than the weighted sum. Reads base and merged
    once, block by block; no forward pass. Raises CheckpointError or AdapterError for what cannot be read, RuleError for
    weights that are not finite.
    """
    return verify_claim(merged, Claim(base, parts, recipe or Recipe()), thresholds=thresholds, progress=progress)


def verify_claim(
    merged: str | Path | Checkpoint,
    claim: Claim,
    *,
    thresholds: Thresholds = DEFAULTS,
    progress: Progress = SILENT,
) -> Verdict:
    """Judge a claim; see `verify`."""
    started = time.monotonic()
    checkpoint = merged if isinstance(merged, Checkpoint) else Checkpoint(merged)
    resolved = claim.resolve()
    result = scan(checkpoint, resolved, progress)
    verdict = decide(checkpoint, resolved, result, thresholds, stochastic=claim.stochastic)
    digests = {
        "merged": checkpoint.digest,
        "base": claim.base.digest,
        "adapters": {n: v.digest if isinstance(v, Adapter) else None for n, (v, _) in claim.parts.items()},
    }
    return replace(verdict, digests=digests, seconds=round(time.monotonic() - started, 3))


def decide(
    checkpoint: Checkpoint, claim: Resolved, result: Scan, thresholds: Thresholds, *, stochastic: bool = False
) -> Verdict:
    """The verdict on what a scan has shown."""
    base = claim.base
    claimed = [weight for _, weight in claim.parts.values()]
    modules = [judge_module(m, estimate([m.strata], claimed), claimed, thresholds) for m in result.modules]
    pooled = _pooled(result.modules, claimed)
    faults = _faults(checkpoint, base, result, modules, pooled, claimed, thresholds)
    notes, conclusive = _notes(result, modules, pooled, claimed, thresholds, faults)
    if stochastic:
        notes = ["rounded-stochastically" if note == "rounded-twice" else note for note in notes]
    return Verdict(
        verdict="failed" if faults else "verified" if conclusive else "inconclusive",
        faults=tuple(faults),
        notes=tuple(notes),
        weights={
            name: RecoveredWeight.of(claimed[i], pooled.weights[i], pooled.stderr[i])
            for i, name in enumerate(claim.parts)
        },
        modules={
            "adapted": len(modules),
            **{s: sum(m.state == s for m in modules) for s in ("agree", "disagree", "undecided")},
        },
        tensors=_tensors(base, result),
        rounding=_rounding(result.modules, thresholds),
        evidence={
            "elements": sum(m.elements for m in result.modules),
            "entries": pooled.entries,
            "residual_excess": None if math.isnan(pooled.excess) else pooled.excess,
            "modules_in_question": [m.name for m in modules if m.state == "disagree"],
            "config_changed": changed_config(checkpoint, base),
            "not_checked": list(NOT_CHECKED),
        },
        thresholds=vars(thresholds),
        digests={},
        seconds=0.0,
        details=tuple(_detail(s, m, list(claim.parts)) for s, m in zip(result.modules, modules, strict=True)),
    )


def _pooled(modules: Sequence[ModuleScan], claimed: Sequence[float]) -> Estimate:
    return (
        estimate([m.strata for m in modules], claimed) if modules else estimate([Strata.empty(len(claimed))], claimed)
    )


def _faults(
    merged: Checkpoint,
    base: Checkpoint,
    result: Scan,
    modules: Sequence[ModuleVerdict],
    pooled: Estimate,
    claimed: Sequence[float],
    t: Thresholds,
) -> list[str]:
    """All faults, most telling first: what explains the others comes before them."""
    flipped = [m for m in result.modules if m.flips]
    faults: list[str] = []
    if merged.layout.strays:
        faults.append("two-weight-sets")
    if base.original.tied and not base.tied and merged.tied:
        # The claim changes one embedding alone, the file has one for both.
        faults.append("tied-leak")
    if flipped and not any(m.changed for m in result.modules):
        faults.append("adapter-not-applied")
    elif skipped(modules):
        faults.append("modules-skipped")
    else:
        named = name_weights(pooled, modules, claimed, t)
        # A module with values that are not finite is in question for that, and has its own fault below.
        spoilt = {m.name for m in result.modules if m.nonfinite}
        in_question = any(m.state == "disagree" and m.name not in spoilt for m in modules)
        if named or in_question:
            faults.append(named or "unexplained-delta")
    checks = {
        "nonfinite": any(m.nonfinite for m in result.modules) or bool(result.nonfinite),
        "tensors-missing": bool(result.missing),
        "tensors-extra": bool(result.extra),
        "untouched-changed": bool(result.untouched_changed),
        "adapter-left-behind": (merged.path / "adapter_config.json").exists(),
        "config-changed": bool(changed_config(merged, base)),
    }
    return faults + [fault for fault, present in checks.items() if present]


def _notes(
    result: Scan,
    modules: Sequence[ModuleVerdict],
    pooled: Estimate,
    claimed: Sequence[float],
    t: Thresholds,
    faults: Sequence[str],
) -> tuple[list[str], bool]:
    """Honest peculiarities, and whether the evidence decides at all."""
    rounding = _rounding(result.modules, t)
    notes = []
    identifiable = pooled.identifiable and all(
        resolves(e, c, t) for e, c in zip(pooled.stderr, claimed, strict=True) if not math.isnan(e)
    )
    absent = any(math.isnan(weight) for weight in pooled.weights)
    if not any(claimed) and not any(m.changed for m in result.modules):
        # The claim is the base, and every adapted element is the base's: no weight needs to be told from another.
        identifiable, absent = True, False
    if (not identifiable or absent) and not faults:
        notes.append("not-identifiable")
    if rounding["route"] == "twice":
        notes.append("rounded-twice")
    if rounding["swallowed_energy"] is not None and rounding["swallowed_energy"] > t.swallow:
        notes.append("rounding-swallow")
    if result.cast:
        notes.append("dtype-changed")
    # A module without evidence may still be exactly what the claim predicts; then it is no open question.
    by_name = {s.name: s for s in result.modules}
    is_open = [
        m
        for m in modules
        if m.state == "undecided" and by_name[m.name].violations.bits > t.violations * by_name[m.name].elements
    ]
    return notes, identifiable and not absent and not is_open


def _tensors(base: Checkpoint, result: Scan) -> dict[str, Any]:
    return {
        "total": len(base.tensors),
        "untouched_identical": len(result.identical),
        "untouched_changed": result.untouched_changed,
        "missing": result.missing,
        "extra": result.extra,
    }


def _rounding(modules: Sequence[ModuleScan], t: Thresholds) -> dict[str, Any]:
    """The first route that explains all but a tolerated share of elements, with the shares themselves."""
    total = sum((m.violations for m in modules), Violations())
    elements = sum(m.elements for m in modules)
    energy = sum(m.energy for m in modules)
    shares = {"once": total.once / elements, "twice": total.twice / elements} if elements else {}
    route = next((name for name, share in shares.items() if share <= t.violations), None)
    return {
        "route": route,
        "violations": shares.get(route or "twice"),
        "bit_mismatch": total.bits / elements if elements else None,
        "swallowed_energy": sum(m.lost for m in modules) / energy if energy else None,
    }


def _detail(scanned: ModuleScan, judged: ModuleVerdict, names: Sequence[str]) -> dict[str, Any]:
    found = judged.estimate
    weights: Mapping[str, Any] = {
        name: {"recovered": found.weights[i], "stderr": found.stderr[i]}
        for i, name in enumerate(names)
        if not math.isnan(found.weights[i])
    }
    return {
        "name": scanned.name,
        "state": judged.state,
        "weights": weights,
        "entries": found.entries,
        "residual_excess": None if math.isnan(found.excess) else found.excess,
        "elements": scanned.elements,
        "violations_once": scanned.violations.once,
        "violations_twice": scanned.violations.twice,
        "bit_mismatches": scanned.violations.bits,
        "changed": scanned.changed,
        "predicted_changed": scanned.flips,
    }
