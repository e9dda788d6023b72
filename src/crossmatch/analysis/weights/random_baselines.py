"""What a measure is of a random delta: expectations and standard deviations, exact, for measures that are shares.

The random delta is D = X diag(s) Y^T with the singular values of the one that was measured and singular vectors X (m,
r) and Y (n, r) uniform over all orthonormal ones, independent of each other. Of the spectrum only `purity` matters: q =
sum p_i^2 with p_i = s_i^2 / sum s^2, between 1/r and 1. The moments of order four are those of the entries of a uniform
orthogonal matrix (Collins & Sniady, 2006, math-ph/0402073, for degree two in the projections).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from crossmatch.results.figures import NullFigureJson


@dataclass(frozen=True)
class Figure:
    """A measured value beside what a random delta gives: the mean of that and the standard deviation of one draw.

    null_sd is None where it is not known. lift: value / null, None where the null is zero or the value unknown; z:
    (value - null) / null_sd.
    """

    value: float | None
    null: float | None
    null_sd: float | None = None

    @property
    def lift(self) -> float | None:
        """value / null."""
        return self.value / self.null if self.value is not None and self.null else None

    @property
    def z(self) -> float | None:
        """How many standard deviations of the null lie between."""
        if self.value is None or self.null is None or not self.null_sd:
            return None
        return (self.value - self.null) / self.null_sd

    def to_dict(self) -> NullFigureJson:
        """As plain JSON, lift and z included."""
        return {"value": self.value, "null": self.null, "null_sd": self.null_sd, "lift": self.lift, "z": self.z}


def mean(figures: Sequence[Figure]) -> Figure:
    """The mean over independent modules: values, nulls, and the deviation sqrt(sum sd^2) / n; unknown ones left out."""
    known = [f for f in figures if f.value is not None and f.null is not None]
    if not known:
        return Figure(None, None)
    n = len(known)
    sds = [f.null_sd for f in known if f.null_sd is not None]
    sd = math.hypot(*sds) / n if len(sds) == n else None
    return Figure(sum(f.value or 0.0 for f in known) / n, sum(f.null or 0.0 for f in known) / n, sd)


def purity(squares: Tensor, left: float = 0.0, more: int = 0) -> float:
    """q = sum p_i^2 from squared singular values, of which `more` further ones have the sum `left`, taken as equal."""
    total = float(squares.sum()) + left
    if total <= 0:
        return 1.0
    # Shares first: fourth powers of large numbers overflow.
    share = left / total
    rest = share * share / more if more > 0 else 0.0
    return min(1.0, float((squares / total).square().sum()) + rest)


@dataclass(frozen=True)
class _Moments:
    """Of P = X^T Pi X, X (m, r) uniform orthonormal, Pi a projection of rank k: E P_ii^2, E P_ii P_jj, E P_ij^2."""

    square: float
    pair: float
    cross: float

    @classmethod
    def of(cls, k: int, m: int) -> "_Moments":
        square = k * (k + 2) / (m * (m + 2))
        pair = (k * k / m - square) / (m - 1) if m > 1 else square
        return cls(square, pair, (square - pair) / 2)

    def weighted(self, q: float) -> float:
        """E (sum_i p_i P_ii)^2."""
        return q * self.square + (1 - q) * self.pair


def inside(value: float | None, k: int, m: int, q: float) -> Figure:
    """||Pi D||^2 / ||D||^2 for a k-dimensional subspace of m: k / m; sum_i p_i P_ii has the moments above."""
    null = k / m
    return Figure(value, null, _root(_Moments.of(k, m).weighted(q) - null * null))


def overlap_of_spaces(value: float | None, k: int, r: int, m: int) -> Figure:
    """||Q_1^T Q_2||_F^2 / min(k, r), the mean squared cosine of two subspaces of k and r dimensions: max(k, r) / m."""
    moments, least = _Moments.of(k, m), min(k, r)
    spread = r * moments.square + r * (r - 1) * moments.pair - (k * r / m) ** 2
    return Figure(value, max(k, r) / m, _root(spread) / least)


@dataclass(frozen=True)
class SplitNull:
    """Means and deviations of the parts of a four-block split, and of its diagonal, for (m, n), k and purity q.

    With l and r the shares on the left and the right side and e the block of both: EE = e, EW = l - e, ER = r - e,
    NN = 1 - l - r + e; l and r are independent, cov(l, e) = (k/n) var l, cov(r, e) = (k/m) var r.
    """

    m: int
    n: int
    k: int
    q: float

    def parts(self) -> dict[str, tuple[float, float]]:
        """(mean, deviation) of left, right, EE, EW, ER, NN and diagonal."""
        m, n, k, q = self.m, self.n, self.k, self.q
        left, right = _Moments.of(k, m), _Moments.of(k, n)
        mean_l, mean_r, mean_e = k / m, k / n, k * k / (m * n)
        var_l, var_r = left.weighted(q) - mean_l**2, right.weighted(q) - mean_r**2
        both = q * left.square * right.square + (1 - q) * (left.pair * right.pair + 2 * left.cross * right.cross)
        var_e = both - mean_e**2
        cov_l, cov_r = mean_r * var_l, mean_l * var_r
        return {
            "left": (mean_l, _root(var_l)),
            "right": (mean_r, _root(var_r)),
            "ee": (mean_e, _root(var_e)),
            "ew": (mean_l - mean_e, _root(var_l + var_e - 2 * cov_l)),
            "er": (mean_r - mean_e, _root(var_r + var_e - 2 * cov_r)),
            "nn": (1 - mean_l - mean_r + mean_e, _root(var_l + var_r + var_e - 2 * cov_l - 2 * cov_r)),
            "diagonal": (k / (m * n), _root(self._diagonal())),
        }

    def _diagonal(self) -> float:
        """Variance of sum_i (u_i^T D v_i)^2 / ||D||^2 over i <= k."""
        m, n, k, q = self.m, self.n, self.k, self.q
        # E o_ij^2 o_kl^2 and E o_ij o_il o_kj o_kl for two rows and two columns of a uniform orthogonal matrix.
        a = [(size + 1) / (size * (size - 1) * (size + 2)) if size > 1 else 0.0 for size in (m, n)]
        b = [-1 / (size * (size - 1) * (size + 2)) if size > 1 else 0.0 for size in (m, n)]
        fourth = (3 + 6 * q) / (m * (m + 2) * n * (n + 2))
        mixed = a[0] * a[1] + 2 * q * (a[0] * b[1] + b[0] * a[1]) + (2 + 2 * q) * b[0] * b[1]
        return k * fourth + k * (k - 1) * mixed - (k / (m * n)) ** 2


def _root(variance: float) -> float:
    # What is zero may come out as rounding below it.
    return math.sqrt(max(0.0, variance))
