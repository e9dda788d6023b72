"""Recovering merge weights from stored bytes, although most of a small delta is lost in rounding.

A stored element is M = round(W + sum_i l_i D_i). Where the rounding step is large beside the delta the element stays at
W, and plain least squares is pulled to zero. The estimate here uses only elements whose step, known from W alone, is
small beside the delta; and it weighs each by 1/step, since its error is uniform within a step:

    minimise sum_e ((M - W)_e - sum_i l_i D_ie)^2 / step_e^2      cov(l) = (1/12) (X^T X)^-1,  X_ei = D_ie / step_e

Which elements are small enough depends on the size of the delta that is really inside, which is only known afterwards.
So sums are kept apart by the ratio step / row size of the deltas, in powers of two, and added up to the right cut-off
when it is known: one pass over the files, any number of cut-offs.

Where more than rounding is left over, its size does not follow the step, and a few elements of the finest steps would
decide all. Then every element counts the same:

    minimise sum_e ((M - W)_e - sum_i l_i D_ie)^2        cov(l) = s^2 (X^T X)^-1,  X_ei = D_ie, s^2 the mean residual
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Strata: step / (row rms of the deltas at weight one) in (2^(k-1), 2^k]; below and above are clamped.
LOWEST, HIGHEST = -8, 12
_BINS = HIGHEST - LOWEST + 1
MIN_ENTRIES = 200
# Of adapters whose cosine is 0.998: beyond it a systematic error of 1e-4, as of a rounded weight, is a wrong answer.
MAX_CONDITION = 1e3
# The least that residual variance is taken for: a residual of zero says nothing of errors.
_LEAST = 0.1
# Residual variance, over that of one rounding, from which it is no longer taken for rounding.
FOREIGN = 20.0
_PARALLEL = 0.99
# Standard errors by which a program's own rounding pulls a fit, from which it is taken for no chance, which gives that
# to one weight in 80: at 4, intervals of weights that 16-bit models were multiplied by held 91% of 287 true ones.
_PULLS = 2.5


@dataclass
class Strata:
    """Sums over one module (or several), by stratum; adapters are numbered as in the claim.

    xx: (bins, k, k), xy: (bins, k), yy: (bins,), count: (bins,); gram: (k, k) of <D_i, D_j>; plain: (bins, k + 1,
    k + 1), products of (D_1 ... D_k, M - W) without weights; own: (bins, k), as xy, of what the program gives less the
    exact sum: how far its own rounding pulls a fit; offset: (k,), weights whose sum was taken off M - W
    beforehand: near the right ones, what is left over can be told although it is 1e-18 of the whole. All float64.
    """

    xx: Tensor
    xy: Tensor
    yy: Tensor
    count: Tensor
    gram: Tensor
    plain: Tensor
    own: Tensor
    offset: Tensor

    @classmethod
    def empty(cls, adapters: int, offset: Sequence[float] | None = None) -> "Strata":
        """No elements yet."""
        shapes = ((_BINS, adapters, adapters), (_BINS, adapters), (_BINS,), (_BINS,), (adapters, adapters))
        shapes += ((_BINS, adapters + 1, adapters + 1), (_BINS, adapters))
        weights = torch.zeros(adapters, dtype=torch.float64) if offset is None else torch.tensor(list(offset)).double()
        return cls(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes), offset=weights)

    def add(
        self,
        change: Tensor,
        deltas: Sequence[Tensor],
        which: Sequence[int],
        steps: Tensor,
        size: Tensor,
        grain: Tensor | None = None,
        own: Tensor | None = None,
    ) -> None:
        """Add one block.

        change: M - W less sum_i offset_i D_i; deltas: D_i at weight one, numbered by `which`; steps: rounding step that
        the errors have; all of the block's shape. size: rms of the deltas' rows, (rows, 1). grain: the step that
        decides on the stratum, where that is another; own: what the program gives less the exact sum.
        """
        # A row of size zero says nothing: it lands in the last stratum, which no cut-off reaches.
        grain = steps if grain is None else grain
        ratio = (grain / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(2.0**HIGHEST)
        bins = (torch.frexp(ratio).exponent.clamp(LOWEST, HIGHEST) - LOWEST).flatten()
        self.count += torch.bincount(bins, minlength=_BINS)
        bins = bins.long()
        table = [t.double().flatten() for t in (*deltas, change)]
        weight = steps.double().flatten().square().reciprocal_()
        y = len(self.gram)
        for (i, first), (j, second) in itertools.combinations_with_replacement(zip((*which, y), table, strict=True), 2):
            product = first * second
            self._add(self.plain, i, j, _by(bins, product))
            scaled = _by(bins, product.mul_(weight))
            if i == y:
                self.yy += scaled
            elif j == y:
                self.xy[:, i] += scaled
            else:
                self._add(self.xx, i, j, scaled)
        if own is not None:
            pull = own.double().flatten() * weight
            for i, delta in zip(which, table, strict=False):
                self.own[:, i] += _by(bins, pull * delta)

    @staticmethod
    def _add(sums: Tensor, i: int, j: int, found: Tensor) -> None:
        sums[:, i, j] += found
        if i != j:
            sums[:, j, i] += found

    def rebased(self, offset: Tensor) -> "Strata":
        """The same with y taken from another offset on."""
        if torch.equal(offset, self.offset):
            return self
        further = self.offset - offset
        turn = torch.eye(len(offset) + 1, dtype=torch.float64)
        turn[-1, :-1] = further
        moved = torch.einsum("bij,j->bi", self.xx, further)
        yy = self.yy + 2 * self.xy @ further + moved @ further
        return Strata(self.xx, self.xy + moved, yy, self.count, self.gram, turn @ self.plain @ turn.T, self.own, offset)

    def only(self, adapters: Sequence[int]) -> "Strata":
        """The sums of some of the adapters, numbered anew; the others are in y then."""
        index = torch.tensor(list(adapters), dtype=torch.long)
        every = torch.tensor([*adapters, len(self.gram)], dtype=torch.long)
        kept = torch.zeros_like(self.offset)
        kept[index] = self.offset[index]
        whole = self.rebased(kept)
        square, wide = (index[:, None], index[None, :]), (every[:, None], every[None, :])
        sums = (whole.xx[:, *square], whole.xy[:, index], whole.yy, whole.count, whole.gram[square])
        return Strata(*sums, whole.plain[:, *wide], whole.own[:, index], kept[index])

    def cut(self, weights: Tensor) -> int:
        """Number of strata in which the step is at most half the row size of sum_i weights_i D_i."""
        unit = float(self.gram.trace())
        inside = float(weights @ self.gram @ weights)
        if unit <= 0.0 or inside <= 0.0:
            return 0
        limit = torch.log2(torch.tensor((inside / unit) ** 0.5 / 2.0)).floor()
        return int(limit.clamp(LOWEST - 1, HIGHEST - 1)) - LOWEST + 1


def _by(bins: Tensor, values: Tensor) -> Tensor:
    """Sums of some values by stratum."""
    return torch.zeros(_BINS, dtype=torch.float64).scatter_add_(0, bins, values)


@dataclass(frozen=True)
class Estimate:
    """Recovered weights with standard errors.

    weights, stderr: one per adapter, NaN where an adapter has no delta here; entries: elements used; excess: residual
    variance over that of one rounding, 1 for an honest merge; identifiable: whether the numbers mean anything.
    """

    weights: tuple[float, ...]
    stderr: tuple[float, ...]
    entries: int
    excess: float
    identifiable: bool


def estimate(parts: Sequence[Strata], start: Sequence[float], rounds: int = 8) -> Estimate:
    """Weighted least squares over some modules, the cut-off following the estimate.

    start: weights from which the first cut-off is taken (the claim). Adapters without a delta in `parts` get NaN. If
    what is found is so small that fewer than 200 elements would show it, the finest usable cut-off is taken and the
    standard error covers what could hide there. Fewer than 200 elements at any
    cut-off, or a condition number above 1e3, is reported as not identifiable.
    """
    adapters = len(start)
    present = [i for i in range(adapters) if any(float(p.gram[i, i]) > 0 for p in parts)]
    weights = torch.tensor([float(w) for w in start], dtype=torch.float64)
    cuts: list[int] | None = None
    found: Estimate | None = None
    for _ in range(rounds):
        chosen = [p.cut(weights) for p in parts]
        if chosen == cuts:
            break
        cuts, found = chosen, _solve(parts, chosen, present, adapters)
        if found is None:
            return _finest(parts, present, adapters)
        weights = torch.nan_to_num(torch.tensor(found.weights, dtype=torch.float64))
    return found or _finest(parts, present, adapters)


def _finest(parts: Sequence[Strata], present: Sequence[int], adapters: int) -> Estimate:
    """The estimate at the finest cut-off with enough elements, its standard error widened by the bias that may be left.

    At a step of u and a delta of size s the bias is of order exp(-2 pi^2 (s/u)^2): nothing at u = s, 1% at u = 2 s. A
    delta smaller than that could hide, and the error then covers all that could.
    """
    if sum(float(p.count.sum()) for p in parts) < MIN_ENTRIES:
        nan = (float("nan"),) * adapters
        return Estimate(nan, nan, 0, float("nan"), identifiable=False)
    gram = sum((p.gram for p in parts), torch.zeros(adapters, adapters, dtype=torch.float64))
    for cut in range(1, _BINS):
        found = _solve(parts, [cut] * len(parts), present, adapters)
        if found is None:
            continue
        weights = torch.nan_to_num(torch.tensor(found.weights, dtype=torch.float64))
        # Both in units of the deltas at weight one.
        step, size = 2.0 ** (cut - 1 + LOWEST), float((weights @ gram @ weights / gram.trace()).clamp_min(0).sqrt())
        if step <= size:
            return found
        hidden = [step * float(gram.trace() / gram[i, i]) ** 0.5 if i in present else 0.0 for i in range(adapters)]
        floor = [0.01 * abs(w) for w in weights.tolist()] if step <= 2 * size else hidden
        stderr = tuple(max(e, f) if e == e else e for e, f in zip(found.stderr, floor, strict=True))
        return replace(found, stderr=stderr)
    nan = (float("nan"),) * adapters
    return Estimate(nan, nan, 0, float("nan"), identifiable=False)


def _solve(parts: Sequence[Strata], cuts: Sequence[int], present: Sequence[int], adapters: int) -> Estimate | None:
    xx, xy = torch.zeros(adapters, adapters, dtype=torch.float64), torch.zeros(adapters, dtype=torch.float64)
    own, yy, count = torch.zeros_like(xy), 0.0, 0.0
    reference = parts[0].offset
    for part, cut in zip(parts, cuts, strict=True):
        part = part.rebased(reference)
        xx, xy = xx + part.xx[:cut].sum(0), xy + part.xy[:cut].sum(0)
        yy, count = yy + float(part.yy[:cut].sum()), count + float(part.count[:cut].sum())
        own = own + part.own[:cut].sum(0)
    index = torch.tensor(list(present), dtype=torch.long)
    normal = xx[index][:, index]
    if count < MIN_ENTRIES or not len(index) or condition(normal) > MAX_CONDITION:
        return None
    inverse = torch.linalg.inv(normal)
    solution = inverse @ xy[index]
    residual = max(0.0, yy - float(solution @ xy[index]))
    excess = residual / (count / 12.0)
    # The step is an upper one, at |W| + 3 s: what is left over says how much smaller the errors really are.
    errors = (inverse.diagonal() / 12.0 * max(_LEAST, excess)).sqrt()
    # A rounding of small multiples of the step is no dither: where the program's own pulls the fit, the error says so.
    pull = (inverse @ own[index]).abs()
    errors = torch.where(pull > _PULLS * errors, torch.hypot(errors, pull), errors)
    if excess > FOREIGN:
        solution, errors = _plain(parts, cuts, index, count)
    weights, stderr = [float("nan")] * adapters, [float("nan")] * adapters
    for position, adapter in enumerate(present):
        weights[adapter] = float(reference[adapter] + solution[position])
        stderr[adapter] = float(errors[position])
    return Estimate(tuple(weights), tuple(stderr), int(count), excess, identifiable=True)


def _plain(parts: Sequence[Strata], cuts: Sequence[int], index: Tensor, count: float) -> tuple[Tensor, Tensor]:
    """Weights and standard errors with every element counted the same."""
    reference, sums = parts[0].offset, torch.zeros_like(parts[0].plain[0])
    for part, cut in zip(parts, cuts, strict=True):
        sums = sums + part.rebased(reference).plain[:cut].sum(0)
    inverse = torch.linalg.pinv(sums[index][:, index], hermitian=True)
    solution = inverse @ sums[index, -1]
    variance = max(0.0, float(sums[-1, -1] - solution @ sums[index, -1])) / count
    return solution, (inverse.diagonal() * variance).sqrt()


@dataclass(frozen=True)
class SumOfWeights:
    """What the data do say of adapters that they cannot tell apart: sum_i terms_i l_i, with its standard error.

    terms: number of the adapter -> size of its delta along the first one's.
    """

    terms: dict[int, float]
    value: float
    stderr: float


def sums(parts: Sequence[Strata], start: Sequence[float]) -> list[SumOfWeights]:
    """Sums of the weights of nearly parallel adapters (|cosine| > 0.99), each group taken as one direction; an adapter
    that is parallel to none is a group of its own.

    Empty if no two adapters are, or if that does not make the others separable.
    """
    gram = sum((p.gram for p in parts), torch.zeros(len(start), len(start), dtype=torch.float64))
    norms = gram.diagonal().clamp_min(0).sqrt()
    present = [i for i in range(len(start)) if norms[i] > 0]
    groups: list[list[int]] = []
    for i in present:
        near = next((g for g in groups if abs(float(gram[g[0], i] / (norms[g[0]] * norms[i]))) > _PARALLEL), None)
        if near is None:
            groups.append([i])
        else:
            near.append(i)
    if all(len(group) == 1 for group in groups):
        return []
    firsts = [group[0] for group in groups]
    reduced = [p.only(firsts) for p in parts]
    terms = [{i: float(gram[g[0], i] / gram[g[0], g[0]]) for i in g} for g in groups]
    found = estimate(reduced, [sum(c * start[i] for i, c in t.items()) for t in terms])
    if not found.identifiable:
        return []
    every = zip(terms, found.weights, found.stderr, strict=True)
    return [SumOfWeights(t, w, s) for t, w, s in every]


def condition(normal: Tensor) -> float:
    """Condition number of a Gram matrix scaled to unit diagonal: how nearly parallel the adapters are.

    The scaling matters: adapters of very different size are not parallel.
    """
    diagonal = normal.diagonal()
    if bool((diagonal <= 0).any()):
        return float("inf")
    values = torch.linalg.eigvalsh(normal / torch.sqrt(diagonal[:, None] * diagonal[None, :]))
    return float("inf") if float(values[0]) <= 0 else float(values[-1] / values[0])
