"""crossmatch compare."""

import math
from typing import Annotated

import typer

from crossmatch.cli.exports import Tables
from crossmatch.cli.options import Detail, Json
from crossmatch.console import Terminal, emit
from crossmatch.errors import ExitCode, InputError
from crossmatch.report.terminal.run_comparison import comparison_answer, comparison_lines

_RUNS = "a directory or samples_*.jsonl of lm-eval --log_samples, or what evaluate -o left, with :VARIANT."
_EXIT = {"no": ExitCode.FAILED, "cannot tell": ExitCode.INCONCLUSIVE}


def compare_command(
    a: Annotated[str, typer.Argument(help=f"The run to compare with: {_RUNS}")],
    b: Annotated[str, typer.Argument(help="The run that is judged, in the same forms.")],
    margin: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Is B not worse than A by so many points? Exit code 0: yes."),
    ] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Compare this metric alone; repeat.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Compare this task alone; repeat.")] = None,
    pooled: Annotated[bool, typer.Option("--pooled", help="The documents of all tasks as one set.")] = False,
    higher: Annotated[list[str] | None, typer.Option(metavar="METRIC", help="More of it is better; repeat.")] = None,
    lower: Annotated[list[str] | None, typer.Option(metavar="METRIC", help="Less of it is better; repeat.")] = None,
    detail: Detail = False,
    tables: Tables = None,
    as_json: Json = False,
) -> None:
    """Compare two finished evaluations, document by document.

    Both are outputs of lm-evaluation-harness with --log_samples, or outputs of crossmatch evaluate (DIR:VARIANT).

    With --margin the exit code is 0 if B is shown not to be worse than A by the margin, 1 if it is shown to be worse by
    more, 3 if the documents are too few to tell.
    """
    from crossmatch.evaluation.comparison.open_run import locate_run, open_run
    from crossmatch.evaluation.comparison.run_comparison import Wanted, compare_runs
    from crossmatch.export.wanted import export, wanted_exports

    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"--margin {margin}: give points, as in 1.0; 0 asks whether B is better")
    exports = wanted_exports(tables, None, None)
    first, second = locate_run(a), locate_run(b)
    if (first[0].resolve(), first[1]) == (second[0].resolve(), second[1]):
        raise InputError(f"{a} and {b} are the same run; give two")
    metrics, tasks, more, less = (tuple(names or ()) for names in (metric, task, higher, lower))
    wanted = Wanted(margin, metrics, tasks, pooled, more, less)
    found = compare_runs(open_run(*first), open_run(*second), wanted)
    facts = found.to_dict()
    facts["answers"] = [comparison_answer(facts)]
    if as_json:
        from crossmatch.result_kinds import COMPARISON

        emit(COMPARISON, facts)
    else:
        print("\n".join(comparison_lines(facts, detail=detail)))
    export(facts, exports, Terminal())
    if found.not_worse in _EXIT:
        raise typer.Exit(_EXIT[found.not_worse])
