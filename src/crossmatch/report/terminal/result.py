"""A finished result on the terminal: what the command that made it prints, and `crossmatch report` again."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from crossmatch.report.terminal.analysis import analysis_table, show, show_texts
from crossmatch.report.terminal.answers import Rest, show_all, show_screen, summary_table
from crossmatch.report.terminal.evaluation import print_summary
from crossmatch.report.terminal.interference import print_interference
from crossmatch.report.terminal.sweep import print_sweep

Json = Mapping[str, Any]


def print_study(report: Json, page: Path, source: Path, *, detail: bool) -> None:
    """A study's answers; facts as in report.json."""
    summary, answers = report["summary"], report["answers"]
    if detail:
        for name, verdict in report["verdicts"].items():
            weights = ", ".join(
                f"{key} {w['recovered']:.5f}" if w["recovered"] is not None else f"{key} ?"
                for key, w in verdict["weights"].items()
            )
            print(" ".join([f"{name}:", verdict["verdict"], *verdict["faults"], f"(recovered {weights})"]))
        if summary:
            print_summary(summary)
        print()
    table = partial(summary_table, summary, answers) if summary else lambda rows: []
    _print_answers(report, table, page, source, detail)


def print_evaluation(summary: Json, page: Path, source: Path, *, detail: bool) -> None:
    """An evaluation's answers; facts as in summary.json, with `interference` where it was measured."""
    if detail:
        print_summary(summary)
        if summary.get("interference"):
            print_interference(summary["interference"])
        print()
    _print_answers(summary, partial(summary_table, summary, summary["answers"]), page, source, detail)


def print_analysis(analysis: Json, page: Path | None, source: Path | None, *, detail: bool) -> None:
    """An analysis's answers; facts as in analysis.json. page, source: None where nothing was written."""
    if detail:
        show(analysis)
        show_texts(analysis)
        print()
    _print_answers(analysis, partial(analysis_table, analysis), page, source, detail)


def print_result(facts: Json, page: Path, source: Path, *, detail: bool) -> None:
    """Any of them, or a sweep's recommendation, by the name of its JSON file."""
    if source.stem == "sweep":
        print_sweep(facts)
        return
    printers = {"report": print_study, "summary": print_evaluation, "analysis": print_analysis}
    printers[source.stem](facts, page, source, detail=detail)


def _print_answers(
    facts: Json, table: Callable[[int], list[str]], page: Path | None, source: Path | None, detail: bool
) -> None:
    if detail:
        show_all(facts["answers"])
        print()
    places = {"page": str(page), "json": str(source)} if page else {}
    show_screen(facts["answers"], table, Rest(places, detail=not detail))
