"""One tensor's change: what every delta can do, the two simplest kinds, and the exact sum."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from crossmatch.errors import RuleError

ReadRows = Callable[[int, int], Tensor]
"""Rows [start:stop] of the base's tensor W, as a matrix of the delta's width."""


class Delta(ABC):
    """A change D of one tensor W, evaluated in blocks of rows.

    shape: the tensor's. Rows are those of a matrix with `columns` columns that holds the tensor's elements in order:
    the last axis for most, everything but the first for convolutions.
    """

    # Whether D depends on W itself (a replacement, DoRA): then `rows` must be given W's rows.
    needs_base = False

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""

    @abstractmethod
    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop] as a (stop - start, columns) matrix, computed in `dtype`.

        base: W[start:stop] in `dtype`, for a delta that needs it.
        """

    def scaled(self, weight: float) -> Self:
        """weight * D; what D is made of is shared, nothing is rounded. Here for a dataclass with a `scale`."""
        own: Any = self
        return replace(own, scale=own.scale * weight)

    @property
    def columns(self) -> int:
        """Width of the matrix in which rows are counted."""
        return self.shape[-1] if self.shape else 1

    @property
    def height(self) -> int:
        """Number of rows."""
        return math.prod(self.shape) // max(1, self.columns)

    def bind(self, read: ReadRows) -> "Delta":
        """This delta with what it must know of the whole of W, read once; most need nothing."""
        del read
        return self

    def add_to(self, total: Tensor, start: int, stop: int) -> None:
        """total += D[start:stop] in place; total holds W[start:stop], in the dtype of the sum."""
        total += self.rows(start, stop, total.dtype, total if self.needs_base else None)


@dataclass(frozen=True, eq=False)
class LowRank(Delta):
    """D = B diag(s) A, kept as factors.

    b: (d_out, r), a: (r, d_in), any floating dtype; scale: (r,) float64. Weights and adapter scalings live in
    `scale`, so that scaling a delta rounds nothing. dims: the tensor's shape where it is not (d_out, d_in), as for a
    convolution (d_out, channels, *kernel).
    """

    b: Tensor
    a: Tensor
    scale: Tensor
    dims: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.b.ndim != 2 or self.a.ndim != 2 or self.b.shape[1] != self.a.shape[0]:
            raise RuleError(f"low-rank factors do not fit: B {tuple(self.b.shape)}, A {tuple(self.a.shape)}")
        if self.scale.shape != (self.a.shape[0],) or self.scale.dtype != torch.float64:
            raise RuleError(f"a scale of {self.a.shape[0]} float64 numbers is needed, not {tuple(self.scale.shape)}")
        if self.dims is not None and math.prod(self.dims) != self.b.shape[0] * self.a.shape[1]:
            raise RuleError(f"factors of {self.b.shape[0]} x {self.a.shape[1]} do not fill a tensor of {self.dims}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(d_out, d_in), or `dims`."""
        return self.dims or (self.b.shape[0], self.a.shape[1])

    @property
    def columns(self) -> int:
        """d_in."""
        return self.a.shape[1]

    @property
    def rank(self) -> int:
        """Number of factor columns: an upper bound of the rank of D."""
        return self.a.shape[0]

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop] as a (stop - start, d_in) matrix, computed in `dtype`."""
        del base
        left, right = self._double if dtype == torch.float64 else self._single
        return left[start:stop].to(dtype) @ right.to(dtype)

    def some(self, rows: Tensor) -> Tensor:
        """D[rows], of any rows (n,) int64: (n, d_in) float64."""
        left, right = self._double
        return left[rows] @ right

    def add_to(self, total: Tensor, start: int, stop: int) -> None:
        """total += D[start:stop], the product accumulated into the sum."""
        left, right = self._double if total.dtype == torch.float64 else self._single
        total.addmm_(left[start:stop], right)

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """D at some elements (rows[i], columns[i]), each (n,) int64; (n,) float64."""
        left, right = self._double
        return (left[rows] * right.T[columns]).sum(1)

    @cached_property
    def _double(self) -> tuple[Tensor, Tensor]:
        return self.b.double() * self.scale, self.a.double()

    @cached_property
    def _single(self) -> tuple[Tensor, Tensor]:
        return (self.b.double() * self.scale).float(), self.a.float()


@dataclass(frozen=True, eq=False)
class Dense(Delta):
    """D = s T for a whole tensor T of any shape and floating dtype."""

    tensor: Tensor
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of T."""
        return tuple(self.tensor.shape)

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop], computed in `dtype`."""
        del base
        return self.tensor.reshape(self.height, self.columns)[start:stop].to(dtype) * self.scale


def low_rank(b: Tensor, a: Tensor, scaling: float = 1.0) -> LowRank:
    """D = scaling * B A, with b: (d_out, r) and a: (r, d_in)."""
    return LowRank(b, a, torch.full((a.shape[0],), scaling, dtype=torch.float64))


def check_weights(weights: Sequence[float]) -> None:
    """Raise RuleError at the first weight that is not a finite number."""
    for weight in weights:
        if not math.isfinite(weight):
            raise RuleError(f"a merge weight must be a finite number, not {weight}")


def dense(delta: Delta, dtype: torch.dtype = torch.float64) -> Tensor:
    """The whole of D in `dtype`, in the tensor's shape. For small tensors and tests: streaming code takes `rows`."""
    return delta.rows(0, delta.height, dtype).reshape(delta.shape)
