"""Rules that drop entries at random and rescale the rest: DARE and DELLA."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from crossmatch.checkpoint import bytes_digest
from crossmatch.delta import Delta
from crossmatch.errors import RuleError
from crossmatch.rules.context import Site
from crossmatch.rules.elements import elementwise, values
from crossmatch.rules.registry import Positive, Share, rule
from crossmatch.rules.ties import Election, elected


@rule("dare-linear")
def dare_linear(deltas: Sequence[Delta], weights: Sequence[float], site: Site, *, density: Positive = 0.5) -> Delta:
    """Drop entries at random, rescale what is left, and sum.

    D = sum_i w_i M_i * D_i / p with p = density and M_i ~ Bernoulli(p) per entry (Yu et al., 2311.03099), so that the
    mean over seeds is `linear`. An entry's fate depends on the seed, the adapter's name, the tensor's name and the
    entry's index, on nothing else.
    Needs dense rows. Equals `linear` at density 1.
    """

    def block(start: int, stop: int, base: Tensor | None) -> Tensor:
        parts = _dropped(deltas, site, density, (start, stop), base)
        return sum((w * part for w, part in zip(weights, parts, strict=True)), torch.zeros_like(parts[0]))

    return elementwise(deltas, site, block)


@rule("dare-ties")
def dare_ties(
    deltas: Sequence[Delta],
    weights: Sequence[float],
    site: Site,
    *,
    density: Positive = 0.5,
    election: Election = "weighted",
) -> Delta:
    """Drop entries at random, rescale what is left, elect a sign per entry, and average what agrees with it.

    As `dare-linear`, with the election of `ties` in place of the sum (Yu et al., 2311.03099).
    Needs dense rows. Equals `ties` of density 1 at density 1.
    """

    def block(start: int, stop: int, base: Tensor | None) -> Tensor:
        return elected(_dropped(deltas, site, density, (start, stop), base), weights, election)

    return elementwise(deltas, site, block)


@rule("della")
def della(
    deltas: Sequence[Delta],
    weights: Sequence[float],
    site: Site,
    *,
    density: Positive = 0.5,
    epsilon: Share = 0.2,
) -> Delta:
    """Drop small entries more often than large ones, rescale what is left, elect a sign, and average what agrees.

    p_k = density - epsilon / 2 + epsilon rank_k / (n - 1), with rank_k = 0 .. n - 1 of |D_jk| within its row of n,
    smallest first, equal ones by column; then M * D / p, and the weighted election of `ties` (Deep et al., 2406.11617).
    Needs dense rows. Equals `ties` of density 1 at density 1 and epsilon 0.
    Raises RuleError if density -+ epsilon / 2 leaves (0, 1].
    """
    if density - epsilon / 2 <= 0 or density + epsilon / 2 > 1 + 1e-9:
        raise RuleError(
            f"della: density {density:g} -+ half of epsilon {epsilon:g} must stay above 0 and not above 1; "
            "take a smaller epsilon"
        )

    last = max(1, deltas[0].columns - 1)
    ramp = density + epsilon * (torch.arange(deltas[0].columns, dtype=torch.float64) / last - 0.5)
    if deltas[0].columns == 1:
        ramp[:] = density

    def block(start: int, stop: int, base: Tensor | None) -> Tensor:
        parts = []
        for delta, name in zip(deltas, site.names, strict=True):
            entries = values(delta, start, stop, base)
            keep = torch.empty_like(entries).scatter_(1, _ascending(entries), ramp.expand_as(entries))
            parts.append(_thinned(entries, keep, start, name, site))
        return elected(parts, weights, "weighted")

    return elementwise(deltas, site, block)


def _ascending(entries: Tensor) -> Tensor:
    """The columns of each row by magnitude (in float32), smallest first, equal ones by column.

    Bits of a magnitude and column make one integer: all are distinct, and numpy sorts integers ten times faster than
    torch sorts floats stably.
    """
    bits = entries.float().abs().view(torch.int32).long()
    keys = ((bits << 32) | torch.arange(entries.shape[1])).numpy()
    keys.sort(axis=1)
    return torch.from_numpy(keys & 0xFFFFFFFF)


def _dropped(
    deltas: Sequence[Delta], site: Site, density: float, span: tuple[int, int], base: Tensor | None
) -> list[Tensor]:
    keep = torch.tensor(density, dtype=torch.float64)
    return [
        _thinned(values(delta, *span, base), keep, span[0], name, site)
        for delta, name in zip(deltas, site.names, strict=True)
    ]


def _thinned(entries: Tensor, keep: Tensor, start: int, name: str, site: Site) -> Tensor:
    """entries / keep with probability `keep`, else 0; `start`: the row of the tensor in which the entries begin."""
    chance = uniform(site.seed, name, site.tensor, start * entries.shape[1], entries.numel())
    return torch.where(chance.view_as(entries) < keep, entries / keep, 0.0)


# A step of Philox's counter yields four numbers.
_PER_STEP = 4


def uniform(seed: int, label: str, tensor: str, start: int, count: int) -> Tensor:
    """Uniform numbers in [0, 1) of elements [start:start + count] of a tensor, (count,) float64.

    Philox (Salmon et al., 2011, doi 10.1145/2063384.2063405) with a key from seed, label (the adapter, say) and the
    tensor's name, at the counter of the element. Raw words are taken, which numpy promises never to change.
    """
    key = int(bytes_digest(f"{seed}\0{label}\0{tensor}".encode())[:32], 16)
    step, skipped = divmod(start, _PER_STEP)
    words = np.random.Philox(key=key, counter=step).random_raw(skipped + count)[skipped:]
    return torch.from_numpy((words >> np.uint64(11)) * 2.0**-53)
