"""crossmatch report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.console import emit, say
from crossmatch.cli.options import Json
from crossmatch.errors import InputError


def report_command(
    run: Annotated[Path, typer.Argument(help="A run directory, as in runs/sample, or what analyse -o wrote.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The page; default: beside its JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Make the page of a finished study, or of an analysis, again from its report.json or analysis.json."""
    from crossmatch.report import write_analysis, write_report

    file, write = run / "report.json", write_report
    if not file.is_file() and (run / "analysis.json").is_file():
        file, write = run / "analysis.json", write_analysis
    if not file.is_file():
        raise InputError(f"{run} holds no report.json and no analysis.json; run the study to its end first")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    out = output or file.with_suffix(".html")
    try:
        write(facts, out)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no report of ours: {error!r}; run the command that wrote it again") from error
    if as_json:
        emit({"schema_version": 1, "report": str(out)})
    else:
        print(out)
        say(f"open {out} in a browser")
