"""Deltas that depend on the weights they change: saved modules, single tokens, DoRA."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossmatch.delta.deltas import Delta, LowRank, ReadRows
from crossmatch.errors import RuleError

_BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Replacement(Delta):
    """D = s (T - W): the tensor T was trained and saved whole (PEFT's modules_to_save); s = 1 puts it in W's place."""

    tensor: Tensor
    scale: float = 1.0
    needs_base = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of T."""
        return tuple(self.tensor.shape)

    def add_to(self, total: Tensor, start: int, stop: int) -> None:
        """total += D[start:stop]; at s = 1 that is T, to the bit."""
        if self.scale == 1.0:
            total.copy_(self.tensor.reshape(self.height, self.columns)[start:stop])
        else:
            super().add_to(total, start, stop)

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """s (T - W)[start:stop]."""
        theirs = self.tensor.reshape(self.height, self.columns)[start:stop].to(dtype)
        return (theirs - _needed(base)) * self.scale


@dataclass(frozen=True, eq=False)
class TokenRows(Delta):
    """D = s (V - W) in some rows of an embedding, 0 elsewhere (PEFT's trainable tokens).

    indices: (n,) int64, distinct; values: (n, d); dims: (vocabulary, d).
    """

    indices: Tensor
    values: Tensor
    dims: tuple[int, ...]
    scale: float = 1.0
    needs_base = True

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.indices), self.dims[1]) or len(self.dims) != 2:
            raise RuleError(f"{len(self.indices)} rows of {self.dims} cannot be {tuple(self.values.shape)}")
        if len(self.indices.unique()) != len(self.indices):
            raise RuleError("a token is given twice")

    @property
    def shape(self) -> tuple[int, ...]:
        """(vocabulary, d)."""
        return self.dims

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop]."""
        weight = _needed(base)
        result = torch.zeros(stop - start, self.columns, dtype=dtype)
        inside = (self.indices >= start) & (self.indices < stop)
        where = self.indices[inside] - start
        result[where] = (self.values[inside].to(dtype) - weight[where]) * self.scale
        return result


@dataclass(frozen=True, eq=False)
class Dora(Delta):
    """D = s (m V / ||V|| - W) with V = W + B A: weight-decomposed adaptation (DoRA, Liu et al., 2402.09353).

    low: the low-rank part; magnitude: (n,), one per row of V, or per column with `by_column` (transposed weights,
    embeddings). ||V|| is the norm of that row or column, formed in double precision. Scaled, it is a multiple of the
    whole change at weight one, norms as they are there: DoRA of weight w is not defined otherwise.
    """

    low: LowRank
    magnitude: Tensor
    by_column: bool = False
    scale: float = 1.0
    norms: Tensor | None = None
    needs_base = True

    def __post_init__(self) -> None:
        expected = self.low.columns if self.by_column else self.low.b.shape[0]
        if self.magnitude.numel() != expected:
            raise RuleError(f"{expected} magnitudes are needed, there are {self.magnitude.numel()}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.low.shape

    @property
    def columns(self) -> int:
        """Width of the low-rank part."""
        return self.low.columns

    def bind(self, read: ReadRows) -> "Dora":
        """With the norms of V's columns, for which all rows must be seen."""
        if not self.by_column or self.norms is not None:
            return self
        total = torch.zeros(self.columns, dtype=torch.float64)
        for start in range(0, self.height, _BLOCK_ROWS):
            stop = min(self.height, start + _BLOCK_ROWS)
            total += (read(start, stop).double() + self.low.rows(start, stop, torch.float64)).square().sum(0)
        return replace(self, norms=total.sqrt())

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop]."""
        weight = _needed(base)
        value = weight.double() + self.low.rows(start, stop, torch.float64)
        magnitude = self.magnitude.double().flatten()
        if self.by_column:
            if self.norms is None:
                raise RuleError("the norms of this delta's columns are not known; bind it to its base first")
            factor = (magnitude / self.norms)[None, :]
        else:
            factor = magnitude[start:stop, None] / torch.linalg.vector_norm(value, dim=1, keepdim=True)
        return ((factor * value - weight) * self.scale).to(dtype)


def _needed(base: Tensor | None) -> Tensor:
    if base is None:
        raise RuleError("this delta is relative to its base, which is needed here (a saved module, tokens or DoRA)")
    return base
