"""The cases by name, what is expected of each, and how an answer is judged without the prover's own numbers."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossmatch import Adapter, Checkpoint, TuningVector, verify
from crossmatch.adapter import fit
from crossmatch.errors import CrossmatchError
from crossmatch.rules import Recipe, Weight
from faults.build import CLAIM, DTYPES, SIZES, Bench

# Fewer elements than these are no evidence; a route whose file differs from the exact one in that share must be noted.
HANDFUL = 16
SHOWS = 1e-3
# Notes on what cannot be seen in each element, and so must always be given.
ALWAYS = ("dtype-changed", "not-identifiable", "rounding-swallow")


# Faults that no rounding can hide: they lie in names, shapes and files, not in values.
PLAIN = {"export-incomplete", "two-weight-sets", "adapter-incomplete", "adapter-keys-unused", "tensors-missing"}
PLAIN |= {"tensors-extra", "tie-flag-stale", "config-changed", "adapter-left-behind"}


@dataclass(frozen=True)
class Claimed:
    """What is said of a file: weights, the adapters where they are not the bench's of that name, the rule."""

    weights: Mapping[str, Weight] = field(default_factory=lambda: dict(CLAIM))
    paths: Mapping[str, Path] = field(default_factory=dict)
    recipe: Recipe | None = None

    def parts(self, bench: Bench) -> dict[str, tuple[TuningVector, Weight]]:
        """As `verify` takes it."""
        return {
            name: (Adapter(self.paths.get(name) or bench.adapter(name)), weight)
            for name, weight in self.weights.items()
        }


Make = Callable[[Bench, Path], Claimed | None]


@dataclass(frozen=True)
class Case:
    """One way to make a file, and where it is made.

    faults: ids that must be named, `a|b` for either; none for an honest route. also: ids that may be named beside them.
    notes: ids that an honest route must have where it shows. answer: the verdict where it is neither.
    """

    name: str
    make: Make
    faults: tuple[str, ...] = ()
    also: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    family: str = "llama"
    dtypes: tuple[str, ...] = tuple(DTYPES)
    sizes: tuple[float, ...] = SIZES
    answer: str = ""

    @property
    def expected(self) -> str:
        """The verdict that a file with enough evidence must get."""
        return self.answer or ("failed" if self.faults else "verified")

    @property
    def names(self) -> tuple[str, ...]:
        """All faults that are expected, alternatives apart."""
        return tuple(name for fault in self.faults for name in fault.split("|"))

    @property
    def cells(self) -> Iterator[tuple[str, float]]:
        """Dtypes and sizes in which it is made."""
        return ((dtype, size) for dtype in self.dtypes for size in self.sizes)


@dataclass(frozen=True)
class Answer:
    """What was said of one file; verdict: an error's name where none was given."""

    verdict: str
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    text: str = ""

    def __str__(self) -> str:
        return ", ".join(self.faults) or self.verdict


CASES: dict[str, Case] = {}


def case(name: str, *faults: str, also: tuple[str, ...] = (), **where: Any) -> Callable[[Make], Make]:
    """Register a builder under a name."""

    def register(make: Make) -> Make:
        assert name not in CASES, name
        CASES[name] = Case(name, make, faults, frozenset(also), **where)
        return make

    return register


def ask(bench: Bench, out: Path, claimed: Claimed) -> Answer:
    """The prover's answer."""
    try:
        verdict = verify(out, Checkpoint(bench.base), claimed.parts(bench), recipe=claimed.recipe)
    except CrossmatchError as error:
        if error.fault is not None:
            # What cannot be read is the fault; the command line gives it as its verdict.
            return Answer("failed", (error.fault,), text=str(error))
        return Answer(type(error).__name__, text=str(error))
    return Answer(verdict.verdict, verdict.faults, verdict.notes, str(verdict.weights))


def is_named(case: Case, answer: Answer) -> bool:
    """Whether verdict and faults are those expected."""
    missing = [fault for fault in case.faults if not set(fault.split("|")) & set(answer.faults)]
    return answer.verdict == case.expected and not missing and set(answer.faults) <= case.also | set(case.names)


