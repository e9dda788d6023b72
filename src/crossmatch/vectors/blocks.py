"""Work in blocks of rows, on all cores, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from crossmatch.process import cores

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def single_threads() -> Iterator[None]:
    """One thread for each operation: blocks are the unit of parallel work, inside one threads would only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results of `work` on every item, computed by all cores, in the items' order, a few ahead."""
    workers = cores()
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, "vectors") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
