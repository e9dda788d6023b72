"""Sweeps as tables: points, the confirmation, predictions."""

from collections.abc import Iterator
from typing import Any

from crossmatch.export.table import Column, Json, Table, columns, estimate, some, table

_FIGURES = (*columns("suite", "metric"), *estimate("value"), *estimate("gain"), Column("n", form=".0f"))


def sweep_tables(facts: Json) -> list[Table]:
    """Tables of a sweep (the dict of `sweep.json`): a row a point; of both parts a row a figure; predictions."""
    adapters = list(facts["study"]["adapters"])
    points = [_point(point, adapters) for point in facts["points"]]
    head = columns("number", "name", "kind", *adapters, "rule", "template", "items", "dropped", "holds")
    searched = [row for point in facts["points"] for row in _rows(point, point["search"], facts)]
    confirmed = [row for point in facts["confirmation"]["points"] for row in _rows(point, point["figures"], facts)]
    figures = (*columns("number", "name"), *_FIGURES)
    predicted = (facts.get("prediction") or {}).get("agreement") or []
    note = f"gain: over {facts['reference']}, the better way up; figures as stored."
    repair = [
        {
            **{key: one[key] for key in ("change", "name", "kept", "foretold", "holds")},
            "repaired": one["name"] == chosen,
        }
        for found in [facts.get("repair") or {"candidates": [], "repaired": None}]
        for chosen in [(found["repaired"] or {}).get("name")]
        for one in found["candidates"]
    ]
    return some(
        table("points", "Points that were tried", points, head),
        table("search", "Figures on the search items", searched, figures, note),
        table("confirmation", "Figures on items that no trial saw", confirmed, figures, note),
        table(
            "prediction",
            "Rank correlation of scores of the weights with the measured gain",
            predicted,
            (*columns("score", "title"), *estimate("value"), Column("n", form=".0f")),
        ),
        table(
            "repair",
            "Changes that may mend the merge",
            repair,
            columns("change", "name", "kept", "foretold", "holds", "repaired"),
            "kept: norm of the adapter's update over the one before; holds: constraints, of what was asked.",
        ),
    )


def _point(point: Json, adapters: list[str]) -> dict[str, Any]:
    """A point with its weights as columns."""
    kept = {key: point[key] for key in ("number", "name", "kind", "rule", "template", "items", "dropped", "holds")}
    return {**kept, **{name: point["weights"].get(name, 0.0) for name in adapters}}


def _rows(point: Json, figures: Json, facts: Json) -> Iterator[dict[str, Any]]:
    """A row a metric."""
    for measure in facts["measures"]:
        found = figures[f"{measure['suite']}.{measure['metric']}"]
        gain = found["gain"] or {}
        own = {f"gain{end}": gain.get(key) for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}
        head = {
            "number": point["number"],
            "name": point["name"],
            "suite": measure["suite"],
            "metric": measure["metric"],
        }
        yield {**head, **{key: found[key] for key in ("value", "low", "high", "n")}, **own}
