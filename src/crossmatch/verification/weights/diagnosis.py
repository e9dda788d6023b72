"""What else is in a module: named wrong ways of merging are fitted beside the claimed deltas, on some of its rows.

Each hypothesis is a further delta (or another in a delta's place). It is taken when, with it, no more than rounding is
left over; else the remainder is described by its size and its effective rank.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossmatch.checkpoint import expert_of
from crossmatch.delta import Dora, LowRank, Stack, cat, singular_values, truncated
from crossmatch.verification.arithmetic.float_spacing import step
from crossmatch.verification.arithmetic.replay import rows_of
from crossmatch.verification.subject import Claimed, Subject
from crossmatch.verification.weights.estimate import MIN_ENTRIES, Estimate, Strata, estimate
from crossmatch.verification.weights.row_sums import Rows

# The 16 levels of the 4-bit normal float (Dettmers et al., 2305.14314, appendix E), and its block.
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_NF4_BLOCK = 64
# By bits: elements that must be wrong before anything is named, and the share of them that may stay so.
_FEW, _UNEXPLAINED = 16, 0.3
_MOST_EXPERTS = 64
_HALVES = (("gate_proj", "up_proj"), ("w1", "w3"))
# Rows for the remainder's rank.
_WIDE = 256


@dataclass(frozen=True)
class Diagnosis:
    """A module that the claim does not explain: the fault, what was seen, and the weights found with it, if any.

    size: norm of what the claimed deltas leave over, relative to the base's; rank: its effective rank, of `full`;
    weights: those of the claimed deltas beside what was found, NaN where unknown.
    """

    fault: str
    evidence: str
    size: float | None = None
    rank: int | None = None
    full: int | None = None
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Candidate:
    """A wrong way of merging: further deltas, numbered after the claim's, with the weights that they then have, and the
    claim's own that stay."""

    fault: str
    evidence: str
    extra: Mapping[int, Tensor]
    shares: Mapping[int, float]
    kept: Sequence[int]


def diagnose(subject: Subject, name: str, options: Sequence[Sequence[float]], limit: float) -> Diagnosis:
    """Name what is in a module; options: weights that it may have, first those that the others hold; limit: on the
    residual variance that rounding leaves."""
    claimed = subject.on(name)
    rows = subject.some(name, claimed)
    if isinstance(claimed.total, Stack):
        found = _experts(subject, name, claimed, options[0])
        if found:
            return found
    candidates = [c for weights in options for c in _candidates(subject, name, rows, claimed, weights)]
    plain = _refit(rows, {}, list(rows.deltas), len(subject.weights), options[0])
    # In single precision a tool's own arithmetic is larger than a step: then all but a thousandth must be explained.
    if plain.identifiable:
        single = rows.stored.dtype == torch.float32
        limit = min(max(limit, 1e-3 * plain.excess) if single else limit, plain.excess / 2)
    least = 0.8 * plain.entries if plain.identifiable else 0
    left = _Left.of(rows, plain) if plain.identifiable else None
    best = (math.inf, None)
    for candidate in candidates:
        if left is not None and not left.may_halve(candidate):
            continue
        found = _refit(rows, candidate.extra, candidate.kept, len(subject.weights), options[0])
        fitting = found.identifiable and found.excess <= min(limit, best[0] * 0.999) and found.entries >= least
        if fitting and _is_there(found, candidate) and (left is None or left.is_halved(found, candidate)):
            best = (found.excess, Diagnosis(candidate.fault, candidate.evidence))
    seen = best[1] or by_bits(subject, name, options, candidates)
    return seen or _quantised(rows, options[0], options[-1]) or _remainder(subject, name, claimed, options[0])


