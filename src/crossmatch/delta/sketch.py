"""The largest singular values and vectors of a matrix, by a random sketch, with what the sketch may have missed.

Randomised subspace iteration: Halko, Martinsson & Tropp, 2011 (0909.4061), algorithm 4.4, with a QR between any two
products. Products with the matrix run in float32 (or in `dtype`), everything of the sketch's width in float64.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from crossmatch.delta.deltas import Delta, LowRank, ReadRows
from crossmatch.errors import RuleError

# A matrix that is read in blocks of rows is in memory by this many elements at a time.
BLOCK_ELEMENTS = 1 << 23
# Up to here a matrix may be kept in memory whole: 1 GB in float32.
HELD_ELEMENTS = 1 << 28
# From this share of all directions on, all of them cost less than a sketch.
_WIDE = 0.4
# Lanczos: vectors at a time; up to here all directions cost no more; eigenvalues' errors in single precision.
_BLOCK, _SMALL, _SINGLE = 32, 1024, 1e-6
# The bound on what is left: random vectors, squarings of their growth, and how often it may be wrong.
_PROBES, _STEPS, FAILURE = 12, 3, 1e-6


@dataclass(frozen=True, eq=False)
class Rows:
    """A matrix (height, columns) that is read in blocks of rows; `read(start, stop)` gives any floating dtype, products
    with it run in `dtype`."""

    height: int
    columns: int
    read: ReadRows
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, matrix: "Tensor | Delta | Rows", base: ReadRows | None = None) -> "Rows":
        """A tensor's rows (all but the last axis together) or a delta's; base: rows of W, for a delta that needs it.

        Raises RuleError for a delta that needs its base and is given none.
        """
        if isinstance(matrix, Rows):
            return matrix
        if isinstance(matrix, Tensor):
            flat = matrix.reshape(-1, matrix.shape[-1]) if matrix.ndim != 2 else matrix
            dtype = torch.float64 if flat.dtype == torch.float64 else torch.float32
            return cls(flat.shape[0], flat.shape[1], lambda start, stop: flat[start:stop], dtype)
        if not matrix.needs_base:
            return cls(matrix.height, matrix.columns, matrix.rows)
        if base is None:
            raise RuleError(f"{type(matrix).__name__} is relative to its base, whose rows are needed here")
        bound = matrix.bind(base)

        def read(start: int, stop: int) -> Tensor:
            return bound.rows(start, stop, torch.float32, base(start, stop).float())

        return cls(matrix.height, matrix.columns, read)

    def held(self, elements: int = HELD_ELEMENTS) -> "Rows":
        """The same, read once and kept in memory, if it has no more than `elements`."""
        if self.height * self.columns > elements:
            return self
        whole = [block for _, block in self.blocks()]
        return replace(Rows.of(torch.cat(whole) if len(whole) != 1 else whole[0]), dtype=self.dtype)

    def blocks(self, dtype: torch.dtype | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Every block of rows in `dtype` (default: its own), with where it lies."""
        step = max(1, BLOCK_ELEMENTS // max(1, self.columns))
        for start in range(0, self.height, step):
            stop = min(self.height, start + step)
            yield slice(start, stop), self.read(start, stop).to(dtype or self.dtype)


@dataclass(frozen=True, eq=False)
class Singular:
    """The k largest singular triples of an (m, n) matrix W, as found: U and V orthonormal, W V = U S to rounding.

    u: (m, k), s: (k,) float64, descending, vh: (k, n). residuals: (k,) ||W^T u_i - s_i v_i||: within that distance of
    s_i lies a singular value of W (Weyl); the other residual, W v_i - s_i u_i, is rounding. energy: ||W||_F^2, exact.
    spectral: a bound on ||W - U S V^T||_2 that fails with probability `FAILURE`; None if it was not asked for.
    """

    u: Tensor
    s: Tensor
    vh: Tensor
    residuals: Tensor
    energy: float
    spectral: float | None

    @property
    def left(self) -> float:
        """||W - U S V^T||_F^2 = ||W||_F^2 - sum_i s_i^2."""
        # Of a difference of equal numbers only rounding is left.
        rest = self.energy - float(self.s.square().sum())
        return rest if rest > 1e-12 * self.energy else 0.0

    def shares(self) -> Tensor:
        """(k,) share of ||W||_F^2 in the first 1, 2, ... triples; zeros for a zero matrix."""
        return self.s.square().cumsum(0) / self.energy if self.energy > 0 else torch.zeros_like(self.s)

    def first(self, k: int) -> "Singular":
        """The first k triples; what they leave is two parts with orthogonal rows: s_(k+1) and what was left before."""
        following = float(self.s[k]) if k < len(self.s) else 0.0
        bound = None if self.spectral is None else math.hypot(self.spectral, following)
        return Singular(self.u[:, :k], self.s[:k], self.vh[:k], self.residuals[:k], self.energy, bound)


def top_singular(
    matrix: Tensor | Delta | Rows,
    k: int | None = None,
    *,
    energy: float | None = None,
    oversampling: int = 16,
    power: int = 4,
    generator: torch.Generator,
    bounded: bool = True,
) -> Singular:
    """The k largest singular triples of a matrix, or as many as hold the share `energy` of ||W||_F^2 (at most k).

    2 power + 1 products of W with k + oversampling vectors, and with `bounded` a dozen more vectors for the bound on
    what is left. Exact (up to rounding) for a low-rank delta, from its factors, and where k is a large part of
    min(m, n), from the smaller Gram matrix, all in float64: there values below 1e-8 s_1 are rounding. Directions whose
    singular values lie close to the k-th mix with those beyond it; `residuals` say how much. A float64 tensor is
    multiplied in float64. Raises RuleError if neither k nor `energy` is given, or the matrix holds NaN or infinity.
    """
    if (k is None and energy is None) or (k is not None and k < 1) or (energy is not None and not 0 < energy <= 1):
        raise RuleError(f"singular values: give a number k >= 1 or a share of energy in (0, 1], not {k} and {energy}")
    if isinstance(matrix, LowRank):
        return _chosen(_of_factors(matrix), k, energy)
    product = Product(Rows.of(matrix))
    most = min(product.rows.height, product.rows.columns)
    if not math.isfinite(product.energy):
        raise RuleError("the matrix holds NaN or infinite values; its singular values are not defined")
    width = most if k is None else min(k, most)
    wanted = min(64, width) if energy is not None else width
    while True:
        if wanted + oversampling >= _WIDE * most:
            product, wanted = Product(product.rows, torch.float64), width
            found = _all_triples(product)
        else:
            found = _triples(product, _sketched(product, wanted + oversampling, power, generator))
        if wanted >= width or energy is None or float(found.shares()[:wanted][-1]) >= energy:
            break
        wanted = min(2 * wanted, width)
    found = _chosen(found, wanted, energy)
    return _judged(product, found, generator if bounded else None)


class Product:
    """W x and W^T y for blocks of vectors, W read block by block, in the dtype of its products."""

    def __init__(self, rows: Rows, dtype: torch.dtype | None = None) -> None:
        self.rows, self.dtype = rows, dtype or rows.dtype

    @cached_property
    def energy(self) -> float:
        """||W||_F^2, summed in float64."""
        sums = (torch.linalg.vector_norm(block, dtype=torch.float64) for _, block in self.rows.blocks(self.dtype))
        return float(sum(float(size) ** 2 for size in sums))

    def right(self, x: Tensor) -> Tensor:
        """W x: (m, l)."""
        x = x.to(self.dtype)
        out = torch.empty(self.rows.height, x.shape[1], dtype=self.dtype)
        for where, block in self.rows.blocks(self.dtype):
            torch.mm(block, x, out=out[where])
        return out

    def left(self, y: Tensor) -> Tensor:
        """W^T y: (n, l), summed over blocks."""
        y = y.to(self.dtype)
        out = torch.zeros(self.rows.columns, y.shape[1], dtype=self.dtype)
        for where, block in self.rows.blocks(self.dtype):
            out.addmm_(block.T, y[where])
        return out

    def gram(self) -> Tensor:
        """W^T W (n, n), or W W^T (m, m) where that is smaller, in float64; the latter holds W in memory."""
        if self.rows.columns <= self.rows.height:
            out = torch.zeros(self.rows.columns, self.rows.columns, dtype=torch.float64)
            for _, block in self.rows.blocks(torch.float64):
                out.addmm_(block.T, block)
            return out
        whole = torch.cat([block for _, block in self.rows.blocks(torch.float64)])
        return whole @ whole.T


def converged_singular(matrix: Tensor | Rows, k: int, *, angle: float, generator: torch.Generator) -> Singular:
    """The k largest singular triples of a matrix, each vector known to an angle: the root of the mean squared sine
    between those found and the true ones is estimated to be at most `angle`.

    Block Lanczos on W^T W with full reorthogonalisation: every product with W counts, which a flat spectrum needs,
    where subspace iteration throws the earlier ones away. The angle of a vector is its residual over the distance to
    the next eigenvalue (Davis and Kahan). Ends earlier where single precision has no more to give, which
    `figure_angle` tells.
    Exact where min(m, n) is small or the basis would become a large part of it. Raises RuleError for NaN and infinity.
    """
    product = Product(Rows.of(matrix))
    if not math.isfinite(product.energy):
        raise RuleError("the matrix holds NaN or infinite values; its singular values are not defined")
    most = min(product.rows.height, product.rows.columns)
    k = min(k, most)
    basis = _krylov(product, k, angle, generator) if most > _SMALL else None
    if basis is None:
        product = Product(product.rows, torch.float64)
        return _judged(product, _chosen(_all_triples(product), k, None), generator)
    return _judged(product, _chosen(_triples(product, basis), k, None), generator)


def all_singular(matrix: Tensor | Rows) -> Singular:
    """All min(m, n) singular triples of a matrix in float64, without residuals. Raises RuleError for NaN, infinity."""
    product = Product(Rows.of(matrix), torch.float64)
    if not math.isfinite(product.energy):
        raise RuleError("the matrix holds NaN or infinite values; its singular values are not defined")
    return _all_triples(product)


def judged(matrix: Tensor | Rows, every: Singular, k: int) -> Singular:
    """The first k of all triples of a matrix (`all_singular`), with residuals; what is left is the next value."""
    found = replace(_chosen(every, k, None), spectral=float(every.s[k]) if k < len(every.s) else 0.0)
    return replace(found, residuals=_judged(Product(Rows.of(matrix), torch.float64), found, None).residuals)


def figure_angle(found: Singular) -> float:
    """The estimated angle of vectors, as `converged_singular` has it, from their residuals."""
    values = found.s.square()
    return float(_sines(values, found.residuals * found.s).square().mean().sqrt()) if len(values) else 0.0


def _sines(values: Tensor, errors: Tensor) -> Tensor:
    """(k,) residuals of eigenpairs over the distance to the next eigenvalue (K >= k,), at most 1."""
    steps = (values[:-1] - values[1:]).abs()
    far = values.new_full((1,), math.inf)
    gaps = torch.minimum(torch.cat([far, steps]), torch.cat([steps, far]))[: len(errors)]
    return torch.where(errors > 0, errors / gaps.clamp_min(1e-300), errors).clamp_max(1.0)


def _krylov(product: Product, k: int, angle: float, generator: torch.Generator) -> Tensor | None:
    """A basis (n, K) in which the k leading right directions lie; None where it would be nearly all of the space."""
    n, most = product.rows.columns, min(product.rows.height, product.rows.columns)
    block = torch.linalg.qr(torch.randn(n, _BLOCK, generator=generator, dtype=torch.float64).to(product.dtype)).Q
    basis, inner, checked = block, torch.zeros(0, 0, dtype=torch.float64), 0
    while basis.shape[1] < _WIDE * most:
        image = product.left(product.right(block))
        column = (basis.T @ image).double()
        size = basis.shape[1]
        grown = torch.zeros(size, size, dtype=torch.float64)
        grown[: len(inner), : len(inner)] = inner
        grown[:, -block.shape[1] :] = column
        grown[-block.shape[1] :] = column.T
        inner = grown
        rest = image - basis @ column.to(image.dtype)
        rest = rest - basis @ (basis.T @ rest)
        block, left = torch.linalg.qr(rest)
        if size >= k + _BLOCK and size >= 1.15 * checked:
            checked = size
            values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
            values, vectors = values.flip(0), vectors.flip(1)
            errors = torch.linalg.vector_norm(left.double() @ vectors[-left.shape[1] :, :k], dim=0)
            sines = _sines(values, errors)
            if float(sines.square().mean().sqrt()) <= angle or float(errors.max()) <= _SINGLE * float(values[0]):
                return basis
        # What rounding left in the directions already there is taken out once more.
        block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        basis = torch.cat([basis, block], dim=1)
    return None


def _sketched(product: Product, width: int, power: int, generator: torch.Generator) -> Tensor:
    """An orthonormal basis (n, width) of about the leading right singular directions."""
    noise = torch.randn(product.rows.columns, width, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(noise.to(product.dtype)).Q
    for _ in range(power):
        there = torch.linalg.qr(product.right(basis)).Q
        basis = torch.linalg.qr(product.left(there)).Q
    return basis


def _all_triples(product: Product) -> Singular:
    """All min(m, n) triples, from the eigenvectors of the smaller Gram matrix; residuals still unknown.

    The images of those are orthogonal already: a QR, in descending order, only makes them so where a singular value is
    zero, and its diagonal is the singular values.
    """
    upright = product.rows.columns <= product.rows.height
    vectors = torch.linalg.eigh(product.gram()).eigenvectors.flip(1)
    q, r = torch.linalg.qr(product.right(vectors) if upright else product.left(vectors))
    s, order = r.diagonal().abs().sort(descending=True, stable=True)
    images = (q * r.diagonal().sign().where(r.diagonal() != 0, 1.0))[:, order]
    vectors = vectors[:, order]
    u, v = (images, vectors) if upright else (vectors, images)
    return Singular(u, s, v.T, torch.full_like(s, math.nan), product.energy, None)


def _triples(product: Product, basis: Tensor) -> Singular:
    """Of W restricted to the span of a basis: the SVD of W Q = U S R^T, with V = Q R; residuals still unknown."""
    q, r = torch.linalg.qr(product.right(basis).double())
    u, s, rh = torch.linalg.svd(r, full_matrices=False)
    vh = (basis.double() @ rh.T).T
    residuals = torch.full_like(s, math.nan)
    return Singular((q @ u).to(product.dtype), s, vh.to(product.dtype), residuals, product.energy, None)


def _chosen(found: Singular, k: int | None, energy: float | None) -> Singular:
    count = len(found.s) if k is None else min(k, len(found.s))
    if energy is not None and found.energy > 0:
        # A share of 1 is reached up to the rounding of its sum.
        enough = (found.shares() >= energy * (1 - 1e-12)).nonzero()
        count = min(count, int(enough[0]) + 1 if len(enough) else count)
    return Singular(
        found.u[:, :count], found.s[:count], found.vh[:count], found.residuals[:count], found.energy, found.spectral
    )


def _judged(product: Product, found: Singular, generator: torch.Generator | None) -> Singular:
    """With residuals, and with the bound if there is a generator for its random vectors."""
    back = product.left(found.u)
    residuals = torch.linalg.vector_norm(back.double() - found.vh.T.double() * found.s, dim=0)
    bound = _remainder(product, found, generator) if generator is not None else None
    return Singular(found.u, found.s, found.vh, residuals, found.energy, bound)


def _remainder(product: Product, found: Singular, generator: torch.Generator) -> float:
    """A bound on ||E||_2, E = W (I - V V^T), from the growth of random unit vectors x under M = E^T E.

    ||E||_2^2 <= t max_x (x^T M^j x)^(1/j) but for a probability of (0.8 sqrt(n) t^(-j/2))^probes (Dixon, 1983, theorem
    1, doi 10.1137/0720053, for independent x); never more than ||E||_F.
    """
    exact = math.sqrt(found.left)
    if exact == 0.0:
        return 0.0
    v = found.vh.T
    x = torch.randn(product.rows.columns, _PROBES, generator=generator, dtype=torch.float64).to(product.dtype)
    x = x / torch.linalg.vector_norm(x, dim=0)
    logs = torch.zeros(_PROBES, dtype=torch.float64)
    for _ in range(_STEPS):
        y = product.right(x - v @ (v.T @ x))
        x = product.left(y)
        x = x - v @ (v.T @ x)
        sizes = torch.linalg.vector_norm(x, dim=0, dtype=torch.float64)
        logs += sizes.log()
        x = x / sizes.clamp_min(1e-300).to(x.dtype)
    # ||M^steps x||^2 = x^T M^(2 steps) x.
    grown = math.exp(float(logs.max()) / (2 * _STEPS))
    slack = (0.8 * math.sqrt(product.rows.columns) / FAILURE ** (1 / _PROBES)) ** (1 / (2 * _STEPS))
    return min(exact, slack * grown)


def _of_factors(delta: LowRank) -> Singular:
    """All triples of a low-rank delta, in float64: QR of both factors, SVD of the (r, r) core."""
    q_left, r_left = torch.linalg.qr(delta.b.double() * delta.scale)
    q_right, r_right = torch.linalg.qr(delta.a.double().T)
    u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    energy = float(s.square().sum())
    if not math.isfinite(energy):
        raise RuleError("the factors hold NaN or infinite values; their singular values are not defined")
    return Singular(q_left @ u, s, vh @ q_right.T, torch.zeros_like(s), energy, 0.0)
