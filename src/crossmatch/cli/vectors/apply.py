"""crossmatch vectors apply and remove."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.options import AllowPartial, Json, Overwrite, Strengths
from crossmatch.console import Terminal, emit, say

if TYPE_CHECKING:
    from crossmatch.study.strengths import Made

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
    from crossmatch.merging import read_storage
    from crossmatch.study.strengths import StrengthJob, write_strengths

    found, checkpoint = open_vector(vector), Checkpoint(base)
    own = {str(info.dtype).removeprefix("torch.") for info in checkpoint.tensors.values()}
    stored = _tuned_dtype(found.record.get("tuned"))
    if dtype is None and stored is not None and stored not in own:
        say(f"note: the tuned checkpoint is {stored}, this one is not; --dtype {stored} gives it back")
    job = StrengthJob(checkpoint, found, 1.0, read_storage(dtype, "nearest", None, tied), verify, any_base, partial)
    results = write_strengths(job, output, strength or ["1"], overwrite, Terminal())
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
    from crossmatch.merging import read_storage
    from crossmatch.study.strengths import StrengthJob, write_without

    stored = read_storage(dtype, "nearest", None, tied)
    job = StrengthJob(Checkpoint(tuned), open_vector(vector), -1.0, stored, verify, True, partial)
    results = write_without(job, output, strength or ["1"], overwrite, base, Terminal())
    show_strengths(output, results, as_json)


def _tuned_dtype(tuned: object) -> str | None:
    from crossmatch.checkpoint import DTYPE_WORDS

    dtypes = tuned.get("dtypes") if isinstance(tuned, dict) else None
    return dtypes[0] if isinstance(dtypes, list) and dtypes and dtypes[0] in DTYPE_WORDS.values() else None


def show_strengths(output: Path, results: "dict[float, Made]", as_json: bool) -> None:
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
