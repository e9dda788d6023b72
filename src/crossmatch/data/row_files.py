"""Rows of a local file, one at a time, in every format that data come in; the one reader of all commands.

Format and compression follow from the name, and the first bytes are looked at, so that a file under a wrong name is
read where that is safe and refused with a reason where it is not:

.jsonl .ndjson  an object on each line
.json           a list of objects, read piece by piece; or an object on each line
.csv            cells separated by commas, names in the first row
.parquet        a row is an object
.txt            a text on each line: {"text": line}

.gz .bz2 .xz .zst behind any of these but .parquet, which is compressed inside. Texts are UTF-8, with or without a mark.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from crossmatch.data.json_list import list_items, object_of
from crossmatch.errors import DataError

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt")
KNOWN = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}, all but .parquet also with .gz, .bz2, .xz or .zst behind"
_CELL_CHARACTERS = 10_000_000
_SHOWN = 300
_QUOTED = re.compile(r'"[^"]*"')
_HEAD = 1 << 16
# What a file begins with -> what is wrong with it under the name of a text.
_MAGIC = (
    (b"\x1f\x8b", "it is compressed with gzip; name it {name}.gz"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd; name it {name}.zst"),
    (b"BZh", "it is compressed with bzip2; name it {name}.bz2"),
    (b"\xfd7zXZ", "it is compressed with xz; name it {name}.xz"),
    (b"PK\x03\x04", "it is a zip archive; unpack it"),
    (b"PAR1", "it is parquet; name it {stem}.parquet"),
    (b"\xff\xfe", "not UTF-8 at byte 0, so it cannot be read as text: it is UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "not UTF-8 at byte 0, so it cannot be read as text: it is UTF-16; save it as UTF-8"),
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the data; `git lfs pull` gets these"),
    (b"<!DOCTYPE", "it is a web page, not the data; download the file itself"),
    (b"<html", "it is a web page, not the data; download the file itself"),
)


class Place(NamedTuple):
    """Where a row is: "line 3", "item 3" or "row 3", and the number alone."""

    text: str
    number: int


def _zst(path: Path) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))


_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zst}


def format_of(path: Path) -> str | None:
    """The format that a name stands for, without its compression; None for a name that stands for none."""
    packed = path.suffix.lower() in _OPENERS
    suffix = (path.with_suffix("") if packed else path).suffix.lower()
    return suffix if suffix in FORMATS and not (packed and suffix == ".parquet") else None


def file_rows(path: Path) -> Iterator[tuple[Place, Any]]:
    """(place, value) of every row of a file. Raises DataError with file, place and reason."""
    kind = format_of(path)
    if kind is None:
        raise DataError(f"{path}: its kind is not known; it must end in {KNOWN}")
    if kind == ".parquet":
        yield from _parquet(path)
        return
    with _reading(path):
        head = _head(path)
        _refuse_foreign(path, head)
        text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
        if kind in (".json", ".jsonl", ".ndjson"):
            yield from _json(path, kind, text)
        elif kind == ".csv":
            yield from _csv(path, text)
        elif text.startswith('{"') and _is_object(text.split("\n")[0]):
            raise DataError(f"{path}: its lines are JSON, not texts; name it {path.stem}.jsonl")
        else:
            for place, line in _lines(path):
                yield place, {"text": line}


def parse_json(text: str, place: str) -> Any:
    """A JSON value. Raises DataError with the place; NaN and infinities are no JSON numbers, and of two values of one
    name in an object one would be lost."""
    try:
        return json.loads(text, parse_constant=no_number, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{place}: not JSON: {reason}") from error


def without_nulls(value: Any, within: bool = False) -> Any:
    """A row without the fields that hold nothing of objects in its lists (`within` one: of this object, too): Arrow
    gives every object of a column the fields of all of them, so that a tool call would have the arguments of others."""
    if isinstance(value, dict):
        return {name: without_nulls(held, within) for name, held in value.items() if held is not None or not within}
    return [without_nulls(held, True) for held in value] if isinstance(value, list) else value


def no_number(name: str) -> NoReturn:
    """For `parse_constant`: refuse what Python's json would take."""
    raise ValueError(f"{name} is no JSON number")


