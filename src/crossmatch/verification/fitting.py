"""Which program made a file, and at which weights: from a few rows of a few modules, before all of them are held
against it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from crossmatch.checkpoint import module_type_of
from crossmatch.delta import Delta, LowRank
from crossmatch.progress import Progress
from crossmatch.verification.arithmetic import Applied, rows_of
from crossmatch.verification.claim import Resolved
from crossmatch.verification.grammar import Program, common, programs
from crossmatch.verification.judge import Thresholds, resolves, same
from crossmatch.verification.look import check_readable, read_rows
from crossmatch.verification.recover import Estimate, Strata, estimate
from crossmatch.verification.rounding import step
from crossmatch.verification.scan import ModuleScan, Scan, check_whole, glance
from crossmatch.verification.subject import Subject

# Modules and rows of each by which programs are told apart.
_MODULES, _ROWS, _COLUMNS = 8, 4, 512
# Denominators that people divide by, and digits that they type.
_DENOMINATOR, _DIGITS = 12, 4
# Looks with found weights, and how little they may move to count as settled; modules for which all programs are tried.
_TURNS, _STAYS, _FULL = 3, 1e-3, 4
# Elements of a module of which another program than the file's may be the reason, where that rounds once.
_MANY = 16
# Share of the elements that the order of additions turns at most in 16 bits; standard deviations by which one program
# gives clearly more of the bits than another.
_FLIPS, _CLEARLY = 1e-3, 6.0
# Standard errors within which a weight lies.
_DOUBT = 4.5
_HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Piece:
    """A few rows of one tensor: M and W as they are stored, and the deltas at weight one."""

    name: str
    where: list[slice]
    stored: Tensor
    raw: Tensor
    parts: Mapping[int, Delta]
    _seen: dict[Any, bool] = field(default_factory=dict, repr=False)

    def holds(self, program: Program, weights: Sequence[float], doubts: Sequence[float]) -> bool:
        """Whether a program can have stored every element."""
        narrow = [d for d in (program.base, program.via) if d in _HALVES]
        if not all(map(self.on_grid, narrow)) or not self.possible(tuple(weights)):
            return False
        use = Applied.of(program, self.parts, weights, doubts, self.stored.dtype)
        return not bool(use.outside(self.stored, use.read(self.raw, self.where)).any())

    def on_grid(self, half: torch.dtype) -> bool:
        """Whether what is stored may have been rounded to that dtype: in a wider one, all lies on its grid."""
        if self.stored.dtype != torch.float32:
            return True
        if half not in self._seen:
            self._seen[half] = torch.equal(self.stored.to(half).float(), self.stored)
        return self._seen[half]

    def possible(self, weights: tuple[float, ...]) -> bool:
        """Whether any program can have stored every element: the coarsest rounds base, factors, deltas and every sum to
        bfloat16. So a thousand programs need not be tried on a file that none of them made."""
        if weights not in self._seen:
            none = [0.0] * len(weights)
            use = Applied.of(Program(), self.parts, weights, none, self.stored.dtype)
            some = use.read(self.raw, self.where)
            sizes = [x.abs() for x in some.shares.values()]
            products = [s.magnitude for s in use.shares.values() if s.magnitude is not None]
            sizes += [rows_of(delta, self.where, some.ours) for delta in products]
            moved = sum(sizes, some.ours.abs())
            coarsest = torch.bfloat16 if self.stored.dtype != torch.float32 or self.on_grid(torch.bfloat16) else None
            unit = step(moved, coarsest or (torch.float16 if self.on_grid(torch.float16) else self.stored.dtype))
            # Half a step for base, file, every sum and, by models, each model at its weight and what is multiplied.
            halves = 2 + sum(2 + 2 * max(1.0, abs(weights[i])) for i in use.shares)
            room = halves / 2 * unit + 2.0**-6 * sum(sizes, torch.zeros_like(moved))
            room = room + sum(_below_float16(d, self.where, weights[i]) for i, d in self.parts.items())
            self._seen[weights] = not bool(((self.stored.double() - use.exact(some)).abs() > room).any())
        return self._seen[weights]

    def misses(self, program: Program, weights: Sequence[float]) -> int:
        """Elements of other bits than the program's own."""
        use = Applied.of(program, self.parts, weights, [0.0] * len(weights), self.stored.dtype)
        return int((use.centre(use.read(self.raw, self.where)) != self.stored).sum())


def _below_float16(delta: Delta, where: Sequence[slice], weight: float) -> Tensor:
    """What float16 loses below its normal numbers, by 2^-25 in every factor and delta: (rows, columns)."""
    if not isinstance(delta, LowRank):
        return torch.zeros((), dtype=torch.float64)
    number = 1.0 + abs(weight) * float(delta.scale.abs().max())
    b, a = torch.cat([delta.b[s] for s in where]).double().abs(), delta.a.double().abs()
    return 2.0**-24 * number * (b.sum(1, keepdim=True) + a.sum(0, keepdim=True) + 3.0)


