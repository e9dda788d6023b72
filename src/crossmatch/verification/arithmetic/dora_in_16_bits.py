"""DoRA whose factors and magnitudes are kept in 16 bits, as PEFT merges it.

    S = p(s B A)        V = p(W + S)        M = p(p(m / p(||V||)) V)

p: bfloat16 or float16, of base, factors and magnitudes alike. The order of additions inside a product, and inside a
norm, is not known: an element lies between what the ends of their intervals give.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from crossmatch.delta import Delta, Dora, LowRank

# Of a norm that is summed in single precision, relative.
_NORM = 2.0**-16


@dataclass(frozen=True, eq=False)
class RoundedDora(Delta):
    """The change p(m / p(||V||)) V - W, before the product is rounded; part: `reach` for how far it may be off.

    low: the factors as they are multiplied; after: numbers that multiply the product once it was rounded; slack: of
    |B| |A|.
    """

    low: LowRank
    magnitude: Tensor
    half: torch.dtype
    after: tuple[float, ...] = ()
    slack: float = 0.0
    part: Literal["value", "reach"] = "value"
    needs_base = True

    @classmethod
    def of(cls, delta: Dora, low: LowRank, after: Sequence[float], half: torch.dtype, slack: float) -> "RoundedDora":
        """Of a delta of weight one, whose norms are those of its rows."""
        return cls(low, delta.magnitude.to(half).double().flatten(), half, tuple(after), slack)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.low.shape

    @property
    def columns(self) -> int:
        """Width of the low-rank part."""
        return self.low.columns

    @property
    def reach(self) -> "RoundedDora":
        """How far the value may be off."""
        return replace(self, part="reach")

    def scaled(self, weight: float) -> "RoundedDora":
        """Itself: it has weight one."""
        assert weight == 1.0
        return self

    def rows(self, start: int, stop: int, dtype: torch.dtype = torch.float32, base: Tensor | None = None) -> Tensor:
        """The change in some rows, or how far it may be off there."""
        assert base is not None
        weight = base.double()
        product = self.low.rows(start, stop, torch.float64)
        factors = LowRank(self.low.b[start:stop].abs(), self.low.a.abs(), self.low.scale.abs())
        far = self.slack * factors.rows(0, stop - start, torch.float64)
        middle = self._directions(weight, product)
        norm = torch.linalg.vector_norm(middle, dim=1, keepdim=True)
        value = self._factor(start, stop, norm) * middle
        if self.part == "value":
            return (value - weight).to(dtype)
        least, most = self._directions(weight, product - far), self._directions(weight, product + far)
        shares = [self._factor(start, stop, norm * (1 + sign * _NORM)) * v for sign in (-1, 1) for v in (least, most)]
        return torch.stack([(share - value).abs() for share in shares]).amax(0).to(dtype)

    def _directions(self, weight: Tensor, product: Tensor) -> Tensor:
        """V."""
        value = self._to(product)
        for number in self.after:
            value = self._to(value * number)
        return self._to(weight + value)

    def _factor(self, start: int, stop: int, norm: Tensor) -> Tensor:
        return self._to(self.magnitude[start:stop, None] / self._to(norm))

    def _to(self, value: Tensor) -> Tensor:
        return value.to(self.half).double()
