"""A merged checkpoint beside the claim about it."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from crossmatch.checkpoint import Checkpoint
from crossmatch.delta import Delta, TokenRows, TuningVector, linear
from crossmatch.verification.arithmetic.grammar import HALVES, MEANS, Program
from crossmatch.verification.arithmetic.operations import Operations
from crossmatch.verification.arithmetic.programs import orders_of_a_mean
from crossmatch.verification.arithmetic.replay import Applied
from crossmatch.verification.arithmetic.tensor_kinds import Kind, Kinds
from crossmatch.verification.claim import Resolved
from crossmatch.verification.weights.row_sums import (
    ROWS,
    Looked,
    Rows,
    bound,
    check_readable,
    look,
    read_rows,
    rows_from,
    sample,
)

# Elements that are looked at together.
_FEW = 1 << 16


@dataclass(frozen=True)
class Claimed:
    """The claim on one tensor: deltas at weight one by the number of their vector, and the program that adds them."""

    parts: Mapping[int, Delta]
    weights: Sequence[float]
    applied: Applied

    @cached_property
    def total(self) -> Delta:
        """The weighted sum of the deltas."""
        return linear(list(self.parts.values()), [self.weights[i] for i in self.parts])

    @property
    def columns(self) -> int:
        """Width of the matrix as which the tensor is read."""
        return next(iter(self.parts.values())).columns


class Subject:
    """A merged checkpoint beside the claim about it: where rows of any tensor can be looked at, at any time.

    weights: those that seem to be inside, and doubts: how far each may be off; program: by which the file seems to have
    been made, and programs: those of tensors of another kind, which tools add by code of their own (PEFT rounds the
    delta of targeted parameters, but not of linear layers); unexplained: kinds of which no program explains a sample;
    is_explained: whether the program explains most of the file, or none does; at_claim: whether the weights are the
    claimed ones, as far as they are known, or others by which alone the file is explained; sharpened: whether they are
    all at which a sample is explained, and no more is doubted.
    """

    def __init__(
        self,
        merged: Checkpoint,
        claim: Resolved,
        program: Program | None = None,
        doubts: Sequence[float] | None = None,
        *,
        programs: Mapping[Kind, Program] | None = None,
        is_explained: bool = True,
    ) -> None:
        self.merged, self.base, self.names = merged, claim.base, list(claim.parts)
        self.vectors: list[TuningVector] = [vector for vector, _ in claim.parts.values()]
        self.weights = [weight for _, weight in claim.parts.values()]
        self.doubts = list(doubts) if doubts is not None else [0.0] * len(self.weights)
        self.kinds, self.programs = Kinds(claim.base, claim.kinds), dict(programs or {})
        self.program, self.is_explained = program or Program(), is_explained
        self.unexplained: set[Kind] = set()
        self.at_claim, self.sharpened = True, False

    @property
    def adapted(self) -> list[str]:
        """Names of the tensors that carry a delta, of those that base and file have in one shape."""
        names = {name for vector in self.vectors for name in vector}
        theirs = self.merged.tensors
        return [n for n, i in self.base.tensors.items() if n in names and n in theirs and theirs[n].shape == i.shape]

    def program_of(self, name: str) -> Program:
        """By which a tensor seems to have been made."""
        return self.programs.get(self.kinds.of(name), self.program)

    def parts(self, name: str) -> dict[int, Delta]:
        """Deltas on a tensor at weight one, by the number of their vector."""
        return bound(self.base, name, {i: v[name] for i, v in enumerate(self.vectors) if name in v})

    def on(self, name: str, program: Program | None = None) -> Claimed:
        """What the claim says of a tensor, as a program has it (default: the file's)."""
        parts = self.parts(name)
        use = program or self.program_of(name)
        applied = Applied.of(use, parts, self.weights, self.doubts, self.merged.tensors[name].dtype)
        return Claimed(parts, self.weights, applied)

    def read(self, name: str, claimed: Claimed, where: Sequence[slice]) -> Rows:
        """Those rows of a tensor."""
        check_readable(name, self.base.tensors[name].dtype, self.merged.tensors[name].dtype)
        stored, raw = (read_rows(side, name, where, claimed.columns) for side in (self.merged, self.base))
        return rows_from(stored, raw, claimed.parts, claimed.applied, where)

    def places(
        self, name: str, claimed: Claimed, within: tuple[int, int] | None = None, least: int = ROWS
    ) -> list[slice]:
        """Some rows of a tensor, at least so many, of all of it or `within` a range of rows."""
        height = self.base.tensors[name].elements // max(1, claimed.columns)
        first, last = within or (0, height - 1)
        chosen = sample(name, last - first + 1, claimed.columns, least)
        where = [slice(first + s.start, first + s.stop) for s in chosen]
        if len(chosen) > 1:
            # A delta in a few rows only would hardly ever be met.
            few = {int(i) for d in claimed.parts.values() if isinstance(d, TokenRows) for i in d.indices[:least]}
            rows = {s.start for s in where} | {i for i in few if first <= i <= last}
            where = [slice(row, row + 1) for row in sorted(rows)]
        return where

    def some(self, name: str, claimed: Claimed, within: tuple[int, int] | None = None, least: int = ROWS) -> Rows:
        """Those rows."""
        return self.read(name, claimed, self.places(name, claimed, within, least))

    def look(self, name: str, claimed: Claimed, within: tuple[int, int] | None = None) -> Looked:
        """What those rows show, a few at a time: what is computed of them stays in the cache."""
        found = Looked.empty(self.weights)
        places = self.places(name, claimed, within)
        few = max(1, _FEW // max(1, claimed.columns))
        for first in range(0, len(places), few):
            look(self.read(name, claimed, places[first : first + few]), self.weights, found)
        return found

    def all(self, name: str, claimed: Claimed) -> Iterator[Rows]:
        """All rows of a tensor, block by block."""
        for start, stop in self.base.blocks(name, claimed.columns):
            yield self.read(name, claimed, [slice(start, stop)])

    def same(self, ours: Tensor, theirs: Tensor) -> bool:
        """Whether rows are the base's, bit for bit, or its cast to the stored dtype, at once or by way of the dtype in
        which the file was made."""
        if same_bytes(ours.to(theirs.dtype), theirs):
            return True
        if self.program.by_models:
            # Rounding moves the mean of models that hold the same tensor, as differences do not.
            merged = [i for i, weight in enumerate(self.weights) if weight]
            ways = itertools.product((self.program.order, *MEANS), (self.program.terms, (), *orders_of_a_mean(merged)))
            for order, terms in dict.fromkeys(ways):
                way = Operations(replace(self.program, order=order, terms=terms), {}, theirs.dtype, self.weights)
                if same_bytes(way.compose(ours.double(), {}), theirs):
                    return True
        first, last = self.program.base, self.program.final
        between, via = self.program.between, self.program.via
        ways = dict.fromkeys(
            ((first,), (last,), (first, last), (via,), (between, last), (between, last, via), (last, via))
        )
        if not self.is_explained:
            # By what tools the file went is not known: what any of them makes of the base is the base's.
            ways |= dict.fromkeys((*((half,) for half in HALVES), HALVES, HALVES[::-1]))
        return any(same_bytes(_cast(ours, [d for d in way if d]).to(theirs.dtype), theirs) for way in ways)

    def is_base(self, name: str) -> bool:
        """The same of a whole tensor."""
        return all(
            self.same(self.base.rows(name, *rows), self.merged.rows(name, *rows)) for rows in self.base.blocks(name)
        )


def _cast(rows: Tensor, through: Sequence[torch.dtype]) -> Tensor:
    for dtype in through:
        rows = rows.to(dtype)
    return rows


def same_bytes(ours: Tensor, theirs: Tensor) -> bool:
    """Bit for bit: -0 is not 0, and NaN is itself."""
    first, second = (t.contiguous().view(torch.uint8).numpy() for t in (ours, theirs))
    return np.array_equal(first, second)


def differing(subject: Subject, name: str) -> str:
    """In words: which rows of a tensor that carries no delta are not the base's."""
    numbers, zero, height = [], True, 0
    for start, stop in subject.base.blocks(name):
        ours, theirs = (side.rows(name, start, stop) for side in (subject.base, subject.merged))
        # By wider numbers: of 8 bits, torch compares none.
        unequal = (ours.to(theirs.dtype).double() != theirs.double()).any(dim=1)
        numbers += (start + unequal.nonzero().flatten()).tolist()
        zero, height = zero and not bool(theirs.double()[unequal].any()), stop
    if not numbers:
        return f"{name}: of other bits, but of equal values"
    if len(numbers) > 1:
        what = "are zero in the file" if zero else "differ"
        return f"{name}: {len(numbers)} of {height} rows, between {numbers[0]} and {numbers[-1]}, {what}"
    named = ", the padding token's, which some classes of transformers set to zero as they load it"
    padding = zero and numbers == [subject.base.config.get("pad_token_id")]
    what = "is zero in the file" if zero else "differs"
    return f"{name}: row {numbers[0]} of {height} {what}{named if padding else ''}"
