"""crossmatch merge."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal, duration, emit, say, size
from crossmatch.cli.options import Adapters, Json, Weights, one_of, pair_up, shard_bytes, split_pairs
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.merging import MergePlan, Output

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def merge_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    adapter: Adapters = None,
    weight: Weights = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Directory to write.")] = None,
    rule: Annotated[str, typer.Option(help="How the deltas are combined; docs/merge.md lists them.")] = "linear",
    option: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the rule; repeat.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of rules that draw, and of stochastic rounding.")] = 0,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", "--protect", help="Activations, made by crossmatch calibrate.")
    ] = None,
    to: Annotated[str, typer.Option(help="checkpoint, or adapter: factors, for PEFT and servers.")] = "checkpoint",
    rank: Annotated[int | None, typer.Option(help="With --to adapter: the best one of this rank.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: the base's own.")] = None,
    rounding: Annotated[str, typer.Option(help="nearest or stochastic.")] = "nearest",
    shard_size: Annotated[str | None, typer.Option(help="5GB, or single; default: the base's files.")] = None,
    tied: Annotated[str, typer.Option(help="One of two tied embeddings changes: refuse, untie or keep.")] = "refuse",
    tokenizer: Annotated[str | None, typer.Option(help="Whose tokenizer and template: base or an adapter.")] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Prove what is written.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what lies at the output.")] = False,
    any_base: Annotated[bool, typer.Option("--any-base", help="Allow another base than the adapters record.")] = False,
    durable: Annotated[bool, typer.Option("--durable", help="Wait until the disk has it all.")] = False,
    sha256: Annotated[bool, typer.Option("--sha256", help="Add SHA-256 digests to the manifest.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan that would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Merge adapters into a base: deltas weighted once, summed exactly, rounded once, proved, published whole."""
    from crossmatch.checkpoint import Checkpoint, check_output
    from crossmatch.merging import DTYPE_ARGUMENTS, Output, Storage, plan_merge, side_files
    from crossmatch.process import keep_heap
    from crossmatch.rules import Calibration, Recipe

    keep_heap()
    dtype = _DTYPES.get(dtype or "", dtype)
    one_of("--dtype", dtype, (None, *DTYPE_ARGUMENTS))
    one_of("--to", to, ("checkpoint", "adapter"))
    one_of("--tied", tied, ("refuse", "untie", "keep"))
    if rank is not None and to != "adapter":
        raise InputError("--rank needs --to adapter: a checkpoint takes the whole sum")
    if output is None and not dry_run:
        raise InputError("no output given; add -o DIRECTORY (or --dry-run)")
    data = Calibration(calibration) if calibration is not None else None
    recipe = Recipe(rule, split_pairs(option, "--set"), seed, data)
    storage = Storage(DTYPE_ARGUMENTS[dtype] if dtype else None, rounding, shard_bytes(shard_size), tied)  # type: ignore[arg-type]
    plan = plan_merge(Checkpoint(base), pair_up(adapter, weight), recipe=recipe, storage=storage)
    options = Output(tokenizer, overwrite, any_base, durable, sha256)
    for line in side_files(plan, tokenizer).disagreements:
        say(f"note: {line}")
    if dry_run or output is None:
        if output is not None:
            check_output(output, overwrite)
        _show_plan(plan, as_json)
    elif to == "adapter":
        _write_adapter(plan, output, rank, options, as_json)
    else:
        _write_checkpoint(plan, output, options, verify, as_json)


def _show_plan(plan: "MergePlan", as_json: bool) -> None:
    from crossmatch.merging import estimate, steps

    cost = estimate(plan)
    if as_json:
        emit({"schema_version": 1, **plan.to_dict(), "estimate": cost})
        return
    for line in steps(plan):
        print(line)
    print(f"about {duration(cost['seconds'])} and {size(cost['memory_bytes'])} of memory")


def _write_checkpoint(plan: "MergePlan", output: Path, options: "Output", verify: bool, as_json: bool) -> None:
    from crossmatch.merging import execute
    from crossmatch.verification import SampledProof

    terminal = Terminal()
    proof = SampledProof(progress=terminal) if verify else None
    predicate: dict[str, Any] = execute(plan, output, output=options, proof=proof, progress=terminal)["predicate"]
    verdict = predicate["verdict"]
    if as_json:
        emit({"schema_version": 1, "output": str(output), **predicate})
    else:
        counts, found = predicate["tensors"], verdict["verdict"] if verdict else "not verified: not asked to"
        print(f"{output}: {counts['merge']} tensors merged, {counts['copy'] + counts['cast']} copied; {found}")
    for line in predicate["notes"]:
        say(f"note: {line}")
    for name, share in ((verdict or {}).get("swallowed_by_adapter") or {}).items():
        if share is not None and share >= 0.1:
            say(f"warning: {share:.0%} of the energy of {name} is lost in rounding; --dtype float32 keeps it")
    say(f"to judge it again at any time: crossmatch verify {output}")


def _write_adapter(plan: "MergePlan", output: Path, rank: int | None, options: "Output", as_json: bool) -> None:
    from crossmatch.merging import merge_factors

    predicate = merge_factors(plan, output, rank=rank, output=options, progress=Terminal())["predicate"]
    if as_json:
        emit({"schema_version": 1, "output": str(output), **predicate})
        return
    form = predicate["form"]
    cost = f"relative error {form['relative_error']:.2g}" if form["relative_error"] is not None else "zero"
    worst = form["worst"]
    where = f", {worst['relative_error']:.2g} in {worst['tensor']}" if worst and not form["exact"] else ""
    print(f"{output}: an adapter of rank {form['rank']}, {'exact' if form['exact'] else 'truncated'}, {cost}{where}")
