"""Rules that trim each delta by magnitude: TIES and Breadcrumbs; and the election of signs."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from crossmatch.delta import Delta
from crossmatch.errors import RuleError
from crossmatch.rules.context import Site
from crossmatch.rules.elements import (
    check_rankable,
    elementwise,
    histogram,
    kept,
    magnitude,
    thresholds,
    top_threshold,
    values,
)
from crossmatch.rules.registry import Positive, Share, rule

Election = Literal["weighted", "unweighted"]


@rule("ties")
def ties(
    deltas: Sequence[Delta],
    weights: Sequence[float],
    site: Site,
    *,
    density: Positive = 0.2,
    election: Election = "weighted",
) -> Delta:
    """Keep the largest entries of each delta, elect a sign per entry, and average what agrees with it.

    T_i = D_i where |D_i| is among its largest `density` share, else 0 (Yadav et al., 2306.01708). Then, per entry:
    weighted (mergekit's): sign of sum_i w_i T_i; D = sum_agreeing w_i T_i / sum_agreeing w_i.
    unweighted (the paper's and PEFT's): sign of sum_i T_i; D = sum_agreeing w_i T_i / number agreeing.
    Zeros agree with nothing; a sum of zero elects plus, as in both programs. A negative weight stands for its absolute
    value on the negated delta. So with weights that add up to one, adapters that agree give `linear` by the weighted
    election, and half of it (of two) by the other.
    Needs dense rows; two passes over each delta beforehand. Equals `linear` at density 1 where all signs agree and
    (weighted) the weights add up to one, or (unweighted) to it times the number of adapters.
    Raises RuleError for deltas that need their base.
    """
    check_rankable(deltas, site)
    cuts = [top_threshold(delta, density) for delta in deltas]

    def block(start: int, stop: int, base: Tensor | None) -> Tensor:
        trimmed = []
        for delta, cut in zip(deltas, cuts, strict=True):
            entries = values(delta, start, stop, base)
            trimmed.append(torch.where(entries.float().abs() >= cut, entries, 0.0))
        return elected(trimmed, weights, election)

    return elementwise(deltas, site, block)


def elected(parts: Sequence[Tensor], weights: Sequence[float], election: Election) -> Tensor:
    """Per entry the average of the parts that have the elected sign; see `ties`."""
    entries = [-part if w < 0 else part for part, w in zip(parts, weights, strict=True)]
    sizes = [abs(w) for w in weights]
    voices = sizes if election == "weighted" else [1.0] * len(sizes)
    votes = sum((voice * part for voice, part in zip(voices, entries, strict=True)), torch.zeros_like(parts[0]))
    # Signs by arithmetic: torch's booleans are several times slower. Adding zero makes a negative zero positive.
    elected_sign = torch.ones_like(votes).copysign(votes + 0.0)
    total, share = torch.zeros_like(votes), torch.zeros_like(votes)
    for size, voice, part in zip(sizes, voices, entries, strict=True):
        agreeing = (part * elected_sign).clamp_min(0.0)
        total.add_(agreeing, alpha=size)
        share.add_(agreeing.sign(), alpha=voice)
    # Where nobody agrees the total is zero too.
    return elected_sign.mul_(total).div_(share.clamp_min_(torch.finfo(torch.float64).tiny))


@rule("breadcrumbs")
def breadcrumbs(
    deltas: Sequence[Delta], weights: Sequence[float], site: Site, *, density: Positive = 0.9, gamma: Share = 0.01
) -> Delta:
    """Drop the very largest and the small entries of each delta, then sum.

    D = sum_i w_i M_i * D_i with M_i zero at the largest `gamma` share of |D_i| and at all but the `density` share that
    follows (Davari & Belilovsky, 2312.06795). Ties with the gamma threshold are dropped, ties with the lower one kept.
    Needs dense rows; two passes over each delta beforehand. Equals `linear` at density 1 and gamma 0.
    Raises RuleError if density + gamma is more than 1, and for deltas that need their base.
    """
    if density + gamma > 1 + 1e-9:
        raise RuleError(f"breadcrumbs: density {density:g} and gamma {gamma:g} add up to more than 1; lower one")
    check_rankable(deltas, site)
    bounds = [_window(delta, density, gamma) for delta in deltas]

    def block(start: int, stop: int, base: Tensor | None) -> Tensor:
        total = torch.zeros(stop - start, deltas[0].columns, dtype=torch.float64)
        for delta, weight, (low, high) in zip(deltas, weights, bounds, strict=True):
            entries = values(delta, start, stop, base)
            size = entries.float().abs()
            total += weight * torch.where((size >= low) & (size < high), entries, 0.0)
        return total

    return elementwise(deltas, site, block)


def _window(delta: Delta, density: float, gamma: float) -> tuple[float, float]:
    """The magnitudes between which an entry is kept: from the first, up to but without the second."""
    ranked = magnitude(delta)
    bins = histogram(ranked, delta)
    top = int(gamma * int(bins.sum()))
    last = min(top + kept(delta, density), int(bins.sum()))
    if not top:
        return thresholds(ranked, delta, bins, [last])[0], float("inf")
    low, high = thresholds(ranked, delta, bins, [last, top])
    return low, high
