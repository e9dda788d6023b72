"""The operations of a program after its products: casts, sums and roundings, in their order."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.delta import Dense
from crossmatch.verification.arithmetic.grammar import HALVES, Program
from crossmatch.verification.arithmetic.shares import UNIT, Share

# To which end of what single precision may give a result is moved: 0, or -1 or 1 for the least or the greatest; both in
# one tensor, along its first axis.
End = float | Tensor
# A sum of weights is one if it is nearer than that.
_NOTHING = 1e-6
# Slack for sums in double precision that stand for sums in single precision or better, where 16 bits do not follow.
_WIDE = 2.0**-33


@dataclass(frozen=True)
class Operations:
    """A program's operations on one tensor; shares: by the adapter's number; stored: the file's dtype; weights: of all
    adapters, those that have no delta here, too."""

    program: Program
    shares: Mapping[int, Share]
    stored: torch.dtype
    weights: Sequence[float] = ()

    @property
    def slack(self) -> float:
        """What a sum leaves open, relative to its terms: where 16 bits follow, it is one in single precision."""
        return UNIT if self.program.grains(self.stored)[0] in HALVES else _WIDE

    def towards(self, i: int, end: End) -> End:
        """The end to which a share moves where the result moves to `end`."""
        return -end if self.program.by_models and self.shares[i].weight < 0 else end

    @property
    def whole(self) -> float:
        """How much of the base is in the sum: a mean whose weights are rounded has a little more or less than all."""
        if not self.program.is_mean:
            return 1.0
        scales = torch.tensor(list(self._terms().values()), dtype=self._number(self.program.base or self.stored))
        return float(scales.double().sum() / scales.sum().double())

    def _number(self, base: torch.dtype) -> torch.dtype:
        """In which a mean is taken."""
        return torch.float32 if self.program.order == "mean-wide" else base

    def _terms(self) -> dict[int, float]:
        """Weights of the models of a mean, the base's own with number -1."""
        rest = 1.0 - sum(self.weights)
        terms = {i: w for i, w in enumerate(self.weights) if w} | ({-1: rest} if abs(rest) > _NOTHING else {})
        order = [i for i in self.program.terms if i in terms]
        return {i: terms[i] for i in dict.fromkeys((*order, *terms))}

    def compose(self, ours: Tensor, shares: Mapping[int, Tensor], end: End = 0.0) -> Tensor:
        """The program's operations after the products; ours: W_c, shares: S_i, in one working precision."""
        program, work = self.program, ours.dtype
        c = program.base or work
        if program.by_models:
            return self._models(ours, shares, end)
        p = program.delta
        together = program.order == "cat" or program.is_grouped
        values = {i: x if together else self._delta(i, x, end) for i, x in shares.items()}
        # Where nothing is rounded before the sums, what they leave open is in the shares' reach.
        open_end = end * self.slack if p else 0.0
        if isinstance(program.order, tuple):
            return self.store(self._in_turn(ours, values, end))
        total = torch.zeros((), dtype=work)
        for x in values.values():
            total = _sum(total, x, end * UNIT if p else 0.0)
            total = total.to(p).to(work) if p and program.order == "each" else total
        total = total.to(p).to(work) if p and program.order == "cat" else total
        value = _sum(ours, total, open_end)
        if p and program.order == "sum" and len(values) > 1 and program.base not in HALVES and is_open(end):
            value = value + open_end * _before_last(ours, list(values.values()))
        value = value.to(c)
        if program.order == "stochastic":
            return _neighbour(value, self.stored, end)
        return self.store(value)

    def _delta(self, i: int, value: Tensor, end: End) -> Tensor:
        """A share, rounded where its own merge does so."""
        p = self.program.of(i).delta
        return value if p is None else _rounded(self.shares[i], value, p, end)

    def _in_turn(self, ours: Tensor, values: Mapping[int, Tensor], end: End) -> Tensor:
        """One merge after the other, in the program's order."""
        program, work = self.program, ours.dtype
        assert isinstance(program.order, tuple)
        value = ours
        # A file between two merges lies in the dtype of the first, or in the stored one, unless it was converted.
        between = program.between or program.base or (torch.float32 if program.last else self.stored)
        steps = [(step,) if isinstance(step, int) else step for step in program.order]
        steps += [(i,) for i in values if not any(i in step for step in steps)]
        for number, step in enumerate(steps, 1):
            here = [values[i] for i in step if i in values]
            own = program.last_of(step[0])
            if own and own.base:
                value = value.to(own.base).to(work)
            if not here:
                continue
            total, p = sum(here[1:], here[0]), program.of(step[0]).delta
            if len(step) > 1 and p:
                total = (_opened(total, end * UNIT) if len(here) > 1 else total).to(p).to(work)
            value = _sum(value, total, end * self.slack if p else 0.0)
            c = own.base if own else program.base if program.between and number == len(steps) else between
            value = value if c is None else value.to(c).to(work)
        return value

    def store(self, value: Tensor) -> Tensor:
        """The sum as it lies in the file."""
        via = self.program.via
        return (value if via is None else value.to(via)).to(self.stored)

    def _models(self, ours: Tensor, shares: Mapping[int, Tensor], end: End) -> Tensor:
        program, c = self.program, self.program.base or ours.dtype
        p = program.delta
        base, wide, own = ours.to(c), ours.dtype, program.model
        under = ours.to(own.dtype).to(wide) if own and own.cast else ours
        models = {}
        for i, x in shares.items():
            towards = self.towards(i, end)
            value = x if p is None else _rounded(self.shares[i], x, p, towards)
            models[i] = _sum(under, value, towards * UNIT if p else 0.0).to(own.dtype if own else c)
        if own:
            # What an adapter does not touch went through the model's dtype, too.
            models |= {i: base.to(own.dtype) for i, w in enumerate(self.weights) if w and i not in models}
        if program.is_mean:
            return self._mean(base, models, end, wide).to(self.stored)
        weighted = models.items()
        if program.order == "models-wide":
            parts = [self._weighted(i, m.to(wide) - ours, None, end) for i, m in weighted]
            # In single precision a difference, a product and a sum err by their own size, whatever cancels later.
            size = sum((part.abs() for part in parts), torch.zeros_like(ours))
            total = _sum(ours, sum(parts, torch.zeros_like(ours)), end * UNIT)
            return (total + end * 3 * UNIT * size).to(self.stored)
        number = None if program.order == "models-scalar" else c
        parts = [self._weighted(i, m - base, number, end) for i, m in weighted]
        if program.order == "models-summed":
            mixed = sum((x.to(wide) for x in parts), torch.zeros_like(ours)).to(c)
        else:
            mixed = torch.zeros_like(base)
            for x in parts:
                mixed = mixed + x
        return (base + mixed).to(self.stored)

    def _mean(self, base: Tensor, models: Mapping[int, Tensor], end: End, wide: torch.dtype) -> Tensor:
        """The models, and the base where an adapter has nothing or the weights leave something to one, weighted and
        summed: in their own dtype, whose sums are rounded once, or in single precision."""
        number, weights = self._number(base.dtype), self._terms()
        scales = torch.tensor(list(weights.values()), dtype=number)
        single = torch.zeros_like(base, dtype=torch.float32)
        changed, total = torch.zeros_like(base, dtype=torch.bool), torch.zeros_like(base, dtype=wide)
        size = torch.zeros_like(total)
        for i, scale in zip(weights, scales, strict=True):
            model = models.get(i, base)
            product = model.to(number) * scale
            off = self.shares[i].off * end if i in self.shares else 0.0
            single, total = single + product, total + product.to(wide) + off * model.to(wide).abs()
            size = size + product.to(wide).abs()
            changed = changed | (model != base)
        # Sums err by the size of their terms, which may cancel. Where all models are the base, nothing is open.
        opened = total + end * len(weights) * UNIT * size
        total = torch.where(changed, opened, single.to(wide)) if is_open(end) else single
        return total.to(number) / scales.sum()

    def _weighted(self, i: int, difference: Tensor, number: torch.dtype | None, end: End) -> Tensor:
        """A model's difference times its weight, which has a dtype or none; in the difference's dtype."""
        weight, off = self.weights[i], self.shares[i].off if i in self.shares else 0.0
        if not (off and is_open(end)):
            return difference * (weight if number is None else torch.tensor(weight, dtype=number))
        value = difference.double()
        return (value * weight + end * off * value.abs()).to(difference.dtype)


