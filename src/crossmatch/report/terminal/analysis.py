"""What a terminal shows of an analysis: statements in words, then tables by module type and by layer, 80 columns
wide."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.report.statements import answer_of, side
from crossmatch.report.text import columns, padded, plain, printable, shortened

Row = Mapping[str, Any]


def show(facts: Mapping[str, Any]) -> None:
    """Statements first, then sizes, alignment and readings of each vector, then each pair, then what was left out."""
    for line in lines(facts):
        print(printable(line))


def analysis_table(facts: Mapping[str, Any], rows: int) -> list[str]:
    """The table that is read first: each vector over all its modules, at most so many of them."""
    names = list(facts["size"])
    if not names:
        return []
    label = next((claim["k_label"] for claim in facts["claims"] if claim["primary"] and claim["k_label"]), None)
    shown = [(name, _cells(facts, name, label)) for name in names[:rows]]
    heads = ("modules", "norm/base", "eff. rank", "new/random", "amplified/random")
    heads = heads if any(cell != "–" for _, cells in shown for cell in cells[3:]) else heads[:3]
    width = max(columns(shortened(plain(name), 24)) for name, _ in shown) + 2
    found = ["  " + " " * width + "".join(padded(head, len(head) + 2, right=True) for head in heads)]
    for name, cells in shown:
        line = "".join(padded(cell, len(head) + 2, right=True) for head, cell in zip(heads, cells, strict=False))
        found.append(f"  {padded(shortened(plain(name), 24), width)}{line}")
    note = f"  energy over that of a random update, k = {label}" if label and len(heads) > 3 else ""
    left = f"{len(names) - rows} rows left out" if len(names) > rows else ""
    return [*found, *([f"{note}  {left}".rstrip()] if note or left else [])]


def _cells(facts: Mapping[str, Any], name: str, label: str | None) -> list[str]:
    whole = next((row for row in facts["size"][name] if row["level"] == "all"), None)
    if whole is None:
        return ["0"]
    aligned = facts["alignment"].get(name, ())
    there = next((row for row in aligned if row["level"] == "all" and row["k_label"] == label), None)
    share = "–" if whole["share"] is None else f"{100 * whole['share']:.3g}%"
    rank = "–" if whole["effective_rank"] is None else f"{whole['effective_rank']:.1f}"
    lifts = [there[part]["lift"] if there else None for part in ("write_new", "diagonal")]
    return [str(whole["n"]), share, rank, *("–" if lift is None else f"{lift:.3g}" for lift in lifts)]


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
        modules = [row for row in facts["readings"].get(name, ()) if row["level"] == "module"]
        if doubtful := sum(not row["certain"] for row in modules):
            text = f"not certain in {doubtful} of {len(modules)} modules: pairs not converged, or intruders may be old"
            yield from textwrap.wrap(text, 79, subsequent_indent="  ")
    for pair in facts["overlap"]:
        yield from _table(
            f"{pair['first']} and {pair['second']}: cosine; overlap, times that of random spaces",
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
    said = f"{claim['vector']}: {claim['statement']}: {answer_of(claim).upper()}"
    label = f" (k = {claim['k_label']})" if claim["k_label"] else ""
    why = f" ({claim['why']})" if claim["why"] else label
    yield from textwrap.wrap(said + why, 79, subsequent_indent="  ")
    for part in claim["parts"]:
        if part["value"] is None:
            yield f"  {part['what']}: not defined"
            continue
        bounds = f"{_number(part['value'])} ({_number(part['low'])} to {_number(part['high'])})"
        text = f"{part['what']}: {bounds}, {side(part)}"
        yield from textwrap.wrap(text, 79, initial_indent="  ", subsequent_indent="    ")


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


def show_texts(facts: Mapping[str, Any]) -> None:
    """Representations by layer, then the modules that a log-odds comes from."""
    for name, found in facts.get("representations", {}).items():
        for line in _layers(name, found):
            print(printable(line))
    for name, metrics in facts.get("attribution", {}).items():
        for found in metrics.values():
            for line in _modules(name, found):
                print(printable(line))


def _layers(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{name}: {found['positions']} tokens of {found['texts']} texts, less first ones and massive dimensions"
    heads = ("CKA", "SVCCA", "cos2", "rotated", "shift", "eff.rank", "random")
    yield f"{'':16}" + "".join(f"{head:>9}" for head in heads)
    for row in found["layers"]:
        if row["part"] != "residual":
            continue
        view = row["without"]
        turn = view["subspaces"][-1]
        rotated, random = _mean(turn["rotated"]), _mean([one["effective_rank"] for one in view["random"]])
        cells = [view[key]["value"] for key in ("cka", "svcca")] + [turn["cosine2"]["value"], rotated]
        cells += [view["size"]["value"], view["effective_rank"]["value"], random]
        yield f"{'layer ' + str(row['layer']):16}" + "".join(f"{_bounded(cell):>9}" for cell in cells)


def _modules(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"{name}: log-odds, {found['metric']}: {found['items']} items"
    change, share = found["change"], found["completeness"]
    said = "complete" if found["complete"] else "NOT COMPLETE"
    value, error = _bounded(change["value"]), _bounded(change["stderr"])
    yield f"change {value} +- {error}, attributed {_bounded(share)} of it: {said}"
    yield f"{'':44}{'attributed':>11}{'taken out':>11}{'+-':>9}"
    for row in found["removed"]["modules"]:
        label = row["name"].removesuffix(".weight")[-43:]
        measured = row["removed"]
        cells = [row["integrated"]["value"], measured["value"], measured["stderr"]]
        yield f"{label:44}" + "".join(f"{_bounded(cell):>{w}}" for cell, w in zip(cells, (11, 11, 9), strict=True))
    top, ranks = len(found["removed"]["modules"]), found["removed"]["spearman"]["integrated"]["top"]["value"]
    yield f"confirmed: {found['removed']['confirmed']} of {top}; rank correlation {_bounded(ranks)}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _bounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
