"""The interface of an executor: submit a cell, collect, cancel."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from crossmatch.errors import CrossmatchError


class Worker(Protocol):
    """What does the work, once it has been started where the work is done. It keeps its results itself."""

    def answer(self, cell: Any) -> None:
        """Do one cell. What another worker has left of it is not done again."""
        ...

    def close(self) -> None:
        """Let go of what it holds open."""
        ...


Start = Callable[[], Worker]
"""Starts a worker; it can be pickled."""


@dataclass(frozen=True)
class Outcome:
    """A cell that ended: its key, and the error of a user's inputs that ended it (None: it is done)."""

    key: str
    error: CrossmatchError | None = None


class Executor(Protocol):
    """Where cells are done. A cell is anything that can be pickled; its key is its content's digest."""

    def submit(self, key: str, cell: Any) -> None:
        """Have a cell done. One that waits already under this key is not done twice."""
        ...

    def collect(self) -> Iterator[Outcome]:
        """Outcomes of all that was submitted, as they come. Raises ExecutorError when workers are lost too often."""
        ...

    def cancel(self) -> None:
        """Give up what has not begun, and let the workers go."""
        ...