@dataclass(frozen=True)
class Fit:
    """A program at some weights, each known to its doubt; whole: whether it explains every piece; missed: how many it
    does not."""

    program: Program
    weights: tuple[float, ...]
    doubts: tuple[float, ...]
    whole: bool = False
    missed: int = 0


def settle(subject: Subject, claim: Resolved, t: Thresholds, progress: Progress, route: str | None = None) -> Subject:
    """The subject with the program by which the file was made, at the weights that are inside.

    These are the claim's; or, where no program gives the file at those and the recovered ones are the same within the
    tolerance, the recovered ones: people type fewer digits than they merge with. route: how it is said to be rounded.
    """
    if route == "stochastic":
        return Subject(subject.merged, claim, Program(order="stochastic"))
    pieces = list(_pieces(subject))
    if not pieces:
        return subject
    claimed = tuple(subject.weights)
    none = (0.0,) * len(claimed)
    found = fit(pieces, [Fit(Program(), claimed, none)]) or fit(pieces, _at(pieces, claimed, none))
    if found is None or found.missed > 1:
        recovered = recover(subject, progress)
        if _near(recovered, claimed, t):
            other = fit(pieces, _candidates(pieces, claimed, recovered))
            found = other if other and (found is None or other.whole) else found
    if found is None:
        return Subject(subject.merged, claim, _cast(pieces, claimed))
    return with_fit(subject, claim, found)


def with_fit(subject: Subject, claim: Resolved, found: Fit) -> Subject:
    """The subject at a fit's weights, made by its program."""
    parts = {n: (v, w) for (n, (v, _)), w in zip(claim.parts.items(), found.weights, strict=True)}
    return Subject(subject.merged, replace(claim, parts=parts), found.program, found.doubts)


def discover(subject: Subject, claim: Resolved, found: Estimate, t: Thresholds) -> Subject:
    """The subject at recovered weights, where nothing is claimed: at the shortest numbers that explain the file."""
    pieces = list(_pieces(subject))
    inside = tuple(0.0 if w != w or same(w, 0.0, e, t) else w for w, e in zip(found.weights, found.stderr, strict=True))
    kept = replace(found, weights=inside)
    fitted = fit(pieces, _candidates(pieces, inside, kept)) if pieces else None
    if fitted is None:
        nearest = tuple(shortest(w, e) if w else 0.0 for w, e in zip(inside, found.stderr, strict=True))
        fitted = Fit(_cast(pieces, nearest) if pieces else Program(), nearest, _doubts(kept))
    return with_fit(subject, claim, fitted)


def recover(subject: Subject, progress: Progress) -> Estimate:
    """Weights from some rows of every module; where a tensor's values all lie on a coarser grid, by that grid."""
    best = Estimate((), (), 0, math.nan, identifiable=False)
    stored = _stored(subject)
    coarser = [d for d in _HALVES if stored == torch.float32 or (d, stored) == _HALVES]
    for grid in (None, *[d for d in coarser if _on_grid(subject, d)][:1]):
        at = subject.weights
        for _ in range(_TURNS):
            near = Subject(subject.merged, _resolved(subject, at), Program(grid))
            found = estimate([x.strata for x in glance(near, progress)] or [Strata.empty(len(at))], at)
            best = found
            new = [a if math.isnan(w) else w for a, w in zip(at, found.weights, strict=True)]
            if not found.identifiable or math.dist(new, at) <= _STAYS * math.hypot(*new):
                break
            at = new
    return best


def fit(pieces: Sequence[Piece], candidates: "Iterator[Fit] | Sequence[Fit]") -> Fit | None:
    """The first candidate that explains every piece; else the one that explains the most, and more than half."""
    best, most = None, len(pieces) // 2
    for candidate in candidates:
        right = missed = 0
        for piece in pieces:
            if piece.holds(candidate.program, candidate.weights, candidate.doubts):
                right += 1
            else:
                missed += 1
            if missed >= len(pieces) - most:
                break
        if right == len(pieces):
            return _closest(pieces, replace(candidate, whole=True))
        if right > most:
            best, most = replace(candidate, missed=len(pieces) - right), right
    return best


def _closest(pieces: Sequence[Piece], found: Fit) -> Fit:
    """Of the usual programs that explain every piece, too, one that gives clearly more of the bits themselves: in
    single precision, what the order of additions leaves open may be wider than a rounding between two of them."""

    def missed(program: Program) -> int:
        return sum(p.misses(program, found.weights) for p in pieces)

    least, chosen = missed(found.program), found.program
    if least <= _FLIPS * sum(p.stored.numel() for p in pieces):
        return found
    numbers = sorted({i for p in pieces for i in p.parts if found.weights[i]})
    for program in common(pieces[0].stored.dtype, numbers):
        if all(p.holds(program, found.weights, found.doubts) for p in pieces):
            count = missed(program)
            if count < least - _CLEARLY * math.sqrt(least):
                least, chosen = count, program
    return replace(found, program=chosen)


