"""Means and ratios over tokens, with standard errors by text: tokens of one text are no independent draws."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from crossmatch.analysis.texts import KINDS, Batch

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A ratio of sums over tokens; stderr None for fewer than two texts, value None where it is not defined."""

    value: float | None
    stderr: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def ratio(above: Array, below: Array) -> Estimate:
    """R = sum_c N_c / sum_c D_c over texts c, N and D (texts,) sums of each text.

    stderr^2 = C / (C - 1) sum_c (N_c - R D_c)^2 / (sum_c D_c)^2: linearised, texts as clusters (Cochran, Sampling
    Techniques, 1977, 6.4). Texts with nothing below are no clusters.
    """
    above, below = above[below != 0], below[below != 0]
    total, count = float(below.sum()), len(below)
    if total == 0:
        return Estimate(None, None)
    value = float(above.sum()) / total
    if count < 2:
        return Estimate(value, None)
    spread = float(np.square(above - value * below).sum()) * count / (count - 1)
    return Estimate(value, math.sqrt(spread) / abs(total))


def sums_by_text(values: Tensor, batch: Batch) -> Array:
    """(rows, kinds, statistics) sums of the tokens of each class, from values (rows, length, statistics) float64."""
    classes = batch.classes.to(values.device)
    member = one_hot(classes.clamp_min(0), len(KINDS)).to(values.dtype) * (classes >= 0)[..., None]
    return (member.transpose(1, 2) @ values).cpu().numpy()
