"""What a plan will do and cost, before it runs."""

import time
from collections.abc import Iterator

from crossmatch.checkpoint import BLOCK_ELEMENTS
from crossmatch.delta import LowRank, Stack, round_once, summed_rows
from crossmatch.merging.plan import MergePlan
from crossmatch.results.merging import CostJson
from crossmatch.runtime import cores

# Bytes that an interpreter with torch takes; seconds to copy a byte to the page cache and to digest it twice.
_RUNTIME_BYTES = 250_000_000
_SECONDS_PER_BYTE = 0.7e-9
_TRIALS = 3


def steps(plan: MergePlan) -> Iterator[str]:
    """What a plan will do, in lines for people."""
    counts = ", ".join(f"{plan.count(a)} to {a}" for a in ("merge", "copy", "cast"))
    yield f"{len(plan.tensors)} tensors: {counts}; {plan.nbytes / 1e9:.3g} GB to write in {len(plan.files())} files"
    yield from plan.fit.notes
    yield from (
        f"adapter {name} is partial, as allowed: {text}" for name, all_ in plan.lacking.items() for text in all_
    )
    if plan.summed:
        shown = ", ".join(plan.summed[:3]) + (f" and {len(plan.summed) - 3} more" if len(plan.summed) > 3 else "")
        yield f"linear in place of {plan.vector.recipe.rule} on {shown}: no factors or elements to act on"


def estimate(plan: MergePlan) -> CostJson:
    """Seconds and bytes of memory that the plan will take on this machine, from one block that is merged and thrown
    away.

    The disk is taken to keep up; what is in its cache already makes no difference here.
    """
    workers = cores()
    merged = [t for t in plan.tensors if t.action == "merge"]
    seconds = factors = 0.0
    if merged:
        largest = max(merged, key=lambda t: t.nbytes)
        base = plan.fit.base
        delta = plan.vector[largest.name].bind(lambda a, b: base.rows(largest.name, a, b, largest.columns))
        start, stop = next(iter(base.blocks(largest.name, largest.columns)))
        began = time.perf_counter()
        for _ in range(_TRIALS):
            rows = base.rows(largest.name, start, stop, largest.columns)
            round_once(summed_rows(rows, delta, start, stop), largest.dtype)
        each = (time.perf_counter() - began) / _TRIALS / ((stop - start) * largest.columns)
        seconds = each * sum(t.nbytes // t.dtype.itemsize for t in merged) / workers
        parts = delta.parts if isinstance(delta, Stack) else (delta,)
        factors = sum(8.0 * (p.b.numel() + p.a.numel()) for p in parts if isinstance(p, LowRank))
    blocks = (2 * workers + 2) * BLOCK_ELEMENTS * 8 + workers * BLOCK_ELEMENTS * 16
    return {
        "seconds": round(seconds + plan.nbytes * _SECONDS_PER_BYTE, 2),
        "memory_bytes": int(_RUNTIME_BYTES + blocks + 3 * factors),
    }
