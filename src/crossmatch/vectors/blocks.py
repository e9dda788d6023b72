"""Work in blocks of rows, on all cores, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from crossmatch.process import cores, workers

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results of `work` on every item, computed by all cores, in the items' order, a few ahead."""
    pending: deque[Future[R]] = deque()
    with workers() as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * cores():
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
