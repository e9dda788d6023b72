"""Deltas made of deltas: a stack of experts, a sum of unlike kinds, anything that is computed in blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.delta.deltas import Delta, LowRank, ReadRows, check_weights
from crossmatch.errors import RuleError

BlockFunction = Callable[[int, int, Tensor | None], Tensor]
"""(start, stop, W[start:stop] or None) -> D[start:stop]."""


@dataclass(frozen=True, eq=False)
class Stack(Delta):
    """Deltas of one shape (d_out, d_in) on top of each other: D of shape (n, d_out, d_in), as experts are stored."""

    parts: tuple[LowRank, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d_out, d_in)."""
        return (len(self.parts), *self.parts[0].shape)

    def scaled(self, weight: float) -> "Stack":
        """weight * D; the factors are shared."""
        return Stack(tuple(part.scaled(weight) for part in self.parts))

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """Rows [start:stop] of the (n d_out, d_in) matrix."""
        del base
        each = self.parts[0].height
        blocks = [
            self.parts[i].rows(max(start - i * each, 0), min(stop - i * each, each), dtype)
            for i in range(start // each, -(-stop // each))
        ]
        return torch.cat(blocks) if len(blocks) > 1 else blocks[0]


class _OfParts(Delta):
    """A delta that is computed from others on the same tensor."""

    parts: tuple[Delta, ...]

    @property
    def needs_base(self) -> bool:  # type: ignore[override]
        """Whether any part does."""
        return any(part.needs_base for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parts."""
        return self.parts[0].shape

    @property
    def columns(self) -> int:
        """Width of the parts."""
        return self.parts[0].columns


@dataclass(frozen=True, eq=False)
class Sum(_OfParts):
    """D = sum of deltas of unlike kinds on one tensor; each takes its base's rows if it needs them."""

    parts: tuple[Delta, ...]

    def scaled(self, weight: float) -> "Sum":
        """weight * D."""
        return Sum(tuple(part.scaled(weight) for part in self.parts))

    def bind(self, read: ReadRows) -> "Sum":
        """With every part bound."""
        return Sum(tuple(part.bind(read) for part in self.parts))

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop], the parts added in order."""
        return sum(
            (part.rows(start, stop, dtype, base) for part in self.parts[1:]),
            self.parts[0].rows(start, stop, dtype, base),
        )


@dataclass(frozen=True, eq=False)
class Blockwise(_OfParts):
    """D = s F, with rows of F computed by `function` when they are asked for, in float64: rules that act on elements.

    parts: the deltas that the function reads; it is given the base's rows if any of them needs them.
    """

    function: BlockFunction
    parts: tuple[Delta, ...]
    scale: float = 1.0

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """D[start:stop]."""
        return (self.function(start, stop, base) * self.scale).to(dtype)


def summands(delta: Delta) -> tuple[Delta, ...]:
    """The deltas that a sum is made of; of any other delta, itself."""
    return delta.parts if isinstance(delta, Sum) else (delta,)


def linear(deltas: Sequence[Delta], weights: Sequence[float]) -> Delta:
    """Weighted sum of deltas: D = sum_i weight_i * D_i (task arithmetic, Ilharco et al., 2212.04089).

    Exact: low-rank deltas stay factors, of rank sum_i r_i; stacks of experts stay stacks; unlike kinds are added when
    rows are asked for. All deltas have one shape.
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
        return cat(factors)
    stacks = [d for d in scaled if isinstance(d, Stack)]
    if len(stacks) == len(scaled):
        return Stack(tuple(cat(layer) for layer in zip(*(s.parts for s in stacks), strict=True)))
    if len({d.columns for d in scaled}) != 1:
        raise RuleError(f"deltas on {scaled[0].shape} are kept in matrices of different width; they cannot be summed")
    return Sum(tuple(scaled))


def cat(parts: Sequence[LowRank]) -> LowRank:
    """sum_i D_i for factors of one shape: B = [B_1 | B_2 | ...], A = [A_1; A_2; ...]. Exact, of rank sum_i r_i."""
    dtype = parts[0].b.dtype
    for part in parts:
        dtype = torch.promote_types(torch.promote_types(dtype, part.b.dtype), part.a.dtype)
    return LowRank(
        torch.cat([p.b.to(dtype) for p in parts], dim=1),
        torch.cat([p.a.to(dtype) for p in parts], dim=0),
        torch.cat([p.scale for p in parts]),
        parts[0].dims,
    )
