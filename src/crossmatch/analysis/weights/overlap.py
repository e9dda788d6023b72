"""How two changes of one matrix lie to each other: direction, column and row spaces, energy that is shared,
interference.

From factors where there are factors: the singular triples D_i = U_i S_i V_i^T cost what the rank costs, and everything
else is r-sized. The spaces of a dense change are its leading directions (`Change.dimension`); cosine and energies are
those of the whole.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.analysis.weights.delta_matrix import Change, Place
from crossmatch.analysis.weights.norms import groups, place_json
from crossmatch.analysis.weights.random_baselines import Figure, inside, mean, overlap_of_spaces, purity
from crossmatch.checkpoint import layer_of, module_type_of
from crossmatch.delta import Product, TuningVector, cosine, norm
from crossmatch.errors import DataError
from crossmatch.results.analysis import OverlapRowJson, SpacesJson
from crossmatch.results.study import OverlapModuleJson
from crossmatch.rules import Weight, weight_at
from crossmatch.rules.towers import labelled

# Shared directions that are listed.
LISTED = 16
ENERGIES = ("second_in_columns", "first_in_columns", "second_in_rows", "first_in_rows")


def _inner(first: Change, second: Change) -> float:
    """<D1, D2> in float64, block by block."""
    blocks = zip(first.rows.blocks(torch.float64), second.rows.blocks(torch.float64), strict=True)
    return sum(float((x * y).sum()) for (_, x), (_, y) in blocks)


def _energies(first: Change, second: Change) -> dict[str, Figure]:
    """Shares of each one's energy in the spaces of the other."""
    return {
        "second_in_columns": _within(first, second, 0),
        "first_in_columns": _within(second, first, 0),
        "second_in_rows": _within(first, second, 1),
        "first_in_rows": _within(second, first, 1),
    }


def _within(owner: Change, guest: Change, side: int) -> Figure:
    rank, found = owner.dimension, guest.singular
    basis = owner.singular.u[:, :rank] if side == 0 else owner.singular.vh[:rank].T
    size = owner.place.shape[side]
    if found.energy <= 0 or rank == 0:
        return Figure(None, rank / size)
    q = purity(found.s.square(), found.left, min(guest.place.shape) - len(found.s))
    if guest.complete:
        other = found.u if side == 0 else found.vh.T
        energy = float((basis.double().T @ other.double() * found.s).square().sum())
    else:
        product = Product(guest.rows)
        energy = float((product.left(basis) if side == 0 else product.right(basis)).double().square().sum())
    return inside(energy / found.energy, rank, size, q)


def _shared(
    values: tuple[Tensor, Tensor], columns: Tensor, rows: Tensor, factor: float
) -> tuple[tuple[float, float], ...]:
    """Interference by principal pair (p_i, q_i) of the column spaces: cos_i <D1^T p_i, D2^T q_i>, largest cosine
    first."""
    p, cosines, qh = torch.linalg.svd(columns, full_matrices=False)
    middle = values[0][:, None] * rows * values[1]
    parts = cosines * ((p.T @ middle) * qh).sum(1) * factor
    return tuple(zip(cosines[:LISTED].tolist(), parts[:LISTED].tolist(), strict=True))


@dataclass(frozen=True)
class Overlap:
    """One tensor that both vectors change.

    cosine: <D1, D2> / (||D1|| ||D2||), None where one is zero; cosine_null: standard deviation of that cosine when one
    delta is rotated at random on both sides, 1 / sqrt(d_out d_in); energy_ratio: ||w1 D1||^2 / ||w2 D2||^2 at the merge
    weights, None where the second is zero; norms: Frobenius, at weight one.
    """

    name: str
    layer: int | None
    module: str
    cosine: float | None
    cosine_null: float
    energy_ratio: float | None
    first_norm: float
    second_norm: float

    def to_dict(self) -> OverlapModuleJson:
        """As plain JSON."""
        return {
            "name": self.name,
            "layer": self.layer,
            "module": self.module,
            "cosine": self.cosine,
            "cosine_null": self.cosine_null,
            "energy_ratio": self.energy_ratio,
            "first_norm": self.first_norm,
            "second_norm": self.second_norm,
        }


def independent(vector: TuningVector) -> TuningVector:
    """The deltas that mean something without their base: neither saved modules nor tokens nor DoRA."""
    return TuningVector({name: delta for name, delta in vector.items() if not delta.needs_base})


