"""A pool of processes that is only started where there is more than one piece of work."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from types import TracebackType
from typing import Self, TypeVar

from crossmatch.errors import CrossmatchError

T = TypeVar("T")
_AHEAD = 2


class Workers:
    """`map` over processes, in order, with a bounded number of pieces under way; use in a `with` block."""

    def __init__(self, processes: int) -> None:
        self.processes = max(processes, 1)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[..., T], jobs: Iterable[tuple[object, ...]]) -> Iterator[T]:
        """Results of function(*job), in the order of the jobs.

        Raises what the function raises, and CrossmatchError if the system ends a process.
        """
        rest = iter(jobs)
        first = list(islice(rest, 2))
        if self.processes == 1 or (len(first) < 2 and self._pool is None):
            for job in chain(first, rest):
                yield function(*job)
            return
        if self._pool is None:
            # Not forked: a progress bar has a thread, which may hold a lock at that moment.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.processes, mp_context=context, initializer=_ignore_interrupts)
        under_way: deque[Future[T]] = deque()
        try:
            for job in chain(first, rest):
                under_way.append(self._pool.submit(function, *job))
                if len(under_way) > _AHEAD * self.processes:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise CrossmatchError(
                "a process of the audit was ended by the system, as a rule for lack of memory; free some, "
                "or use fewer processes"
            ) from error


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that was started; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
