"""crossmatch evaluate."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.evaluate.options import (
    Checkpoints,
    Clean,
    Interference,
    Kl,
    Memory,
    Model,
    Nulls,
    SameAs,
    Server,
    Strengths,
    exit_unjudged,
)
from crossmatch.cli.exports import Figures, ReportTo, Tables
from crossmatch.cli.options import Adapters, Detail, Executor, Json, Margin, Weights, resubmitted
from crossmatch.cli.plan_output import DryRun, show_plan
from crossmatch.console import Terminal, emit, say
from crossmatch.report.terminal.evaluation import print_summary
from crossmatch.report.terminal.interference import print_interference

if TYPE_CHECKING:
    from crossmatch.evaluation.pipeline import Evaluation
    from crossmatch.results.interference import InterferenceJson


def evaluate_command(
    base: Annotated[str, typer.Argument(help="Base checkpoint: a directory or a hub id.")],
    suite: Annotated[list[str], typer.Option(help="A suite's YAML file, or recipe:NAME; repeat.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory for the answers and the summary.")],
    adapter: Adapters = None,
    weight: Weights = None,
    reference: Annotated[str | None, typer.Option(help="Adapter to compare with; default: the last.")] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="own, think, nothink, chatml, chatml-empty, chatml-open, strict, or a Jinja file; repeat."),
    ] = None,
    decoding: Annotated[
        list[str] | None, typer.Option(help="greedy, or as in T0.6p0.8 (five seeds; x10: ten); repeat.")
    ] = None,
    strengths: Strengths = None,
    nulls: Nulls = 0,
    checkpoint: Checkpoints = None,
    kl: Kl = 16,
    interference: Interference = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time at most.")] = 256,
    memory: Memory = None,
    executor: Executor = None,
    server: Server = None,
    model: Model = None,
    same_as: SameAs = None,
    clean: Clean = None,
    margin: Margin = None,
    detail: Detail = False,
    tables: Tables = None,
    figures: Figures = None,
    report_to: ReportTo = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Measure base, each adapter alone, their merge and its scale-matched control on the same prompts.

    With --strengths also base + g v, and with --nulls whether v is critical: whether removing it costs more than
    removing its nulls.

    With --server the model that runs there is one more variant, `served`; without -a, --checkpoint and --reference base
    it is measured alone. BASE gives the tokenizer and its chat template. A key is taken from CROSSMATCH_API_KEY.
    """
    given = locals()
    from crossmatch.executors import submission
    from crossmatch.export.wanted import export, wanted_exports
    from crossmatch.runtime import keep_heap
    from crossmatch.study.ask import EvaluationOptions, request_of
    from crossmatch.study.evaluate import evaluate_into

    keep_heap()
    terminal = Terminal()
    exports = wanted_exports(tables, figures, output, report_to)
    request, measure = request_of(EvaluationOptions.of(given), output, terminal)
    if dry_run:
        from crossmatch.study import plan_evaluation

        plan = request.plan
        planned = plan_evaluation(request.base.path, output.name, request.suites, plan.conditions, len(request.every))
        planned["submission"] = submission(plan.executor, ["crossmatch", *resubmitted(sys.argv[1:])], output / "jobs")
        show_plan(planned, as_json, "evaluate")
        return
    found, interfering = evaluate_into(output, request, measure, terminal)
    _tell(found, interfering, output, as_json=as_json, detail=detail)
    shown = {**found.summary, **({"interference": interfering} if interfering else {})}
    export(shown, exports, terminal, name=output.resolve().name, page=output / "summary.html")
    exit_unjudged(found.summary)


def _tell(
    found: "Evaluation", interfering: "InterferenceJson | None", output: Path, *, as_json: bool, detail: bool
) -> None:
    """The answers on stdout; with `detail` every figure before them."""
    from crossmatch.report.terminal.answers import Rest, show_all, show_screen, summary_table

    summary = found.summary
    if as_json:
        from crossmatch.result_kinds import SUMMARY

        emit(SUMMARY, {**summary, "interference": interfering} if interfering else summary)
        say(f"answers and summary: {output}; the page: {output / 'summary.html'}")
    else:
        answers = summary["answers"]
        if detail:
            print_summary(summary)
            if interfering:
                print_interference(interfering)
            print()
            show_all(answers)
            print()
        places = {"page": str(output / "summary.html"), "json": str(output / "summary.json")}
        show_screen(answers, partial(summary_table, summary, answers), Rest(places, detail=not detail))
