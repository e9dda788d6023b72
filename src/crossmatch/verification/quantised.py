"""Verify a quantised export: which sum of deltas is inside, within the error that its quantisation makes?

No element can be certified as in a checkpoint of 16 bits. What decides instead: the weights with their standard errors,
over all elements; what is left over, against what the type leaves over in honest exports; the other tensors against the
base in the same way; and, for types that can be quantised here, the elements that a replay of the claim gives.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from crossmatch.adapter import Adapter
from crossmatch.checkpoint import Checkpoint, QuantisedCheckpoint, open_quantised
from crossmatch.progress import SILENT, Progress
from crossmatch.rules import Recipe
from crossmatch.verification.allowance import ALLOWED, GROSS_SHARE
from crossmatch.verification.claim import Claim, Parts, Resolved
from crossmatch.verification.judge import (
    DEFAULTS,
    ModuleVerdict,
    Thresholds,
    name_weights,
    resolves,
    same,
    skipped,
)
from crossmatch.verification.recover import Estimate, Strata, estimate
from crossmatch.verification.requantised import TensorSums, sums_of
from crossmatch.verification.scan import NOT_CHECKED
from crossmatch.verification.verdict import RecoveredWeight, Verdict

# Root mean square of W in steps, among the elements used, from which W is dither; half of it was measured to do.
MIN_DITHER = 0.6
# Part of the fitted gain's distance from 1 by which the gain of a delta may differ from that of W, as a standard error.
GAIN_DOUBT = 0.15


@dataclass(frozen=True)
class Part:
    """One compared tensor: what it showed, and its sums with the gain divided out."""

    name: str
    sums: TensorSums
    strata: Strata
    gain: float


@dataclass(frozen=True)
class Comparison:
    """The whole pass: adapted and other tensors, and those that one side lacks."""

    adapted: tuple[Part, ...]
    others: tuple[Part, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


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
    verdict = _decide(merged, resolved, recover_quantised(merged, resolved, progress), thresholds)
    digests = {
        "merged": merged.digest,
        "base": claim.base.digest,
        "adapters": {n: v.digest if isinstance(v, Adapter) else None for n, (v, _) in claim.parts.items()},
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


def recovered(parts: Sequence[Part], claimed: Sequence[float], t: Thresholds = DEFAULTS) -> Estimate:
    """The weights in some tensors, with standard errors that cover what the fitted gains leave open.

    The cut-off follows the estimate; where nothing precise comes of that (the base alone is inside), it is taken at the
    claim, and the estimate tests the claim. Not identifiable where W spans too few steps to be dither.
    """
    found = Estimate((), (), 0, math.nan, identifiable=False)
    strata = [part.strata for part in parts] or [Strata.empty(len(claimed))]
    for rounds in (4, 1):
        found = estimate(strata, claimed, rounds)
        doubt = GAIN_DOUBT * max((abs(part.gain - 1.0) for part in parts), default=0.0)
        errors = (math.hypot(e, doubt * w) for e, w in zip(found.stderr, found.weights, strict=True))
        found = replace(found, stderr=tuple(errors))
        at = found.weights if rounds > 1 else claimed
        if not _dithered(parts, at):
            found = replace(found, identifiable=False)
        if _resolved(found, claimed, t):
            break
    return found


def _resolved(found: Estimate, claimed: Sequence[float], t: Thresholds) -> bool:
    """Whether every adapter that lies here could be told from none."""
    known = [(e, c) for e, c in zip(found.stderr, claimed, strict=True) if not math.isnan(e)]
    return found.identifiable and bool(known) and all(resolves(e, c, t) for e, c in known)


def _dithered(parts: Sequence[Part], weights: Sequence[float]) -> bool:
    """Whether W spans enough steps among the elements that the cut-off for these weights leaves."""
    at = torch.nan_to_num(torch.tensor([float(w) for w in weights], dtype=torch.float64))
    energy = count = 0.0
    for part in parts:
        cut = part.strata.cut(at)
        if not part.sums.tensor.plain:
            energy += float(part.sums.raw.xx[:cut, -1, -1].sum())
            count += float(part.sums.raw.count[:cut].sum())
    return count == 0.0 or energy / count >= MIN_DITHER**2


def _honest_error(part: Part, excess: float, entries: float) -> bool:
    """Whether what is left over is what the type leaves over: on the whole, in each row, and far away."""
    allowed = ALLOWED[part.sums.tensor.kind]
    doubt = 4.0 * math.sqrt(0.8 / max(1.0, entries))
    shrinkage = 4.0 * part.sums.shrinkage + 0.003
    return (
        part.sums.nonfinite == 0
        and (math.isnan(excess) or excess <= allowed.high * (1.0 + doubt))
        and part.sums.worst <= allowed.row
        and part.sums.gross <= GROSS_SHARE * part.sums.elements
        and abs(part.gain - 1.0) <= shrinkage
    )


def _judge(part: Part, claimed: Sequence[float], t: Thresholds) -> ModuleVerdict:
    """One adapted tensor: agree, disagree, or undecided for want of evidence in it alone."""
    found = recovered([part], claimed, t)
    here = [i for i in part.sums.adapters if not math.isnan(found.weights[i])]
    allowed = ALLOWED[part.sums.tensor.kind]
    usable = found.identifiable and found.excess >= allowed.low
    resolved = usable and _resolved(found, claimed, t)
    sigmas = 1.5 * t.sigmas
    contradicts = usable and any(not same(found.weights[i], claimed[i], found.stderr[i], t, sigmas) for i in here)
    silent = tuple(
        i
        for i in here
        if resolved
        and claimed[i] != 0
        and same(found.weights[i], 0.0, found.stderr[i], t)
        and abs(found.weights[i]) < abs(claimed[i]) / 2
    )
    honest = _honest_error(part, found.excess if found.identifiable else math.nan, found.entries)
    if silent or contradicts or not honest:
        state = "disagree"
    else:
        state = "agree" if resolved or _shown(part, claimed) else "undecided"
    scaled = replace(found, excess=found.excess / allowed.high, identifiable=usable)
    return ModuleVerdict(part.name, state, scaled, resolved, silent)


def _shown(part: Part, claimed: Sequence[float]) -> bool:
    """Whether a replay of the claim gives the stored elements, and would not without one of the adapters."""
    replay = part.sums.replay
    wanted = [replay.effects.get(i, 0) for i in part.sums.adapters if claimed[i] != 0]
    return replay.elements > 0 and all(effect > 4 * replay.mismatches for effect in wanted)


def _decide(merged: QuantisedCheckpoint, claim: Resolved, seen: Comparison, t: Thresholds) -> Verdict:
    claimed = [weight for _, weight in claim.parts.values()]
    modules = [_judge(part, claimed, t) for part in seen.adapted]
    pooled = recovered(seen.adapted, claimed, t)
    total = max(1, sum(part.sums.elements for part in seen.adapted))
    high = sum(ALLOWED[p.sums.tensor.kind].high * p.sums.elements for p in seen.adapted) / total
    changed = [part.name for part in seen.others if not _is_base(part)]
    config = _changed_config(merged, claim.base)
    scaled = replace(pooled, excess=pooled.excess / (high or 1.0))
    faults = _faults(merged, seen, modules, scaled, claimed, t)
    checks = {"untouched-changed": changed, "config-changed": config}
    faults += [fault for fault, where in checks.items() if where]
    conclusive = _conclusive(seen.adapted, modules, pooled, claimed, t)
    return Verdict(
        verdict="failed" if faults else "verified" if conclusive else "inconclusive",
        faults=tuple(faults),
        notes=("quantised",) if conclusive or faults else ("not-identifiable", "quantised"),
        weights={
            name: RecoveredWeight.of(claimed[i], pooled.weights[i], pooled.stderr[i])
            for i, name in enumerate(claim.parts)
        },
        modules={
            "adapted": len(modules),
            **{s: sum(m.state == s for m in modules) for s in ("agree", "disagree", "undecided")},
        },
        tensors={
            "total": len(claim.base.tensors),
            "untouched_identical": len(seen.others) - len(changed),
            "untouched_changed": changed,
            "missing": list(seen.missing),
            "extra": list(seen.extra),
        },
        rounding=_rounding(seen.adapted),
        evidence={
            "elements": total,
            "entries": pooled.entries,
            "residual_excess": None if math.isnan(pooled.excess) else pooled.excess,
            "residual_allowed": high,
            "unseen": _unseen(seen.adapted, claimed, pooled.excess),
            "quantisation": _kinds(seen),
            "modules_in_question": [m.name for m in modules if m.state == "disagree"],
            "config_changed": config,
            "not_checked": list(NOT_CHECKED),
        },
        thresholds=vars(t),
        digests={},
        seconds=0.0,
        details=tuple(_detail(p, m, list(claim.parts)) for p, m in zip(seen.adapted, modules, strict=True)),
    )


def _is_base(part: Part) -> bool:
    """Whether a tensor without a delta is the base's: to the bit where it is stored plainly."""
    if part.sums.tensor.plain:
        return part.sums.changed == 0 and part.sums.nonfinite == 0
    return _honest_error(part, part.sums.excess, part.sums.elements)


