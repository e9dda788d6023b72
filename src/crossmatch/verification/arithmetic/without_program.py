"""What weights are inside before any program is known: by the way of rounding that leaves the least over.

Factors that were rounded make another delta, of their own directions; weights that are fitted to the exact one are
then off by more than their standard errors say. So a few rows are fitted once for every way of rounding base and
factors, and all modules by the one whose mean square of what is left over is the least.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossmatch.runtime import Progress
from crossmatch.verification.arithmetic.float_spacing import step
from crossmatch.verification.arithmetic.grammar import HALVES, TF32, Multiplied, Place, Program, base_of
from crossmatch.verification.arithmetic.replay import Applied, rows_of
from crossmatch.verification.arithmetic.sample_rows import Piece
from crossmatch.verification.arithmetic.shares import product
from crossmatch.verification.arithmetic.typed_numbers import DOUBT, typed
from crossmatch.verification.claim import Resolved
from crossmatch.verification.subject import Subject
from crossmatch.verification.weights.estimate import Estimate, Strata, estimate
from crossmatch.verification.weights.row_sums import look, rows_from
from crossmatch.verification.weights.scan import glance

# Looks with found weights, and how little they may move to count as settled.
_TURNS, _STAYS = 3, 1e-3
# Pieces by which the way is chosen.
_PIECES = 4
# Relative distance of weights, and what is left over in that of one rounding, that no program comes to: seven roundings
# at weights of two leave 16 at most.
_NEAR = 0.05
# In float16, what passes through bfloat16 leaves 64 times as much.
_FOREIGN = {torch.bfloat16: 30.0, torch.float16: 2000.0}
# Steps of the search for weights on rounded factors, relative, and how many to either side.
_COARSE, _FINE, _REACH = (2.0**-9, 2.0**-9, 2.0**-11), (2.0**-11, 2.0**-13, 2.0**-13, 2.0**-15, 2.0**-17), 6
# Relative distance within which typed numbers are tried beside what a search found.
_WINDOW = 2.0**-9
# Relative distances at which weights beside the found ones are tried; what they may leave over beyond these, in squared
# steps: five standard deviations of noise, whose variance is 1/12.
_WIDTHS, _SAME = tuple(2.0**-k for k in range(17, 7, -1)), 25 / 12
# By how much another way must explain an honest file better than the plain one, in twice the logarithm of the
# likelihoods' ratio: chance gives one of 27 ways more than 25 in one file of 10,000.
_CLEARLY = 50.0
_PLACES: tuple[tuple[Place, Multiplied], ...] = (
    ("product", "wide"),
    *(("a", "wide"), ("a", "once"), ("a", "twice")),
    *(("b", "wide"), ("b", "once"), ("b", "twice")),
    *(("roots", "wide"), ("roots", "once")),
)


@dataclass(frozen=True)
class Recovered:
    """Weights, and the way of rounding base and factors by which they were found."""

    estimate: Estimate
    way: Program

    def is_way_of(self, program: Program) -> bool:
        """Whether a program rounds base and factors so."""
        mine, theirs = ((base_of(p), p.factors, p.place, p.multiplied) for p in (self.way, program))
        return mine == theirs


def recover(subject: Subject, pieces: Sequence[Piece], progress: Progress) -> Recovered:
    """Weights from some rows of every module; pieces: by which the way of rounding is chosen."""
    some = pieces[:: max(1, len(pieces) // _PIECES)]
    way, start = _best(some, Program(), _bases(pieces), subject.weights)
    way, _ = _best(some, way, _factors(way), start)
    depends, at = False, start
    if way.factors is not None:
        # On rounded factors a fitted weight stays where it starts: they are another delta for every weight.
        options = [other for other in _factors(way) if other.factors == way.factors and other.multiplied != "twice"]
        searched = {other: _searched(some, other, start, _COARSE) for other in options}
        way = min(searched, key=lambda other: searched[other].left)
        depends, at = way.rounds_weight, searched[way].weights
        at = _settled(some, way, at) if depends else at
    found = Estimate((), (), 0, math.nan, identifiable=False)
    for _ in range(1 if depends else _TURNS):
        near = Subject(subject.merged, _resolved(subject, at), way)
        found = estimate([x.strata for x in glance(near, progress)] or [Strata.empty(len(at))], at)
        new = _known(found, at)
        if not found.identifiable or math.dist(new, at) <= _STAYS * math.hypot(*new):
            break
        at = new
    return Recovered(widened(found, some, way, at), way)


def widened(found: Estimate, pieces: Sequence[Piece], way: Program, at: Sequence[float]) -> Estimate:
    """The estimate with the standard errors that it has where a weight was multiplied into a factor before that was
    rounded: other weights beside it give the same factors, which a fit by the factors of one weight does not see."""
    if not (way.rounds_weight and found.identifiable):
        return found
    some = pieces[:: max(1, len(pieces) // _PIECES)]
    return replace(found, stderr=tuple(map(max, found.stderr, _flat(some, way, _known(found, at)))))


def _settled(pieces: Sequence[Piece], way: Program, start: Sequence[float]) -> list[float]:
    """Weights on rounded factors that leave the least over: of a search, which may end beside the best ones, and of the
    numbers next to it that people type."""
    at = _searched(pieces, way, start, _FINE).weights
    near = typed(tuple(at), [_WINDOW * abs(weight) / DOUBT for weight in at])
    return min([at, *map(list, near)], key=lambda weights: _searched(pieces, way, weights, ()).left)


def _flat(pieces: Sequence[Piece], way: Program, at: Sequence[float]) -> list[float]:
    """How far, in standard errors, each weight may be off where rounded factors stay the same, or nearly so."""
    rests = [_Rest.of(piece, way, at) for piece in pieces]
    errors = []
    for i, weight in enumerate(at):
        least, width = sum(rest.squares(i, weight) for rest in rests), 0.0
        for size in _WIDTHS:
            ends = (weight * (1 - size), weight * (1 + size))
            if min(sum(rest.squares(i, end) for rest in rests) for end in ends) > least + _SAME:
                break
            width = size * abs(weight)
        errors.append(2 * width / DOUBT)
    return errors


def _best(
    pieces: Sequence[Piece], plain: Program, others: Iterable[Program], start: Sequence[float]
) -> tuple[Program, list[float]]:
    """The way that leaves the least over, if that is clearly less than the plain one does; weights by the plain one."""
    found = _fitted(pieces, plain, _known(_fitted(pieces, plain, start), start))
    best, way, at = found.excess, plain, _known(found, start)
    for other in others if found.identifiable else ():
        tried = _fitted(pieces, other, at)
        less = 1 - tried.excess / found.excess if found.excess else 0.0
        if tried.identifiable and tried.excess < best and tried.entries * less > _CLEARLY:
            best, way = tried.excess, other
    return way, at


@dataclass(frozen=True)
class _Searched:
    """Weights that leave the least over, in summed squares of steps."""

    weights: list[float]
    left: float


def _searched(pieces: Sequence[Piece], way: Program, start: Sequence[float], sizes: Sequence[float]) -> _Searched:
    """The weights that leave the least over, one adapter after the other, in ever finer steps of these sizes."""
    at, rests = list(start), [_Rest.of(piece, way, start) for piece in pieces]
    left = sum(rest.squares(0, at[0]) for rest in rests)
    for size, i in itertools.product(sizes, range(len(at))):
        tries = [at[i] * (1 + k * size) for k in range(-_REACH, _REACH + 1)]
        sums = [sum(rest.squares(i, weight) for rest in rests) for weight in tries]
        left = min(sums)
        at[i] = tries[sums.index(left)]
        for rest in rests:
            rest.shares[i] = rest.share(i, at[i])
    return _Searched(at, left)


@dataclass
class _Rest:
    """What a piece holds beside the base, in steps, and every adapter's share of it in a way of rounding."""

    piece: Piece
    way: Program
    ours: Tensor
    change: Tensor
    unit: Tensor
    shares: dict[int, Tensor]

    @classmethod
    def of(cls, piece: Piece, way: Program, weights: Sequence[float]) -> "_Rest":
        """At some weights, where the steps are taken, too."""
        use = Applied.of(way, piece.parts, weights, [0.0] * len(weights), piece.stored.dtype)
        some = use.read(piece.raw, piece.where)
        size = torch.maximum(use.exact(some).abs(), some.ours.abs())
        unit = torch.hypot(step(size, way.grains(piece.stored.dtype)[0]), some.blur)
        rest = cls(piece, way, some.ours, (piece.stored.double() - some.ours) / unit, unit, {})
        rest.shares = {i: rest.share(i, weights[i]) for i in piece.parts}
        return rest

    def share(self, adapter: int, weight: float) -> Tensor:
        """One adapter's, at a weight; nothing where it has no delta."""
        delta = self.piece.parts.get(adapter)
        if delta is None:
            return torch.zeros((), dtype=torch.float64)
        return rows_of(product(self.way, delta, weight), self.piece.where, self.ours) / self.unit

    def squares(self, adapter: int, weight: float) -> float:
        """Summed squares of what is left over where one adapter has another weight."""
        rest = self.change - self.share(adapter, weight)
        for i, other in self.shares.items():
            if i != adapter:
                rest = rest - other
        return float(rest.square().sum())


