"""What programs make of the pieces of a sample, all of them at once, and of a few elements of each first."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from crossmatch.delta import Delta, Dense, LowRank
from crossmatch.verification.arithmetic.float_spacing import step
from crossmatch.verification.arithmetic.grammar import Program, adds_columns, goes_through_16_bits
from crossmatch.verification.arithmetic.replay import Applied, Elements, rows_of
from crossmatch.verification.arithmetic.sample_rows import Piece
from crossmatch.verification.arithmetic.shares import Share, absolute, shares_of

# Elements of a piece that are tried first, spread over it; as many on which a program failed that explains these; and
# how often such are added.
_FEW, _TURNS = 64, 4


@dataclass(frozen=True)
class Trial:
    """A program at some weights, each known to its doubt."""

    program: Program
    weights: tuple[float, ...]
    doubts: tuple[float, ...]

    @property
    def factors(self) -> tuple[Any, ...]:
        """What shares depend on: programs that differ in sums and roundings alone have the same."""
        program = self.program
        grouped = program.order if program.is_grouped or program.last else None
        way = (program.factors, program.place, program.multiplied, program.chain, program.by_models, program.long)
        # The slack of a product knows whether 16 bits follow.
        return (*way, grouped, adds_columns(program), goes_through_16_bits(program), program.last)

    def shares(self, parts: Mapping[int, Delta], stored: torch.dtype) -> dict[int, Share]:
        """Of deltas at weight one."""
        return shares_of(self.program, parts, self.weights, self.doubts, stored)


@dataclass(frozen=True)
class _Few:
    """Elements of pieces whose deltas have the same form: B holds the row and A the column of each, so that the k-th
    element of the k-th row is its product."""

    parts: Mapping[int, LowRank]
    raw: Tensor
    stored: Tensor
    of: Tensor
    place: Tensor


@dataclass(frozen=True)
class Joined:
    """Elements on which a program does the same, of all pieces in one row.

    of: the number of each one's piece; place: where it lies there.
    """

    shares: Mapping[int, Share]
    some: Elements
    stored: Tensor
    of: Tensor
    place: Tensor


class Reader:
    """What programs make of the pieces: of a few elements of each, which are tried first, and of all."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self._chosen = [torch.linspace(0, n - 1, min(_FEW, n)).long() for n in (p.stored.numel() for p in pieces)]
        self._turns = 0
        self._few: list[_Few] | None = None
        self._others: list[int] = []
        self._at: Any = None
        self._kept: dict[Any, Any] = {}
        self._last: tuple[Any, list[Joined]] = (None, [])

    def read(self, trial: Trial, *, whole: bool = False) -> Iterator[tuple[Applied, Joined]]:
        """The program on all pieces: on a few elements of each, or the whole."""
        self._turn_to(trial)
        if whole:
            key = self._key(trial)
            if self._last[0] != key:
                every = {n: torch.arange(p.stored.numel()) for n, p in enumerate(self.pieces)}
                self._last = (key, _joined(trial, self.pieces, every))
            found = iter(self._last[1])
        else:
            found = (joined for number in range(self._parts) for joined in self._part(trial, number))
        return ((Applied(trial.program, j.shares, j.stored.dtype, trial.weights), j) for j in found)

    def impossible(self, trial: Trial) -> Iterator[Tensor]:
        """Pieces with an element that no program can have stored that casts base and factors as this one does: so that
        of a thousand programs most need not be tried on a file that none of them made. Of some pieces at a time: who
        looks for a program that explains all of them stops at the first that is impossible."""
        p = trial.program
        models = "mean" if p.is_mean else "models-wide" if p.model else "models"
        order = models if p.by_models else p.order if p.last or p.between else "sum"
        way = Program(p.base, p.factors, p.place, p.multiplied, order=order, long=p.long, via=p.via, last=p.last)
        way = replace(way, between=p.between, model=p.model)
        rounded = bool(p.delta or (p.last and p.last.delta))
        wide = replace(trial, program=way)
        self._turn_to(trial)
        for number in range(self._parts):
            key = ("impossible", way, rounded, number)
            if key not in self._kept:
                found = torch.zeros(len(self.pieces), dtype=torch.bool)
                for joined in self._part(wide, number):
                    use = Applied(way, joined.shares, joined.stored.dtype, trial.weights)
                    off = (joined.stored.double() - use.exact(joined.some)).abs()
                    found[joined.of[off > _room(use, joined.some, is_rounded=rounded)]] = True
                self._kept[key] = found
            yield self._kept[key]

    def beyond(self, trial: Trial) -> Tensor:
        """Pieces with an element that no program at all can have stored at these weights: it is farther from the exact
        sum than every rounding that one has, each to 16 bits and all in one direction."""
        self._turn_to(trial)
        key = ("beyond", trial.program.by_models)
        if key not in self._kept:
            self._kept[key] = torch.tensor([is_beyond(trial, piece) for piece in self.pieces])
        return self._kept[key]

    def sharpen(self, of: Tensor, place: Tensor) -> None:
        """Elements on which a program failed are tried first from now on."""
        if len(of) and self._turns < _TURNS:
            self._turns += 1
            self._chosen = [torch.cat([kept, place[of == i][:_FEW]]).unique() for i, kept in enumerate(self._chosen)]
            self._few = None
            self._kept.clear()

    def _turn_to(self, trial: Trial) -> None:
        """What is kept is of one set of weights."""
        at = (trial.weights, trial.doubts)
        if self._at != at:
            self._at, self._last = at, (None, [])
            self._kept.clear()

    @staticmethod
    def _key(trial: Trial) -> tuple[Any, ...]:
        return (*trial.factors, trial.program.base, trial.program.via, trial.program.model)

    @property
    def _parts(self) -> int:
        """In how many parts the few elements are read: those whose deltas are products at once; of the others one
        piece, which is enough for most programs, and the rest of them."""
        if self._few is None:
            self._few, self._others = _split(self.pieces, self._chosen)
        return len(self._few) + min(2, len(self._others))

    def _part(self, trial: Trial, number: int) -> list[Joined]:
        """One part of the few elements, as a program's operations treat it."""
        key = ("part", self._key(trial), number)
        if key not in self._kept:
            self._kept[key] = self._read_part(trial, number)
        return self._kept[key]

    def _read_part(self, trial: Trial, number: int) -> list[Joined]:
        assert self._few is not None
        if number >= len(self._few):
            others = self._others[:1] if number == len(self._few) else self._others[1:]
            return _joined(trial, self.pieces, {n: self._chosen[n] for n in others})
        few = self._few[number]
        key, line = ("shares", number, trial.factors), torch.arange(len(few.stored))
        if key not in self._kept:
            self._kept[key] = trial.shares(few.parts, few.stored.dtype)
        use = Applied(trial.program, self._kept[key], few.stored.dtype, trial.weights)
        some = use.at(few.raw, line, line)
        assert some is not None
        return [Joined(use.shares, some, few.stored, few.of, few.place)]


