"""The second look: at all rows where some did not suffice, and at the rows that no route explains."""

import math
from typing import Any

from crossmatch.progress import Progress
from crossmatch.verification.judge import Rounded, Thresholds, fits, judge_module, resolves
from crossmatch.verification.look import Looked, look, sample
from crossmatch.verification.recover import estimate
from crossmatch.verification.scan import ModuleScan, Scan, Subject, one_thread_each


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
    with progress.task("look again", len(doubts)) as task, one_thread_each() as pool:
        for module in pool.map(lambda m: _complete(subject, m, t, rounded), doubts):
            task.advance(1, module.name)


def _complete(subject: Subject, module: ModuleScan, t: Thresholds, rounded: Rounded) -> ModuleScan:
    claimed = subject.weights
    on = subject.on(module.name)
    found = estimate([module.looked.strata], claimed)
    judged = judge_module(module, found, claimed, t, rounded)
    module.base_own = subject.is_base(module.name)
    inside = [0.0 if math.isnan(w) else w for w in found.weights]
    if not module.base_own and not judged.resolved and module.looked.elements < module.elements:
        looked = Looked.empty(inside)
        for rows in subject.all(module.name, on):
            look(rows, claimed, looked, inside)
        module.looked, module.whole = looked, True
        judged = judge_module(module, estimate([looked.strata], claimed), claimed, t, rounded)
    elif not module.base_own and not judged.clean:
        # Weights far above the claimed ones carry elements to coarser steps.
        module.looked = look(subject.some(module.name, on), claimed, inside=inside)
        judged = judge_module(module, estimate([module.looked.strata], claimed), claimed, t, rounded)
    elif module.violations.once and not module.looked.replayed:
        # Some elements lie elsewhere, none of the sample: whether a route gives both.
        module.looked = look(subject.some(module.name, on), claimed, replay=True)
        judged = judge_module(module, estimate([module.looked.strata], claimed), claimed, t, rounded)
    if module.bad and judged.clean and fits(judged, claimed, t):
        # The sample is as claimed, other rows are not: what is there, in place of what is not in question.
        first, last = module.bad
        there = look(subject.some(module.name, on, module.bad), claimed, inside=inside)
        if last - first + 1 < module.elements // max(1, on.columns):
            module.looked = there
    return module


def quick_scope(subject: Subject, result: Scan) -> dict[str, Any]:
    """What a sample of rows can miss: rows looked at, and the probability that a fault in a share of one tensor's rows
    goes unseen, in the tensor with the least of them."""
    counts = []
    for module in result.modules:
        columns = subject.on(module.name).columns
        height = subject.base.tensors[module.name].elements // max(1, columns)
        rows = sum(s.stop - s.start for s in sample(module.name, height, columns))
        counts.append((rows, height))
    if not counts:
        return {"rows": 0, "missed": {}}
    rows, height = min(counts, key=lambda c: c[0] / c[1])
    shares = {"one row": 1 / height, "1% of the rows": 0.01, "10% of the rows": 0.1, "all rows": 1.0}
    return {
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
