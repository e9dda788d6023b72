"""The report: results in, one page out. Imports no other room."""

from pathlib import Path
from typing import Any


def write_report(facts: dict[str, Any], out: Path) -> None:
    """Write the self-contained page of a study's facts to `out`; loads the chart libraries on first use."""
    from crossmatch.report.render import write_report as write

    write(facts, out)


__all__ = ["write_report"]
