"""What else is in a module: named wrong ways of merging are fitted beside the claimed deltas, on some of its rows.

Each hypothesis is a further delta (or another in a delta's place). It is taken when, with it, no more than rounding is
left over; else the remainder is described by its size and its effective rank.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossmatch.delta import Dora, LowRank, Stack, cat, singular_values, truncated
from crossmatch.verification.look import Rows, delta_rows
from crossmatch.verification.recover import Estimate, Strata, estimate
from crossmatch.verification.rounding import step
from crossmatch.verification.scan import Claimed, Subject

# The 16 levels of the 4-bit normal float (Dettmers et al., 2305.14314, appendix E), and its block.
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_NF4_BLOCK = 64
# Rows for the remainder's rank.
_WIDE = 256


@dataclass(frozen=True)
class Diagnosis:
    """A module that the claim does not explain: the fault, what was seen, and the weights found with it, if any.

    size: norm of what the claimed deltas leave over, relative to the base's; rank: its effective rank, of `full`.
    """

    fault: str
    evidence: str
    size: float | None = None
    rank: int | None = None
    full: int | None = None


def diagnose(subject: Subject, name: str, weights: Sequence[float], limit: float) -> Diagnosis:
    """Name what is in a module; weights: those that the others hold; limit: on the residual variance that rounding
    leaves."""
    claimed = subject.on(name)
    rows = subject.some(name, claimed)
    stacked = {i: d for i, d in claimed.parts.items() if isinstance(d, Stack)}
    if stacked:
        found = _experts(subject, name, claimed, weights)
        if found:
            return found
    for fault, evidence, extra, kept in _candidates(rows, claimed, weights):
        found = _refit(rows, extra, kept, len(subject.weights), weights)
        if found.identifiable and found.excess <= limit and _is_there(found, extra):
            return Diagnosis(fault, evidence)
    quantised = _quantised(subject, rows, claimed, weights)
    return quantised or _remainder(subject, name, claimed, weights)


def _candidates(
    rows: Rows, claimed: Claimed, weights: Sequence[float]
) -> Iterator[tuple[str, str, dict[int, Tensor], list[int]]]:
    """Faults with the rows of a further delta each, numbered after the claim's, and the claim's own that stay."""
    first = len(weights)
    where, low = rows.where, {i: d for i, d in claimed.parts.items() if isinstance(d, LowRank)}
    crossed = {
        first + n: delta_rows(LowRank(x.b, y.a, _common(x, y)), where, rows.ours)
        for n, (x, y) in enumerate(
            (x, y) for x in low.values() for y in low.values() if x is not y and x.rank == y.rank
        )
    }
    if crossed:
        yield "factor-cross-terms", "products of one adapter's B with the other's A", crossed, list(low)
    plain = {i: d.low for i, d in claimed.parts.items() if isinstance(d, Dora)}
    if plain:
        bare = {first + n: delta_rows(d, where, rows.ours) for n, d in enumerate(plain.values())}
        kept = [i for i in claimed.parts if i not in plain]
        yield "dora-magnitude", "the factors alone explain it, without the magnitudes", bare, kept
    square = {i: d for i, d in low.items() if d.dims is None and d.b.shape[0] == d.a.shape[1]}
    if square:
        turned = {
            first + n: delta_rows(LowRank(d.a.T, d.b.T, d.scale), where, rows.ours)
            for n, d in enumerate(square.values())
        }
        yield "transposed", "the transposed delta explains it", turned, list(low)
    if len(low) == len(claimed.parts):
        total = cat([d.scaled(weights[i]) for i, d in low.items()])
        for rank in range(1, int((singular_values(total) > 0).sum())):
            kept = {first: delta_rows(truncated(total, rank)[0], where, rows.ours)}
            yield "rank-truncated", f"the sum, pressed into rank {rank} of {total.rank}", kept, []


def _common(x: LowRank, y: LowRank) -> Tensor:
    return (x.scale.abs() * y.scale.abs()).sqrt()


def _refit(
    rows: Rows, extra: Mapping[int, Tensor], kept: Sequence[int], adapters: int, weights: Sequence[float]
) -> Estimate:
    """Weights of the kept deltas and of the further ones together."""
    deltas = {i: rows.deltas[i] for i in kept} | dict(extra)
    count = adapters + len(extra)
    strata = Strata.empty(count)
    sizes = [rows.deltas[i].square().mean(1, keepdim=True) for i in rows.deltas]
    size = sum(sizes, torch.zeros(())).sqrt()
    table = torch.stack([d.flatten() for d in deltas.values()])
    index = torch.tensor(list(deltas))
    strata.gram.index_put_((index[:, None], index[None, :]), table @ table.T)
    stored = torch.where(torch.isfinite(rows.stored), rows.stored.double(), rows.ours)
    steps = step(rows.ours.abs() + 3 * size, rows.stored.dtype)
    strata.add(stored - rows.ours, list(deltas.values()), list(deltas), steps, size)
    return estimate([strata], [w if i in kept else 0.0 for i, w in enumerate(weights)] + [1.0] * len(extra))


def _is_there(found: Estimate, extra: Mapping[int, Tensor]) -> bool:
    return any(abs(found.weights[i]) > max(0.01, 6 * found.stderr[i]) for i in extra)


def _left(rows: Rows, weights: Sequence[float]) -> Tensor:
    """What the claimed deltas leave over, (rows, columns)."""
    stored = torch.where(torch.isfinite(rows.stored), rows.stored.double(), rows.ours)
    return stored - rows.ours - sum((weights[i] * d for i, d in rows.deltas.items()), torch.zeros(()))


def _quantised(subject: Subject, rows: Rows, claimed: Claimed, weights: Sequence[float]) -> Diagnosis | None:
    """Whether the remainder is what a quantisation of the base left."""
    del subject, claimed
    left = _left(rows, weights)
    before = float(left.square().sum())
    for form, coarse in _quantisations(rows.ours):
        gap = coarse - rows.ours
        size = float(gap.square().sum())
        if size == 0.0 or before == 0.0:
            continue
        share = float((left * gap).sum()) / size
        after = float((left - share * gap).square().sum())
        if 0.9 < share < 1.1 and after < 0.2 * before:
            explained = 1 - after / before
            return Diagnosis("quantised-base", f"a base quantised to {form} explains {explained:.0%} of the remainder")
    return None


def _quantisations(ours: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The base's rows quantised and dequantised, by the name of the form."""
    if ours.shape[1] % _NF4_BLOCK == 0:
        blocks = ours.reshape(-1, _NF4_BLOCK)
        largest = blocks.abs().amax(1, keepdim=True).clamp_min(1e-30)
        levels = torch.tensor(_NF4, dtype=torch.float64)
        edges = (levels[1:] + levels[:-1]) / 2
        yield "NF4", (levels[torch.bucketize(blocks / largest, edges)] * largest).reshape(ours.shape)
    row = ours.abs().amax(1, keepdim=True).clamp_min(1e-30)
    yield "int8 by row", (ours / row * 127).round() * row / 127
    for name, dtype, top in (("FP8 (e4m3)", torch.float8_e4m3fn, 448.0),):
        yield f"{name} by row", (ours / row * top).to(torch.float32).to(dtype).double() * row / top
        yield name, ours.to(torch.float32).to(dtype).double()


