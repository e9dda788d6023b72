"""A program of the grammar run on one tensor: what it stores, and the least and the greatest that it may store."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from crossmatch.delta import Delta, Dora, LowRank, Stack, Workspace, linear
from crossmatch.verification.grammar import HALVES, Program

_UNIT = 2.0**-24
# Operations on a product beside its r additions: two scalings of a factor, of the product, and a sum.
_FURTHER = 6
# Of an SVD in single precision between the factors and their sum, relative to |B| |A|: 2^-18 was seen.
_LONG = 2.0**-17
# Deltas that are no product: relative to |D| and the mean size of its row, by what is stored; DoRA: relative to W.
_PLAIN = {torch.float32: 2.0**-20, torch.bfloat16: 2.0**-17, torch.float16: 2.0**-17}
_SCALED = 2.0**-22
# Slack for sums in double precision that stand for sums in single precision or better.
_SUMS = {True: _UNIT, False: 2.0**-33}


@dataclass(frozen=True)
class Share:
    """One adapter's part of the sum in a program, before the delta is rounded.

    value: the exact product of what is multiplied; after: numbers that multiply it once it was rounded; magnitude:
    |B| |A| in the same units (None: |value|); spread: how far factors may lie off, since a weight is not known exactly;
    slack: of the magnitude; doubt: of |value|, for that weight; weight: the adapter's, for programs by models.
    """

    value: Delta
    after: tuple[float, ...] = ()
    magnitude: Delta | None = None
    spread: Delta | None = None
    slack: float = 0.0
    doubt: float = 0.0
    weight: float = 1.0


def share(program: Program, delta: Delta, weight: float, doubt: float = 0.0, *, stored: torch.dtype) -> Share:
    """One adapter's share; doubt: how far its weight may be off."""
    relative = doubt / abs(weight) if weight else 0.0
    unit = program.by_models
    if isinstance(delta, Stack):
        each = [share(program, part, weight, doubt, stored=stored) for part in delta.parts]
        spreads = [s.spread for s in each]
        return replace(
            each[0],
            value=Stack(tuple(s.value for s in each)),  # type: ignore[arg-type]
            magnitude=Stack(tuple(s.magnitude for s in each)),  # type: ignore[arg-type]
            spread=Stack(tuple(spreads)) if all(s is not None for s in spreads) else None,  # type: ignore[arg-type]
            slack=max(s.slack for s in each),
        )
    if not isinstance(delta, LowRank):
        return Share(delta if unit else delta.scaled(weight), slack=_PLAIN[stored], doubt=relative, weight=weight)
    value, after = _factors(program, delta, 1.0 if unit else weight)
    sixteen = stored in HALVES or program.base in HALVES
    slack = (delta.rank + _FURTHER) * _UNIT
    if program.factors is None and (program.long or sixteen):
        slack = max(slack, _LONG)
    spread = None
    if doubt and program.factors and program.place != "product" and not unit:
        spread = _spread(program, delta, value, weight, doubt)
    return Share(value, after, absolute(value), spread, slack, 0.0 if unit else relative, weight)


def _factors(program: Program, delta: LowRank, weight: float) -> tuple[LowRank, tuple[float, ...]]:
    """The factors as a program multiplies them, and what is multiplied after the product was rounded."""
    f, scale = program.factors, delta.scale
    if program.place == "product":
        b, a = (delta.b, delta.a) if f is None else (delta.b.to(f), delta.a.to(f))
        alone = float(scale[0]) if len(scale) else 1.0
        even = bool((scale == alone).all())
        if program.chain == "weight":
            return replace(delta, b=b, a=a), (weight,)
        if program.chain in ("scaling", "both") and even:
            after = (alone * weight,) if program.chain == "scaling" else (alone, weight)
            return replace(delta, b=b, a=a, scale=torch.ones_like(scale)), after
        return replace(delta, b=b, a=a, scale=scale * weight), ()
    assert f is not None
    one = torch.ones_like(scale)
    if program.place == "roots":
        root = (scale * weight).abs().sqrt()
        b, a = _multiplied(delta.b, [root[None, :]], program), _multiplied(delta.a, [root[:, None]], program)
        return replace(delta, b=b, a=a, scale=one * (scale * weight).sign()), ()
    even = torch.full_like(scale, weight)
    if program.place == "a":
        a = _multiplied(delta.a, [even[:, None], scale[:, None]], program)
        return replace(delta, b=delta.b.to(f), a=a, scale=one), ()
    b = _multiplied(delta.b, [even[None, :], scale[None, :]], program)
    return replace(delta, b=b, a=delta.a.to(f), scale=one), ()


def _multiplied(factor: Tensor, by: Sequence[Tensor], program: Program) -> Tensor:
    """A factor times some numbers, as the program has it."""
    f = program.factors
    assert f is not None
    value = factor.float() if program.multiplied == "wide" else factor.to(f).float()
    if program.multiplied != "twice":
        by = [math.prod(by[1:], start=by[0])]
    for number in by:
        value = (value * number.float()).to(f).float()
    return value.to(f)


