"""Interference as an option of evaluate: checked before hours of asking, measured after them, shown at 80 columns."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossmatch.cli.console import Terminal, plain
from crossmatch.errors import InputError

if TYPE_CHECKING:
    from crossmatch.checkpoint import Checkpoint
    from crossmatch.cli.measuring import Measuring
    from crossmatch.evaluation import Suite
    from crossmatch.study.interference import Pair

Interference = Annotated[
    int,
    typer.Option(
        min=0,
        max=1024,
        metavar="N",
        help="Predict and measure what the merge's other adapter does to the reference's task, on N items (2 or more) "
        "of the first generation suite.",
    ),
]
FILE = "interference.json"


def wanted_pair(wanted: "Measuring", suites: "Sequence[Suite]", items: int) -> "Pair | None":
    """Whose interference is measured, and on which suite; None if it is not asked for. Raises InputError."""
    from crossmatch.adapter import Adapter
    from crossmatch.study.interference import find_pair

    if not items:
        return None
    if items < 2:
        raise InputError("--interference 1: give 2 items at least; one item has no standard error")
    found = find_pair(wanted.merge or {}, wanted.reference, suites)
    if isinstance(found, str):
        raise InputError(f"--interference: {found}")
    stored = next((name for name in found.names if not isinstance(wanted.adapters[name], Adapter)), None)
    if stored is not None:
        raise InputError(f"--interference: {stored} is a stored vector; it takes adapters")
    return found


def interfere(base: "Checkpoint", wanted: "Measuring", pair: "Pair", items: int, output: Path) -> dict[str, Any]:
    """Measure it, and leave it in `output`."""
    from crossmatch.adapter import Adapter
    from crossmatch.checkpoint import replace_json
    from crossmatch.study.interference import measure_pair

    adapters = {n: a for n in pair.names if isinstance(a := wanted.adapters[n], Adapter)}
    weights = {name: (wanted.merge or {})[name] for name in pair.names}
    facts = measure_pair(base, adapters, weights, pair.suite, items, progress=Terminal())
    replace_json(output / FILE, facts)
    return facts


def print_interference(facts: Mapping[str, Any]) -> None:
    """The change of the loss, and how each predictor orders the modules that cause it."""
    for line in _lines(facts):
        print(plain(line))


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    from crossmatch.report.predicted import agreement_tables

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
