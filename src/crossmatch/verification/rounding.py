"""Rounding steps of stored numbers, and the honest ways (routes) in which a merge may have rounded.

A route is a bound on |stored - exact|, in units of the stored element's step (ulp):

    once    1/2                 summed in float32 or better, rounded once
    twice   1/2 + ulp'/2 + 2^-8 |D|   the delta rounded first, or adapters merged one after the other;
                                      ulp' is the step at |W| + sum |D_i|, which no intermediate sum exceeds
"""

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

# Explicit mantissa bits, smallest exponent of a normal number.
_FORMATS = {torch.bfloat16: (7, -126), torch.float16: (10, -14), torch.float32: (23, -126)}
_BITS = {torch.float32: (torch.int32, 0x7F800000), torch.float64: (torch.int64, 0x7FF0000000000000)}
# Slack for the arithmetic that is replayed: 1e-3 of a step for our own, 2^-20 of the delta for a float32 product.
_OWN_SLACK = 1e-3
_PRODUCT_SLACK = 2.0**-20


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
    """

    once: int = 0
    twice: int = 0
    gross: int = 0
    bits: int = 0

    def __add__(self, other: "Violations") -> "Violations":
        return Violations(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def violations(stored: Tensor, exact: Tensor, moved: Tensor, size: Tensor, roundings: int = 1) -> Violations:
    """Count the elements of one block that a route cannot explain.

    stored: M as stored; exact: W + sum_i D_i in working precision; moved: sum_i |D_i|; size: scale of the deltas' rows,
    (rows, 1), from which the slack for the maker's float32 product follows; roundings: how many intermediate results
    the route `twice` may have rounded (one adapter after the other: one less than there are).
    """
    value = stored.to(exact.dtype)
    ulp = step(value.abs(), stored.dtype)
    away = (value - exact).abs()
    slack = _OWN_SLACK * ulp + _PRODUCT_SLACK * (moved + 3 * size)
    once = ulp / 2 + slack
    outside = int((away > once).sum())
    further = gross = 0
    if outside:
        twice = once + roundings * step(exact.abs() + moved, stored.dtype) / 2 + 2.0**-8 * moved
        further, gross = int((away > twice).sum()), int((away > 2 * twice).sum())
    return Violations(outside, further, gross, bits=int((exact.to(stored.dtype) != stored).sum()))