def overlap(first: TuningVector, second: TuningVector, weights: tuple[Weight, Weight] = (1.0, 1.0)) -> list[Overlap]:
    """Cosine and energy ratio for every tensor in both vectors, in the order of the first.

    The null is exact: for D2 replaced by U D2 V with U, V uniform over rotations, E <D1, U D2 V>^2 =
    ||D1||^2 ||D2||^2 / (d_out d_in), whatever the ranks.
    """
    results = []
    for name in first:
        if name not in second:
            continue
        x, y = first[name], second[name]
        size, other = norm(x), norm(y)
        w1, w2 = (weight_at(weight, name) for weight in weights)
        below = (w2 * other) ** 2
        results.append(
            Overlap(
                name=name,
                layer=layer_of(name),
                module=labelled(name, module_type_of(name)),
                cosine=cosine(x, y),
                cosine_null=1.0 / math.sqrt(math.prod(x.shape)),
                energy_ratio=(w1 * size) ** 2 / below if below > 0 else None,
                first_norm=size,
                second_norm=other,
            )
        )
    return results


@dataclass(frozen=True)
class Space:
    """Of the two column spaces (or row spaces), of dimensions r1 and r2 in m.

    cosines: of the principal angles theta, descending, at most `LISTED`; overlap: mean of cos^2 = ||Q_1^T Q_2||^2 /
    min(r1, r2) against max(r1, r2) / m; grassmann: sqrt(sum theta^2), geodesic distance, radians.
    """

    cosines: tuple[float, ...]
    overlap: Figure
    grassmann: float

    def to_dict(self) -> SpacesJson:
        """As plain JSON."""
        return {"cosines": list(self.cosines), "overlap": self.overlap.to_dict(), "grassmann": self.grassmann}


def _space(across: Tensor, size: int) -> Space | None:
    r1, r2 = across.shape
    if not r1 or not r2:
        return None
    cosines = torch.linalg.svdvals(across).clamp(0, 1)
    value = float(cosines.square().sum()) / min(r1, r2)
    # arccos loses half the digits of small angles: what is a copy of the other shall have distance zero.
    angles = torch.where(cosines > 1 - 1e-12, 0.0, torch.arccos(cosines))
    figure = overlap_of_spaces(value, r1, r2, size)
    return Space(tuple(cosines[:LISTED].tolist()), figure, float(torch.linalg.vector_norm(angles)))


def _mean_space(spaces: Sequence[Space | None]) -> Space | None:
    known = [space for space in spaces if space is not None]
    if not known:
        return None
    return Space((), mean([s.overlap for s in known]), sum(s.grassmann for s in known) / len(known))


def sign_conflict(first: Change, second: Change) -> Figure:
    """Share of elements with opposite signs, each weighted by min(|a|, |b|); of unrelated changes one half.

    The deviation of the null, sqrt(sum w^2) / (2 sum w), is that of independent elements; those of low-rank deltas are
    not, so that theirs is larger: judge it beside the cosine.
    """
    opposite = weights = squares = 0.0
    for (_, x), (_, y) in zip(first.rows.blocks(), second.rows.blocks(), strict=True):
        least = x.abs().minimum(y.abs())
        opposite += float(least[(x * y) < 0].double().sum())
        weights += float(least.double().sum())
        squares += float(least.double().square().sum())
    if weights == 0.0:
        return Figure(None, 0.5)
    return Figure(opposite / weights, 0.5, math.sqrt(squares) / (2 * weights))


@dataclass(frozen=True)
class ChangePair:
    """Two changes D1, D2 of one matrix at weights w1, w2, or n of a group.

    cosine: <D1, D2> / (||D1|| ||D2||); null 0, deviation 1 / sqrt(m n), exact for D2 turned at random on both sides;
    energy_ratio: ||w1 D1||^2 / ||w2 D2||^2; columns, rows: how the spaces lie; energies: ||P D2||^2 / ||D2||^2 with P
    on D1's column space (second_in_columns) or row space, and the reverse; null r / m, r / n. interference: 2 w1 w2
    <D1, D2> / (||w1 D1||^2 + ||w2 D2||^2), what the sum's energy is more or less than the parts'. shared: its parts
    along the principal pairs of the column spaces, (cosine, part), which add up to it; of factors alone. sign_conflict:
    see `signs`.
    """

    level: str
    key: str | int | None
    place: Place | None
    n: int
    cosine: Figure
    energy_ratio: float | None
    norms: tuple[float, float]
    columns: Space | None
    rows: Space | None
    energies: dict[str, Figure]
    interference: Figure
    shared: tuple[tuple[float, float], ...] = ()
    sign_conflict: Figure | None = None

    def to_dict(self) -> OverlapRowJson:
        """As plain JSON."""
        energies = {name: figure.to_dict() for name, figure in self.energies.items()}
        return {
            "level": self.level,
            **place_json(self.place, self.key),
            "n": self.n,
            "cosine": self.cosine.to_dict(),
            "energy_ratio": self.energy_ratio,
            "first_norm": self.norms[0],
            "second_norm": self.norms[1],
            "columns": self.columns.to_dict() if self.columns else None,
            "rows": self.rows.to_dict() if self.rows else None,
            "second_in_columns": energies["second_in_columns"],
            "first_in_columns": energies["first_in_columns"],
            "second_in_rows": energies["second_in_rows"],
            "first_in_rows": energies["first_in_rows"],
            "interference": self.interference.to_dict(),
            "shared": [{"cosine": cosine, "interference": part} for cosine, part in self.shared],
            "sign_conflict": self.sign_conflict.to_dict() if self.sign_conflict else None,
        }


