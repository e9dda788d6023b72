"""A close look at some rows of a tensor: sums for the weights, what each adapter does, what the program gives."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from zlib import crc32

import torch
from torch import Tensor

from crossmatch.checkpoint import Checkpoint, TensorFiles
from crossmatch.delta import Delta
from crossmatch.errors import AdapterError
from crossmatch.verification.arithmetic.dora_in_16_bits import RoundedDora
from crossmatch.verification.arithmetic.float_spacing import step
from crossmatch.verification.arithmetic.replay import Applied, Elements, rows_of
from crossmatch.verification.weights.estimate import Strata
from crossmatch.verification.weights.smallest_hidden import Hiding

# Rows that a look takes of a tensor: at least so many, or as many as hold so many elements.
ROWS, ELEMENTS = 32, 1 << 16
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass
class Looked:
    """What some rows of an adapted tensor showed.

    strata: sums for the weights; elements; flips: elements that the claim says differ from the base; effects: elements
    that each adapter alone makes differ, by the claim; changed: elements that do differ; lost, energy: energy of the
    claimed delta where it rounds away, and in all; alone: the same for each adapter by itself; nonfinite: stored NaN or
    infinite elements; mismatches: elements that are not what the program's operations give, bit for bit; outside: those
    that they cannot give, whatever the order of additions; apart: sum of squares of what is stored less what they give;
    honest: summed squares of the distances of what the program gives from the exact sum, in those of one rounding
    there; hiding: what a further delta would have to be to be seen.
    """

    strata: Strata
    elements: int = 0
    flips: int = 0
    effects: dict[int, int] = field(default_factory=dict)
    changed: int = 0
    lost: float = 0.0
    energy: float = 0.0
    alone: dict[int, tuple[float, float]] = field(default_factory=dict)
    nonfinite: int = 0
    mismatches: int = 0
    outside: int = 0
    apart: float = 0.0
    honest: float = 0.0
    hiding: Hiding = field(default_factory=Hiding)

    @property
    def noise(self) -> float:
        """Mean square of the program's own error, in that of one rounding; at least 1."""
        return max(1.0, self.honest / max(1, self.elements))

    @classmethod
    def empty(cls, weights: Sequence[float]) -> "Looked":
        """No rows yet; weights: those that seem to be inside."""
        return cls(Strata.empty(len(weights), weights))


@dataclass(frozen=True)
class Rows:
    """Some rows of one tensor: as stored, and, in float64, the base's as the program takes them and those of every
    delta at weight one, with factors as the program rounds them, by number; applied, some: the program and what it
    makes of these rows; grain: the coarsest dtype on the way."""

    stored: Tensor
    ours: Tensor
    deltas: Mapping[int, Tensor]
    where: Sequence[slice]
    applied: Applied
    some: Elements
    grain: torch.dtype


