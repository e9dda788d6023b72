"""Strengths at which a vector is put on a model: numbers, and grids of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path

from crossmatch.adapter import LARGEST
from crossmatch.checkpoint import MANIFEST, atomic_directory
from crossmatch.errors import InputError
from crossmatch.result_kinds import STRENGTHS

GRID = "urn:crossmatch:strengths:1"
_MOST = 1000


def strengths(texts: Sequence[str]) -> tuple[float, ...]:
    """Numbers from texts, each a number or a grid `first:last:step` with both ends, as in -0.5:1.5:0.25.

    Decimal, so that 0.1 three times is 0.3. Raises InputError for what is none of these, and for a strength that is
    given twice.
    """
    found = [number for text in texts for number in _numbers(text)]
    twice = next((number for number in found if found.count(number) > 1), None)
    if twice is not None:
        raise InputError(f"-g {twice:g}: given twice")
    return tuple(found)


def strength_name(strength: float) -> str:
    """The directory of one strength, as in `g-0.5` and `g1`."""
    return f"g{repr(strength).removesuffix('.0')}"


def _numbers(text: str) -> list[float]:
    try:
        parts = [Decimal(part) for part in text.split(":")]
    except InvalidOperation:
        parts = []
    if len(parts) not in (1, 3) or not all(part.is_finite() for part in parts):
        raise InputError(f"-g {text}: give a number, or a grid FIRST:LAST:STEP as in -0.5:1.5:0.25")
    if any(abs(part) > Decimal(LARGEST) for part in parts):
        raise InputError(f"-g {text}: a strength is at most {LARGEST:g} in size")
    if len(parts) == 1:
        return [float(parts[0]) + 0.0]
    first, last, step = parts
    count = (last - first) / step if step else Decimal(-1)
    if count < 0 or count > _MOST or count != int(count):
        raise InputError(f"-g {text}: whole steps lead from the first to the last, at most {_MOST} of them")
    return [float(first + step * i) + 0.0 for i in range(int(count) + 1)]


@contextmanager
def grid(output: Path, numbers: Sequence[float], *, overwrite: bool = False) -> Iterator[dict[float, Path]]:
    """Where the result of each strength goes: one is the output itself, several lie in it and appear together.

    An error leaves nothing of several. Raises OutputError as all writers do.
    """
    if len(numbers) == 1:
        yield {numbers[0]: output}
        return
    with atomic_directory(output, overwrite=overwrite) as partial:
        yield {number: partial / strength_name(number) for number in numbers}
        names = {strength_name(number): number for number in numbers}
        STRENGTHS.write(partial / MANIFEST, {"schema_version": 1, "kind": GRID, "strengths": names})
