"""What is analysed: every matrix that a tuning vector changes, with its base, factors where there are factors."""

from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from crossmatch.adapter import stored_turned
from crossmatch.checkpoint import Checkpoint, layer_of, module_type_of
from crossmatch.delta import Delta, LowRank, Rows, Singular, Stack, TuningVector, top_singular
from crossmatch.errors import DataError
from crossmatch.results.analysis import LeftOutJson, MatrixPlaceJson
from crossmatch.rules import part_of
from crossmatch.rules.towers import labelled, tower_of

# Of a dense change this many singular triples are looked at, and all of them up to `EXACT` directions.
DENSE_TRIPLES = 64
EXACT = 1024
# Share of the energy of a dense change in what counts as its column and row spaces.
HELD = 0.99


@dataclass(frozen=True)
class LeftOut:
    """What was not measured of a tensor (or of all, name None), and why."""

    vector: str | None
    name: str | None
    measure: str
    why: str

    def to_dict(self) -> LeftOutJson:
        """As plain JSON."""
        return {"vector": self.vector, "name": self.name, "measure": self.measure, "why": self.why}


@dataclass(frozen=True)
class Place:
    """Where a matrix lies: the tensor's name (with [i] for the i-th of a stack of experts), layer, module, part of the
    layer (attn, mlp or None), shape (d_out, d_in), tower (None: a layer of the text)."""

    name: str
    layer: int | None
    module: str
    part: str | None
    shape: tuple[int, int]
    tower: str | None = None

    def to_dict(self) -> MatrixPlaceJson:
        """As plain JSON."""
        return {"name": self.name, "layer": self.layer, "module": self.module, "part": self.part}


@dataclass(frozen=True, eq=False)
class Change:
    """One matrix D (d_out, d_in) on its base W.

    factors: D as factors, or None; rows: D in blocks of rows, however it is given; base: W in blocks of rows, oriented
    as D; tensor, first_row: where W lies in the checkpoint, turned: stored transposed there; single: D is a vector (a
    bias, a norm), of which only the size means something.
    """

    place: Place
    factors: LowRank | None
    rows: Rows
    base: Rows
    tensor: str
    first_row: int = 0
    turned: bool = False
    single: bool = False

    @cached_property
    def singular(self) -> Singular:
        """Singular triples of D: all for factors and small matrices, else the first `DENSE_TRIPLES`, by a sketch whose
        random vectors follow from the shape alone."""
        if self.factors is not None:
            return top_singular(self.factors, generator=torch.Generator(), energy=1.0)
        least = min(self.place.shape)
        wanted = least if least <= EXACT else DENSE_TRIPLES
        generator = torch.Generator().manual_seed(least)
        try:
            return top_singular(self.rows, wanted, power=2, generator=generator, bounded=False)
        except ValueError as error:
            raise DataError(f"{self.place.name}: {error}") from error

    @cached_property
    def is_zero(self) -> bool:
        """Whether every element is zero."""
        if self.factors is not None:
            return self.singular.energy == 0
        return not any(bool(block.any()) for _, block in self.rows.blocks())

    @property
    def rank(self) -> int:
        """Number of singular values that are not rounding, of those known."""
        s = self.singular.s
        return int((s > 1e-10 * s[0]).sum()) if len(s) and float(s[0]) > 0 else 0

    @property
    def dimension(self) -> int:
        """Of the spaces that D reads from and writes to: its rank for factors; of a dense change, which in finite
        precision has them all, the leading directions that hold `HELD` of its energy, at most `DENSE_TRIPLES`."""
        if self.factors is not None:
            return self.rank
        return min(int((self.singular.shares() < HELD).sum()) + 1, self.rank, DENSE_TRIPLES)

    @property
    def complete(self) -> bool:
        """Whether all singular values are known."""
        return self.factors is not None or len(self.singular.s) == min(self.place.shape)


def changes(vector: TuningVector, name: str, base: Checkpoint) -> list[Change]:
    """The matrices that a vector changes in one tensor: one, or those of a stack of experts.

    vector: by the names of `base`. A delta that is relative to its base (DoRA, a saved module, tokens) is formed with
    it. Raises DataError if it holds NaN or infinite values.
    """
    delta = vector[name]
    turned = stored_turned(name, base)
    if not isinstance(delta, Stack):
        return [_change(name, (name, 0, turned), delta, base)]
    each = delta.parts[0].height
    return [_change(f"{name}[{i}]", (name, i * each, turned), part, base) for i, part in enumerate(delta.parts)]


def _change(label: str, where: tuple[str, int, bool], delta: Delta, base: Checkpoint) -> Change:
    name, first_row, turned = where
    columns = delta.columns
    read = partial(_base_rows, base, name, first_row, columns)
    weight = Rows(delta.height, columns, read)
    factors = delta if isinstance(delta, LowRank) else None
    rows = Rows.of(delta, read)
    if factors is not None:
        _check_finite(label, factors)
    else:
        rows = rows.held()
    if turned:
        factors = LowRank(factors.a.T, factors.b.T, factors.scale) if factors is not None else None
        rows, weight = _transposed(rows), _transposed(weight)
    module = labelled(name, module_type_of(name))
    place = Place(label, layer_of(name), module, part_of(name), (rows.height, rows.columns), tower_of(name))
    single = min(place.shape) == 1
    return Change(place, factors, rows, weight, name, first_row, turned, single)


def _base_rows(base: Checkpoint, name: str, first: int, columns: int, start: int, stop: int) -> Tensor:
    return base.rows(name, first + start, first + stop, columns)


def _transposed(rows: Rows) -> Rows:
    """Read whole when the first block is asked for: columns are not read alone."""
    kept: list[Tensor] = []

    def read(start: int, stop: int) -> Tensor:
        if not kept:
            kept.append(torch.cat([block for _, block in rows.blocks()]).T.contiguous())
        return kept[0][start:stop]

    return replace(rows, height=rows.columns, columns=rows.height, read=read)


def _check_finite(name: str, delta: LowRank) -> None:
    if not all(bool(torch.isfinite(side).all()) for side in (delta.b, delta.a, delta.scale)):
        raise DataError(f"{name}: the factors hold NaN or infinite values; train or fetch the adapter again")
