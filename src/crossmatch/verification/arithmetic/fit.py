"""Which program made a file, and at which weights: from a few rows of a few modules, before all of them are held
against it."""

import itertools
import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

import torch

from crossmatch.runtime import Progress
from crossmatch.verification.arithmetic.candidates import (
    at_recovered,
    at_sharpened,
    at_typed_numbers,
    doubts_of,
    inside_of,
    programs_at,
    usual_at,
    where_nothing_is_claimed,
)
from crossmatch.verification.arithmetic.grammar import HALVES, Program
from crossmatch.verification.arithmetic.programs import common, programs
from crossmatch.verification.arithmetic.sample import Fit, Sample, turned
from crossmatch.verification.arithmetic.sample_rows import MODULES, Piece, pieces_of, wrong_rows
from crossmatch.verification.arithmetic.tensor_kinds import Kind
from crossmatch.verification.arithmetic.typed_numbers import shortest, typed
from crossmatch.verification.arithmetic.without_program import Recovered, is_elsewhere, recover, widened
from crossmatch.verification.claim import Resolved
from crossmatch.verification.subject import Subject
from crossmatch.verification.weights.estimate import Estimate, estimate
from crossmatch.verification.weights.module_verdicts import Thresholds, resolves, same
from crossmatch.verification.weights.scan import ModuleScan, Scan

# Share of the elements that the order of additions turns at most in 16 bits; standard deviations by which one program
# gives clearly more of the bits than another.
_FLIPS, _CLEARLY = 1e-3, 6.0
# An SVD may be the reason from so many times the elements on that the order of additions turns, as a rule, and so many
# deviations of that number: sums of 2 to 64 products turned 0.8 to 3 times as many, SVDs of them 9.4 to 18 times.
_TURNED, _BY_CHANCE = 5.0, 3.0


def settle(subject: Subject, claim: Resolved, t: Thresholds, progress: Progress, route: str | None = None) -> Subject:
    """The subject with the program by which the file was made, at the weights that are inside.

    These are the claim's; or, where no program gives the file at those and the recovered ones are the same within the
    tolerance, the recovered ones: people type fewer digits than they merge with. route: how it is said to be rounded.
    """
    if route == "stochastic":
        return Subject(subject.merged, claim, Program(order="stochastic"))
    sample = Sample(list(pieces_of(subject)))
    if not sample.pieces:
        return subject
    claimed = tuple(subject.weights)
    none = (0.0,) * len(claimed)
    usual = common(sample.stored, sample.numbers(claimed))
    found = fit(sample, (Fit(program, claimed, none) for program in usual))
    found = found or fit(sample, iter([Fit(Program(long=True), claimed, none)]))
    if found is None and is_elsewhere(sample.pieces, claimed):
        other = _of_two_roundings(subject, sample, t, progress)
        if other is None:
            return _unexplained(subject, claim, sample)
        made = with_fit(subject, claim, other)
        made.at_claim = other.weights == claimed
        return made
    if found is None or found.missed > 1:
        recovered = recover(subject, sample.pieces, progress)
        options = programs_at(sample, claimed, none, recovered)
        if _near(recovered.estimate, claimed, t):
            first = usual_at(sample, claimed, none, recovered)
            options = itertools.chain(first, at_typed_numbers(sample, claimed, recovered), options)
        other = fit(sample, options)
        found = other if other and (found is None or other.whole) else found
        if found is None and _near(recovered.estimate, claimed, t):
            found = at_sharpened(sample, claimed, recovered) or _at_rough_weights(sample, claimed, recovered)
    if found is None:
        return _unexplained(subject, claim, sample)
    # Beyond one piece, all programs were tried at the claimed weights.
    exhausted = found.missed > 1
    best = found if found.weights == claimed else _closest(sample, found, claimed)
    return with_fit(subject, claim, best, exhausted=exhausted)


def _at_rough_weights(sample: Sample, claimed: tuple[float, ...], recovered: Recovered) -> Fit | None:
    """What explains every piece at the recovered weights as far as they are known: these would excuse too much where
    exact ones explain most of the file."""
    rough = fit(sample, at_recovered(sample, claimed, recovered))
    if rough is None or not rough.whole:
        return None
    return at_sharpened(sample, claimed, recovered, [rough.program]) or rough


