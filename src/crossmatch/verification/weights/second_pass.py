"""The second look: at all rows where some did not suffice, and at the rows that no route explains."""

import math
from collections.abc import Sequence

import torch

from crossmatch.results.verdict import SampledRowsJson
from crossmatch.runtime import Progress, workers
from crossmatch.verification.arithmetic.fit_by_kind import Others
from crossmatch.verification.arithmetic.float_spacing import step
from crossmatch.verification.subject import Claimed, Subject
from crossmatch.verification.weights.estimate import estimate
from crossmatch.verification.weights.module_verdicts import ModuleVerdict, Thresholds, fits, judge_module, resolves
from crossmatch.verification.weights.remainder import Remainder
from crossmatch.verification.weights.row_sums import Looked, look, read_rows, sample
from crossmatch.verification.weights.scan import ModuleScan, Scan

# Looks with found weights; and how little they may move, of themselves or of a small weight, to count as settled.
_TURNS, _STAYS, _SMALL = 3, 2e-3, 0.1
# An unknown way of rounding: elements outside of every program, as a share, in the median module at least, and by how
# much more in any other. Stochastic rounding left 24%, a merge that was undone and made again 0.1 to 5%, and no module
# of these more than three times the median; what may lie in so many elements is stated in the verdict.
_RARE, _UNEVEN, _SIGMAS = 2.0**-11, 4.0, 6.0


def look_again(subject: Subject, result: Scan, t: Thresholds, progress: Progress) -> None:
    """Complete the scan of every module that the pass leaves in doubt, in place: whether another program explains it,
    what its own weights are, and what is left over, over all rows."""
    claimed = subject.weights
    pooled = estimate([m.looked.strata for m in result.modules], claimed) if result.modules else None
    settled = (
        pooled is not None
        and pooled.identifiable
        and all(e != e or resolves(e, c, t) for e, c in zip(pooled.stderr, claimed, strict=True))
    )
    random = subject.program.order == "stochastic"
    doubts = []
    for module in result.modules:
        judged = _judged(module, claimed, t)
        state = judged.state
        if random or state == "disagree" or not settled or (state == "undecided" and module.outside):
            doubts.append(module)
    if not doubts:
        return
    with progress.task("look again", len(doubts)) as task, workers() as pool:
        others = Others(subject, result)
        unknown = {m.name for m in result.modules} if random else _of_unknown_way(result.modules)
        for module in pool.map(lambda m: _complete(subject, m, t, others, unknown=m.name in unknown), doubts):
            task.advance(1, module.name)


