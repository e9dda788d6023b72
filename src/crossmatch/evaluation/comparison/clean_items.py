"""The items that no training data touch, as `crossmatch audit -o` keeps them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossmatch.data.suites import Suite
from crossmatch.errors import DataError, InputError
from crossmatch.result_kinds import AUDIT
from crossmatch.runtime import Progress


def read_clean(file: Path, suites: Sequence[Suite]) -> dict[str, set[str]]:
    """Suite -> ids of its clean items, from the result of an audit whose held-out sets are called as the suites are.

    Raises InputError if the file is no such result or tells of none of the suites, DataError if it is of other items.
    """
    try:
        known = {name: found["clean"] for name, found in AUDIT.read(file)["held_out"].items()}
    except InputError as error:
        raise InputError(f"--clean {error}") from error
    if not known:
        raise InputError(f"--clean {file}: no result of an audit with held-out sets; write one by crossmatch audit -o")
    names = {suite.settings.name: suite for suite in suites}
    found = {name: set(ids) for name, ids in known.items() if name in names}
    if not found:
        raise InputError(f"--clean {file} tells of {', '.join(known)}; none of the suites is called so")
    for name, ids in found.items():
        other = sorted(ids - {item.id for item in names[name].items})
        if other:
            raise DataError(f"--clean {file}: suite {name} has no item {other[0]}; audit the suite that is asked")
    return found


def touched(clean: Mapping[str, set[str]], suites: Sequence[Suite]) -> dict[str, set[str]]:
    """The same without suites of which no item is touched: there the clean part is the whole."""
    items = {suite.settings.name: {item.id for item in suite.items} for suite in suites}
    return {name: ids for name, ids in clean.items() if name in items and items[name] - ids}


def clean_parts(file: Path | None, suites: Sequence[Suite], progress: Progress) -> dict[str, set[str]]:
    """Suite -> ids of the items that an audit found clean, where it found others too; says how many there are."""
    found = read_clean(file, suites) if file is not None else {}
    for suite in suites:
        ids, name, n = found.get(suite.settings.name), suite.settings.name, len(suite.items)
        if file is not None:
            progress.say(f"{name}: " + (f"{len(ids)} of {n} items are clean" if ids is not None else "not audited"))
    return touched(found, suites)