def _of_two_roundings(subject: Subject, sample: Sample, t: Thresholds, progress: Progress) -> Fit | None:
    """What explains every piece where a fit leaves more over than one rounding does: of two merges the file would else
    seem to hold another base. At the claimed weights, of which a coarse first merge may have swallowed so much that
    the fit finds others; then at numbers that people type, near the recovered ones."""
    recovered = recover(subject, sample.pieces, progress)
    if not recovered.estimate.identifiable or recovered.estimate.excess <= t.excess:
        return None
    claimed = tuple(subject.weights)
    near = typed(inside_of(claimed, recovered), recovered.estimate.stderr)[:1]

    def every(weights: tuple[float, ...]) -> Iterator[Fit]:
        return (Fit(p, weights, (0.0,) * len(weights)) for p in programs(sample.stored, sample.numbers(weights)))

    options = (every(claimed), at_typed_numbers(sample, claimed, recovered), *map(every, near))
    return fit(sample, itertools.chain(*options), whole=True)


def _unexplained(subject: Subject, claim: Resolved, sample: Sample) -> Subject:
    return Subject(subject.merged, claim, _cast(sample, subject.weights), is_explained=False)


def with_fit(subject: Subject, claim: Resolved, found: Fit, *, exhausted: bool = False) -> Subject:
    """The subject at a fit's weights, made by its program, and tensors of other kinds by programs of their own, where
    these do not explain them; exhausted: whether no program explains the sample at the claimed weights."""
    made = Subject(subject.merged, claim_at(claim, found.weights), found.program, found.doubts)
    made.sharpened = found.sharpened
    kinds = list(made.kinds.groups(made.adapted))
    made.unexplained.update(kinds[:1] if exhausted else [])
    for kind in kinds[1:]:
        sample = Sample(list(pieces_of(made, kind)))
        if not sample.pieces:
            continue
        options = itertools.chain([found], programs_at(sample, found.weights, found.doubts))
        other = fit(sample, (option for option in options if option.weights == found.weights))
        if other is None or not other.whole:
            made.unexplained.add(kind)
        elif other.program != found.program:
            made.programs[kind] = other.program
    return made


def claim_at(claim: Resolved, weights: Sequence[float]) -> Resolved:
    """The claim with other weights."""
    parts = {n: (v, w) for (n, (v, _)), w in zip(claim.parts.items(), weights, strict=True)}
    return replace(claim, parts=parts)


def discover(subject: Subject, claim: Resolved, recovered: Recovered, t: Thresholds) -> Subject:
    """The subject at recovered weights, where nothing is claimed: at the shortest numbers that explain the file."""
    sample, found = Sample(list(pieces_of(subject))), recovered.estimate
    every = list(zip(found.weights, found.stderr, strict=True))
    # What is as good as nothing is taken for nothing, unless the file has to be explained by it.
    none = tuple(0.0 if w != w or same(w, 0.0, e, t) else w for w, e in every)
    little = tuple(0.0 if w != w or abs(w) <= t.sigmas * e else w for w, e in every)

    def fitted_at(inside: tuple[float, ...]) -> Fit | None:
        if not sample.pieces:
            return None
        kept = replace(recovered, estimate=replace(found, weights=inside))
        return fit(sample, where_nothing_is_claimed(sample, inside, kept))

    inside, fitted = none, fitted_at(none)
    if little != none and not (fitted and fitted.whole) and (other := fitted_at(little)) and other.whole:
        inside, fitted = little, other
    if fitted is None:
        nearest = tuple(shortest(w, e) if w else 0.0 for w, e in zip(inside, found.stderr, strict=True))
        doubts = doubts_of(replace(found, weights=inside))
        fitted = Fit(_cast(sample, nearest) if sample.pieces else Program(), nearest, doubts)
    return with_fit(subject, claim, fitted)


def fit(
    sample: Sample,
    candidates: Iterator[Fit],
    *,
    whole: bool = False,
    spread: bool | None = None,
    most: float | None = None,
) -> Fit | None:
    """The first candidate that explains every piece; else the one that explains the most, and more than half.

    whole: only what explains every piece is asked for, so that a candidate is given up at the first piece; spread:
    whether what is to be explained lies everywhere, as the errors of an SVD do (default: as the pieces show); most:
    elements of other bits that one that explains every piece may have; then it is the one that has fewest.
    """
    best, half, closest = None, len(sample) - 1 if whole else len(sample) // 2, None
    for candidate in _long_last(candidates):
        if candidate.program.long and not (_is_long(sample, candidate, best) if spread is None else spread):
            continue
        right = _explained(sample, candidate, half)
        if right == len(sample):
            found = replace(candidate, whole=True)
            if most is None:
                return _closest(sample, found)
            count = _misses(sample, found)
            if count < most or (closest is None and count == most):
                closest, most = found, count
            if not count:
                break
        elif right > half:
            best, half = replace(candidate, missed=len(sample) - right), right
    # Of programs that explain most of the file, too, the one that gives its bits: others leave room for what is wrong.
    return closest or (_closest(sample, best) if best and most is None else best)


def _explained(sample: Sample, found: Fit, more_than: int = 0) -> int:
    return sample.explained(found.program, found.weights, found.doubts, more_than)


