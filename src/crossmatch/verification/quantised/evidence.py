"""What the tensors of a quantised export say together: weights with errors, and whether what is left over is honest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from crossmatch.results.verdict import GroupWeightJson, ModuleVerdictJson, QuantisedKindJson, RoundingJson
from crossmatch.verification.quantised.allowance import ALLOWED, GROSS_SHARE
from crossmatch.verification.quantised.tensor_sums import TensorSums
from crossmatch.verification.weights.estimate import Estimate, Strata, estimate
from crossmatch.verification.weights.module_verdicts import DEFAULTS, ModuleVerdict, Thresholds, resolves

# Root mean square of W in steps, among the elements used, from which W is dither; half of it was measured to do.
MIN_DITHER = 0.6
# Part of the fitted gain's distance from 1 by which the gain of a delta may differ from that of W, as a standard error.
GAIN_DOUBT = 0.15
# Types whose encoders have no choice; and the share of their elements that another honest rounding before may change.
EXACT = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I8", "Q8_0")
ROUNDED_TWICE = 0.2


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


def recovered(parts: Sequence[Part], claimed: Sequence[float], t: Thresholds = DEFAULTS) -> Estimate:
    """The weights in some tensors, with standard errors that cover what the fitted gains leave open.

    The cut-off follows the estimate; where nothing precise comes of that (the base alone is inside), it is taken at the
    claim, and the estimate tests the claim. Not identifiable where W spans too few steps to be dither, or less is left
    over than a rounding leaves.
    """
    found = Estimate((), (), 0, math.nan, identifiable=False)
    strata = [part.strata for part in parts] or [Strata.empty(len(claimed))]
    low = min((ALLOWED[part.sums.tensor.kind].low for part in parts), default=0.0)
    for rounds in (4, 1):
        found = estimate(strata, claimed, rounds)
        doubt = GAIN_DOUBT * max((abs(part.gain - 1.0) for part in parts), default=0.0)
        errors = (math.hypot(e, doubt * w) for e, w in zip(found.stderr, found.weights, strict=True))
        found = replace(found, stderr=tuple(errors))
        at = found.weights if rounds > 1 else claimed
        if not _dithered(parts, at) or found.excess < low:
            found = replace(found, identifiable=False)
        if tells(found, claimed, t):
            break
    return found


def tells(found: Estimate, claimed: Sequence[float], t: Thresholds) -> bool:
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


def honest_error(part: Part, excess: float, entries: float) -> bool:
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


def replayed(part: Part, claimed: Sequence[float]) -> str:
    """What a replay of the claim says: `shown` (it gives the stored elements, and would not without one of the
    adapters), `open` (what it does not give is as much as an adapter does), `contradicted` (and more than any honest
    way of rounding twice explains), or nothing, where the type cannot be replayed or its encoder was another."""
    replay, kind = part.sums.replay, part.sums.tensor.kind
    effects = [replay.effects.get(i, 0) for i in part.sums.adapters if claimed[i] != 0]
    if not replay.elements:
        return ""
    if all(effect > 4 * replay.mismatches for effect in effects):
        return "shown"
    if not (kind in EXACT or replay.reference) or replay.mismatches < min(effects):
        return ""
    rounded = part.sums.tensor.plain or replay.mismatches <= ROUNDED_TWICE * replay.elements
    return "open" if rounded else "contradicted"


def is_base(part: Part) -> bool:
    """Whether a tensor without a delta is the base's: to the bit where it is stored plainly."""
    if part.sums.tensor.plain:
        return part.sums.changed == 0 and part.sums.nonfinite == 0
    return honest_error(part, part.sums.excess, part.sums.elements)


def unseen(parts: Sequence[Part], claimed: Sequence[float], excess: float) -> float | None:
    """How large another delta could be beside the claimed one, over its size, and be taken for the type's own error."""
    at = torch.tensor([float(w) for w in claimed], dtype=torch.float64)
    size = sum(float(at @ part.strata.xx.sum(0) @ at) for part in parts)
    room = sum((excess - ALLOWED[p.sums.tensor.kind].low) / 12.0 * float(p.strata.count.sum()) for p in parts)
    return math.sqrt(max(0.0, room) / size) if size > 0.0 and not math.isnan(excess) else None


def rounding(parts: Sequence[Part]) -> RoundingJson:
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


def kinds(seen: Comparison) -> dict[str, QuantisedKindJson]:
    """By type: tensors, elements, the mean excess of the others over the base, the allowed range, the extreme gains."""
    result: dict[str, QuantisedKindJson] = {}
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


def detail(part: Part, judged: ModuleVerdict, names: Sequence[str]) -> ModuleVerdictJson:
    """One adapted tensor as plain JSON."""
    found, replay = judged.estimate, part.sums.replay
    weights: dict[str, GroupWeightJson] = {
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
