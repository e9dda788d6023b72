"""What weights are inside before any program is known: by the way of rounding that leaves the least over.

Factors that were rounded make another delta, of their own directions; weights that are fitted to the exact one are
then off by more than their standard errors say. So a few rows are fitted once for every way of rounding base and
factors, and all modules by the one whose mean square of what is left over is the least.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    for options in (lambda _: bases, _factors):
        plain = best = _left_over(pieces, way, subject.weights)
        for program in options(way):
            left = _left_over(pieces, program, subject.weights)
            if left < min(best, _LESS * plain):
                best, way = left, program
    at = list(subject.weights)
    found = Estimate((), (), 0, math.nan, identifiable=False)
    for _ in range(_TURNS):
        near = Subject(subject.merged, _resolved(subject, at), way)
        found = estimate([x.strata for x in glance(near, progress)] or [Strata.empty(len(at))], at)
        new = [a if math.isnan(w) else w for a, w in zip(at, found.weights, strict=True)]
        if not found.identifiable or math.dist(new, at) <= _STAYS * math.hypot(*new):
            break
        at = new
    return Recovered(found, way)


def _left_over(pieces: Sequence[Piece], program: Program, start: Sequence[float]) -> float:
    """Mean square of what fitted weights leave over, in that of one rounding."""
    at = list(start)
    found = Estimate((), (), 0, math.inf, identifiable=False)
    for _ in range(2):
        looked = []
        for piece in pieces:
            use = Applied.of(program, piece.parts, at, [0.0] * len(at), piece.stored.dtype)
            looked.append(look(rows_from(piece.stored, piece.raw, piece.parts, use, piece.where), at))
        found = estimate([x.strata for x in looked] or [Strata.empty(len(at))], at)
        if not found.identifiable:
            return math.inf
        at = [a if math.isnan(w) else w for a, w in zip(at, found.weights, strict=True)]
    return found.excess


def _factors(way: Program) -> Iterator[Program]:
    for half in HALVES:
        yield from (Program(way.base, half, place, multiplied) for place, multiplied in _PLACES)
    for cut in TF32:
        yield from (Program(way.base, cut, place) for place in ("product", "a", "b", "roots"))


def _resolved(subject: Subject, weights: Sequence[float]) -> Resolved:
    parts = dict(zip(subject.names, zip(subject.vectors, weights, strict=True), strict=True))
    return Resolved(subject.base, parts)
