"""How small a further delta would still be seen in a tensor that a program explains.

A delta that nobody claimed is seen as soon as it carries one element out of the interval of what the program can have
stored. On its way there lies, to either side, the distance from the claimed sum to the end of its rounding cell, and
beyond it what the order of additions leaves open; q is both together. A further delta of d there carries it out with

    P(d > q) = erfc(q / (t s sqrt 2)) / 2                  d ~ N(0, (t s)^2)

where s is the root mean square of the claimed sum in that row and t the further delta's size in that of the claimed
one. Summed over all elements and both sides this is the number k(t) that is expected outside; none is seen with
exp(-k). The figure stated is the t at which k = 2 ln 100: ln 100 gives 99%, and what is rounded on its way, factors and
deltas, gets through in lumps, at worst as if it were half as much. `benchmarks/hidden.py` measures it.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Bins of log2(q / s), in which the sides are counted, four to an octave; the clamped ends hold what never matters.
_LOWEST, _HIGHEST, _FINE = -44, 16, 4
_BINS = (_HIGHEST - _LOWEST) * _FINE + 1
# Elements outside that are expected where one is seen with 99%, twice over.
_WANTED = 2 * math.log(100.0)
_SMALLEST, _LARGEST = -50.0, 14.0


@dataclass
class Hiding:
    """Sides of elements by the bin of q / s, over some rows: (bins,), float64."""

    sides: Tensor = field(default_factory=lambda: torch.zeros(_BINS, dtype=torch.float64))

    def add(self, exact: Tensor, stored: Tensor, step: Tensor, reach: Tensor, claimed: Tensor) -> None:
        """Some rows: the exact sums, what the program stores, its step there, how far an element reaches, and the
        claimed sum; (rows, columns), float64. Rows where nothing is claimed have no size to compare with."""
        size = claimed.square().mean(dim=1, keepdim=True).sqrt().expand_as(claimed)
        known = (size > 0) & torch.isfinite(exact)
        off = (exact - stored) / step
        for side in (0.5 - off, 0.5 + off):
            # Beyond the cell's end, where the delta was rounded before: as far as on this side of it.
            ratio = ((side.abs() * step + reach) / size)[known]
            bins = (torch.log2(ratio) * _FINE).ceil().clamp(_LOWEST * _FINE, _HIGHEST * _FINE) - _LOWEST * _FINE
            self.sides += torch.bincount(bins.long(), minlength=_BINS)

    def smallest(self, share: float) -> float | None:
        """The size t that is seen with 99%; share: of the tensor's elements, those that were added. None if a tensor
        has so few that not even a large one would be."""
        low, high = _SMALLEST, _LARGEST
        if self._expected(high) < _WANTED * share:
            return None
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self._expected(middle) >= _WANTED * share else (middle, high)
        return 2.0**high

    def _expected(self, size: float) -> float:
        """Elements outside, of those that were added, for a further delta of the size 2^size."""
        # A bin's upper end: q is at most that.
        q = torch.arange(_BINS, dtype=torch.float64) / _FINE + _LOWEST
        return float((self.sides * torch.erfc((q - size).exp2() / math.sqrt(2.0)) / 2).sum())
