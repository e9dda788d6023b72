"""What the terminal sees: results on stdout, everything else on stderr, bars only for people."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from crossmatch.report.text import duration, printable
from crossmatch.runtime import Task

if TYPE_CHECKING:
    from crossmatch.result_kinds import Kind

T = TypeVar("T")


class Settings:
    """Set once by the options before the command."""

    quiet = False
    debug = False


def emit(kind: "Kind[T]", value: T) -> None:
    """One JSON document of a kind on stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    kind.check(text)
    print_json(text)


def print_json(text: str) -> None:
    """JSON on stdout; characters that a terminal would obey are escaped, as JSON allows."""
    print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def say(line: str) -> None:
    """One line for people, on stderr."""
    if not Settings.quiet:
        print(printable(line), file=sys.stderr, flush=True)


class Terminal:
    """Progress for people: bars with time left on a terminal, one line a task elsewhere, nothing with --quiet."""

    @contextmanager
    def task(self, label: str, total: float | None = None) -> Iterator[Task]:
        """A bar while the block runs; a line with its seconds when it took more than two."""
        started = time.monotonic()
        if Settings.quiet or not sys.stderr.isatty():
            yield _Lines(label, total)
        else:
            with _bar(label, total) as bar:
                yield bar
        seconds = time.monotonic() - started
        if seconds >= 2:
            say(f"{label}: {seconds:.0f} s")

    def say(self, line: str) -> None:
        """One line of text."""
        say(line)


class _Lines:
    """Where no terminal listens: a line about every half minute, so that a log shows life."""

    def __init__(self, label: str, total: float | None) -> None:
        self.label, self.total, self.done = label, total, 0.0
        self.started = self.last = time.monotonic()

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last < 30 or not self.total:
            return
        self.last = now
        share = self.done / self.total
        # Before one part in a hundred is done, what is left is anybody's guess.
        left = f", about {duration((now - self.started) * (1 - share) / share)} left" if share >= 0.01 else ""
        say(f"{self.label}: {share:.0%}{left} {note}".rstrip())


@contextmanager
def _bar(label: str, total: float | None) -> Iterator[Task]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    # The note gives way first when the terminal is narrow.
    note = TextColumn(
        "{task.fields[note]}", style="dim", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
    )
    columns = [SpinnerColumn(), TextColumn("{task.description}")]
    if total is not None:
        columns += [BarColumn(bar_width=18), TextColumn("{task.percentage:>3.0f}%")]
        columns += [TimeRemainingColumn(compact=True), TextColumn("left")]
    else:
        columns += [TimeElapsedColumn()]
    with Progress(*columns, note, console=Console(stderr=True), transient=True, expand=True) as progress:
        identifier = progress.add_task(label, total=total, note="")

        class Bar:
            def advance(self, amount: float = 1.0, note: str = "") -> None:
                if note:
                    progress.update(identifier, note=note)
                progress.advance(identifier, amount)

        yield Bar()
