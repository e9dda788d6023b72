"""The second domain of the sample: short questions of arithmetic, made by a seed, with exact answers."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from crossmatch.checkpoint import write_rows
from crossmatch.errors import InputError
from crossmatch.results.study import ArithmeticCardJson

_NAMES = ("Anna", "Ben", "Clara", "David", "Eva", "Felix", "Greta", "Hugo", "Ida", "Jonas")
_THINGS = ("apples", "books", "coins", "eggs", "marbles", "pens", "shells", "stamps")

_COMPUTE = """\
# Computations that no training question asks for, in any wording; the answer is a number.
name: compute
version: 1
kind: generation
language: en
data: compute.jsonl
match: number
max_new_tokens: 16
"""
_NUMBER = """\
# The right number among three that a slip would give.
name: number
version: 1
kind: choice
language: en
data: number.jsonl
"""


class ArithmeticSize(BaseModel):
    """How many questions are made: train: for SFT; compute, number: items of the two suites; seed: of all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: int = Field(1200, ge=1)
    compute: int = Field(100, ge=2)
    number: int = Field(100, ge=2)
    seed: int = Field(0, ge=0)


@dataclass(frozen=True)
class Operation:
    """One kind of computation.

    pairs: all (a, b) of it, each computation once; value: its answer; wordings: forms with {a}, {b}, {n}, {m} (names)
    and {t} (things); either_way: whether a and b may change places.
    """

    pairs: tuple[tuple[int, int], ...]
    value: Callable[[int, int], int]
    wordings: tuple[str, ...]
    either_way: bool = False


OPERATIONS: Mapping[str, Operation] = {
    "sum": Operation(
        tuple((a, b) for a in range(2, 100) for b in range(a, 100)),
        lambda a, b: a + b,
        ("What is {a} + {b}?", "{n} has {a} {t} and gets {b} more. How many {t} does {n} have now?"),
        either_way=True,
    ),
    "difference": Operation(
        tuple((a, b) for a in range(3, 100) for b in range(2, a)),
        lambda a, b: a - b,
        ("What is {a} - {b}?", "{n} has {a} {t}, {m} has {b}. How many more {t} does {n} have?"),
    ),
    "product": Operation(
        tuple((a, b) for a in range(2, 61) for b in range(2, 10) if b <= a),
        lambda a, b: a * b,
        ("What is {a} * {b}?", "A box holds {a} {t}. How many {t} do {b} boxes hold?"),
    ),
    "remainder": Operation(
        tuple((a, b) for a in range(10, 100) for b in range(2, 10)),
        lambda a, b: a % b,
        (
            "What is the remainder when {a} is divided by {b}?",
            "{n} shares {a} {t} equally among {b} friends. How many remain?",
        ),
    ),
    "larger": Operation(
        tuple((a, b) for a in range(10, 1000, 3) for b in range(a + 1, min(1000, 2 * a), 7)),
        max,
        ("Which number is larger, {a} or {b}?", "{n} has {a} {t}, {m} has {b}. What is the larger number of {t}?"),
        either_way=True,
    ),
}


def write_arithmetic(out: Path, size: ArithmeticSize) -> ArithmeticCardJson:
    """Write arithmetic.jsonl for SFT and the suites compute and number into a directory; return what the card says.

    Operations take turns. A computation is dealt out once, to a suite or to training, whatever its wording: what is
    asked in a suite is asked nowhere else. Raises InputError where an operation has not as many computations.
    """
    rng = random.Random(f"arithmetic:{size.seed}")
    compute, number, train = _deal((size.compute, size.number, size.train), rng)
    write_rows(out / "arithmetic.jsonl", [{"prompt": q.text, "completion": str(q.answer)} for q in train])
    items = [{"id": q.id, "question": q.text, "reference": str(q.answer), "subject": q.operation} for q in compute]
    write_rows(out / "compute.jsonl", items)
    write_rows(out / "number.jsonl", [_choice(q, rng) for q in number])
    (out / "compute.yaml").write_text(_COMPUTE, encoding="utf-8")
    (out / "number.yaml").write_text(_NUMBER, encoding="utf-8")
    asked = {q.id for q in (*compute, *number)}
    return {
        "source": "made by a seed",
        "size": size.model_dump(),
        "operations": list(OPERATIONS),
        "split": "each computation is dealt out once, whatever its wording; suites first, then training",
        "held_out": len(asked),
        "held_out_in_training": sum(q.id in asked for q in train),
    }


@dataclass(frozen=True)
class _Question:
    operation: str
    a: int
    b: int
    text: str

    @property
    def id(self) -> str:
        return f"{self.operation}-{self.a}-{self.b}"

    @property
    def answer(self) -> int:
        return OPERATIONS[self.operation].value(self.a, self.b)


def _deal(counts: tuple[int, ...], rng: random.Random) -> list[list[_Question]]:
    """So many questions for each set, operations in turn; no computation twice."""
    decks = {name: iter(rng.sample(operation.pairs, len(operation.pairs))) for name, operation in OPERATIONS.items()}
    sets = []
    for count in counts:
        names = [name for _, name in zip(range(count), cycle(OPERATIONS), strict=False)]
        try:
            sets.append([_question(name, *next(decks[name]), rng) for name in names])
        except StopIteration:
            least = min(len(operation.pairs) for operation in OPERATIONS.values()) * len(OPERATIONS)
            raise InputError(f"sample.arithmetic: {sum(counts)} questions are too many; at most {least}") from None
    for found in sets:
        rng.shuffle(found)
    return sets


def _question(name: str, a: int, b: int, rng: random.Random) -> _Question:
    operation = OPERATIONS[name]
    first, second = (b, a) if operation.either_way and rng.random() < 0.5 else (a, b)
    n, m = rng.sample(_NAMES, 2)
    wording = rng.choice(operation.wordings)
    return _Question(name, a, b, wording.format(a=first, b=second, n=n, m=m, t=rng.choice(_THINGS)))


def _choice(question: _Question, rng: random.Random) -> dict[str, Any]:
    """Beside the answer three numbers that a slip gives: one off, ten off, or the other operand."""
    right = question.answer
    slips = [right + 1, right - 1, right + 2, right + 10, right - 10, question.a, question.b]
    wrong = [n for n in dict.fromkeys(slips) if n >= 0 and n != right]
    options = [right, *rng.sample(wrong, 3)]
    rng.shuffle(options)
    return {
        "id": question.id,
        "question": question.text,
        "options": [str(n) for n in options],
        "answer": options.index(right),
        "subject": question.operation,
    }
