"""A named table of plain rows: the one form from which CSV, Markdown, LaTeX, HTML and data frames are made."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cell = str | int | float | bool | None
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column.

    unit: of its numbers, empty where they have none; form: how Markdown, LaTeX and HTML print a number (CSV files and
    data frames have it in full); low, high: columns that hold the ends of its interval, p: the column of its adjusted
    p-value. Those three are shown in this column's cell: `6.0 [2.1, 9.9]*`, the mark for p < 0.05.
    """

    name: str
    unit: str = ""
    form: str = ".4g"
    low: str | None = None
    high: str | None = None
    p: str | None = None

    @property
    def heading(self) -> str:
        """The name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Table:
    """A table of a result.

    name: unique in the result, letters, digits, '_', '-' and '.'; title: what it holds, for a caption; rows: column ->
    value, None for what is not known; note: what a reader of the numbers must know; by_module: a row a tensor or an
    item, and more columns than a page has: it is written as CSV alone.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]
    note: str = ""
    by_module: bool = False

    @property
    def shown(self) -> list[Column]:
        """Columns of a printed table: those that no other column's cell holds already."""
        inside = {name for column in self.columns for name in (column.low, column.high, column.p) if name}
        return [column for column in self.columns if column.name not in inside]


def columns(*names: str | Column) -> tuple[Column, ...]:
    """Columns, those without more to say by their names."""
    return tuple(name if isinstance(name, Column) else Column(name) for name in names)


def estimate(name: str, unit: str = "", form: str = ".4g", *, p: str | None = None) -> tuple[Column, ...]:
    """A column with those of its 95% interval, `<name>_low` and `<name>_high`; of the name `value` `low` and `high`."""
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return (Column(name, unit, form, low, high, p), Column(low, unit, form), Column(high, unit, form))


def table(name: str, title: str, rows: Iterable[Json], of: Sequence[Column], note: str = "") -> Table | None:
    """A table of these columns; None without rows. What a row does not have is None."""
    kept = tuple({column.name: _cell(row.get(column.name)) for column in of} for row in rows)
    return Table(name, title, tuple(of), kept, note) if kept else None


def data_table(name: str, title: str, rows: Iterable[Json], note: str = "") -> Table | None:
    """Rows of nested facts as a flat table by module: `overlap.null` for a number inside, lists of numbers joined by
    spaces; None without rows."""
    flattened = [flat(row) for row in rows]
    names = dict.fromkeys(key for row in flattened for key in row)
    if not flattened:
        return None
    kept = tuple({key: row.get(key) for key in names} for row in flattened)
    return Table(name, title, columns(*names), kept, note, by_module=True)


def inner_tables(name: str, title: str, rows: Sequence[Json]) -> list[Table]:
    """Tables of the lists of facts inside of rows, `<name>.<where they are>`; each has the row's words and counts."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        head = {key: value for key, value in row.items() if isinstance(value, str | int)}
        for place, items in _lists(row):
            found.setdefault(place, []).extend({**head, **item} for item in items)
    return some(*(data_table(f"{name}.{place}", f"{title}: {place}", items) for place, items in found.items()))


def _lists(facts: Json, prefix: str = "") -> Iterator[tuple[str, Sequence[Json]]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _lists(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            yield f"{prefix}{key}", [item for item in value if isinstance(item, Mapping)]


def flat(facts: Json, prefix: str = "") -> dict[str, Cell]:
    """Nested facts on one level. Lists of numbers and words become one text, lists of facts are left out: they are
    tables of their own (`inner_tables`)."""
    found: dict[str, Cell] = {}
    for key, value in facts.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            if not any(isinstance(item, Mapping) for item in value):
                found[f"{prefix}{key}"] = " ".join(str(item) for item in value)
        else:
            found[f"{prefix}{key}"] = _cell(value)
    return found


def some(*tables: Table | None) -> list[Table]:
    """Those that are there."""
    return [one for one in tables if one is not None]


def _cell(value: Any) -> Cell:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
