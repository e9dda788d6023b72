"""Two statements about tuning vectors, put to the numbers: confirmed, refuted or undecided here, with intervals.

The second paper (2510.09359) says that tuning vectors mainly write new directions into MLPs and amplify existing ones
in attention. Each statement is cut into parts that a number decides; intervals are percentiles of a bootstrap over
layers, since modules of one layer are no independent draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossmatch.analysis.weights.alignment import Alignment

Array = NDArray[np.float64]
LEVEL, DRAWS = 0.95, 2000
# With fewer layers than this nothing is decided.
LAYERS = 3
# Of several k the one by which a statement is judged first, if it was measured.
PRIMARY = "64"
CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"


@dataclass(frozen=True)
class Part:
    """One number that a statement needs on one side of its null; holds: True above it with its whole interval, False
    below, None if the interval contains it or there is none."""

    what: str
    value: float | None
    low: float | None
    high: float | None
    null: float
    layers: int

    @property
    def holds(self) -> bool | None:
        """Above, below, or not known."""
        if self.low is None or self.high is None:
            return None
        return True if self.low > self.null else False if self.high < self.null else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        facts = {key: getattr(self, key) for key in ("what", "value", "low", "high", "null", "layers")}
        return {**facts, "holds": self.holds}


@dataclass(frozen=True)
class Claim:
    """A statement about one vector at one k: confirmed if every part holds, refuted if one holds the other way round,
    else undecided. why: in words, where nothing could be decided; primary: whether this k is the one to read first."""

    id: str
    vector: str
    statement: str
    label: str
    parts: tuple[Part, ...]
    why: str | None = None
    primary: bool = False

    @property
    def verdict(self) -> str:
        """confirmed, refuted or undecided."""
        found = [part.holds for part in self.parts]
        if not found:
            return UNDECIDED
        return REFUTED if False in found else UNDECIDED if None in found else CONFIRMED

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        facts: dict[str, Any] = {
            "id": self.id,
            "vector": self.vector,
            "statement": self.statement,
            "k_label": self.label,
        }
        facts["primary"] = self.primary
        return {**facts, "verdict": self.verdict, "why": self.why, "parts": [part.to_dict() for part in self.parts]}


def claims(vector: str, rows: Sequence[Alignment]) -> list[Claim]:
    """Both statements at every k at which the modules were measured. rows: those of single modules."""
    labels = list(dict.fromkeys(row.label for row in rows))
    result, first = [], PRIMARY if PRIMARY in labels else next(iter(labels), None)
    for label in sorted(labels, key=lambda label: label != first):
        chosen = [row for row in rows if row.label == label and _in_text(row)]
        found = _mlp_writes(vector, label, chosen), _attention_amplifies(vector, label, chosen)
        result += [replace(claim, primary=label == first) for claim in found]
    return result


def _mlp_writes(vector: str, label: str, rows: Sequence[Alignment]) -> Claim:
    parts = [
        ("new-output energy in MLP modules, over its null", _lift("write_new", "mlp"), 1.0),
        ("the same, MLP less attention", _versus("write_new", "mlp", "attn"), 0.0),
    ]
    return _claim(("mlp-writes", vector, "MLP modules write new directions, more than attention", label), rows, parts)


def _attention_amplifies(vector: str, label: str, rows: Sequence[Alignment]) -> Claim:
    parts = [
        ("energy on the diagonal in attention, over its null", _lift("diagonal", "attn"), 1.0),
        ("the same, attention less MLP", _versus("diagonal", "attn", "mlp"), 0.0),
        ("relative change of the leading singular values in attention", _gain("attn"), 0.0),
    ]
    statement = "attention amplifies existing directions, more than MLP modules"
    return _claim(("attention-amplifies", vector, statement, label), rows, parts)


def _in_text(row: Alignment) -> bool:
    """Whether a matrix is in a layer of the text, of which both statements speak."""
    return row.place is not None and row.place.layer is not None and row.place.tower is None


def _claim(
    head: tuple[str, str, str, str], rows: Sequence[Alignment], parts: Sequence[tuple[str, "_Mean", float]]
) -> Claim:
    layers = sorted({row.place.layer for row in rows if row.place is not None and row.place.layer is not None})
    kinds = {row.place.part for row in rows if row.place is not None}
    why = None
    if missing := [name for key, name in (("attn", "attention"), ("mlp", "MLP")) if key not in kinds]:
        why = f"no matrix of {' and '.join(missing)} was changed, or measured at this k"
    elif len(layers) < LAYERS:
        why = f"{len(layers)} layers are too few for an interval"
    if why is not None:
        return Claim(*head, parts=(), why=why)
    found = [_part(what, measure, null, rows, layers) for what, measure, null in parts]
    return Claim(*head, parts=tuple(found))


@dataclass(frozen=True)
class _Mean:
    """The mean of a number over the modules of `part`, less that over those of another part (None: of nothing)."""

    number: Callable[[Alignment], float | None]
    part: str
    other: str | None = None


def _lift(name: str, part: str) -> _Mean:
    return _Mean(lambda row: row.parts[name].lift, part)


def _versus(name: str, part: str, other: str) -> _Mean:
    return _Mean(lambda row: row.parts[name].lift, part, other)


def _gain(part: str) -> _Mean:
    return _Mean(lambda row: row.gain.value, part)


def _part(what: str, measure: _Mean, null: float, rows: Sequence[Alignment], layers: Sequence[int]) -> Part:
    above, below = (
        _by_layer(measure.number, part, rows, layers) if part else None for part in (measure.part, measure.other)
    )
    assert above is not None
    every = np.arange(len(layers))[None]
    drawn = np.random.default_rng(0).integers(0, len(layers), (DRAWS, len(layers)))
    values = _statistic(above, below, drawn)
    values = values[np.isfinite(values)]
    value = float(_statistic(above, below, every)[0])
    if not np.isfinite(value) or len(values) < DRAWS / 2:
        return Part(what, None, None, None, null, len(layers))
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Part(what, value, float(low), float(high), null, len(layers))


def _by_layer(
    number: Callable[[Alignment], float | None], part: str, rows: Sequence[Alignment], layers: Sequence[int]
) -> Array:
    """(layers, 2): the sum of a number over a layer's modules of `part`, and how many there are."""
    sums = np.zeros((len(layers), 2))
    index = {layer: i for i, layer in enumerate(layers)}
    for row in rows:
        value = number(row)
        if row.place is not None and row.place.part == part and row.place.layer is not None and value is not None:
            sums[index[row.place.layer]] += (value, 1.0)
    return sums


def _statistic(above: Array, below: Array | None, drawn: NDArray[np.int64]) -> Array:
    """(draws,) from drawn (draws, layers) indices."""
    first = above[drawn].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = first[:, 0] / first[:, 1]
        if below is None:
            return value
        second = below[drawn].sum(1)
        return value - second[:, 0] / second[:, 1]
