"""Adding a delta to a weight so that the stored value is the exact sum, rounded once."""

import torch
from torch import Tensor

from crossmatch.delta.deltas import Delta

STORABLE = (torch.float32, torch.bfloat16, torch.float16)
# The lower half of a float32 that lies exactly between two bfloat16 values.
_MIDPOINT = 0x8000


def merged_rows(weight: Tensor, delta: Delta, start: int, stop: int, stored: torch.dtype) -> Tensor:
    """round(W + D) for rows [start:stop]; weight: those rows of W, (stop - start, columns); delta: all of D."""
    return round_once(summed_rows(weight, delta, start, stop), stored)


def summed_rows(weight: Tensor, delta: Delta, start: int, stop: int) -> Tensor:
    """W + D for rows [start:stop] in float64: in float32 one element in 10^5 would end on the wrong side, and the
    order of the adapters would show."""
    total = weight.to(torch.float64, copy=True)
    delta.add_to(total, start, stop)
    return total


def round_once(total: Tensor, stored: torch.dtype) -> Tensor:
    """A float64 tensor in `stored`, to nearest, ties to even.

    torch rounds float64 to 16 bits by way of float32, that is twice. For bfloat16 the second rounding errs only where
    the first lands exactly between two bfloat16 values: one element in 2^16, found by its bits and moved one float32
    step towards the exact value. For float16, whose grid changes below 2^-14, every step to float32 is made to odd
    (Boldo & Melquiond, 2005), which loses nothing.
    """
    near = total.float()
    if stored == torch.float32:
        return near
    if stored != torch.bfloat16:
        return _to_odd(total, near).to(stored)
    flat = near.view(-1)
    # The comparison is numpy's: torch's makes booleans several times slower.
    halves = flat.view(torch.int32).numpy() << 16
    (between,) = (halves == -(_MIDPOINT << 16)).nonzero()
    if len(between):
        where = torch.from_numpy(between)
        flat[where] = torch.nextafter(flat[where], _beyond(total.view(-1)[where], flat[where]))
    return near.to(stored)


def _beyond(exact: Tensor, near: Tensor) -> Tensor:
    """A float32 on the side of `near` on which `exact` lies; `near` itself where they are equal."""
    side = torch.sign(exact - near.double()).float()
    return torch.where(side == 0, near, side * float("inf"))


def _to_odd(total: Tensor, near: Tensor) -> Tensor:
    """float64 to float32 such that an inexact result has an odd last bit."""
    error = total - near.double()
    bits = near.view(torch.int32)
    inexact_even = (error != 0) & ((bits & 1) == 0) & torch.isfinite(near)
    # In sign-magnitude bits +1 is away from zero: right when the error has the sign of the value.
    step = torch.where((error > 0) != torch.signbit(near), 1, -1).to(torch.int32)
    return torch.where(inexact_even, bits + step, bits).view(torch.float32)


def round_randomly(total: Tensor, stored: torch.dtype, uniform: Tensor) -> Tensor:
    """A float64 tensor in `stored`, to one of its two neighbours with probabilities that make the mean exact.

    uniform: float64 in [0, 1), of the same shape. What is representable stays. (Stochastic rounding: Croci et al.,
    2022, doi 10.1098/rsos.211631.)
    """
    near = round_once(total, stored)
    value = near.double()
    error = total - value
    other = torch.nextafter(near, torch.where(error > 0, float("inf"), -float("inf")).to(stored))
    gap = (other.double() - value).abs()
    share = torch.where(gap > 0, error.abs() / gap, 0.0)
    # Beyond the largest finite number there is nothing to round to.
    return torch.where((uniform < share) & torch.isfinite(other), other, near)
