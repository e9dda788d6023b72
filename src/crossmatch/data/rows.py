"""Rows of data: of a local file, or of a data set of the hub."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from crossmatch.data.row_files import FORMATS, KNOWN, file_rows, format_of, without_nulls
from crossmatch.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from crossmatch.data.suite_config import HubSource

SUFFIXES = FORMATS


@dataclass(frozen=True)
class Row:
    """One row as it lies in the data.

    place: for messages; key: its number, for rows without id; config: of the hub data set, where several are read.
    """

    place: str
    key: str
    values: Any
    config: str = ""


def stream_rows(source: str | Path) -> Iterator[Row]:
    """Rows of a local file, or of a hub data set `org/name[@config][:split]`, one at a time; values as they are.

    Raises DataError with source, place and reason.
    """
    path = Path(source)
    if path.is_file():
        for place, value in file_rows(path):
            yield Row(f"{path}, {place.text}", str(place.number), value)
        return
    name, config, split = hub_name(str(source))
    for number, values in enumerate(_library(name, config, split, None, None, f"{source} is no local file, and"), 1):
        yield Row(f"{source}, row {number}", str(number), values)


def hub_name(source: str) -> tuple[str, str | None, str]:
    """Name, configuration and split of a hub data set. Raises DataError for what can be none."""
    path, _, split = source.partition(":")
    name, _, config = path.partition("@")
    if Path(source).exists():
        raise DataError(f"{source} is no file; name a file in it, one for each option")
    if name.count("/") != 1 or name.startswith((".", "/")) or format_of(Path(name)):
        raise DataError(f"data {source} does not exist; give a {KNOWN}, or a hub data set org/name[@config][:split]")
    return name, config or None, split or "train"


def is_cached(source: str) -> bool:
    """Whether the hub's library has read a hub data set on this machine before, so that it needs no network for it.
    Raises DataError for what can be none."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, name = hub_name(source)[0].partition("/")
    # <cache>/<owner>___<name>/<configuration>/<version>/<digest>
    kept = Path(config.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    return any(path.is_dir() for path in kept.glob("*/*/*"))


def read_file(file: Path) -> tuple[list[Row], str]:
    """Rows of a local file, each an object, and the digest of its bytes. Raises DataError with file and line."""
    from crossmatch.checkpoint import file_digest

    if not file.exists():
        raise DataError(f"{file} does not exist; give a {KNOWN}")
    rows = [Row(f"{file}, {place.text}", str(place.number), value) for place, value in file_rows(file)]
    for row in rows:
        if not isinstance(row.values, dict):
            raise DataError(f"{row.place}: an object is needed, not {type(row.values).__name__}")
    try:
        return rows, file_digest(file)
    except CheckpointError as error:
        raise DataError(str(error)) from error


def read_hub(source: "HubSource", home: Path, split: str | None = None) -> list[Row]:
    """Rows of a hub data set, configuration after configuration; of `split`, or the source's own.

    home: where a path starting with `.` begins. Raises DataError if the hub does not give it.
    """
    wanted = split or source.split
    path = str(home / source.path) if source.path.startswith((".", "/")) else source.path
    rows = []
    for name in source.names:
        title = f"{source.path}{f' ({name})' if name else ''}, split {wanted}"
        config = name or "" if len(source.names) > 1 else ""
        found = _library(path, name, wanted, source.revision, title, "")
        for number, values in enumerate(found, 1):
            rows.append(Row(f"{title}, row {number}", f"{config}-{number}".lstrip("-"), values, config))
    return rows


def _library(
    path: str, name: str | None, split: str, revision: str | None, title: str | None, before: str
) -> Iterator[Mapping[str, Any]]:
    """Rows as the library of the hub gives them; title: of a suite's data set; before: else, how a refusal begins."""
    from datasets import load_dataset

    # The library's cache may not see that files of a directory changed (datasets 5.2, where a README names them).
    with tempfile.TemporaryDirectory() if path.startswith((".", "/")) else nullcontext() as cache:
        try:
            data: Any = load_dataset(path, name, split=split, revision=revision, cache_dir=cache)
            yield from (without_nulls(dict(row)) for row in data)
        except Exception as error:  # the library raises many kinds, none of its own
            _refuse(f"{title}: the data set cannot be read" if title else f"{before} the hub did not give it", error)


def _refuse(what: str, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split()) or type(error).__name__
    advice = "download it where there is a network, and give its files by `data:`"
    if "scripts are no longer supported" in reason:
        advice = "its copy in parquet is often at `revision: refs/convert/parquet`; else give its files by `data:`"
    raise DataError(f"{what}: {reason[:300]}; {advice}") from error
