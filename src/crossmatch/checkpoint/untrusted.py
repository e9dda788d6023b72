"""Files of strangers, before they are opened: of a kind that ends, inside their directory, of a size to be read."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossmatch.errors import CheckpointError

MAX_TEXT_BYTES = 50_000_000
MAX_DEPTH = 64
Pairs = Callable[[list[tuple[str, Any]]], Any]


def check_regular(file: Path) -> int:
    """The size of a file. Raises CheckpointError for what is none: a pipe or a device would be read for ever."""
    try:
        found = file.stat()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {_reason(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{file} is no regular file")
    return found.st_size


def check_links(directory: Path) -> None:
    """Raise CheckpointError if an entry of a model's directory is a link to something outside of it.

    A stranger's link would have files of this machine read, and copied into outputs. The cache of the hub's client is
    made of links: those from snapshots/<commit> into the blobs of the same repository are its own.
    """
    home = directory.resolve()
    rooms = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    try:
        links = [entry for entry in directory.iterdir() if entry.is_symlink()]
        for link in links:
            target = link.resolve()
            if not any(target.is_relative_to(room) for room in rooms):
                raise CheckpointError(
                    f"{link} is a link that leads out of its directory; put the file itself there if it belongs there"
                )
    # A loop of links is a RuntimeError before Python 3.13.
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{directory} cannot be read: {_reason(error)}") from error


def read_text(file: Path, limit: int = MAX_TEXT_BYTES) -> str:
    """A file's text, UTF-8. Raises CheckpointError if it cannot be read, is no such text, or is larger than `limit`."""
    size = check_regular(file)
    if size > limit:
        raise CheckpointError(f"{file} has {size} bytes, of which at most {limit} are read")
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read as text: {_reason(error)}") from error


def parse_json(text: str | bytes, pairs: Pairs | None = None, constant: Callable[[str], Any] | None = None) -> Any:
    """A JSON value that is safe to compare, print and write. Raises ValueError or RecursionError.

    Refused: more than 64 levels, which would exhaust the stack of whoever walks them; and lone surrogates, which are no
    characters and cannot be written.
    """
    # Bytes are UTF-8 here, as the formats say; the library would take other encodings, and half characters.
    text = text.decode() if isinstance(text, bytes) else text
    value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode()
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return value
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _children(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in inside if isinstance(child, dict | list)]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
