"""What a checkpoint, an adapter or a vector is, as JSON and as lines."""

import textwrap
from typing import TYPE_CHECKING, Any

from crossmatch.console import emit
from crossmatch.report.text import printable, size

if TYPE_CHECKING:
    from crossmatch.vectors.facts import Inspected


def fact_lines(key: str, value: Any) -> list[str]:
    """One fact as lines of 80 columns."""
    if key == "bytes":
        key, value = "size", size(value)
    if key == "lacks":
        told = {lack["fault"]: lack["evidence"] for lack in value}
        key, value = "whole", told or "yes, as far as the file alone tells"
    if key == "norm" and value is None:
        value = "needs the base: DoRA, saved modules and tokens are relative to it"
    if isinstance(value, dict):
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in value.values()):
            return [line for k, v in value.items() for line in fact_lines(f"{key}: {k}", v)]
        value = ", ".join(f"{k} x {v}" for k, v in value.items())
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, int):
        value = f"{value:,}"
    if isinstance(value, float):
        value = f"{value:.6g}"
    shown = value[:32] + "…" if isinstance(value, str) and len(value) == 64 else str("-" if value is None else value)
    return textwrap.wrap(f"{key:22} {shown}", 79, subsequent_indent=" " * 23, break_long_words=False)


def show_facts(facts: "Inspected", as_json: bool) -> None:
    """Facts on stdout, as JSON or as lines."""
    if as_json:
        from crossmatch.result_kinds import INSPECTION

        emit(INSPECTION, facts)
        return
    for key, value in facts.items():
        if key == "schema_version":
            continue
        for line in fact_lines(key.replace("_", " "), value):
            print(printable(line))