def _misses(sample: Sample, found: Fit) -> int:
    return sample.misses(found.program, found.weights)


def _long_last(candidates: Iterator[Fit]) -> Iterator[Fit]:
    """Those after an SVD behind all others, which leave less open."""
    later = []
    for candidate in candidates:
        if candidate.program.long:
            later.append(candidate)
        else:
            yield candidate
    yield from later


def _is_long(sample: Sample, found: Fit, best: Fit | None) -> bool:
    """Whether an SVD is needed for most of the pieces: those that are explained without it, by the same program or by
    the best one so far, show none of its errors, and it leaves more open than they need."""
    if best is not None and not best.program.long:
        return False
    plain = replace(found, program=replace(found.program, long=False))
    return 2 * _explained(sample, plain) <= len(sample)


def _closest(sample: Sample, found: Fit, weights: tuple[float, ...] | None = None) -> Fit:
    """What gives clearly more of the bits, at the same weights or at the claimed ones, `weights`, if there is such: the
    file was made by that, and what it does not explain is no arithmetic. A program that leaves much open would else
    excuse what was added to a file of another one."""
    weights = weights or found.weights
    least = _misses(sample, found)
    if least <= _FLIPS * sample.elements:
        return found
    stored, numbers = sample.stored, sample.numbers(weights)
    usual = common(stored, numbers)
    chosen = None
    for program in usual if stored == torch.float32 or weights == found.weights else programs(stored, numbers):
        limit = least - _CLEARLY * math.sqrt(least)
        count = sample.misses(program, weights, limit)
        if count < limit:
            least, chosen = count, program
    if chosen is None:
        return found
    right = sample.explained(chosen, weights, (0.0,) * len(weights))
    doubts = found.doubts if weights == found.weights else (0.0,) * len(weights)
    return Fit(chosen, weights, doubts, whole=right == len(sample), missed=len(sample) - right)


def settle_again(
    subject: Subject, claim: Resolved, result: Scan, t: Thresholds, rows: Sequence[Piece], *, is_claimed: bool = True
) -> Subject | None:
    """After the pass: the subject by another program where some modules hold elements that the chosen one does not
    give; and, where elements lie outside in all modules alike, at other numbers within the tolerance of the claim. None
    if there is no such. rows: of all passes, those that did not fit what was tried then; what fits has to explain them.
    is_claimed: whether somebody said the weights, or they were recovered, and are known as far as factors tell.
    """
    if not subject.is_explained:
        return None
    kinds = subject.kinds.groups(subject.adapted)
    most = set(next(iter(kinds.values()), []))
    modules = [m for m in result.modules if m.name in most]
    wrong = [m for m in modules if m.outside and not m.nonfinite]
    if not wrong:
        return _others_again(subject, claim, result, list(kinds.items())[1:])
    some = Sample(list(pieces_of(subject)))
    found = estimate([m.looked.strata for m in result.modules], subject.weights)
    found = found if is_claimed else widened(found, some.pieces, subject.program, subject.weights)
    claimed = tuple(weight for _, weight in claim.parts.values())
    if not _near(found, claimed, t):
        return None
    own = [piece for piece in rows if piece.name in most]
    recovered = Recovered(found, subject.program)
    elsewhere = _is_spread(wrong, [m for m in modules if m.looked.flips])

    def exact(sample: Sample, *, whole: bool = False) -> Fit | None:
        hopeless = whole and not subject.unexplained.isdisjoint(list(kinds)[:1])
        options = iter([]) if hopeless else programs_at(sample, claimed, (0.0,) * len(claimed), recovered)
        first = at_typed_numbers(sample, claimed, recovered) if elsewhere else iter([])
        before = _misses(sample, Fit(subject.program, tuple(subject.weights), ()))
        in_halves = subject.program.grains(some.stored)[0] in HALVES
        spread = elsewhere or (in_halves and _is_turned(modules, turned(some, subject.program, subject.weights)))
        return fit(sample, itertools.chain(first, options), whole=whole, spread=spread, most=most_misses(before))

    # Exact numbers that explain all; else what rows in question alone say, where that is not against the others.
    every = Sample([*own, *some.pieces])
    fitted = exact(every, whole=True)
    # Weights that somebody typed are what they are: what lies outside in one place alone is no sign of others.
    guessed = tuple(subject.weights) != claimed if is_claimed else any(subject.doubts)
    if fitted is None and (guessed or _may_be_spread(wrong, modules)):
        fitted = at_sharpened(every, claimed, recovered, [subject.program])
    if fitted is None:
        fitted = exact(every.first(len(own)))
        if fitted and 2 * _explained(some, fitted) <= len(some):
            fitted = None
    if fitted is None and not is_claimed and subject.program.rounds_weight:
        # Of factors that were rounded at a weight near by, few elements are others: the weight is known to its doubt.
        fitted = fit(every, iter([Fit(subject.program, tuple(subject.weights), doubts_of(found))]))
        fitted = fitted if fitted and fitted.whole else None
    if fitted is None and elsewhere:
        fitted = fit(every, at_recovered(every, claimed, recovered))
    now = (subject.program, tuple(subject.weights), tuple(subject.doubts))
    if fitted is None or (fitted.program, fitted.weights, fitted.doubts) == now:
        return None
    return with_fit(subject, claim, fitted)