def _split(pieces: Sequence[Piece], every: Sequence[Tensor]) -> tuple[list[_Few], list[int]]:
    """Chosen elements (every: by piece) of pieces whose deltas are products, and the numbers of the other pieces."""
    groups: dict[Any, list[int]] = {}
    others = []
    for number, piece in enumerate(pieces):
        if all(isinstance(d, LowRank) for d in piece.parts.values()):
            form = ((i, tuple(d.scale.tolist()), d.b.dtype, d.a.dtype) for i, d in piece.parts.items())  # type: ignore[attr-defined]
            groups.setdefault((piece.stored.dtype, piece.raw.dtype, *form), []).append(number)
        else:
            others.append(number)
    return [_gather(pieces, every, numbers) for numbers in groups.values()], others


def _gather(pieces: Sequence[Piece], every: Sequence[Tensor], numbers: Sequence[int]) -> _Few:
    rows, columns, stored, raw = [], [], [], []
    for number in numbers:
        piece, chosen = pieces[number], every[number]
        lines = torch.cat([torch.arange(s.start, s.stop) for s in piece.where])
        rows.append(lines[chosen // piece.stored.shape[1]])
        columns.append(chosen % piece.stored.shape[1])
        stored.append(piece.stored.flatten()[chosen])
        raw.append(piece.raw.flatten()[chosen])
    parts = {}
    for i, first in pieces[numbers[0]].parts.items():
        each: list[LowRank] = [pieces[number].parts[i] for number in numbers]  # type: ignore[misc]
        b = torch.cat([d.b[r] for d, r in zip(each, rows, strict=True)])
        a = torch.cat([d.a[:, c] for d, c in zip(each, columns, strict=True)], 1)
        parts[i] = LowRank(b, a, first.scale)  # type: ignore[attr-defined]
    chosen = [every[number] for number in numbers]
    of = torch.cat([torch.full((len(c),), n) for n, c in zip(numbers, chosen, strict=True)])
    return _Few(parts, torch.cat(raw), torch.cat(stored), of, torch.cat(chosen))


def _joined(trial: Trial, pieces: Sequence[Piece], places: Mapping[int, Tensor]) -> list[Joined]:
    """Elements of pieces, by the number of the piece, that a program's operations treat alike."""
    groups: dict[Any, list[Joined]] = {}
    for number, place in places.items():
        piece = pieces[number]
        shares = trial.shares(piece.parts, piece.stored.dtype)
        some = Applied(trial.program, shares, piece.stored.dtype, trial.weights).read(piece.raw, piece.where)
        stored, of = piece.stored.flatten()[place], torch.full((len(place),), number)
        alike = (stored.dtype, *_kinds(shares))
        groups.setdefault(alike, []).append(Joined(shares, _at(some, place), stored, of, place))
    return [_together(group) for group in groups.values()]


def is_beyond(trial: Trial, piece: Piece) -> bool:
    """Whether an element is off the exact sum by more than (1 + u)^k - 1, with u = 2^-9 of bfloat16, of all that is
    summed, in absolute values.

    k: what is summed was rounded at most six times as factors (to 16 bits, times weight, times scaling, each of two),
    three times as a product, twice as a base, and in two sums for each adapter and two casts. By models each of these
    holds the base, too. In float16 the least step takes the place of u; an SVD errs by other rules.
    """
    if not all(isinstance(delta, LowRank) for delta in piece.parts.values()):
        return False
    total = piece.raw.double()
    size, models, floor = total.abs(), trial.program.by_models, 1.0
    if models:
        weights = [trial.weights[i] for i in piece.parts]
        size = size * (1 + abs(1 - sum(weights)) + sum(max(1.0, abs(w)) for w in weights))
    for i, delta in piece.parts.items():
        assert isinstance(delta, LowRank)
        weight = trial.weights[i]
        most = (max(1.0, abs(weight)) if models else abs(weight)) + trial.doubts[i]
        total = total + weight * rows_of(delta, piece.where, piece.raw)
        size = size + most * (1 + trial.doubts[i] * 2**9) * rows_of(absolute(delta), piece.where, piece.raw)
        factors = float(delta.b.abs().sum(1).amax() + delta.a.abs().sum(0).amax())
        floor += max(1.0, most * float(delta.scale.abs().amax())) * factors
    count = 13 + 2 * len(piece.parts)
    room = math.expm1(count * math.log1p(2.0**-9)) * size + count * 2.0**-25 * floor
    return bool(((piece.stored.double() - total).abs() > room).any())


def _room(use: Applied, some: Elements, *, is_rounded: bool) -> Tensor:
    """How far what is stored may be off the exact sum, whatever is rounded on the way."""
    weights = use.weights
    sizes = [x.abs() * (abs(weights[i]) if use.program.by_models else 1.0) for i, x in some.shares.items()]
    total = sum(sizes, torch.zeros_like(some.ours))
    # Half a step for file and conversion, every sum and, by models, each model and what it is multiplied by.
    each = (1 + 3 * max(1.0, abs(weights[i])) * use.program.by_models for i in use.shares)
    halves, size = 3 + bool(use.program.last) + sum(each), some.ours.abs() + total
    steps = torch.stack([step(size, dtype) for dtype in use.program.grains(use.stored)])
    room = halves / 2 * steps.amax(0)
    room = room + sum(some.reach.values(), torch.zeros_like(total)) * (1 + max(map(abs, weights)))
    if use.program.is_mean:
        # A weight that is known to its doubt multiplies a whole model.
        room = room + 2 * sum(share.off for share in use.shares.values()) * size
    # Of each delta that is rounded: the product, two multiplications and a sum.
    return room + (3 + len(sizes)) * (2.0**-9 * total + 2.0**-25) if is_rounded else room


def unit_of(use: Applied, some: Elements) -> Tensor:
    """Steps of the coarsest dtype on the way, where elements lie or come from."""
    return step(torch.maximum(use.exact(some).abs(), some.ours.abs()), use.program.grains(use.stored)[0])


def _kinds(shares: Mapping[int, Share]) -> tuple[Any, ...]:
    """What a program's operations ask of shares, beside their elements."""
    kept = [(s.after, s.weight, s.off, s.doubt, s.magnitude is None, type(s.value) is Dense) for s in shares.values()]
    return (*shares, *kept)


def _at(some: Elements, place: Tensor) -> Elements:
    """Some elements in one row."""
    shares, reach = ({i: x.flatten()[place] for i, x in part.items()} for part in (some.shares, some.reach))
    return Elements(some.ours.flatten()[place], shares, reach, some.blur.flatten()[place])


def _together(parts: Sequence[Joined]) -> Joined:
    every = [part.some for part in parts]
    shares = {i: torch.cat([some.shares[i] for some in every]) for i in every[0].shares}
    reach = {i: torch.cat([some.reach[i] for some in every]) for i in every[0].reach}
    ours, blur = torch.cat([some.ours for some in every]), torch.cat([some.blur for some in every])
    stored, of, place = (torch.cat([getattr(part, name) for part in parts]) for name in ("stored", "of", "place"))
    return Joined(parts[0].shares, Elements(ours, shares, reach, blur), stored, of, place)