def complaint(case: Case, answer: Answer, bench: Bench, out: Path, claimed: Claimed) -> str:
    """What is wrong with an answer, or nothing."""
    false = set(answer.faults) - case.also - set(case.names)
    if is_named(case, answer):
        lacking = [note for note in case.notes if note not in answer.notes and _due(note, bench, out, claimed)]
        return f"{answer} without the note {', '.join(lacking)}" if lacking else ""
    if not false and answer.verdict in ("verified", "inconclusive") and not PLAIN & set(case.names):
        found = evidence(bench, out, claimed) if case.faults else effect(bench, claimed)
        if found < HANDFUL:
            return ""
        return f"{answer} for {case.expected} {' + '.join(case.faults)}, with {found:g} elements to tell by"
    return f"{answer} for {case.expected} {' + '.join(case.faults)} {answer.text}".rstrip()


def _due(note: str, bench: Bench, out: Path, claimed: Claimed) -> bool:
    if note in ALWAYS:
        return True
    elements = sum(info.elements for info in Checkpoint(bench.base).tensors.values())
    return bench.dtype != torch.float32 and evidence(bench, out, claimed, once=True) > SHOWS * elements


def _claimed(bench: Bench, claimed: Claimed) -> tuple[Checkpoint, list[tuple[TuningVector, float]]]:
    parts = claimed.parts(bench)
    found = fit(Checkpoint(bench.base), {name: vector for name, (vector, _) in parts.items()}, tied="untie")
    return found.base, [(found.vectors[n], float(w)) for n, (_, w) in parts.items()]  # type: ignore[arg-type]


def evidence(bench: Bench, out: Path, claimed: Claimed, *, once: bool = False) -> float:
    """In how many elements a file differs from the nearest of the honest merges.

    Those: the exact sum rounded once, and (unless `once`) one adapter after the other, in any order.
    """
    merged = Checkpoint(out)
    base, parts = _claimed(bench, claimed)
    if set(merged.tensors) != set(base.tensors):
        return math.inf
    whole = tuple(range(len(parts)))
    orders = [whole] if once else [whole, *permutations(whole)]
    counts = [0] * len(orders)
    for name in base.tensors:
        weight, stored = base[name].double(), merged[name]
        if stored.shape != weight.shape:
            return math.inf
        shares = _shares(base, parts, name)
        for number, order in enumerate(orders):
            honest = _merge(weight, [shares[i] for i in order if i in shares], stored.dtype, once=number == 0)
            counts[number] += int((honest != stored).sum())
    return min(counts)


def _shares(base: Checkpoint, parts: list[tuple[TuningVector, float]], name: str) -> dict[int, Tensor]:
    found = {}
    for i, (vector, weight) in enumerate(parts):
        if name in vector:
            delta = vector[name]
            whole = base[name].reshape(delta.height, delta.columns)
            bound = delta.bind(lambda start, stop, whole=whole: whole[start:stop])
            rows = bound.rows(0, delta.height, torch.float64, whole.double())
            found[i] = weight * rows.reshape(base[name].shape)
    return found


def _merge(weight: Tensor, deltas: list[Tensor], dtype: torch.dtype, *, once: bool) -> Tensor:
    total = weight
    for delta in deltas:
        total = total + delta if once else (total + delta).to(dtype).double()
    return total.to(dtype)


def effect(bench: Bench, claimed: Claimed) -> float:
    """In how many elements the honest merge would differ without that adapter that shows least."""
    base, parts = _claimed(bench, claimed)
    counts = [0] * len(parts)
    for name in base.tensors:
        weight = base[name].double()
        shares = _shares(base, parts, name)
        whole = _merge(weight, list(shares.values()), bench.dtype, once=True)
        for i in shares:
            others = [d for j, d in shares.items() if j != i]
            counts[i] += int((_merge(weight, others, bench.dtype, once=True) != whole).sum())
    return min(counts)
