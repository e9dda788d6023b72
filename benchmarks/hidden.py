"""The smallest further delta that the proof finds: measured, and beside it what a verdict states.

python benchmarks/hidden.py                  the tables of docs/verify.md: about 10 minutes
python benchmarks/hidden.py --trials 20      fewer trials

One matrix of 512 x 512 with one claimed adapter of rank 16; a further adapter is added by the program itself, and made
larger and smaller until the smallest is known that puts an element outside of what the program can have stored. The
figure is the size, in that of the claimed delta, below which 99% of these lie. `stated` is the verdict's: the size at
which an even delta is seen with 99%. The files are made by `tests/honest_programs.py`, not by the prover.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from crossmatch.delta import Delta, LowRank
from crossmatch.verification.arithmetic.grammar import Program
from crossmatch.verification.arithmetic.replay import Applied
from crossmatch.verification.weights.row_sums import look, rows_from
from honest_programs import BF16, F16, F32, Factors, HonestProgram

ROWS = COLUMNS = 512
RANK, SCALE, WEIGHT = 16, 2.0, 0.7
SHAPES = ("rank 1", "rank 8", "full rank", "one row")
SIZES = (0.1, 0.01, 0.001)
CLASSES: Mapping[str, tuple[HonestProgram, Program]] = {
    "rounded once to float32": (HonestProgram(), Program()),
    "rounded once to bfloat16": (HonestProgram(stored=BF16), Program()),
    "rounded once to float16": (HonestProgram(stored=F16), Program()),
    "PEFT, base in bfloat16": (HonestProgram(base=BF16, stored=BF16), Program(BF16)),
    "PEFT, base in float16": (HonestProgram(base=F16, stored=F16), Program(F16)),
    "safe_merge in bfloat16": (HonestProgram(base=BF16, delta=BF16, stored=BF16), Program(BF16, delta=BF16)),
    "combined in bfloat16": (
        HonestProgram(base=BF16, factors=BF16, place="a", delta=BF16, order="cat", stored=BF16),
        Program(BF16, BF16, "a", "once", BF16, order="cat"),
    ),
    "adapters in bfloat16": (
        HonestProgram(base=BF16, factors=BF16, delta=BF16, stored=BF16),
        Program(BF16, BF16, delta=BF16),
    ),
    "one after the other in bfloat16": (HonestProgram(base=BF16, order="after", stored=BF16), Program(BF16)),
    "TF32, stored in float32": (HonestProgram(tf32="nearest"), Program(factors="tf32")),
}


def adapter(generator: torch.Generator, shape: str, norm: float) -> Factors:
    """A further adapter of that norm at weight and scaling one."""
    rank = {"rank 1": 1, "rank 8": 8, "full rank": COLUMNS, "one row": 1}[shape]
    a = torch.randn(rank, COLUMNS, generator=generator) * COLUMNS**-0.5
    b = torch.randn(ROWS, rank, generator=generator)
    if shape == "one row":
        row = int(torch.randint(ROWS, (), generator=generator))
        b = torch.zeros(ROWS, 1)
        b[row] = 1.0
    return Factors(a, b * (norm / float((b @ a).norm())))


def smallest(seed: int, honest: HonestProgram, program: Program, size: float, shape: str) -> tuple[float, float]:
    """For one draw: the smallest further delta that is seen, and the figure that the verdict states."""
    generator = torch.Generator().manual_seed(seed)
    base = (torch.randn(ROWS, COLUMNS, generator=generator) * 0.02).to(F32 if honest.base == F32 else honest.base)
    a = torch.randn(RANK, COLUMNS, generator=generator) * COLUMNS**-0.5
    b = torch.randn(ROWS, RANK, generator=generator)
    norm = size * float(base.float().norm())
    claimed = Factors(a, b * (norm / float((WEIGHT * SCALE * b @ a).norm())), SCALE)
    scale = torch.full((RANK,), SCALE, dtype=torch.float64)
    parts: dict[int, Delta] = {0: LowRank(claimed.b, claimed.a, scale)}
    applied = Applied.of(program, parts, [WEIGHT], [0.0], honest.stored)
    where = [slice(0, ROWS)]
    some = applied.read(base, where)
    plain = honest.merge(base, [claimed], [WEIGHT])
    further = adapter(generator, shape, norm)

    def seen(times: float) -> bool:
        hidden = replace(further, b=further.b * times)
        stored: Tensor = honest.merge(base, [claimed, hidden], [WEIGHT, 1.0])
        return bool(applied.outside(stored, some).any())

    assert not bool(applied.outside(plain, some).any())
    low, high = -40.0, 6.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(2.0**middle) else (middle, high)
    stated = look(rows_from(plain, base, parts, applied, where), [WEIGHT]).hiding.smallest(1.0)
    return 2.0**high, stated or float("inf")


def cell(trials: int, honest: HonestProgram, program: Program, size: float, shape: str) -> tuple[str, str]:
    """The size found with 99%, and the greatest that a verdict states, both in percent."""
    drawn = [smallest(seed, honest, program, size, shape) for seed in range(trials)]
    found = torch.tensor([f for f, _ in drawn]).quantile(0.99, interpolation="higher")
    return f"{100 * float(found):.2g}", f"{100 * max(s for _, s in drawn):.2g}"


def lines(trials: int) -> Iterator[str]:
    """Both tables."""
    yield "| % of the claimed delta, rank 8 | " + " | ".join(f"{s:g} of the base | stated" for s in SIZES) + " |"
    yield "|---" * (1 + 2 * len(SIZES)) + "|"
    for name, (honest, program) in CLASSES.items():
        cells = [c for size in SIZES for c in cell(trials, honest, program, size, "rank 8")]
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""
    yield "| % of the claimed delta, which is 0.01 of the base | " + " | ".join(SHAPES) + " |"
    yield "|---" * (1 + len(SHAPES)) + "|"
    for name, (honest, program) in CLASSES.items():
        yield f"| {name} | " + " | ".join(cell(trials, honest, program, 0.01, s)[0] for s in SHAPES) + " |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    torch.set_num_threads(1)
    for line in lines(parser.parse_args().trials):
        print(line, flush=True)


if __name__ == "__main__":
    main()
