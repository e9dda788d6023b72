"""crossmatch merge."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal, duration, emit, say, size
from crossmatch.cli.destination import HUB, destination
from crossmatch.cli.options import Adapters, Json, Weights, one_of, pair_up, shard_bytes, split_pairs
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.merging import MergePlan, Output

    Written = tuple[dict[str, Any], str, list[str]]

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def merge_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    adapter: Adapters = None,
    weight: Weights = None,
    output: Annotated[str | None, typer.Option("-o", "--output", help="Directory, or hub:ORG/NAME.")] = None,
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
    for line in side_files(plan, tokenizer).disagreements:
        say(f"note: {line}")
    if dry_run or output is None:
        if output is not None and not output.startswith(HUB):
            check_output(Path(output), overwrite)
        return _show_plan(plan, as_json)
    options = Output(tokenizer, overwrite, any_base, durable, sha256, away=output.startswith(HUB))
    with destination(output) as (folder, publish):
        checkpoint = to == "checkpoint"
        written = (
            _write_checkpoint(plan, folder, options, verify)
            if checkpoint
            else _write_adapter(plan, folder, options, rank)
        )
        where = publish()
    predicate, sentence, hints = written
    if as_json:
        emit({"schema_version": 1, "output": where, **predicate})
    else:
        print(f"{where}: {sentence}")
    for line in [*hints, *([f"to judge it again at any time: crossmatch verify {where}"] if checkpoint else [])]:
        say(line)
    return None


def _show_plan(plan: "MergePlan", as_json: bool) -> None:
    from crossmatch.merging import estimate, steps

    cost = estimate(plan)
    if as_json:
        emit({"schema_version": 1, **plan.to_dict(), "estimate": cost})
        return
    for line in steps(plan):
        print(line)
    print(f"about {duration(cost['seconds'])} and {size(cost['memory_bytes'])} of memory")


def _write_checkpoint(plan: "MergePlan", folder: Path, options: "Output", verify: bool) -> "Written":
    from crossmatch.merging import execute
    from crossmatch.verification import SampledProof

    terminal = Terminal()
    proof = SampledProof(progress=terminal) if verify else None
    predicate: dict[str, Any] = execute(plan, folder, output=options, proof=proof, progress=terminal)["predicate"]
    counts = predicate["tensors"]
    verdict: dict[str, Any] = predicate["verdict"] or {"verdict": "not verified: not asked to"}
    hints = [f"note: {line}" for line in predicate["notes"]]
    for name, share in (verdict.get("swallowed_by_adapter") or {}).items():
        if share is not None and share >= 0.1:
            hints.append(f"warning: {share:.0%} of the energy of {name} is lost in rounding; --dtype float32 keeps it")
    merged, copied = counts["merge"], counts["copy"] + counts["cast"]
    return predicate, f"{merged} tensors merged, {copied} copied; {verdict['verdict']}", hints


def _write_adapter(plan: "MergePlan", folder: Path, options: "Output", rank: int | None) -> "Written":
    from crossmatch.merging import merge_factors

    predicate = merge_factors(plan, folder, rank=rank, output=options, progress=Terminal())["predicate"]
    form = predicate["form"]
    cost = f"relative error {form['relative_error']:.2g}" if form["relative_error"] is not None else "zero"
    worst = form["worst"]
    where = f", {worst['relative_error']:.2g} in {worst['tensor']}" if worst and not form["exact"] else ""
    return predicate, f"rank {form['rank']}, {'exact' if form['exact'] else 'truncated'}, {cost}{where}", []
