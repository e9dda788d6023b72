"""Where a command's directory goes: to a place on this machine, or to the hub."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HUB = "hub:"


@contextmanager
def destination(output: str) -> Iterator[tuple[Path, Callable[[], str]]]:
    """The directory to write, and what to call when it is there: it gives the name under which it can be found.

    `hub:ORG/NAME` is written to a temporary directory and then uploaded, in one commit.
    """
    if not output.startswith(HUB):
        yield Path(output), lambda: output
        return
    from crossmatch.checkpoint import upload

    with tempfile.TemporaryDirectory(prefix="crossmatch-") as scratch:
        folder = Path(scratch) / "output"

        def publish() -> str:
            source = upload(folder, output.removeprefix(HUB))
            return f"{source.hub_id}@{source.revision}"

        yield folder, publish
