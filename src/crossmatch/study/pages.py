"""The page of a finished study, sweep, analysis or evaluation, made again from its JSON."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from crossmatch.answers import analysis_answers, answers_of, to_json
from crossmatch.errors import InputError
from crossmatch.export.wanted import export, wanted_exports
from crossmatch.report import write_analysis, write_evaluation, write_report, write_sweep
from crossmatch.result_kinds import ANALYSIS, INTERFERENCE, REPORT, SAMPLES, SUMMARY, SWEEP
from crossmatch.runtime import Progress

_RESULTS = ("report.json", "sweep.json", "analysis.json", "summary.json")


@dataclass(frozen=True)
class MadePage:
    """A page, the JSON file that it was made from, and what that file holds, with its answers."""

    page: Path
    source: Path
    facts: Mapping[str, Any]


def make_page(run: Path, output: Path | None, tables: str | None, figures: str | None, progress: Progress) -> MadePage:
    """Make the page of a result's directory, and what else is wanted (None: not; "": beside it)."""
    file = next((run / name for name in _RESULTS if (run / name).is_file()), None)
    if file is None:
        names = f"{', '.join(_RESULTS[:-1])} or {_RESULTS[-1]}"
        raise InputError(f"{run} holds no {names}; run the study or the sweep to its end first")
    exports = wanted_exports(tables, figures, run)
    out = output or file.with_suffix(".html")
    facts = _write(file, out, progress.say)
    export(facts, exports, progress, name=run.resolve().name)
    return MadePage(out, file, facts)


def _write(file: Path, out: Path, say: Callable[[str], None]) -> Mapping[str, Any]:
    """Write the page of a result; the facts of its tables and figures. A file of an earlier version, which has no
    answers, gets them. Raises DataError for a file that is not of its kind."""
    if file.stem == "report":
        report = REPORT.read(file, say)
        report.setdefault("answers", answers_of(report))
        write_report(report, out)
        return report
    if file.stem == "sweep":
        swept = cast(dict[str, Any], SWEEP.read(file, say))
        write_sweep(swept, out)
        return swept
    if file.stem == "analysis":
        analysis = ANALYSIS.read(file, say)
        analysis.setdefault("answers", to_json(analysis_answers(analysis)))
        write_analysis(analysis, out)
        return analysis
    summary, samples, interference = SUMMARY.read(file, say), file.with_name("samples.json"), None
    found: dict[str, Any] = {"summary": summary, "name": file.parent.resolve().name}
    if samples.is_file():
        found["samples"] = SAMPLES.read(samples, say)
    if (beside := file.with_name("interference.json")).is_file():
        found["interference"] = interference = INTERFERENCE.read(beside, say)
    summary.setdefault("answers", answers_of(found))
    write_evaluation(found, out)
    return {**summary, "interference": interference}
