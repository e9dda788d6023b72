"""Two models' activations at the same positions: how alike they are, and what the shift between them is like.

X, Y (N, d): base and tuned; S = Y - X. Everything but S and sizes is of centred activations. Errors are by text
(`figures`), those of principal subspaces in `turns`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from crossmatch.errors import InputError
from crossmatch.statistics.influence import Figure, by_text, figure_ratio, from_influence, root

# Share of the variance that SVCCA keeps on each side (Raghu et al., 1706.05806).
VARIANCE = 0.99


@dataclass(frozen=True, eq=False)
class Cloud:
    """One model's activations x (N, d) float64; text (N,) int64: numbers below `texts`, of which each text is one."""

    x: Tensor
    text: Tensor
    texts: int

    def sums(self, values: Tensor) -> Tensor:
        """Sums of values (N, ...) by text."""
        return by_text(values, self.text, self.texts)

    @cached_property
    def centred(self) -> Tensor:
        """x less its mean over the positions."""
        return self.x - self.x.mean(0)

    @cached_property
    def gram(self) -> Tensor:
        """X^T X of the centred activations, (d, d)."""
        return self.centred.T @ self.centred

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """(variances times N, largest first; principal axes as columns (d, d))."""
        return descending(self.gram)

    @cached_property
    def scores(self) -> Tensor:
        """(N, d) coordinates along the principal axes."""
        return self.centred @ self.axes[1]

    @cached_property
    def spectrum(self) -> "Spectrum":
        """What the spectrum of the centred activations says."""
        variances, _ = self.axes
        return Spectrum(variances, self.sums(self.scores.square()))

    @cached_property
    def rank(self) -> int:
        """How many principal axes have any variance."""
        variances, _ = self.axes
        return int((variances > variances[0] * 1e-12).sum())

    def basis(self, k: int) -> Tensor:
        """(d, k) the first k principal axes. Raises InputError where there are not so many, and one more."""
        if self.rank <= k:
            raise InputError(
                f"{len(self.x)} positions of {self.x.shape[1]} dimensions have {self.rank} principal axes; a basis of "
                f"{k} needs one more than that: give more texts, or a smaller k"
            )
        return self.axes[1][:, :k]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues l (d,), largest first, and what each text adds to each of them, (C, d); p_i = l_i / sum l."""

    values: Tensor
    parts: Tensor

    @property
    def _shares(self) -> tuple[Tensor, Tensor]:
        """p (d,), and its derivatives by the texts' weights (C, d)."""
        total = self.values.sum()
        p = (self.values / total).clamp_min(0)
        return p, (self.parts - p * self.parts.sum(1, keepdim=True)) / total

    @property
    def empty(self) -> bool:
        """Whether there is nothing: every eigenvalue is zero."""
        return float(self.values.sum()) <= 0

    def effective_rank(self) -> Figure:
        """exp(H), H = -sum p ln p (Roy & Vetterli, 2007): how many directions there are, each by its share."""
        if self.empty:
            return Figure(None)
        p, changes = self._shares
        logs = torch.where(p > 0, p.clamp_min(1e-300).log(), 0.0)
        value = float((-(p * logs).sum()).exp())
        return from_influence(value, -value * (changes @ logs), "log")

    def participation(self) -> Figure:
        """(sum l)^2 / sum l^2, the participation ratio: as the effective rank, but led by the largest."""
        if self.empty:
            return Figure(None)
        p, changes = self._shares
        value = float(1 / p.square().sum())
        return from_influence(value, -2 * value**2 * (changes @ p), "log")

    def count(self, share: float = 0.9) -> int | None:
        """The smallest number of directions that hold `share` of the energy."""
        if self.empty:
            return None
        held = (self.values / self.values.sum()).cumsum(0)
        return min(len(held), int((held < share).sum()) + 1)


def random_share(p: Tensor, k: int) -> tuple[float, float]:
    """(mean, standard deviation) of the share of a fixed spectrum's energy in k of d dimensions when it is turned at
    random: k / d, and sqrt(2 k (d - k) (d sum p^2 - 1) / (d^2 (d + 2) (d - 1))); p (d,) adds to 1."""
    d = len(p)
    if d < 2:
        return 1.0, 0.0
    spread = max(0.0, d * float(p.square().sum()) - 1)
    return k / d, math.sqrt(2 * k * (d - k) * spread / (d * d * (d + 2) * (d - 1)))


