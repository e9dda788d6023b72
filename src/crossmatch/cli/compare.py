"""crossmatch compare."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossmatch.cli.console import emit
from crossmatch.cli.exports import Tables, export, wanted_exports
from crossmatch.cli.options import Detail, Json
from crossmatch.errors import ExitCode, InputError
from crossmatch.report.terminal.run_comparison import comparison_answer, comparison_lines

if TYPE_CHECKING:
    from crossmatch.evaluation.comparison.scored_run import Run

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
    detail: Detail = False,
    tables: Tables = None,
    as_json: Json = False,
) -> None:
    """Compare two finished evaluations, document by document.

    Both are outputs of lm-evaluation-harness with --log_samples, or outputs of crossmatch evaluate (DIR:VARIANT).

    With --margin the exit code is 0 if B is shown not to be worse than A by the margin, 1 if it is shown to be worse by
    more, 3 if the documents are too few to tell.
    """
    from crossmatch.evaluation.comparison.run_comparison import Wanted, compare_runs

    if margin is not None and not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"--margin {margin}: give points, as in 1.0; 0 asks whether B is better")
    exports = wanted_exports(tables, None, None)
    first, second = _located(a), _located(b)
    if (first[0].resolve(), first[1]) == (second[0].resolve(), second[1]):
        raise InputError(f"{a} and {b} are the same run; give two")
    wanted = Wanted(margin, tuple(metric or ()), tuple(task or ()), pooled)
    found = compare_runs(_read(*first), _read(*second), wanted)
    facts = found.to_dict()
    facts["answers"] = [comparison_answer(facts)]
    if as_json:
        from crossmatch.result_kinds import COMPARISON

        emit(COMPARISON, facts)
    else:
        print("\n".join(comparison_lines(facts, detail=detail)))
    export(facts, exports)
    if found.not_worse in _EXIT:
        raise typer.Exit(_EXIT[found.not_worse])


def _located(text: str) -> tuple[Path, str | None]:
    """A path and the variant behind it, if one is named."""
    if Path(text).exists():
        return Path(text), None
    home, colon, variant = text.rpartition(":")
    if colon and Path(home).is_dir():
        return Path(home), variant
    raise InputError(f"{text} does not exist; give {_RUNS.rstrip('.')}")


def _read(path: Path, variant: str | None) -> "Run":
    from crossmatch.evaluation.comparison.evaluation_output import is_output, read_output
    from crossmatch.evaluation.comparison.lm_eval_samples import is_samples, read_samples

    if path.is_dir() and is_output(path):
        return read_output(path, variant)
    if variant is not None:
        raise InputError(f"{path} has no summary.json, so it has no variants; leave :{variant} out")
    if not is_samples(path):
        raise InputError(f"{path} holds no samples_*.jsonl and no summary.json; run lm-eval with --log_samples")
    return read_samples(path)
