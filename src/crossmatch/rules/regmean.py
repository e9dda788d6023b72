"""RegMean: the one map that answers every adapter's inputs as that adapter does, by least squares."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from crossmatch.delta import Delta, linear
from crossmatch.rules.context import Site
from crossmatch.rules.factors import low_ranks, plain
from crossmatch.rules.registry import Range, Share, rule


@rule("regmean", factors=True, data="inputs")
def regmean(
    deltas: Sequence[Delta],
    weights: Sequence[float],
    site: Site,
    *,
    alpha: Share = 0.9,
    ridge: Annotated[float, Range(0, 1, above=True)] = 1e-6,
) -> Delta:
    """The delta that does to each adapter's inputs what that adapter does, as nearly as one can.

    D = n (sum_i w_i D_i G_i) (sum_i G_i)^-1 over n adapters, G_i = X_i^T X_i / N_i with off-diagonals times alpha
    (Jin et al., 2212.09849), and ridge * mean diagonal added to the diagonal for inputs that never occur. It minimises
    sum_i ||(D - n w_i D_i) x||^2 over all inputs: weights scale the targets, so that equal G_i give `linear` whatever
    the weights; the paper's own rule is w_i = 1/n. Experts in a stack share the inputs.
    Needs factors, of which only A changes (B_i A_i G_i), and inputs. With fewer tokens than columns the inverse is
    Woodbury's, and no matrix of d_in x d_in is formed. Equals `linear` for equal G_i and for one delta.
    Raises RuleError if inputs are missing or a delta is no factors.
    """
    if len(deltas) == 1:
        return linear(deltas, weights)
    low = low_ranks(deltas, site)
    diagonals, roots, images = [], [], []
    for delta, name in zip(low, site.names, strict=True):
        x = site.inputs(name, delta.columns)
        root = x * math.sqrt(alpha / len(x))
        power = x.square().mean(0)
        diagonal = (1 - alpha) * power + ridge * power.mean()
        a = delta.a.double()
        images.append((a @ root.T) @ root + a * diagonal)
        diagonals.append(diagonal)
        roots.append(root)
    b = torch.cat([len(low) * w * d.b.double() * d.scale for d, w in zip(low, weights, strict=True)], dim=1)
    diagonal = torch.stack(diagonals).sum(0)
    if not bool((diagonal > 0).all()):
        return linear(deltas, weights)
    return plain(b, _solved(torch.cat(images), diagonal, torch.cat(roots)), low[0])


def _solved(images: Tensor, diagonal: Tensor, roots: Tensor) -> Tensor:
    """Z (diag(d) + Y^T Y)^-1 for Z (r, d_in), Y (N, d_in)."""
    tokens, columns = roots.shape
    if tokens >= columns:
        gram = roots.T @ roots + torch.diag(diagonal)
        return torch.linalg.solve(gram, images.T).T
    # Scaled by d^-1/2 on both sides, the inner matrix is I + Y' Y'^T.
    outer = diagonal.rsqrt()
    y, z = roots * outer, images * outer
    inner = y @ y.T + torch.eye(tokens, dtype=torch.float64)
    return (z - torch.linalg.solve(inner, y @ z.T).T @ y) * outer