def _open(path: Path) -> IO[bytes]:
    opener = _OPENERS.get(path.suffix.lower())
    return opener(path) if opener else path.open("rb")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """The many errors of files and compressions as DataError."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        if path.suffix.lower() in _OPENERS and not isinstance(error, FileNotFoundError | PermissionError):
            reason = f"it is no whole {path.suffix} file ({reason}); fetch it again, or mend its name"
        raise DataError(f"{path} cannot be read: {reason[:_SHOWN]}") from error


def _head(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path} is no regular file")
    with _open(path) as stream:
        return stream.read(_HEAD)


def _refuse_foreign(path: Path, head: bytes) -> None:
    for magic, reason in _MAGIC:
        if head.startswith(magic):
            raise DataError(f"{path}: {reason.format(name=path.name, stem=path.stem)}")


def _json(path: Path, kind: str, text: str) -> Iterator[tuple[Place, Any]]:
    first = text.split("\n")[0]
    # One object a line is read under both names, and so is a list of objects. A list on a line of .jsonl is a bad row.
    if text.startswith("[") if kind == ".json" else text[:1] == "[" and text[1:].lstrip()[:1] in ("{", "]"):
        with io.TextIOWrapper(_open(path), encoding="utf-8-sig") as stream:
            for number, value in enumerate(list_items(stream, path), 1):
                yield Place(f"item {number}", number), value
    elif kind == ".json" and not (_is_object(first) and text[len(first) :].strip()):
        raise DataError(f"{path} must hold a list of objects{_inside(first)}; for one object a line name it .jsonl")
    else:
        for place, line in _lines(path):
            yield place, parse_json(line, f"{path}, {place.text}")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _inside(line: str) -> str:
    """For an object that holds the list: which of its fields does."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    lists = [name for name, rows in value.items() if isinstance(rows, list)] if isinstance(value, dict) else []
    return f", not one object; keep the list in its field {lists[0]!r} alone" if lists else ""


def _lines(path: Path) -> Iterator[tuple[Place, str]]:
    with _open(path) as stream:
        # Not str.splitlines: a text may hold line separators of Unicode.
        for number, raw in enumerate(stream, 1):
            place = Place(f"line {number}", number)
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, {place.text}: not UTF-8 at byte {error.start}, so it cannot be read as text; "
                    "save it as UTF-8"
                ) from error
            if line.strip():
                yield place, line.rstrip("\r\n")


def _csv(path: Path, text: str) -> Iterator[tuple[Place, Any]]:
    before = csv.field_size_limit(_CELL_CHARACTERS)
    try:
        with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as stream:
            first = _QUOTED.sub("", text.split("\n")[0])
            if "," not in first and any(mark in first for mark in ";\t|"):
                raise DataError(f"{path}: its cells are not separated by commas; save it with commas between them")
            reader = csv.DictReader(stream, strict=True)
            header = list(reader.fieldnames or [])
            if len(set(header)) < len(header):
                raise DataError(f"{path}: two columns have one name")
            for number, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    raise DataError(f"{path}, row {number}: it has another number of cells than the header")
                yield Place(f"row {number}", number), row
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {str(error)[:_SHOWN]}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as text: {error}; save it as UTF-8") from error
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> Iterator[tuple[Place, Any]]:
    import pyarrow
    import pyarrow.parquet

    with _reading(path):
        head = _head(path)
    if head.startswith(b"version https://git-lfs"):
        _refuse_foreign(path, head)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield Place(f"row {number}", number), without_nulls(row)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:_SHOWN]
        raise DataError(f"{path} cannot be read: it is not parquet: {reason}") from error
