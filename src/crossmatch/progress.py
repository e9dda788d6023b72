"""How long work tells that it goes on: one protocol, and the silent default.

Rooms receive a `Progress` and never know whether a terminal, a log or nobody listens.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Add `amount` units to what is done; `note` replaces the text beside the bar."""
        ...


class Progress(Protocol):
    """Where work announces itself."""

    def task(self, label: str, total: float | None = None) -> AbstractContextManager[Task]:
        """Open a task of `total` units (None: unknown) for a `with` block."""
        ...

    def say(self, line: str) -> None:
        """Show one line of text."""
        ...


class _Quiet:
    def advance(self, amount: float = 1.0, note: str = "") -> None:
        del amount, note


QUIET: Task = _Quiet()


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Task]:
        """Nothing is shown."""
        del label, total
        yield QUIET

    def say(self, line: str) -> None:
        """Nothing is shown."""
        del line


SILENT = Silent()