def compare(first: Change, second: Change, weights: tuple[float, float] = (1.0, 1.0)) -> ChangePair:
    """The pair of two changes of one matrix. Raises DataError if their shapes differ."""
    if first.place.shape != second.place.shape:
        raise DataError(f"{first.place.name}: shapes {first.place.shape} and {second.place.shape} cannot be compared")
    m, n = first.place.shape
    one, two = first.singular, second.singular
    r1, r2 = first.dimension, second.dimension
    u1, u2, v1, v2 = one.u[:, :r1], two.u[:, :r2], one.vh[:r1].T, two.vh[:r2].T
    values = one.s[:r1], two.s[:r2]
    columns, rows = u1.double().T @ u2.double(), v1.double().T @ v2.double()
    norms = math.sqrt(one.energy), math.sqrt(two.energy)
    in_factors = first.factors is not None and second.factors is not None
    product = float((values[0][:, None] * columns * rows * values[1]).sum()) if in_factors else _inner(first, second)
    size, (w1, w2) = norms[0] * norms[1], weights
    parts = (w1 * norms[0]) ** 2, (w2 * norms[1]) ** 2
    factor = 2 * w1 * w2 / sum(parts) if sum(parts) > 0 else 0.0
    cosine = Figure(max(-1.0, min(1.0, product / size)) if size > 0 else None, 0.0, 1 / math.sqrt(m * n))
    return ChangePair(
        level="module",
        key=None,
        place=first.place,
        n=1,
        cosine=cosine,
        energy_ratio=parts[0] / parts[1] if parts[1] > 0 else None,
        norms=norms,
        columns=_space(columns, m),
        rows=_space(rows, n),
        energies=_energies(first, second),
        interference=Figure(product * factor if size > 0 else None, 0.0, abs(factor) * size / math.sqrt(m * n)),
        shared=_shared(values, columns, rows, factor) if in_factors and r1 and r2 else (),
    )


def grouped(rows: Sequence[ChangePair], weights: tuple[float, float] = (1.0, 1.0)) -> list[ChangePair]:
    """By type, layer and all: the cosine, the ratio and the interference of the modules taken together as one vector,
    the rest as means over modules."""
    result = []
    for (level, key), members in groups(rows).items():
        norms = (math.hypot(*(m.norms[0] for m in members)), math.hypot(*(m.norms[1] for m in members)))
        size, (w1, w2) = norms[0] * norms[1], weights
        sizes = [m.norms[0] * m.norms[1] for m in members]
        product = sum((m.cosine.value or 0.0) * each for m, each in zip(members, sizes, strict=True))
        spread = math.hypot(*((m.cosine.null_sd or 0.0) * each for m, each in zip(members, sizes, strict=True)))
        parts = (w1 * norms[0]) ** 2, (w2 * norms[1]) ** 2
        factor = 2 * w1 * w2 / sum(parts) if sum(parts) > 0 else 0.0
        signs = [m.sign_conflict for m in members if m.sign_conflict is not None]
        result.append(
            ChangePair(
                level=level,
                key=key,
                place=None,
                n=len(members),
                cosine=Figure(product / size, 0.0, spread / size) if size > 0 else Figure(None, 0.0),
                energy_ratio=parts[0] / parts[1] if parts[1] > 0 else None,
                norms=norms,
                columns=_mean_space([m.columns for m in members]),
                rows=_mean_space([m.rows for m in members]),
                energies={name: mean([m.energies[name] for m in members]) for name in ENERGIES},
                interference=Figure(product * factor, 0.0, abs(factor) * spread),
                sign_conflict=mean(signs) if signs else None,
            )
        )
    return result
