"""A program of the grammar run on one tensor: what it stores, and the least and the greatest that it may store."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from crossmatch.delta import Delta, Dora, LowRank, Workspace, linear
from crossmatch.verification.arithmetic.float_spacing import step
from crossmatch.verification.arithmetic.grammar import HALVES, Program
from crossmatch.verification.arithmetic.operations import End, Operations
from crossmatch.verification.arithmetic.shares import UNIT, Share, shares_of

# Elements of which both ends are computed in one go: of few, calls cost more than numbers.
_TOGETHER = 1 << 15


@dataclass(frozen=True)
class Elements:
    """Some elements of one tensor, all float64 and of one shape: W as it is stored, and for every adapter its share and
    how far that may be off; blur: how wide one rounding would be that errs as all products do, as a rule: the partial
    sums of r products of like size err by 2^-24 |B| |A| sqrt(1/12), whatever r is."""

    ours: Tensor
    shares: Mapping[int, Tensor]
    reach: Mapping[int, Tensor]
    blur: Tensor


@dataclass(frozen=True)
class Applied:
    """A program on one tensor: what it makes of any rows, and what it may make of them.

    shares: by the adapter's number; weights: of all adapters.
    """

    program: Program
    shares: Mapping[int, Share]
    stored: torch.dtype
    weights: Sequence[float] = ()
    total: Delta | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        program: Program,
        parts: Mapping[int, Delta],
        weights: Sequence[float],
        doubts: Sequence[float],
        stored: torch.dtype,
    ) -> "Applied":
        """The program for these deltas at weight one, at these weights."""
        shares = shares_of(program, parts, weights, doubts, stored)
        plain = program.delta is None and program.order in ("sum", "cat") and shares
        total = linear([s.value for s in shares.values()], [1.0] * len(shares)) if plain else None
        return cls(program, shares, stored, tuple(weights), total)

    @cached_property
    def operations(self) -> Operations:
        """What follows the products."""
        return Operations(self.program, self.shares, self.stored, self.weights)

    def cast(self, ours: Tensor) -> Tensor:
        """W as the program takes it: cast to c where that is narrower."""
        c = self.program.base
        return ours if c is None or c == ours.dtype or c == torch.float32 else ours.to(c)

    def predict(self, ours: Tensor, start: int, space: Workspace) -> Tensor:
        """The rows that begin at `start` as the program stores them; ours: W's, as they are stored."""
        exact = self.stored == torch.float32 and self.program.final not in HALVES and not self.program.via
        work = torch.float64 if exact else torch.float32
        base = self.cast(ours)
        if self.total is not None:
            value = space.buffer(ours.shape, work).copy_(base)
            self.total.add_to(value, start, start + len(ours))
            value = value if self.program.base in (None, self.stored) else value.to(self.program.base)
            return self.operations.store(value)
        wide = base.to(work)
        rows = {i: s.value.rows(start, start + len(ours), work, wide) for i, s in self.shares.items()}
        return self.operations.compose(wide, rows)

    def read(self, ours: Tensor, where: Sequence[slice]) -> Elements:
        """Whole rows; ours: W's, as they are stored."""
        wide = self.cast(ours).double()
        shares, reach, blur = {}, {}, torch.zeros_like(wide)
        for i, s in self.shares.items():
            value = rows_of(s.value, where, wide)
            if s.magnitude is not None:
                size = rows_of(s.magnitude, where, wide)
                far, blur = s.slack * size, blur + UNIT * (size + value.abs())
                if (p := self.program.of(i).delta) is not None:
                    blur = torch.hypot(blur, step(value.abs(), p) * (1 + len(s.after)) ** 0.5)
            else:
                size = torch.linalg.vector_norm(value, dim=1, keepdim=True) / max(1, value.shape[1]) ** 0.5
                far = s.slack * (value.abs() + 3 * size)
                far = far + _norm_slack(s.value) * wide.abs() if isinstance(s.value, Dora) else far
            if self.program.by_models and self.program.base in HALVES:
                blur = torch.hypot(blur, step((value * s.weight).abs(), self.program.base))
            if s.spread is not None:
                far = far + rows_of(s.spread, where, wide)
            shares[i], reach[i] = value, far + s.doubt * value.abs()
        return self._elements(wide, shares, reach, blur)

    def at(self, ours: Tensor, rows: Tensor, columns: Tensor) -> Elements | None:
        """Single elements (rows[j], columns[j]); None where a share is not a product of factors."""
        wide = self.cast(ours).double()
        shares, reach, blur = {}, {}, torch.zeros_like(wide)
        for i, s in self.shares.items():
            if not isinstance(s.value, LowRank) or not isinstance(s.magnitude, LowRank):
                return None
            shares[i] = s.value.at(rows, columns)
            reach[i] = s.slack * s.magnitude.at(rows, columns) + s.doubt * shares[i].abs()
            if isinstance(s.spread, LowRank):
                reach[i] = reach[i] + s.spread.at(rows, columns)
        return self._elements(wide, shares, reach, blur)

    def _elements(self, wide: Tensor, shares: dict[int, Tensor], reach: dict[int, Tensor], blur: Tensor) -> Elements:
        """With the slack of the sums; after a delta that was rounded, these are opened by themselves."""
        several = len(reach) * UNIT if len(reach) > 1 else 0.0
        for i, far in reach.items():
            if self.program.of(i).delta is not None:
                continue
            size = shares[i].abs()
            more = self.operations.slack * (wide.abs() + size) + several * size
            # Where a delta is nothing at all, as in rows that were not trained, nothing is open.
            reach[i] = torch.where((size > 0) | (far > 0), far + more, far)
        return Elements(wide, shares, reach, blur)

    def centre(self, some: Elements) -> Tensor:
        """What the program stores."""
        return self.operations.compose(some.ours, some.shares)

    def bounds(self, some: Elements) -> tuple[Tensor, Tensor]:
        """The least and the greatest value that it may store, as float64."""
        if some.shares and some.ours.numel() <= _TOGETHER:
            both = self._end(
                some, torch.tensor((-1.0, 1.0), dtype=torch.float64).view(2, *(1 for _ in some.ours.shape))
            )
            return both.amin(0), both.amax(0)
        first, second = self._end(some, -1.0), self._end(some, 1.0)
        return torch.minimum(first, second), torch.maximum(first, second)

    def _end(self, some: Elements, end: End) -> Tensor:
        moved = {}
        for i, value in some.shares.items():
            turn = math.prod(math.copysign(1.0, x) for x in self.shares[i].after)
            moved[i] = value + self.operations.towards(i, end) * turn * some.reach[i]
        return self.operations.compose(some.ours, moved, end=end).double()

    def exact(self, some: Elements) -> Tensor:
        """W_c + sum_i S_i without any rounding of deltas and sums."""
        total = some.ours
        for i, value in some.shares.items():
            for factor in self.shares[i].after:
                value = value * factor
            total = total + (value * self.shares[i].weight if self.program.by_models else value)
        return total

    def outside(self, theirs: Tensor, some: Elements) -> Tensor:
        """Elements, as booleans, that the program cannot have stored; written so that what is no number is one."""
        low, high = self.bounds(some)
        wide = theirs.double()
        return ~((wide >= low) & (wide <= high))


def _norm_slack(delta: Dora) -> float:
    """How far DoRA's factor m / ||V|| may be off, relative to it, where its norm is summed in single precision.

    The k-th addition of a running sum of n like squares errs by at most 2^-24 k/n of the sum, each rounding by itself:
    the sum by 2^-24 sqrt(n) / 3 at most, as one standard deviation, and its root by half of that. Six of these are
    left, and 8 units for the division and what is multiplied. Rows lie together in memory, and are summed in 8 lanes at
    least; columns are not.
    """
    height, width = delta.shape[0], delta.columns
    terms = height if delta.by_column else width / 8
    return (8 + terms**0.5) * UNIT


def rows_of(delta: Delta, where: Sequence[slice], ours: Tensor) -> Tensor:
    """Those rows of a delta in double precision; ours: these rows of W."""
    if isinstance(delta, LowRank):
        return delta.some(torch.cat([torch.arange(s.start, s.stop) for s in where]))
    parts, done = [], 0
    for s in where:
        count = s.stop - s.start
        base = ours[done : done + count] if delta.needs_base else None
        parts.append(delta.rows(s.start, s.stop, ours.dtype, base))
        done += count
    return torch.cat(parts)
