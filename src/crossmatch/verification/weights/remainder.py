"""What no program explains: whether it is noise of rounding, over all rows of a tensor, or has a size or a structure.

    R = (M - program's own value) / step, element by element

An honest rounding more, of whatever kind, moves an element to a neighbour at most, and in mean square by 1/4 of a step
squared at most: 3 times that of one rounding, 1/12. It has no direction. A further delta has: with Omega of k normal
columns, G = (R Omega)^T (R Omega) is then a multiple of the identity but for sampling, and a delta of low rank lifts
its largest eigenvalue. How high noise lifts it, the same elements tell with random signs: all but the signs stays.
"""

import math
from dataclasses import dataclass
from zlib import crc32

import torch
from torch import Tensor

# Columns of the projection, and draws of signs.
_COLUMNS, _DRAWS = 8, 6
# Mean square of one further rounding, in that of one; standard errors of either test, for thousands of modules.
ONE_MORE, _SIGMAS = 3.0, 6.0


@dataclass
class Remainder:
    """Sums over all rows: elements, beyond (further off than one step and what the program leaves open), energy (mean
    square in that of one rounding, summed), gram and those with random signs (k, k); room: sum of squares that one
    further rounding may come to, and size: that of the claimed sum."""

    omega: Tensor
    generator: torch.Generator
    gram: Tensor
    null: Tensor
    rows: int = 0
    elements: int = 0
    beyond: int = 0
    energy: float = 0.0
    room: float = 0.0
    size: float = 0.0

    @classmethod
    def empty(cls, name: str, columns: int) -> "Remainder":
        """Nothing seen yet; the projection follows from the tensor's name."""
        generator = torch.Generator().manual_seed(crc32(name.encode()))
        omega = torch.randn(columns, _COLUMNS, generator=generator, dtype=torch.float64)
        shape = (_COLUMNS, _COLUMNS)
        null = torch.zeros(_DRAWS, *shape, dtype=torch.float64)
        return cls(omega, generator, torch.zeros(shape, dtype=torch.float64), null)

    def add(self, left: Tensor, reach: Tensor, claimed: Tensor, step: Tensor) -> None:
        """Rows of R and of what the program leaves open, in steps; of the claimed sum, and the steps; float64."""
        self.rows += len(left)
        self.elements += left.numel()
        self.beyond += int((left.abs() > 1.0 + reach + 1e-6).sum())
        self.energy += 12.0 * float(left.square().sum())
        self.room += ONE_MORE / 12.0 * float(step.square().sum())
        self.size += float(claimed.square().sum())
        self.gram += _gram(left @ self.omega)
        for draw in range(_DRAWS):
            signs = torch.randint(0, 2, left.shape, generator=self.generator, dtype=torch.int8) * 2 - 1
            self.null[draw] += _gram((left * signs) @ self.omega)

    @property
    def is_noise(self) -> bool:
        """Whether one further rounding explains all of it."""
        allowed = ONE_MORE * (1 + _SIGMAS / math.sqrt(max(1, self.elements)))
        return self.beyond == 0 and self.energy <= allowed * self.elements and not self.structured

    @property
    def structured(self) -> bool:
        """Whether one direction holds more than it does in noise of the same elements."""
        if self.energy == 0.0:
            return False
        drawn = torch.stack([_top(g) for g in self.null])
        error = max(float(drawn.std()), 0.5 * math.sqrt(_COLUMNS / max(1, self.rows)))
        return float(_top(self.gram)) > float(drawn.mean()) + _SIGMAS * error

    @property
    def unseen(self) -> float:
        """Size, over that of the claimed sum, of what could hide where all of the room that one further rounding has is
        something else."""
        return math.sqrt(self.room / self.size) if self.size else math.inf


def _gram(projected: Tensor) -> Tensor:
    return projected.T @ projected


def _top(gram: Tensor) -> Tensor:
    """Largest eigenvalue over the mean one."""
    values = torch.linalg.eigvalsh(gram)
    return values[-1] / values.mean().clamp_min(1e-300)
