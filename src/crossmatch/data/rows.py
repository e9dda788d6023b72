"""Rows of a suite's data: from JSONL, JSON, CSV or parquet, or from a data set of the hub."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from crossmatch.checkpoint import file_digest, read_text
from crossmatch.data.suite_config import HubSource, shown
from crossmatch.errors import CheckpointError, DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
MAX_TEXT_BYTES = 2_000_000_000
_CELL_CHARACTERS = 10_000_000


@dataclass(frozen=True)
class Row:
    """One row as it lies in the data.

    place: for messages; key: its number, for rows without id; config: of the hub data set, where several are read.
    """

    place: str
    key: str
    values: Mapping[str, Any]
    config: str = ""


def read_file(file: Path) -> tuple[list[Row], str]:
    """Rows of a local file and the digest of its bytes. Raises DataError with file, line and reason."""
    if not file.exists():
        raise DataError(f"{file} does not exist; give a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
    if file.suffix not in SUFFIXES:
        raise DataError(f"{file}: its kind is not known; it must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    try:
        digest = file_digest(file)
        pairs = list(_parquet(file) if file.suffix == ".parquet" else _text_rows(file))
    except CheckpointError as error:
        raise DataError(str(error)) from error
    for place, row in pairs:
        if not isinstance(row, dict):
            raise DataError(f"{file}, {place}: an object is needed, not {type(row).__name__}")
    return [Row(f"{file}, {place}", place.split()[-1], row) for place, row in pairs], digest


def read_hub(source: HubSource, home: Path, split: str | None = None) -> list[Row]:
    """Rows of a hub data set, configuration after configuration; of `split`, or the source's own.

    home: where a path starting with `.` begins. Raises DataError if the hub does not give it.
    """
    wanted = split or source.split
    rows = []
    for name in source.names:
        title = f"{source.path}{f' ({name})' if name else ''}, split {wanted}"
        config = name or "" if len(source.names) > 1 else ""
        for number, row in enumerate(_load(source, home, name, wanted, title), 1):
            rows.append(Row(f"{title}, row {number}", f"{config}-{number}".lstrip("-"), row, config))
    return rows


def _load(source: HubSource, home: Path, name: str | None, split: str, title: str) -> list[dict[str, Any]]:
    from datasets import load_dataset

    local = source.path.startswith((".", "/"))
    path = str(home / source.path) if local else source.path
    # The library's cache may not see that files of a directory changed (datasets 5.2, where a README names them).
    with tempfile.TemporaryDirectory() if local else nullcontext() as cache:
        try:
            data: Any = load_dataset(path, name, split=split, revision=source.revision, cache_dir=cache)
            return [dict(row) for row in data]
        except Exception as error:  # the library raises many kinds, none of its own
            _refuse(title, error)


def _refuse(title: str, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split()) or type(error).__name__
    advice = "download it where there is a network, and give its files by `data:`"
    if "scripts are no longer supported" in reason:
        advice = "its copy in parquet is often at `revision: refs/convert/parquet`; else give its files by `data:`"
    raise DataError(f"{title}: the data set cannot be read: {reason[:300]}; {advice}") from error


def _text_rows(file: Path) -> Iterator[tuple[str, Any]]:
    text = read_text(file, MAX_TEXT_BYTES).removeprefix("\ufeff")
    if file.suffix == ".csv":
        yield from _csv(text, file)
    elif file.suffix == ".json":
        rows = _parse(text, str(file))
        if not isinstance(rows, list):
            raise DataError(f"{file} must hold a list of objects; for one object a line name it .jsonl")
        yield from ((f"item {number}", row) for number, row in enumerate(rows, 1))
    else:
        # Not splitlines: a text may hold line separators of Unicode.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", _parse(line, f"{file}, line {number}")


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{place}: not JSON: {reason}") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _csv(text: str, file: Path) -> Iterator[tuple[str, Any]]:
    before = csv.field_size_limit(_CELL_CHARACTERS)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = reader.fieldnames or []
        if len(set(header)) < len(header):
            raise DataError(f"{file}: two columns have one name")
        for number, row in enumerate(reader, 1):
            if None in row or None in row.values():
                raise DataError(f"{file}, row {number}: it has another number of cells than the header")
            yield f"row {number}", row
    except csv.Error as error:
        raise DataError(f"{file} is not CSV: {shown(str(error))}") from error
    finally:
        csv.field_size_limit(before)


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} is not parquet: {shown(' '.join(str(error).split()))}") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))
