"""A merge written, and what is said of it in a sentence."""

from dataclasses import dataclass
from pathlib import Path

from crossmatch.merging.adapter_output import merge_factors
from crossmatch.merging.execute import Output, Proof, execute
from crossmatch.merging.plan import MergePlan
from crossmatch.results.merging import MergePredicateJson
from crossmatch.runtime import Progress


@dataclass(frozen=True)
class Written:
    """What a manifest says of what was written, a sentence, and hints ({}: where it is)."""

    facts: MergePredicateJson
    sentence: str
    hints: tuple[str, ...] = ()


def write_checkpoint(
    plan: MergePlan, folder: Path, options: Output, proof: Proof | None, progress: Progress
) -> Written:
    """Write a checkpoint, and prove it if there is a proof."""
    predicate = execute(plan, folder, output=options, proof=proof, progress=progress)["predicate"]
    counts = predicate["tensors"]
    verdict = predicate["verdict"]
    said_of_it = verdict["verdict"] if verdict else "not verified: not asked to"
    hints = [f"note: {line}" for line in predicate["notes"]]
    # Measured for rounding to the nearest: stochastic rounding loses nothing in the mean.
    shares = verdict["swallowed_by_adapter"] if verdict and plan.storage.rounding == "nearest" else None
    lost = {name: share for name, share in (shares or {}).items() if share is not None}
    if lost:
        said = ", ".join(f"{share:.1%} of {name}" for name, share in lost.items())
        hints.append(f"energy lost in rounding: {said}")
    hints += [
        f"warning: much of {name} is lost in rounding; --dtype float32 keeps it"
        for name, share in lost.items()
        if share >= 0.1
    ]
    merged, copied = counts["merge"], counts["copy"] + counts["cast"]
    hints.append("to judge it again at any time: crossmatch verify {}")
    return Written(predicate, f"{merged} tensors merged, {copied} copied; {said_of_it}", tuple(hints))


def write_adapter(plan: MergePlan, folder: Path, options: Output, rank: int | None, progress: Progress) -> Written:
    """Write an adapter."""
    predicate = merge_factors(plan, folder, rank=rank, output=options, progress=progress)["predicate"]
    form = predicate["form"]
    cost = f"relative error {form['relative_error']:.2g}" if form["relative_error"] is not None else "zero"
    worst = form["worst"]
    where = f", {worst['relative_error']:.2g} in {worst['tensor']}" if worst and not form["exact"] else ""
    return Written(predicate, f"rank {form['rank']}, {'exact' if form['exact'] else 'truncated'}, {cost}{where}")
