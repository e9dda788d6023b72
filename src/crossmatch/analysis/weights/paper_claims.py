"""Two statements about tuning vectors, put to the numbers: supported, contradicted, no difference
that matters, or not decided at this size.

The second paper (2510.09359) says that tuning vectors mainly write new directions into MLPs and amplify existing ones
in attention. Each statement is cut into comparisons. For each it is stated beforehand how large an effect matters
(`EFFECT`) and how often the answer may be wrong (`ERROR`); the measures are corrected for what a random change of the
same spectrum does, so that matrices of different sizes can be compared:

write_new / null = 1 - (write_existing - null) / (1 - null)   energy in new directions, 1 for a random change
(diagonal - null) / (1 - null)                                energy on existing pairs beyond chance, 0 for a random one
gain / null_sd / sqrt(m n)                                    cosine of D and the base's leading pairs, 0

From `LAYERS_ALONE` layers on, layers are the independent units: signs of their figures are flipped, which is exact.
Fewer layers have too few flips: labels are exchanged among the modules of a layer, and signs of single modules flipped.
That takes modules of one kind in a layer for independent; since they may not be, the interval is widened to that of
Student's t over the layers where that is wider.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from crossmatch.analysis.answers import CONTRADICTED, NO_DIFFERENCE, NOT_DECIDED, SUPPORTED
from crossmatch.analysis.weights.alignment import Alignment
from crossmatch.results.analysis import ClaimJson, ClaimPartJson
from crossmatch.statistics.permutation import Bounds, exchange_bounds, flip_bounds

Array = NDArray[np.float64]
# The smallest effect that matters: of energies this share, of directions this cosine.
EFFECT = 0.05
# How often a statement may be supported, or contradicted, though no effect beyond `EFFECT` is there, at most.
ERROR = 0.05
# With fewer layers than this nothing is decided.
LAYERS = 3
# From here on flips of layers can contradict a statement of three parts: 2^-6 < 5% / 3.
LAYERS_ALONE = 6
# Of several k the one by which a statement is judged first, if it was measured.
PRIMARY = "64"


@dataclass(frozen=True)
class ClaimPart:
    """One number that a statement needs on one side of `null`, by more than `effect`.

    low, high: its 95% interval, None where there are too few layers for that bound. ceiling: upper bounds of all parts
    hold at once in 95% of cases. holds: True if low lies above null + effect, False if the ceiling lies
    below null - effect, else None. test: what was exchanged, layers or modules.
    """

    what: str
    value: float | None
    low: float | None
    high: float | None
    ceiling: float | None
    null: float
    layers: int
    test: str
    effect: float = EFFECT

    @property
    def holds(self) -> bool | None:
        """Above, below, or not known."""
        if self.low is not None and self.low > self.null + self.effect:
            return True
        return False if self.ceiling is not None and self.ceiling < self.null - self.effect else None

    @property
    def negligible(self) -> bool:
        """Whether the whole interval lies within `effect` of null."""
        if self.low is None or self.high is None:
            return False
        return self.null - self.effect <= self.low and self.high <= self.null + self.effect

    def to_dict(self) -> ClaimPartJson:
        """As plain JSON."""
        return {
            "what": self.what,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "ceiling": self.ceiling,
            "null": self.null,
            "effect": self.effect,
            "layers": self.layers,
            "test": self.test,
            "holds": self.holds,
        }


@dataclass(frozen=True)
class Claim:
    """A statement about one vector at one k: supported if every part holds, contradicted if one holds the other way
    round, no difference that matters if else one is negligible, else not decided. why: in words, where nothing
    could be decided; primary: whether this k is the one to read first."""

    id: str
    vector: str
    statement: str
    label: str
    parts: tuple[ClaimPart, ...]
    why: str | None = None
    primary: bool = False

    @property
    def verdict(self) -> str:
        """supported, contradicted, no difference that matters or not decided at this size."""
        found = [part.holds for part in self.parts]
        if not found:
            return NOT_DECIDED
        if False in found:
            return CONTRADICTED
        if any(part.negligible for part in self.parts):
            return NO_DIFFERENCE
        return NOT_DECIDED if None in found else SUPPORTED

    def to_dict(self) -> ClaimJson:
        """As plain JSON."""
        return {
            "id": self.id,
            "vector": self.vector,
            "statement": self.statement,
            "k_label": self.label,
            "primary": self.primary,
            "verdict": self.verdict,
            "why": self.why,
            "parts": [part.to_dict() for part in self.parts],
        }


def claims(vector: str, rows: Sequence[Alignment]) -> list[Claim]:
    """Both statements at every k at which the modules were measured. rows: those of single modules."""
    labels = list(dict.fromkeys(row.label for row in rows))
    result, first = [], PRIMARY if PRIMARY in labels else next(iter(labels), None)
    for label in sorted(labels, key=lambda label: label != first):
        chosen = [row for row in rows if row.label == label and _in_text(row)]
        found = [_claim(name, vector, label, chosen) for name in _STATEMENTS]
        result += [replace(claim, primary=label == first) for claim in found]
    return result


def _in_text(row: Alignment) -> bool:
    """Whether a matrix is in a layer of the text, of which both statements speak."""
    return row.place is not None and row.place.layer is not None and row.place.tower is None


Number = Callable[[Alignment], float | None]


def _writes(row: Alignment) -> float | None:
    return row.parts["write_new"].lift


def _on_pairs(row: Alignment) -> float | None:
    found = row.parts["diagonal"]
    if found.value is None or found.null is None or found.null >= 1:
        return None
    return (found.value - found.null) / (1 - found.null)


def _grows(row: Alignment) -> float | None:
    z = row.gain.z
    return z / math.sqrt(math.prod(row.place.shape)) if z is not None and row.place is not None else None


@dataclass(frozen=True)
class _Wanted:
    """A number's mean over the modules of `part`, less that over those of `other` (None: of nothing), above `null`."""

    what: str
    number: Number
    part: str
    other: str | None
    null: float


