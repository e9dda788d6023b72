"""Weights that nobody can type, from the bits: those at which a program gives every element that is looked at.

Weights that are fitted have a standard error, and an element near the boundary between two numbers falls to the wrong
side of it at weights that are off by far less. So the number of elements outside is followed down to none, from the
fitted weights. Then it is measured how far the weights may go before an element is outside again.
The weights of an honest merge lie in there, whatever they are: all elements are judged at
the middle, with that as the doubt. Where there are no such weights, no merge of this program made the elements.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from crossmatch.verification.arithmetic.grammar import Program
from crossmatch.verification.arithmetic.sample import Fit, Sample

# The search, in steps of all elements together (root of the summed squares): how far from the origin the weights may
# lie, and where the way to the first element outside is no longer halved.
_FIRST, _LEAST = 2.0, 2.0**-14
# Cuts, each of which leaves at most 1 - 1/e; points that stand for all weights, and how few of them are drawn anew.
_CUTS, _POINTS, _SPARSE = 40, 4000, 100
# Steps to where elements of other bits pull; tries at random in a row that may lead to no fewer elements outside; how
# their length changes where one succeeds or fails (it stays where one of six does), and the least of it.
_PULLS, _PATIENCE, _LONGER, _SHORTER, _SHORTEST = 8, 100, 1.5, 0.92, 0.02
# Lengths of a step to where elements outside point, each half of the one before.
_LENGTHS = 10
# Bisections of the way to the first element outside; by how much a corner may lie further off than the sides.
_HALVINGS, _CORNER = 6, 3.0
# Programs that are tried: those with the fewest elements outside; and how many there may be, over the root of all: an
# error of the weights of n steps of all elements together brings 0.8 n times that outside.
_BEST, _MANY = 4, 2.0


def sharpen(sample: Sample, programs: Iterable[Program], start: tuple[float, ...]) -> Fit | None:
    """The first program, of those that leave the fewest elements outside near some weights, that has weights at which
    none is; None if there is none."""
    # By models in 16 bits weights are numbers of 16 bits: a range of them gives the same, and no middle is any better.
    counts = {p: sample.outside(p, start) for p in dict.fromkeys(programs) if not p.by_models or p.is_wide}
    counts = {p: count for p, count in counts.items() if count <= _MANY * math.sqrt(sample.elements)}
    for program in sorted(counts, key=lambda p: counts[p])[:_BEST]:
        found = _at_weights(sample, program, start)
        if found is not None:
            return found
    return None


def _at_weights(sample: Sample, program: Program, start: tuple[float, ...]) -> Fit | None:
    numbers = [i for i in sample.numbers(start) if start[i]]
    directions = _directions(sample.gram(program, start, numbers)[0])
    if directions is None:
        return None

    def weights_at(point: Tensor) -> tuple[float, ...]:
        moved = dict(zip(numbers, (1 + directions @ point).tolist(), strict=True))
        return tuple(w * moved.get(i, 1.0) for i, w in enumerate(start))

    def outside(point: Tensor) -> int:
        return sample.outside(program, weights_at(point))

    def cuts(point: Tensor) -> Tensor:
        return sample.cuts(program, weights_at(point), numbers) @ directions

    def pull(point: Tensor) -> Tensor:
        return directions.T @ sample.gram(program, weights_at(point), numbers)[1]

    # Where something is rounded on the way, an element outside need not tell which weight is off.
    once = program.delta is None and program.order in ("sum", "cat") and not program.rounds_weight
    point = _enclosed(cuts, len(numbers)) if once else _wander(outside, pull, cuts, len(numbers))
    if point is None:
        return None
    reach = _reaches(outside, point)
    middle = point + (reach[1] - reach[0]) / 2
    if not outside(middle):
        point, reach = middle, _reaches(outside, middle)
    weights, width = weights_at(point), _CORNER * (directions.abs() @ (reach.sum(0) / 2))
    off = dict(zip(numbers, width.tolist(), strict=True))
    doubts = tuple(abs(w) * off.get(i, 0.0) for i, w in enumerate(weights))
    return Fit(program, weights, doubts, whole=True, sharpened=True)


def _directions(gram: Tensor) -> Tensor | None:
    """Columns along which a way of one moves all elements by one step together; None where some move none."""
    values, vectors = torch.linalg.eigh(gram)
    if not bool((values > 0).all()) or not bool(values.isfinite().all()):
        return None
    return vectors / values.sqrt()


def _enclosed(cuts: Callable[[Tensor], Tensor], size: int) -> Tensor | None:
    """Where no element is outside, from the origin: every element outside cuts away the half of the weights on its
    wrong side, and the next point is the middle of what remains. None where nothing remains."""
    chance = torch.Generator().manual_seed(0)
    points = _FIRST * (2 * torch.rand(_POINTS, size, dtype=torch.float64, generator=chance) - 1)
    point = torch.zeros(size, dtype=torch.float64)
    normals, least = torch.zeros(0, size, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    for _ in range(_CUTS):
        found = cuts(point)
        if not len(found):
            return point
        normals, least = torch.cat([normals, found]), torch.cat([least, found @ point])
        left = points[(points @ normals.T > least).all(1)]
        if 2 <= len(left) < _SPARSE:
            # Drawn anew about those that remain, twice as wide.
            drawn = torch.randn(_POINTS, size, dtype=torch.float64, generator=chance)
            points = left.mean(0) + 2 * left.std(0) * drawn
            left = points[(points @ normals.T > least).all(1)]
        if len(left) < 2:
            return None
        point = left.mean(0)
    return None


def _wander(
    outside: Callable[[Tensor], int], pull: Callable[[Tensor], Tensor], cuts: Callable[[Tensor], Tensor], size: int
) -> Tensor | None:
    """Where no element is outside, from the origin: where the elements of other bits pull, each by itself and in the
    mean; then where those outside point; and then at random, about the point with the fewest, further where that
    succeeds and less far where it fails. None if so many tries in a row do not come nearer."""
    point = moved = mean = torch.zeros(size, dtype=torch.float64)
    least = outside(point)
    for turn in range(_PULLS if least else 0):
        moved = moved + pull(moved)
        mean = mean + (moved - mean) / (turn + 1)
        for other in (moved, mean):
            if (count := outside(other)) < least:
                point, least = other, count
    for _ in range(_PULLS if least else 0):
        towards = cuts(point).sum(0)
        if not float(towards.norm()):
            break
        tries = [point + 2.0**-k / towards.norm() * towards for k in range(_LENGTHS)]
        counts = [outside(other) for other in tries]
        if min(counts) > least:
            break
        # Of as few the furthest: beyond one element's boundary lies another's.
        point, least = tries[counts.index(min(counts))], min(counts)
        if not least:
            return point
    chance = torch.Generator().manual_seed(0)
    # The best of them may lie in a corner that is nearly right; the mean is off by chance alone.
    for start in (point, mean) if least else ():
        point, least, length, failed = start, outside(start), _FIRST / 8, 0
        while least and failed < _PATIENCE:
            moved = point + length * torch.randn(size, dtype=torch.float64, generator=chance)
            count = outside(moved)
            failed = 0 if count < least else failed + 1
            length = max(_SHORTEST, length * (_LONGER if count <= least else _SHORTER))
            # Of as many, too: so it walks over what is level.
            point, least = (moved, count) if count <= least else (point, least)
        if not least:
            break
    return None if least else point


def _reaches(outside: Callable[[Tensor], int], point: Tensor) -> Tensor:
    """(2, directions): how far the weights may go to either side before an element is outside."""
    return torch.tensor(
        [[_reach(outside, point, k, sign) for k in range(len(point))] for sign in (-1.0, 1.0)], dtype=torch.float64
    )


def _reach(outside: Callable[[Tensor], int], point: Tensor, k: int, sign: float) -> float:
    """How far the weights may go in one direction before an element is outside."""
    unit = torch.zeros_like(point)
    unit[k] = sign
    inside, beyond = 0.0, _LEAST
    while beyond < 1 and not outside(point + beyond * unit):
        inside, beyond = beyond, 2 * beyond
    for _ in range(_HALVINGS):
        middle = (inside + beyond) / 2
        inside, beyond = (inside, middle) if outside(point + middle * unit) else (middle, beyond)
    return beyond