def _bases(pieces: Sequence[Piece]) -> list[Program]:
    return [Program(half) for half in HALVES if all(piece.on_grid(half) for piece in pieces)]


def is_elsewhere(pieces: Sequence[Piece], claimed: Sequence[float]) -> bool:
    """Whether what is inside is so far from the claimed weights, or from any sum of the deltas, that no way of rounding
    is the reason: factors that are rounded move a weight by 2^-8 of it, and all roundings of a program leave at most a
    few times the error of one in 16 bits."""
    some = pieces[:: max(1, len(pieces) // _PIECES)]
    for way in (Program(), *_bases(pieces)):
        found = _fitted(some, way, _known(_fitted(some, way, claimed), claimed))
        if not found.identifiable:
            return False
        grains = {way.grains(piece.stored.dtype)[0] for piece in pieces}
        most = max(_FOREIGN.get(grain, math.inf) for grain in grains)
        every = zip(found.weights, claimed, found.stderr, strict=True)
        near = all(abs(w - c) <= max(_NEAR * abs(c), 10 * e) + _NEAR / 5 for w, c, e in every if not math.isnan(w))
        if near and found.excess <= most:
            return False
    return True


def _fitted(pieces: Sequence[Piece], program: Program, at: Sequence[float]) -> Estimate:
    """Weights by a way of rounding, near some."""
    looked = []
    for piece in pieces:
        use = Applied.of(program, piece.parts, at, [0.0] * len(at), piece.stored.dtype)
        looked.append(look(rows_from(piece.stored, piece.raw, piece.parts, use, piece.where), at))
    return estimate([x.strata for x in looked] or [Strata.empty(len(at))], at)


def _known(found: Estimate, at: Sequence[float]) -> list[float]:
    return [a if math.isnan(w) else w for a, w in zip(at, found.weights, strict=True)]


def _factors(way: Program) -> Iterator[Program]:
    for half in HALVES:
        yield from (Program(way.base, half, place, multiplied) for place, multiplied in _PLACES)
    for cut in TF32:
        yield from (Program(way.base, cut, place) for place in ("product", "a", "b", "roots"))


def _resolved(subject: Subject, weights: Sequence[float]) -> Resolved:
    parts = dict(zip(subject.names, zip(subject.vectors, weights, strict=True), strict=True))
    return Resolved(subject.base, parts)