def _faults(
    merged: QuantisedCheckpoint,
    seen: Comparison,
    modules: Sequence[ModuleVerdict],
    pooled: Estimate,
    claimed: Sequence[float],
    t: Thresholds,
) -> list[str]:
    """Faults of the adapted tensors and of the file; excesses here are shares of what is allowed."""
    limits = replace(t, excess=1.0)
    spoilt = {part.name for part in seen.adapted if part.sums.nonfinite}
    in_question = [m for m in modules if m.state == "disagree" and m.name not in spoilt]
    faults: list[str] = []
    if skipped(modules):
        faults.append("modules-skipped")
    else:
        # An estimate that could not tell a weight from none names nothing.
        named = name_weights(pooled, modules, claimed, limits) if _resolved(pooled, claimed, t) else None
        shown = modules and all(m.state == "agree" for m in modules)
        if (named and not shown) or in_question:
            faults.append(named or "unexplained-delta")
    everything = (*seen.adapted, *seen.others)
    checks = {
        "nonfinite": any(part.sums.nonfinite for part in everything),
        "tensors-missing": bool(seen.missing),
        "tensors-extra": bool(seen.extra),
        "adapter-left-behind": merged.path.is_dir() and (merged.path / "adapter_config.json").exists(),
    }
    return faults + [fault for fault, present in checks.items() if present]