def _of_unknown_way(modules: Sequence[ModuleScan]) -> set[str]:
    """The modules that a way of rounding which no program has may have made: it shows in most of a file, in more than
    a few elements, and nowhere much more than elsewhere. A few odd elements, or one module by itself, are no way."""
    rates = sorted(m.outside / m.elements for m in modules)
    usual = rates[len(rates) // 2]
    if usual < _RARE:
        return set()
    most = _UNEVEN * usual
    return {m.name for m in modules if m.outside <= most * m.elements + _SIGMAS * math.sqrt(most * m.elements)}


def _complete(subject: Subject, module: ModuleScan, t: Thresholds, others: Others, *, unknown: bool) -> ModuleScan:
    claimed, on = subject.weights, subject.on(module.name)
    if module.outside and not module.nonfinite:
        whole = others.explain(module)
        if whole is not None:
            module.program, module.outside, module.bad = whole.program, 0, None
            module.mismatches, module.apart = whole.mismatches, whole.apart
            on = subject.on(module.name, module.program)
            module.looked = subject.look(module.name, on)
    module.base_own = subject.is_base(module.name)
    judged = _judged(module, claimed, t)
    if not module.base_own:
        if not judged.resolved and module.looked.elements < module.elements:
            module.whole = True
        _settle(subject, module, on)
        judged = _judged(module, claimed, t)
    if (
        unknown
        and (module.outside or module.program.order == "stochastic")
        and judged.clean
        and fits(judged, claimed, t)
    ):
        module.remainder = _remainder(subject, module, on)
        judged = _judged(module, claimed, t)
    if module.bad and judged.clean and fits(judged, claimed, t) and not judged.noise:
        # The sample is as claimed, other rows are not: what is there, in place of what is not in question.
        first, last = module.bad
        if last - first + 1 < module.elements // max(1, on.columns):
            module.looked = subject.look(module.name, on, module.bad)
    return module


def _remainder(subject: Subject, module: ModuleScan, on: Claimed) -> Remainder:
    """What the program leaves over, over all rows of a module."""
    result = Remainder.empty(module.name, on.columns)
    for start, stop in subject.base.blocks(module.name, on.columns):
        where = [slice(start, stop)]
        raw, stored = (read_rows(s, module.name, where, on.columns) for s in (subject.base, subject.merged))
        some = on.applied.read(raw, where)
        exact = on.applied.exact(some)
        ulp = step(torch.maximum(exact.abs(), some.ours.abs()), stored.dtype)
        # A sum on the way, or what is stored, may lie in a coarser binade than what it comes to.
        shares = sum((x.abs() for x in some.shares.values()), some.ours.abs())
        coarse = step(torch.maximum(shares, stored.double().abs().nan_to_num(0.0, 0.0, 0.0)), stored.dtype)
        reach = sum(some.reach.values(), torch.zeros_like(ulp)) / ulp + (coarse / ulp - 1)
        left = (stored.double() - on.applied.centre(some).double()) / ulp
        result.add(left, reach, exact - some.ours, ulp)
    return result


def _judged(module: ModuleScan, claimed: Sequence[float], t: Thresholds) -> ModuleVerdict:
    return judge_module(module, estimate([module.looked.strata], claimed), claimed, t)


def _settle(subject: Subject, module: ModuleScan, on: Claimed) -> None:
    """Look with the weights that were found in place of the claimed ones, until they stay: how far elements got, and so
    how large their errors are, follows from them."""
    claimed = subject.weights
    inside = list(claimed)
    for turn in range(_TURNS):
        found = estimate([module.looked.strata], claimed)
        new = [0.0 if math.isnan(w) else w for w in found.weights]
        stays = all(abs(a - b) <= _STAYS * max(abs(a), abs(b), _SMALL) for a, b in zip(new, inside, strict=True))
        # A module of which all rows are wanted is looked at once at least.
        if (stays or not found.identifiable) and (turn or not module.whole):
            return
        inside = new if found.identifiable else inside
        looked = Looked.empty(inside)
        for rows in subject.all(module.name, on) if module.whole else [subject.some(module.name, on)]:
            look(rows, claimed, looked)
        module.looked = looked


def quick_scope(subject: Subject, result: Scan) -> SampledRowsJson:
    """What a sample of rows can miss: rows looked at, and the probability that a fault in a share of one tensor's rows
    goes unseen, in the tensor with the least of them."""
    columns = {module.name: subject.on(module.name).columns for module in result.modules}
    counts = []
    for name in (*columns, *result.identical, *result.untouched_changed):
        info = subject.base.tensors[name]
        width = columns.get(name, info.columns)
        height = info.elements // max(1, width)
        if height:
            counts.append((sum(s.stop - s.start for s in sample(name, height, width)), height, name))
    if not counts:
        return {"tensor": "", "rows": 0, "of": 0, "missed": {}}
    rows, height, name = min(counts, key=lambda c: c[0] / c[1])
    shares = {"one row": 1 / height, "1% of the rows": 0.01, "10% of the rows": 0.1, "all rows": 1.0}
    return {
        "tensor": name,
        "rows": rows,
        "of": height,
        "missed": {name: _missed(rows, height, share) for name, share in shares.items()},
    }


def _missed(rows: int, height: int, share: float) -> float:
    """Probability that none of `rows` of `height` rows, drawn without return, is one of a share of them."""
    bad = max(1, round(share * height))
    result = 1.0
    for drawn in range(rows):
        result *= max(0.0, 1 - bad / (height - drawn))
    return result