_STATEMENTS: dict[str, tuple[str, tuple[_Wanted, ...]]] = {
    "mlp-writes": (
        "MLP modules write new directions, more than attention",
        (
            _Wanted("new-output energy in MLP modules, over a random change's", _writes, "mlp", None, 0.5),
            _Wanted("the same, MLP less attention", _writes, "mlp", "attn", 0.0),
        ),
    ),
    "attention-amplifies": (
        "attention amplifies existing directions, more than MLP modules",
        (
            _Wanted("energy on existing pairs in attention, beyond chance", _on_pairs, "attn", None, 0.0),
            _Wanted("the same, attention less MLP", _on_pairs, "attn", "mlp", 0.0),
            _Wanted("cosine of the change and the base's pairs in attention", _grows, "attn", None, 0.0),
        ),
    ),
}


def _claim(name: str, vector: str, label: str, rows: Sequence[Alignment]) -> Claim:
    statement, parts = _STATEMENTS[name]
    by_layer = {kind: _layers(rows, kind) for kind in ("attn", "mlp")}
    both = by_layer["attn"].keys() & by_layer["mlp"].keys()
    why = None
    if missing := [name for kind, name in (("attn", "attention"), ("mlp", "MLP")) if not by_layer[kind]]:
        why = f"no matrix of {' and '.join(missing)} was changed, or measured at this k"
    elif len(both) < LAYERS:
        why = f"{len(both)} layers with attention and MLP modules are too few: {LAYERS} are needed"
    if why is not None:
        return Claim(name, vector, statement, label, parts=(), why=why)
    found = [_part(part, by_layer, len(parts)) for part in parts]
    return Claim(name, vector, statement, label, parts=tuple(found))


_ByLayer = dict[int, list[Alignment]]


def _layers(rows: Sequence[Alignment], kind: str) -> _ByLayer:
    found: _ByLayer = {}
    for row in rows:
        if row.place is not None and row.place.part == kind and row.place.layer is not None:
            found.setdefault(row.place.layer, []).append(row)
    return found


def _part(wanted: _Wanted, by_layer: dict[str, _ByLayer], parts: int) -> ClaimPart:
    first = _numbers(wanted.number, by_layer[wanted.part])
    second = _numbers(wanted.number, by_layer[wanted.other]) if wanted.other is not None else None
    layers = sorted(first if second is None else first.keys() & second.keys())
    test = "layers" if len(layers) >= LAYERS_ALONE else "modules"
    if len(layers) < LAYERS:
        return ClaimPart(wanted.what, None, None, None, None, wanted.null, len(layers), test)
    if second is not None:
        blocks = [(first[layer], second[layer]) for layer in layers]
        figures = np.array([float(one.mean() - other.mean()) for one, other in blocks])
    else:
        blocks, figures = None, np.array([float(first[layer].mean()) for layer in layers])

    def bounds(tail: float) -> Bounds:
        if test == "layers":
            return flip_bounds(figures, tail)
        flat = np.concatenate([first[layer] for layer in layers])
        exact = exchange_bounds(blocks, tail) if blocks is not None else flip_bounds(flat, tail)
        half = float(student.ppf(1 - tail, len(figures) - 1)) * float(figures.std(ddof=1)) / math.sqrt(len(figures))
        return min(exact[0], float(figures.mean()) - half), max(exact[1], float(figures.mean()) + half)

    low, high = bounds(ERROR / 2)
    ceiling = bounds(min(ERROR / 2, ERROR / parts))[1]
    low, high, ceiling = (float(bound) if math.isfinite(bound) else None for bound in (low, high, ceiling))
    return ClaimPart(wanted.what, float(figures.mean()), low, high, ceiling, wanted.null, len(layers), test)


def _numbers(number: Number, layers: _ByLayer) -> dict[int, Array]:
    """A number of every module in which it is known, by layer."""
    found = {layer: [number(row) for row in rows] for layer, rows in layers.items()}
    known = {layer: [value for value in values if value is not None] for layer, values in found.items()}
    return {layer: np.array(values) for layer, values in known.items() if values}