def _experts(subject: Subject, name: str, claimed: Claimed, weights: Sequence[float]) -> Diagnosis | None:
    """Whether the experts of a stack hold each other's deltas, transposed ones, or none."""
    stack = next(d for d in claimed.total.parts if True) if isinstance(claimed.total, Stack) else None
    if stack is None:
        return None
    total = claimed.total
    assert isinstance(total, Stack)
    each, wrong = total.parts[0].height, []
    for number, part in enumerate(total.parts):
        first = number * each
        rows = subject.some(name, claimed, (first, first + each - 1))
        inside = [slice(s.start - first, s.stop - first) for s in rows.where]
        change = _left(rows, [0.0] * len(weights))
        options: dict[str, Tensor] = {"none": torch.zeros_like(change)}
        for other, theirs in enumerate(total.parts):
            options[f"that of expert {other}"] = delta_rows(theirs, inside, rows.ours)
        if part.b.shape[0] == part.a.shape[1]:
            options["its own, transposed"] = delta_rows(LowRank(part.a.T, part.b.T, part.scale), inside, rows.ours)
        left = {what: float((change - d).square().sum()) for what, d in options.items()}
        best, own = min(left, key=lambda what: left[what]), f"that of expert {number}"
        if best != own and left[best] < 0.7 * left[own]:
            wrong.append((number, best))
    if not wrong:
        return None
    number, best = wrong[0]
    more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return Diagnosis("expert-scrambled", f"the delta of expert {number} is {best}{more}")


def _remainder(subject: Subject, name: str, claimed: Claimed, weights: Sequence[float]) -> Diagnosis:
    """Size and effective rank of what the claimed deltas leave over: singular values above those of rounding noise."""
    columns = claimed.columns
    height = subject.base.tensors[name].elements // max(1, columns)
    rows = subject.some(name, claimed, least=min(height, _WIDE))
    left = _left(rows, weights)
    size = float(left.norm() / rows.ours.norm().clamp_min(1e-300))
    noise = step(rows.stored.double().abs().nan_to_num(), rows.stored.dtype).square().mean().div(12).sqrt()
    # The largest singular value of such noise (Marchenko and Pastur), with a tenth on top.
    edge = 1.1 * float(noise) * (math.sqrt(left.shape[0]) + math.sqrt(left.shape[1]))
    rank, full = int((torch.linalg.svdvals(left) > edge).sum()), min(left.shape)
    text = f"a remainder of {size:.1e} of the base's norm, " + (
        "of full rank" if rank > 0.5 * full else f"of effective rank {rank}"
    )
    return Diagnosis("unexplained-delta", text, size, rank, full)
