"""Rules that need no more than the deltas: the sum, the arc between two, and the mistaken average of factors."""

import math
from collections.abc import Sequence

import torch

from crossmatch.delta import Delta, LowRank, Stack, cosine, linear
from crossmatch.errors import RuleError
from crossmatch.rules.context import Site
from crossmatch.rules.elements import check_rankable, grid, values
from crossmatch.rules.factors import low_ranks, plain
from crossmatch.rules.registry import rule

# sin of the angle below which two deltas count as opposite: the arc between them is not determined.
_OPPOSITE = 1e-6


@rule("linear")
def linear_rule(deltas: Sequence[Delta], weights: Sequence[float], site: Site) -> Delta:
    """Weighted sum of the deltas, exactly.

    D = sum_i w_i D_i (task arithmetic, Ilharco et al., 2212.04089). Needs nothing; factors stay factors.
    """
    del site
    return linear(deltas, weights)


@rule("slerp")
def slerp(deltas: Sequence[Delta], weights: Sequence[float], site: Site) -> Delta:
    """The point on the arc between two deltas, instead of the one on the chord.

    D = (w_1 + w_2) (sin((1 - t) o) D_1 + sin(t o) D_2) / sin o with t = w_2 / (w_1 + w_2) and o the angle between the
    deltas of this tensor (Shoemake, 1985, doi 10.1145/325165.325242; on deltas, not on weights, which are nearly
    parallel). Lengths are not normalised. Needs nothing; factors stay factors.
    Equals `linear` for parallel deltas, to which it tends as o does to 0, for one delta, and where a weight is zero.
    Raises RuleError for three deltas, negative weights, a zero delta, opposite deltas (no arc is the shortest), and
    deltas that need their base.
    """
    if len(deltas) == 1:
        return linear(deltas, weights)
    names = " and ".join(site.names)
    if len(deltas) != 2 or min(weights) < 0:
        raise RuleError(f"{site.tensor}: slerp needs two adapters and no negative weight, not {names} at {weights}")
    check_rankable(deltas, site)
    similarity = _cosine(deltas[0], deltas[1])
    if similarity is None:
        raise RuleError(f"{site.tensor}: slerp has no angle between {names}, one of which is zero; use linear there")
    total = weights[0] + weights[1]
    angle, t = math.acos(similarity), weights[1] / total if total else 0.0
    if similarity < 0 and math.sin(angle) < _OPPOSITE:
        raise RuleError(f"{site.tensor}: {names} are opposite, slerp has no arc between them; use linear there")
    if angle == 0.0 or not total:
        return linear(deltas, weights)
    arc = [total * math.sin(share * angle) / math.sin(angle) for share in (1 - t, t)]
    return linear(deltas, arc)


def _cosine(x: Delta, y: Delta) -> float | None:
    """From factors where there are factors, else streamed: `cosine` alone would form both whole."""
    if all(isinstance(d, LowRank) for d in (x, y)) or all(isinstance(d, Stack) for d in (x, y)):
        return cosine(x, y)
    sums = torch.zeros(3, dtype=torch.float64)
    for start, stop in grid(x):
        one, other = values(x, start, stop, None).flatten(), values(y, start, stop, None).flatten()
        sums += torch.stack([one @ other, one @ one, other @ other])
    size = math.sqrt(sums[1]) * math.sqrt(sums[2])
    return None if size == 0.0 else max(-1.0, min(1.0, float(sums[0]) / size))


@rule("factor-average", factors=True)
def factor_average(deltas: Sequence[Delta], weights: Sequence[float], site: Site) -> Delta:
    """A common mistake, for comparison: the product of averaged factors, which is not a sum of deltas.

    D = (sum_i w_i s_i B_i) (sum_i w_i A_i) = sum_i w_i^2 D_i + cross terms w_i w_j s_i B_i A_j: it squares the weights,
    even of one adapter alone, and its cross terms mean nothing, as B_i never saw A_j. Two adapters that share A and
    whose weights add up to one give `linear`. Needs factors.
    Raises RuleError if ranks differ or a delta is no factors.
    """
    low = low_ranks(deltas, site)
    if len({d.rank for d in low}) != 1:
        ranks = ", ".join(f"{name} {d.rank}" for name, d in zip(site.names, low, strict=True))
        raise RuleError(f"{site.tensor}: factors of different ranks have no average ({ranks})")
    b = torch.stack([w * d.b.double() * d.scale for w, d in zip(weights, low, strict=True)]).sum(0)
    a = torch.stack([w * d.a.double() for w, d in zip(weights, low, strict=True)]).sum(0)
    return plain(b, a, low[0])
