"""The second look: at all rows where some did not suffice, and at the rows that no route explains."""

import math
from collections.abc import Sequence
from typing import Any

from crossmatch.process import workers
from crossmatch.progress import Progress
from crossmatch.verification.judge import ModuleVerdict, Rounded, Thresholds, fits, judge_module, resolves
from crossmatch.verification.look import Looked, look, sample
from crossmatch.verification.recover import estimate
from crossmatch.verification.scan import Claimed, ModuleScan, Scan, Subject

# Looks with found weights; and how little they may move, of themselves or of a small weight, to count as settled.
_TURNS, _STAYS, _SMALL = 3, 2e-3, 0.1


def look_again(subject: Subject, result: Scan, t: Thresholds, rounded: Rounded, progress: Progress) -> None:
    """Complete the scan of every module that its sample leaves in doubt, in place."""
    claimed = subject.weights
    pooled = estimate([m.looked.strata for m in result.modules], claimed) if result.modules else None
    settled = (
        pooled is not None
        and pooled.identifiable
        and all(e != e or resolves(e, c, t) for e, c in zip(pooled.stderr, claimed, strict=True))
    )
    doubts = []
    for module in result.modules:
        judged = judge_module(module, estimate([module.looked.strata], claimed), claimed, t, rounded)
        exact = module.looked.mismatches <= t.violations * module.looked.elements
        if judged.state == "disagree" or not settled or (judged.state == "undecided" and not exact):
            doubts.append(module)
    if not doubts:
        return
    with progress.task("look again", len(doubts)) as task, workers() as pool:
        for module in pool.map(lambda m: _complete(subject, m, t, rounded), doubts):
            task.advance(1, module.name)


def _complete(subject: Subject, module: ModuleScan, t: Thresholds, rounded: Rounded) -> ModuleScan:
    claimed = subject.weights
    on = subject.on(module.name)
    module.base_own = subject.is_base(module.name)
    judged = _judged(module, claimed, t, rounded)
    if not module.base_own:
        if not judged.resolved and module.looked.elements < module.elements:
            module.whole = True
        _settle(subject, module, on)
        judged = _judged(module, claimed, t, rounded)
    if module.violations.once and not module.violations.gross and not module.looked.replayed and judged.clean:
        # Some elements lie elsewhere, none of the sample: whether a route gives both.
        module.looked = look(subject.some(module.name, on), claimed, replay=True)
        judged = _judged(module, claimed, t, rounded)
    if module.bad and judged.clean and fits(judged, claimed, t):
        # The sample is as claimed, other rows are not: what is there, in place of what is not in question.
        first, last = module.bad
        if last - first + 1 < module.elements // max(1, on.columns):
            module.looked = look(subject.some(module.name, on, module.bad), claimed)
    return module


def _judged(module: ModuleScan, claimed: Sequence[float], t: Thresholds, rounded: Rounded) -> ModuleVerdict:
    return judge_module(module, estimate([module.looked.strata], claimed), claimed, t, rounded)


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


def quick_scope(subject: Subject, result: Scan) -> dict[str, Any]:
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
