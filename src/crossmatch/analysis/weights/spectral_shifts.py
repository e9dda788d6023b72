"""Three readings of what fine-tuning does to a matrix's singular directions, in the same units, each beside its null.

New directions: intruders, leading vectors of W + D that no vector of W comes near (Shuttleworth et al., 2410.21228). An
amplified spectrum: leading singular values that grow (2505.23099). Scaling and rotation: values that all grow alike,
left and right vectors that turn together (2509.17866). The null is the same W with a random delta of D's singular
values.

For factors nothing of size m x n is formed. In the basis [U, rest of B], [V, rest of A^T], with U, V the leading K
directions of W, W + D is the small core diag(sigma, 0) + [U^T B; R_B] [V^T A^T; R_A]^T, but for what W does beyond its
K directions, which is at most `Singular.spectral`: leading values far above it are right, those near it are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from crossmatch.analysis.weights.delta_matrix import (
    DENSE_TRIPLES,
    EXACT,
    Change,
    Place,
)
from crossmatch.analysis.weights.norms import groups
from crossmatch.analysis.weights.random_baselines import Figure, mean
from crossmatch.delta import (
    HELD_ELEMENTS,
    LowRank,
    Product,
    Rows,
    Singular,
)

# Leading directions that are looked at, and the cosine below which one is an intruder.
TOP, THRESHOLD = 10, 0.6
# Directions of W that take part: the cost is that of an SVD of this size, for the delta and for every draw of its null.
KNOWN = 128
DRAWS = 4
# Of W + D whole: products with it and its transpose from where W's own directions lie.
_ROUNDS = 2
NAMES = ("intruders", "amplified", "spread", "turned", "coordination")


@dataclass(frozen=True)
class Readings:
    """Of one matrix, or the mean over n of a group; each figure with its null.

    intruders: share of the `TOP` leading left singular vectors of W + D whose largest |cosine| with those of W that are
    known is below `THRESHOLD`; amplified: mean of sigma'_i / sigma_i - 1 over the `TOP` leading pairs; spread: standard
    deviation of sigma'_i / sigma_i over more of them (uniform scaling: small); turned: mean sine between u_i and u'_i
    over the leading `TOP`; coordination: cosine of the off-diagonal parts of U^T U' and V^T V' (1: left and right turn
    together). certain: whether the leading values lie above what W may do beyond its known directions.
    """

    level: str
    key: str | int | None
    place: Place | None
    n: int
    figures: dict[str, Figure]
    certain: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        where = self.place.to_dict() if self.place is not None else {"key": self.key}
        figures = {name: figure.to_dict() for name, figure in self.figures.items()}
        return {"level": self.level, **where, "n": self.n, **figures, "certain": self.certain}


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
    if change.factors is not None:
        found = _turned(_core(change.factors, space), space.s, count)
        nulls = [_turned(_random_core(change, space, rng), space.s, count) for _ in range(draws)]
        smallest = float(space.s[count - 1])
    else:
        whole = change.rows.height * change.rows.columns
        if whole > HELD_ELEMENTS:
            return "a dense change of this size is not kept in memory"
        few = draws // 2 if min(change.place.shape) <= EXACT else 1
        base = change.base.held()
        found = _dense(base, change.rows, space, count)
        nulls = [_dense(base, _shuffled(change.rows, rng), space, count) for _ in range(few)]
        smallest = float("inf")
    certain = space.spectral is not None and smallest > space.spectral
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


def _core(delta: LowRank, space: Singular) -> Tensor:
    """W + D in the joint basis: (K + r, K + r) float64."""
    left = _coordinates(space.u.double(), delta.b.double() * delta.scale)
    right = _coordinates(space.vh.T.double(), delta.a.double().T)
    return _with_base(left @ right.T, space.s)


def _coordinates(basis: Tensor, vectors: Tensor) -> Tensor:
    """(K + r, r): of vectors (m, r) in a basis (m, K) and in an orthonormal one of what that leaves."""
    inside = basis.T @ vectors
    rest = vectors - basis @ inside
    # The vectors of the basis are orthonormal to single precision: what is left of them is taken out again.
    again = basis.T @ rest
    return torch.cat([inside + again, torch.linalg.qr(rest - basis @ again, mode="r").R])


def _with_base(core: Tensor, sigma: Tensor) -> Tensor:
    core = core.clone()
    core.diagonal()[: len(sigma)] += sigma
    return core


def _random_core(change: Change, space: Singular, rng: np.random.Generator) -> Tensor:
    s = change.singular.s
    sides = [torch.from_numpy(_random_coordinates(size, len(space.s), len(s), rng)) for size in change.place.shape]
    return _with_base((sides[0] * s) @ sides[1].T, space.s)


def _random_coordinates(size: int, known: int, rank: int, rng: np.random.Generator) -> np.ndarray:
    """(known + rank, rank): uniform orthonormal vectors of `size` dimensions in the same coordinates.

    Those of a Gaussian (size, rank) after QR: its first rows as they are, of the rest only the triangular factor, whose
    entries are normal and, on the diagonal, chi (Bartlett's decomposition).
    """
    rest = size - known
    if rest > rank:
        lower = np.triu(rng.standard_normal((rank, rank)), 1)
        lower += np.diag(np.sqrt(rng.chisquare(rest - np.arange(rank))))
    else:
        lower = np.zeros((rank, rank))
        lower[:rest] = rng.standard_normal((rest, rank))
    q, r = np.linalg.qr(np.concatenate([rng.standard_normal((known, rank)), lower]))
    return q * np.sign(np.diagonal(r))


def _turned(core: Tensor, sigma: Tensor, count: int) -> dict[str, float]:
    u, s, vh = torch.linalg.svd(core)
    known = len(sigma)
    return _measures(u[:known], s, vh.T[:known], sigma, count)


def _dense(base: Rows, delta: Rows, space: Singular, count: int) -> dict[str, float]:
    """From the leading directions of W + D, found by subspace iteration that starts at those of W."""
    both = Rows(base.height, base.columns, lambda a, b: base.read(a, b).float() + delta.read(a, b).float())
    product = Product(both.held())
    basis = space.vh.T
    for _ in range(_ROUNDS):
        basis = torch.linalg.qr(product.left(torch.linalg.qr(product.right(basis)).Q)).Q
    q, r = torch.linalg.qr(product.right(basis).double())
    u, s, vh = torch.linalg.svd(r)
    left, right = space.u.double().T @ (q @ u), space.vh.double() @ (basis.double() @ vh.T)
    return _measures(left, s, right, space.s, count)


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
