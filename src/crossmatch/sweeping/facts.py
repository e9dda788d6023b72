"""The result of a sweep as plain JSON: recommendation, points with figures, front, confirmation, what was saved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.analysis.interference.weight_scores import WeightScores
from crossmatch.checkpoint import value_digest
from crossmatch.results.figures import DifferenceJson
from crossmatch.statistics.estimates import Difference
from crossmatch.sweeping.board import Board
from crossmatch.sweeping.conclusion import Conclusion, Confirmed
from crossmatch.sweeping.goals import all_hold, holding
from crossmatch.sweeping.maps import map_of
from crossmatch.sweeping.metrics import Measure, default_measure
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.prediction import predicted
from crossmatch.sweeping.prepare import Prepared
from crossmatch.sweeping.race import Dropped
from crossmatch.sweeping.sentences import recommendation_of
from crossmatch.sweeping.space import Point

Json = dict[str, Any]
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Searched:
    """What a search did: points in the order in which they were tried, those that were asked everything, those that
    were dropped, and those that are always there."""

    tried: tuple[Point, ...]
    finished: tuple[Point, ...]
    dropped: tuple[Dropped, ...]
    always: tuple[Point, ...]


def shown_measures(prepared: Prepared) -> list[Measure]:
    """Goals, what constraints are of, and what stands for every suite."""
    defaults = [default_measure(suite) for suite in prepared.source.suites.values()]
    return list(dict.fromkeys([*prepared.wanted.measures, *(one for one in defaults if one)]))


def facts_of(
    prepared: Prepared,
    board: Board,
    found: Searched,
    conclusion: Conclusion,
    study: Json,
    scores: WeightScores | None,
) -> Json:
    """All of `sweep.json`. The same answers give the same facts, wherever they were given."""
    numbers = {point.name: number for number, point in enumerate(found.tried, 1)}
    dropped = {one.point.name: one for one in found.dropped}
    measures, parts = shown_measures(prepared), prepared.parts
    confirmed = {one.point.name: one for one in conclusion.finalists}
    points = []
    for point in found.tried:
        drop = dropped.get(point.name)
        part = drop.part if drop else parts.search
        points.append(
            {
                "number": numbers[point.name],
                **point.to_json(),
                "items": part.items,
                "dropped": drop.reason if drop else None,
                "search": figures_of(board, point, measures, part),
                "constraints": [kept.to_json() for kept in board.kept(point, part)],
                "holds": holding(board.kept(point, part)),
            }
        )
    asked_later = _asked_later(prepared, found, conclusion)
    facts: Json = {
        "schema_version": SCHEMA_VERSION,
        "name": prepared.recipe.name,
        "study": study,
        "reference": prepared.wanted.reference.name,
        "goals": [goal.to_json() for goal in prepared.wanted.goals],
        "measures": [measure.to_json() for measure in measures],
        "parts": {
            part.name: {n: len(ids) for n, ids in part.ids.items()} for part in (parts.search, parts.confirmation)
        },
        "points": points,
        "front": [numbers[point.name] for point in conclusion.front],
        "knee": numbers[conclusion.knee.name] if conclusion.knee else None,
        "ranked": [numbers[point.name] for point in conclusion.ranked],
        "confirmation": {
            "points": [
                {
                    "number": numbers[p.name],
                    "name": p.name,
                    "figures": figures_of(board, p, measures, parts.confirmation),
                }
                for p in asked_later
            ],
            "finalists": [_finalist(one, numbers, prepared, board) for one in conclusion.finalists],
        },
        "questions": questions_of(found, prepared),
        "prediction": predicted(scores, points, prepared.wanted.goals[0].name),
        "map": map_of(points, study["space"], prepared.wanted.goals[0].to_json()),
    }
    facts["recommendation"] = _recommendation(prepared, board, conclusion, confirmed, numbers, len(found.tried))
    return {**facts, "digest": value_digest(facts)}


def _asked_later(prepared: Prepared, found: Searched, conclusion: Conclusion) -> list[Point]:
    """Points that were asked the confirmation part: finalists, their controls, base and adapters."""
    if not conclusion.finalists:
        return []
    finalists = [one.point for one in conclusion.finalists]
    controls = [prepared.space.control_of(point) for point in finalists]
    every = [*finalists, *found.always, *(point for point in controls if point is not None)]
    return list({point.name: point for point in every}.values())


def figures_of(board: Board, point: Point, measures: Sequence[Measure], part: Part) -> Json:
    """`suite.metric` -> the figure, with the gain over the reference; in the stored unit."""
    found = {}
    for measure in measures:
        gain = board.gain(point, measure, part) if point.name != board.wanted.reference.name else None
        found[measure.name] = {**board.figure(point, measure, part).to_dict(), "gain": _difference(gain)}
    return found


def _difference(found: Difference | None) -> DifferenceJson | None:
    return found.to_dict() if found is not None else None


def _finalist(one: Confirmed, numbers: dict[str, int], prepared: Prepared, board: Board) -> Json:
    """A finalist: what the search claimed, what was confirmed, and by how much the search was too hopeful."""
    goals, search = prepared.wanted.goals, prepared.parts.search
    rows = []
    for goal, gain, bounds in zip(goals, one.gains, one.together, strict=True):
        claimed = board.gain(one.point, goal, search)
        optimism = claimed.value - gain.value if claimed is not None and gain is not None else None
        together = {"low": bounds[0], "high": bounds[1]} if bounds else None
        rows.append(
            {
                "goal": goal.name,
                "claimed": _difference(claimed),
                "confirmed": _difference(gain),
                "together": together,
                "optimism": optimism,
            }
        )
    control = prepared.space.control_of(one.point)
    confirmation = prepared.parts.confirmation
    over = [board.gain(one.point, goal, confirmation, control) for goal in goals] if control else None
    return {
        "number": numbers[one.point.name],
        "name": one.point.name,
        "gains": rows,
        "constraints": [kept.to_json() for kept in one.kept],
        "holds": all_hold(one.kept),
        "better": one.better,
        "control": control.name if control else None,
        "over_control": [_difference(gain) for gain in over] if over else None,
    }


def gains_over(prepared: Prepared, board: Board, point: Point, other: Point) -> dict[str, DifferenceJson | None]:
    """`suite.metric` -> by how much a point is better than another one on the confirmation part."""
    part = prepared.parts.confirmation
    return {m.name: _difference(board.gain(point, m, part, other)) for m in shown_measures(prepared)}


def _recommendation(
    prepared: Prepared,
    board: Board,
    conclusion: Conclusion,
    confirmed: dict[str, Confirmed],
    numbers: dict[str, int],
    tried: int,
) -> Json:
    point = conclusion.recommended
    others = {}
    if conclusion.finalists:
        for other in prepared.space.always:
            if other.name != point.name and other.condition == point.condition:
                others[other.name] = gains_over(prepared, board, point, other)
    said = recommendation_of(prepared, board, conclusion, confirmed.get(point.name), tried)
    return {
        "number": numbers[point.name],
        **point.to_json(),
        "confirmed": point.name in confirmed,
        **said,
        "against": others,
    }


def questions_of(found: Searched, prepared: Prepared) -> Json:
    """Items that candidates were asked in the search, and what all of them would have been."""
    whole = prepared.parts.search.items
    free = {point.name for point in found.always}
    asked = {point.name: whole for point in found.finished} | {d.point.name: d.part.items for d in found.dropped}
    candidates = [name for name in (point.name for point in found.tried) if name not in free]
    spent, every = sum(asked[name] for name in candidates), whole * len(candidates)
    saved = 1 - spent / every if every else 0.0
    return {"candidates": len(candidates), "asked": spent, "without_halving": every, "saved": saved}
