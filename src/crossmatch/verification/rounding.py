"""Rounding steps of stored numbers, and the honest ways (routes) in which a merge may have rounded.

A route is a bound on |stored - exact|, in units of the stored element's step (ulp):

    once    1/2                 summed in float32 or better, rounded once
    twice   1/2 + ulp'/2 + 2^-8 |D|   the delta rounded first, or adapters merged one after the other;
                                      ulp' is the step at |W| + sum |D_i|, which no intermediate sum exceeds
    models  that + sum_i |w_i| (ulp_i/2 + 2^-7 |D_i|)   each adapter merged at weight one into a model of its own, and
                                      the models' differences from the base weighted and summed in the stored dtype

A replay is narrower: the very operations of a route, which must give the very bits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Explicit mantissa bits, smallest exponent of a normal number.
_FORMATS = {torch.bfloat16: (7, -126), torch.float16: (10, -14), torch.float32: (23, -126)}
_BITS = {torch.float32: (torch.int32, 0x7F800000), torch.float64: (torch.int64, 0x7FF0000000000000)}
# Slack for the arithmetic that is replayed: 1e-3 of a step for our own, 2^-20 of the delta for a float32 product. Where
# 16 bits are stored, 2^-17 costs nothing: the factors of an SVD in float32 were seen to be 2^-18 off.
_OWN_SLACK = 1e-3
_PRODUCT_SLACK = {torch.float32: 2.0**-20, torch.bfloat16: 2.0**-17, torch.float16: 2.0**-17}
# 2^-22 of W where W itself is multiplied, by a factor of single precision.
_SCALED_SLACK = 2.0**-22


def step(magnitude: Tensor, stored: torch.dtype) -> Tensor:
    """Distance between neighbours of `stored` at |x| = magnitude >= 0: 2^(floor(log2 |x|) - mantissa bits)."""
    mantissa, smallest = _FORMATS[stored]
    integer, exponent_bits = _BITS[magnitude.dtype]
    # A number with its mantissa blanked is the power of two below it.
    power = (magnitude.view(integer) & exponent_bits).view(magnitude.dtype)
    return power.clamp_min(2.0**smallest) * 2.0**-mantissa


@dataclass(frozen=True)
class Violations:
    """How many elements lie further from the exact sum than a route allows, and how many differ in any bit.

    gross: elements further away than twice the widest route: no rounding ever made these, so none is tolerated.
    replays: of the elements outside `once`, those that are not what a route's operations give, by its name.
    """

    once: int = 0
    twice: int = 0
    models: int = 0
    gross: int = 0
    bits: int = 0
    replays: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Violations") -> "Violations":
        # Where a route was not tried, nothing was outside.
        names = {**self.replays, **other.replays}
        return Violations(
            self.once + other.once,
            self.twice + other.twice,
            self.models + other.models,
            self.gross + other.gross,
            self.bits + other.bits,
            {name: self.replays.get(name, 0) + other.replays.get(name, 0) for name in names},
        )

    @property
    def unexplained(self) -> int:
        """Elements outside `once` that the best of the replays does not give, either."""
        return min(self.replays.values(), default=self.once)


def violations(
    stored: Tensor,
    ours: Tensor,
    rows: Mapping[int, Tensor],
    weights: Sequence[float],
    size: Tensor,
    *,
    scaled: bool = False,
) -> Violations:
    """Count the elements that a route cannot explain.

    stored: M as stored; ours: W in working precision; rows: the deltas D_i at weight one, by number, there; all of one
    shape. weights: by number. size: scale of the deltas' rows, which broadcasts; from it follows the slack for the
    maker's float32 product; scaled: whether a delta multiplies W itself.
    """
    shares = [weights[i] * d for i, d in rows.items()]
    exact = ours + sum(shares, torch.zeros((), dtype=ours.dtype))
    moved = sum((share.abs() for share in shares), torch.zeros((), dtype=ours.dtype))
    ulp = step(stored.to(ours.dtype).abs(), stored.dtype)
    away = (stored.to(ours.dtype) - exact).abs()
    slack = _OWN_SLACK * ulp + _PRODUCT_SLACK[stored.dtype] * (moved + 3 * size)
    once = ulp / 2 + slack
    # Written so that what is not a number lies outside.
    outside = int((~(away <= once)).sum())
    further = apart = gross = 0
    replayed: dict[str, int] = {}
    if outside:
        # One adapter after the other: one intermediate result less than there are.
        roundings = max(1, len(shares) - 1)
        twice = once + roundings * step(exact.abs() + moved, stored.dtype) / 2 + 2.0**-8 * moved
        twice = twice + _SCALED_SLACK * ours.abs() if scaled else twice
        models = twice
        for i, d in rows.items():
            models = models + abs(weights[i]) * (step(ours.abs() + d.abs(), stored.dtype) / 2 + 2.0**-7 * d.abs())
        further, apart = int((away > twice).sum()), int((away > models).sum())
        gross = int((away > 2 * models).sum())
        if not gross:
            there = away > once
            found = stored[there]
            some = {i: d[there] for i, d in rows.items()}
            replayed = {r: int((v != found).sum()) for r, v in replays(ours[there], some, weights, stored.dtype)}
    return Violations(outside, further, apart, gross, int((exact.to(stored.dtype) != stored).sum()), replayed)


def replays(
    ours: Tensor, rows: Mapping[int, Tensor], weights: Sequence[float], stored: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    """The stored values that each honest route gives, by its name: the operations of the tools that take it.

    delta-rounded: round(W + round(D)), as PEFT's safe_merge; sequential i,j: round(round(W + D_i) + D_j), one merge
    after the other; sequential-rounded: the same with every delta rounded first; weights-rounded:
    W + sum bf16(w_i) D_i; models: W + sum round(w_i) (round(W + D_i) - W), every operation in the stored dtype, as task
    arithmetic on merged models.
    """
    shares = {i: weights[i] * d for i, d in rows.items()}
    total = sum(shares.values(), torch.zeros((), dtype=ours.dtype))
    work = ours.dtype
    yield "delta-rounded", (ours + total.to(stored).to(work)).to(stored)
    orders = [list(shares), list(shares)[::-1]] if len(shares) > 1 else []
    for order in orders:
        for name, form in (("sequential", work), ("sequential-rounded", stored)):
            value = ours
            for i in order:
                value = (value + shares[i].to(form).to(work)).to(stored).to(work)
            yield f"{name} {','.join(map(str, order))}", value.to(stored)
    coarse = {i: float(torch.tensor(weights[i], dtype=torch.bfloat16)) for i in rows}
    if any(coarse[i] != weights[i] for i in rows):
        yield "weights-rounded", (ours + sum(coarse[i] * d for i, d in rows.items())).to(stored)
    base = ours.to(stored)
    mixed = torch.zeros_like(base)
    for i, d in rows.items():
        mixed = mixed + ((ours + d).to(stored) - base) * torch.tensor(weights[i], dtype=stored)
    yield "models", base + mixed
