"""The report: results in, one page out. Imports no other room."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmatch.results.analysis import AnalysisJson
from crossmatch.results.study import ReportJson


def write_report(facts: ReportJson, out: Path) -> None:
    """Write the self-contained page of a study's facts to `out`; loads the chart libraries on first use."""
    from crossmatch.report.page.render import render_report, write_page

    write_page(render_report(facts), out)


def write_evaluation(facts: Mapping[str, Any], out: Path) -> None:
    """The same for what `crossmatch evaluate` left: name, summary, and samples and interference if there are any."""
    from crossmatch.report.page.render import render_evaluation, write_page

    write_page(render_evaluation(facts), out)


def write_analysis(facts: AnalysisJson, out: Path) -> None:
    """The same for the facts of `crossmatch analyse`."""
    from crossmatch.report.page.render import render_analysis, write_page

    write_page(render_analysis(facts), out)


def write_sweep(facts: dict[str, Any], out: Path) -> None:
    """The same for the facts of `crossmatch sweep` (sweep.json)."""
    from crossmatch.report.page.render import render_sweep, write_page

    write_page(render_sweep(facts), out)


def write_pictures(facts: AnalysisJson, directory: Path) -> list[Path]:
    """Every picture of the facts of `crossmatch analyse` as an SVG file; their paths."""
    from crossmatch.report.charts.charts import svg
    from crossmatch.report.page.analysis import analysis_charts
    from crossmatch.report.page.render import write_page

    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, (chart, _) in analysis_charts(facts).items():
        files.append(directory / f"{name}.svg")
        write_page(svg(chart), files[-1])
    return files


__all__ = ["write_analysis", "write_evaluation", "write_pictures", "write_report", "write_sweep"]
