"""The operations of a program after its products: casts, sums and roundings, in their order."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.verification.grammar import HALVES, Program
from crossmatch.verification.shares import UNIT, Share

# Slack for sums in double precision that stand for sums in single precision or better, where 16 bits do not follow.
_WIDE = 2.0**-33


@dataclass(frozen=True)
class Operations:
    """A program's operations on one tensor; shares: by the adapter's number; stored: the file's dtype."""

    program: Program
    shares: Mapping[int, Share]
    stored: torch.dtype

    @property
    def slack(self) -> float:
        """What a sum leaves open, relative to its terms: where 16 bits follow, it is one in single precision."""
        return UNIT if self.program.grain(self.stored) in HALVES else _WIDE

    def towards(self, i: int, end: float) -> float:
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
        open_end = end * self.slack if p else 0.0
        if isinstance(program.order, tuple):
            value = ours
            for i in (*(i for i in program.order if i in values), *(i for i in values if i not in program.order)):
                value = _opened(value + values[i], open_end).to(c).to(work)
            return self.store(value)
        total = torch.zeros((), dtype=work)
        for x in values.values():
            total = _opened(total + x, end * UNIT) if p and len(values) > 1 else total + x
            total = total.to(p).to(work) if p and program.order == "each" else total
        total = total.to(p).to(work) if p and program.order == "cat" else total
        value = _opened(ours + total, open_end).to(c)
        if program.order == "stochastic":
            return _neighbour(value, self.stored, end)
        return self.store(value)

    def store(self, value: Tensor) -> Tensor:
        """The sum as it lies in the file."""
        via = self.program.via
        return (value if via is None else value.to(via)).to(self.stored)

    def _models(self, ours: Tensor, shares: Mapping[int, Tensor], end: float) -> Tensor:
        program, c = self.program, self.program.base or ours.dtype
        p = program.delta
        base = ours.to(c)
        models = []
        for i, x in shares.items():
            towards = self.towards(i, end)
            value = x if p is None else _rounded(self.shares[i], x, p, towards)
            models.append(_opened(ours + value, towards * UNIT if p else 0.0).to(c))
        wide, weighted = ours.dtype, zip(shares, models, strict=True)
        if program.order == "models-wide":
            parts = [self._weighted(i, m.to(wide) - ours, None, end) for i, m in weighted]
            return (ours + sum(parts, torch.zeros_like(ours))).to(self.stored)
        number = None if program.order == "models-scalar" else c
        parts = [self._weighted(i, m - base, number, end) for i, m in weighted]
        if program.order == "models-summed":
            mixed = sum((x.to(wide) for x in parts), torch.zeros_like(ours)).to(c)
        else:
            mixed = torch.zeros_like(base)
            for x in parts:
                mixed = mixed + x
        return (base + mixed).to(self.stored)

    def _weighted(self, i: int, difference: Tensor, number: torch.dtype | None, end: float) -> Tensor:
        """A model's difference times its weight, which has a dtype or none; in the difference's dtype."""
        own = self.shares[i]
        if not (own.off and end):
            return difference * (own.weight if number is None else torch.tensor(own.weight, dtype=number))
        value = difference.double()
        return (value * own.weight + end * own.off * value.abs()).to(difference.dtype)


def _opened(value: Tensor, end: float) -> Tensor:
    """Moved to one end of what an operation in single precision may give."""
    return value + end * value.abs() if end else value


def _rounded(own: Share, value: Tensor, p: torch.dtype, end: float) -> Tensor:
    """A delta rounded to p, and after each multiplication that follows: one in single precision, by a weight that may
    be known to its doubt. Deltas that are no product stay as they are: tools copy them."""
    if own.magnitude is None:
        return value
    work = value.dtype
    value = value.to(p).to(work)
    for place, factor in enumerate(own.after):
        turn = math.prod(math.copysign(1.0, x) for x in own.after[place + 1 :])
        value = _opened(value * factor, end * turn * (2 * UNIT + own.doubt)).to(p).to(work)
    return value


def _neighbour(value: Tensor, stored: torch.dtype, end: float) -> Tensor:
    """A number of the stored grid: the nearest, or (end -1 or 1) the one not above or not below."""
    near = value.to(stored)
    if end == 0.0:
        return near
    beyond = near.to(value.dtype) > value if end < 0 else near.to(value.dtype) < value
    other = torch.nextafter(near, torch.full_like(near, end * float("inf")))
    return torch.where(beyond, other, near)
