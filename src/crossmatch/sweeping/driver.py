"""The driver: has cells answered where the executor does them, and joins what the workers have left."""

import gc
import time
from collections.abc import Sequence
from pathlib import Path

from crossmatch.evaluation.shards.elsewhere import have_answered
from crossmatch.executors import Executor, Start, open_executor, parse_executor
from crossmatch.runtime import Progress
from crossmatch.sweeping.board import Board
from crossmatch.sweeping.parts import Part
from crossmatch.sweeping.recipe import SweepRecipe
from crossmatch.sweeping.space import Point


class Driver:
    """Asks points the items of a part, wherever that is done; opened when something is to be asked first.

    seconds: that were spent waiting for answers.
    """

    def __init__(self, board: Board, recipe: SweepRecipe, start: Start, out: Path, progress: Progress) -> None:
        self._board, self._start, self._out, self._progress = board, start, out, progress
        self._options = parse_executor(recipe.executor)
        self._executor: Executor | None = None
        self.seconds = 0.0

    def ask(self, points: Sequence[Point], part: Part) -> None:
        """Have everything answered that is not yet. Raises the first error of a cell, when the others that run have
        ended: what they answered is kept."""
        self._board.logs.refresh()
        shards = self._board.open_shards(points, part)
        if not shards:
            return
        if self._executor is None:
            self._executor = open_executor(self._options, self._start, self._out / "jobs")
        label, started = f"{part.name}: {len(points)} points", time.monotonic()
        with self._progress.task(label, sum(len(shard.ids) for shard in shards)) as task:
            have_answered(self._executor, shards, task)
        self.seconds = round(self.seconds + time.monotonic() - started, 3)
        self._board.logs.refresh()

    def make_room(self) -> None:
        """Let go of a model that is held in this process: another one is about to be loaded."""
        if self._options.kind == "local":
            self.close()
            gc.collect()

    def close(self) -> None:
        """Let the workers go."""
        if self._executor is not None:
            self._executor.cancel()
            self._executor = None
