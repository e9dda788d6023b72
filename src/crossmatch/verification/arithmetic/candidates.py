"""Programs and weights that may have made a file, in the order in which they are tried: at the claimed weights, at
numbers that people type near those that were recovered, at weights that the bits tell, and at recovered ones."""

import math
from collections.abc import Iterator, Sequence

import torch

from crossmatch.verification.arithmetic.grammar import HALVES, Program
from crossmatch.verification.arithmetic.programs import common, programs
from crossmatch.verification.arithmetic.sample import Fit, Sample
from crossmatch.verification.arithmetic.sharpened import sharpen
from crossmatch.verification.arithmetic.typed_numbers import DOUBT, typed
from crossmatch.verification.arithmetic.without_program import Recovered
from crossmatch.verification.weights.estimate import Estimate


def programs_at(
    sample: Sample, weights: tuple[float, ...], doubts: tuple[float, ...], recovered: Recovered | None = None
) -> Iterator[Fit]:
    """All programs at some weights, those first by which the weights were recovered; then the common ones with weights
    rounded to 16 bits."""
    every = programs(sample.stored, sample.numbers(weights))
    if recovered is not None:
        every = sorted(every, key=lambda program: not recovered.is_way_of(program))
    yield from (Fit(p, weights, doubts) for p in every)
    for half in HALVES:
        coarse = tuple(float(torch.tensor(w, dtype=half)) for w in weights)
        if coarse != weights:
            yield from (Fit(p, coarse, doubts) for p in (Program(), *map(Program, HALVES)))


def where_nothing_is_claimed(sample: Sample, claimed: tuple[float, ...], recovered: Recovered) -> Iterator[Fit]:
    """Numbers that people type, near the recovered ones, and then these themselves."""
    yield from at_typed_numbers(sample, claimed, recovered)
    yield from at_recovered(sample, claimed, recovered)


def at_typed_numbers(sample: Sample, claimed: tuple[float, ...], recovered: Recovered) -> Iterator[Fit]:
    """Numbers that people type, by the way in which the weights were recovered and by the usual programs."""
    for weights in typed(inside_of(claimed, recovered), recovered.estimate.stderr):
        yield from usual_at(sample, weights, (0.0,) * len(weights), recovered)


def at_sharpened(
    sample: Sample, claimed: tuple[float, ...], recovered: Recovered, programs: Sequence[Program] | None = None
) -> Fit | None:
    """Weights near the recovered ones at which a program, of some or of the usual ones, gives every element."""
    weights = inside_of(claimed, recovered)
    usual = [option.program for option in usual_at(sample, weights, (0.0,) * len(weights), recovered)]
    return sharpen(sample, usual if programs is None else programs, weights)


def at_recovered(sample: Sample, claimed: tuple[float, ...], recovered: Recovered) -> Iterator[Fit]:
    """Recovered weights as far as they are known, the usual programs first."""
    weights, doubts = inside_of(claimed, recovered), doubts_of(recovered.estimate)
    yield from usual_at(sample, weights, doubts, recovered)
    yield from programs_at(sample, weights, doubts)


def inside_of(claimed: tuple[float, ...], recovered: Recovered) -> tuple[float, ...]:
    """Recovered weights; the claimed ones of adapters that have no delta, or no weight."""
    every = zip(recovered.estimate.weights, claimed, strict=True)
    return tuple(w if math.isnan(f) or not w else f for f, w in every)


def usual_at(
    sample: Sample, weights: tuple[float, ...], doubts: tuple[float, ...], recovered: Recovered
) -> Iterator[Fit]:
    """The usual programs, and all that round base and factors in the way by which the weights were recovered."""
    stored, numbers = sample.stored, sample.numbers(weights)
    usual = dict.fromkeys(common(stored, numbers))
    usual |= dict.fromkeys(p for p in programs(stored, numbers) if recovered.is_way_of(p))
    yield from (Fit(p, weights, doubts) for p in usual)


def doubts_of(found: Estimate) -> tuple[float, ...]:
    """How far recovered weights may be off; nothing for those that are not known, or nothing."""
    return tuple(0.0 if math.isnan(e) or not w else DOUBT * e for w, e in zip(found.weights, found.stderr, strict=True))
