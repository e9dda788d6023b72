"""Answers of several workers in one directory: each appends to a file of its own, and all files are read as one.

A line is `[sheet, part, item, fields]`: the digest of all that decides the answers (`cell_digest`), what was asked, of
which item, and what was found. A killed process leaves a torn line at the most, which nobody reads. What two workers
answered is taken once, from the file that comes first by name.
"""

import json
import os
import socket
import uuid
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from crossmatch.errors import OutputError
from crossmatch.evaluation.record import Record

_Places = dict[tuple[str, str], Record]


class AnswerLogs:
    """What all files of a directory hold, and a file for what this process adds.

    `read` counts lines that were taken; nothing is written until something is added.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._read_to: dict[Path, int] = {}
        self._sheets: dict[str, _Places] = defaultdict(dict)
        self._own: IO[str] | None = None
        self._own_path = directory / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"

    def refresh(self) -> None:
        """Take in what others have added since."""
        for file in sorted(self.directory.glob("*.jsonl")):
            if file == self._own_path:
                continue
            with file.open("rb") as lines:
                lines.seek(self._read_to.get(file, 0))
                for line in lines:
                    # The last line may be under way, or torn for ever.
                    if not line.endswith(b"\n"):
                        break
                    self._read_to[file] = self._read_to.get(file, 0) + len(line)
                    sheet, part, item, fields = json.loads(line)
                    self._sheets[sheet].setdefault((part, item), fields)

    def sheet(self, digest: str) -> "LoggedAnswers":
        """The answers of one variant to one suite under one condition."""
        return LoggedAnswers(self, digest, self._sheets[digest])

    def append(self, line: Sequence[Any]) -> None:
        """Keep one line, at once. Raises OutputError if the disk does not take it."""
        try:
            if self._own is None:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._own = self._own_path.open("w", encoding="utf-8")
            self._own.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._own.flush()
        except OSError as error:
            raise OutputError(
                f"{self._own_path} cannot be written: {error.strerror or error}; earlier answers are kept: make room "
                "and run the same command to resume"
            ) from error

    def close(self) -> None:
        """Let go of this process's file."""
        if self._own is not None:
            # Only a line that a full disk did not take, of which `append` has told, can be left to be written.
            with suppress(OSError):
                self._own.close()
            self._own = None


class LoggedAnswers:
    """The answers of one sheet, as `crossmatch.evaluation.runner.answer_log.Answers`."""

    def __init__(self, logs: AnswerLogs, digest: str, known: _Places) -> None:
        self._logs, self._digest, self._known = logs, digest, known

    def missing(self, part: str, keys: Sequence[str]) -> list[int]:
        """Places of the keys of which this part is not there yet."""
        return [place for place, key in enumerate(keys) if (part, key) not in self._known]

    def add(self, part: str, key: str, fields: Record) -> None:
        """Keep one part of an answer."""
        self._logs.append([self._digest, part, key, fields])
        self._known[part, key] = fields

    def get(self, part: str, key: str) -> Record:
        """A part that is there."""
        return self._known[part, key]