def _spread(program: Program, delta: LowRank, value: LowRank, weight: float, doubt: float) -> LowRank:
    """By how much the product may be off since its rounded factors depend on a weight that is known to `doubt`."""
    ends = [_factors(program, delta, weight + sign * doubt)[0] for sign in (-1, 1)]
    off_a = torch.stack([(e.a.double() - value.a.double()).abs() for e in ends]).amax(0)
    off_b = torch.stack([(e.b.double() - value.b.double()).abs() for e in ends]).amax(0)
    b, a = value.b.double().abs(), value.a.double().abs()
    scale = torch.ones(2 * value.rank, dtype=torch.float64)
    return LowRank(torch.cat([off_b, b + off_b], 1), torch.cat([a, off_a], 0), scale, value.dims)


def absolute(delta: LowRank) -> LowRank:
    """|B| |A|: the sum of the absolute products, which does not vanish where they cancel."""
    return LowRank(delta.b.abs(), delta.a.abs(), delta.scale.abs(), delta.dims)


@dataclass(frozen=True)
class Elements:
    """Some elements of one tensor, all float64 and of one shape: W as it is stored, and for every adapter its share and
    how far that may be off."""

    ours: Tensor
    shares: Mapping[int, Tensor]
    reach: Mapping[int, Tensor]


@dataclass(frozen=True)
class Applied:
    """A program on one tensor: what it makes of any rows, and what it may make of them.

    shares: by the adapter's number; raw: W's dtype as it is stored.
    """

    program: Program
    shares: Mapping[int, Share]
    stored: torch.dtype
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
        shares = {i: share(program, d, weights[i], doubts[i], stored=stored) for i, d in parts.items()}
        plain = program.delta is None and program.order in ("sum", "cat") and shares
        total = linear([s.value for s in shares.values()], [1.0] * len(shares)) if plain else None
        return cls(program, shares, stored, total)

    def cast(self, ours: Tensor) -> Tensor:
        """W as the program takes it: cast to c where that is narrower."""
        c = self.program.base
        return ours if c is None or c == ours.dtype or c == torch.float32 else ours.to(c)

    def predict(self, ours: Tensor, start: int, space: Workspace) -> Tensor:
        """The rows that begin at `start` as the program stores them; ours: W's, as they are stored."""
        exact = self.stored == torch.float32 and self.program.base not in HALVES
        work = torch.float64 if exact else torch.float32
        base = self.cast(ours)
        if self.total is not None:
            value = space.buffer(ours.shape, work).copy_(base)
            self.total.add_to(value, start, start + len(ours))
            value = value if self.program.base in (None, self.stored) else value.to(self.program.base)
            return value.to(self.stored)
        wide = base.to(work)
        rows = {i: s.value.rows(start, start + len(ours), work, wide) for i, s in self.shares.items()}
        return self.compose(wide, rows)

    def read(self, ours: Tensor, where: Sequence[slice]) -> Elements:
        """Whole rows; ours: W's, as they are stored."""
        wide = self.cast(ours).double()
        shares, reach = {}, {}
        for i, s in self.shares.items():
            value = rows_of(s.value, where, wide)
            if s.magnitude is not None:
                far = s.slack * rows_of(s.magnitude, where, wide)
            else:
                size = torch.linalg.vector_norm(value, dim=1, keepdim=True) / max(1, value.shape[1]) ** 0.5
                far = s.slack * (value.abs() + 3 * size)
                far = far + _SCALED * wide.abs() if isinstance(s.value, Dora) else far
            if s.spread is not None:
                far = far + rows_of(s.spread, where, wide)
            shares[i], reach[i] = value, far + s.doubt * value.abs()
        return self._elements(wide, shares, reach)

    def at(self, ours: Tensor, rows: Tensor, columns: Tensor) -> Elements | None:
        """Single elements (rows[j], columns[j]); None where a share is not a product of factors."""
        wide = self.cast(ours).double()
        shares, reach = {}, {}
        for i, s in self.shares.items():
            if not isinstance(s.value, LowRank) or not isinstance(s.magnitude, LowRank):
                return None
            shares[i] = s.value.at(rows, columns)
            reach[i] = s.slack * s.magnitude.at(rows, columns) + s.doubt * shares[i].abs()
            if isinstance(s.spread, LowRank):
                reach[i] = reach[i] + s.spread.at(rows, columns)
        return self._elements(wide, shares, reach)

    def _elements(self, wide: Tensor, shares: dict[int, Tensor], reach: dict[int, Tensor]) -> Elements:
        """With the slack of the sums."""
        formats = {self.stored, self.program.base} - {None}
        coarse = _SUMS[formats <= set(HALVES)]
        for i in reach:
            extra = len(reach) * _UNIT * shares[i].abs() if len(reach) > 1 else 0.0
            reach[i] = reach[i] + coarse * (wide.abs() + shares[i].abs()) + extra
        return Elements(wide, shares, reach)

    def centre(self, some: Elements) -> Tensor:
        """What the program stores."""
        return self.compose(some.ours, some.shares)

    def bounds(self, some: Elements) -> tuple[Tensor, Tensor]:
        """The least and the greatest value that it may store, as float64."""
        ends = []
        for sign in (-1.0, 1.0):
            moved = {}
            for i, value in some.shares.items():
                turn = math.prod(math.copysign(1.0, x) for x in self.shares[i].after)
                moved[i] = value + self._towards(i, sign) * turn * some.reach[i]
            ends.append(self.compose(some.ours, moved, end=sign).double())
        return torch.minimum(*ends), torch.maximum(*ends)

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

    def _towards(self, i: int, end: float) -> float:
        """The end to which a share moves where the result moves to `end`."""
        return -end if self.program.by_models and self.shares[i].weight < 0 else end

    def compose(self, ours: Tensor, shares: Mapping[int, Tensor], end: float = 0.0) -> Tensor:
        """The program's operations after the products; ours: W_c, shares: S_i, in one working precision; end: 0, or -1
        or 1 for the least or the greatest result that single precision may give."""
        program, work = self.program, ours.dtype
        c = program.base or work
        if program.by_models:
            return self._models(ours, shares, end)
        p = program.delta
        values = {
            i: x if p is None or program.order == "cat" else _rounded(self.shares[i], x, p, end)
            for i, x in shares.items()
        }
        # Where nothing is rounded before the sums, what they leave open is in the shares' reach.
        open_end = end * _SUMS[({self.stored, program.base} - {None}) <= set(HALVES)] if p else 0.0
        if isinstance(program.order, tuple):
            value = ours
            for i in (*(i for i in program.order if i in values), *(i for i in values if i not in program.order)):
                value = _opened(value + values[i], open_end).to(c).to(work)
            return value.to(self.stored)
        total = torch.zeros((), dtype=work)
        for x in values.values():
            total = _opened(total + x, end * _UNIT) if p and len(values) > 1 else total + x
            total = total.to(p).to(work) if p and program.order == "each" else total
        total = total.to(p).to(work) if p and program.order == "cat" else total
        value = _opened(ours + total, open_end).to(c)
        if program.order == "stochastic":
            return _neighbour(value, self.stored, end)
        return value.to(self.stored)

    def _models(self, ours: Tensor, shares: Mapping[int, Tensor], end: float) -> Tensor:
        program, c = self.program, self.program.base or ours.dtype
        p = program.delta
        base = ours.to(c)
        models = []
        for i, x in shares.items():
            towards = self._towards(i, end)
            value = x if p is None else _rounded(self.shares[i], x, p, towards)
            models.append(_opened(ours + value, towards * _UNIT if p else 0.0).to(c))
        weights = [self.shares[i].weight for i in shares]
        if program.order == "models-wide":
            wide = ours.dtype
            total = sum((w * (m.to(wide) - ours) for w, m in zip(weights, models, strict=True)), torch.zeros_like(ours))
            return (ours + total).to(self.stored)
        numbers = weights if program.order == "models-scalar" else [torch.tensor(w, dtype=c) for w in weights]
        parts = [(m - base) * number for number, m in zip(numbers, models, strict=True)]
        if program.order == "models-summed":
            mixed = sum((x.to(ours.dtype) for x in parts), torch.zeros_like(ours)).to(c)
        else:
            mixed = torch.zeros_like(base)
            for x in parts:
                mixed = mixed + x
        return (base + mixed).to(self.stored)


