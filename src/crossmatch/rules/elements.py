"""What the rules that act on elements share: rows on a fixed grid, exact top shares, results formed in blocks."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from crossmatch.delta import Blockwise, Delta
from crossmatch.errors import RuleError
from crossmatch.rules.context import Site

# Elements of a block of rows: 2 MB in float64. Part of what the rules compute: a row's last bit may hang on it.
GRID_ELEMENTS = 1 << 18
_HALF = 16
_COARSE = 1 << 15  # magnitudes: the sign bit is clear
_FINE = 1 << 16

Magnitude = Callable[[int, int], Tensor]
"""(start, stop) -> what entries of those rows are ranked by: float32, none negative."""


def values(delta: Delta, start: int, stop: int, base: Tensor | None) -> Tensor:
    """D[start:stop] in float64, with the same bits whichever rows are asked for together.

    A product of matrices can differ in its last bit with its height, and that bit could decide on which side of a
    threshold an entry lies: so the rows are computed in blocks that depend on the number of columns alone. Deltas that
    need their base are element by element what they are and need no grid.
    """
    if delta.needs_base or start >= stop:
        return delta.rows(start, stop, torch.float64, base)
    first = start - start % _step(delta)
    blocks = [delta.rows(at, end, torch.float64) for at, end in grid(delta, first, stop)]
    return (torch.cat(blocks) if len(blocks) > 1 else blocks[0])[start - first : stop - first]


def grid(delta: Delta, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
    """The blocks of rows (start, end) of a delta from row `first`, which begins one, until `stop` is covered."""
    for at in range(first, delta.height if stop is None else stop, _step(delta)):
        yield at, min(at + _step(delta), delta.height)


def _step(delta: Delta) -> int:
    return max(1, GRID_ELEMENTS // max(1, delta.columns))


def magnitude(delta: Delta) -> Magnitude:
    """|D| in float32."""
    return lambda start, stop: values(delta, start, stop, None).float().abs()


def elementwise(
    deltas: Sequence[Delta], site: Site, function: Callable[[int, int, Tensor | None], Tensor]
) -> Blockwise:
    """The delta whose rows `function` forms. Raises RuleError if the deltas' rows are of different width."""
    if len({d.columns for d in deltas}) != 1:
        raise RuleError(f"{site.tensor}: the deltas are kept in matrices of different width; use linear there")
    return Blockwise(function, tuple(deltas))


def check_rankable(deltas: Sequence[Delta], site: Site) -> None:
    """Raise RuleError if entries cannot be ranked before the base is read."""
    for delta, name in zip(deltas, site.names, strict=True):
        if delta.needs_base:
            raise RuleError(
                f"{site.tensor}: {name} changes it relative to its base (a saved module, tokens or DoRA: "
                f"{type(delta).__name__}), so that its entries cannot be ranked beforehand; use linear there"
            )


def histogram(ranked: Magnitude, delta: Delta) -> Tensor:
    """How many entries share the high half of their float32 bits, (2^15,) int64: bins 2^-7 wide, relatively."""
    bins = torch.zeros(_COARSE, dtype=torch.int64)
    for start, stop in grid(delta):
        bins += torch.bincount(_bits(ranked, start, stop) >> _HALF, minlength=_COARSE)
    return bins


def thresholds(ranked: Magnitude, delta: Delta, bins: Tensor, counts: Sequence[int]) -> list[float]:
    """The counts-th largest magnitudes, exactly: a radix selection, `bins` being its first pass.

    For non-negative floats the order of the values is that of their bits. The second pass counts the low halves in
    the bins that hold the answers. Memory: O(2^16) for any tensor.
    """
    from_top = bins.flip(0).cumsum(0).flip(0)
    homes = [int((from_top >= count).nonzero()[-1]) for count in counts]
    fine = torch.zeros(len(counts), _FINE, dtype=torch.int64)
    for start, stop in grid(delta):
        bits = _bits(ranked, start, stop)
        for row, home in zip(fine, homes, strict=True):
            row += torch.bincount(bits[(bits >> _HALF) == home] & (_FINE - 1), minlength=_FINE)
    found = []
    for row, home, count in zip(fine, homes, counts, strict=True):
        missing = count - int(from_top[home]) + int(bins[home])
        low = int((row.flip(0).cumsum(0).flip(0) >= missing).nonzero()[-1])
        found.append(torch.tensor([(home << _HALF) | low], dtype=torch.int32).view(torch.float32).item())
    return found


def top_threshold(delta: Delta, density: float) -> float:
    """The magnitude from which on an entry of D belongs to the largest `density` share; ties with it belong too."""
    ranked = magnitude(delta)
    return thresholds(ranked, delta, histogram(ranked, delta), [kept(delta, density)])[0]


def kept(delta: Delta, density: float) -> int:
    """Number of entries in a share of D: rounded down, as PEFT does, but at least one."""
    return max(1, int(density * math.prod(delta.shape)))


def positions(ranked: Tensor, bins: Tensor) -> Tensor:
    """Share of all entries that lie below each of these, from the histogram; inside a bin by the low half of bits."""
    below = bins.cumsum(0) - bins
    bits = ranked.contiguous().view(torch.int32)
    home = bits >> _HALF
    inside = (bits & (_FINE - 1)).double() / _FINE
    return (below[home] + inside * bins[home]) / bins.sum()


def _bits(ranked: Magnitude, start: int, stop: int) -> Tensor:
    return ranked(start, stop).contiguous().view(torch.int32).flatten()
