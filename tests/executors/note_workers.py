"""Workers for the tests of executors, in a file of their own: every process that does cells imports it, and it loads
nothing heavy."""

import os
import signal
from pathlib import Path

from crossmatch.errors import DataError


class Notes:
    """A worker that writes a line for each cell, with its process; a cell may kill it the first time, or fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answer(self, cell: str) -> None:
        if cell == "bad":
            raise DataError("suite x, line 3: no")
        once = self.folder / f"{cell}.once"
        if cell.startswith("kill") and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if cell.startswith("always"):
            os.kill(os.getpid(), signal.SIGKILL)
        with (self.folder / f"{os.getpid()}.notes").open("a") as notes:
            notes.write(cell + "\n")

    def close(self) -> None:
        pass


class Starting:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> Notes:
        return Notes(self.folder)
