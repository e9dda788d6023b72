"""W and a change of it on growing bases of left and right directions, as `crossmatch.analysis.weights.spectral_shifts`
reads them."""

import torch
from torch import Tensor

from crossmatch.analysis.weights.spectral_mass import largest_mass
from crossmatch.delta import LowRank, Product, Rows, Singular

# Of W's directions those count whose singular value is this share of the largest: on others W does nothing.
ACTIVE = 0.01
# The least distance of squares, as a share, that a residual is divided by.
_NEAREST = 1e-3


class Matrix:
    """Products with W, and how bases are extended by residuals. every: all triples of a small W."""

    def __init__(self, product: Product, every: Singular | None) -> None:
        self.product, self.every = product, every

    def right(self, x: Tensor) -> Tensor:
        """W x."""
        return self.product.right(x).double()

    def left(self, y: Tensor) -> Tensor:
        """W^T y."""
        return self.product.left(y).double()

    def further(self, above: Tensor, below: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """By the residuals themselves."""
        return above, below

    def beyond(self, vectors: Tensor, known: Tensor, sigma: Tensor, threshold: float) -> tuple[Tensor, bool]:
        """(c,): largest |cosine| of each of the vectors (m, c) with the directions of W that are not among the known
        ones (m, K), of singular values sigma (K,); and whether that is exact, or an upper bound, which is only brought
        down where it reaches the threshold."""
        if self.every is not None:
            others = active(self.every.s) & (torch.arange(len(self.every.s)) >= len(sigma))
            return largest(self.every.u[:, others].T.double() @ vectors), True
        rest = vectors - known @ (known.T @ vectors)
        size = torch.linalg.vector_norm(rest, dim=0)
        least, most = (ACTIVE * float(sigma[0])) ** 2, float(sigma[-1]) ** 2
        wanted = (size >= threshold).nonzero()[:, 0]
        if len(wanted) and least < most:
            unit = rest[:, wanted] / size[wanted]
            size[wanted] *= largest_mass(lambda x: self.right(self.left(x)), unit, known, least, most).sqrt()
        elif len(wanted):
            size[wanted] = 0.0
        return size, False


class Spectrum:
    """The same in the coordinates of W's own singular vectors, where W is its singular values, and zero elsewhere.

    sigma: all singular values (r,); height, width: of the coordinates; known: how many of the first are in the bases.
    """

    def __init__(self, sigma: Tensor, height: int, width: int, known: int) -> None:
        self.sigma, self.height, self.width, self.known = sigma, height, width, known

    def right(self, x: Tensor) -> Tensor:
        """W x."""
        return self._scaled(x, self.height)

    def left(self, y: Tensor) -> Tensor:
        """W^T y."""
        return self._scaled(y, self.width)

    def further(self, above: Tensor, below: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """By the residuals through (s^2 - sigma^2)^-1 [s, sigma; sigma, s], which solves for what W does to a pair
        (Davidson); of the change only its square over the distance of values is left."""
        rank = len(self.sigma)
        sigma = self.sigma[:, None]
        gap = s.square() - sigma.square()
        gap = torch.where(gap.abs() < _NEAREST * s.square(), _NEAREST * s.square(), gap)
        one, other = above / s, below / s
        one[:rank] = (s * above[:rank] + sigma * below[:rank]) / gap
        other[:rank] = (sigma * above[:rank] + s * below[:rank]) / gap
        one[: self.known], other[: self.known] = 0.0, 0.0
        return one, other

    def beyond(self, vectors: Tensor, _: Tensor, sigma: Tensor, threshold: float) -> tuple[Tensor, bool]:
        """As of a matrix, exactly: coordinates are cosines."""
        del threshold
        others = active(self.sigma) & (torch.arange(len(self.sigma)) >= len(sigma))
        return largest(vectors[: len(self.sigma)][others]), True

    def _scaled(self, x: Tensor, size: int) -> Tensor:
        out = x.new_zeros(size, x.shape[1])
        out[: len(self.sigma)] = self.sigma[:, None] * x[: len(self.sigma)]
        return out


def active(sigma: Tensor) -> Tensor:
    """Which of W's directions count, by their singular values, the largest first."""
    return sigma >= ACTIVE * sigma[0]


def largest(cosines: Tensor) -> Tensor:
    """(c,) of (directions, c), of which there may be none."""
    return cosines.abs().amax(0) if len(cosines) else cosines.new_zeros(cosines.shape[1])


def by_spectrum(every: Singular, delta: LowRank, known: int) -> tuple[Spectrum, LowRank, Singular]:
    """W, a change and W's leading directions, in coordinates: of W's singular vectors, then of what the change adds."""
    b, a = _inside(every.u, delta.b.double() * delta.scale), _inside(every.vh.T, delta.a.double().T)
    height, width = b.shape[0], a.shape[0]
    left = torch.eye(height, known, dtype=torch.float64)
    right = torch.eye(known, width, dtype=torch.float64)
    space = Singular(left, every.s[:known], right, every.residuals[:known], every.energy, None)
    moved = LowRank(b, a.T.contiguous(), torch.ones(b.shape[1], dtype=torch.float64))
    return Spectrum(every.s, height, width, known), moved, space


def _inside(basis: Tensor, vectors: Tensor) -> Tensor:
    """Coordinates of vectors (m, l) on an orthonormal basis (m, r), then on what they add to it, if it is not all."""
    known = basis.T @ vectors
    if basis.shape[1] >= basis.shape[0]:
        return known
    return torch.cat([known, torch.linalg.qr(vectors - basis @ known).R])


class Factors:
    """A change D = B A on growing bases L (m, K) and R (n, K); all that is read of D costs its rank."""

    def __init__(self, delta: LowRank) -> None:
        self.b, self.a = delta.b.double() * delta.scale, delta.a.double()
        self.on_left, self.on_right = self.b[:0], self.a[:, :0]

    def start(self) -> tuple[Tensor, Tensor]:
        """Directions into which D writes, and from which it reads."""
        return self.b, self.a.T

    def core(self, left: Tensor, right: Tensor) -> Tensor:
        """L^T D R."""
        self.on_left, self.on_right = left.T @ self.b, self.a @ right
        return self.on_left @ self.on_right

    def right(self, theirs: Tensor) -> Tensor:
        """D R y, for coordinates y on R."""
        return self.b @ (self.on_right @ theirs)

    def left(self, ours: Tensor, _: Tensor) -> Tensor:
        """D^T L x, for coordinates x on L."""
        return self.a.T @ (self.on_left.T @ ours)


class Dense:
    """The same of a change that is read in rows."""

    def __init__(self, delta: Rows) -> None:
        self.product = Product(delta.held())
        self.moved = torch.zeros(delta.height, 0, dtype=torch.float64)

    def start(self) -> tuple[Tensor, Tensor]:
        """None are known."""
        return self.moved[:, :0], torch.zeros(self.product.rows.columns, 0, dtype=torch.float64)

    def core(self, left: Tensor, right: Tensor) -> Tensor:
        """L^T D R; only of what is new in R is there a product with D."""
        new = self.product.right(right[:, self.moved.shape[1] :]).double()
        self.moved = torch.cat([self.moved, new], 1)
        return left.T @ self.moved

    def right(self, theirs: Tensor) -> Tensor:
        """D R y, for coordinates y on R."""
        return self.moved @ theirs

    def left(self, _: Tensor, first: Tensor) -> Tensor:
        """D^T L x, for L x itself."""
        return self.product.left(first).double()