def _opened(value: Tensor, end: float) -> Tensor:
    """Moved to one end of what an operation in single precision may give."""
    return value + end * value.abs() if end else value


def _rounded(own: Share, value: Tensor, p: torch.dtype, end: float) -> Tensor:
    """A delta rounded to p, and after each multiplication that follows, itself one in single precision. Deltas that are
    no product stay as they are: tools copy them."""
    if own.magnitude is None:
        return value
    work = value.dtype
    value = value.to(p).to(work)
    for place, factor in enumerate(own.after):
        turn = math.prod(math.copysign(1.0, x) for x in own.after[place + 1 :])
        value = _opened(value * factor, 2 * end * turn * _UNIT).to(p).to(work)
    return value


def _neighbour(value: Tensor, stored: torch.dtype, end: float) -> Tensor:
    """A number of the stored grid: the nearest, or (end -1 or 1) the one not above or not below."""
    near = value.to(stored)
    if end == 0.0:
        return near
    beyond = near.to(value.dtype) > value if end < 0 else near.to(value.dtype) < value
    other = torch.nextafter(near, torch.full_like(near, end * float("inf")))
    return torch.where(beyond, other, near)


def rows_of(delta: Delta, where: Sequence[slice], ours: Tensor) -> Tensor:
    """Those rows of a delta in double precision; ours: these rows of W."""
    parts, done = [], 0
    for s in where:
        count = s.stop - s.start
        base = ours[done : done + count] if delta.needs_base else None
        parts.append(delta.rows(s.start, s.stop, ours.dtype, base))
        done += count
    return torch.cat(parts)
