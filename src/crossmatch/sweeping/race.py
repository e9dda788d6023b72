"""Successive halving over items: few items first, more only for points that may still win."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossmatch.sweeping.board import Board
from crossmatch.sweeping.goals import all_hold
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.space import Point


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


def race(
    board: Board,
    points: Sequence[Point],
    leaders: Sequence[Point],
    rungs: Sequence[Part],
    ask: Callable[[Sequence[Point], Part], None],
) -> Race:
    """Ask points the items of one rung after the other, and drop after each (but the last) those that cannot win.

    leaders: points that have been asked everything, against which these run too. A point is dropped if it surely
    breaks a constraint, or if some other point that keeps all of them is better in every goal, the 95% interval of the
    paired difference lying above zero.
    """
    alive, dropped = list(points), []
    for rung in rungs:
        ask(alive, rung)
        if rung is rungs[-1]:
            break
        kept = {point.name: board.kept(point, rung) for point in [*leaders, *alive]}
        rivals = [p for p in {p.name: p for p in [*leaders, *alive]}.values() if all_hold(kept[p.name])]
        staying = []
        for point in alive:
            broken = next((one for one in kept[point.name] if one.broken), None)
            if broken is not None:
                dropped.append(Dropped(point, rung, f"breaks {broken.constraint.text}"))
                continue
            better = next((rival for rival in _best(board, rivals, rung) if _beats(board, rival, point, rung)), None)
            if better is not None:
                dropped.append(Dropped(point, rung, f"behind {better.name}"))
                continue
            staying.append(point)
        alive = staying
    return Race(tuple(alive), tuple(dropped))


def _beats(board: Board, rival: Point, point: Point, rung: Part) -> bool:
    """Whether a rival is surely better in every goal."""
    if rival.name == point.name:
        return False
    gains = [board.gain(rival, goal, rung, point) for goal in board.wanted.goals]
    return all(gain is not None and gain.low > 0 for gain in gains)


def _best(board: Board, rivals: Sequence[Point], rung: Part) -> list[Point]:
    """The rivals that no other one is ahead of in every goal, the best first."""
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