def sample(name: str, height: int, columns: int, least: int = ROWS) -> list[slice]:
    """Rows spread over a tensor, one from each of equal parts; which one follows from the tensor's name."""
    count = min(height, max(least, -(-ELEMENTS // max(1, columns))))
    if count == height:
        return [slice(0, height)] if height else []
    edges = [height * i // count for i in range(count + 1)]
    firsts = [a + crc32(f"{name}:{a}".encode()) % (b - a) for a, b in pairwise(edges)]
    return [slice(first, first + 1) for first in firsts]


def rows_from(
    stored: Tensor,
    raw: Tensor,
    parts: Mapping[int, Delta],
    applied: Applied,
    where: Sequence[slice],
    window: slice | None = None,
) -> Rows:
    """Rows that are read already; stored: M's, raw: W's as it is stored, parts: deltas at weight one; window: of these
    rows, some columns alone."""
    some = applied.read(raw, where)
    deltas = {}
    for i, delta in parts.items():
        own = applied.shares[i]
        value = some.shares[i]
        for factor in own.after:
            value = value * factor
        if applied.program.by_models:
            deltas[i] = value
        else:
            deltas[i] = value / own.weight if own.weight else rows_of(delta, where, some.ours)
    if window is not None:
        shares = {i: t[:, window] for i, t in some.shares.items()}
        reach = {i: t[:, window] for i, t in some.reach.items()}
        some = Elements(some.ours[:, window], shares, reach, some.blur[:, window])
        stored, deltas = stored[:, window], {i: t[:, window] for i, t in deltas.items()}
    return Rows(
        stored,
        some.ours * applied.operations.whole,
        deltas,
        where,
        applied,
        some,
        applied.program.grains(stored.dtype)[0],
    )


def bound(base: Checkpoint, name: str, deltas: Mapping[int, Delta]) -> dict[int, Delta]:
    """Deltas with what they must know of the whole tensor."""
    columns = columns_of(base, name, deltas)
    return {i: d.bind(lambda start, stop: base.rows(name, start, stop, columns)) for i, d in deltas.items()}


def columns_of(base: Checkpoint, name: str, deltas: Mapping[int, Delta]) -> int:
    """Width of the matrix as which a tensor is read."""
    return next((delta.columns for delta in deltas.values()), base.tensors[name].columns)


def read_rows(files: TensorFiles, name: str, where: Sequence[slice], columns: int) -> Tensor:
    """Those rows of one tensor, as they are stored."""
    return torch.cat([files.rows(name, s.start, s.stop, columns) for s in where])


def check_readable(name: str, *dtypes: torch.dtype) -> None:
    """Raise AdapterError for a tensor that is not stored as floating numbers of a kind that a merge has."""
    for dtype in dtypes:
        if dtype not in _FLOATS:
            raise AdapterError(
                f"{name} is stored as {dtype}, which cannot be verified; store it as float32, bfloat16 or float16 first"
            )


def look(rows: Rows, weights: Sequence[float], into: Looked | None = None) -> Looked:
    """Take in some rows; weights: those that the program has, by number; into: made with the weights that seem to be
    inside, which say how far an element got."""
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
                product = float((x * y).sum())
                found.strata.gram[i, j] += product
                found.strata.gram[j, i] += product if i != j else 0.0
    # The step where the element has got to: weights far above one carry it further than the deltas themselves.
    offset = found.strata.offset.tolist()
    moved = torch.maximum(size, row_sizes(weights[i] * d for i, d in deltas.items()))
    moved = torch.maximum(moved, row_sizes(offset[i] * d for i, d in deltas.items()))
    grain = step(ours.abs() + 3 * moved, rows.grain)
    # Errors are of the size of the step where an element is said to be; not far below, in case it is not.
    there = ours + sum((offset[i] * d for i, d in deltas.items()), torch.zeros((), dtype=ours.dtype))
    steps = torch.maximum(step(torch.maximum(there.abs(), ours.abs()), rows.grain), grain / 4)
    # In single precision the products' own errors may be the larger ones.
    steps = torch.hypot(steps, rows.some.blur)
    centre, exact = rows.applied.centre(rows.some), rows.applied.exact(rows.some)
    own = torch.nan_to_num(centre.to(exact.dtype) - exact, 0.0, 0.0, 0.0)
    found.strata.add(theirs.to(ours.dtype) - there, list(deltas.values()), list(deltas), steps, size, grain, own)
    _compare(found, rows, theirs, centre, exact)
    _effects(found, theirs, ours, {i: weights[i] * d for i, d in deltas.items()})
    return found


def _compare(found: Looked, rows: Rows, theirs: Tensor, centre: Tensor, exact: Tensor) -> None:
    """How many elements the program does not give, and how far it is from the exact sum itself; centre: what it gives,
    exact: that sum."""
    use, some = rows.applied, rows.some
    unequal = centre != theirs
    found.mismatches += int(unequal.sum())
    if bool(unequal.any()):
        found.outside += int(use.outside(theirs, some).sum())
        found.apart += squares_apart(theirs, centre)
    ulp = step(exact.abs(), rows.grain)
    reach = sum(some.reach.values(), torch.zeros((), dtype=exact.dtype))
    # Errors of additions are an eighth of their bound, in root mean square, at ranks of 8 and more.
    found.honest += _spread(centre, exact, ulp) + 12.0 * float((reach / (8 * ulp)).square().sum())
    # Where a share was rounded before, what is added has a rounding more to pass.
    passed = sum(isinstance(share.value, RoundedDora) for share in use.shares.values())
    found.hiding.add(exact, centre.to(exact.dtype), ulp, reach + passed * ulp / 2, exact - some.ours)


def squares_apart(stored: Tensor, given: Tensor) -> float:
    """Sum of squares of the distances; infinite where one is no number."""
    return float(torch.nan_to_num((stored.double() - given.double()).square(), nan=math.inf).sum())


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
