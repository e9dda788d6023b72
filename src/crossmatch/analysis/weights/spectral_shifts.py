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
from crossmatch.analysis.weights.spectral_bases import Dense, Factors, Matrix, Spectrum, active, by_spectrum, largest
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
NAMES = ("intruders", "amplified", "spread", "turned", "coordination")


@dataclass(frozen=True)
class Readings:
    """Of one matrix, or the mean over n of a group; each figure with its null.

    intruders: share of the `TOP` leading left singular vectors of W + D whose largest |cosine| with those of W is below
    `THRESHOLD`; least: of a large W, of which the leading ones alone are known, the share that is below it whatever the
    others are, by a bound (`largest_mass`); amplified: mean of sigma'_i / sigma_i - 1 over the `TOP` leading pairs;
    spread: standard deviation of sigma'_i / sigma_i over more of them (uniform scaling: small); turned: mean sine
    between u_i and u'_i over the leading `TOP`; coordination: cosine of the off-diagonal parts of U^T U' and V^T V' (1:
    left and right turn together). certain: whether the `TOP` leading pairs of W + D are converged, in angle to
    `CONVERGED` on average, of the change and of its null, which bounds the error of `turned` and `amplified`, and no
    direction that is not known, and no angle that is left, changes `intruders`. `spread` and `coordination` are of
    further pairs, too, which are less converged.
    """

    level: str
    key: str | int | None
    place: Place | None
    n: int
    figures: dict[str, Figure]
    least: float
    certain: bool

    def to_dict(self) -> ReadingsJson:
        """As plain JSON."""
        figures = {name: figure.to_dict() for name, figure in self.figures.items()}
        return {
            "level": self.level,
            **place_json(self.place, self.key),
            "n": self.n,
            "intruders": figures["intruders"],
            "intruders_least": self.least,
            "amplified": figures["amplified"],
            "spread": figures["spread"],
            "turned": figures["turned"],
            "coordination": figures["coordination"],
            "certain": self.certain,
        }


def read(
    change: Change, space: Singular, every: Singular | None = None, *, seed: int = 0, draws: int = DRAWS
) -> Readings | str:
    """The readings of one change, or in words why there are none.

    every: all triples of a small W, by which intruders are exact, and a change of low rank is read in fewer rounds;
    seed: of the random deltas of the null, together with the module's name.
    """
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
    if every is None or not isinstance(delta, LowRank):
        base = Matrix(Product(change.base.held()), every)
        done = [_leading(base, one, space, count, bound=one is delta) for one in deltas]
    else:
        done = [_leading(*by_spectrum(every, one, len(space.s)), count) for one in deltas if isinstance(one, LowRank)]
    found, *nulls = done
    certain = found.settled and all(one.converged for one in done)
    figures = _figures(found.figures, [null.figures for null in nulls])
    return Readings("module", None, change.place, 1, figures, found.least, certain)


@dataclass(frozen=True)
class _Measured:
    """One W + D: its figures; least: share of sure intruders; converged: its leading pairs; settled: its intruders."""

    figures: dict[str, float]
    least: float
    converged: bool
    settled: bool


def grouped(rows: Sequence[Readings]) -> list[Readings]:
    """Means over modules by type, by layer and over all."""
    return [
        Readings(
            level,
            key,
            None,
            len(members),
            {name: mean([m.figures[name] for m in members]) for name in NAMES},
            sum(m.least for m in members) / len(members),
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


def _leading(
    base: Matrix | Spectrum, delta: LowRank | Rows, space: Singular, count: int, bound: bool = False
) -> _Measured:
    """The measures of W + D, how many of its intruders are sure, and whether its leading pairs are converged.

    bound: what is not known of W is bounded, where it could make a difference.

    On the bases L = [U, l] and R = [V, r] with W = U diag(sigma) V^T + E, W + D is diag(sigma) + l^T E r + L^T D R.
    Pairs are converged where the mean of residual over distance to the next value, a bound on the sines of their
    angles, is at most `CONVERGED`.
    """
    left, right, sigma = space.u.double(), space.vh.T.double(), space.s
    change = Factors(delta) if isinstance(delta, LowRank) else Dense(delta)
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
        angles = (size / gaps.clamp_min(1e-300)).clamp_max(1.0)
        converged = bool(angles.mean() <= CONVERGED)
        if converged or turn == _ROUNDS:
            figures = _measures(x[:known], s, y[:known], sigma, count)
            near = largest(x[:known, :count][active(sigma)])
            further, exact = base.beyond(first, left[:, :known], sigma, THRESHOLD if bound else 1.0)
            most = torch.maximum(near, further)
            near = most if exact else near
            sure, sure_none = most + angles < THRESHOLD, near - angles >= THRESHOLD
            figures["intruders"] = float((near < THRESHOLD).double().mean())
            return _Measured(figures, float(sure.double().mean()), converged, bool((sure | sure_none).all()))
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
    u, v = left[:more, :more].clone(), right[:more, :more].clone()
    same = u.diagonal()[:count].abs().clamp_max(1.0)
    turned = float((1 - same.square()).sqrt().mean())
    u.fill_diagonal_(0.0)
    v.fill_diagonal_(0.0)
    size = float(torch.linalg.vector_norm(u) * torch.linalg.vector_norm(v))
    # The sign of a pair of vectors is free, and the same on both sides.
    return {
        "amplified": float(ratios[:count].mean()) - 1.0,
        "spread": float(ratios.std()) if more > 1 else 0.0,
        "turned": turned,
        "coordination": float((u * v).sum()) / size if size > 0 else 0.0,
    }
