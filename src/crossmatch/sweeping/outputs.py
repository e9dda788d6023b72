"""What a sweep leaves: sweep.json, points.csv, and the page."""

import csv
import io
from pathlib import Path
from typing import Any, cast

from crossmatch.report import write_sweep
from crossmatch.result_kinds import SWEEP

RESULT, TABLE, PAGE, TIMES = "sweep.json", "points.csv", "sweep.html", "seconds.json"


def write_outputs(facts: dict[str, Any], out: Path) -> None:
    """Write all of them, each by a rename."""
    SWEEP.replace(out / RESULT, cast(Any, facts))
    temporary = out / f"{TABLE}.tmp"
    temporary.write_text(table_of(facts), encoding="utf-8")
    temporary.replace(out / TABLE)
    write_sweep(facts, out / PAGE)


def table_of(facts: dict[str, Any]) -> str:
    """A row a point: its weights, and of every measure the value with its interval and the gain with its own."""
    adapters = list(facts["study"]["adapters"])
    measures = [f"{m['suite']}.{m['metric']}" for m in facts["measures"]]
    heads = ["number", "name", "kind", *adapters, "rule", "template", "items", "dropped", "holds"]
    for name in measures:
        heads += [name, f"{name}.low", f"{name}.high", f"{name}.gain", f"{name}.gain_low", f"{name}.gain_high"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    for point in facts["points"]:
        weights = [point["weights"].get(name, 0.0) for name in adapters]
        row = [point["number"], point["name"], point["kind"], *weights, point["rule"], point["template"]]
        row += [point["items"], point["dropped"] or "", point["holds"]]
        for name in measures:
            found = point["search"][name]
            gain = found["gain"] or {}
            row += [found["value"], found["low"], found["high"], gain.get("value"), gain.get("low"), gain.get("high")]
        writer.writerow(row)
    return text.getvalue()
