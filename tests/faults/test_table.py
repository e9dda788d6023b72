"""Every case in a core cell: the expected answer, no false alarm, and what docs/verify.md says of it.
CROSSMATCH_EVERY_CELL=1 runs all cells, as `make faults` does."""

import os
from pathlib import Path

import pytest

from crossmatch.verification.faults import FAULTS, NOTES
from faults import table
from faults.registry import CASES

# These run first and always; the others are for the whole suite.
CORE = (("bf16", 1e-1), ("fp32", 1e-3))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases and adapters, made when they are first asked for."""
    return tmp_path_factory.mktemp("benches")


def is_run(name: str, cell: table.Cell) -> bool:
    """Which cells: of the core, one for every other case and the other for the rest, since a case that is answered
    alike in both is a second question to the same code; both where the document has two answers, or the case is too new
    to be in it; the first cell of a case that is in none of the core."""
    if os.environ.get("CROSSMATCH_EVERY_CELL"):
        return True
    core = [one for one in CASES[name].cells if one in CORE] or list(CASES[name].cells)[:1]
    entries = COMMITTED.get(name)
    if entries and len({entries[1 + table.COLUMNS.index(one)] for one in core}) == 1:
        core = [core[list(CASES).index(name) % len(core)]]
    return cell in core


COMMITTED = table.committed()
CELLS = [
    pytest.param(
        case.name,
        cell,
        id=f"{case.name}, {cell[0]} {cell[1]:g}",
        marks=() if cell in CORE and case.family != "deep" else pytest.mark.slow,
    )
    for case in CASES.values()
    for cell in case.cells
    if is_run(case.name, cell)
]


@pytest.mark.parametrize(("name", "cell"), CELLS)
def test_cell(root: Path, tmp_path: Path, name: str, cell: table.Cell) -> None:
    case = CASES[name]
    found, wrong = table.answer(case, cell, root, tmp_path)
    assert not wrong
    assert table.committed()[name][1 + table.COLUMNS.index(cell)] == table.entry(case, found), "run make faults"


def test_the_document_has_every_case() -> None:
    columns = {case.name: [column in case.cells for column in table.COLUMNS] for case in CASES.values()}
    rows = table.committed()
    assert {name: [bool(text) for text in entries[1:]] for name, entries in rows.items()} == columns
    assert {name: entries[0] for name, entries in rows.items()} == {c.name: table.wanted(c) for c in CASES.values()}


def test_cases_expect_what_can_be_named() -> None:
    for case in CASES.values():
        assert set(case.names) | case.also <= set(FAULTS)
        assert set(case.notes) <= set(NOTES)
