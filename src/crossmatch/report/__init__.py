"""The report: results in, one page out. Imports no other room."""

from pathlib import Path
from typing import Any


def write_report(facts: dict[str, Any], out: Path) -> None:
    """Write the self-contained page of a study's facts to `out`; loads the chart libraries on first use."""
    from crossmatch.report.render import render_report, write_page

    write_page(render_report(facts), out)


def write_analysis(facts: dict[str, Any], out: Path) -> None:
    """The same for the facts of `crossmatch analyse`."""
    from crossmatch.report.render import render_analysis, write_page

    write_page(render_analysis(facts), out)


__all__ = ["write_analysis", "write_report"]
