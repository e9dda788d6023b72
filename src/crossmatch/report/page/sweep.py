"""From the facts of a sweep to what its page shows. No number is made here."""

from collections.abc import Mapping, Sequence
from typing import Any

from crossmatch.report.charts.sweep_charts import front_chart, map_chart, path_chart
from crossmatch.report.page.first_screen import slug
from crossmatch.report.text import plain
from crossmatch.results.metrics import metric_of

Json = Mapping[str, Any]


def sweep_view(facts: Json) -> dict[str, Any]:
    """Everything that the template needs, as plain JSON."""
    recommended = facts["recommendation"]
    charts: dict[str, Any] = {}
    if facts["map"]:
        charts["map"] = map_chart(facts["map"], recommended["number"])
    second = second_measure(facts)
    if second is not None:
        charts["front"] = front_chart(_front_rows(facts, second), (_title(facts["goals"][0]), _title(second)))
    path = path_rows(facts)
    if path:
        charts["path"] = path_chart(path, f"gain over {plain(facts['reference'])}: {_title(facts['goals'][0])}")
    return {
        "name": plain(facts["name"]),
        "slug": slug(facts["name"]),
        "sentence": plain(recommended["sentence"]),
        "reasons": [plain(reason) for reason in recommended["reasons"]],
        "confirmed": recommended["confirmed"],
        "reference": plain(facts["reference"]),
        "heads": [_title(measure) for measure in facts["measures"]],
        "rows": [_row(point, facts) for point in ordered(facts)],
        "finalists": [finalist for one in facts["confirmation"]["finalists"] for finalist in _finalist(one, facts)],
        "later": [_later(point, facts) for point in facts["confirmation"]["points"]],
        "against": _against(facts),
        "parts": facts["parts"],
        "questions": facts["questions"],
        "knee": _name(facts, facts["knee"]) if facts["knee"] else None,
        "constraints": [plain(text) for text in facts["study"]["constraints"]],
        "prediction": prediction_rows(facts),
        "repair": _repair(facts),
        "digest": facts["digest"],
        "charts": charts,
        "grey": facts["map"] is not None and len({row["n"] for row in facts["map"]["points"] if row["n"]}) > 1,
        "beside": None if len(facts["goals"]) > 1 or second is None else _title(second),
    }


def _name(facts: Json, number: int) -> str:
    return plain(facts["points"][number - 1]["name"])


def _title(measure: Json) -> str:
    return f"{plain(measure['suite'])} {metric_of(measure['metric']).title}"


def ordered(facts: Json) -> list[Json]:
    """Points as they are listed: those that keep all constraints by rank, then the others as they were tried."""
    first = [facts["points"][number - 1] for number in facts["ranked"]]
    taken = set(facts["ranked"])
    return [*first, *(point for point in facts["points"] if point["number"] not in taken)]


def second_measure(facts: Json) -> Json | None:
    """What the first goal is drawn against: the second goal, else the first other measure."""
    if len(facts["goals"]) > 1:
        return facts["goals"][1]
    return next((measure for measure in facts["measures"] if measure != facts["goals"][0]), None)


def _front_rows(facts: Json, second: Json) -> list[dict[str, Any]]:
    rows = []
    for point in facts["points"]:
        x, y = (point["search"][f"{m['suite']}.{m['metric']}"] for m in (facts["goals"][0], second))
        if x["value"] is None or y["value"] is None or point["dropped"]:
            continue
        scales = [metric_of(m["metric"]).unit.scale for m in (facts["goals"][0], second)]
        number = point["number"]
        confirmed = any(one["number"] == number for one in facts["confirmation"]["finalists"])
        # One goal has no front: its best point is a finalist.
        on_front = number in facts["front"] and len(facts["goals"]) > 1
        state = "front" if on_front else "finalist" if confirmed else "other"
        state = "recommended" if number == facts["recommendation"]["number"] else state
        row: dict[str, Any] = {"name": point["name"], "state": state}
        for axis, figure, scale in (("x", x, scales[0]), ("y", y, scales[1])):
            row |= {axis: figure["value"] * scale}
            row |= {f"{axis}_{k}": None if figure[k] is None else figure[k] * scale for k in ("low", "high")}
        rows.append(row)
    return rows


def path_rows(facts: Json) -> list[dict[str, Any]]:
    """Gains in the first goal in the order of the search, with the best so far of those that keep all constraints."""
    goal = facts["goals"][0]
    name, scale = f"{goal['suite']}.{goal['metric']}", metric_of(goal["metric"]).unit.scale
    best, rows = 0.0, []
    for point in facts["points"]:
        gain = point["search"][name]["gain"]
        if gain is None:
            continue
        if point["holds"] and not point["dropped"]:
            best = max(best, gain["value"] * scale)
        shown = {key: gain[key] * scale for key in ("value", "low", "high")}
        rows.append(
            {"number": point["number"], "name": point["name"], **shown, "best": best, "dropped": point["dropped"]}
        )
    return rows


