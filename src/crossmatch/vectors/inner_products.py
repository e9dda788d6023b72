"""Inner products of several vectors, tensor by tensor: from factors where all are factors, else streamed in blocks."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from crossmatch.delta import Delta, LowRank, Stack, inner, norm
from crossmatch.runtime import in_order

_BLOCK = 1 << 19


def gram(deltas: Sequence[Delta | None]) -> Tensor:
    """G_ij = <D_i, D_j> of deltas on one tensor, (k, k) float64; None counts as zero.

    From factors where all are factors, else summed over blocks of rows in float64.
    """
    there = [i for i, delta in enumerate(deltas) if delta is not None]
    found = [delta for delta in deltas if delta is not None]
    result = torch.zeros(len(deltas), len(deltas), dtype=torch.float64)
    if not found:
        return result
    if all(isinstance(d, LowRank) for d in found) or all(isinstance(d, Stack) for d in found):
        for i, x in zip(there, found, strict=True):
            for j, y in zip(there, found, strict=True):
                if i < j:
                    result[i, j] = result[j, i] = inner(x, y)
            # Through singular values, in which nothing cancels.
            result[i, i] = norm(x) ** 2
        return result
    index = torch.tensor(there)
    total = torch.zeros(len(there), len(there), dtype=torch.float64)
    for part in in_order(lambda at: _of_block(found, at), ranges(found[0])):
        total += part
    result[index[:, None], index[None, :]] = total
    return result


def _of_block(deltas: Sequence[Delta], at: tuple[int, int]) -> Tensor:
    rows = torch.stack([delta.rows(*at, torch.float64).flatten() for delta in deltas])
    return rows @ rows.T


def ranges(delta: Delta, elements: int = _BLOCK) -> Iterator[tuple[int, int]]:
    """Row ranges that cover a delta in blocks of about `elements`."""
    step = max(1, elements // max(1, delta.columns))
    for start in range(0, delta.height, step):
        yield start, min(delta.height, start + step)


def cosine_of(products: Tensor, i: int, j: int) -> float | None:
    """The cosine of two vectors from their inner products, or None where one is zero."""
    size = math.sqrt(products[i, i]) * math.sqrt(products[j, j])
    return max(-1.0, min(1.0, float(products[i, j]) / size)) if size > 0 else None
