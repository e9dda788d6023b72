"""Inner products, norms, cosines and exact spectra of deltas, from factors where there are factors.

Everything runs in float64: the matrices involved are r-sized, so it is free, and nearly orthogonal deltas lose
relative digits in anything less.
"""

import math

import torch
from torch import Tensor

from crossmatch.delta.compound import Stack
from crossmatch.delta.deltas import Delta, LowRank, dense
from crossmatch.errors import RuleError

# Below this the squares that a norm is made of have lost digits.
_SMALLEST = 1e-140


def inner(x: Delta, y: Delta) -> float:
    """Frobenius inner product <X, Y> = tr(X^T Y).

    For two low-rank deltas sum((B1^T B2) * (A1 A2^T)) with the scales on the left factors: O((m + n) r1 r2).
    Raises RuleError if the shapes differ.
    """
    if x.shape != y.shape:
        raise RuleError(f"inner product of different shapes: {x.shape} and {y.shape}")
    if isinstance(x, Stack) and isinstance(y, Stack):
        return sum(inner(one, other) for one, other in zip(x.parts, y.parts, strict=True))
    if isinstance(x, LowRank) and isinstance(y, LowRank):
        left = _left(x).T @ _left(y)
        right = x.a.double() @ y.a.double().T
        return float((left * right).sum())
    if isinstance(x, LowRank):
        return inner(y, x)
    if isinstance(y, LowRank):
        return float(((dense(x).reshape(y.height, y.columns) @ y.a.double().T) * _left(y)).sum())
    return float((dense(x) * dense(y)).sum())


def norm(x: Delta) -> float:
    """Frobenius norm of a delta; through the singular values for factors, so that no square is cancelled."""
    if isinstance(x, Stack):
        return math.hypot(*(norm(part) for part in x.parts))
    if isinstance(x, LowRank):
        return frobenius(singular_values(x))
    return frobenius(dense(x))


def frobenius(values: Tensor) -> float:
    """sqrt(sum x^2) in float64; of numbers whose squares leave its range, too: these are brought near one first."""
    size = float(torch.linalg.vector_norm(values, dtype=torch.float64))
    if _SMALLEST < size < math.inf or not values.numel():
        return size
    largest = float(values.abs().max())
    if not 0.0 < largest < math.inf:
        return largest
    return largest * float(torch.linalg.vector_norm(values.double() / largest))


def cosine(x: Delta, y: Delta) -> float | None:
    """<X, Y> / (||X|| ||Y||), or None where one of them is zero."""
    sizes = norm(x), norm(y)
    if 0.0 in sizes:
        return None
    # Brought to length one first: products of tiny numbers are zero.
    one, other = (delta.scaled(1.0 / size) for delta, size in zip((x, y), sizes, strict=True))
    return max(-1.0, min(1.0, inner(one, other)))


def singular_values(x: Delta) -> Tensor:
    """All singular values of D in descending order, float64.

    For factors: QR of B diag(s) and of A^T, then the SVD of the (r, r) core, so that a matrix of 17408 x 5120 costs
    what its rank costs. min(m, n, r) values are returned.
    """
    if not isinstance(x, LowRank):
        return torch.linalg.svdvals(dense(x).reshape(x.height, x.columns))
    r_left = torch.linalg.qr(_left(x), mode="r").R
    r_right = torch.linalg.qr(x.a.double().T, mode="r").R
    return torch.linalg.svdvals(r_left @ r_right.T)[: min(x.height, x.columns, x.rank)]


def _left(x: LowRank) -> Tensor:
    return x.b.double() * x.scale


def random_like(x: Delta, generator: torch.Generator) -> LowRank:
    """A delta with the singular values of D and random singular vectors, uniform over all orthonormal ones.

    Those of a Gaussian matrix's QR, signs made unique (Mezzadri, math-ph/0609050); factors in float64.
    """
    sigma = singular_values(x)
    sides = []
    for size in (x.height, x.columns):
        q, r = torch.linalg.qr(torch.randn(size, len(sigma), generator=generator, dtype=torch.float64))
        sides.append(q * r.diagonal().sign())
    dims = None if x.shape == (x.height, x.columns) else x.shape
    return LowRank(sides[0], sides[1].T.contiguous(), sigma.clone(), dims)


def truncated(x: LowRank, rank: int) -> tuple[LowRank, float]:
    """The best approximation of D by a delta of `rank`, and the Frobenius norm of what it leaves out.

    QR of both factors, SVD of the (r, r) core, the first `rank` triples kept: error = sqrt(sum_{i>k} sigma_i^2)
    (Eckart & Young, 1936). The factors come back in float64, sqrt(sigma) on each side, scale 1.
    """
    q_left, r_left = torch.linalg.qr(_left(x))
    q_right, r_right = torch.linalg.qr(x.a.double().T)
    u, sigma, vh = torch.linalg.svd(r_left @ r_right.T)
    root = sigma[:rank].sqrt()
    b, a = (q_left @ u[:, : len(root)]) * root, root[:, None] * (q_right @ vh[: len(root)].T).T
    kept = LowRank(b, a, torch.ones(len(root), dtype=torch.float64), x.dims)
    return kept, frobenius(sigma[rank:])
