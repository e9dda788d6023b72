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
    from crossmatch.analysis.interference.suite_pair import interfere, wanted_pair
    from crossmatch.answers import MARGIN, check_margin
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.data.suites import load_suite
    from crossmatch.evaluation.comparison.clean_items import clean_parts
    from crossmatch.evaluation.conditions import Plan, conditions_of
    from crossmatch.evaluation.inference.batch_memory import parse_memory
    from crossmatch.evaluation.pipeline import EvaluationRequest
    from crossmatch.evaluation.runner.served_runner import read_serving
    from crossmatch.evaluation.variants.checkpoints import read_checkpoints
    from crossmatch.evaluation.variants.measuring import read_measuring
    from crossmatch.evaluation.variants.variants import SERVED
    from crossmatch.executors import parse_executor, submission
    from crossmatch.export.wanted import export, wanted_exports
    from crossmatch.runtime import keep_heap
    from crossmatch.study.evaluate import evaluate_into

    keep_heap()
    terminal = Terminal()
    check_margin(margin)
    exports = wanted_exports(tables, figures, output, report_to)
    conditions = conditions_of(template or (), decoding or ())
    suites = [load_suite(file) for file in suite]
    serving = read_serving(server, model, same_as)
    wanted = None
    if serving is None or reference == "base" or any((adapter, weight, strengths, nulls, checkpoint, interference)):
        wanted = read_measuring(adapter, weight, reference, strengths, nulls, bool(checkpoint or serving))
    against = wanted.reference if wanted else reference or "served"
    plan = Plan(conditions, None, batch_size, kl, against, parse_memory(memory), parse_executor(executor or "local"))
    pair = wanted_pair(wanted, suites, interference) if wanted else None
    parts, whole = clean_parts(clean, suites, terminal), Checkpoint(base)
    here = wanted.variants() if wanted else []
    here += read_checkpoints(whole, checkpoint, [*([SERVED] if serving else []), *here], terminal)
    adapters = wanted.adapters if wanted else {}
    request = EvaluationRequest(
        whole, tuple(suites), tuple(here), adapters, plan, serving, parts, margin=margin or MARGIN
    )
    if dry_run:
        from crossmatch.study import plan_evaluation

        planned = plan_evaluation(whole.path, output.name, suites, conditions, len(request.every))
        planned["submission"] = submission(plan.executor, ["crossmatch", *resubmitted(sys.argv[1:])], output / "jobs")
        show_plan(planned, as_json, "evaluate")
        return
    measure = partial(interfere, whole, wanted, pair, interference, output, terminal) if wanted and pair else None
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
