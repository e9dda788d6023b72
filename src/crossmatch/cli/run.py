"""crossmatch run."""

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.exports import Figures, ReportTo, Tables
from crossmatch.cli.options import Detail, Executor, Json, Margin, resubmitted
from crossmatch.cli.plan_output import DryRun, show_plan
from crossmatch.console import Terminal, emit, say
from crossmatch.errors import ExitCode, InputError

if TYPE_CHECKING:
    from crossmatch.study import StudyResult


def run_command(
    study: Annotated[Path, typer.Argument(help="A study's recipe, a YAML file.")],
    runs: Annotated[Path, typer.Option(help="Where run directories lie.")] = Path("runs"),
    dry_run: DryRun = False,
    executor: Executor = None,
    margin: Margin = None,
    detail: Detail = False,
    tables: Tables = None,
    figures: Figures = None,
    report_to: ReportTo = None,
    as_json: Json = False,
) -> None:
    """Run a whole study: train, merge, prove, measure, explain. Interrupted, the same command goes on.

    Exit code 0: every merge is verified; 1: one is not; 3: one could not be judged.
    """
    from crossmatch.answers import check_margin
    from crossmatch.executors import parse_executor, submission
    from crossmatch.export.wanted import export, wanted_exports
    from crossmatch.report.terminal.result import print_study
    from crossmatch.result_kinds import REPORT, RUN
    from crossmatch.runtime import keep_heap
    from crossmatch.study import load_recipe, plan_study, run_study, with_margin
    from crossmatch.training.processes import this_run

    started = time.monotonic()
    check_margin(margin)
    where = parse_executor(executor or "local")
    if this_run().count > 1:
        raise InputError(
            "a study runs in one process; train its adapters with `accelerate launch -m crossmatch train ...`, and "
            "give each as path in the recipe"
        )
    recipe = load_recipe(study)
    if margin is not None:
        recipe = with_margin(recipe, margin)
    if dry_run:
        plan = plan_study(recipe, runs)
        plan["submission"] = submission(where, ["crossmatch", *resubmitted(sys.argv[1:])], runs / recipe.name / "jobs")
        show_plan(plan, as_json)
        return
    keep_heap()
    wanted = wanted_exports(tables, figures, runs / recipe.name, report_to)
    result = run_study(recipe, runs, executor=where, progress=Terminal())
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    source = result.path / "report.json"
    facts = REPORT.read(source)
    if as_json:
        emit(
            RUN,
            {
                "schema_version": 1,
                "study": recipe.name,
                "report": str(result.report),
                "verified": result.verified,
                "verdicts": {name: v["verdict"] for name, v in result.verdicts.items()},
                "answers": result.answers,
                "summary": result.summary,
                "seconds": {**result.ran, "total": round(seconds, 1)},
                "peak_gib": round(peak, 2),
            },
        )
    else:
        # What is read last is the answer.
        _say_cost(result, seconds, peak)
        print_study(facts, result.report, source, detail=detail)
    if as_json:
        _say_cost(result, seconds, peak)
        say(f"report: {result.report}")
    export(facts, wanted, Terminal(), name=recipe.name, page=result.report)
    codes = {"verified": ExitCode.OK, "inconclusive": ExitCode.INCONCLUSIVE, "failed": ExitCode.FAILED}
    raise typer.Exit(codes[result.worst])


def _say_cost(result: "StudyResult", seconds: float, peak: float) -> None:
    spent = ", ".join(f"{name} {s:.0f} s" for name, s in result.ran.items() if s >= 0.5)
    say(f"{seconds:.0f} s, {peak:.1f} GiB at the peak{': ' + spent if spent else ''}\n")
