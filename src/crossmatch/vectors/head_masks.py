"""A delta times weights that differ inside of it: heads as rows or columns."""

from functools import partial

import torch
from torch import Tensor

from crossmatch.delta import Blockwise, Delta, LowRank
from crossmatch.errors import RuleError
from crossmatch.rules import Heads, Weight, Weights


def weighted(name: str, delta: Delta, weight: Weight, heads: Heads | None) -> Delta:
    """The delta of one tensor times its weight; factors stay factors.

    Where heads are masked (their weights are zero and one other number) nothing is rounded; other weights are
    multiplied into one factor in float64. Raises RuleError if the heads do not fill the tensor.
    """
    if not isinstance(weight, Weights):
        return delta.scaled(weight)
    value, axis = weight.inside(name, heads)
    if not isinstance(value, Tensor):
        return delta.scaled(value)
    shape = delta.shape
    if len(shape) not in (1, 2) or shape[min(axis, len(shape) - 1)] != len(value):
        raise RuleError(f"{name} has shape {list(shape)}, its heads fill {len(value)} of axis {axis}; select it whole")
    if len(shape) == 1:
        # A bias is one row here.
        axis = 1
    numbers = value[value != 0].unique()
    unit = float(numbers[0]) if len(numbers) == 1 else 1.0
    return _times(delta, value / unit if len(numbers) == 1 else value, axis).scaled(unit)


def _times(delta: Delta, value: Tensor, axis: int) -> Delta:
    if isinstance(delta, LowRank) and delta.dims is None:
        factor = delta.a if axis else delta.b
        masks = bool(((value == 0) | (value == 1)).all())
        across = value[None, :] if axis else value[:, None]
        done = factor * across.to(factor.dtype) if masks else factor.double() * across
        return LowRank(delta.b, done, delta.scale) if axis else LowRank(done, delta.a, delta.scale)
    return Blockwise(partial(_block, delta, value, axis), (delta,))


def _block(delta: Delta, value: Tensor, axis: int, start: int, stop: int, base: Tensor | None) -> Tensor:
    rows = delta.rows(start, stop, torch.float64, base)
    return rows * (value[None, :] if axis else value[start:stop, None])
