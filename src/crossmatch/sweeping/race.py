"""Successive halving over items: few items first, more only for points that may still win."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from crossmatch.sweeping.board import Board
from crossmatch.sweeping.goals import all_hold, early
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.space import Point

# Points that are asked the rest at once: with one, a second machine would wait; those that the first already beats are
# asked for nothing.
_AHEAD = 4


@dataclass(frozen=True)
class Dropped:
    """A point that was asked no more: what it was asked, why, and the name of the point that it is behind."""

    point: Point
    part: Part
    reason: str
    rival: str | None = None


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
    constraint, or if a rival is better in every goal, the 95% interval of the paired difference lying above zero, wider
    before all items are asked (`early`). It runs again if that rival does not keep all constraints in the end.
    """
    if len(rungs) == 1:
        ask(points, rungs[0].whole)
        return Race(tuple(points), ())
    running, whole = _Running(board, rungs, ask), rungs[-1].whole
    left, finished, dropped = list(points), list[Point](), dict[str, Dropped]()
    rivals = [point for point in leaders if all_hold(board.kept(point, whole))]
    while left:
        through, lost = running.once(left, rivals)
        finished += through
        rivals += [point for point in through if all_hold(board.kept(point, whole))]
        for point in left:
            dropped.pop(point.name, None)
        dropped |= {one.point.name: one for one in lost}
        safe = {point.name for point in rivals}
        left = [one.point for one in dropped.values() if one.rival is not None and _last(dropped, one) not in safe]
    return Race(tuple(finished), tuple(dropped.values()))


def _last(dropped: Mapping[str, Dropped], one: Dropped) -> str | None:
    """Who is ahead of a point, or of whom that one was dropped behind, and so on; None: it broke a constraint."""
    ahead = one.rival
    while ahead is not None and ahead in dropped:
        ahead = dropped[ahead].rival
    return ahead


class _Running:
    """Points on their way through the rungs; `asked`: what each was asked so far."""

    def __init__(self, board: Board, rungs: Sequence[Rung], ask: Callable[[Sequence[Point], Part], None]) -> None:
        self.board, self.rungs, self._ask = board, rungs, ask
        self.asked: dict[str, Part] = {}

    def ask(self, points: Sequence[Point], part: Part) -> None:
        """Ask, and note it."""
        self._ask(points, part)
        for point in points:
            self.asked[point.name] = self.asked.get(point.name, part).joined(part)

    def once(self, points: Sequence[Point], leaders: Sequence[Point]) -> tuple[list[Point], list[Dropped]]:
        """Points that come through all rungs, and those that do not."""
        alive, dropped = list(points), list[Dropped]()
        for rung in self.rungs:
            last = rung is self.rungs[-1]
            self.ask(alive, rung.goals)
            alive, lost = (alive, []) if last else self._unbroken(alive, rung.goals)
            dropped += lost
            waiting, staying, rivals = _in_order(self.board, alive, rung.goals), list[Point](), list(leaders)
            while waiting:
                waiting, lost = self._in_front(waiting, rivals, rung.goals)
                dropped += lost
                batch, waiting = waiting[:_AHEAD], waiting[_AHEAD:]
                self.ask(batch, rung.whole)
                batch, lost = (batch, []) if last else self._unbroken(batch, rung.whole)
                dropped += lost
                staying += batch
                rivals += [point for point in batch if all_hold(self.board.kept(point, rung.whole))]
            alive, lost = (staying, []) if last else self._in_front(staying, rivals, rung.goals)
            dropped += lost
        return alive, dropped

    def _unbroken(self, points: Sequence[Point], part: Part) -> tuple[list[Point], list[Dropped]]:
        """Points that may keep all constraints, and those that surely break one."""
        staying, lost = list[Point](), list[Dropped]()
        for point in points:
            kept = self.board.kept(point, part, self.rungs[-1].whole)
            broken = next((one for one in kept if one.broken), None)
            if broken is None:
                staying.append(point)
            else:
                lost.append(Dropped(point, self.asked[point.name], f"breaks {broken.constraint.text}"))
        return staying, lost

    def _in_front(
        self, points: Sequence[Point], rivals: Sequence[Point], part: Part
    ) -> tuple[list[Point], list[Dropped]]:
        """Points that may still win, and those that a rival is surely ahead of."""
        best, staying, lost = _best(self.board, rivals, part), list[Point](), list[Dropped]()
        for point in points:
            ahead = next((rival for rival in best if self._beats(rival, point, part)), None)
            if ahead is None:
                staying.append(point)
            else:
                lost.append(Dropped(point, self.asked[point.name], f"behind {ahead.name}", ahead.name))
        return staying, lost

    def _beats(self, rival: Point, point: Point, part: Part) -> bool:
        """Whether a rival is surely better in every goal."""
        if rival.name == point.name:
            return False
        for goal in self.board.wanted.goals:
            gain, share = self.board.gain(rival, goal, part, point), part.share_of(self.rungs[-1].whole, goal.suite)
            if gain is None or early(gain.value, gain.low, share) <= 0:
                return False
        return True


def _in_order(board: Board, points: Sequence[Point], part: Part) -> list[Point]:
    """The best first: front after front, each by the first goal."""
    if len(board.wanted.goals) == 1:
        return sorted(points, key=lambda point: values_of(board, point, part), reverse=True)
    left, found = list(points), []
    while left:
        front = _best(board, left, part)
        found += front
        names = {point.name for point in front}
        left = [point for point in left if point.name not in names]
    return found


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
    best = max(of.values(), default=())
    if len(best) == 1:
        # Of a thousand points, a million comparisons less.
        return [point for point in points if of[point.name] == best]

    def behind(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return other != one and all(b >= a for a, b in zip(one, other, strict=True))

    return [point for point in points if not any(behind(of[point.name], other) for other in of.values())]
