"""The cheapest change that mends a merge: foretold by gates, chosen on search items, confirmed once on unseen ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossmatch.adapter import fit
from crossmatch.analysis.weights.overlap import independent
from crossmatch.errors import CrossmatchError, InputError
from crossmatch.runtime import Progress
from crossmatch.sweeping.board import Board
from crossmatch.sweeping.changes import Change, changes_of, guests_of, weakened
from crossmatch.sweeping.conclusion import Conclusion
from crossmatch.sweeping.driver import Driver
from crossmatch.sweeping.facts import Searched, shown_measures
from crossmatch.sweeping.gates import Faulty, Foretold, foretell
from crossmatch.sweeping.goals import Constraint, Kept, all_hold, holding
from crossmatch.sweeping.prepare import Prepared
from crossmatch.sweeping.race import values_of
from crossmatch.sweeping.space import Point

# Changes that are asked the search items; merges that are looked at for one to repair.
ASKED, _LOOKED_AT = 6, 3


@dataclass(frozen=True)
class Swept:
    """A sweep that has come to its conclusion, and where it goes on asking."""

    prepared: Prepared
    board: Board
    found: Searched
    conclusion: Conclusion


@dataclass(frozen=True)
class Mending:
    """A change that keeps all constraints on the search items, of which merge, and its null: the whole adapter lowered
    until as much of its norm is left."""

    change: Change
    target: Point
    null: Point


@dataclass(frozen=True)
class Repair:
    """What was tried on a merge.

    target: the merge, None where none has a fault; constraints: what a repair must keep, the fault's first; changes:
    the smallest first; asked: of these the ones that were asked, in that order; foretold: by gates, or in words why it
    was not; chosen: the change that was asked the confirmation items, None where none mends.
    """

    target: Point | None
    constraints: tuple[Constraint, ...] = ()
    changes: tuple[Change, ...] = ()
    asked: tuple[Change, ...] = ()
    foretold: Foretold | str = ""
    chosen: Mending | None = None


def repair(swept: Swept, wanted: bool | int | str, driver: Driver, out: Path, progress: Progress) -> Repair:
    """Find a merge's fault, try what may mend it on the search items, and confirm the best once.

    wanted: a point's number or name; True: the recommended merge or, if that has no fault or is the reference, the best
    merge that breaks a constraint. Of the changes that keep all constraints the one with the best goal is chosen.
    Raises InputError for a point that does not exist, or without an adapter to lower.
    """
    board, parts = swept.board, swept.prepared.parts
    target, constraints = _faulty(swept, wanted, driver)
    if not constraints:
        return Repair(target)
    assert target is not None
    source, reference = swept.prepared.source, swept.prepared.recipe.sft
    fitted = fit(source.base, dict(source.adapters)).vectors
    vectors = {name: independent(vector) for name, vector in fitted.items()}
    changes = changes_of(target, reference, vectors, swept.prepared.space.calibration)
    merge = Faulty(target, tuple(guests_of(target, reference)), constraints[0].measure)
    try:
        # Its model is a second one: the one that answers makes room.
        foretold = foretell(source, merge, parts.search, out, driver.make_room, progress)
    except CrossmatchError as error:
        progress.say(f"note: the repair is not foretold by gates: {error}; the smallest changes are asked")
        foretold = str(error)
    asked = first_of(changes, target, foretold)
    driver.ask([change.point for change in asked], parts.search)
    mending = [c for c in asked if all_hold([board.judged(one, c.point, parts.search) for one in constraints])]
    chosen = None
    if mending:
        best = max(mending, key=lambda c: (values_of(board, c.point, parts.search), c.kept))
        chosen = Mending(best, target, weakened(best, target))
        others = [board.wanted.named[one.than] for one in constraints if one.than is not None]
        compared = _distinct([best.point, target, chosen.null, board.wanted.reference, *others])
        driver.ask(compared, parts.confirmation)
    return Repair(target, constraints, tuple(changes), tuple(asked), foretold, chosen)


def first_of(changes: Sequence[Change], target: Point, foretold: Foretold | str) -> list[Change]:
    """Changes that are asked, in their order: those of which gates say nothing and, of the others, those that lower the
    target most; without gates the smallest."""
    if isinstance(foretold, str):
        return list(changes[:ASKED])
    moves = {change.point.name: foretold.change(target, change) for change in changes}
    unknown = [change for change in changes if moves[change.point.name] is None]
    known = [change for change in changes if moves[change.point.name] is not None]
    known.sort(key=lambda change: moves[change.point.name] or 0.0)
    taken = {change.point.name for change in [*unknown, *known][:ASKED]}
    return [change for change in changes if change.point.name in taken]


def faults_of(swept: Swept, point: Point) -> list[Kept]:
    """Constraints that a point does not keep on the search items or, if it keeps all, its sure losses to the reference
    in any measure that is shown."""
    search, reference = swept.prepared.parts.search, swept.prepared.recipe.sft
    broken = [kept for kept in swept.board.kept(point, search) if not kept.holds]
    if broken:
        return broken
    implied = []
    for measure in shown_measures(swept.prepared):
        relation = "not below" if measure.higher else "not above"
        title = measure.name
        implied.append(Constraint(f"{title} {relation} {reference}", measure, relation, reference, 0.0, sure=False))
    judged = [swept.board.judged(one, point, search) for one in implied]
    return [kept for kept in judged if kept.broken]


def _faulty(swept: Swept, wanted: bool | int | str, driver: Driver) -> tuple[Point | None, tuple[Constraint, ...]]:
    """The merge to repair, and what a repair must keep; nothing of the latter where it has no fault."""
    first = None
    for point in _candidates(swept, wanted):
        driver.ask([point], swept.prepared.parts.search)
        faults = [kept.constraint for kept in faults_of(swept, point)]
        if faults:
            others = [one for one in swept.board.wanted.constraints if one not in faults]
            return point, (*faults, *others)
        first = first or point
    return first, ()


def _candidates(swept: Swept, wanted: bool | int | str) -> list[Point]:
    """Merges that may be repaired, the first choice first: the recommended one, those that break a constraint (of them
    only what is better in the goal, where a merge is recommended), the best that breaks none."""
    board, search, reference = swept.board, swept.prepared.parts.search, swept.prepared.recipe.sft
    if wanted is not True:
        return [_named(swept, wanted)]
    dropped = {one.point.name: one.part for one in swept.found.dropped}
    merges = [p for p in swept.found.tried if p.kind == "merge" and guests_of(p, reference)]
    parts = {p.name: dropped.get(p.name, search) for p in merges}
    values = {p.name: values_of(board, p, parts[p.name]) for p in merges}
    broken = [p for p in merges if holding(board.kept(p, parts[p.name])) is False]
    broken.sort(key=lambda point: values[point.name], reverse=True)
    recommended, first = swept.conclusion.recommended, []
    if recommended.name in values:
        first, broken = [recommended], [p for p in broken if values[p.name] > values[recommended.name]]
    best = [point for point in swept.conclusion.ranked if point.name in values]
    return _distinct([*first, *broken[:_LOOKED_AT], *best[:1]])


def _named(swept: Swept, wanted: int | str) -> Point:
    tried = swept.found.tried
    number = {point.name: number for number, point in enumerate(tried, 1)}.get(str(wanted), wanted)
    if not isinstance(number, int) or not 1 <= number <= len(tried):
        raise InputError(f"--repair {wanted}: there are points 1 to {len(tried)}; points.csv lists them with names")
    point, reference = tried[number - 1], swept.prepared.recipe.sft
    if not guests_of(point, reference):
        raise InputError(f"--repair {wanted}: {point.name} has no adapter but {reference}; choose a merge with another")
    return point


def _distinct(points: Sequence[Point]) -> list[Point]:
    return list({point.name: point for point in points}.values())
