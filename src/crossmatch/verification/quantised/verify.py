"""Verify a quantised export: which sum of deltas is inside, within the error that its quantisation makes?

No element can be certified as in a checkpoint of 16 bits. What decides instead: the weights with their standard errors,
over all elements; what is left over, against what the type leaves over in honest exports; the other tensors against the
base in the same way; and, for types that can be quantised here, the elements that a replay of the claim gives.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint, QuantisedCheckpoint, open_quantised
from crossmatch.rules import Recipe
from crossmatch.runtime import SILENT, Progress
from crossmatch.verification.claim import Claim, Parts, Resolved
from crossmatch.verification.files.directory import Directory, inspect_directory
from crossmatch.verification.quantised.allowance import ALLOWED
from crossmatch.verification.quantised.evidence import (
    Comparison,
    Part,
    detail,
    honest_error,
    is_base,
    kinds,
    recovered,
    replayed,
    rounding,
    tells,
    unseen,
)
from crossmatch.verification.quantised.tensor_sums import sums_of
from crossmatch.verification.verdict import Finding, RecoveredWeight, Verdict
from crossmatch.verification.weights.estimate import Estimate
from crossmatch.verification.weights.module_verdicts import (
    DEFAULTS,
    ModuleVerdict,
    Thresholds,
    absent,
    name_weights,
    near,
    same,
)

# A GGUF file carries its tokenizer and template in a form of its own.
_UNSEEN = ("tokenizer, chat template and generation config of a GGUF file",)


def verify_quantised(
    path: str | Path,
    base: Checkpoint,
    parts: Parts,
    *,
    recipe: Recipe | None = None,
    thresholds: Thresholds = DEFAULTS,
    progress: Progress = SILENT,
) -> Verdict:
    """Judge the claim that a GGUF file, or a directory of 8-bit weights, is base + sum_i weight_i * D_i, quantised.

    Raises CheckpointError for what cannot be read, and what `verify` raises.
    """
    claim = Claim(base, parts, recipe or Recipe())
    return verify_quantised_claim(path, claim, thresholds=thresholds, progress=progress)


def verify_quantised_claim(
    path: str | Path, claim: Claim, *, thresholds: Thresholds = DEFAULTS, progress: Progress = SILENT
) -> Verdict:
    """Judge a claim; see `verify_quantised`."""
    started = time.monotonic()
    resolved = claim.resolve()
    merged = open_quantised(path, resolved.base)
    vectors = {name: vector for name, (vector, _) in claim.parts.items()}
    if merged.path.is_dir():
        beside = inspect_directory(Checkpoint(merged.path), resolved.base, vectors, claim.tokenizer_from)
        # A quantised export declares the dtype that it computes in.
        beside = replace(beside, notes=tuple(note for note in beside.notes if note != "dtype-declared"))
    else:
        where = tuple(_changed_config(merged, resolved.base))
        beside = Directory((Finding("config-changed", where),) if where else (), (), (), _UNSEEN)
    verdict = _decide(merged, resolved, recover_quantised(merged, resolved, progress), beside, thresholds)
    digests = {
        "merged": merged.digest,
        "base": claim.base.digest,
        "adapters": {n: v.digest if isinstance(v, Recorded) else None for n, (v, _) in claim.parts.items()},
    }
    return replace(verdict, digests=digests, seconds=round(time.monotonic() - started, 3))


def recover_quantised(merged: QuantisedCheckpoint, claim: Resolved, progress: Progress = SILENT) -> Comparison:
    """Compare every tensor; each `Part.strata` goes into `recover.estimate`, alone or with others."""
    base = claim.base
    vectors = [vector for vector, _ in claim.parts.values()]
    weights = [weight for _, weight in claim.parts.values()]
    adapted, others, missing = [], [], []
    with progress.task("verify", base.nbytes) as task:
        for name, info in base.tensors.items():
            deltas = {i: vector[name] for i, vector in enumerate(vectors) if name in vector}
            if name in merged.tensors:
                sums = sums_of(merged, base, name, deltas, weights)
                (adapted if deltas else others).append(Part(name, sums, sums.strata, sums.gain))
            elif deltas or not (base.tied and name.endswith("lm_head.weight")):
                missing.append(name)
            task.advance(info.nbytes, name)
    return Comparison(tuple(adapted), tuple(others), tuple(missing), merged.extra)


def _judge(part: Part, claimed: Sequence[float], t: Thresholds) -> ModuleVerdict:
    """One adapted tensor: agree, disagree, or undecided for want of evidence in it alone."""
    found = recovered([part], claimed, t)
    here = [i for i in part.sums.adapters if not math.isnan(found.weights[i])]
    allowed = ALLOWED[part.sums.tensor.kind]
    precise = tells(found, claimed, t)
    contradicts = found.identifiable and not near(found, claimed, here, t)
    silent = absent(found, claimed, here, t) if precise else ()
    clean = honest_error(part, found.excess if found.identifiable else math.nan, found.entries)
    replay = replayed(part, claimed)
    if silent or contradicts or not clean or replay == "contradicted":
        state = "disagree"
    else:
        state = "agree" if replay == "shown" or (precise and replay != "open") else "undecided"
    scaled = replace(found, excess=found.excess / allowed.high)
    return ModuleVerdict(part.name, state, scaled, precise, silent, clean, tuple(here), left=0.0 if clean else math.inf)


def _decide(
    merged: QuantisedCheckpoint, claim: Resolved, seen: Comparison, beside: Directory, t: Thresholds
) -> Verdict:
    claimed = [weight for _, weight in claim.parts.values()]
    modules = [_judge(part, claimed, t) for part in seen.adapted]
    pooled = recovered(seen.adapted, claimed, t)
    total = max(1, sum(part.sums.elements for part in seen.adapted))
    high = sum(ALLOWED[p.sums.tensor.kind].high * p.sums.elements for p in seen.adapted) / total
    changed = [part.name for part in seen.others if not is_base(part)]
    scaled = replace(pooled, excess=pooled.excess / (high or 1.0))
    findings = _findings(seen, modules, scaled, claimed, t)
    findings += [Finding("untouched-changed", tuple(changed))] if changed else []
    findings += beside.findings
    conclusive = _conclusive(seen.adapted, modules, pooled, claimed, t)
    return Verdict(
        verdict="failed" if findings else "verified" if conclusive else "inconclusive",
        findings=tuple(findings),
        notes=(*(() if conclusive or findings else ("not-identifiable",)), "quantised", *beside.notes),
        weights={
            name: RecoveredWeight.of(claimed[i], pooled.weights[i], pooled.stderr[i])
            for i, name in enumerate(claim.parts)
        },
        modules={
            "adapted": len(modules),
            "agree": sum(m.state == "agree" for m in modules),
            "disagree": sum(m.state == "disagree" for m in modules),
            "undecided": sum(m.state == "undecided" for m in modules),
        },
        tensors={
            "total": len(claim.base.tensors),
            "untouched_identical": len(seen.others) - len(changed),
            "untouched_changed": changed,
            "missing": list(seen.missing),
            "extra": list(seen.extra),
        },
        rounding=rounding(seen.adapted),
        evidence={
            "elements": total,
            "entries": pooled.entries,
            "residual_excess": None if math.isnan(pooled.excess) else pooled.excess,
            "residual_allowed": high,
            "unseen": unseen(seen.adapted, claimed, pooled.excess),
            "quantisation": kinds(seen),
            "modules_in_question": [m.name for m in modules if m.state == "disagree"],
            "checked": list(beside.checked),
            "not_checked": list(beside.not_checked),
        },
        thresholds=vars(t),
        digests={},
        seconds=0.0,
        details=tuple(detail(p, m, list(claim.parts)) for p, m in zip(seen.adapted, modules, strict=True)),
    )


def _findings(
    seen: Comparison,
    modules: Sequence[ModuleVerdict],
    pooled: Estimate,
    claimed: Sequence[float],
    t: Thresholds,
) -> list[Finding]:
    """What is wrong with the adapted tensors and the file; excesses here are shares of what is allowed."""
    spoilt = {part.name for part in seen.adapted if part.sums.nonfinite}
    in_question = [m for m in modules if m.state == "disagree" and m.name not in spoilt]
    telling = [m for m in in_question if m.resolved]
    findings: list[Finding] = []
    if telling and all(m.silent for m in telling) and any(m.state == "agree" for m in modules):
        findings.append(Finding("modules-skipped", tuple(m.name for m in in_question)))
    else:
        # An estimate that could not tell a weight from none names nothing.
        clean = math.isnan(pooled.excess) or pooled.excess <= 1.0
        named = name_weights(pooled, claimed, t, clean=clean)[0] if tells(pooled, claimed, t) else None
        shown = all(replayed(part, claimed) == "shown" for part in seen.adapted)
        if (named and not shown) or in_question:
            where = () if named else tuple(m.name for m in in_question)
            findings.append(Finding(named or "unexplained-delta", where))
    everything = (*seen.adapted, *seen.others)
    checks = {
        "nonfinite": tuple(part.name for part in everything if part.sums.nonfinite),
        "tensors-missing": tuple(seen.missing),
        "tensors-extra": tuple(seen.extra),
    }
    findings += [Finding(fault, where) for fault, where in checks.items() if where]
    return findings


def _conclusive(
    parts: Sequence[Part],
    modules: Sequence[ModuleVerdict],
    pooled: Estimate,
    claimed: Sequence[float],
    t: Thresholds,
) -> bool:
    """Whether every weight is known to be the claimed one: in all modules together, and in the undecided ones together;
    or by a replay of every module."""
    replays = [replayed(part, claimed) for part in parts]
    if "open" in replays:
        return False
    if parts and all(replay == "shown" for replay in replays):
        return True
    undecided = [part for part, m in zip(parts, modules, strict=True) if m.state == "undecided"]
    groups = [pooled, *([recovered(undecided, claimed, t)] if undecided else [])]
    for found in groups:
        known = [i for i in range(len(claimed)) if not math.isnan(found.weights[i])]
        fits = all(same(found.weights[i], claimed[i], found.stderr[i], t) for i in known)
        if not (fits and tells(found, claimed, t)):
            return False
    return not any(math.isnan(weight) for weight in pooled.weights)


def _changed_config(merged: QuantisedCheckpoint, base: Checkpoint) -> list[str]:
    """Fields of config.json that both have and give different values."""
    ours = {**base.config, **{k: v for k, v in (base.config.get("rope_parameters") or {}).items() if k == "rope_theta"}}
    changed = []
    for key, value in merged.config.items():
        if key in _VOLATILE or ours.get(key) is None or key not in ours:
            continue
        numbers = isinstance(value, int | float) and isinstance(ours[key], int | float)
        same_value = math.isclose(value, ours[key], rel_tol=1e-6) if numbers else value == ours[key]
        if not same_value:
            changed.append(key)
    return sorted(changed)


_VOLATILE = {
    "_name_or_path",
    "architectures",
    "dtype",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
