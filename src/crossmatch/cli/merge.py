"""crossmatch merge."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.merge_output import HUB, destination, say_notes
from crossmatch.cli.options import Adapters, AllowPartial, Json, Weights, pair_up
from crossmatch.console import Terminal, emit, say
from crossmatch.errors import InputError
from crossmatch.report.text import duration, size

if TYPE_CHECKING:
    from crossmatch.merging import MergePlan
    from crossmatch.sweeping.chosen import Chosen


def merge_command(
    base: Annotated[str | None, typer.Argument(help="Base checkpoint: a directory or a hub id.")] = None,
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
    partial: AllowPartial = False,
    durable: Annotated[bool, typer.Option("--durable", help="Wait until the disk has it all.")] = False,
    sha256: Annotated[bool, typer.Option("--sha256", help="Add SHA-256 digests to the manifest.")] = False,
    sign: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Sign the files with this private key (PEM).")
    ] = None,
    swept: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A sweep's directory: merge what it recommends.")
    ] = None,
    point: Annotated[
        str | None, typer.Option(help="With --from: the point of this number instead, or 'repair'.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan that would run, and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Merge adapters into a base: deltas weighted once, summed exactly, rounded once, proved, published whole."""
    from crossmatch.checkpoint import Checkpoint, split_pairs
    from crossmatch.merging import Output, check_form, plan_merge, read_storage, write_adapter, write_checkpoint
    from crossmatch.rules import Calibration, Recipe
    from crossmatch.runtime import keep_heap

    keep_heap()
    check_form(to, rank, checkpoint_only=bool(dtype or rounding != "nearest" or shard_size or sha256))
    if output is None and not dry_run:
        raise InputError("no output given; add -o DIRECTORY (or --dry-run)")
    if swept is not None:
        beside = {"BASE": base, "-a": adapter, "-w": weight, "--set": option, "--calibration": calibration}
        chosen = _chosen(swept, point, {**beside, "--rule": rule != "linear", "--seed": seed})
        stored = read_storage(dtype or chosen.dtype, rounding, shard_size, tied)
        plan = plan_merge(chosen.base, chosen.parts, recipe=chosen.recipe, storage=stored, allow_partial=partial)
        plan = replace(plan, recorded=chosen.recorded)
    else:
        if base is None or point is not None:
            raise InputError("--point needs --from DIR" if base else "give a base checkpoint, or --from DIR of a sweep")
        recipe = Recipe(rule, split_pairs(option, "--set"), seed, Calibration(calibration) if calibration else None)
        stored, parts = read_storage(dtype, rounding, shard_size, tied), pair_up(adapter, weight)
        plan = plan_merge(Checkpoint(base), parts, recipe=recipe, storage=stored, allow_partial=partial)
    say_notes(plan, tokenizer)
    if dry_run or output is None:
        _check_place(output, overwrite)
        _show_plan(plan, as_json)
        return
    terminal = Terminal()
    options = Output(tokenizer, overwrite, any_base, durable, sha256, away=output.startswith(HUB))
    with destination(output, sign) as (folder, publish):
        if to == "checkpoint":
            from crossmatch.verification import SampledProof

            proof = SampledProof(progress=terminal) if verify else None
            written = write_checkpoint(plan, folder, options, proof, terminal)
        else:
            written = write_adapter(plan, folder, options, rank, terminal)
        where = publish()
    if as_json:
        from crossmatch.result_kinds import MERGE

        emit(MERGE, {"output": where, **written.facts})
    else:
        print(f"{where}: {written.sentence}")
    for line in written.hints:
        say(line.replace("{}", where))


def _chosen(swept: Path, point: str | None, beside: Mapping[str, object]) -> "Chosen":
    """The point of a sweep. Raises InputError for what is given besides and comes from the sweep."""
    from crossmatch.sweeping.chosen import chosen_point

    given = next((name for name, value in beside.items() if value), None)
    if given is not None:
        raise InputError(f"{given} is not given with --from: it comes from the sweep")
    chosen = chosen_point(swept, point)
    weights = " ".join(f"-w {name}={weight}" for name, (_, weight) in chosen.parts.items())
    say(f"point {chosen.recorded['sweep']['point']} of {swept}: {weights}, rule {chosen.recipe.rule}")
    if chosen.template != "own":
        say(f"note: it was asked with template {chosen.template}; use that one to get what was measured")
    return chosen


def _check_place(output: str | None, overwrite: bool) -> None:
    from crossmatch.checkpoint import check_output

    if output is not None and not output.startswith(HUB):
        check_output(Path(output), overwrite)


def _show_plan(plan: "MergePlan", as_json: bool) -> None:
    from crossmatch.merging import estimate, steps

    cost = estimate(plan)
    if as_json:
        from crossmatch.result_kinds import MERGE_PLAN

        emit(MERGE_PLAN, {**plan.to_dict(), "estimate": cost})
        return
    for line in steps(plan):
        print(line)
    print(f"about {duration(cost['seconds'])} and {size(cost['memory_bytes'])} of memory")
