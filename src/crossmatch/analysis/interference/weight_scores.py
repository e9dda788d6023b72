"""Scores of a merge from its factors alone, before anything is run: sizes, cosines, shared subspaces, PRISM.

Every score of any weights is a quadratic form of the inner products <D_k, D_l> of each tensor, which are made once.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossmatch.analysis.weights.overlap import independent
from crossmatch.delta import Delta, LowRank, TuningVector, inner
from crossmatch.errors import InputError
from crossmatch.results.sweep import PairOverlapJson, WeightScoresJson
from crossmatch.rules import Weight, part_of, weight_at

# Above it 5 of 7 destructive merges lay, and none of 15 harmless ones (arXiv 2610.03199, table 4).
PRISM_THRESHOLD = 1.9206e-3
# score -> title and what it is; the size alone first, since any other score has to beat it.
SCORES: Mapping[str, tuple[str, str]] = {
    "size": ("size alone", "Frobenius norm of the merged update, ||sum_k w_k D_k||"),
    "added": ("size of what is added", "the same without the reference: ||sum_k w_k D_k|| over the other adapters"),
    "away": ("distance from the reference", "||sum_k w_k D_k - D_ref||: how far the merge is from the reference alone"),
    "prism": ("PRISM", "variance of the scaled updates over MLP projections (arXiv 2610.03199)"),
}


@dataclass(frozen=True)
class PairOverlap:
    """Two adapters at weight one. cosine: of the whole updates; columns, rows: mean over common tensors of
    ||Q_1^T Q_2||^2 / min(r_1, r_2), of the spaces that their factors span; None where nothing is in common."""

    first: str
    second: str
    cosine: float | None
    columns: float | None
    rows: float | None

    def to_dict(self) -> PairOverlapJson:
        """As plain JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "cosine": self.cosine,
            "columns": self.columns,
            "rows": self.rows,
        }


class WeightScores:
    """Inner products of adapters' deltas by tensor; deltas that mean nothing without their base are left out.

    Raises InputError if nothing is left.
    """

    def __init__(self, adapters: Mapping[str, TuningVector], reference: str) -> None:
        self.names, self.reference = list(adapters), reference
        self._vectors = {name: independent(vector) for name, vector in adapters.items()}
        self.tensors = list(dict.fromkeys(name for vector in self._vectors.values() for name in vector))
        if not self.tensors:
            raise InputError("the adapters have no deltas of their own: saved modules and DoRA cannot be scored")
        self._mlp = np.array([part_of(name) == "mlp" for name in self.tensors])
        grams = [self._gram(name) for name in self.tensors]
        self._grams: NDArray[np.float64] = np.stack(grams)
        self._sizes = np.array([self._elements(name) for name in self.tensors], dtype=float)

    def _gram(self, name: str) -> NDArray[np.float64]:
        found = [self._vectors[adapter].get(name) for adapter in self.names]
        gram = np.zeros((len(found), len(found)))
        for i, one in enumerate(found):
            for j, other in enumerate(found[: i + 1]):
                if one is not None and other is not None:
                    gram[i, j] = gram[j, i] = inner(one, other)
        return gram

    def _elements(self, name: str) -> int:
        return next(math.prod(vector[name].shape) for vector in self._vectors.values() if name in vector)

    def _weights(self, weights: Mapping[str, Weight]) -> NDArray[np.float64]:
        """(tensors, adapters)."""
        rows = [[weight_at(weights.get(adapter, 0.0), name) for adapter in self.names] for name in self.tensors]
        return np.array(rows, dtype=float)

    def _norm(self, weights: NDArray[np.float64]) -> float:
        return math.sqrt(max(0.0, float(np.einsum("ti,tij,tj->", weights, self._grams, weights))))

    def scores(self, weights: Mapping[str, Weight]) -> WeightScoresJson:
        """Every score of `SCORES` of the merge with these weights."""
        own, place = self._weights(weights), self.names.index(self.reference)
        others, away = own.copy(), own.copy()
        others[:, place] = 0.0
        away[:, place] -= 1.0
        return {
            "size": self._norm(own),
            "added": self._norm(others),
            "away": self._norm(away),
            "prism": self.prism(weights),
        }

    def prism(self, weights: Mapping[str, Weight]) -> float:
        """The PRISM score of the weighted updates tau_k = w_k D_k over MLP projections; 0 for fewer than two.

        I = mean over elements of the population variance over k of s_k tau_k, s_k = min_j ||tau_j|| / ||tau_k||; the
        score is sqrt(I / K) / K. For two updates I = ||s_1 tau_1 - s_2 tau_2||^2 / (4 n): exact from factors.
        """
        own = self._weights(weights)[self._mlp]
        grams, elements = self._grams[self._mlp], float(self._sizes[self._mlp].sum())
        whole = np.einsum("ti,tij,tj->ij", own, grams, own)
        norms = np.sqrt(np.maximum(np.diagonal(whole), 0.0))
        used = norms > 0
        count = int(used.sum())
        if count < 2 or not elements:
            return 0.0
        scales = norms[used].min() / norms[used]
        scaled = scales[:, None] * whole[np.ix_(used, used)] * scales[None, :]
        variance = (np.trace(scaled) / count - scaled.sum() / count**2) / elements
        return math.sqrt(max(0.0, variance) / count) / count

    def sizes(self) -> dict[str, float]:
        """Frobenius norm of each adapter's update at weight one."""
        return {name: self._norm(self._weights({name: 1.0})) for name in self.names}

    def overlaps(self) -> list[PairOverlap]:
        """Every pair of adapters."""
        found, sizes = [], self.sizes()
        for first, second in combinations(self.names, 2):
            i, j = self.names.index(first), self.names.index(second)
            both = sizes[first] * sizes[second]
            cosine = float(self._grams[:, i, j].sum()) / both if both else None
            one, other = self._vectors[first], self._vectors[second]
            pairs = [(one[name], other[name]) for name in self.tensors if name in one and name in other]
            columns = _mean([_shared(a, b, rows=False) for a, b in pairs])
            rows = _mean([_shared(a, b, rows=True) for a, b in pairs])
            found.append(PairOverlap(first, second, cosine, columns, rows))
        return found


def _shared(first: Delta, second: Delta, *, rows: bool) -> float | None:
    """||Q_1^T Q_2||^2 / min(r_1, r_2) of two low-rank deltas."""
    if not isinstance(first, LowRank) or not isinstance(second, LowRank):
        return None
    one, other = (_basis(delta.a.T if rows else delta.b) for delta in (first, second))
    return float((one.T @ other).square().sum()) / min(one.shape[1], other.shape[1])


def _basis(factor: Tensor) -> Tensor:
    return torch.linalg.qr(factor.double())[0]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
