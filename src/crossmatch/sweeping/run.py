"""A sweep from its recipe to its result: search with halving, confirmation, recommendation."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmatch.evaluation.shards.answer_logs import AnswerLogs
from crossmatch.evaluation.shards.worker import Workplace
from crossmatch.export.results import SweepFacts, Tabled
from crossmatch.export.table import Table
from crossmatch.result_kinds import SWEEP_SECONDS
from crossmatch.runtime import SILENT, Progress
from crossmatch.sweeping.board import Board
from crossmatch.sweeping.conclusion import conclude
from crossmatch.sweeping.driver import Driver
from crossmatch.sweeping.facts import Searched, facts_of
from crossmatch.sweeping.lock import sole_driver
from crossmatch.sweeping.methods import Learnt, Method, open_method
from crossmatch.sweeping.outputs import TIMES, write_outputs
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.prediction import open_scores
from crossmatch.sweeping.prepare import Prepared, claim_directory, prepare, resolved
from crossmatch.sweeping.race import Dropped, race, values_of
from crossmatch.sweeping.recipe import SweepRecipe, load_sweep, parse_sweep
from crossmatch.sweeping.repair import Swept, repair
from crossmatch.sweeping.repair_facts import with_repair
from crossmatch.sweeping.space import Point

ANSWERS = "answers"


@dataclass(frozen=True)
class SweepResult(Tabled):
    """What a sweep left: its directory, the facts of `sweep.json`, and the sentence that recommends."""

    out: Path
    facts: dict[str, Any]

    @property
    def sentence(self) -> str:
        """The recommendation."""
        return self.facts["recommendation"]["sentence"]

    def tables(self) -> dict[str, Table]:
        """Points, the confirmation, and what could have been predicted."""
        return SweepFacts(self.facts).tables()

    def __repr__(self) -> str:
        return f"SweepResult({self.sentence})"


def sweep(
    study: SweepRecipe | Mapping[str, Any] | str | Path, out: str | Path | None = None, *, progress: Progress = SILENT
) -> SweepResult:
    """Search merge weights and recommend a merge, or the reference adapter.

    study: a recipe, its values, or its YAML file; out: the directory (None: `runs/<name>`). The same call after an
    interruption goes on and asks nothing twice. Raises OutputError if the directory is of another sweep, or another
    process works in it; RecipeError, InputError and DataError for what cannot be searched.
    """
    if isinstance(study, str | Path):
        study = load_sweep(study)
    recipe = study if isinstance(study, SweepRecipe) else parse_sweep(study, "sweep")
    where = Path(out) if out is not None else Path("runs") / recipe.name
    prepared = prepare(recipe)
    started = time.monotonic()
    with sole_driver(where):
        study_facts = resolved(prepared)
        claim_directory(where, study_facts)
        board = open_board(prepared, where / ANSWERS)
        scores = open_scores(prepared.source.base, prepared.source.adapters, recipe.sft)
        driver = Driver(board, recipe, workplace_of(prepared, where / ANSWERS), where, progress)
        try:
            found = search(prepared, board, driver, open_method(recipe, prepared.space, where, scores))
            conclusion = conclude(
                board, found.finished, prepared.parts.search, prepared.parts.confirmation, recipe.finalists, driver.ask
            )
            compared = [*found.always, *_controls(prepared, [one.point for one in conclusion.finalists])]
            if conclusion.finalists:
                driver.ask(_distinct(compared), prepared.parts.confirmation)
            facts = facts_of(prepared, board, found, conclusion, study_facts, scores)
            write_outputs(facts, where)
            if recipe.repair is not False:
                swept = Swept(prepared, board, found, conclusion)
                facts = with_repair(facts, swept, repair(swept, recipe.repair, driver, where, progress))
                write_outputs(facts, where)
        finally:
            driver.close()
        seconds = round(time.monotonic() - started, 1)
        SWEEP_SECONDS.replace(where / TIMES, {"schema_version": 1, "seconds": seconds, "asked_seconds": driver.seconds})
    return SweepResult(where, facts)


def open_board(prepared: Prepared, answers: Path) -> Board:
    """What a directory of answers holds for a sweep."""
    logs = AnswerLogs(answers)
    logs.refresh()
    return Board(prepared.source, prepared.wanted, logs, prepared.recipe.shard)


def workplace_of(prepared: Prepared, answers: Path) -> Workplace:
    """What the workers of a sweep are started from."""
    source = prepared.source
    adapters = {name: str(adapter.path) for name, adapter in source.adapters.items()}
    return Workplace(str(source.base.path), adapters, source.plan, answers)


def search(prepared: Prepared, board: Board, driver: Driver, method: Method) -> Searched:
    """Try points, batch by batch, each through all rungs against those that have finished.

    Base and adapters come first and are asked everything; so are the scale-matched controls of points that finish.
    """
    always, whole = prepared.space.always, prepared.parts.search
    driver.ask(always, whole)
    finished = {point.name: point for point in always}
    dropped: dict[str, Dropped] = {}
    tried: dict[str, Point] = dict(finished)

    def run(points: list[Point]) -> None:
        new = [point for point in points if point.name not in tried]
        tried.update({point.name: point for point in new})
        found = race(board, new, list(finished.values()), prepared.rungs, driver.ask)
        finished.update({point.name: point for point in found.finished})
        dropped.update({one.point.name: one for one in found.dropped})
        controls = _controls(prepared, list(found.finished))
        driver.ask([point for point in controls if point.name not in finished], whole)
        for point in controls:
            tried.setdefault(point.name, point)
            finished.setdefault(point.name, point)
            dropped.pop(point.name, None)

    for batch in method.known():
        run(batch)
    while points := method.propose():
        run(points)
        method.learn({p.name: _learnt(board, p, dropped.get(p.name), whole) for p in points})
    return Searched(tuple(tried.values()), tuple(finished.values()), tuple(dropped.values()), tuple(always))


def _learnt(board: Board, point: Point, dropped: Dropped | None, whole: Part) -> Learnt:
    """Gains on the items that a point was asked: paired, so that it does not matter which these were."""
    part = dropped.part if dropped else whole
    # What was not asked since the goals had decided is no violation.
    kept = board.kept(point, part)
    violations = [one.violation if part.ids[one.constraint.measure.suite] else 0.0 for one in kept]
    return Learnt(values_of(board, point, part), violations)


def _controls(prepared: Prepared, points: list[Point]) -> list[Point]:
    found = [prepared.space.control_of(point) for point in points]
    return _distinct([point for point in found if point is not None])


def _distinct(points: list[Point]) -> list[Point]:
    return list({point.name: point for point in points}.values())
