"""Adding a delta to a weight so that the stored value is the exact sum, rounded once."""

import torch
from torch import Tensor

from crossmatch.delta.deltas import Delta

STORABLE = (torch.float32, torch.bfloat16, torch.float16)


def add_rounded(weight: Tensor, delta: Tensor, stored: torch.dtype) -> Tensor:
    """round(W + D) in `stored`, rounded once to nearest, ties to even.

    weight: any floating dtype; delta: same shape, float64. The sum is formed in float64: in float32 one element in 10^5
    would end on the wrong side, and the order of the adapters would show. torch rounds float64 to 16 bits by way of
    float32, that is twice, so the step to float32 is made to odd (Boldo & Melquiond, 2005), which loses nothing.
    """
    total = weight.double() + delta
    return total.to(stored) if stored == torch.float32 else _to_odd(total).to(stored)


def merged_rows(weight: Tensor, delta: Delta, start: int, stop: int, stored: torch.dtype) -> Tensor:
    """round(W + D) for rows [start:stop]; weight: those rows of W, delta: all of D."""
    return add_rounded(weight, delta.rows(start, stop, torch.float64), stored)


def _to_odd(total: Tensor) -> Tensor:
    """float64 to float32 such that an inexact result has an odd last bit."""
    near = total.float()
    error = total - near.double()
    bits = near.view(torch.int32)
    inexact_even = (error != 0) & ((bits & 1) == 0) & torch.isfinite(near)
    # In sign-magnitude bits +1 is away from zero: right when the error has the sign of the value.
    step = torch.where((error > 0) != torch.signbit(near), 1, -1).to(torch.int32)
    return torch.where(inexact_even, bits + step, bits).view(torch.float32)
