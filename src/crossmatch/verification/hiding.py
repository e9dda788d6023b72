"""How small a further delta would still be seen in a tensor that a program explains.

A delta that nobody claimed is seen as soon as it carries one element out of the interval of what the program can have
stored. Let an element's interval reach r to either side of the claimed sum, and u be its rounding step. A further delta
of d there, of either sign and as likely as not to fall anywhere within the step, carries it out with probability

    min(P(|d| > r), E[max(0, |d| - r)] / u)                 d ~ N(0, (t s)^2)

where s is the root mean square of the claimed sum in that row and t the further delta's size in that of the claimed
one. Summed over the elements this is the number k(t) that is expected outside; none is seen with exp(-k). The figure
stated is the t at which k = ln 100: seen with 99%. `benchmarks/hidden.py` measures it.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Bins of log2(r / s), in which the elements are counted; the clamped ends hold what never matters.
_LOWEST, _HIGHEST = -44, 12
_BINS = _HIGHEST - _LOWEST + 1
# Elements outside that are expected where one is seen with 99%.
_WANTED = math.log(100.0)
_SMALLEST, _LARGEST = 2.0**-50, 2.0**10


@dataclass
class Hiding:
    """Sums over some rows: elements by the bin of r / s, and of those the sum of s / u; both (bins,), float64."""

    count: Tensor = field(default_factory=lambda: torch.zeros(_BINS, dtype=torch.float64))
    steps: Tensor = field(default_factory=lambda: torch.zeros(_BINS, dtype=torch.float64))

    def add(self, reach: Tensor, step: Tensor, claimed: Tensor) -> None:
        """Some rows: how far elements reach, their steps and the claimed sum; (rows, columns), float64. Rows where
        nothing is claimed have no size to compare with."""
        size = claimed.square().mean(dim=1, keepdim=True).sqrt().expand_as(claimed)
        ratio = reach.expand_as(claimed) / size
        known = (size > 0) & torch.isfinite(ratio)
        bins = torch.frexp(ratio[known]).exponent.clamp(_LOWEST, _HIGHEST) - _LOWEST
        self.count += torch.bincount(bins, minlength=_BINS)
        self.steps += torch.bincount(bins, weights=(size / step)[known], minlength=_BINS)

    def smallest(self, share: float) -> float | None:
        """The size t that is seen with 99%; share: of the tensor's elements, those that were added. None if a tensor
        has so few that not even a large one would be."""
        low, high = math.log2(_SMALLEST), math.log2(_LARGEST)
        if self._expected(_LARGEST) < _WANTED * share:
            return None
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self._expected(2.0**middle) >= _WANTED * share else (middle, high)
        return 2.0**high

    def _expected(self, size: float) -> float:
        """Elements outside for a further delta of that size, of those that were added."""
        # A bin's upper end: r is at most that.
        q = torch.arange(_LOWEST, _HIGHEST + 1, dtype=torch.float64).exp2() / size
        beyond = torch.erfc(q / math.sqrt(2.0))
        density = (-q.square() / 2).exp() * math.sqrt(2.0 / math.pi)
        carried = size * self.steps * (density - q * beyond).clamp_min(0.0)
        return float(torch.minimum(self.count * beyond, carried).sum())
