"""The halving: what decides is asked first, the rest of those alone that may still win, and the winner stays."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crossmatch.statistics.estimates import Difference
from crossmatch.statistics.resampling import paired_difference
from crossmatch.sweeping.goals import Constraint, Kept, early
from crossmatch.sweeping.metrics import Measure
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.race import Dropped, Race, race, rungs_of

GOAL, GUARD = Measure("know", "rougeL", higher=True), Measure("form", "rougeL", higher=True)
KEEP = Constraint("form not below sft", GUARD, "not below", "sft", 0.0, sure=False)


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


class Answers:
    """A board of known numbers, which counts what is asked and gives no figure of anything else."""

    def __init__(
        self, scores: Mapping[str, Mapping[str, np.ndarray]], goals: Sequence[Measure], keep: Constraint
    ) -> None:
        self.scores, self.keep, self.asked = scores, keep, {}
        self.wanted = type("Wanted", (), {"goals": tuple(goals)})

    def ask(self, points: Sequence[Any], part: Part) -> None:
        for point in points:
            for suite, ids in part.ids.items():
                self.asked.setdefault((point.name, suite), set()).update(ids)

    def gain(self, point: Any, measure: Measure, part: Part, other: Any = None) -> Difference | None:
        ids, names = part.ids[measure.suite], (point.name, other.name if other else "sft")
        if not ids:
            return None
        assert all(set(ids) <= self.asked[name, measure.suite] for name in names)
        rows, others = (self.scores[name][measure.suite][[int(i) for i in ids], None] for name in names)
        return paired_difference(rows, others)

    def kept(self, point: Any, part: Part, whole: Part | None = None) -> list[Kept]:
        measure = self.keep.measure
        return [self.keep.judge(self.gain(point, measure, part), part.share_of(whole, measure.suite))]

    @property
    def questions(self) -> int:
        return sum(map(len, self.asked.values()))


def run(
    scores: Mapping[str, Mapping[str, np.ndarray]], shares: Sequence[float], goals: Sequence[Measure] = (GOAL,)
) -> tuple[Race, Answers]:
    board: Any = Answers(scores, goals, KEEP)
    sizes = {suite: len(rows) for suite, rows in scores["sft"].items()}
    search = Part("search", {suite: tuple(map(str, range(n))) for suite, n in sizes.items()})
    leader, points = Named("sft"), [Named(name) for name in scores if name != "sft"]
    board.ask([leader], search)
    rungs = rungs_of(search, shares, {goal.suite for goal in goals})
    found = race(board, points, [leader], rungs, board.ask)  # pyright: ignore[reportArgumentType]
    return found, board


def world(seed: int = 0, points: int = 20, know: int = 10, form: int = 60) -> dict[str, dict[str, np.ndarray]]:
    """Points of rising skill, the two best of which lose the form; `sft` is the reference."""
    rng = np.random.default_rng(seed)
    ease = {"know": rng.normal(0.4, 0.2, know), "form": rng.normal(0.5, 0.2, form)}
    made = {"sft": {name: rows + rng.normal(0, 0.02, len(rows)) for name, rows in ease.items()}}
    for place in range(points):
        lost = 0.2 if place >= points - 2 else 0.0
        made[f"p{place}"] = {
            "know": ease["know"] + 0.02 * place + rng.normal(0, 0.02, know),
            "form": ease["form"] - lost + rng.normal(0, 0.1, form),
        }
    return made


def winner(found: Race, board: Answers) -> str:
    whole = Part("search", {suite: tuple(map(str, range(len(rows)))) for suite, rows in board.scores["sft"].items()})
    holding = [p for p in found.finished if all(one.holds for one in board.kept(p, whole))]
    values = {point.name: board.scores[point.name]["know"].mean() for point in holding}
    return max(values, key=lambda name: values[name])


@pytest.mark.parametrize("seed", range(5))
def test_the_winner_stays_and_half_of_the_questions_are_saved(seed: int) -> None:
    scores = world(seed)
    (whole, all_asked), (halved, asked) = run(scores, ()), run(scores, (0.25, 0.5))
    assert len(whole.finished) == 20
    assert not whole.dropped
    assert winner(whole, all_asked) == winner(halved, asked)
    assert asked.questions <= all_asked.questions / 2


def test_the_rest_is_asked_of_those_alone_that_may_win() -> None:
    found, board = run(world(), (0.25, 0.5))
    reasons = {one.point.name: one.reason for one in found.dropped}
    assert {reasons["p19"], reasons["p18"]} == {"breaks form not below sft"}
    assert "p17" in {point.name for point in found.finished}
    # The worst was asked what the goal is measured on, and nothing else; its record says so.
    worst = next(one for one in found.dropped if one.point.name == "p0")
    assert worst.reason.startswith("behind p1")
    assert (worst.part.ids["form"], len(worst.part.ids["know"])) == ((), 10)
    assert not board.asked["p0", "form"]
    for one in found.dropped:
        known = {suite: board.asked.get((one.point.name, suite), set()) for suite in one.part.ids}
        assert known == {suite: set(ids) for suite, ids in one.part.ids.items()}


def test_a_goal_with_many_items_is_asked_by_shares() -> None:
    scores = world(know=60, form=10)
    search = Part("search", {"know": tuple(map(str, range(60))), "form": tuple(map(str, range(10)))})
    rungs = rungs_of(search, (0.25, 0.5), {"know"})
    assert [(rung.goals.items, rung.whole.items) for rung in rungs] == [(15, 21), (30, 36), (60, 70)]
    found, _ = run(scores, (0.25, 0.5))
    assert any(len(one.part.ids["know"]) < 60 for one in found.dropped)


def test_with_two_goals_a_point_is_dropped_only_behind_in_both() -> None:
    found, board = run(world(), (0.25, 0.5), (GOAL, GUARD))
    for one in found.dropped:
        if one.reason.startswith("behind "):
            rival = one.reason.removeprefix("behind ")
            gains = [board.gain(Named(rival), goal, one.part, one.point) for goal in (GOAL, GUARD)]
            assert all(gain is not None and gain.low > 0 for gain in gains)


def test_nothing_is_dropped_behind_a_point_that_breaks_a_constraint() -> None:
    found, _ = run(world(), (0.5,))
    behind = {one.reason for one in found.dropped if one.reason.startswith("behind ")}
    assert not behind & {"behind p18", "behind p19"}
    assert all(isinstance(one, Dropped) for one in found.dropped)


def test_what_was_dropped_behind_a_point_that_fails_later_runs_again() -> None:
    """The best keeps the form on the first items and loses it on the others."""
    rng, scores = np.random.default_rng(7), world()
    for name in ("p18", "p19"):
        form = scores["sft"]["form"] + rng.normal(0, 0.1, 60)
        form[18:] -= 0.4
        scores[name]["form"] = form
    found, board = run(scores, (0.2, 0.3))
    reasons = {one.point.name: one.reason for one in found.dropped}
    assert not any(reason.startswith(("behind p18", "behind p19")) for reason in reasons.values())
    whole, every = run(scores, ())
    assert winner(found, board) == winner(whole, every) == "p17"
    # Each point is in one place alone.
    names = [p.name for p in found.finished] + list(reasons)
    assert sorted(names) == sorted(name for name in scores if name != "sft")


def test_an_early_look_asks_for_more() -> None:
    difference = Difference(-2.0, -3.0, -0.5, 20, 0.01, "", None, None, None)
    judged = [KEEP.judge(replace(difference, value=-0.02, low=-0.03, high=-0.005), share) for share in (1.0, 0.25)]
    assert [one.broken for one in judged] == [True, False]
    assert [one.holds for one in judged] == [False, False]
    assert early(-2.0, -0.5, 0.25) == 1.0
    assert early(3.0, 1.0, 1.0) == 1.0


def test_looks_before_the_end_drop_few_that_are_as_good() -> None:
    """Of points that are no worse than the reference; an interval of 95% at each look would drop several times as many."""
    rng, early_ones, plain = np.random.default_rng(1), 0, 0
    for _ in range(200):
        form = rng.normal(0.5, 0.2, 60)
        other = form + rng.normal(0, 0.1, 60)
        looks = [(paired_difference(other[:n, None], form[:n, None]), n / 60) for n in (15, 30)]
        early_ones += any(KEEP.judge(found, share).broken for found, share in looks)
        plain += any(KEEP.judge(found).broken for found, _ in looks)
    assert early_ones <= 3 < plain
