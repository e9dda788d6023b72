"""Successive halving over items: few items first, more only for points that may still win."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from crossmatch.sweeping.board import Board
from crossmatch.sweeping.goals import all_hold
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.space import Point

# Points that are asked the rest at once: with one, a second machine would wait; those that the first already beats are
# asked for nothing.
_AHEAD = 4


@dataclass(frozen=True)
class Dropped:
    """A point that was asked no more: after how many items, and why."""

    point: Point
    part: Part
    reason: str


@dataclass(frozen=True)
class Race:
    """Points that were asked all items, and those that were dropped on the way."""

    finished: tuple[Point, ...]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True)
class Rung:
    """A step of the halving. goals: items that every point left is asked first, which say who is ahead; whole: these
    and those of all other suites, for points that may still win."""

    goals: Part
    whole: Part


def rungs_of(search: Part, shares: Sequence[float], goals: Collection[str]) -> list[Rung]:
    """Steps of these shares of the search part, and all of it; goals: suites that goals are measured on.

    Where all of the goals' items are no more than a step asks of every suite together, that step asks them all: nothing
    says more about who is ahead for as few questions.
    """
    found = []
    for share in (*shares, 1.0):
        whole, all_goals = search.first(share), search.of(goals)
        if all_goals.items <= whole.items:
            whole = whole.joined(all_goals)
        found.append(Rung(whole.of(goals), whole))
    return found


def race(
    board: Board,
    points: Sequence[Point],
    leaders: Sequence[Point],
    rungs: Sequence[Rung],
    ask: Callable[[Sequence[Point], Part], None],
) -> Race:
    """Ask points the items of one rung after the other, and drop those that cannot win; with one rung, none.

    leaders: points that have been asked everything, against which these run too. At each rung all points are asked
    what the goals are measured on. Then, the best first, those are asked the rest that no rival is surely ahead of; a
    rival is a point that was asked the rest and keeps all constraints. A point is dropped if it surely breaks a
    constraint, or if a rival is better in every goal, the 95% interval of the paired difference lying above zero.
    """
    if len(rungs) == 1:
        ask(points, rungs[0].whole)
        return Race(tuple(points), ())
    alive, dropped, asked = list(points), [], None
    for rung in rungs:
        ask(alive, rung.goals)
        asked = rung.goals if asked is None else asked.joined(rung.goals)
        last = rung is rungs[-1]
        broken = {} if last else _broken(board, alive, rung.goals)
        dropped += [Dropped(point, asked, broken[point.name]) for point in alive if point.name in broken]
        rivals = [point for point in leaders if all_hold(board.kept(point, rung.whole))]
        waiting, staying = _in_order(board, [p for p in alive if p.name not in broken], rung.goals), []
        while waiting:
            waiting, lost = _apart(board, waiting, rivals, rung.goals)
            dropped += [Dropped(point, asked, reason) for point, reason in lost]
            batch, waiting = waiting[:_AHEAD], waiting[_AHEAD:]
            ask(batch, rung.whole)
            broken = {} if last else _broken(board, batch, rung.whole)
            dropped += [Dropped(point, rung.whole, broken[point.name]) for point in batch if point.name in broken]
            staying += [point for point in batch if point.name not in broken]
            rivals += [point for point in batch if all_hold(board.kept(point, rung.whole))]
        alive, asked = staying, rung.whole
        if not last:
            alive, lost = _apart(board, staying, rivals, rung.goals)
            dropped += [Dropped(point, asked, reason) for point, reason in lost]
    return Race(tuple(alive), tuple(dropped))


def _broken(board: Board, points: Sequence[Point], part: Part) -> dict[str, str]:
    """Point -> the constraint that it surely breaks, of points that break one."""
    found = {point.name: next((one for one in board.kept(point, part) if one.broken), None) for point in points}
    return {name: f"breaks {one.constraint.text}" for name, one in found.items() if one is not None}


def _apart(
    board: Board, points: Sequence[Point], rivals: Sequence[Point], part: Part
) -> tuple[list[Point], list[tuple[Point, str]]]:
    """Points that may still win, and those that a rival is surely ahead of, with the reason."""
    best, staying, lost = _best(board, rivals, part), [], []
    for point in points:
        ahead = next((rival for rival in best if _beats(board, rival, point, part)), None)
        if ahead is None:
            staying.append(point)
        else:
            lost.append((point, f"behind {ahead.name}"))
    return staying, lost


def _in_order(board: Board, points: Sequence[Point], part: Part) -> list[Point]:
    """The best first: front after front, each by the first goal."""
    left, found = list(points), []
    while left:
        front = _best(board, left, part)
        found += front
        names = {point.name for point in front}
        left = [point for point in left if point.name not in names]
    return found


def _beats(board: Board, rival: Point, point: Point, rung: Part) -> bool:
    """Whether a rival is surely better in every goal."""
    if rival.name == point.name:
        return False
    gains = [board.gain(rival, goal, rung, point) for goal in board.wanted.goals]
    return all(gain is not None and gain.low > 0 for gain in gains)


def _best(board: Board, rivals: Sequence[Point], rung: Part) -> list[Point]:
    """The points that no other one is ahead of in every goal, the best first."""
    front = pareto(rivals, lambda point: values_of(board, point, rung))
    return sorted(front, key=lambda point: values_of(board, point, rung), reverse=True)


def values_of(board: Board, point: Point, part: Part) -> tuple[float, ...]:
    """Gains over the reference by goal; of what is not known, nothing good."""
    gains = [board.gain(point, goal, part) for goal in board.wanted.goals]
    return tuple(gain.value if gain is not None else -float("inf") for gain in gains)


def pareto(points: Sequence[Point], values: Callable[[Point], tuple[float, ...]]) -> list[Point]:
    """Points of which no other one is as good in every value and better in one."""
    of = {point.name: values(point) for point in points}

    def behind(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return other != one and all(b >= a for a, b in zip(one, other, strict=True))

    return [point for point in points if not any(behind(of[point.name], other) for other in of.values())]
