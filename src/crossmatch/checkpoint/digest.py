"""Digests: blake3 of files and of plain values."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blake3 import blake3

from crossmatch.checkpoint.untrusted import check_regular
from crossmatch.errors import CheckpointError


def file_digest(file: Path) -> str:
    """blake3 of a file's bytes, in hex. Raises CheckpointError if it cannot be read."""
    check_regular(file)
    try:
        return blake3(max_threads=blake3.AUTO).update_mmap(file).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from error


def bytes_digest(data: bytes) -> str:
    """blake3 of some bytes, in hex."""
    return blake3(data).hexdigest()


def value_digest(value: Any) -> str:
    """blake3 of a JSON-able value in canonical form (sorted keys, no spaces, no NaN), in hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return bytes_digest(text.encode())


def files_digest(files: dict[str, str]) -> str:
    """One digest for a set of files, from {name: digest}."""
    return value_digest(dict(sorted(files.items())))


class Unchanged:
    """Watches files that are being read: what they are now, and whether they still are."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._seen = {file: _mark(file) for file in files}

    def check(self) -> None:
        """Raise CheckpointError for the first file that is not the one it was."""
        for file, mark in self._seen.items():
            if _mark(file) != mark:
                raise CheckpointError(f"{file} was changed while it was being read; nothing was written, run it again")


def _mark(file: Path) -> tuple[int, ...] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
