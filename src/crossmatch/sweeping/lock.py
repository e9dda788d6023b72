"""One driver a directory: a lock that the system takes back when its process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crossmatch.errors import OutputError

LOCK = "driver.lock"


@contextmanager
def sole_driver(directory: Path) -> Iterator[None]:
    """Hold a directory while the block runs. Raises OutputError if another process drives a sweep in it."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise OutputError(
                f"{directory}: another driver (process {owner}) works in this directory; wait, or choose another output"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