def is_open(end: End) -> bool:
    """Whether it is an end at all."""
    return isinstance(end, Tensor) or end != 0.0


def _opened(value: Tensor, end: End) -> Tensor:
    """Moved to one end of what an operation in single precision may give."""
    return value + end * value.abs() if is_open(end) else value


def _sum(value: Tensor, further: Tensor, end: End) -> Tensor:
    """A sum at one end of what single precision may give. Nothing is open where it is a number of single precision, as
    of two short ones that lie near each other, or where nothing is added: a tie would else be open that no tool has."""
    total = value + further
    if not is_open(end):
        return total
    return torch.where((further != 0) & (total.float() != total), _opened(total, end), total)


def _before_last(ours: Tensor, values: Sequence[Tensor]) -> Tensor:
    """What deltas that are added to the base one after the other leave open before the last: each sum errs by its own
    size, which may be larger than what they all come to. The first is exact where it is a number of single
    precision."""
    first = torch.stack([torch.where(total.float() != total, total.abs(), 0.0) for total in (ours + x for x in values)])
    return first.amax(0) + (len(values) - 2) * sum((x.abs() for x in values), ours.abs())


def _rounded(own: Share, value: Tensor, p: torch.dtype, end: End) -> Tensor:
    """A delta rounded to p, and after each multiplication that follows: one in single precision, by a weight that may
    be known to its doubt. Rows and layers that replace others stay as they are: tools copy them."""
    if own.magnitude is None and not isinstance(own.value, Dense):
        return value
    work = value.dtype
    value = value.to(p).to(work)
    for place, factor in enumerate(own.after):
        turn = math.prod(math.copysign(1.0, x) for x in own.after[place + 1 :])
        value = _opened(value * factor, end * turn * (2 * UNIT + own.doubt)).to(p).to(work)
    return value


def _neighbour(value: Tensor, stored: torch.dtype, end: End) -> Tensor:
    """A number of the stored grid: the nearest, or (end -1 or 1) the one not above or not below."""
    near = value.to(stored)
    if not is_open(end):
        return near
    beyond = (near.to(value.dtype) - value) * end < 0
    other = torch.nextafter(near, (end * torch.full_like(value, float("inf"))).to(stored))
    return torch.where(beyond, other, near)
