"""Interference at 80 columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from crossmatch.report.text import printable


def print_interference(facts: Mapping[str, Any]) -> None:
    """The change of the loss, and how each predictor orders the modules that cause it."""
    for line in _lines(facts):
        print(printable(line))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    from crossmatch.report.page.interference_tables import agreement_tables

    loss = facts["attribution"]["loss"]
    change, share = loss["change"], loss["completeness"]
    error = "-" if change["stderr"] is None else f"{change['stderr']:.2g}"
    yield ""
    yield f"{facts['guest']} interferes with {facts['host']}: loss {change['value']:+.3g} +- {error} nats per token"
    yield f"  attributed to modules: {'-' if share is None else f'{share:.1%}'} of it"
    for table in agreement_tables(facts)[:1]:
        yield f"  rank correlation with the {table['heads'][0]}, by module, and with its size:"
        for row in table["rows"]:
            cells = [f"{c['value']:>5} ({c['interval'] or 'no interval'})" for c in row["cells"][:2]]
            yield f"    {row['predictor'][:28]:28} {cells[0]:24}{cells[1]}"