def by_bits(
    subject: Subject,
    name: str,
    options: Sequence[Sequence[float]],
    candidates: Sequence[_Candidate] | None = None,
) -> Diagnosis | None:
    """The wrong way of merging that gives the stored elements, where these are too few, or too coarse, for an estimate.

    It has to give all but 30% of the elements that the right way does not give, and these must be 16 at least.
    """
    claimed = subject.on(name)
    rows = subject.some(name, claimed)
    if candidates is None:
        candidates = [c for weights in options for c in _candidates(subject, name, rows, claimed, weights)]

    def mismatches(shares: Mapping[int, float], extra: Mapping[int, Tensor], others: Mapping[int, float]) -> int:
        total = sum((w * rows.deltas[i] for i, w in shares.items()), torch.zeros(()))
        total = total + sum((others[i] * d for i, d in extra.items()), torch.zeros(()))
        return int(((rows.ours + total).to(rows.stored.dtype) != rows.stored).sum())

    found: list[tuple[int, Diagnosis]] = []
    for weights in options:
        own = {i: weights[i] for i in rows.deltas}
        before = mismatches(own, {}, {})
        if before < _FEW:
            return None
        for i in own:
            for factor in (0.0, *(f / 10 for f in range(1, 31) if f != 10), -1.0):
                changed = own | {i: factor * own[i]}
                text = ", ".join(f"{subject.names[j]} {w:.4g}" for j, w in changed.items())
                fault = "weights-uneven" if factor else "modules-skipped"
                text = f"the weights here are about {text}" if factor else f"nothing of {subject.names[i]} here"
                found.append((mismatches(changed, {}, {}), Diagnosis(fault, text)))
        found.append((mismatches({}, {}, {}), Diagnosis("modules-skipped", "the base's own elements are here")))
        for c in candidates:
            count = mismatches({i: weights[i] for i in c.kept}, c.extra, c.shares)
            found.append((count, Diagnosis(c.fault, c.evidence)))
        count, best = min(found, key=lambda f: f[0])
        if count <= _UNEXPLAINED * before:
            return best
    return None


def _candidates(
    subject: Subject, name: str, rows: Rows, claimed: Claimed, weights: Sequence[float]
) -> Iterator[_Candidate]:
    """Wrong ways of merging one tensor."""
    first = len(weights)
    where, low = rows.where, {i: d for i, d in claimed.parts.items() if isinstance(d, LowRank)}
    pairs = [(i, j) for i in low for j in low if i != j and low[i].rank == low[j].rank]
    crossed = {
        first + n: rows_of(LowRank(low[i].b, low[j].a, _common(low[i], low[j])), where, rows.ours)
        for n, (i, j) in enumerate(pairs)
    }
    if crossed:
        shares = {first + n: math.sqrt(max(0.0, weights[i] * weights[j])) for n, (i, j) in enumerate(pairs)}
        text = "products of one adapter's B with the other's A"
        yield _Candidate("factor-cross-terms", text, crossed, shares, list(low))
    plain = {i: d.low for i, d in claimed.parts.items() if isinstance(d, Dora)}
    if plain:
        bare = {first + n: rows_of(d, where, rows.ours) for n, d in enumerate(plain.values())}
        kept = [i for i in claimed.parts if i not in plain]
        shares = {first + n: weights[i] for n, i in enumerate(plain)}
        text = "the factors alone explain it, without the magnitudes"
        yield _Candidate("dora-magnitude", text, bare, shares, kept)
    square = {i: d for i, d in low.items() if d.dims is None and d.b.shape[0] == d.a.shape[1]}
    for chosen in [[i] for i in square] + ([list(square)] if len(square) > 1 else []):
        turned = {first + n: LowRank(low[i].a.T, low[i].b.T, low[i].scale) for n, i in enumerate(chosen)}
        extra = {n: rows_of(d, where, rows.ours) for n, d in turned.items()}
        shares = {first + n: weights[i] for n, i in enumerate(chosen)}
        kept = [i for i in claimed.parts if i not in chosen]
        fault = "expert-scrambled" if expert_of(name) else "transposed"
        text = f"{', '.join(subject.names[i] for i in chosen)} lies here transposed"
        yield _Candidate(fault, text, extra, shares, kept)
    if len(low) == len(claimed.parts):
        total = cat([d.scaled(weights[i]) for i, d in low.items()])
        # Largest first, so that every lower rank is a part of it.
        whole = truncated(total, int((singular_values(total) > 0).sum()))[0]
        left = rows_of(whole, where, rows.ours) if whole.rank else torch.zeros_like(rows.ours)
        b = torch.cat([whole.b[s] for s in where])
        for rank in range(whole.rank - 1, 0, -1):
            left = left - b[:, rank : rank + 1] @ whole.a[rank : rank + 1]
            kept = {first: left}
            text = f"the sum, pressed into rank {rank} of {total.rank}"
            yield _Candidate("rank-truncated", text, kept, {first: 1.0}, [])
    yield from _siblings(subject, name, rows, claimed, weights)


