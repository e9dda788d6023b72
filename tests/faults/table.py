"""Run all cases and write the table of docs/verify.md: `make faults`, or `python -m faults.table` in tests."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import re
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

import faults.faulty
import faults.honest  # noqa: F401
from faults.build import DTYPES, SIZES, Bench
from faults.registry import CASES, Answer, Case, ask, complaint, is_named

DOCUMENT = Path(__file__).parents[2] / "docs" / "verify.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
COLUMNS = [(dtype, size) for dtype in DTYPES for size in SIZES]
Cell = tuple[str, float]


def answer(case: Case, cell: Cell, root: Path, scratch: Path) -> tuple[Answer, str]:
    """The prover's answer in one cell of a case, and what is wrong with it."""
    bench, out = Bench(root, case.family, *cell), scratch / "-".join(map(str, cell)) / "out"
    out.parent.mkdir(parents=True)
    claimed = case.make(bench, out)
    found = ask(bench, out, claimed)
    return found, complaint(case, found, bench, out, claimed)


def wanted(case: Case) -> str:
    """The second column: faults, or the verdict with its notes."""
    if case.faults:
        return ", ".join(case.faults).replace("|", " or ")
    return f"{case.expected} ({', '.join(case.notes)})" if case.notes else case.expected


def entry(case: Case, found: Answer) -> str:
    """A cell: a tick for the answer that is wanted."""
    if is_named(case, found):
        return "✓"
    return "?" if found.verdict == "inconclusive" else str(found)


def row(case: Case, found: dict[Cell, Answer]) -> str:
    """A row of the table."""
    cells = [entry(case, found[column]) if column in found else "" for column in COLUMNS]
    return f"| {case.name} | {wanted(case)} | {' | '.join(cells)} |"


def heading() -> list[str]:
    """The first lines of the table."""
    names = [f"{dtype} {size:g}" for dtype, size in COLUMNS]
    return [f"| case | answer | {' | '.join(names)} |", "|---" * (len(COLUMNS) + 2) + "|"]


def lines() -> dict[str, str]:
    """The rows that the document has, by name."""
    match = re.search(f"{BEGIN}\n(.*?){END}", DOCUMENT.read_text(), re.S)
    return {line.split("|")[1].strip(): line for line in (match[1].splitlines()[2:] if match else [])}


def committed() -> dict[str, list[str]]:
    """What the document has: name -> what is wanted, then one entry per column."""
    return {name: [entry.strip() for entry in line.split("|")[2:-1]] for name, line in lines().items()}


def write(rows: Iterable[str]) -> None:
    """Put the table between its markers."""
    text = DOCUMENT.read_text()
    table = "\n".join([*heading(), *rows])
    text = re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n{table}\n{END}", text, flags=re.S)
    DOCUMENT.write_text(text)


def _one(name: str, root: str) -> tuple[str, list[str]]:
    torch.set_num_threads(1)
    case, found, wrong = CASES[name], {}, []
    for cell in case.cells:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found[cell], complained = answer(case, cell, Path(root) / str(os.getpid()), Path(scratch))
            except Exception as error:  # one case that cannot be made must not hide the others
                found[cell], complained = Answer("not made"), f"not made: {type(error).__name__}: {error}"
        if complained:
            wrong.append(f"{cell[0]} {cell[1]:g}: {complained}")
    return row(case, found), wrong


def main() -> int:
    """Write the table (with arguments: only rows of cases whose name has them in it); say what is not as expected."""
    torch.set_num_threads(1)
    names = [name for name in CASES if all(word in name for word in sys.argv[1:])]
    rows, count = lines(), 0
    with tempfile.TemporaryDirectory() as root, ProcessPoolExecutor(2) as pool:
        for name, (line, wrong) in zip(names, pool.map(_one, names, [root] * len(names)), strict=True):
            rows[name] = line
            count += bool(wrong)
            for complained in wrong:
                print(f"{name} / {complained}", flush=True)
    write(rows[name] for name in CASES if name in rows)
    print(f"{len(names) - count} of {len(names)} cases as expected")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
