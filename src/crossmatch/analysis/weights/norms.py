"""How large a tuning vector is: norms, ranks that count energy, its share of the base; by module, type and layer."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from crossmatch.analysis.weights.delta_matrix import Change, Place
from crossmatch.results.analysis import RowPlaceJson, SizeJson

Row = TypeVar("Row", bound="Placed")
# Of a module's singular values this many are listed.
LISTED = 64


@dataclass(frozen=True)
class Size:
    """Of one matrix D; s are its singular values, p_i = s_i^2 / sum s^2.

    frobenius: ||D||_F; spectral: s_1; stable_rank: ||D||_F^2 / s_1^2; effective_rank: exp(-sum p_i ln p_i) (Roy &
    Vetterli, 2007), None where not all s are known, then effective_rank_bounds hold it; base_norm: ||W||_F; share:
    ||D||_F / ||W||_F; both None where the base was not read. values: the largest singular values, at most `LISTED`.
    method: factors, exact (a small matrix), sketch (the first of a large one), vector (a bias or a norm: frobenius and
    share alone).
    """

    place: Place
    method: str
    frobenius: float
    spectral: float | None
    stable_rank: float | None
    effective_rank: float | None
    effective_rank_bounds: tuple[float, float] | None
    base_norm: float | None
    values: tuple[float, ...]

    @property
    def share(self) -> float | None:
        """||D||_F / ||W||_F."""
        return self.frobenius / self.base_norm if self.base_norm else None

    def to_dict(self) -> SizeJson:
        """As plain JSON, level `module`."""
        return {
            "level": "module",
            **self.place.to_dict(),
            "shape": list(self.place.shape),
            "method": self.method,
            "frobenius": self.frobenius,
            "spectral": self.spectral,
            "stable_rank": self.stable_rank,
            "effective_rank": self.effective_rank,
            "effective_rank_bounds": list(self.effective_rank_bounds) if self.effective_rank_bounds else None,
            "base_norm": self.base_norm,
            "share": self.share,
            "singular_values": list(self.values),
        }


@dataclass(frozen=True)
class SizeGroup:
    """The same of several modules. level: type, layer or all; key: which; n: modules.

    frobenius: root of the sum of squares; spectral: the largest; stable_rank, effective_rank: means over the modules
    that have one (of bounds, their middle is not taken: None counts as unknown); share: of the norm of their bases
    together.
    """

    level: str
    key: str | int | None
    n: int
    frobenius: float
    spectral: float | None
    stable_rank: float | None
    effective_rank: float | None
    share: float | None

    def to_dict(self) -> SizeJson:
        """As plain JSON."""
        return {
            "level": self.level,
            "key": self.key,
            "n": self.n,
            "frobenius": self.frobenius,
            "spectral": self.spectral,
            "stable_rank": self.stable_rank,
            "effective_rank": self.effective_rank,
            "share": self.share,
        }


def size(change: Change, base_norm: float | None) -> Size:
    """The size of one change. base_norm: ||W||_F, or None if it is not known."""
    if change.single:
        norm = math.sqrt(sum(float(block.double().square().sum()) for _, block in change.rows.blocks()))
        return Size(change.place, "vector", norm, None, None, None, None, base_norm, ())
    found = change.singular
    squares, norm = found.s.square(), math.sqrt(found.energy)
    top = float(found.s[0]) if len(found.s) else 0.0
    bounds = entropy_bounds(squares.tolist(), found.left, min(change.place.shape) - len(found.s)) if top > 0 else None
    exact = change.complete and bounds is not None
    method = "factors" if change.factors is not None else "exact" if change.complete else "sketch"
    return Size(
        place=change.place,
        method=method,
        frobenius=norm,
        spectral=top,
        stable_rank=found.energy / top**2 if top > 0 else None,
        effective_rank=bounds[0] if exact and bounds else None,
        effective_rank_bounds=None if exact else bounds,
        base_norm=base_norm,
        values=tuple(found.s[:LISTED].tolist()),
    )


def entropy_bounds(squares: Sequence[float], left: float, more: int) -> tuple[float, float]:
    """Bounds on exp(-sum p ln p) from the largest squares and the sum `left` of `more` further ones.

    Below: what is left lies in as few values as can be, none above the smallest known; above: in all alike.
    """
    total = sum(squares) + left
    shares = [square / total for square in squares if square > 0]
    known = -sum(p * math.log(p) for p in shares)
    rest = left / total
    if rest <= 0 or more <= 0:
        return math.exp(known), math.exp(known)
    low = -rest * math.log(max(min(shares), rest / more))
    high = rest * math.log(more / rest)
    return math.exp(known + low), math.exp(known + high)


def grouped(sizes: Sequence[Size]) -> list[SizeGroup]:
    """By module type, by layer, and all together; vectors (biases, norms) count in norms and shares alone."""
    result = []
    for (level, key), members in groups(sizes).items():
        bases = [s.base_norm for s in members]
        whole = math.hypot(*(b for b in bases if b is not None)) if all(b is not None for b in bases) else 0.0
        frobenius = math.hypot(*(s.frobenius for s in members))
        result.append(
            SizeGroup(
                level=level,
                key=key,
                n=len(members),
                frobenius=frobenius,
                spectral=max((s.spectral for s in members if s.spectral is not None), default=None),
                stable_rank=_mean(s.stable_rank for s in members),
                effective_rank=_mean(s.effective_rank for s in members),
                share=frobenius / whole if whole else None,
            )
        )
    return result


class Placed(Protocol):
    """A row of a table: of one matrix, or of a group of them, which lies nowhere (place None)."""

    @property
    def place(self) -> Place | None:
        """Where the matrix lies."""
        ...


def place_json(place: Place | None, key: str | int | None) -> RowPlaceJson:
    """Where the matrix of a row lies, or, of a group, its key."""
    if place is None:
        return {"key": key}
    return {**place.to_dict()}


def groups(rows: Sequence[Row]) -> dict[tuple[str, str | int | None], list[Row]]:
    """Rows of single matrices by (level, key): every module type in the order of appearance, every layer, those of
    each tower apart from the text's, all."""
    types: dict[tuple[str, str | int | None], list[Row]] = {}
    layers: dict[tuple[str, str | int | None], list[Row]] = {}
    placed = [row for row in rows if row.place is not None]
    for row in placed:
        where = row.place
        assert where is not None
        types.setdefault(("type", where.module), []).append(row)
        if where.layer is not None:
            level = "layer" if where.tower is None else f"{where.tower} layer"
            layers.setdefault((level, where.layer), []).append(row)
    ordered = sorted(layers.items(), key=lambda item: (item[0][0] != "layer", item[0][0], int(item[0][1] or 0)))
    return types | dict(ordered) | {("all", None): placed}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
