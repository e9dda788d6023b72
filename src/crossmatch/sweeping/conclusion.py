"""From a finished search to a recommendation: finalists, their confirmation on unseen items, and what may be said."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.stats import norm

from crossmatch.statistics.estimates import Difference
from crossmatch.statistics.resampling import LEVEL
from crossmatch.sweeping.board import Board
from crossmatch.sweeping.goals import Kept, all_hold
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.race import pareto, values_of
from crossmatch.sweeping.space import Point

_Z = float(norm.ppf((1 + LEVEL) / 2))


@dataclass(frozen=True)
class Confirmed:
    """A finalist on the confirmation part.

    gains: over the reference by goal, with 95% intervals; together: the same with intervals that hold for all
    finalists and goals at once; kept: its constraints there.
    """

    point: Point
    gains: tuple[Difference | None, ...]
    together: tuple[tuple[float, float] | None, ...]
    kept: tuple[Kept, ...]

    @property
    def better(self) -> bool:
        """Whether it is surely better than the reference in a goal, and surely worse in none."""
        known = [bounds for bounds in self.together if bounds is not None]
        return any(low > 0 for low, _ in known) and not any(high < 0 for _, high in known)

    @property
    def worse(self) -> bool:
        """Whether it is surely worse than the reference in a goal, and surely better in none."""
        known = [bounds for bounds in self.together if bounds is not None]
        return any(high < 0 for _, high in known) and not any(low > 0 for low, _ in known)

    @property
    def stands(self) -> bool:
        """Whether it may be recommended: better, and all constraints are kept."""
        return self.better and all_hold(self.kept)


@dataclass(frozen=True)
class Conclusion:
    """What a search comes to.

    ranked: points that keep all constraints on the search part, the best first; front: of these and the reference,
    those that none other is ahead of; knee: of the front, the point that is nearest to the best of all goals (None:
    one goal); finalists: as confirmed; recommended: one of them, or the reference; finished: points that were asked
    all search items, the reference among them.
    """

    ranked: tuple[Point, ...]
    front: tuple[Point, ...]
    knee: Point | None
    finalists: tuple[Confirmed, ...]
    recommended: Point
    finished: int


def conclude(
    board: Board,
    finished: Sequence[Point],
    search: Part,
    confirmation: Part,
    count: int,
    ask: Callable[[Sequence[Point], Part], None],
) -> Conclusion:
    """Choose finalists on the search part, ask them the confirmation part once, and recommend.

    Recommended is the first finalist, in the order of the search, that is surely better than the reference on items
    that no trial has seen, with intervals that hold for all finalists together (Bonferroni), and keeps every
    constraint there; else the reference itself.
    """
    reference = board.wanted.reference
    kept = [p for p in finished if p.name != reference.name and all_hold(board.kept(p, search))]
    values = {p.name: values_of(board, p, search) for p in [*kept, reference]}
    front = pareto([*kept, reference], lambda point: values[point.name])
    knee = nearest_to_best(front, values) if len(board.wanted.goals) > 1 else None
    ranked = sorted(kept, key=lambda point: _rank(point, front, values), reverse=True)
    chosen = ranked[:count]
    if chosen:
        ask([*chosen, reference], confirmation)
    confirmed = tuple(_confirm(board, point, confirmation, len(chosen)) for point in chosen)
    recommended = next((found.point for found in confirmed if found.stands), reference)
    return Conclusion(tuple(ranked), tuple(front), knee, confirmed, recommended, len(finished))


def _rank(point: Point, front: Sequence[Point], values: dict[str, tuple[float, ...]]) -> tuple[float, ...]:
    """What points are ordered by: the gain; of several goals, the front first, and there the nearest to the best."""
    own = values[point.name]
    if len(own) == 1:
        return own
    return float(point in front), -_distances(list(front), values, point)


def _confirm(board: Board, point: Point, part: Part, count: int) -> Confirmed:
    goals = board.wanted.goals
    gains = tuple(board.gain(point, goal, part) for goal in goals)
    together = tuple(bounds_together(gain, count * len(goals)) for gain in gains)
    return Confirmed(point, gains, together, tuple(board.kept(point, part)))


def bounds_together(gain: Difference | None, count: int) -> tuple[float, float] | None:
    """A difference's interval, widened until so many of them hold at once (Bonferroni)."""
    if gain is None:
        return None
    wider = float(norm.ppf(1 - (1 - LEVEL) / 2 / count)) / _Z
    return gain.value + wider * (gain.low - gain.value), gain.value + wider * (gain.high - gain.value)


def nearest_to_best(front: Sequence[Point], values: dict[str, tuple[float, ...]]) -> Point:
    """The knee: the point of a front that is nearest to the best value of every goal, each scaled to its range."""
    return min(front, key=lambda point: _distances(front, values, point))


def _distances(front: Sequence[Point], values: dict[str, tuple[float, ...]], point: Point) -> float:
    columns = list(zip(*(values[p.name] for p in front), strict=True))
    away = [
        (max(column) - own) / (max(column) - min(column)) if max(column) > min(column) else 0.0
        for column, own in zip(columns, values[point.name], strict=True)
    ]
    return math.hypot(*away)
