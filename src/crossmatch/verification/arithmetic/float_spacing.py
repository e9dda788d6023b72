"""Rounding steps of stored numbers."""

import torch
from torch import Tensor

# Explicit mantissa bits, smallest exponent of a normal number.
_FORMATS = {torch.bfloat16: (7, -126), torch.float16: (10, -14), torch.float32: (23, -126)}
_BITS = {torch.float32: (torch.int32, 0x7F800000), torch.float64: (torch.int64, 0x7FF0000000000000)}


def step(magnitude: Tensor, stored: torch.dtype) -> Tensor:
    """Distance between neighbours of `stored` at |x| = magnitude >= 0: 2^(floor(log2 |x|) - mantissa bits)."""
    mantissa, smallest = _FORMATS[stored]
    integer, exponent_bits = _BITS[magnitude.dtype]
    # A number with its mantissa blanked is the power of two below it.
    power = (magnitude.view(integer) & exponent_bits).view(magnitude.dtype)
    return power.clamp_min(2.0**smallest) * 2.0**-mantissa
