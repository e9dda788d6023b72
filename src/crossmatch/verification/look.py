"""A close look at some rows of one tensor: sums for the weights, what each adapter does there, which route fits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from zlib import crc32

import torch
from torch import Tensor

from crossmatch.checkpoint import Checkpoint, TensorFiles
from crossmatch.delta import Delta
from crossmatch.errors import AdapterError
from crossmatch.verification.recover import Strata
from crossmatch.verification.rounding import Violations, replays, step, violations

# Rows that a look takes of a tensor: at least so many, or as many as hold so many elements.
ROWS, ELEMENTS = 32, 1 << 16
# Errors of tools that work in the single precision in which they store: relative to the delta, and to W.
_LONG, _SCALED = 2.0**-19, 2.0**-23
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass
class Looked:
    """What some rows of an adapted tensor showed.

    strata: sums for the weights; violations: against the claimed sum; elements; flips: elements that the claim says
    differ from the base; effects: elements that each adapter alone makes differ, by the claim; changed: elements
    that do differ; lost, energy: energy of the claimed delta where it rounds away, and in all; alone: the same for each
    adapter by itself; nonfinite: stored NaN or infinite elements; replayed: elements that are not what a route's
    operations give, by its name, where any element is not the exact sum's; error: summed squares of the distances from
    the exact sum, in those of one rounding at the largest intermediate sum; honest: the same for what a route gives.
    """

    strata: Strata
    violations: Violations = field(default_factory=Violations)
    elements: int = 0
    flips: int = 0
    effects: dict[int, int] = field(default_factory=dict)
    changed: int = 0
    lost: float = 0.0
    energy: float = 0.0
    alone: dict[int, tuple[float, float]] = field(default_factory=dict)
    nonfinite: int = 0
    replayed: dict[str, int] = field(default_factory=dict)
    error: float = 0.0
    honest: dict[str, float] = field(default_factory=dict)

    @property
    def mismatches(self) -> int:
        """Elements that are not what the best of the routes gives."""
        return min([self.violations.bits, *self.replayed.values()])

    @classmethod
    def empty(cls, weights: Sequence[float]) -> "Looked":
        """No rows yet; weights: those that seem to be inside."""
        return cls(Strata.empty(len(weights), weights))


@dataclass(frozen=True)
class Rows:
    """Some rows of one tensor: as stored, and, in float64, the base's and those of every delta at weight one, by
    number; scaled: whether a delta scales W itself."""

    stored: Tensor
    ours: Tensor
    deltas: Mapping[int, Tensor]
    where: Sequence[slice]
    scaled: bool = False


def sample(name: str, height: int, columns: int, least: int = ROWS) -> list[slice]:
    """Rows spread over a tensor, one from each of equal parts; which one follows from the tensor's name."""
    count = min(height, max(least, -(-ELEMENTS // max(1, columns))))
    if count == height:
        return [slice(0, height)] if height else []
    edges = [height * i // count for i in range(count + 1)]
    firsts = [a + crc32(f"{name}:{a}".encode()) % (b - a) for a, b in pairwise(edges)]
    return [slice(first, first + 1) for first in firsts]


def read(merged: TensorFiles, base: Checkpoint, name: str, deltas: Mapping[int, Delta], where: Sequence[slice]) -> Rows:
    """Those rows of one tensor."""
    columns = columns_of(base, name, deltas)
    check_readable(name, base.tensors[name].dtype, merged.tensors[name].dtype)
    stored = torch.cat([merged.rows(name, s.start, s.stop, columns) for s in where])
    ours = torch.cat([base.rows(name, s.start, s.stop, columns) for s in where]).double()
    scaled = any(delta.needs_base for delta in deltas.values())
    return Rows(stored, ours, {i: delta_rows(delta, where, ours) for i, delta in deltas.items()}, where, scaled)


def delta_rows(delta: Delta, where: Sequence[slice], ours: Tensor) -> Tensor:
    """Those rows of a delta; ours: these rows of W."""
    parts, done = [], 0
    for s in where:
        count = s.stop - s.start
        base = ours[done : done + count] if delta.needs_base else None
        parts.append(delta.rows(s.start, s.stop, ours.dtype, base))
        done += count
    return torch.cat(parts)


def bound(base: Checkpoint, name: str, deltas: Mapping[int, Delta]) -> dict[int, Delta]:
    """Deltas with what they must know of the whole tensor."""
    columns = columns_of(base, name, deltas)
    return {i: d.bind(lambda start, stop: base.rows(name, start, stop, columns)) for i, d in deltas.items()}


def columns_of(base: Checkpoint, name: str, deltas: Mapping[int, Delta]) -> int:
    """Width of the matrix as which a tensor is read."""
    return next((delta.columns for delta in deltas.values()), base.tensors[name].columns)


def check_readable(name: str, *dtypes: torch.dtype) -> None:
    """Raise AdapterError for a tensor that is not stored as floating numbers of a kind that a merge has."""
    for dtype in dtypes:
        if dtype not in _FLOATS:
            raise AdapterError(
                f"{name} is stored as {dtype}, which cannot be verified; store it as float32, bfloat16 or float16 first"
            )


def look(
    rows: Rows,
    weights: Sequence[float],
    into: Looked | None = None,
    *,
    replay: bool = False,
) -> Looked:
    """Take in some rows; weights: the claim's, by number; into: made with the weights that seem to be inside, which say
    how far an element got; replay: try the routes although every element is the exact sum's."""
    found = into or Looked.empty(weights)
    theirs, ours, deltas = rows.stored, rows.ours, rows.deltas
    finite = torch.isfinite(theirs)
    if not bool(finite.all()):
        found.nonfinite += int((~finite).sum())
        theirs = torch.where(finite, theirs, ours.to(theirs.dtype))
    size = row_sizes(deltas.values())
    for i, x in deltas.items():
        for j, y in deltas.items():
            if j >= i:
                product = float((x.double() * y.double()).sum())
                found.strata.gram[i, j] += product
                found.strata.gram[j, i] += product if i != j else 0.0
    # The step where the element has got to: weights far above one carry it further than the deltas themselves.
    moved = torch.maximum(size, row_sizes(weights[i] * d for i, d in deltas.items()))
    offset = found.strata.offset.tolist()
    moved = torch.maximum(moved, row_sizes(offset[i] * d for i, d in deltas.items()))
    grain = step(ours.abs() + 3 * moved, theirs.dtype)
    # Errors are of the size of the step where an element is said to be; not far below, in case it is not.
    there = ours + sum((offset[i] * d for i, d in deltas.items()), torch.zeros((), dtype=ours.dtype))
    steps = torch.maximum(step(torch.maximum(there.abs(), ours.abs()), theirs.dtype), grain / 4)
    found.strata.add(theirs.to(ours.dtype) - there, list(deltas.values()), list(deltas), steps, size, grain)
    seen = violations(theirs, ours, deltas, weights, size, scaled=rows.scaled)
    found.violations += seen
    _effects(found, theirs, ours, {i: weights[i] * d for i, d in deltas.items()})
    if seen.bits or replay:
        _compare_routes(found, rows, weights, size, routes=not seen.gross or replay)
    return found


def _compare_routes(found: Looked, rows: Rows, weights: Sequence[float], size: Tensor, *, routes: bool) -> None:
    """How far elements are off, and how far the routes would be; routes: whether these are tried: where an element lies
    far off, none is asked for."""
    ours, deltas, dtype = rows.ours, rows.deltas, rows.stored.dtype
    theirs = torch.where(torch.isfinite(rows.stored), rows.stored, ours.to(dtype))
    zero = torch.zeros((), dtype=ours.dtype)
    offset = found.strata.offset.tolist()
    moved = sum(((weights[i] * d).abs() for i, d in deltas.items()), zero)
    exact = ours + sum((weights[i] * d for i, d in deltas.items()), zero)
    # Where shares cancel, an intermediate sum has a coarser step than the result.
    ulp = step(ours.abs() + moved, dtype)
    found.error += _spread(theirs, exact, ulp)
    if dtype == torch.float32:
        # A long way in the precision of what is stored, as an SVD; W itself times a factor of that precision.
        inside = sum(((offset[i] * d).abs() for i, d in deltas.items()), size)
        there = step(ours.abs() + inside, dtype)
        found.honest["long"] = found.honest.get("long", 0.0) + _noise(_LONG * inside / there)
        if rows.scaled:
            found.honest["scaled"] = found.honest.get("scaled", 0.0) + _noise(_SCALED * ours.abs() / there)
    if routes:
        for route, stored in replays(ours, deltas, weights, dtype):
            found.replayed[route] = found.replayed.get(route, 0) + int((stored != theirs).sum())
            found.honest[route] = found.honest.get(route, 0.0) + _spread(stored, exact, ulp)


def _noise(steps: Tensor) -> float:
    """Of an error of that many steps, in root mean square, on top of that of one rounding."""
    return steps.numel() + 12.0 * float(steps.square().sum())


def _spread(stored: Tensor, exact: Tensor, ulp: Tensor) -> float:
    return 12.0 * float(((stored.to(exact.dtype) - exact) / ulp).square().sum())


def _effects(found: Looked, theirs: Tensor, ours: Tensor, shares: Mapping[int, Tensor]) -> None:
    claimed = sum(shares.values(), torch.zeros((), dtype=ours.dtype))
    exact = ours + claimed
    predicted, same_base = exact.to(theirs.dtype), ours.to(theirs.dtype)
    flips = predicted != same_base
    for i, share in shares.items():
        effect = flips if len(shares) == 1 else (exact - share).to(theirs.dtype) != predicted
        found.effects[i] = found.effects.get(i, 0) + int(effect.sum())
    found.elements += theirs.numel()
    found.flips += int(flips.sum())
    found.changed += int((theirs != same_base).sum())
    energy, lost = _loss(claimed, flips)
    found.energy += energy
    found.lost += lost
    for i, share in shares.items():
        energy, lost = _loss(share, (ours + share).to(theirs.dtype) != same_base)
        before = found.alone.get(i, (0.0, 0.0))
        found.alone[i] = (before[0] + lost, before[1] + energy)


def _loss(delta: Tensor, flips: Tensor) -> tuple[float, float]:
    """Energy of a delta, and that part of it where it changes nothing."""
    squares = delta.double().square()
    return float(squares.sum()), float(squares.masked_fill_(flips, 0.0).sum())


def row_sizes(rows: Iterable[Tensor]) -> Tensor:
    """Root of the summed mean squares of the rows of some deltas, (rows, 1)."""
    total: Tensor = torch.zeros(())
    width = 1
    for delta in rows:
        total = total + torch.linalg.vector_norm(delta, dim=1, keepdim=True).square()
        width = delta.shape[1]
    return (total / width).sqrt()
