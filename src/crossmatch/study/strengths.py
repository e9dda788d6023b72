"""A vector put on a checkpoint, or taken off it, at some strengths: merges of one vector, proved and published."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint, safe_name
from crossmatch.errors import CheckpointError
from crossmatch.merging import Output, Storage, plan_merge, write_checkpoint
from crossmatch.results.vectors import AppliedStrengthJson, UnequalJson
from crossmatch.runtime import Progress, keep_heap
from crossmatch.vectors import count_unequal, grid, origin_of, pair_checkpoints, strength_name, strengths
from crossmatch.verification import SampledProof


@dataclass(frozen=True)
class StrengthJob:
    """One checkpoint, one vector, and how they are put together: the weight of a strength is `sign` times it."""

    checkpoint: Checkpoint
    vector: Recorded
    sign: float
    storage: Storage
    verify: bool
    any_base: bool
    partial: bool

    @property
    def name(self) -> str:
        """What the vector is called in the result."""
        return self.vector.path.name if safe_name(self.vector.path.name) else "vector"


@dataclass(frozen=True)
class Made:
    """One written strength: what its manifest says, and a sentence."""

    facts: AppliedStrengthJson
    sentence: str


def write_strengths(
    job: StrengthJob, output: Path, strength: Sequence[str], overwrite: bool, progress: Progress
) -> dict[float, Made]:
    """Write what the job makes of each strength."""
    keep_heap()
    results: dict[float, Made] = {}
    with grid(output, strengths(strength), overwrite=overwrite) as places:
        for number, place in places.items():
            # Not -0.0, which a manifest would show.
            parts = {job.name: (job.vector, job.sign * number + 0.0)}
            plan = plan_merge(job.checkpoint, parts, storage=job.storage, allow_partial=job.partial)
            options = Output(overwrite=overwrite and place == output, any_base=job.any_base)
            proof = SampledProof(progress=progress) if job.verify else None
            written = write_checkpoint(plan, place, options, proof, progress)
            facts: AppliedStrengthJson = {"strength": number, "weight": parts[job.name][1], **written.facts}
            results[number] = Made(facts, written.sentence)
            for line in written.hints[:-1]:
                progress.say(line)
    return results


def write_without(
    job: StrengthJob,
    output: Path,
    strength: Sequence[str],
    overwrite: bool,
    base: str | Path | None,
    progress: Progress,
) -> dict[float, Made]:
    """Write what the job makes of each strength; what strength 1 gives is compared with the vector's base."""
    results = write_strengths(job, output, strength, overwrite, progress)
    source, why = origin_of(job.vector, job.checkpoint, base)
    numbers = strengths(strength)
    if 1.0 in numbers:
        if source is None:
            progress.say(f"note: not compared with the base: {why}")
        else:
            place = output / strength_name(1.0) if len(numbers) > 1 else output
            results[1.0].facts["against_base"] = _against_base(source, Checkpoint(place), progress)
    return results


def _against_base(base: Checkpoint, result: Checkpoint, progress: Progress) -> UnequalJson | None:
    """How many elements of a result are not the base's, as plain JSON; None, and a line why, if they are no pair."""
    try:
        return count_unequal(pair_checkpoints(base, result), progress).to_dict()
    except CheckpointError as error:
        # What was written is there and proved; only the comparison fails.
        progress.say(f"note: not compared with the base: {error}")
        return None