def pieces_in_question(subject: Subject, result: Scan, names: Container[str] | None = None) -> list[Piece]:
    """Rows with elements that the subject's programs do not give, of some modules; names: of these alone."""
    wrong = [m for m in result.modules if m.outside and not m.nonfinite and (names is None or m.name in names)]
    return [wrong_rows(subject, m) for m in wrong[:: max(1, len(wrong) // MODULES)][:MODULES]]


def _others_again(
    subject: Subject, claim: Resolved, result: Scan, kinds: Sequence[tuple[Kind, Sequence[str]]]
) -> Subject | None:
    """The subject with other programs for kinds of tensors of which the rest of the file shows that theirs is wrong."""
    weights, doubts = tuple(subject.weights), tuple(subject.doubts)
    programs = dict(subject.programs)
    for kind, names in kinds:
        # What no program of all gives in a sample, none gives in that and more.
        rows = [] if kind in subject.unexplained else pieces_in_question(subject, result, names)
        if not rows:
            continue
        sample = Sample([*rows, *pieces_of(subject, kind)])
        found = fit(sample, (o for o in programs_at(sample, weights, doubts) if o.weights == weights))
        if found and found.whole:
            programs[kind] = found.program
    if programs == subject.programs:
        return None
    return Subject(subject.merged, claim_at(claim, weights), subject.program, doubts, programs=programs)


def most_misses(before: int) -> float:
    """Elements of other bits that a better program may have, where another had so many."""
    return before + _CLEARLY * math.sqrt(before)


def _is_spread(wrong: Sequence[ModuleScan], modules: Sequence[ModuleScan]) -> bool:
    """Whether elements lie outside wherever they can: another weight shows in all modules alike, in so many of them as
    that number of elements falls into by chance. One element, or a few in one module, would else be excused by whatever
    weight happens to give them."""
    # Without the module that has most: a heavy tail falls where it likes.
    others = sorted(modules, key=lambda module: module.outside)[:-1]
    return len(wrong) > 1 and _are_many(wrong, others, modules)


def _may_be_spread(wrong: Sequence[ModuleScan], modules: Sequence[ModuleScan]) -> bool:
    """Whether so many elements might lie outside by chance in no more modules than these: one element might."""
    return _are_many(wrong, modules, modules)


def _are_many(wrong: Sequence[ModuleScan], rated: Sequence[ModuleScan], modules: Sequence[ModuleScan]) -> bool:
    """Whether at least half as many modules are wrong as elements fall into by chance, at the rate of some modules."""
    rate = sum(module.outside for module in rated) / max(1, sum(module.elements for module in rated))
    return 2 * len(wrong) >= sum(-math.expm1(-rate * module.elements) for module in modules)


def _is_turned(modules: Sequence[ModuleScan], share: float) -> bool:
    """Whether most modules hold more elements of other bits than the order of additions turns (share: of them all, as
    a rule), without the one that has most, too: an SVD errs everywhere, and seldom by so much that an element lies
    outside of what the plain sum may give. A further delta in one module would else be excused by it. In 16 bits: in
    single precision all orders of additions turn many."""
    most = [_TURNED * share * module.elements for module in modules]
    more = sorted(m.mismatches > n + _BY_CHANCE * math.sqrt(n) for m, n in zip(modules, most, strict=True))
    return 2 * sum(more[:-1]) > len(more) - 1 or (len(more) == 1 and more[0])


def _near(found: Estimate, claimed: Sequence[float], t: Thresholds) -> bool:
    """Whether recovered weights are the claimed ones within the tolerance, and precise enough to say so."""
    every = zip(found.weights, claimed, found.stderr, strict=True)
    return found.identifiable and all(math.isnan(w) or (same(w, c, e, t) and resolves(e, c, t)) for w, c, e in every)


def _cast(sample: Sample, weights: Sequence[float]) -> Program:
    """Where no program explains the file: the base's cast that comes closest."""
    halves = [h for h in HALVES if h == sample.stored or sample.on_grid(h)]
    misses = {p: sample.misses(p, weights) for p in (Program(), *map(Program, halves))}
    best = min(misses, key=lambda p: misses[p])
    return best if 2 * misses[best] < misses[Program()] else Program()
