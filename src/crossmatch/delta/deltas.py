"""One tensor's change: low-rank factors or a dense matrix, and the exact algebra over them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.errors import RuleError


@dataclass(frozen=True, eq=False)
class LowRank:
    """D = B diag(s) A, kept as factors.

    b: (d_out, r), a: (r, d_in), any floating dtype; scale: (r,) float64. Weights and adapter scalings live in
    `scale`, so that scaling a delta rounds nothing.
    """

    b: Tensor
    a: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        if self.b.ndim != 2 or self.a.ndim != 2 or self.b.shape[1] != self.a.shape[0]:
            raise RuleError(f"low-rank factors do not fit: B {tuple(self.b.shape)}, A {tuple(self.a.shape)}")
        if self.scale.shape != (self.a.shape[0],) or self.scale.dtype != torch.float64:
            raise RuleError(f"a scale of {self.a.shape[0]} float64 numbers is needed, not {tuple(self.scale.shape)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(d_out, d_in)."""
        return (self.b.shape[0], self.a.shape[1])

    @property
    def rank(self) -> int:
        """Number of factor columns: an upper bound of the rank of D."""
        return self.a.shape[0]

    def scaled(self, weight: float) -> "LowRank":
        """weight * D; the factors are shared, nothing is rounded."""
        return LowRank(self.b, self.a, self.scale * weight)

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """D[start:stop] as a (stop - start, d_in) matrix, computed in `dtype`."""
        left = self.b[start:stop].to(dtype) * self.scale.to(dtype)
        return left @ self.a.to(dtype)


@dataclass(frozen=True, eq=False)
class Dense:
    """D = s T for a whole tensor T of any shape and floating dtype."""

    tensor: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of T."""
        return tuple(self.tensor.shape)

    def scaled(self, weight: float) -> "Dense":
        """weight * D; the tensor is shared."""
        return Dense(self.tensor, self.scale * weight)

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """D[start:stop] along the first axis, computed in `dtype`."""
        return self.tensor[start:stop].to(dtype) * self.scale


Delta = LowRank | Dense


def low_rank(b: Tensor, a: Tensor, scaling: float = 1.0) -> LowRank:
    """D = scaling * B A, with b: (d_out, r) and a: (r, d_in)."""
    return LowRank(b, a, torch.full((a.shape[0],), scaling, dtype=torch.float64))


def linear(deltas: Sequence[Delta], weights: Sequence[float]) -> Delta:
    """Weighted sum of deltas: D = sum_i weight_i * D_i (task arithmetic, Ilharco et al., 2212.04089).

    Exact: low-rank deltas stay factors, of rank sum_i r_i. All deltas have one shape (d_out, d_in). A dense delta
    among them makes the sum dense, in float64.
    Raises RuleError if there is nothing to sum, or if lengths or shapes differ, or a weight is not finite.
    """
    check_weights(weights)
    if not deltas or len(deltas) != len(weights):
        raise RuleError(f"a sum needs one weight per delta: {len(deltas)} deltas, {len(weights)} weights")
    if len({d.shape for d in deltas}) != 1:
        raise RuleError(f"deltas of different shapes cannot be summed: {sorted({d.shape for d in deltas})}")
    scaled = [d.scaled(w) for d, w in zip(deltas, weights, strict=True)]
    if len(scaled) == 1:
        return scaled[0]
    factors = [d for d in scaled if isinstance(d, LowRank)]
    if len(factors) == len(scaled):
        return _stack(factors)
    return Dense(sum((dense(d) for d in scaled), torch.zeros((), dtype=torch.float64)))


def check_weights(weights: Sequence[float]) -> None:
    """Raise RuleError at the first weight that is not a finite number."""
    for weight in weights:
        if not math.isfinite(weight):
            raise RuleError(f"a merge weight must be a finite number, not {weight}")


def dense(delta: Delta, dtype: torch.dtype = torch.float64) -> Tensor:
    """The whole matrix D, in `dtype`. For small tensors and tests: streaming code takes `rows`."""
    return delta.rows(0, delta.shape[0], dtype)


def _stack(parts: Sequence[LowRank]) -> LowRank:
    dtype = parts[0].b.dtype
    for part in parts:
        dtype = torch.promote_types(torch.promote_types(dtype, part.b.dtype), part.a.dtype)
    return LowRank(
        torch.cat([p.b.to(dtype) for p in parts], dim=1),
        torch.cat([p.a.to(dtype) for p in parts], dim=0),
        torch.cat([p.scale for p in parts]),
    )
