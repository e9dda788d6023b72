"""The process: its cores and memory, and what a program of ours sets up once, before the heavy libraries are loaded.

The heap: a step on CPU allocates and frees a few hundred MB (the logits alone 200 MB for 1,000 tokens of a vocabulary
of 49,152). glibc serves such blocks by mmap and gives them back at once, and the kernel clears the pages anew in every
step: a third of the time of a step went there (LOG.md has the numbers).
"""

import ctypes
import gc
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def cores() -> int:
    """Cores that this process may use, where the system tells, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def single_threads() -> Iterator[None]:
    """One thread for each operation of torch: where tensors or blocks of rows are the unit of parallel work, threads
    inside one would only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """A pool with a thread for each core, with `single_threads` within; what is not begun at its end is given up."""
    with single_threads():
        pool = ThreadPoolExecutor(cores(), "crossmatch")
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: what the machine has left or, where that is less, what its control
    group (a container's limit) leaves; None where the system does not tell. root: where the system's files lie."""
    lines = _read(root / "proc/meminfo").splitlines()
    found = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    # A process of a container sees its own group at the top, others find theirs by name; the tightest of all counts.
    names = [line.split(":", 2)[1:] for line in _read(root / "proc/self/cgroup").splitlines() if line.count(":") >= 2]
    for kinds, name in names:
        if kinds and "memory" not in kinds.split(","):
            continue
        top = root / ("sys/fs/cgroup/memory" if kinds else "sys/fs/cgroup")
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        group = top / name.lstrip("/")
        for directory in {top, group, *(p for p in group.parents if p.is_relative_to(top))}:
            limit, used = (_read(directory / file).strip() for file in files)
            if limit.isdigit() and used.isdigit():
                found.append(max(0, int(limit) - int(used)))
    return min(found) if found else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def keep_heap() -> bool:
    """Tell glibc to keep freed memory for this process; False where there is no glibc. For programs, not libraries.

    What is loaded already stays loaded: Python's collector need not look through it again and again.
    """
    gc.freeze()
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26))
    # All three are set, whatever one of them answers.
    return sum(mallopt(key, value) for key, value in settings) == len(settings)


def quiet_libraries() -> None:
    """Keep the libraries' own bars and notices off the terminal: progress is shown once, by us.

    By environment variables, so that nothing is imported; they are read when the libraries are, so this comes first.
    What the user has set stays.
    """
    for name, value in {
        "TQDM_DISABLE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_VERBOSITY": "error",
        "TRL_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")


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
