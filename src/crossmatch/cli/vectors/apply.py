"""crossmatch vectors apply and remove."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.merge_output import storage, write_checkpoint
from crossmatch.cli.options import DTYPES, AllowPartial, Json, Overwrite, Strengths

if TYPE_CHECKING:
    from crossmatch.adapter import Recorded
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.merging import Storage
    from crossmatch.results.vectors import AppliedStrengthJson, UnequalJson

Out = Annotated[Path, typer.Option("-o", "--output", help="Directory; of several strengths one in it for each.")]
Vector = Annotated[str, typer.Argument(help="A vector or an adapter: a directory or a hub id.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: that of the checkpoint.")]
Tied = Annotated[str, typer.Option(help="One of two tied embeddings changes: refuse, untie or keep.")]
Verify = Annotated[bool, typer.Option("--verify/--no-verify", help="Prove what is written.")]


def apply_command(
    base: Annotated[str, typer.Argument(help="Checkpoint to put it on: a directory or a hub id.")],
    vector: Vector,
    output: Out,
    strength: Strengths = None,
    dtype: Dtype = None,
    tied: Tied = "refuse",
    any_base: Annotated[bool, typer.Option("--any-base", help="Allow another base than the vector records.")] = False,
    verify: Verify = True,
    partial: AllowPartial = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write round(base + g vector) for every strength g: a merge of one vector, proved and published like a merge."""
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint

    found, checkpoint = open_vector(vector), Checkpoint(base)
    own = {str(info.dtype).removeprefix("torch.") for info in checkpoint.tensors.values()}
    stored = _tuned_dtype(found.record.get("tuned"))
    if dtype is None and stored is not None and stored not in own:
        say(f"note: the tuned checkpoint is {stored}, this one is not; --dtype {stored} gives it back")
    job = Job(checkpoint, found, 1.0, storage(dtype, "nearest", None, tied), verify, any_base, partial)
    results = write_strengths(job, output, strength or ["1"], overwrite)
    show_strengths(output, results, as_json)


def remove_command(
    tuned: Annotated[str, typer.Argument(help="Checkpoint to take it off: a directory or a hub id.")],
    vector: Vector,
    output: Out,
    strength: Strengths = None,
    base: Annotated[
        str | None, typer.Option(help="The vector's base, to compare with; default: as its manifest says.")
    ] = None,
    dtype: Dtype = None,
    tied: Tied = "refuse",
    verify: Verify = True,
    partial: AllowPartial = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write round(tuned - g vector) for every strength g.

    Where the vector was extracted from this very checkpoint, strength 1 gives the base: how many elements do not is
    counted and said.
    """
    from crossmatch.adapter import open_vector
    from crossmatch.checkpoint import Checkpoint

    stored = storage(dtype, "nearest", None, tied)
    job = Job(Checkpoint(tuned), open_vector(vector), -1.0, stored, verify, True, partial)
    show_strengths(output, taken_off(job, output, strength or ["1"], overwrite, base), as_json)


def taken_off(
    job: "Job", output: Path, strength: Sequence[str], overwrite: bool, base: str | Path | None
) -> "dict[float, Made]":
    """Write what the job makes of each strength; what strength 1 gives is compared with the vector's base."""
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.vectors import origin_of, strength_name, strengths

    results = write_strengths(job, output, strength, overwrite)
    source, why = origin_of(job.vector, job.checkpoint, base)
    numbers = strengths(strength)
    if 1.0 in numbers:
        if source is None:
            say(f"note: not compared with the base: {why}")
        else:
            place = output / strength_name(1.0) if len(numbers) > 1 else output
            results[1.0].facts["against_base"] = against_base(source, Checkpoint(place))
    return results


def _tuned_dtype(tuned: object) -> str | None:
    dtypes = tuned.get("dtypes") if isinstance(tuned, dict) else None
    return dtypes[0] if isinstance(dtypes, list) and dtypes and dtypes[0] in DTYPES.values() else None


@dataclass(frozen=True)
class Job:
    """One checkpoint, one vector, and how they are put together: the weight of a strength is `sign` times it."""

    checkpoint: "Checkpoint"
    vector: "Recorded"
    sign: float
    storage: "Storage"
    verify: bool
    any_base: bool
    partial: bool

    @property
    def name(self) -> str:
        """What the vector is called in the result."""
        from crossmatch.checkpoint import safe_name

        return self.vector.path.name if safe_name(self.vector.path.name) else "vector"


@dataclass(frozen=True)
class Made:
    """One written strength: what its manifest says, and a sentence."""

    facts: "AppliedStrengthJson"
    sentence: str


def write_strengths(job: Job, output: Path, strength: Sequence[str], overwrite: bool) -> dict[float, Made]:
    """Write what the job makes of each strength."""
    from crossmatch.merging import Output, plan_merge
    from crossmatch.runtime import keep_heap
    from crossmatch.vectors import grid, strengths

    keep_heap()
    results: dict[float, Made] = {}
    with grid(output, strengths(strength), overwrite=overwrite) as places:
        for number, place in places.items():
            # Not -0.0, which a manifest would show.
            parts = {job.name: (job.vector, job.sign * number + 0.0)}
            plan = plan_merge(job.checkpoint, parts, storage=job.storage, allow_partial=job.partial)
            options = Output(overwrite=overwrite and place == output, any_base=job.any_base)
            written = write_checkpoint(plan, place, options, job.verify)
            facts: AppliedStrengthJson = {"strength": number, "weight": parts[job.name][1], **written.facts}
            results[number] = Made(facts, written.sentence)
            for line in written.hints[:-1]:
                say(line)
    return results


def show_strengths(output: Path, results: dict[float, "Made"], as_json: bool) -> None:
    """One line for each strength, and how the result compares with the base where that was counted."""
    if as_json:
        from crossmatch.result_kinds import APPLIED

        emit(
            APPLIED,
            {"schema_version": 1, "output": str(output), "strengths": [made.facts for made in results.values()]},
        )
        return
    for number, made in results.items():
        print(f"strength {number:g}: {made.sentence}")
        against = made.facts.get("against_base")
        if against is not None:
            beyond = f"; {against['beyond']:,} in added rows stay" if against["beyond"] else ""
            print(f"  {against['differ']:,} of {against['elements']:,} elements are not the base's{beyond}")
            for name, count in sorted(against["tensors"].items(), key=lambda item: -item[1])[:3]:
                print(f"    {count:,} in {name}")


def against_base(base: "Checkpoint", result: "Checkpoint") -> "UnequalJson | None":
    """How many elements of a result are not the base's, as plain JSON; None, and a line why, if they are no pair."""
    from crossmatch.errors import CheckpointError
    from crossmatch.vectors import count_unequal, pair_checkpoints

    try:
        return count_unequal(pair_checkpoints(base, result), Terminal()).to_dict()
    except CheckpointError as error:
        # What was written is there and proved; only the comparison fails.
        say(f"note: not compared with the base: {error}")
        return None
