"""Cells done in this process, one after the other."""

from collections.abc import Iterator
from typing import Any

from crossmatch.errors import CrossmatchError
from crossmatch.executors.protocol import Outcome, Start, Worker


class LocalExecutor:
    """The worker is started when the first cell is done, and kept."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._worker: Worker | None = None
        self._waiting: dict[str, Any] = {}

    def submit(self, key: str, cell: Any) -> None:
        """Have a cell done by the next `collect`."""
        self._waiting.setdefault(key, cell)

    def collect(self) -> Iterator[Outcome]:
        """Do what waits, in order."""
        while self._waiting:
            key = next(iter(self._waiting))
            cell = self._waiting.pop(key)
            self._worker = self._worker or self._start()
            try:
                self._worker.answer(cell)
            except CrossmatchError as error:
                yield Outcome(key, error)
            else:
                yield Outcome(key)

    def cancel(self) -> None:
        """Forget what waits, and let the worker go."""
        self._waiting.clear()
        if self._worker is not None:
            self._worker.close()
            self._worker = None
