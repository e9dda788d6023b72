"""Three readings of what fine-tuning does to a matrix's singular directions, in the same units, each beside its null.

New directions: intruders, leading vectors of W + D that no vector of W comes near (Shuttleworth et al., 2410.21228). An
amplified spectrum: leading singular values that grow (2505.23099). Scaling and rotation: values that all grow alike,
left and right vectors that turn together (2509.17866). The null is the same W with a random delta of D's singular
values.

W + D is never formed. It is projected on both sides to bases that start with the K leading directions of W and what D's
factors add to them, where the known part of W is diag(sigma), exact, so that small shifts keep their digits. What W
does beyond its K directions is multiplied, not dropped: the bases are extended by the residuals of the leading pairs
(as Davidson's method does) until those are converged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from crossmatch.analysis.weights.delta_matrix import DENSE_TRIPLES, EXACT, Change, Place
from crossmatch.analysis.weights.norms import groups, place_json
from crossmatch.analysis.weights.random_baselines import Figure, mean
from crossmatch.delta import HELD_ELEMENTS, LowRank, Product, Rows, Singular
from crossmatch.results.analysis import ReadingsJson

# Leading directions that are looked at, and the cosine below which one is an intruder.
TOP, THRESHOLD = 10, 0.6
# Directions of W that take part: the cost is that of an SVD of this size, for the delta and for every draw of its null.
KNOWN = 128
DRAWS = 4
# Leading pairs of W + D are converged at this mean sine of their angles; so often bases are extended at most.
CONVERGED = 0.005
_ROUNDS = 12
# Singular values below this share of the largest are not read from squares.
_NEAR_ZERO = 1e-5
# The least distance of squares, as a share, that a residual is divided by.
_NEAREST = 1e-3
NAMES = ("intruders", "amplified", "spread", "turned", "coordination")


@dataclass(frozen=True)
class Readings:
    """Of one matrix, or the mean over n of a group; each figure with its null.

    intruders: share of the `TOP` leading left singular vectors of W + D whose largest |cosine| with those of W that are
    known is below `THRESHOLD`; amplified: mean of sigma'_i / sigma_i - 1 over the `TOP` leading pairs; spread: standard
    deviation of sigma'_i / sigma_i over more of them (uniform scaling: small); turned: mean sine between u_i and u'_i
    over the leading `TOP`; coordination: cosine of the off-diagonal parts of U^T U' and V^T V' (1: left and right turn
    together). certain: whether the `TOP` leading pairs of W + D are converged, in angle to `CONVERGED` on average,
    which bounds the error of `turned`; `intruders` and `amplified` are made of the same pairs.
    """

    level: str
    key: str | int | None
    place: Place | None
    n: int
    figures: dict[str, Figure]
    certain: bool

    def to_dict(self) -> ReadingsJson:
        """As plain JSON."""
        figures = {name: figure.to_dict() for name, figure in self.figures.items()}
        return {
            "level": self.level,
            **place_json(self.place, self.key),
            "n": self.n,
            "intruders": figures["intruders"],
            "amplified": figures["amplified"],
            "spread": figures["spread"],
            "turned": figures["turned"],
            "coordination": figures["coordination"],
            "certain": self.certain,
        }


def read(
    change: Change, space: Singular, every: Singular | None = None, *, seed: int = 0, draws: int = DRAWS
) -> Readings | str:
    """The readings of one change, or in words why there are none. every: all triples of a small W, by which a change of
    low rank is read in fewer rounds; seed: of the random deltas of the null, together with the module's name."""
    space = space.first(KNOWN)
    count = min(TOP, len(space.s) // 2)
    if count < 1 or float(space.s[0]) <= 0:
        return "the base's matrix is too small or zero"
    if change.singular.energy <= 0:
        return "nothing was changed"
    rng = np.random.default_rng([seed, crc32(change.place.name.encode())])
    delta: LowRank | Rows = change.rows
    if change.factors is not None:
        delta = change.factors
    elif change.rows.height * change.rows.columns > HELD_ELEMENTS:
        return "a dense change of this size is not kept in memory"
    else:
        draws = draws // 2 if min(change.place.shape) <= EXACT else 1
    deltas = [delta, *(_random(change, rng) for _ in range(draws))]
    if every is None:
        base = _Matrix(Product(change.base.held()))
        done = [_leading(base, one, space, count) for one in deltas]
    else:
        done = [_leading(*_by_spectrum(every, one, len(space.s)), count) for one in deltas if isinstance(one, LowRank)]
    (found, certain), *others = done
    nulls = [figures for figures, _ in others]
    return Readings("module", None, change.place, 1, _figures(found, nulls), certain)


def grouped(rows: Sequence[Readings]) -> list[Readings]:
    """Means over modules by type, by layer and over all."""
    return [
        Readings(
            level,
            key,
            None,
            len(members),
            {name: mean([m.figures[name] for m in members]) for name in NAMES},
            all(m.certain for m in members),
        )
        for (level, key), members in groups(rows).items()
    ]


def _figures(found: dict[str, float], nulls: Sequence[dict[str, float]]) -> dict[str, Figure]:
    figures = {}
    for name in NAMES:
        drawn = [null[name] for null in nulls]
        spread = float(np.std(drawn, ddof=1)) if len(drawn) > 1 else None
        figures[name] = Figure(found[name], float(np.mean(drawn)) if drawn else None, spread)
    return figures


class _Matrix:
    """Products with W, and how bases are extended by residuals."""

    def __init__(self, product: Product) -> None:
        self.product = product

    def right(self, x: Tensor) -> Tensor:
        """W x."""
        return self.product.right(x).double()

    def left(self, y: Tensor) -> Tensor:
        """W^T y."""
        return self.product.left(y).double()

    def further(self, above: Tensor, below: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """By the residuals themselves."""
        return above, below


class _Spectrum:
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

    def _scaled(self, x: Tensor, size: int) -> Tensor:
        out = x.new_zeros(size, x.shape[1])
        out[: len(self.sigma)] = self.sigma[:, None] * x[: len(self.sigma)]
        return out


def _by_spectrum(every: Singular, delta: LowRank, known: int) -> tuple[_Spectrum, LowRank, Singular]:
    """W, a change and W's leading directions, in coordinates: of W's singular vectors, then of what the change adds."""
    b, a = _inside(every.u, delta.b.double() * delta.scale), _inside(every.vh.T, delta.a.double().T)
    height, width = b.shape[0], a.shape[0]
    left = torch.eye(height, known, dtype=torch.float64)
    right = torch.eye(known, width, dtype=torch.float64)
    space = Singular(left, every.s[:known], right, every.residuals[:known], every.energy, None)
    moved = LowRank(b, a.T.contiguous(), torch.ones(b.shape[1], dtype=torch.float64))
    return _Spectrum(every.s, height, width, known), moved, space


def _inside(basis: Tensor, vectors: Tensor) -> Tensor:
    """Coordinates of vectors (m, l) on an orthonormal basis (m, r), then on what they add to it, if it is not all."""
    known = basis.T @ vectors
    if basis.shape[1] >= basis.shape[0]:
        return known
    return torch.cat([known, torch.linalg.qr(vectors - basis @ known).R])


class _Factors:
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


class _Dense:
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


def _leading(
    base: _Matrix | _Spectrum, delta: LowRank | Rows, space: Singular, count: int
) -> tuple[dict[str, float], bool]:
    """The measures of W + D, and whether its leading pairs are converged.

    On the bases L = [U, l] and R = [V, r] with W = U diag(sigma) V^T + E, W + D is diag(sigma) + l^T E r + L^T D R.
    Pairs are converged where the mean of residual over distance to the next value, a bound on the sines of their
    angles, is at most `CONVERGED`.
    """
    left, right, sigma = space.u.double(), space.vh.T.double(), space.s
    change = _Factors(delta) if isinstance(delta, LowRank) else _Dense(delta)
    known = len(sigma)
    kept = max(count, min(DENSE_TRIPLES, known // 2))
    images, back = left[:, :0], right[:, :0]
    new = change.start()
    for turn in range(_ROUNDS + 1):
        more = _rest(new[0], left), _rest(new[1], right)
        left, right = torch.cat([left, more[0]], 1), torch.cat([right, more[1]], 1)
        # What lies beyond the known directions: the rest is in sigma.
        images = torch.cat([images, base.right(more[1])], 1)
        back = torch.cat([back, base.left(more[0])], 1)
        core = change.core(left, right)
        core[known:, known:] += left[:, known:].T @ images
        core.diagonal()[:known] += sigma
        x, s, y = _triples(core, kept)
        ours, theirs = x[:, :count], y[:, :count]
        first, second = left @ ours, right @ theirs
        above = left[:, :known] @ (sigma[:, None] * theirs[:known]) + images @ theirs[known:] - first * s[:count]
        below = right[:, :known] @ (sigma[:, None] * ours[:known]) + back @ ours[known:] - second * s[:count]
        above, below = above + change.right(theirs), below + change.left(ours, first)
        size = ((above.square().sum(0) + below.square().sum(0)) / 2).sqrt()
        steps = torch.cat([s.new_full((1,), torch.inf), s[:-1] - s[1:]])
        gaps = torch.minimum(steps, torch.cat([steps[1:], s.new_full((1,), torch.inf)]))[:count]
        certain = bool((size / gaps.clamp_min(1e-300)).clamp_max(1.0).mean() <= CONVERGED)
        if certain or turn == _ROUNDS:
            return _measures(x[:known], s, y[:known], sigma, count), certain
        new = base.further(above, below, s[:count])
    raise AssertionError("the last round returns")


def _triples(core: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (m, kept), all singular values, y (n, kept) of a small matrix.

    From the eigenvectors of core^T core, which is half the work of an SVD: values keep a relative error of 1e-16 times
    (s_1 / s_i)^2, so that only those near zero need the SVD itself.
    """
    squares, y = torch.linalg.eigh(core.T @ core)
    s = squares.flip(0).clamp_min(0.0).sqrt()
    if len(s) < kept or float(s[kept - 1]) <= _NEAR_ZERO * float(s[0]):
        x, s, yh = torch.linalg.svd(core, full_matrices=False)
        return x[:, :kept], s, yh.T[:, :kept]
    y = y.flip(1)[:, :kept]
    return core @ y / s[:kept], s, y


def _rest(vectors: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal directions that add what vectors (m, l) have outside a basis (m, K), without mere rounding."""
    size = float(torch.linalg.vector_norm(vectors))
    if vectors.shape[1] == 0 or size == 0 or basis.shape[1] >= basis.shape[0]:
        return vectors[:, :0]
    rest = vectors - basis @ (basis.T @ vectors)
    # The vectors of the basis are orthonormal to single precision: what is left of them is taken out again.
    rest = rest - basis @ (basis.T @ rest)
    lengths = torch.linalg.vector_norm(rest, dim=0)
    kept = lengths > 1e-9 * size
    found = torch.linalg.qr(rest[:, kept] / lengths[kept]).Q[:, : basis.shape[0] - basis.shape[1]]
    found = found - basis @ (basis.T @ found)
    # Of vectors that depend on each other QR makes directions of chance, and these may lie in the basis.
    found = found[:, torch.linalg.vector_norm(found, dim=0) > 0.5]
    return torch.linalg.qr(found).Q


def _random(change: Change, rng: np.random.Generator) -> LowRank | Rows:
    """A random change of the same singular values."""
    if change.factors is None:
        return _shuffled(change.rows, rng)
    s = change.singular.s
    sides = [torch.from_numpy(_orthonormal(size, len(s), rng)) for size in change.place.shape]
    return LowRank(sides[0], sides[1].T.contiguous(), s.double())


def _orthonormal(size: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    """(size, rank): uniform orthonormal vectors."""
    q, r = np.linalg.qr(rng.standard_normal((size, rank)))
    return q * np.sign(np.diagonal(r))


def _shuffled(rows: Rows, rng: np.random.Generator) -> Rows:
    """Rows and columns in random order, with random signs: the same singular values, vectors that point elsewhere."""
    whole = torch.cat([block for _, block in rows.blocks()])
    for axis in (0, 1):
        size = whole.shape[axis]
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], size)).to(whole.dtype)
        whole = whole.index_select(axis, torch.from_numpy(rng.permutation(size)))
        whole = whole * (signs[:, None] if axis == 0 else signs)
    return Rows.of(whole)


def _measures(left: Tensor, s: Tensor, right: Tensor, sigma: Tensor, count: int) -> dict[str, float]:
    """left, right: (K, >= count) coordinates of the vectors of W + D along those of W; s its singular values."""
    more = min(DENSE_TRIPLES, len(sigma) // 2, left.shape[1])
    more = max(count, more)
    ratios = s[:more] / sigma[:more].clamp_min(1e-300)
    nearest = left[:, :count].abs().max(0).values
    u, v = left[:more, :more].clone(), right[:more, :more].clone()
    same = u.diagonal()[:count].abs().clamp_max(1.0)
    turned = float((1 - same.square()).sqrt().mean())
    u.fill_diagonal_(0.0)
    v.fill_diagonal_(0.0)
    size = float(torch.linalg.vector_norm(u) * torch.linalg.vector_norm(v))
    # The sign of a pair of vectors is free, and the same on both sides.
    return {
        "intruders": float((nearest < THRESHOLD).double().mean()),
        "amplified": float(ratios[:count].mean()) - 1.0,
        "spread": float(ratios.std()) if more > 1 else 0.0,
        "turned": turned,
        "coordination": float((u * v).sum()) / size if size > 0 else 0.0,
    }
