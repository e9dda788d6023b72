"""Rules in core space, the small common coordinates of low-rank deltas (Panariello et al., 2509.17786)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from crossmatch.delta import Delta, Dense, dense
from crossmatch.rules.context import Site
from crossmatch.rules.factors import compact, core_space, low_ranks
from crossmatch.rules.registry import Positive, rule
from crossmatch.rules.ties import Election, ties


@rule("core-linear", factors=True)
def core_linear(deltas: Sequence[Delta], weights: Sequence[float], site: Site) -> Delta:
    """The weighted sum, formed in core space: `linear` in other coordinates.

    D = U (sum_i w_i M_i) V^T (2509.17786). Needs factors. Always equals `linear`, up to rounding in float64; its rank
    may be smaller. Raises RuleError if a delta is no factors.
    """
    core = core_space(low_ranks(deltas, site))
    return core.delta(_weighted(core.small, weights))


@rule("core-ties", factors=True)
def core_ties(
    deltas: Sequence[Delta],
    weights: Sequence[float],
    site: Site,
    *,
    density: Positive = 0.2,
    election: Election = "weighted",
) -> Delta:
    """TIES on the entries of the small matrices: the result stays low-rank.

    D = U ties(M_1, M_2, ..) V^T (2509.17786; `ties` for the election and the weights). `density` is a share of the
    entries of M_i, of which there are few. Trimming depends on the axes: ours are those of the deltas' joint singular
    vectors, so that the result does not depend on how a delta is factored. Needs factors.
    Equals `linear` at density 1 where all signs agree and the weights add up to one. Raises RuleError if a delta is no
    factors.
    """
    core = core_space(low_ranks(deltas, site))
    if not core.small[0].numel():
        return core.delta(core.small[0])
    merged = ties([Dense(m) for m in core.small], weights, site, density=density, election=election)
    return core.delta(dense(merged))


@rule("core-tsv", factors=True)
def core_tsv(deltas: Sequence[Delta], weights: Sequence[float], site: Site) -> Delta:
    """TSV-Merge: the singular vectors of all deltas are made orthogonal to each other before they are summed.

    With D_i = U_i S_i V_i^T: D = P([U_1 U_2 ..]) diag(w_1 S_1, w_2 S_2, ..) P([V_1 V_2 ..])^T, P(X) = X (X^T X)^+1/2
    the polar factor, the nearest matrix with orthonormal columns (Gargiulo et al., 2412.00081). All singular vectors
    are kept: those of low-rank deltas are few. Where vectors of several deltas coincide, P is a partial isometry and
    no direction is invented: adapters that are equal are averaged.
    Needs factors. Equals `linear` where the deltas' columns, and their rows, are orthogonal, and for one delta.
    Raises RuleError if a delta is no factors.
    """
    core = core_space(low_ranks(deltas, site))
    triples = [compact(m) for m in core.small]
    left = _polar(torch.cat([u for u, _, _ in triples], dim=1))
    right = _polar(torch.cat([vh for _, _, vh in triples], dim=0).T)
    sigma = torch.cat([w * s for w, (_, s, _) in zip(weights, triples, strict=True)])
    return core.delta((left * sigma) @ right.T)


@rule("core-iso", factors=True)
def core_iso(deltas: Sequence[Delta], weights: Sequence[float], site: Site) -> Delta:
    """Iso-C: all singular values of the sum are set to their mean, so that no direction dominates.

    With sum_i w_i M_i = P S Q^T: D = mean(S) U P Q^T V^T (Marczak et al., 2502.04959). Only in core space: over all
    min(d_out, d_in) singular values of a low-rank delta the mean would go mostly into arbitrary null directions. The
    mean is over those that are not zero; their sum, the nuclear norm, stays.
    Needs factors. One delta is flattened too. Equals `linear` where the sum's spectrum is flat already.
    Raises RuleError if a delta is no factors.
    """
    core = core_space(low_ranks(deltas, site))
    total = _weighted(core.small, weights)
    # Where deltas cancel, what is left is rounding, and no direction to raise to the mean.
    size = sum(abs(w) * float(torch.linalg.vector_norm(m)) for w, m in zip(weights, core.small, strict=True))
    u, sigma, vh = compact(total, size)
    return core.delta(sigma.mean() * (u @ vh) if len(sigma) else torch.zeros_like(total))


def _weighted(small: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    return sum((w * m for w, m in zip(weights, small, strict=True)), torch.zeros_like(small[0]))


def _polar(x: Tensor) -> Tensor:
    u, _, vh = compact(x)
    return u @ vh
