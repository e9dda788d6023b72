"""How a change lies to the singular directions of the matrix that it changes: what it amplifies, what it writes anew.

With U, V the k leading left and right singular vectors of W, D is cut into four blocks whose energies add up:

existing -> existing  EE = ||U^T D V||^2          reads new, writes existing  EW = ||U^T D||^2 - EE
reads existing, writes new  ER = ||D V||^2 - EE   new -> new                  NN = the rest
The diagonal of U^T D V is what changes singular values to first order: c_i = u_i^T D v_i / sigma_i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from crossmatch.analysis.weights.delta_matrix import Change, Place
from crossmatch.analysis.weights.norms import groups, place_json
from crossmatch.analysis.weights.random_baselines import Figure, SplitNull, mean, purity
from crossmatch.delta import LowRank, Product, Rows, Singular
from crossmatch.results.analysis import AlignmentJson

# Gains of single directions that are listed.
LISTED = 16
PARTS = ("ee", "ew", "er", "nn", "write_existing", "read_existing", "write_new", "diagonal")


@dataclass(frozen=True, eq=False)
class Projections:
    """Of D on the leading directions of W: energies of u_i^T D and of D v_i, each (K,), the core U^T D V (K, K),
    ||D||^2; all float64."""

    left: Tensor
    right: Tensor
    core: Tensor
    energy: float


def project(delta: LowRank | Rows, space: Singular) -> Projections:
    """The projections of a change; from its factors, if it has any, nothing of size m x n is formed.

    ||u^T B A||^2 = (u^T B) (A A^T) (u^T B)^T, O((m + n + K) K r); dense: two products with K vectors.
    """
    u, vh = space.u.double(), space.vh.double()
    if isinstance(delta, LowRank):
        b, a = delta.b.double() * delta.scale, delta.a.double()
        sees, reads = u.T @ b, a @ vh.T
        left_gram, right_gram = b.T @ b, a @ a.T
        left = ((sees @ right_gram) * sees).sum(1).clamp_min(0)
        right = ((left_gram @ reads) * reads).sum(0).clamp_min(0)
        return Projections(left, right, sees @ reads, float((left_gram * right_gram).sum()))
    product = Product(delta)
    rows = product.left(u).double()
    columns = product.right(vh.T).double()
    return Projections(rows.square().sum(0), columns.square().sum(0), rows.T @ vh.T, product.energy)


@dataclass(frozen=True)
class Alignment:
    """Of one matrix at one k, or the mean over the modules of a group (level type, layer or all, n of them).

    label: how k was asked for (a number, r: the rank of the delta, 90%: as many as hold that much of ||W||_F^2). Each
    part is a share of ||D||_F^2 with its null: ee, ew, er, nn as above; write_existing = ee + ew, read_existing = ee +
    er, write_new = er + nn; diagonal = sum_i (u_i^T D v_i)^2. gain: sum_i sigma_i (u_i^T D v_i) / sum_i sigma_i^2, the
    relative change of the k leading singular values to first order, weighted by their energy; its null is 0. gains: c_i
    of the first `LISTED` directions, of single modules; base_energy: share of ||W||_F^2 in the k directions.
    """

    level: str
    key: str | int | None
    place: Place | None
    label: str
    k: float
    n: int
    parts: dict[str, Figure]
    gain: Figure
    base_energy: float | None
    gains: tuple[float, ...] = ()

    def to_dict(self) -> AlignmentJson:
        """As plain JSON."""
        parts = {name: figure.to_dict() for name, figure in self.parts.items()}
        return {
            "level": self.level,
            **place_json(self.place, self.key),
            "k_label": self.label,
            "k": self.k,
            "n": self.n,
            "ee": parts["ee"],
            "ew": parts["ew"],
            "er": parts["er"],
            "nn": parts["nn"],
            "write_existing": parts["write_existing"],
            "read_existing": parts["read_existing"],
            "write_new": parts["write_new"],
            "diagonal": parts["diagonal"],
            "gain": self.gain.to_dict(),
            "gains": list(self.gains),
            "base_energy": self.base_energy,
        }


def align(change: Change, space: Singular, ks: Sequence[tuple[str, int]]) -> list[Alignment]:
    """One row for every (label, k) with k below both sides of the matrix and not beyond the directions known."""
    delta = change.factors if change.factors is not None else change.rows
    seen = project(delta, space)
    found = change.singular
    q = purity(found.s.square(), found.left, min(change.place.shape) - len(found.s))
    shares = space.shares()
    gains = (seen.core.diagonal() / space.s.clamp_min(1e-300))[:LISTED].tolist()
    return [
        replace(_row(change.place, label, k, split(seen, space, k, q), float(shares[k - 1])), gains=tuple(gains[:k]))
        for label, k in ks
        if 0 < k < min(change.place.shape) and k <= len(space.s)
    ]


def split(seen: Projections, space: Singular, k: int, q: float) -> tuple[dict[str, Figure], Figure]:
    """The parts at k with their nulls, and the gain. q: purity of D's spectrum; a zero delta has None everywhere."""
    m, n = space.u.shape[0], space.vh.shape[1]
    null = SplitNull(m, n, k, q).parts()
    values = _values(seen, k)
    parts = {name: Figure(values.get(part), *null[part]) for name, part in _NULL_OF.items()}
    mean_left, sd_left = null["left"]
    parts["write_new"] = Figure(values.get("write_new"), 1 - mean_left, sd_left)
    diagonal, sigma = seen.core.diagonal()[:k], space.s[:k]
    below = float(sigma.square().sum())
    if seen.energy <= 0 or below <= 0:
        return parts, Figure(None, 0.0)
    gain = float((sigma * diagonal).sum()) / below
    return parts, Figure(gain, 0.0, math.sqrt(seen.energy / (m * n * below)))


_NULL_OF = {part: part for part in ("ee", "ew", "er", "nn", "diagonal")} | {
    "write_existing": "left",
    "read_existing": "right",
}


def _values(seen: Projections, k: int) -> dict[str, float]:
    if seen.energy <= 0:
        return {}
    left, right = (float(side[:k].sum()) / seen.energy for side in (seen.left, seen.right))
    both = float(seen.core[:k, :k].square().sum()) / seen.energy
    values = {"left": left, "right": right, "ee": both, "ew": left - both, "er": right - both}
    values |= {"nn": 1 - left - right + both, "write_new": 1 - left}
    return values | {"diagonal": float(seen.core.diagonal()[:k].square().sum()) / seen.energy}


def _row(place: Place, label: str, k: int, found: tuple[dict[str, Figure], Figure], energy: float) -> Alignment:
    parts, gain = found
    return Alignment("module", None, place, label, k, 1, {name: parts[name] for name in PARTS}, gain, energy)


def grouped(rows: Sequence[Alignment]) -> list[Alignment]:
    """Means over modules by type, by layer and over all, for every label; each module counts the same."""
    result = []
    for label in dict.fromkeys(row.label for row in rows):
        for (level, key), members in groups([row for row in rows if row.label == label]).items():
            parts = {name: mean([m.parts[name] for m in members]) for name in PARTS}
            energies = [m.base_energy for m in members if m.base_energy is not None]
            k, energy = sum(m.k for m in members) / len(members), sum(energies) / len(energies) if energies else None
            gain = mean([m.gain for m in members])
            result.append(Alignment(level, key, None, label, k, len(members), parts, gain, energy))
    return result
