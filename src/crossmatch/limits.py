"""Limits of CPU, memory and dumps that a child process sets itself before it reads what nobody vouches for."""

import resource
from pathlib import Path


def confine(cpu: int, memory: int | None = None) -> None:
    """At most so many seconds of CPU and bytes of address space (None: as many as there are), and no core dump."""
    _limit(resource.RLIMIT_CPU, cpu)
    _limit(resource.RLIMIT_CORE, 0)
    if memory is not None:
        _limit(resource.RLIMIT_AS, memory)


def confine_further(cpu: int, memory: int) -> None:
    """At most so many seconds and bytes on top of what the process has used: after libraries were loaded, whose share
    differs between machines."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    confine(int(used.ru_utime + used.ru_stime) + cpu, _address_space() + memory)


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 1 << 38


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(what, (most, most))
    except (ValueError, OSError):
        # A system without this limit; the parent watches the time, too.
        return