@dataclass(frozen=True, eq=False)
class CloudPair:
    """Base and tuned activations at the same positions."""

    base: Cloud
    tuned: Cloud

    @cached_property
    def cross(self) -> Tensor:
        """X^T Y of the centred activations, (d, d)."""
        return self.base.centred.T @ self.tuned.centred

    def cka(self) -> tuple[Figure, Figure]:
        """Linear CKA, (debiased, plain): HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) (Kornblith et al., 1905.00414).

        Plain: HSIC = ||X^T Y||_F^2, which for N near d is high for independent data too. Debiased: the unbiased HSIC of
        K = X X^T, L = Y Y^T with zero diagonals (Song et al., 2012), tr(K L) + 1'K1 1'L1 / ((N-1)(N-2)) -
        2 1'KL1 / (N-2), in sums over features: nothing of size N x N is formed. Not defined for fewer than 4 positions
        or an estimate that is not positive. The influence of the last two terms, which centring leaves small, is left
        out.
        """
        x, y = self.base, self.tuned
        plain, debiased = [], []
        for left, right, gram in ((x, y, self.cross), (x, x, x.gram), (y, y, y.gram)):
            rows = ((left.centred @ gram) * right.centred).sum(1)
            same = left.centred.square().sum(1) * right.centred.square().sum(1)
            plain.append((float(gram.square().sum()), x.sums(rows)))
            debiased.append((_unbiased(left.centred, right.centred, gram), x.sums(rows - same)))
        return _quotient(debiased), _quotient(plain)

    def svcca(self) -> tuple[Figure, tuple[int, int], float]:
        """Mean canonical correlation of the leading axes that hold `VARIANCE` of each side's variance; how many these
        are; and what independent data would give: sqrt(max(k_x, k_y) / (N - 1)), the root mean square.

        Influence of a canonical pair (a, b): a b - rho (a^2 + b^2) / 2 (Romanazzi, 1992), the axes taken as given.
        """
        sides = []
        for cloud in (self.base, self.tuned):
            kept = cloud.spectrum.count(VARIANCE)
            if kept is None:
                return Figure(None), (0, 0), 0.0
            sides.append(cloud.scores[:, :kept] / cloud.axes[0][:kept].sqrt())
        a, b = sides
        u, rho, vh = torch.linalg.svd(a.T @ b, full_matrices=False)
        rho = rho.clamp_max(1.0)
        left, right = a @ u, b @ vh.T
        change = (left * right - rho * (left.square() + right.square()) / 2).mean(1)
        counts = (a.shape[1], b.shape[1])
        null = min(1.0, math.sqrt(max(counts) / max(1, len(a) - 1)))
        return from_influence(float(rho.mean()), self.base.sums(change), "unit"), counts, null

    def cosines(self, k: int) -> Tensor:
        """(k,) of the principal angles between the two spaces of the first k axes, largest first: the singular values
        of U_x^T U_y."""
        return torch.linalg.svdvals(self.base.basis(k).T @ self.tuned.basis(k)).clamp_max(1.0)


@dataclass(frozen=True, eq=False)
class Shift:
    """S = Y - X against the base's activations; not centred: a shift that is the same everywhere is one direction."""

    base: Cloud
    s: Tensor

    @cached_property
    def gram(self) -> Tensor:
        """S^T S, (d, d)."""
        return self.s.T @ self.s

    @cached_property
    def spectrum(self) -> Spectrum:
        """Squared singular values of S."""
        values, axes = descending(self.gram)
        return Spectrum(values, self.base.sums((self.s @ axes).square()))

    def size(self) -> Figure:
        """||S|| / ||X||, Frobenius norms, X not centred."""
        x = self.base.x.square().sum(1)
        return root(figure_ratio(self.base.sums(self.s.square().sum(1)), self.base.sums(x)))

    def constant(self) -> Figure:
        """Share of ||S||^2 in the mean shift, N ||mean S||^2 / ||S||^2."""
        mean, total = self.s.mean(0), self.gram.trace()
        if float(total) <= 0:
            return Figure(None)
        value = len(self.s) * mean.square().sum() / total
        # d(n |m|^2) = 2 <s, m> - |m|^2 for a position, d total = |s|^2.
        rows = 2 * (self.s @ mean) - mean.square().sum() - value * self.s.square().sum(1)
        return from_influence(float(value), self.base.sums(rows) / total, "unit")

    def inside(self, k: int) -> float | None:
        """Share of ||S||^2 in the space of the base's first k principal axes."""
        total = self.gram.trace()
        if float(total) <= 0:
            return None
        basis = self.base.basis(k)
        return float((basis * (self.gram @ basis)).sum() / total)


def massive(x: Tensor, factor: float) -> Tensor:
    """(d,) bool: dimensions of x (N, d) whose largest |x| at any position is at least `factor` times the median |x| of
    all positions and dimensions (after Sun et al., 2402.17762, who ask for about a thousand, and values beyond 100)."""
    sizes = x.abs()
    return sizes.amax(0) >= factor * sizes.median()


def descending(form: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, largest first, none below zero, and eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(form)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def _unbiased(x: Tensor, y: Tensor, gram: Tensor) -> float:
    """Unbiased HSIC times N (N - 3), from x (N, d), y (N, e) and x^T y."""
    n = len(x)
    if n < 4:
        return math.nan
    a, b = x.square().sum(1), y.square().sum(1)
    rows, columns = x @ x.sum(0) - a, y @ y.sum(0) - b
    trace = gram.square().sum() - (a * b).sum()
    return float(trace + rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 * (rows @ columns) / (n - 2))


def _quotient(sides: Sequence[tuple[float, Tensor]]) -> Figure:
    """a / sqrt(b c), each changing by twice its rows."""
    (a, rows_a), (b, rows_b), (c, rows_c) = sides
    if not (b > 0 and c > 0 and math.isfinite(a)):
        return Figure(None)
    size = math.sqrt(b * c)
    value = a / size
    influence = 2 * rows_a / size - value * (rows_b / b + rows_c / c)
    return from_influence(value, influence - influence.mean())
