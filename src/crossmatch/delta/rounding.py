"""Adding a delta to a weight so that the stored value is the exact sum, rounded once."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from crossmatch.delta.deltas import Delta

STORABLE = (torch.float32, torch.bfloat16, torch.float16)
# The lower half of a float32 that lies exactly between two bfloat16 values.
_MIDPOINT = 0x8000


def is_finite(block: Tensor) -> bool:
    """Whether all values are finite: by their sum, and if that is not, one by one."""
    if not block.dtype.is_floating_point or math.isfinite(float(block.sum(dtype=torch.float32))):
        return True
    return bool(torch.isfinite(block).all())


class Workspace:
    """Buffers for blocks of one size, used again from block to block: memory that stays in the cache. For one
    thread."""

    def __init__(self) -> None:
        self._kept: dict[torch.dtype, Tensor] = {}

    def buffer(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor with any content, valid until the next call with this dtype."""
        count = math.prod(shape)
        if dtype not in self._kept or self._kept[dtype].numel() < count:
            self._kept[dtype] = torch.empty(count, dtype=dtype)
        return self._kept[dtype][:count].view(*shape)


def merged_rows(
    weight: Tensor, delta: Delta, start: int, stop: int, stored: torch.dtype, space: Workspace | None = None
) -> Tensor:
    """round(W + D) for rows [start:stop]; weight: those rows of W, (stop - start, columns); delta: all of D."""
    space = space or Workspace()
    return round_once(summed_rows(weight, delta, start, stop, space), stored, space)


def summed_rows(weight: Tensor, delta: Delta, start: int, stop: int, space: Workspace | None = None) -> Tensor:
    """W + D for rows [start:stop] in float64: in float32 one element in 10^5 would end on the wrong side, and the
    order of the adapters would show. The result lies in `space`."""
    total = (space or Workspace()).buffer(weight.shape, torch.float64).copy_(weight)
    delta.add_to(total, start, stop)
    return total


def round_once(total: Tensor, stored: torch.dtype, space: Workspace | None = None) -> Tensor:
    """A float64 tensor in `stored`, to nearest, ties to even; a tensor of its own.

    torch rounds float64 to 16 bits by way of float32, that is twice. For bfloat16 the second rounding errs only where
    the first lands exactly between two bfloat16 values: one element in 2^16, found by its bits and moved one float32
    step towards the exact value. For float16, whose grid changes below 2^-14, every step to float32 is made to odd
    (Boldo & Melquiond, 2005), which loses nothing.
    """
    if stored == torch.float32:
        return total.float()
    space = space or Workspace()
    near = space.buffer(total.shape, torch.float32).copy_(total)
    if stored != torch.bfloat16:
        return _to_odd(total, near).to(stored)
    # With numpy: torch makes booleans several times slower.
    values = near.view(-1).numpy()
    halves = space.buffer((near.numel(),), torch.int32).numpy()
    np.left_shift(values.view(np.int32), 16, out=halves)
    between = np.flatnonzero(halves == -(_MIDPOINT << 16))
    if len(between):
        exact, found = total.view(-1).numpy()[between], values[between]
        beyond = np.where(exact == found, found, np.copysign(np.inf, exact - found))
        # In float32: the next number after a float64 would be the same one again.
        values[between] = np.nextafter(found, beyond.astype(np.float32))
    return near.to(stored)


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
