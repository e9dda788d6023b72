"""The divergence of surface from choices, as a picture: how far each variant moved by either, and the index.

No number is made here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt

from crossmatch.report.charts.charts import COLOURS, Spec, filtered, selectable, spec
from crossmatch.report.metric_text import AGAINST, distinct
from crossmatch.report.text import plain
from crossmatch.results.metrics import metric_of

Json = Mapping[str, Any]
_SURFACE = {"bleu": "answer without its trace", "bleu_raw": "whole output"}
_CHOICE = "acc"
_KEYS = {"reference": AGAINST[0], "control": AGAINST[2]}


def divergence_view(number: int, name: str, summary: Json) -> tuple[dict[str, Any], dict[str, Spec]]:
    """Names of a condition's pictures (None where there is none), and a line for whatever is left out of them."""
    condition = summary["conditions"][name]
    rows, lines = [], []
    suites = condition["suites"]
    surfaces = [suite for suite, facts in suites.items() if "bleu" in facts["metrics"]]
    home, choices = _choices(name, summary)
    if not surfaces or not choices:
        missing = "generation suite with BLEU" if not surfaces else "choice suite"
        lines.append(f"No picture of the divergence: there is no {missing} under this condition.")
    for surface in surfaces:
        for picked, facts in choices.items():
            for suite, table in ((surface, suites[surface]), (picked, facts)):
                if table["incomplete"]:
                    lines.append(f"{plain(suite)} is incomplete, so it is not compared and not in the picture.")
            rows += _points(surface, suites[surface], picked, facts, summary, lines)
    indices = list(distinct(condition["divergence"]))
    known = [row for row in indices if row["value"] is not None]
    lines += [
        f"No index for {plain(row['variant'])}, {_pair(row)}: {_why(row, summary, name)}."
        for row in indices
        if row["value"] is None
    ]
    if rows and home != name:
        lines.append(f"Choices are scored once for each template: theirs are those under {plain(home)}.")
    if rows and not indices:
        lines.append("No index was computed.")
    charts = {}
    if rows:
        charts[f"plane{number}"] = plane_chart(rows)
    if known:
        charts[f"divergence{number}"] = index_chart(known)
    plane, index = (key if key in charts else None for key in (f"plane{number}", f"divergence{number}"))
    return {"plane": plane, "index": index, "lines": list(dict.fromkeys(lines))}, charts


def _choices(name: str, summary: Json) -> tuple[str, dict[str, Json]]:
    """Choice suites under this condition, else under another of the same template, and which that is."""
    conditions = summary["conditions"]
    alike = [other for other, c in conditions.items() if c["template"] == conditions[name]["template"]]
    for other in (name, *alike):
        found = {s: f for s, f in conditions[other]["suites"].items() if _CHOICE in f["metrics"]}
        if found:
            return other, found
    return name, {}


def _points(
    surface: str, table: Json, picked: str, facts: Json, summary: Json, lines: list[str]
) -> Iterator[dict[str, Any]]:
    """One row for each variant, output and what it is compared with; a line for each that cannot be drawn."""
    pair = f"{plain(surface)} against {plain(picked)}"
    for against, key in _KEYS.items():
        for variant in summary["variants"]:
            across = facts["metrics"][_CHOICE].get(variant, {}).get(key)
            for metric, output in _SURFACE.items():
                up = table["metrics"].get(metric, {}).get(variant, {}).get(key)
                if across and up:
                    yield {
                        "variant": plain(variant),
                        "pair": pair,
                        "output": output,
                        "against": summary["reference"] if against == "reference" else "its own control",
                        **{axis: across[end] * 100 for axis, end in zip(("x", "x1", "x2"), _ENDS, strict=True)},
                        **{axis: up[end] for axis, end in zip(("y", "y1", "y2"), _ENDS, strict=True)},
                    }
                elif (across or up) and metric in table["metrics"]:
                    suite = picked if up else surface
                    lines.append(f"{plain(variant)} is not in the picture: no difference is known for {plain(suite)}.")


_ENDS = ("value", "low", "high")


def _pair(row: Json) -> str:
    surface, choices = (
        f"{plain(row[suite])}: {metric_of(row.get(f'{suite}_metric', default)).title.removesuffix(' %')}"
        for suite, default in (("surface", "bleu"), ("choices", _CHOICE))
    )
    beside = ", from its control" if row.get("against") == "control" else ""
    return f"{surface} less {choices}{beside}"


