"""crossmatch report."""

import json
from pathlib import Path
from typing import Annotated, Any

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
    from crossmatch.report import write_analysis, write_evaluation, write_report

    file, write = run / "report.json", write_report
    if not file.is_file() and (run / "analysis.json").is_file():
        file, write = run / "analysis.json", write_analysis
    elif not file.is_file() and (run / "summary.json").is_file():
        file, write = run / "summary.json", write_evaluation
    if not file.is_file():
        raise InputError(f"{run} holds no report.json, analysis.json or summary.json; run the study to its end first")
    facts = _read(file)
    if write is write_evaluation:
        beside = {name: run / f"{name}.json" for name in ("samples", "interference")}
        facts = {"summary": facts, "name": run.resolve().name}
        facts |= {name: _read(path) for name, path in beside.items() if path.is_file()}
    out = output or file.with_suffix(".html")
    try:
        _answered(facts)
        write(facts, out)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no report of ours: {error!r}; run the command that wrote it again") from error
    if as_json:
        emit({"schema_version": 1, "report": str(out)})
    else:
        print(out)
        say(f"open {out} in a browser")


def _answered(facts: Any) -> None:
    """Add the answers where a file of an earlier version has none."""
    from crossmatch.answers import analysis_answers, answers_of, to_json

    if "claims" in facts:
        facts.setdefault("answers", to_json(analysis_answers(facts)))
    elif "verdicts" in facts:
        facts.setdefault("answers", answers_of(facts))
    else:
        facts["summary"].setdefault("answers", answers_of(facts))


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
