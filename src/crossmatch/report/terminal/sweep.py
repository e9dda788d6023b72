"""A sweep on the terminal: the recommendation first, in at most 15 lines of 80 columns."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossmatch.report.page.sweep import gain_text, ordered
from crossmatch.results.metrics import metric_of

Json = Mapping[str, Any]
WIDTH, LINES = 80, 15
_REASONS, _LEADING = 5, 4


def sweep_lines(facts: Json) -> list[str]:
    """The sentence, what stands behind it, and the leading points."""
    found = facts["recommendation"]
    lines = textwrap.wrap(found["sentence"], WIDTH)[:4]
    for reason in found["reasons"][:_REASONS]:
        lines += textwrap.wrap(f"- {reason}", WIDTH, subsequent_indent="  ")[:2]
    questions = facts["questions"]
    if questions["candidates"] and questions["saved"] > 0:
        lines.append(f"- halving asked {questions['asked']} of {questions['without_halving']} items")
    goal = facts["goals"][0]
    metric, name = goal["metric"], f"{goal['suite']}.{goal['metric']}"
    rows = [point for point in ordered(facts) if not point["dropped"]]
    room = LINES - len(lines) - 1
    if room > 1:
        lines.append(
            f"{'point':28} {metric_of(metric).title:>10}  gain over {facts['reference']} in the search"[:WIDTH]
        )
    for point in rows[: min(_LEADING, room)] if room > 1 else ():
        figure = point["search"][name]
        known = metric_of(metric)
        form, scale = known.form, known.unit.scale
        value = "-" if figure["value"] is None else format(figure["value"] * scale, form)
        lines.append(f"{_cut(point['name'], 28):28} {value:>10}  {gain_text(figure['gain'], metric)}"[:WIDTH])
    return lines[:LINES]


def repair_lines(facts: Json) -> list[str]:
    """The repair, if one was looked for: its sentence, and what stands behind it."""
    found = facts.get("repair")
    if found is None:
        return []
    lines = textwrap.wrap(found["sentence"], WIDTH)
    for reason in found["reasons"]:
        lines += textwrap.wrap(f"- {reason}", WIDTH, subsequent_indent="  ")
    return ["", *lines]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def next_line(facts: Json, page: Path, directory: Path) -> str:
    """Where the page is, and the command that writes what is recommended. directory: the sweep's."""
    point = " [--point repair]" if (facts.get("repair") or {}).get("repaired") else ""
    return f"page: {page}; to write and prove it: crossmatch merge --from {directory}{point} -o OUT"


def print_sweep(facts: Json) -> None:
    """Print what was found."""
    from crossmatch.report.text import printable

    for line in [*sweep_lines(facts), *repair_lines(facts)]:
        print(printable(line))
