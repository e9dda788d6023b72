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
from functools import cache

import torch
from torch import Tensor

# Bins of q / s, in which the sides are counted: by the exponent and the first two digits of the mantissa of a float32,
# four to an octave. The clamped ends hold what never matters; the last is of rows that claim nothing, too.
_LOWEST, _HIGHEST, _FINE = -44, 16, 4
_BINS = (_HIGHEST - _LOWEST) * _FINE + 1
_DIGITS, _FIRST = 23 - 2, (_LOWEST + 127) * _FINE
# Elements outside that are expected where one is seen with 99%, twice over.
_WANTED = 2 * math.log(100.0)
# Sizes that are tried, as powers of two: so many to an octave.
_SMALLEST, _LARGEST, _TRIED = -50, 14, 8


@dataclass
class Hiding:
    """Sides of elements by the bin of q / s, over some rows: (bins,), float64."""

    sides: Tensor = field(default_factory=lambda: torch.zeros(_BINS, dtype=torch.float64))

    def add(self, exact: Tensor, stored: Tensor, step: Tensor, reach: Tensor, claimed: Tensor) -> None:
        """Some rows: the exact sums, what the program stores, its step there, how far an element reaches, and the
        claimed sum; (rows, columns), float64. Rows where nothing is claimed have no size to compare with."""
        size = torch.linalg.vector_norm(claimed, dim=1, keepdim=True) / max(1, claimed.shape[1]) ** 0.5
        off = exact - stored
        for side in (step / 2 - off, step / 2 + off):
            # Beyond the cell's end, where the delta was rounded before: as far as on this side of it.
            ratio = ((side.abs_() + reach) / size).float()
            bins = (ratio.view(torch.int32) >> _DIGITS).sub_(_FIRST).clamp_(0, _BINS - 1)
            self.sides += torch.bincount(bins.flatten(), minlength=_BINS)

    def smallest(self, share: float) -> float | None:
        """The size t that is seen with 99%; share: of the tensor's elements, those that were added. None if a tensor
        has so few that not even a large one would be."""
        sizes, outside = _table()
        seen = torch.nonzero(outside @ self.sides >= _WANTED * share)
        return float(sizes[seen[0]]) if len(seen) else None


@cache
def _table() -> tuple[Tensor, Tensor]:
    """Sizes (n,), and the share of a bin's elements that a further delta of that size carries outside, (n, bins)."""
    sizes = (torch.arange(_SMALLEST * _TRIED, _LARGEST * _TRIED + 1, dtype=torch.float64) / _TRIED).exp2()
    # A bin's upper end: q is at most that.
    ends = torch.arange(1, _BINS + 1)
    q = (1 + (ends % _FINE) / _FINE) * (ends // _FINE + _LOWEST).double().exp2()
    q[-1] = math.inf
    return sizes, torch.erfc(q / sizes[:, None] / math.sqrt(2.0)) / 2