def number_text(figure: Json, metric: str) -> tuple[str, str]:
    """A value, and its interval."""
    known = metric_of(metric)
    form, scale = known.form, known.unit.scale
    if figure["value"] is None:
        return "–", ""
    bounds = f"{figure['low'] * scale:{form}} to {figure['high'] * scale:{form}}" if figure["low"] is not None else ""
    return format(figure["value"] * scale, form), bounds


def gain_text(gain: Json | None, metric: str) -> str:
    """A gain with its interval."""
    known = metric_of(metric)
    form, scale = known.form, known.unit.scale
    if gain is None:
        return "–"
    # No minus before a zero.
    return f"{gain['value'] * scale + 0.0:+{form}} ({gain['low'] * scale:+{form}} to {gain['high'] * scale:+{form}})"


def _cells(figures: Json, facts: Json) -> list[dict[str, Any]]:
    cells = []
    for measure in facts["measures"]:
        found = figures[f"{measure['suite']}.{measure['metric']}"]
        value, bounds = number_text(found, measure["metric"])
        gain = found["gain"]
        clear = gain is not None and (gain["low"] > 0 or gain["high"] < 0)
        cells.append({"value": value, "bounds": bounds, "gain": gain_text(gain, measure["metric"]), "clear": clear})
    return cells


def _row(point: Json, facts: Json) -> dict[str, Any]:
    state = "dropped: " + point["dropped"] if point["dropped"] else "" if point["holds"] else "breaks a constraint"
    return {
        "number": point["number"],
        "name": plain(point["name"]),
        "kind": point["kind"],
        "items": point["items"],
        "state": plain(state),
        "chosen": point["number"] == facts["recommendation"]["number"],
        "cells": _cells(point["search"], facts),
    }


def _later(point: Json, facts: Json) -> dict[str, Any]:
    return {"number": point["number"], "name": plain(point["name"]), "cells": _cells(point["figures"], facts)}


def _finalist(one: Json, facts: Json) -> list[dict[str, Any]]:
    rows = []
    for goal, found in zip(facts["goals"], one["gains"], strict=True):
        metric = goal["metric"]
        known = metric_of(metric)
        form, scale = known.form, known.unit.scale
        together, optimism = found["together"], found["optimism"]
        bounds = f"{together['low'] * scale:+{form}} to {together['high'] * scale:+{form}}" if together else "–"
        rows.append(
            {
                "name": plain(one["name"]),
                "goal": _title(goal),
                "claimed": gain_text(found["claimed"], metric),
                "confirmed": gain_text(found["confirmed"], metric),
                "together": bounds,
                "optimism": "–" if optimism is None else f"{optimism * scale:+{form}}",
                "kept": "; ".join(
                    f"{k['constraint']}: {'kept' if k['holds'] else 'not kept'}" for k in one["constraints"]
                ),
            }
        )
    return rows


def _against(facts: Json) -> list[dict[str, Any]]:
    rows = []
    for name, gains in facts["recommendation"]["against"].items():
        cells = [gain_text(gains[f"{m['suite']}.{m['metric']}"], m["metric"]) for m in facts["measures"]]
        rows.append({"name": plain(name), "cells": cells})
    return rows


# What stands beside the repaired merge on unseen items.
_ROLES = {"repaired": "repaired", "merge": "as it was", "null": "null: all of the adapter lowered", "reference": ""}


def _repair(facts: Json) -> dict[str, Any] | None:
    """The repair: what was said, the changes with what gates foretold and what was measured, and the confirmation."""
    found = facts.get("repair")
    if found is None:
        return None
    confirmed = found["confirmation"]
    told = found["foretold"]
    return {
        "sentence": plain(found["sentence"]),
        "reasons": [plain(reason) for reason in found["reasons"]],
        "mended": found["outcome"] == "mended",
        "target": f"{told['target']} on {told['items']} items of {plain(told['suite'])}" if told else None,
        "rows": [_change(one, found, facts) for one in found["candidates"]],
        "later": [
            {
                "name": plain(point["name"]),
                "role": _ROLES[point["role"]],
                "holds": point["holds"],
                "cells": _cells(point["figures"], facts),
            }
            for point in (confirmed["points"] if confirmed else ())
        ],
    }


def _change(one: Json, found: Json, facts: Json) -> dict[str, Any]:
    return {
        "what": plain(one["change"]),
        "chosen": found["repaired"] is not None and found["repaired"]["name"] == one["name"],
        "kept": f"{100 * one['kept']:.0f}%",
        "foretold": "–" if one["foretold"] is None else f"{one['foretold']:+.3f}",
        "state": "not asked" if one["holds"] is None else "keeps all" if one["holds"] else "breaks a constraint",
        "cells": _cells(one["search"], facts) if one["search"] else [],
    }


def prediction_rows(facts: Json) -> Sequence[dict[str, Any]]:
    """Predictors with their rank correlations, the size alone first."""
    rows = []
    for found in (facts.get("prediction") or {}).get("agreement", ()):
        known = found["value"] is not None and found["low"] is not None
        text = f"{found['value']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})" if known else "not defined"
        rows.append({"title": found["title"], "text": text, "n": found["n"], "what": found["what"]})
    return rows
