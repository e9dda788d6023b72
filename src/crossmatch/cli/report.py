"""crossmatch report."""

from pathlib import Path
from typing import Annotated

import typer

from crossmatch.cli.console import emit, say
from crossmatch.cli.exports import Figures, Tables, export, wanted_exports
from crossmatch.cli.options import Json
from crossmatch.errors import InputError


def report_command(
    run: Annotated[Path, typer.Argument(help="A run directory, or what analyse -o or evaluate -o wrote.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The page; default: beside its JSON.")] = None,
    tables: Tables = None,
    figures: Figures = None,
    as_json: Json = False,
) -> None:
    """Make the page of a finished study, of an analysis or of an evaluation from its report.json, analysis.json or
    summary.json."""
    from crossmatch.report import write_analysis, write_evaluation, write_report
    from crossmatch.result_kinds import KINDS, PAGE

    file, write = run / "report.json", write_report
    if not file.is_file() and (run / "analysis.json").is_file():
        file, write = run / "analysis.json", write_analysis
    elif not file.is_file() and (run / "summary.json").is_file():
        file, write = run / "summary.json", write_evaluation
    if not file.is_file():
        raise InputError(f"{run} holds no report.json, analysis.json or summary.json; run the study to its end first")
    exports = wanted_exports(tables, figures, run)
    facts = KINDS[file.stem].read(file, say)
    if write is write_evaluation:
        beside = {name: run / f"{name}.json" for name in ("samples", "interference")}
        facts = {"summary": facts, "name": run.resolve().name}
        facts |= {name: KINDS[name].read(path, say) for name, path in beside.items() if path.is_file()}
    out = output or file.with_suffix(".html")
    write(facts, out)
    shown = {**facts["summary"], "interference": facts.get("interference")} if write is write_evaluation else facts
    export(shown, exports, name=run.resolve().name)
    if as_json:
        emit(PAGE, {"schema_version": 1, "report": str(out)})
    else:
        print(out)
        say(f"open {out} in a browser")
