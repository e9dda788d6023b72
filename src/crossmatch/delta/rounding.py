"""Adding a delta to a weight so that the stored value is the exact sum, rounded once."""

import torch
from torch import Tensor

from crossmatch.delta.deltas import Delta

STORABLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def working_dtype(stored: torch.dtype) -> torch.dtype:
    """The dtype in which a delta is formed for weights stored as `stored`.

    float32 for 16-bit storage: its error is 2^-16 of a bfloat16 step of the delta itself. float64 for float32 storage,
    where a float32 product would move the last stored bit of one element in a hundred.
    """
    return torch.float64 if stored in (torch.float32, torch.float64) else torch.float32


def add_rounded(weight: Tensor, delta: Tensor, stored: torch.dtype) -> Tensor:
    """round(W + D) in `stored`, rounded once to nearest, ties to even.

    weight: any floating dtype; delta: same shape, in `working_dtype(stored)`.
    For 16-bit storage the float32 sum is first rounded to odd (Boldo & Melquiond, 2005): without it the value is
    rounded twice, float32 then bfloat16, and one element in 10^5 (one in 10^4 for float16) ends on the wrong side.
    """
    if delta.dtype == torch.float64:
        return (weight.double() + delta).to(stored)
    w = weight.float()
    total = w + delta
    # TwoSum (Knuth): the exact error of the float32 addition.
    shadow = total - w
    error = (w - (total - shadow)) + (delta - shadow)
    return _to_odd(total, error).to(stored)


def merged_rows(weight: Tensor, delta: Delta, start: int, stop: int, stored: torch.dtype) -> Tensor:
    """round(W + D) for rows [start:stop]; weight: those rows of W, delta: all of D."""
    return add_rounded(weight, delta.rows(start, stop, working_dtype(stored)), stored)


def _to_odd(total: Tensor, error: Tensor) -> Tensor:
    bits = total.view(torch.int32)
    inexact_even = (error != 0) & ((bits & 1) == 0) & torch.isfinite(total)
    # In sign-magnitude bits +1 is away from zero: right when the error has the sign of the sum.
    step = torch.where((error > 0) == (total > 0), 1, -1).to(torch.int32)
    return torch.where(inexact_even, bits + step, bits).view(torch.float32)
