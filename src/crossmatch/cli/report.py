"""crossmatch report."""

from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.console import emit, say
from crossmatch.cli.options import Json
from crossmatch.errors import InputError


def report_command(
    run: Annotated[Path, typer.Argument(help="A run directory, or what analyse -o or evaluate -o wrote.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The page; default: beside its JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Make the page of a finished study, of an analysis or of an evaluation from its report.json, analysis.json or
    summary.json."""
    from crossmatch.result_kinds import PAGE

    file = next(
        (run / name for name in ("report.json", "analysis.json", "summary.json") if (run / name).is_file()), None
    )
    if file is None:
        raise InputError(f"{run} holds no report.json, analysis.json or summary.json; run the study to its end first")
    out = output or file.with_suffix(".html")
    _write(file, out)
    if as_json:
        emit(PAGE, {"schema_version": 1, "report": str(out)})
    else:
        print(out)
        say(f"open {out} in a browser")


def _write(file: Path, out: Path) -> None:
    """The page of a result. Raises DataError for a file that is not of its kind."""
    from crossmatch.report import write_analysis, write_evaluation, write_report
    from crossmatch.result_kinds import ANALYSIS, INTERFERENCE, REPORT, SAMPLES, SUMMARY

    if file.stem == "report":
        write_report(REPORT.read(file, say), out)
    elif file.stem == "analysis":
        write_analysis(ANALYSIS.read(file, say), out)
    else:
        found: dict[str, object] = {"summary": SUMMARY.read(file, say), "name": file.parent.resolve().name}
        if (samples := file.with_name("samples.json")).is_file():
            found["samples"] = SAMPLES.read(samples, say)
        if (interference := file.with_name("interference.json")).is_file():
            found["interference"] = INTERFERENCE.read(interference, say)
        write_evaluation(found, out)
