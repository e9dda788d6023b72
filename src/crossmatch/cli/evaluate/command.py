"""crossmatch evaluate."""

import sys
from pathlib import Path
from typing import Annotated, Any, cast

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

        planned = plan_evaluation(output.name, request)
        planned["submission"] = submission(
            request.plan.executor, ["crossmatch", *resubmitted(sys.argv[1:])], output / "jobs"
        )
        show_plan(planned, as_json, "evaluate")
        return
    found, interfering = evaluate_into(output, request, measure, terminal)
    shown = {**found.summary, **({"interference": interfering} if interfering else {})}
    page = output / "summary.html"
    if as_json:
        from crossmatch.result_kinds import SUMMARY

        emit(SUMMARY, cast(Any, shown))
        say(f"answers and summary: {output}; the page: {page}")
    else:
        from crossmatch.report.terminal.result import print_evaluation

        print_evaluation(shown, page, output / "summary.json", detail=detail)
    export(shown, exports, terminal, name=output.resolve().name, page=page)
    exit_unjudged(found.summary)
