"""What weights are inside before any program is known: by the way of rounding that leaves the least over.

Factors that were rounded make another delta, of their own directions; weights that are fitted to the exact one are
then off by more than their standard errors say. So a few rows are fitted once for every way of rounding base and
factors, and all modules by the one whose mean square of what is left over is the least.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from crossmatch.progress import Progress
from crossmatch.verification.arithmetic import Applied
from crossmatch.verification.claim import Resolved
from crossmatch.verification.grammar import HALVES, TF32, Multiplied, Place, Program
from crossmatch.verification.look import look, rows_from
from crossmatch.verification.pieces import Piece
from crossmatch.verification.recover import Estimate, Strata, estimate
from crossmatch.verification.scan import glance
from crossmatch.verification.subject import Subject

# Looks with found weights, and how little they may move to count as settled.
_TURNS, _STAYS = 3, 1e-3
# Pieces by which the way is chosen.
_PIECES = 4
# Relative distance of weights, and what is left over in that of one rounding, that no program comes to: seven roundings
# at weights of two leave 16 at most.
_NEAR = 0.05
# In float16, what passes through bfloat16 leaves 64 times as much.
_FOREIGN = {torch.bfloat16: 30.0, torch.float16: 2000.0}
# By how much another way must leave less over than the plain one: ten times the sampling error of 2,000 elements.
_LESS = 0.85
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
        mine, theirs = (
            (p.base if p.base in HALVES else p.via, p.factors, p.place, p.multiplied) for p in (self.way, program)
        )
        return mine == theirs


def recover(subject: Subject, pieces: Sequence[Piece], progress: Progress) -> Recovered:
    """Weights from some rows of every module; pieces: by which the way of rounding is chosen."""
    way = Program()
    bases = [Program(half) for half in HALVES if all(piece.on_grid(half) for piece in pieces)]
    some, start = pieces[:: max(1, len(pieces) // _PIECES)], list(subject.weights)
    for options in (lambda _: bases, _factors):
        found = _fitted(some, way, _known(_fitted(some, way, start), start))
        start = _known(found, start)
        plain = best = found.excess if found.identifiable else math.inf
        for program in options(way) if math.isfinite(plain) else ():
            other = _fitted(some, program, start)
            if other.identifiable and other.excess < min(best, _LESS * plain):
                best, way = other.excess, program
    at = list(subject.weights)
    found = Estimate((), (), 0, math.nan, identifiable=False)
    for _ in range(_TURNS):
        near = Subject(subject.merged, _resolved(subject, at), way)
        found = estimate([x.strata for x in glance(near, progress)] or [Strata.empty(len(at))], at)
        new = _known(found, at)
        if not found.identifiable or math.dist(new, at) <= _STAYS * math.hypot(*new):
            break
        at = new
    return Recovered(found, way)


def is_elsewhere(pieces: Sequence[Piece], claimed: Sequence[float]) -> bool:
    """Whether what is inside is so far from the claimed weights, or from any sum of the deltas, that no way of rounding
    is the reason: factors that are rounded move a weight by 2^-8 of it, and all roundings of a program leave at most a
    few times the error of one in 16 bits."""
    some = pieces[:: max(1, len(pieces) // _PIECES)]
    halves = [Program(), *(Program(half) for half in HALVES if all(piece.on_grid(half) for piece in pieces))]
    for way in halves:
        found = _fitted(some, way, _known(_fitted(some, way, claimed), claimed))
        if not found.identifiable:
            return False
        grains = {way.base, *(piece.stored.dtype for piece in pieces)}
        most = next((limit for dtype, limit in _FOREIGN.items() if dtype in grains), math.inf)
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