def _conclusive(
    parts: Sequence[Part],
    modules: Sequence[ModuleVerdict],
    pooled: Estimate,
    claimed: Sequence[float],
    t: Thresholds,
) -> bool:
    """Whether every weight is known to be the claimed one: in all modules together, and in the undecided ones together;
    or by a replay of every module."""
    if parts and all(_shown(part, claimed) for part in parts):
        return True
    undecided = [part for part, m in zip(parts, modules, strict=True) if m.state == "undecided"]
    groups = [pooled, *([recovered(undecided, claimed, t)] if undecided else [])]
    low = min((ALLOWED[part.sums.tensor.kind].low for part in parts), default=0.0)
    for found in groups:
        known = [i for i in range(len(claimed)) if not math.isnan(found.weights[i])]
        fits = all(same(found.weights[i], claimed[i], found.stderr[i], t) for i in known)
        if not (fits and _resolved(found, claimed, t) and found.excess >= low):
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


def _unseen(parts: Sequence[Part], claimed: Sequence[float], excess: float) -> float | None:
    """How large another delta could be beside the claimed one, over its size, and be taken for the type's own error."""
    at = torch.tensor([float(w) for w in claimed], dtype=torch.float64)
    size = sum(float(at @ part.strata.xx.sum(0) @ at) for part in parts)
    room = sum((excess - ALLOWED[p.sums.tensor.kind].low) / 12.0 * float(p.strata.count.sum()) for p in parts)
    return math.sqrt(max(0.0, room) / size) if size > 0.0 and not math.isnan(excess) else None


def _rounding(parts: Sequence[Part]) -> dict[str, Any]:
    """The route by which a replay gives most of the stored elements, and the share that it does not give."""
    replays = [part.sums.replay for part in parts]
    elements = sum(r.elements for r in replays)
    direct, through = sum(r.direct for r in replays), sum(r.through for r in replays)
    return {
        "route": None,
        "violations": None,
        "bit_mismatch": min(direct, through) / elements if elements else None,
        "swallowed_energy": None,
    }


def _kinds(seen: Comparison) -> dict[str, Any]:
    """By type: tensors, elements, the mean excess of the others over the base, the allowed range, the extreme gains."""
    result: dict[str, Any] = {}
    for kind in sorted({part.sums.tensor.kind for part in (*seen.adapted, *seen.others)}):
        parts = [part for part in (*seen.adapted, *seen.others) if part.sums.tensor.kind == kind]
        allowed = ALLOWED[kind]
        result[kind] = {
            "tensors": len(parts),
            "elements": sum(part.sums.elements for part in parts),
            "excess_allowed": [allowed.low, allowed.high],
            "gain": [min(part.gain for part in parts), max(part.gain for part in parts)],
        }
    return result


def _detail(part: Part, judged: ModuleVerdict, names: Sequence[str]) -> dict[str, Any]:
    found, replay = judged.estimate, part.sums.replay
    weights: Mapping[str, Any] = {
        name: {"recovered": found.weights[i], "stderr": found.stderr[i]}
        for i, name in enumerate(names)
        if not math.isnan(found.weights[i])
    }
    excess = found.excess * ALLOWED[part.sums.tensor.kind].high
    return {
        "name": part.name,
        "state": judged.state,
        "weights": weights,
        "entries": found.entries,
        "residual_excess": None if math.isnan(excess) else excess,
        "elements": part.sums.elements,
        "quantisation": part.sums.tensor.kind,
        "gain": part.gain,
        "worst_row": part.sums.worst,
        "far": part.sums.gross,
        "replayed": replay.elements,
        "replay_mismatches": replay.mismatches if replay.elements else None,
    }
