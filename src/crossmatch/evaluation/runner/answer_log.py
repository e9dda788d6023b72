"""Answers on disk as they come: a kill loses what was not yet given back, no more."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from crossmatch.checkpoint import file_digest
from crossmatch.evaluation.record import Record
from crossmatch.result_kinds import RECORD
from crossmatch.results.record import RecordJson


class Answers(Protocol):
    """Parts of answers to one suite by part and item: what has been kept, and where more is put."""

    def missing(self, part: str, keys: Sequence[str]) -> list[int]:
        """Places of the keys of which this part is not there yet."""
        ...

    def add(self, part: str, key: str, fields: Record) -> None:
        """Keep one part of an answer."""
        ...

    def get(self, part: str, key: str) -> Record:
        """A part that is there."""
        ...


class Sheet:
    """The answers of one variant to one suite under one condition.

    While answers come, each part of one is a line of `<file>.part`, whose first line holds the digest of what produces
    them. `finish` writes the records to `file`, and the digests of inputs and file beside it. What was not answered
    (`failed`) is asked again the next time, and nothing else is.
    """

    def __init__(self, file: Path, digest: str) -> None:
        self.file, self.digest = file, digest
        self._open: IO[str] | None = None
        self._parts: dict[tuple[str, str], Record] = {}

    def finished(self) -> list[RecordJson] | None:
        """Records of a finished file that was made from the same inputs, else None."""
        stamp = self._stamp
        if not (self.file.exists() and stamp.exists()):
            return None
        if stamp.read_text().split() != [self.digest, file_digest(self.file)]:
            return None
        rows: list[RecordJson] = [
            json.loads(line) for line in self.file.read_text(encoding="utf-8").split("\n") if line
        ]
        return None if any("failed" in row for row in rows) else rows

    def __enter__(self) -> "Sheet":
        """Take up what an interrupted run has left of the same inputs."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        known = _read(self._unfinished, self.digest)
        self._parts = {place: fields for place, fields in known if "failed" not in fields}
        self._stamp.unlink(missing_ok=True)
        self._open = self._unfinished.open("w", encoding="utf-8")
        self._line(self.digest)
        for (part, key), fields in self._parts.items():
            self._line([part, key, fields])
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file; what was added stays."""
        assert self._open is not None
        self._open.close()

    def missing(self, part: str, keys: Sequence[str]) -> list[int]:
        """Places of the keys of which this part is not there yet."""
        return [place for place, key in enumerate(keys) if (part, key) not in self._parts]

    def add(self, part: str, key: str, fields: Record) -> None:
        """Keep one part of an answer."""
        self._parts[part, key] = fields
        self._line([part, key, fields])

    def get(self, part: str, key: str) -> Record:
        """A part that is there."""
        return self._parts[part, key]

    def finish(self, rows: Sequence[RecordJson]) -> None:
        """All is there: write the records."""
        temporary = self.file.with_suffix(".tmp")
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        for line in lines:
            RECORD.check(line)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        temporary.replace(self.file)
        self._stamp.write_text(f"{self.digest}\n{file_digest(self.file)}\n")
        if not any("failed" in row for row in rows):
            self._unfinished.unlink(missing_ok=True)

    @property
    def _stamp(self) -> Path:
        return self.file.with_suffix(".digest")

    @property
    def _unfinished(self) -> Path:
        return self.file.with_suffix(".part")

    def _line(self, value: Any) -> None:
        assert self._open is not None
        self._open.write(json.dumps(value, ensure_ascii=False) + "\n")
        self._open.flush()


def _read(file: Path, digest: str) -> list[tuple[tuple[str, str], Record]]:
    """Whole lines of an unfinished file, if it was begun from the same inputs; the last may be torn."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    found = []
    for number, line in enumerate(lines):
        try:
            value = json.loads(line)
        except ValueError:
            break
        if number == 0 and value != digest:
            break
        if number:
            part, key, fields = value
            found.append(((part, key), fields))
    return found
