"""crossmatch sweep."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from crossmatch.cli.exports import Figures, ReportTo, Tables
from crossmatch.cli.options import Adapters, Executor, Json, resubmitted
from crossmatch.console import Terminal, emit, say
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.sweeping import SweepRecipe


def sweep_command(
    study: Annotated[str, typer.Argument(metavar="STUDY.yaml | BASE", help="A sweep's recipe, or a base checkpoint.")],
    adapter: Adapters = None,
    suite: Annotated[list[str] | None, typer.Option(help="A suite's YAML file, or recipe:NAME; repeat.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Directory; of a recipe by default runs/NAME.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SPAN", help="Weights searched, as in pt=0..1, '0..1 step 0.25' or 0,0.3; repeat."),
    ] = None,
    fix: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help="A weight that is kept; repeat.")] = None,
    goal: Annotated[
        list[str] | None, typer.Option(help="A metric, as in rougeL or define.rougeL; several: a front; repeat.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="In words, as in 'acc not below sft' or 'trace rate <= 1%'; repeat.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Adapter to compare with; default: the last.")] = None,
    method: Annotated[str | None, typer.Option(help="grid, tpe, cma-es or nsga-ii; default: grid.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Points that tpe, cma-es or nsga-ii try.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the method.")] = None,
    confirm: Annotated[float | None, typer.Option(help="Share of the items kept for the confirmation; 0.5.")] = None,
    template: Annotated[list[str] | None, typer.Option(help="Templates to try; repeat.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Prompts at a time at most.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory for batches, as in 4GB.")] = None,
    partial: Annotated[
        bool, typer.Option("--allow-partial-adapter", help="Take truncated or untrained adapters as they are.")
    ] = False,
    executor: Executor = None,
    repair: Annotated[
        str | None,
        typer.Option(metavar="[POINT]", help="Then look for what mends a merge that leaks or loses: this point's."),
    ] = None,
    tables: Tables = None,
    figures: Figures = None,
    report_to: ReportTo = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print points, items and how it would be submitted, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search merge weights, confirm the best on unseen items, and recommend a merge, or the reference adapter.

    Interrupted, the same command goes on and asks nothing twice. `crossmatch merge --from DIR` writes and proves what
    is recommended.
    """
    from crossmatch.checkpoint import split_pairs
    from crossmatch.export.wanted import export, wanted_exports
    from crossmatch.result_kinds import SWEEP
    from crossmatch.runtime import keep_heap
    from crossmatch.sweeping import recipe_of, sweep

    given: dict[str, Any] = {
        "suites": tuple(suite) if suite else None,
        "space": split_pairs(space, "--space") or None,
        "fixed": {name: _number(text, name) for name, text in split_pairs(fix, "--fix").items()} or None,
        "goals": tuple(goal) if goal else None,
        "constraints": tuple(constraint) if constraint else None,
        "reference": reference,
        "method": method,
        "trials": trials,
        "seed": seed,
        "confirm": confirm,
        "templates": tuple(template) if template else None,
        "batch_size": batch_size,
        "memory": memory,
        "allow_partial_adapter": partial or None,
    }
    given = {key: value for key, value in given.items() if value is not None}
    after = {"executor": executor, "repair": True if repair == "" else repair}
    recipe = recipe_of(study, split_pairs(adapter, "-a"), output, given, after)
    keep_heap()
    out = output or Path("runs") / recipe.name
    exports = wanted_exports(tables, figures, out, report_to)
    if dry_run:
        _show_plan(recipe, out, as_json)
        return
    result = sweep(recipe, out, progress=Terminal())
    from crossmatch.report.terminal.sweep import next_line, print_sweep

    if as_json:
        emit(SWEEP, cast(Any, result.facts))
    else:
        print_sweep(result.facts)
    export(result.facts, exports, Terminal(), name=recipe.name, page=out / "sweep.html")
    say(next_line(result.facts, out / "sweep.html", out))


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--fix {name}={text}: give a number") from None


def _show_plan(recipe: "SweepRecipe", out: Path, as_json: bool) -> None:
    from crossmatch.executors import parse_executor, submission
    from crossmatch.sweeping.plan import plan_sweep

    plan = plan_sweep(recipe)
    line = submission(parse_executor(recipe.executor), ["crossmatch", *resubmitted(sys.argv[1:])], out / "jobs")
    if as_json:
        from crossmatch.result_kinds import SWEEP_PLAN

        emit(SWEEP_PLAN, {**plan, "submission": line})
        return
    for text in plan["lines"]:
        print(text)
    if line is not None:
        print(line)
