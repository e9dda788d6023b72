"""crossmatch report."""

from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.exports import Figures, Tables
from crossmatch.cli.options import Detail, Json
from crossmatch.console import Terminal, emit, say


def report_command(
    run: Annotated[Path, typer.Argument(help="A run or sweep directory, or what analyse -o or evaluate -o wrote.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The page; default: beside its JSON.")] = None,
    tables: Tables = None,
    figures: Figures = None,
    detail: Detail = False,
    as_json: Json = False,
) -> None:
    """Print what a finished study, sweep, analysis or evaluation found, and make its page, from its report.json,
    sweep.json, analysis.json or summary.json."""
    from crossmatch.result_kinds import PAGE
    from crossmatch.study.pages import make_page

    made = make_page(run, output, tables, figures, Terminal())
    if as_json:
        emit(PAGE, {"schema_version": 1, "report": str(made.page)})
    else:
        from crossmatch.report.terminal.result import print_result

        print_result(made.facts, made.page, made.source, detail=detail)
    if made.source.stem == "sweep":
        from crossmatch.report.terminal.sweep import next_line

        say(next_line(made.facts, made.page, run))
    say(f"open {made.page} in a browser")
