"""What is known of every point: answers joined from all workers, and the figures and differences that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from crossmatch.adapter import Recorded
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.suites import Suite
from crossmatch.errors import DataError
from crossmatch.evaluation.comparison.paired import difference, figure
from crossmatch.evaluation.conditions import Cell, Plan
from crossmatch.evaluation.metrics.metrics import Measured, measure
from crossmatch.evaluation.runner.requests import records_of
from crossmatch.evaluation.runner.runner import cell_digest, shared_inputs
from crossmatch.evaluation.shards.answer_logs import AnswerLogs
from crossmatch.evaluation.shards.elsewhere import pieces
from crossmatch.evaluation.shards.worker import Asking, Shard, of_items, unanswered
from crossmatch.results.record import RecordJson
from crossmatch.statistics.estimates import Difference, Figure
from crossmatch.sweeping.goals import Constraint, Kept
from crossmatch.sweeping.metrics import OPENINGS, Measure
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.space import Point


@dataclass(frozen=True)
class Wanted:
    """What decides: goals, constraints, and the names of points that these compare with."""

    goals: tuple[Measure, ...]
    constraints: tuple[Constraint, ...]
    named: Mapping[str, Point]
    reference: Point

    @property
    def measures(self) -> list[Measure]:
        """All that decides, each once."""
        return list(dict.fromkeys([*self.goals, *(one.measure for one in self.constraints)]))


@dataclass(frozen=True)
class Source:
    """Of what questions are asked."""

    base: Checkpoint
    adapters: Mapping[str, Recorded]
    suites: Mapping[str, Suite]
    plan: Plan


class Board:
    """Answers and figures of points. Figures are of the items of a part that is named; each is made once."""

    def __init__(self, source: Source, wanted: Wanted, logs: AnswerLogs, shard: int) -> None:
        self.source, self.wanted, self.logs = source, wanted, logs
        self._shard = shard
        self.asking = Asking(source.base, source.adapters)
        self._measured: dict[tuple[str, str, tuple[str, ...]], Measured] = {}
        self._sheets: dict[tuple[str, str], str] = {}
        self._figures: dict[Any, Figure] = {}
        self._differences: dict[Any, Difference | None] = {}
        self._opened = {m.suite for m in wanted.measures if m.metric in OPENINGS}

    @cached_property
    def _shared(self) -> list[object]:
        return shared_inputs(self.source.base, self.source.adapters, self.source.plan)

    def cell(self, point: Point, suite: str) -> Cell:
        """All of a suite, asked of a point."""
        found = self.source.suites[suite]
        scored = found.settings.kind in ("choice", "text") or suite in self._opened
        return Cell(point.variant, found, point.condition, scored)

    def sheet(self, point: Point, suite: str) -> str:
        """Digest of all that decides the answers of a cell."""
        key = point.name, suite
        if key not in self._sheets:
            cell = self.cell(point, suite)
            model = cell.variant.digest(self.source.base, self.source.adapters)
            self._sheets[key] = cell_digest(cell, model, self._shared)
        return self._sheets[key]

    def open_shards(self, points: Sequence[Point], part: Part) -> list[Shard]:
        """What nobody has answered yet, in pieces, a point after the other."""
        found = []
        for point in points:
            for suite, ids in part.ids.items():
                if not ids:
                    continue
                cell, digest = self.cell(point, suite), self.sheet(point, suite)
                questions = self.asking.questions(of_items(cell.suite, ids), cell.condition, cell.scored)
                missing = unanswered(questions, self.logs.sheet(digest))
                found += pieces(cell, digest, missing, self._shard)
        return found

    def measured(self, point: Point, suite: str, ids: tuple[str, ...]) -> Measured:
        """Item statistics of a point's answers to these items."""
        key = point.name, suite, ids
        if key not in self._measured:
            cell = self.cell(point, suite)
            some = of_items(cell.suite, ids)
            questions = self.asking.questions(some, cell.condition, cell.scored)
            records = records_of(questions, self.logs.sheet(self.sheet(point, suite)))
            self._measured[key] = measure(cast(list[RecordJson], records), some)
        return self._measured[key]

    def figure(self, point: Point, measure: Measure, part: Part) -> Figure:
        """A metric of a point on the items of a part. Raises DataError, with the point, for scores without numbers."""
        key = point.name, measure, part.ids[measure.suite]
        if not part.ids[measure.suite]:
            return Figure(None, None, None, 0)
        if key in self._figures:
            return self._figures[key]
        found = self.measured(point, measure.suite, part.ids[measure.suite])
        try:
            made = figure(measure.metric, found) if measure.metric in found else Figure(None, None, None, 0)
            return self._figures.setdefault(key, made)
        except DataError as error:
            raise DataError(f"point {point.name}, {measure.name}: {error}; narrow the space") from error

    def difference(self, point: Point, other: Point, measure: Measure, part: Part) -> Difference | None:
        """point - other, paired over the items of a part; None where there is none."""
        ids = part.ids[measure.suite]
        if not ids:
            return None
        key = point.name, other.name, measure, ids
        if key not in self._differences:
            mine, theirs = (self.measured(one, measure.suite, ids) for one in (point, other))
            known = measure.metric in mine and measure.metric in theirs
            self._differences[key] = difference(measure.metric, mine, theirs) if known else None
        return self._differences[key]

    def gain(self, point: Point, measure: Measure, part: Part, other: Point | None = None) -> Difference | None:
        """By how much a point is better than another (None: the reference)."""
        found = self.difference(point, other or self.wanted.reference, measure, part)
        return found if found is None or measure.higher else _turned(found)

    def kept(self, point: Point, part: Part, whole: Part | None = None) -> list[Kept]:
        """How a point stands to every constraint; whole: what will be asked, where that is more."""
        return [self.judged(constraint, point, part, whole) for constraint in self.wanted.constraints]

    def judged(self, constraint: Constraint, point: Point, part: Part, whole: Part | None = None) -> Kept:
        """The same of one constraint."""
        measure, share = constraint.measure, part.share_of(whole, constraint.measure.suite)
        if constraint.than is None:
            return constraint.judge(self.figure(point, measure, part), share)
        other = self.wanted.named[constraint.than]
        return constraint.judge(self.difference(point, other, measure, part), share)


def _turned(found: Difference) -> Difference:
    """The same as a gain where less is better."""
    return Difference(
        -found.value, -found.high, -found.low, found.n, found.p, found.test, found.lost, found.gained, found.mde
    )