def settle_again(subject: Subject, claim: Resolved, result: Scan, t: Thresholds, *, typed: bool) -> Subject | None:
    """After the pass: the subject at other numbers within the tolerance of the claim, where many modules hold a few
    elements that the claimed ones do not give; None if that is not so, or if there are none. typed: numbers as people
    type them first, else only the recovered ones as far as they are known."""
    wrong = [m for m in result.modules if m.outside and not m.nonfinite]
    if 10 * len(wrong) < len(result.modules) or not _is_spread(wrong):
        return None
    found = estimate([m.looked.strata for m in result.modules], subject.weights)
    claimed = tuple(weight for _, weight in claim.parts.values())
    if not _near(found, claimed, t):
        return None
    pieces = [_wrong_rows(subject, m) for m in wrong[:: max(1, len(wrong) // _MODULES)][:_MODULES]]
    fitted = fit([*_pieces(subject), *pieces], _candidates(pieces, claimed, found, typed=typed))
    if fitted is None or (fitted.weights == tuple(subject.weights) and fitted.program == subject.program):
        return None
    return with_fit(subject, claim, fitted)


def _is_spread(wrong: Sequence[ModuleScan]) -> bool:
    """Whether elements lie outside in more than one place: other arithmetic, or another weight, shows everywhere. One
    element, or a few in one module, would else be excused by whatever program happens to give them."""
    return len(wrong) > 1 or any(module.outside >= _MANY for module in wrong)


class Others:
    """Other programs than the file's for modules that it does not explain: all of the grammar for the first few, and
    what was found there for the others."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._found: list[Program] = []
        self._tried = 0

    def explain(self, module: ModuleScan) -> ModuleScan | None:
        """The module's scan by a program that explains all of it; None if there is none."""
        subject = self.subject
        if subject.program.once and module.outside < _MANY:
            return None
        piece = _wrong_rows(subject, module)
        weights, doubts = tuple(subject.weights), tuple(subject.doubts)
        options = [Fit(program, weights, doubts) for program in self._found]
        self._tried += 1
        if self._tried <= _FULL:
            options += [o for o in _at([piece], weights, doubts) if o.weights == weights]
        for option in options:
            if option.program != module.program and piece.holds(option.program, weights, doubts):
                whole = check_whole(subject, module.name, option.program)
                if not whole.outside:
                    if option.program not in self._found:
                        self._found.append(option.program)
                    return whole
        return None


def _wrong_rows(subject: Subject, module: ModuleScan) -> Piece:
    """A few rows of a module, those in question first."""
    claimed = subject.on(module.name)
    where = subject.places(module.name, claimed)[:2]
    rows = {r for s in where for r in range(s.start, min(s.stop, s.start + 2))} | set(module.bad or ())
    return _piece(subject, module.name, claimed.parts, [slice(r, r + 1) for r in sorted(rows)])


def _near(found: Estimate, claimed: Sequence[float], t: Thresholds) -> bool:
    """Whether recovered weights are the claimed ones within the tolerance, and precise enough to say so."""
    every = zip(found.weights, claimed, found.stderr, strict=True)
    return found.identifiable and all(math.isnan(w) or (same(w, c, e, t) and resolves(e, c, t)) for w, c, e in every)


def _resolved(subject: Subject, weights: Sequence[float]) -> Resolved:
    parts = dict(zip(subject.names, zip(subject.vectors, weights, strict=True), strict=True))
    return Resolved(subject.base, parts)


def _stored(subject: Subject) -> torch.dtype:
    return next((subject.merged.tensors[n].dtype for n in subject.adapted), torch.float32)


def _on_grid(subject: Subject, grid: torch.dtype) -> bool:
    """Whether what is stored wide is all of a narrower dtype's numbers, in the pieces."""
    return all(torch.equal(p.stored.to(grid).to(p.stored.dtype), p.stored) for p in _pieces(subject))


def _pieces(subject: Subject) -> Iterator[Piece]:
    """Rows of modules of every type, spread over the depth."""
    names, kinds = subject.adapted, {}
    for name in names:
        check_readable(name, subject.base.tensors[name].dtype, subject.merged.tensors[name].dtype)
        kinds.setdefault(module_type_of(name), []).append(name)
    groups = list(kinds.values())
    chosen = [group[(len(group) - 1) * n // max(1, len(groups) - 1)] for n, group in enumerate(groups)][:_MODULES]
    chosen += [n for n in names[:: max(1, len(names) // _MODULES)] if n not in chosen][: _MODULES - len(chosen)]
    for name in chosen:
        claimed = subject.on(name)
        places = subject.places(name, claimed)
        if places and places[0].stop - places[0].start > _ROWS:
            height = places[0].stop
            places = [slice(r, r + 1) for r in sorted({height * k // _ROWS for k in range(_ROWS)})]
        else:
            places = places[:: max(1, len(places) // _ROWS)][:_ROWS]
        if places:
            yield _piece(subject, name, claimed.parts, places)


def _piece(subject: Subject, name: str, parts: Mapping[int, Delta], where: list[slice]) -> Piece:
    """Those rows; of factors, cut to some columns, so that a thousand programs are tried in a second. These are columns
    with an element that the subject's own program does not give, as far as there are any."""
    columns = next(iter(parts.values())).columns
    stored, raw = (read_rows(side, name, where, columns) for side in (subject.merged, subject.base))
    low = {i: d for i, d in parts.items() if isinstance(d, LowRank)}
    if len(low) < len(parts) or columns <= _COLUMNS:
        return Piece(name, where, stored, raw, parts)
    use = Applied.of(subject.program, parts, subject.weights, subject.doubts, stored.dtype)
    wrong = use.outside(stored, use.read(raw, where)).any(0).nonzero().flatten()
    spread = torch.linspace(0, columns - 1, _COLUMNS // 2).long()
    chosen = torch.cat([spread, wrong[: _COLUMNS // 2]]).unique()
    cut = {i: LowRank(torch.cat([d.b[s] for s in where]), d.a[:, chosen], d.scale) for i, d in low.items()}
    return Piece(name, [slice(0, len(raw))], stored[:, chosen], raw[:, chosen], cut)


def _at(pieces: Sequence[Piece], weights: tuple[float, ...], doubts: tuple[float, ...]) -> Iterator[Fit]:
    """All programs at some weights; then the common ones with these rounded to 16 bits."""
    stored = pieces[0].stored.dtype
    numbers = sorted({i for p in pieces for i in p.parts if weights[i]})
    for program in programs(stored, numbers):
        yield Fit(program, weights, doubts)
    for half in _HALVES:
        coarse = tuple(float(torch.tensor(w, dtype=half)) for w in weights)
        if coarse != weights:
            yield from (Fit(p, coarse, doubts) for p in (Program(), *map(Program, _HALVES)))


def _candidates(
    pieces: Sequence[Piece], claimed: tuple[float, ...], found: Estimate, *, typed: bool = True
) -> Iterator[Fit]:
    """Numbers that people type, near the recovered ones; then these themselves, as far as they are known."""
    none = (0.0,) * len(claimed)
    known = [w if math.isnan(f) or not w else f for f, w in zip(found.weights, claimed, strict=True)]
    pairs = list(zip(known, found.stderr, strict=True))
    options = [
        tuple(_decimal(w, e) for w, e in pairs),
        tuple(_fraction(w, e) for w, e in pairs),
        tuple(_decimal(w, e, 3) for w, e in pairs),
    ]
    for weights in dict.fromkeys(options):
        if typed and None not in weights:
            yield from _at(pieces, weights, none)  # type: ignore[arg-type]
    yield from _at(pieces, tuple(known), _doubts(found))


def _doubts(found: Estimate) -> tuple[float, ...]:
    return tuple(
        0.0 if math.isnan(e) or not w else _DOUBT * e for w, e in zip(found.weights, found.stderr, strict=True)
    )


def _decimal(value: float, stderr: float, sigmas: float = _DOUBT, digits: int = _DIGITS) -> float | None:
    """The decimal of fewest digits within some standard errors; none of more than four."""
    return next((r for d in range(1, digits + 1) if abs((r := round(value, d)) - value) <= sigmas * stderr), None)


def _fraction(value: float, stderr: float) -> float | None:
    """The fraction of the smallest denominator within some standard errors."""
    for denominator in range(1, _DENOMINATOR + 1):
        near = Fraction(round(value * denominator), denominator)
        if abs(float(near) - value) <= _DOUBT * stderr:
            return float(near)
    return None


def shortest(value: float, stderr: float) -> float:
    """The decimal with the fewest digits within three standard errors; the value itself if there is none of six."""
    found = _decimal(value, stderr, 3, 6)
    return value if found is None else found


def _cast(pieces: Sequence[Piece], weights: tuple[float, ...]) -> Program:
    """Where no program explains the file: the base's cast that comes closest."""
    stored = pieces[0].stored.dtype
    halves = [h for h in _HALVES if h == stored or (stored == torch.float32 and all(p.on_grid(h) for p in pieces))]
    misses = {p: sum(piece.misses(p, weights) for piece in pieces) for p in (Program(), *map(Program, halves))}
    best = min(misses, key=lambda p: misses[p])
    return best if 2 * misses[best] < misses[Program()] else Program()
