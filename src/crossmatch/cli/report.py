"""crossmatch report."""

import json
from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.console import emit, say
from crossmatch.cli.options import Json
from crossmatch.errors import InputError


def report_command(
    run: Annotated[Path, typer.Argument(help="A run directory, as in runs/sample.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The page; default: report.html there.")] = None,
    as_json: Json = False,
) -> None:
    """Make the page of a finished study again from its report.json."""
    from crossmatch.report import write_report

    file = run / "report.json"
    if not file.is_file():
        raise InputError(f"{run} holds no report.json; run the study to its end first")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    out = output or run / "report.html"
    try:
        write_report(facts, out)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no report of a study: {error!r}; run the study again") from error
    if as_json:
        emit({"schema_version": 1, "report": str(out)})
    else:
        print(out)
        say(f"open {out} in a browser")
