"""What a terminal shows of an analysis: statements in words, then tables by module type and by layer, 80 columns
wide."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.cli.console import plain

Row = Mapping[str, Any]


def show(facts: Mapping[str, Any]) -> None:
    """Statements first, then sizes, alignment and readings of each vector, then each pair, then what was left out."""
    for line in lines(facts):
        print(plain(line))


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The same, line by line."""
    for claim in [c for c in facts["claims"] if c["primary"]]:
        yield from _claim(claim)
    for name, rows in facts["size"].items():
        yield from _table(
            f"{name}: size",
            ("norm", "of W", "largest", "stable rank", "eff. rank"),
            rows,
            lambda row: (row["frobenius"], row["share"], row["spectral"], row["stable_rank"], row["effective_rank"]),
        )
    for name, rows in facts["alignment"].items():
        read = {(row["level"], row.get("key")): row for row in facts["readings"].get(name, ())}
        labels = list(dict.fromkeys(row["k_label"] for row in rows))
        label = next((c["k_label"] for c in facts["claims"] if c["primary"]), labels[0] if labels else "")
        others = ", ".join(other for other in labels if other != label)
        yield from _table(
            f"{name}: share of energy over that of a random delta, k = {label}"
            + (f" (--json: {others})" if others else ""),
            ("writes old", "reads old", "writes new", "diagonal", "gain"),
            [row for row in rows if row["k_label"] == label],
            lambda row: (*(row[part]["lift"] for part in _PARTS), row["gain"]["value"]),
        )
        yield from _table(
            f"{name}: leading directions of W + D, and under a random delta",
            ("intruders", "random", "amplified", "random", "coordin.", "random"),
            list(read.values()),
            lambda row: tuple(_number(row[part][of], 2) for part in _READINGS for of in ("value", "null")),
        )
    for pair in facts["overlap"]:
        yield from _table(
            f"{pair['first']} and {pair['second']}: cosine; overlap over its null",
            ("cosine", "+-", "columns", "rows", "2 in col", "2 in row"),
            pair["rows"],
            _overlap,
        )
    for item in facts["left_out"][:8]:
        where = " ".join(filter(None, (item["vector"], item["name"])))
        yield from textwrap.wrap(f"left out: {item['measure']} {where}: {item['why']}", 79, subsequent_indent="  ")
    if (more := len(facts["left_out"]) - 8) > 0:
        yield f"left out: {more} more; --json lists them"


_PARTS = ("write_existing", "read_existing", "write_new", "diagonal")
_READINGS = ("intruders", "amplified", "coordination")


def _overlap(row: Row) -> tuple[Any, ...]:
    spaces = [row[side]["overlap"]["lift"] if row[side] else None for side in ("columns", "rows")]
    energies = [row[side]["lift"] for side in ("second_in_columns", "second_in_rows")]
    return (row["cosine"]["value"], row["cosine"]["null_sd"], *spaces, *energies)


def _claim(claim: Row) -> Iterator[str]:
    said = f"{claim['vector']}: {claim['statement']}: {claim['verdict'].upper()}"
    label = f" (k = {claim['k_label']})" if claim["k_label"] else ""
    why = f" ({claim['why']})" if claim["why"] else label
    yield from textwrap.wrap(said + why, 79, subsequent_indent="  ")
    for part in claim["parts"]:
        if part["value"] is None:
            yield f"  {part['what']}: not defined"
            continue
        bounds = f"{_number(part['value'])} ({_number(part['low'])} to {_number(part['high'])})"
        text = f"{part['what']}: {bounds}, {_side(part)} {part['null']:g}"
        yield from textwrap.wrap(text, 79, initial_indent="  ", subsequent_indent="    ")


def _side(part: Row) -> str:
    if part["low"] is None or part["high"] is None:
        return "not apart from"
    return "above" if part["low"] > part["null"] else "below" if part["high"] < part["null"] else "not apart from"


def _table(title: str, heads: Sequence[str], rows: Sequence[Row], cells: Any) -> Iterator[str]:
    """Module types, all of them, then layers."""
    chosen = [row for level in ("type", "all", "layer") for row in rows if row["level"] == level]
    if not chosen:
        return
    widths = [max(11 if len(heads) < 6 else 9, len(head) + 1) for head in heads]
    yield ""
    yield title
    yield (f"{'':16}{'n':>5}" + "".join(f"{head:>{w}}" for head, w in zip(heads, widths, strict=True)))[:79].rstrip()
    for row in chosen:
        label = {"all": "all", "layer": f"layer {row['key']}"}.get(row["level"], str(row["key"]))
        shown = (cell if isinstance(cell, str) else _number(cell) for cell in cells(row))
        yield f"{label[:16]:16}{row['n']:>5}" + "".join(f"{c:>{w}}" for c, w in zip(shown, widths, strict=True))


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}"
