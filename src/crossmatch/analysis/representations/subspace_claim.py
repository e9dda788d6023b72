"""The claim of the small subspace: does a fine-tune change a small part of what its base represents?

The words can be read in two ways, and both are judged, with first tokens and massive dimensions left out:

directions   part = effective rank of the shift / effective rank of the base's activations;
             null: a random vector with the same singular values, added instead of the fine-tune's
subspace     part = 1 - mean squared cosine between the first k principal axes of base and tuned activations;
             null: a shift of the same size and spectrum in random directions

A small part alone says little: any change of low rank moves activations in few directions, any small shift turns axes
little. So each comes with ratio = part / part under its null. Over layers both are geometric means.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student
from torch import Tensor

from crossmatch.analysis.answers import CONTRADICTED, NOT_DECIDED, SUPPORTED
from crossmatch.results.analysis import ClaimJson, ClaimPartJson
from crossmatch.results.figures import BoundsJson
from crossmatch.results.representations import LayerReadingJson, ReadingJson, SmallSubspaceJson
from crossmatch.statistics.influence import LEVEL, Figure

# Exponents beyond which there is no number.
_LARGEST = 700.0
_NULLS = {
    "directions": "what a random vector of the same spectrum takes",
    "subspace": "what a shift of the same size does in random directions",
}


@dataclass(frozen=True, eq=False)
class LayerPart:
    """One layer in one reading: logarithms of the part and of what it is under each draw of the null."""

    layer: int
    part: Figure
    nulls: tuple[Figure, ...]

    @property
    def defined(self) -> bool:
        """Whether there is anything to take a ratio of."""
        return None not in (self.part.value, *(null.value for null in self.nulls))


@dataclass(frozen=True, eq=False)
class _Log:
    """A logarithm, its error by texts, and its values under the single draws of a null, if it has one."""

    value: float
    carrier: Tensor
    degrees: int
    draws: tuple[float, ...] = ()

    def to_dict(self) -> BoundsJson:
        """Value, low and high of what it is the logarithm of.

        Two sources of error: the texts, and which draws of the null; degrees of freedom after Satterthwaite. None for
        the interval where one of them has fewer than two.
        """
        count, value = len(self.draws), math.exp(self.value)
        if self.degrees < 1 or count == 1:
            return {"value": value, "low": None, "high": None}
        terms = [(float(self.carrier.square().sum()), self.degrees)]
        if count:
            mean = sum(self.draws) / count
            terms.append((sum((draw - mean) ** 2 for draw in self.draws) / (count - 1) / count, count - 1))
        total = sum(variance for variance, _ in terms)
        if total == 0:
            return {"value": value, "low": value, "high": value}
        degrees = total**2 / sum(variance**2 / df for variance, df in terms)
        half = float(student.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(total)
        if not abs(self.value) + half < _LARGEST:
            return {"value": value, "low": None, "high": None}
        return {"value": value, "low": math.exp(self.value - half), "high": math.exp(self.value + half)}


def small_subspace(readings: Mapping[str, Sequence[LayerPart]], small: float) -> SmallSubspaceJson:
    """The claim judged, as plain JSON.

        small                the bound of the parts
        verdict, reason      supported, contradicted or not decided at this size: what both readings say,
                             not decided if they do not agree; why, in words
        directions, subspace each with part and ratio over all layers (value, low, high: 95%), verdict, reason, and
                             layers: rows with layer, part, ratio, verdict

    supported: both intervals lie below their bounds, `small` and 1; contradicted: one of them lies above; not decided:
    else.
    Layers without a shift are left out; None for part and ratio without any other.
    """
    found = {name: _reading(name, parts, small) for name, parts in readings.items()}
    said = {name: facts["verdict"] for name, facts in found.items()}
    if len(set(said.values())) == 1:
        verdict, reason = next(iter(said.values())), "; ".join(f"{n}: {f['reason']}" for n, f in found.items())
    else:
        verdict = NOT_DECIDED
        reason = "the readings do not agree: " + "; ".join(f"{n} {v}: {found[n]['reason']}" for n, v in said.items())
    result: SmallSubspaceJson = {"small": small, "verdict": verdict, "reason": reason}
    if "directions" in found:
        result["directions"] = found["directions"]
    if "subspace" in found:
        result["subspace"] = found["subspace"]
    return result


_STATEMENTS = {
    "directions": "fine-tuning moves activations in few directions",
    "subspace": "fine-tuning leaves the principal subspace of activations where it is",
}
_WHAT = {
    "directions": ("effective rank of the shift over that of the base", "over that under a random vector"),
    "subspace": ("1 less mean squared cosine of principal angles", "over that of a rotated shift"),
}


def claim_rows(vector: str, claim: SmallSubspaceJson | None, k: int) -> list[ClaimJson]:
    """Both readings as rows of an analysis's claims: id, vector, statement, k_label, primary, verdict, why, and parts
    (what, value, low, high, null: the bound, layers, holds: whether the interval lies below it, None if it holds it).

    Nothing without a claim."""
    if claim is None:
        return []
    rows: list[ClaimJson] = []
    for name, found in (("directions", claim["directions"]), ("subspace", claim["subspace"])):
        bounds = ((found["part"], claim["small"]), (found["ratio"], 1.0))
        parts: list[ClaimPartJson] = [
            {"what": what, **numbers, "null": bound, "layers": len(found["layers"]), "holds": _below(numbers, bound)}
            for what, (numbers, bound) in zip(_WHAT[name], bounds, strict=True)
            if numbers is not None
        ]
        rows.append(
            {
                "id": f"small-subspace-{name}",
                "vector": vector,
                "statement": _STATEMENTS[name],
                "k_label": str(k) if name == "subspace" else "",
                "primary": True,
                "verdict": found["verdict"],
                "why": None if parts else found["reason"],
                "parts": parts,
            }
        )
    return rows


def _below(numbers: BoundsJson, bound: float) -> bool | None:
    low, high = numbers["low"], numbers["high"]
    if low is None or high is None:
        return None
    return True if high < bound else False if low > bound else None


def _reading(name: str, parts: Sequence[LayerPart], small: float) -> ReadingJson:
    found = [(part.layer, *_logs(part)) for part in parts if part.defined]
    if not found:
        reason = "the two models do the same on these texts"
        return {"part": None, "ratio": None, "verdict": NOT_DECIDED, "reason": reason, "layers": []}
    part, ratio = (_mean(logs).to_dict() for logs in ([one for _, one, _ in found], [two for _, _, two in found]))
    verdict, reason = _judge(name, part, ratio, small)
    rows: list[LayerReadingJson] = []
    for layer, one, other in found:
        here, beside = one.to_dict(), other.to_dict()
        rows.append({"layer": layer, "part": here, "ratio": beside, "verdict": _judge(name, here, beside, small)[0]})
    return {"part": part, "ratio": ratio, "verdict": verdict, "reason": reason, "layers": rows}


def _logs(row: LayerPart) -> tuple[_Log, _Log]:
    part = _log(row.part)
    middle = _mean([_log(null) for null in row.nulls])
    draws = tuple(_log(null).value for null in row.nulls)
    return part, _Log(part.value - middle.value, part.carrier - middle.carrier, part.degrees, draws)


def _log(figure: Figure) -> _Log:
    assert figure.value is not None
    assert figure.carrier is not None
    return _Log(figure.value, figure.carrier, figure.degrees)


def _mean(logs: Sequence[_Log]) -> _Log:
    count = len(logs)
    carrier = sum((log.carrier for log in logs[1:]), logs[0].carrier) / count
    draws = tuple(sum(column) / count for column in zip(*(log.draws for log in logs), strict=True))
    return _Log(sum(log.value for log in logs) / count, carrier, logs[0].degrees, draws)


def _judge(name: str, part: BoundsJson, ratio: BoundsJson, small: float) -> tuple[str, str]:
    low, high, under, over = part["low"], part["high"], ratio["low"], ratio["high"]
    if low is None or high is None or under is None or over is None:
        return NOT_DECIDED, "there is no interval: it needs two texts and two draws of the null at least"
    if low > small:
        return CONTRADICTED, f"the part is larger than {small:g}"
    if under > 1:
        return CONTRADICTED, f"the part is larger than {_NULLS[name]}"
    if high < small and over < 1:
        return SUPPORTED, f"the part is smaller than {small:g}, and than {_NULLS[name]}"
    if high < small:
        return NOT_DECIDED, f"the part is smaller than {small:g}, but not clearly smaller than {_NULLS[name]}"
    return NOT_DECIDED, f"the interval of the part holds {small:g}"
