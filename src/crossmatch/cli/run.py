"""crossmatch run."""

import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal, emit, say
from crossmatch.cli.exports import Figures, ReportTo, Tables, export, read_facts, wanted_exports
from crossmatch.cli.options import Json
from crossmatch.errors import ExitCode
from crossmatch.report.text import duration

if TYPE_CHECKING:
    from crossmatch.study import StudyResult


def run_command(
    study: Annotated[Path, typer.Argument(help="A study's recipe, a YAML file.")],
    runs: Annotated[Path, typer.Option(help="Where run directories lie.")] = Path("runs"),
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print stages, tokens, time and memory, render every prompt and row, and stop."),
    ] = False,
    tables: Tables = None,
    figures: Figures = None,
    report_to: ReportTo = None,
    as_json: Json = False,
) -> None:
    """Run a whole study: train, merge, prove, measure, explain. Interrupted, the same command goes on.

    Exit code 0: every merge is verified; 1: one is not; 3: one could not be judged.
    """
    from crossmatch.runtime import keep_heap
    from crossmatch.study import load_recipe, plan_study, run_study

    started = time.monotonic()
    recipe = load_recipe(study)
    if dry_run:
        plan = plan_study(recipe, runs)
        emit(plan) if as_json else _print_plan(plan)
        return
    keep_heap()
    wanted = wanted_exports(tables, figures, runs / recipe.name, report_to)
    result = run_study(recipe, runs, progress=Terminal())
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if as_json:
        emit(
            {
                "schema_version": 1,
                "study": recipe.name,
                "report": str(result.report),
                "verified": result.verified,
                "verdicts": {name: v["verdict"] for name, v in result.verdicts.items()},
                "summary": result.summary,
                "seconds": {**result.ran, "total": round(seconds, 1)},
                "peak_gib": round(peak, 2),
            }
        )
    else:
        _print_result(result)
    spent = ", ".join(f"{name} {s:.0f} s" for name, s in result.ran.items() if s >= 0.5)
    say(f"\n{seconds:.0f} s, {peak:.1f} GiB at the peak{': ' + spent if spent else ''}")
    say(f"report: {result.report}")
    export(read_facts(result.path / "report.json"), wanted, name=recipe.name, page=result.report)
    codes = {"verified": ExitCode.OK, "inconclusive": ExitCode.INCONCLUSIVE, "failed": ExitCode.FAILED}
    raise typer.Exit(codes[result.worst])


def _print_plan(plan: dict[str, Any]) -> None:
    print(
        f"study {plan['study']}: {plan['parameters'] / 1e6:,.0f} M parameters, {plan['adapted_modules']} linear modules"
    )
    print(f"{'stage':18} {'tokens':>10} {'time':>8} {'GiB':>5}  what")
    for stage in plan["stages"]:
        tokens = f"{stage['tokens']:,}" if stage["tokens"] is not None else "-"
        seconds = duration(stage["seconds"]) if stage["seconds"] is not None else "-"
        gib = f"{stage['gib']:.1f}" if stage["gib"] is not None else "-"
        print(f"{stage['name']:18} {tokens:>10} {seconds:>8} {gib:>5}  {stage['what']}")
    for line in plan["rendered"]:
        print(line)
    done = list(dict.fromkeys(stage["name"] for stage in plan["stages"] if stage["finished"]))
    if done:
        print(f"finished already, skipped if nothing that they read has changed: {', '.join(done)}")
    print(f"about {duration(plan['seconds'])} on this machine, {plan['flops'] / 1e9:,.0f} GFLOP/s measured")


def _print_result(result: "StudyResult") -> None:
    from crossmatch.report.terminal.evaluation import print_summary

    for name, verdict in result.verdicts.items():
        weights = ", ".join(
            f"{key} {w['recovered']:.5f}" if w["recovered"] is not None else f"{key} ?"
            for key, w in verdict["weights"].items()
        )
        print(" ".join([f"{name}:", verdict["verdict"], *verdict["faults"], f"(recovered {weights})"]))
    if result.summary:
        print_summary(result.summary)
