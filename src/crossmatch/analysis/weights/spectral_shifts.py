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

from collections.abc import Callable, Sequence
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


def read(change: Change, space: Singular, *, seed: int = 0, draws: int = DRAWS) -> Readings | str:
    """The readings of one change, or in words why there are none. seed: of the random deltas of the null, together with
    the module's name."""
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
    base = Product(change.base.held())
    found, certain = _leading(base, delta, space, count)
    nulls = [_leading(base, _random(change, rng), space, count)[0] for _ in range(draws)]
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


@dataclass(frozen=True, eq=False)
class _Delta:
    """Products with a change: right(x) = D x, left(y) = D^T y; float64."""

    right: Callable[[Tensor], Tensor]
    left: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, delta: LowRank | Rows) -> "_Delta":
        """From its factors, or from its rows."""
        if isinstance(delta, LowRank):
            b, a = delta.b.double() * delta.scale, delta.a.double()
            return cls(lambda x: b @ (a @ x), lambda y: a.T @ (b.T @ y))
        product = Product(delta.held())
        return cls(lambda x: product.right(x).double(), lambda y: product.left(y).double())


def _leading(base: Product, delta: LowRank | Rows, space: Singular, count: int) -> tuple[dict[str, float], bool]:
    """The measures of W + D, and whether its leading pairs are converged.

    On the bases L = [U, l] and R = [V, r] with W = U diag(sigma) V^T + E, W + D is diag(sigma) + l^T E r + L^T D R.
    Pairs are converged where the mean of residual over distance to the next value, a bound on the sines of their
    angles, is at most `CONVERGED`.
    """
    u, v, sigma, change = space.u.double(), space.vh.T.double(), space.s, _Delta.of(delta)
    known, certain = len(sigma), False
    empty = u.new_zeros(u.shape[0], 0), v.new_zeros(v.shape[0], 0)
    left, right, images, back = empty[0], empty[1], empty[0], empty[1]
    moved = change.right(v)
    new = (delta.b.double(), delta.a.double().T) if isinstance(delta, LowRank) else empty
    for turn in range(_ROUNDS + 1):
        more = _rest(new[0], torch.cat([u, left], 1)), _rest(new[1], torch.cat([v, right], 1))
        left, right = torch.cat([left, more[0]], 1), torch.cat([right, more[1]], 1)
        # What lies beyond the known directions: the rest is in sigma.
        images = torch.cat([images, base.right(more[1]).double()], 1)
        back = torch.cat([back, base.left(more[0]).double()], 1)
        moved = torch.cat([moved, change.right(more[1])], 1)
        core = torch.cat([u, left], 1).T @ moved
        core[known:, known:] += left.T @ images
        core.diagonal()[:known] += sigma
        x, s, yh = torch.linalg.svd(core, full_matrices=False)
        y = yh.T
        ours, theirs = x[:, :count], y[:, :count]
        first = u @ ours[:known] + left @ ours[known:]
        second = v @ theirs[:known] + right @ theirs[known:]
        above = u @ (sigma[:, None] * theirs[:known]) + images @ theirs[known:] + moved @ theirs - first * s[:count]
        below = v @ (sigma[:, None] * ours[:known]) + back @ ours[known:] + change.left(first) - second * s[:count]
        size = ((above.square().sum(0) + below.square().sum(0)) / 2).sqrt()
        steps = torch.cat([s.new_full((1,), torch.inf), s[:-1] - s[1:]])
        gaps = torch.minimum(steps, torch.cat([steps[1:], s.new_full((1,), torch.inf)]))[:count]
        certain = bool((size / gaps.clamp_min(1e-300)).clamp_max(1.0).mean() <= CONVERGED)
        if certain or turn == _ROUNDS:
            return _measures(x[:known], s, y[:known], sigma, count), certain
        new = above, below
    raise AssertionError("the last round returns")


def _rest(vectors: Tensor, basis: Tensor) -> Tensor:
    """An orthonormal basis of what vectors (m, l) have outside a basis (m, K), without what is only rounding."""
    size = float(torch.linalg.vector_norm(vectors))
    if vectors.shape[1] == 0 or size == 0 or basis.shape[1] >= basis.shape[0]:
        return vectors[:, :0]
    rest = vectors - basis @ (basis.T @ vectors)
    # The vectors of the basis are orthonormal to single precision: what is left of them is taken out again.
    rest = rest - basis @ (basis.T @ rest)
    found, s, _ = torch.linalg.svd(rest, full_matrices=False)
    kept = found[:, (s > 1e-9 * size)][:, : basis.shape[0] - basis.shape[1]]
    return torch.linalg.qr(kept - basis @ (basis.T @ kept)).Q


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
