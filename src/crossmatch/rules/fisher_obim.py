"""Rules that weigh entries by what the data says of them: Fisher averaging and OBIM."""

from collections.abc import Sequence

import torch
from torch import Tensor

from crossmatch.delta import Delta, linear, low_rank
from crossmatch.errors import RuleError
from crossmatch.rules.context import Site
from crossmatch.rules.elements import (
    Magnitude,
    check_rankable,
    elementwise,
    histogram,
    kept,
    positions,
    thresholds,
    values,
)
from crossmatch.rules.registry import Positive, rule


@rule("fisher", data="inputs and gradients")
def fisher(deltas: Sequence[Delta], weights: Sequence[float], site: Site) -> Delta:
    """Average entries by how much each adapter's own loss depends on them.

    D_jk = n sum_i w_i F_i,jk D_i,jk / sum_i F_i,jk over n adapters, F_i the diagonal of the empirical Fisher
    information (Matena & Raffel, 2111.09832): F_i = (G_i * G_i)^T (X_i * X_i) / N_i from the inputs X and output
    gradients G of N tokens, each token a sample of its own. F is itself low-rank and formed in blocks of rows. The
    factor n makes equal F_i give `linear` whatever the weights; the paper's own rule has weights that add up to one
    inside both sums. Where no adapter has information, the entry is that of `linear`.
    Needs dense rows, inputs and gradients. Equals `linear` for equal F_i and for one delta.
    Raises RuleError if inputs or gradients are missing, or of different lengths.
    """
    if len(deltas) == 1:
        return linear(deltas, weights)
    information = [_information(delta, name, site) for delta, name in zip(deltas, site.names, strict=True)]

    def block(start: int, stop: int, base: Tensor | None) -> Tensor:
        shares = torch.stack([values(f, start, stop, None) for f in information])
        parts = torch.stack([w * values(d, start, stop, base) for w, d in zip(weights, deltas, strict=True)])
        total = shares.sum(0)
        return torch.where(total > 0, len(deltas) * (shares * parts).sum(0) / total, parts.sum(0))

    return elementwise(deltas, site, block)


def _information(delta: Delta, name: str, site: Site) -> Delta:
    x, g = site.inputs(name, delta.columns), site.gradients(name, delta.height)
    if len(x) != len(g):
        raise RuleError(f"{site.tensor}: {name} has {len(x)} inputs and {len(g)} gradients; calibrate both together")
    return low_rank(g.square().T, x.square(), 1 / len(x))


@rule("obim", data="inputs")
def obim(deltas: Sequence[Delta], weights: Sequence[float], site: Site, *, density: Positive = 0.5) -> Delta:
    """Keep the salient entries of each delta, and give every entry to one adapter alone.

    Saliency S_i,jk = D_i,jk^2 mean(x_k^2) on the adapter's inputs; the largest `density` share of each is kept; masks
    exclude each other, nothing is averaged: D_jk = w_i D_i,jk of its owner i (OBIM, 2502.12217). How adapters take
    turns in claiming is our reading: an entry goes to the adapter that kept it and in whose own ranking by saliency it
    stands higher, the earlier adapter if equal. Ranks are read off a histogram of bins 2^-7 wide (relatively), linear
    inside a bin.
    Needs dense rows and inputs; two passes over each delta beforehand. Equals `linear` at density 1 for one delta, and
    for deltas that change different entries.
    Raises RuleError if inputs are missing, and for deltas that need their base.
    """
    check_rankable(deltas, site)
    saliencies = [_saliency(d, site.inputs(name, d.columns)) for d, name in zip(deltas, site.names, strict=True)]
    bins = [histogram(ranked, delta) for ranked, delta in zip(saliencies, deltas, strict=True)]
    cuts = [thresholds(s, d, b, [kept(d, density)])[0] for s, d, b in zip(saliencies, deltas, bins, strict=True)]

    def block(start: int, stop: int, base: Tensor | None) -> Tensor:
        total = torch.zeros(stop - start, deltas[0].columns, dtype=torch.float64)
        best = torch.full_like(total, -1.0)
        for delta, weight, ranked, counts, cut in zip(deltas, weights, saliencies, bins, cuts, strict=True):
            saliency = ranked(start, stop)
            # A zero claims nothing: another adapter's change is worth more than none.
            standing = torch.where((saliency >= cut) & (saliency > 0), positions(saliency, counts), -1.0)
            mine = standing > best
            total = torch.where(mine, weight * values(delta, start, stop, base), total)
            best = torch.where(mine, standing, best)
        return total

    return elementwise(deltas, site, block)


def _saliency(delta: Delta, inputs: Tensor) -> Magnitude:
    """|D_jk| sqrt(mean x_k^2), which ranks as its square does and does not underflow."""
    root = inputs.square().mean(0).sqrt()
    return lambda start, stop: (values(delta, start, stop, None).abs() * root).float()
