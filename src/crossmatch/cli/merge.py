"""crossmatch merge."""

from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.console import Terminal, emit, say, size
from crossmatch.cli.options import Adapters, Json, Weights, pair_up
from crossmatch.errors import InputError


def merge_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    adapter: Adapters = None,
    weight: Weights = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Directory to write.")] = None,
    rule: Annotated[str, typer.Option(help="How the deltas are combined.")] = "linear",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: the base's own.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Whose tokenizer and template: base or an adapter.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what lies at the output.")] = False,
    any_base: Annotated[bool, typer.Option("--any-base", help="Allow another base than the adapters record.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan that would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Merge adapters into a base: deltas weighted once, summed exactly, rounded once, proved, published whole."""
    from crossmatch.checkpoint import Checkpoint, check_output
    from crossmatch.merging import DTYPE_ARGUMENTS, Output, merge, plan_merge, side_files
    from crossmatch.process import keep_heap
    from crossmatch.verification import verify

    keep_heap()
    dtype = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}.get(dtype or "", dtype)
    if dtype is not None and dtype not in DTYPE_ARGUMENTS:
        raise InputError(f"--dtype {dtype}: give one of {', '.join(DTYPE_ARGUMENTS)}")
    wanted = DTYPE_ARGUMENTS[dtype] if dtype else None
    if output is None and not dry_run:
        raise InputError("no output given; add -o DIRECTORY (or --dry-run)")
    checkpoint, parts = Checkpoint(base), pair_up(adapter, weight)
    if dry_run or output is None:
        side_files(checkpoint, parts, tokenizer)
        if output is not None:
            check_output(output, overwrite)
        plan = plan_merge(checkpoint, parts, rule=rule, dtype=wanted)
        if as_json:
            emit({"schema_version": 1, **plan.to_dict()})
        else:
            counts = ", ".join(f"{plan.count(a)} to {a}" for a in ("merge", "copy", "cast"))
            print(f"{len(plan.tensors)} tensors: {counts}; {size(plan.nbytes)} to write")
        return
    terminal = Terminal()

    def prove(path: Path) -> dict:
        return verify(path, checkpoint, parts, progress=terminal).for_manifest()

    options = Output(wanted, tokenizer, overwrite, any_base)
    manifest = merge(checkpoint, parts, output, rule=rule, output=options, prove=prove, progress=terminal)
    predicate = manifest["predicate"]
    if as_json:
        emit({"schema_version": 1, "output": str(output), **predicate})
    else:
        counts = predicate["tensors"]
        print(f"{output}: {counts['merge']} tensors merged, {counts['copy']} copied, {predicate['verdict']['verdict']}")
    say(f"to judge it again at any time: crossmatch verify {output}")