def _why(row: Json, summary: Json, name: str) -> str:
    """Why an index is not defined: too few items, or a difference that no draw of items changes."""
    if row.get("n", 2) < 2:
        return f"n = {row['n']}, and one item has no standard error"
    suites, key = summary["conditions"][name]["suites"], _KEYS[row.get("against") or "reference"]
    measured = row.get("surface_metric", "bleu"), row.get("choices_metric", _CHOICE)
    for suite, metric in zip((row["surface"], row["choices"]), measured, strict=True):
        found = suites.get(suite, {}).get("metrics", {}).get(metric, {}).get(row["variant"], {}).get(key)
        if found and found["low"] == found["high"]:
            return f"every item of {plain(suite)} has the same {metric} in both, so that its difference has no error"
    return "one of the two differences has no standard error"


def plane_chart(rows: list[dict[str, Any]]) -> Spec:
    """Difference in BLEU over difference in accuracy, a point and a cross of 95% intervals for each variant.

    Which output and what the differences are from can be chosen where there is a choice.
    """
    params, filters = selectable(rows, {"output": "BLEU of the", "against": "differences from"})
    shared = filtered(rows, filters)
    offset = 8
    x = alt.X("x:Q", title="difference in accuracy, percentage points")
    y = alt.Y("y:Q", title="difference in BLEU")
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    legend = alt.Legend(orient="top", title=None) if len(pairs) > 1 else None
    colour = alt.Color("pair:N", scale=alt.Scale(range=list(COLOURS)), sort=pairs, legend=legend)
    tooltip = ["variant:N", "pair:N", *(alt.Tooltip(f"{a}:Q", format="+.2f", title=t) for a, t in _TIPS)]
    zero = alt.Chart(alt.Data(values=[{"zero": 0}]))
    dash = {"strokeDash": [4, 3], "opacity": 0.6}
    layers = [
        zero.mark_rule(**dash).encode(x=alt.X("zero:Q", title=x["title"])),
        zero.mark_rule(**dash).encode(y=alt.Y("zero:Q", title=y["title"])),
        shared.mark_rule(strokeWidth=1.5, opacity=0.55).encode(
            x=alt.X("x1:Q", title=x["title"]), x2="x2:Q", y=y, color=colour
        ),
        shared.mark_rule(strokeWidth=1.5, opacity=0.55).encode(
            x=x, y=alt.Y("y1:Q", title=y["title"]), y2="y2:Q", color=colour
        ),
        shared.mark_point(filled=True, size=80, opacity=1).encode(x=x, y=y, color=colour, tooltip=tooltip),
        shared.mark_text(align="left", dx=offset, dy=-offset, fontSize=12).encode(
            x=x, y=y, text="variant:N", color=colour
        ),
    ]
    drawn = alt.layer(*layers).properties(height=380)
    return spec(drawn.add_params(*params) if params else drawn)


_TIPS = (
    *(("x", "accuracy"), ("x1", "accuracy from"), ("x2", "accuracy to")),
    *(("y", "BLEU"), ("y1", "BLEU from"), ("y2", "BLEU to")),
)


def index_chart(rows: list[Json]) -> Spec:
    """The index by variant, with its interval, in standard errors; zero is marked."""
    data = [{**{end: row[end] for end in _ENDS}, "variant": plain(row["variant"]), "pair": _pair(row)} for row in rows]
    shared = alt.Chart(alt.Data(values=data))
    y, offset = alt.Y("variant:N", title=None, sort=None), alt.YOffset("pair:N")
    legend = alt.Legend(orient="top", labelLimit=0, columns=2)
    colour = alt.Color("pair:N", title=None, scale=alt.Scale(range=list(COLOURS)), legend=legend)
    tooltip = ["variant:N", "pair:N", *(alt.Tooltip(f"{end}:Q", format="+.2f") for end in _ENDS)]
    title = "standard errors: below 0 the surface fell further, above 0 the choices"
    bars = shared.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=title), x2="high:Q", y=y, yOffset=offset, color=colour
    )
    points = shared.mark_point(filled=True, size=70).encode(
        x="value:Q", y=y, yOffset=offset, color=colour, tooltip=tooltip
    )
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(strokeDash=[4, 3]).encode(x="zero:Q")
    pairs, variants = (len({row[field] for row in data}) for field in ("pair", "variant"))
    return spec(alt.layer(zero, bars, points).properties(height=24 * pairs * variants))