def _siblings(
    subject: Subject, name: str, rows: Rows, claimed: Claimed, weights: Sequence[float]
) -> Iterator[_Candidate]:
    """Deltas of the other experts in the place of an expert's own."""
    place = expert_of(name)
    if not place:
        return
    shape = subject.base.tensors[name].shape
    head, own, tail = place
    others = [f"{head}{number}{tail}" for number in range(_MOST_EXPERTS)]
    others += [f"{head}{own}{tail.replace(a, b)}" for pair in _HALVES for a, b in (pair, pair[::-1])]
    for other in dict.fromkeys(others):
        info = subject.base.tensors.get(other)
        if other == name or info is None or info.shape != shape:
            continue
        theirs = {i: d for i, d in subject.on(other).parts.items() if i in claimed.parts}
        extra = {len(weights) + n: rows_of(d, rows.where, rows.ours) for n, d in enumerate(theirs.values())}
        shares = {len(weights) + n: weights[i] for n, i in enumerate(theirs)}
        kept = [i for i in claimed.parts if i not in theirs]
        if extra:
            yield _Candidate("expert-scrambled", f"the delta of {other} lies here", extra, shares, kept)


def _common(x: LowRank, y: LowRank) -> Tensor:
    return (x.scale.abs() * y.scale.abs()).sqrt()


def _refit(
    rows: Rows, extra: Mapping[int, Tensor], kept: Sequence[int], adapters: int, weights: Sequence[float]
) -> Estimate:
    """Weights of the kept deltas and of the further ones together."""
    deltas = {i: rows.deltas[i] for i in kept} | dict(extra)
    count = adapters + len(extra)
    strata = Strata.empty(count)
    steps, size = _units(rows)
    table = torch.stack([d.flatten() for d in deltas.values()])
    index = torch.tensor(list(deltas))
    strata.gram.index_put_((index[:, None], index[None, :]), table @ table.T)
    stored = torch.where(torch.isfinite(rows.stored), rows.stored.double(), rows.ours)
    strata.add(stored - rows.ours, list(deltas.values()), list(deltas), steps, size)
    return estimate([strata], [w if i in kept else 0.0 for i, w in enumerate(weights)] + [1.0] * len(extra))


@dataclass(frozen=True)
class _Left:
    """What the plain claim leaves over, on the very elements by which it was fitted: an estimate takes those that are
    fine enough for what it finds, and over more and coarser ones everything looks like rounding.

    finest: those elements, (n,); unit: their steps; change: what was added to the base, in steps; before: sum of
    squares, in steps, that the plain claim leaves.
    """

    rows: Rows
    finest: Tensor
    unit: Tensor
    change: Tensor
    before: float

    @classmethod
    def of(cls, rows: Rows, plain: Estimate) -> "_Left":
        """Of an identifiable estimate."""
        steps, size = _units(rows)
        ratio = (steps / size.clamp_min(torch.finfo(size.dtype).tiny)).flatten()
        finest = ratio.topk(min(plain.entries, len(ratio)), largest=False).indices
        unit = steps.flatten()[finest]
        change = _left(rows, [0.0] * len(plain.weights)).flatten()[finest] / unit
        made = cls(rows, finest, unit, change, 0.0)
        return replace(made, before=made._after(rows.deltas, plain.weights))

    def is_halved(self, found: Estimate, candidate: _Candidate) -> bool:
        """Whether a candidate leaves at most half of it at the weights found."""
        return self._after(_deltas(self.rows, candidate), found.weights) <= self.before / 2

    def may_halve(self, candidate: _Candidate) -> bool:
        """Whether it does at any weights: these elements' own least squares leave the least. A fit takes longer."""
        table = torch.stack([self._in_steps(d) for d in _deltas(self.rows, candidate).values()])
        weights = torch.linalg.pinv(table @ table.T, hermitian=True) @ (table @ self.change)
        # A part in a million for the arithmetic.
        return float((self.change - weights @ table).square().sum()) <= self.before / 2 * (1 + 1e-6)

    def _after(self, deltas: Mapping[int, Tensor], weights: Sequence[float]) -> float:
        known = (weights[i] * self._in_steps(d) for i, d in deltas.items() if not math.isnan(weights[i]))
        return float((self.change - sum(known, torch.zeros((), dtype=torch.float64))).square().sum())

    def _in_steps(self, delta: Tensor) -> Tensor:
        return delta.flatten()[self.finest] / self.unit


