"""Where the result of a merge goes, to a place on this machine or to the hub, and what is said of it."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crossmatch.console import say
from crossmatch.errors import OutputError

if TYPE_CHECKING:
    from crossmatch.merging import MergePlan

HUB = "hub:"


@contextmanager
def destination(output: str, key: Path | None = None) -> Iterator[tuple[Path, Callable[[], str]]]:
    """The directory to write, and what to call when it is there: it gives the name under which it can be found.

    `hub:ORG/NAME` is written to a temporary directory and then uploaded, in one commit. key: to sign the files with.
    """
    from crossmatch.checkpoint import check_key, sign, upload

    if key is not None:
        check_key(key)

    def signed(where: Path) -> str:
        if key is not None:
            sign(where, key)
        return str(where)

    if not output.startswith(HUB):
        yield Path(output), lambda: signed(Path(output))
        return

    scratch = Path(tempfile.mkdtemp(prefix="crossmatch-"))
    folder = scratch / "output"

    def publish() -> str:
        signed(folder)
        try:
            source = upload(folder, output.removeprefix(HUB))
        except OutputError as error:
            raise OutputError(f"{error}; the result is kept in {folder}") from error
        shutil.rmtree(scratch)
        return f"{source.hub_id}@{source.revision}"

    try:
        yield folder, publish
    finally:
        if not folder.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def say_notes(plan: "MergePlan", tokenizer: str | None) -> None:
    """What adapters lack that may be partial, and what is left out of the files beside the weights."""
    from crossmatch.merging import side_files

    for name, lacks in plan.lacking.items():
        say(f"warning: adapter {name} is partial, as allowed: {'; '.join(lacks)}")
    for line in side_files(plan, tokenizer).lines:
        say(f"note: {line}")
