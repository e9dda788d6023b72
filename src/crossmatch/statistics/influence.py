"""Statistics with errors by text, since positions of one text are no independent draws.

Of first order for what is smooth in the data: with psi_c what text c adds to the derivative of a statistic by the
texts' weights, stderr^2 = C / (C - 1) sum_c psi_c^2 (the infinitesimal jackknife: to first order what a bootstrap over
texts gives, at the cost of none). By a bootstrap over texts where derivatives say nothing: for principal subspaces,
whose derivatives grow without bound where two variances are close.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from crossmatch.results.figures import BoundsJson, EstimateJson

LEVEL = 0.95
Scale = Literal["plain", "log", "unit"]


@dataclass(frozen=True, eq=False)
class Figure:
    """A statistic and its error; value None where it is not defined.

    carrier: numbers with stderr^2 = sum carrier^2; those of two statistics of the same texts may be added and
    subtracted, entry by entry. degrees: of freedom, texts - 1. scale: on which the 95% interval (Student's t) is
    formed: as it is, of the logarithm (what is positive), or of the logit (shares).
    """

    value: float | None
    carrier: Tensor | None = None
    degrees: int = 0
    scale: Scale = "plain"

    @property
    def stderr(self) -> float | None:
        """The standard error; None for fewer than two texts."""
        if self.value is None or self.carrier is None or self.degrees < 1:
            return None
        return float(self.carrier.norm())

    def on_scale(self, scale: Scale) -> "Figure":
        """The logarithm or logit as a statistic of its own; None at the ends, where they are infinite."""
        value, carrier = self.value, self.carrier
        if scale == "plain" or value is None or carrier is None:
            return Figure(value, carrier, self.degrees)
        if value <= 0 or (scale == "unit" and value >= 1):
            return Figure(None)
        if scale == "log":
            return Figure(math.log(value), carrier / value, self.degrees)
        return Figure(math.log(value / (1 - value)), carrier / (value * (1 - value)), self.degrees)

    def interval(self) -> tuple[float | None, float | None]:
        """(low, high); both the value where the error is zero."""
        error, there = self.stderr, self.on_scale(self.scale)
        if error is None or self.value is None:
            return None, None
        if error == 0:
            return self.value, self.value
        if there.value is None or there.stderr is None:
            return None, None
        half = float(student.ppf((1 + LEVEL) / 2, self.degrees)) * there.stderr
        low, high = (_back(there.value + step, self.scale) for step in (-half, half))
        return low, high

    def to_dict(self) -> BoundsJson:
        """As plain JSON: value, low, high."""
        low, high = self.interval()
        return {"value": self.value, "low": low, "high": high}


def _back(value: float, scale: Scale) -> float:
    if scale == "plain":
        return value
    # Beyond this both are at their ends in any case.
    value = max(-700.0, min(700.0, value))
    return math.exp(value) if scale == "log" else 1 / (1 + math.exp(-value))


def from_influence(value: float, influence: Tensor, scale: Scale = "plain") -> Figure:
    """A statistic with its influence (C,) by text."""
    count = len(influence)
    return Figure(value, influence * math.sqrt(count / max(1, count - 1)), count - 1, scale)


def from_draws(value: float, draws: Tensor, texts: int, scale: Scale = "unit") -> Figure:
    """A statistic with its values (B,) in resamples of the texts: their spread alone is used, since a resample repeats
    texts, which shifts what depends on principal axes."""
    return Figure(value, (draws - draws.mean()) / math.sqrt(max(1, len(draws) - 1)), texts - 1, scale)


def figure_ratio(above: Tensor, below: Tensor, scale: Scale = "log") -> Figure:
    """R = sum_c N_c / sum_c D_c from sums by text, psi_c = (N_c - R D_c) / sum D."""
    total = below.sum()
    if float(total) <= 0:
        return Figure(None)
    value = above.sum() / total
    return from_influence(float(value), (above - value * below) / total, scale)


def root(figure: Figure) -> Figure:
    """The square root of a statistic that is not negative."""
    if figure.value is None or figure.carrier is None:
        return Figure(None)
    value = math.sqrt(figure.value)
    return Figure(value, figure.carrier / (2 * value) if value else figure.carrier, figure.degrees, "log")


def by_text(values: Tensor, text: Tensor, count: int) -> Tensor:
    """(count, ...) sums of values (N, ...) over the positions of each text."""
    return values.new_zeros(count, *values.shape[1:]).index_add_(0, text, values)


def resamples(texts: int, draws: int, seed: int) -> Tensor:
    """(draws, texts) float64: how often each text is drawn when as many are drawn as there are, with replacement."""
    drawn = torch.randint(texts, (draws, texts), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(draws, texts, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A ratio of sums over tokens; stderr None for fewer than two texts, value None where it is not defined."""

    value: float | None
    stderr: float | None

    def to_dict(self) -> EstimateJson:
        """As plain JSON."""
        return {"value": self.value, "stderr": self.stderr}


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