def _deltas(rows: Rows, candidate: _Candidate) -> dict[int, Tensor]:
    """The claim's own that stay, and the further ones."""
    return {i: rows.deltas[i] for i in candidate.kept} | dict(candidate.extra)


def _units(rows: Rows) -> tuple[Tensor, Tensor]:
    """Steps of the elements where they may have got to, and the size of the deltas' rows."""
    sizes = [d.square().mean(1, keepdim=True) for d in rows.deltas.values()]
    size = sum(sizes, torch.zeros(())).sqrt()
    return step(rows.ours.abs() + 3 * size, rows.stored.dtype), size


def _is_there(found: Estimate, candidate: _Candidate) -> bool:
    if candidate.fault == "rank-truncated":
        return all(abs(found.weights[i] - 1.0) < 0.1 for i in candidate.extra)
    return any(abs(found.weights[i]) > max(0.01, 6 * found.stderr[i]) for i in candidate.extra)


def _left(rows: Rows, weights: Sequence[float]) -> Tensor:
    """What the claimed deltas leave over, (rows, columns)."""
    stored = torch.where(torch.isfinite(rows.stored), rows.stored.double(), rows.ours)
    return stored - rows.ours - _sum(rows, weights)


def _quantised(rows: Rows, weights: Sequence[float], claimed: Sequence[float]) -> Diagnosis | None:
    """Whether the remainder is what a quantisation of the base left, and the weights beside it."""
    left = _left(rows, weights)
    before = float(left.square().sum())
    for form, coarse in _quantisations(rows.ours):
        gap = coarse - rows.ours
        size = float(gap.square().sum())
        if before == 0.0 or size == 0.0:
            continue
        share = float((left * gap).sum()) / size
        after = float((left - share * gap).square().sum())
        if 0.9 < share < 1.1 and after < 0.2 * before:
            text = f"a base quantised to {form} explains {1 - after / before:.0%} of the remainder"
            inside = _beside(rows, left + _sum(rows, weights) - gap, coarse, claimed)
            return Diagnosis("quantised-base", text, weights=inside)
    return None


def _beside(rows: Rows, change: Tensor, coarse: Tensor, claimed: Sequence[float]) -> tuple[float, ...]:
    """Weights of the claimed deltas in the change of a quantised base, where its steps are fine enough to show them."""
    own = [math.nan] * len(claimed)
    steps = step(coarse.abs(), rows.stored.dtype)
    least = min((abs(claimed[i]) * float(d.square().mean().sqrt()) for i, d in rows.deltas.items()), default=0.0)
    fine = steps <= least / 2
    if int(fine.sum()) >= MIN_ENTRIES:
        table = torch.stack([d[fine] for d in rows.deltas.values()])
        found = torch.linalg.pinv(table @ table.T, hermitian=True) @ (table @ change[fine])
        for i, weight in zip(rows.deltas, found.tolist(), strict=True):
            own[i] = weight
    return tuple(own)


def _sum(rows: Rows, weights: Sequence[float]) -> Tensor:
    return sum((weights[i] * d for i, d in rows.deltas.items()), torch.zeros((), dtype=rows.ours.dtype))


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
            options[f"that of expert {other}"] = rows_of(theirs, inside, rows.ours)
        if part.b.shape[0] == part.a.shape[1]:
            options["its own, transposed"] = rows_of(LowRank(part.a.T, part.b.T, part.scale), inside, rows.ours)
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
