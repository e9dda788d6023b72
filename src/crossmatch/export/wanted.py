"""What is wanted of a result besides: tables and figures as files, and trackers that are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmatch.errors import InputError
from crossmatch.export.files import charts_of, check_directory, write_figures, write_tables
from crossmatch.runtime import Progress

_DIRECTORIES = ("--tables", "--figures")


@dataclass(frozen=True)
class Exports:
    """Where tables and figures go (None: nowhere), and which trackers are told."""

    tables: Path | None = None
    figures: Path | None = None
    trackers: tuple[str, ...] = ()


def wanted_exports(
    tables: str | None, figures: str | None, home: Path | None, trackers: Sequence[str] | None = None
) -> Exports:
    """What is wanted, checked before the work. home: where the result is written, beside which files go by default.

    Raises InputError without a directory or for an unknown or missing tracker, OutputError for one that cannot be
    written.
    """
    places = {}
    for option, text in zip(_DIRECTORIES, (tables, figures), strict=True):
        if text == "" and home is None:
            raise InputError(f"{option} needs a directory here; write {option} DIR")
        place = None if text is None else Path(text) if text or home is None else home / option[2:]
        if place is not None:
            check_directory(place)
        places[option[2:]] = place
    if trackers:
        from crossmatch.export.tracking import check_tracker

        for name in trackers:
            check_tracker(name)
    return Exports(places["tables"], places["figures"], tuple(dict.fromkeys(trackers or ())))


def export(
    facts: Mapping[str, Any], wanted: Exports, progress: Progress, *, name: str = "", page: Path | None = None
) -> None:
    """Write and log what is wanted of a result. facts: as its JSON file has them; name, page: what trackers show."""
    if wanted.tables is not None:
        from crossmatch.export.results import tables_of

        tables = tables_of(facts)
        write_tables(tables, wanted.tables)
        progress.say(f"{len(tables)} tables: {wanted.tables}")
    if wanted.figures is not None:
        with progress.task("figures"):
            drawn = write_figures(charts_of(facts, name), wanted.figures)
        progress.say(f"{len(drawn) // 3} figures: {wanted.figures}" if drawn else "no figures: this result has none")
    if wanted.trackers:
        from crossmatch.export.tracking import track, tracked

        told = tracked(facts, name, page)
        for tracker in wanted.trackers:
            progress.say(f"{tracker}: {track(tracker, told)}")
