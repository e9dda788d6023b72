"""A JSON list, read piece by piece: of a large file no more is in memory than a chunk and the value under way."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

from crossmatch.errors import DataError

CHUNK = 1 << 20
_GAP = re.compile(r"[ \t\r\n]*")


def list_items(stream: TextIO, path: Path) -> Iterator[Any]:
    """The values of the list that a stream of text holds. Raises DataError with the path and the item."""
    text = _Json(stream, path)
    if text.next() != "[":
        raise DataError(f"{path} must hold a list of objects")
    text.at += 1
    if text.next() == "]":
        text.at += 1
    else:
        while True:
            yield text.value()
            if (mark := text.next()) not in (",", "]"):
                raise DataError(f"{path}, after item {text.items}: a comma or the end of the list is missing")
            text.at += 1
            if mark == "]":
                break
    if text.next():
        raise DataError(f"{path}, after item {text.items}: something follows the end of the list; remove it")


class _Json:
    """JSON text of which no more is in memory than a chunk and the value under way."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self.stream, self.path = stream, path
        self.buffer, self.at, self.items = "", 0, 0
        self.decoder = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=object_of)

    def next(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            gap = _GAP.match(self.buffer, self.at)
            self.at = gap.end() if gap else self.at
            if self.at < len(self.buffer) or not self._more():
                return self.buffer[self.at : self.at + 1]

    def value(self) -> Any:
        """The value that begins next. Raises DataError."""
        self.next()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.buffer, self.at)
            except json.JSONDecodeError as error:
                # An error near the end, or a text without one, is what a chunk's end looks like.
                open_end = error.pos > len(self.buffer) - 16 or error.msg.startswith("Unterminated")
                if open_end and self._more():
                    continue
                raise DataError(f"{self.path}, item {self.items + 1}: not JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                reason = "nested too deeply" if isinstance(error, RecursionError) else error
                raise DataError(f"{self.path}, item {self.items + 1}: not JSON: {reason}") from error
            # A number may go on in the next chunk.
            if end < len(self.buffer) or not self._more():
                self.items, self.at = self.items + 1, end
                return value

    def _more(self) -> bool:
        rest = self.buffer[self.at :]
        try:
            # As much again as is there: a value of many chunks is not parsed from its start for each.
            chunk = self.stream.read(max(CHUNK, len(rest)))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}, after item {self.items}: not UTF-8") from error
        if chunk:
            self.buffer, self.at = rest + chunk, 0
        return bool(chunk)


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`: refuse what Python's json would take, two values under one name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"two values of one object are named {next(n for n in names if names.count(n) > 1)!r}; keep one"
        )
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
