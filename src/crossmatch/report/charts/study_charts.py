"""The charts of the report, as Vega-Lite specifications made with altair. Colours and fonts come from the page."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from crossmatch.report.charts.charts import COLOURS, Spec, heat_map, order_of, spec
from crossmatch.report.text import plain


def weights_chart(verdict: Mapping[str, Any]) -> Spec:
    """Claimed weights as ticks, recovered ones with the bars that a claim must lie in, and those of every module
    behind."""
    sigmas = verdict.get("thresholds", {}).get("sigmas", 4.0)
    pooled, modules = [], []
    for name, weight in verdict["weights"].items():
        row = {"adapter": plain(name), **weight, "low": None, "high": None}
        if weight["recovered"] is not None:
            bar = sigmas * weight["stderr"]
            row |= {"low": weight["recovered"] - bar, "high": weight["recovered"] + bar}
        pooled.append(row)
        for module in verdict.get("details", ()):
            if name in module["weights"]:
                found = {"adapter": plain(name), "module": plain(module["name"]), **module["weights"][name]}
                modules.append(found)
    y = alt.Y("adapter:N", title=None, sort=None)
    scale = alt.Scale(zero=True, nice=True)
    behind = (
        alt.Chart(alt.Data(values=modules))
        .mark_tick(thickness=1, size=34, opacity=0.35, color=COLOURS[5])
        .encode(
            x=alt.X("recovered:Q", title="weight", scale=scale, axis=alt.Axis(tickCount=6, labelOverlap="greedy")),
            y=y,
            tooltip=["module:N", _number("recovered", ".5f"), _number("stderr", ".1e", "standard error")],
        )
    )
    shared = alt.Chart(alt.Data(values=pooled))
    tooltip = ["adapter:N", _number("claimed", ".4g"), _number("recovered", ".6f"), _number("stderr", ".1e")]
    claimed = shared.mark_tick(thickness=3, size=44, color=COLOURS[1]).encode(x="claimed:Q", y=y, tooltip=tooltip)
    bars = shared.mark_rule(strokeWidth=2, color=COLOURS[0]).encode(x="low:Q", x2="high:Q", y=y)
    points = shared.mark_point(filled=True, size=90, color=COLOURS[0]).encode(x="recovered:Q", y=y, tooltip=tooltip)
    return spec(alt.layer(behind, claimed, bars, points).properties(height=60 * max(1, len(pooled))))


def recovered_chart(verdict: Mapping[str, Any], adapter: str) -> Spec | None:
    """Layer by module type: the weight of one adapter as recovered there, in colours centred at the claim; a cross on
    what contradicts the claim, a question mark where there is no evidence. None without results by module."""
    claimed = verdict["weights"][adapter]["claimed"]
    centre = claimed if claimed is not None else verdict["weights"][adapter]["recovered"] or 0.0
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for detail in verdict.get("details", ()):
        if "layer" not in detail:
            return None
        recovered = detail["weights"].get(adapter, {}).get("recovered")
        row = {
            "name": plain(detail["name"]),
            "layer": "none" if detail["layer"] is None else str(detail["layer"]),
            "order": -1 if detail["layer"] is None else detail["layer"],
            "module": plain(detail["module"]),
            "recovered": recovered,
            "stderr": detail["weights"].get(adapter, {}).get("stderr"),
            "state": detail["state"],
            "mark": "×" if detail["state"] == "disagree" else "?" if recovered is None else "",
            "away": 0.0 if recovered is None else abs(recovered - centre),
        }
        # Where several tensors share a cell, as experts do, the one that is furthest from the claim speaks.
        key = (row["layer"], row["module"])
        if key not in cells or _speaks(row) > _speaks(cells[key]):
            cells[key] = row
    rows = list(cells.values())
    if not rows:
        return None
    # Rounding noise is not to look like a difference: the scale is never narrower than the tolerance.
    tolerance = verdict.get("thresholds", {}).get("weight", 0.01)
    limit = max([tolerance, *(row["away"] for row in rows)])
    scale = alt.Scale(scheme="blueorange", domain=[centre - limit, centre + limit])
    x = alt.X("module:N", title=None, sort=order_of(rows), axis=alt.Axis(labelAngle=-40))
    y = alt.Y("layer:O", title="layer", sort=alt.EncodingSortField("order", op="min"))
    tooltip = ["name:N", _number("recovered", ".5f"), _number("stderr", ".1e", "standard error"), "state:N"]
    shared = alt.Chart(alt.Data(values=rows))
    ground = shared.mark_rect(color="#999", opacity=0.35, stroke="#999").encode(x=x, y=y, tooltip=tooltip)
    colour = alt.Color("recovered:Q", scale=scale, title="weight", legend=alt.Legend(format=".3~g"))
    filled = shared.mark_rect(stroke="#999", strokeWidth=0.5).encode(x=x, y=y, color=colour, tooltip=tooltip)
    known = filled.transform_filter("isValid(datum.recovered)")
    # Red on a white rim: it is read on every colour of the scale.
    rims = shared.mark_text(fontSize=14, fontWeight="bold", color="#fff", stroke="#fff", strokeWidth=4)
    marks = shared.mark_text(fontSize=14, fontWeight="bold", color="#b3261e")
    layers = [ground, known, *(one.encode(x=x, y=y, text="mark:N") for one in (rims, marks))]
    return spec(alt.layer(*layers).properties(height=max(160, 14 * len({row["layer"] for row in rows}))))


def _speaks(row: Mapping[str, Any]) -> tuple[bool, float]:
    return row["state"] == "disagree", row["away"]


def loss_chart(adapters: Mapping[str, Mapping[str, Any]]) -> Spec | None:
    """Training loss by step, one line a stage; None if no adapter was trained here."""
    rows = [
        {"stage": f"{name} ({record.get('stage')})", "step": step, "loss": loss}
        for name, record in adapters.items()
        for step, loss in record.get("loss") or ()
    ]
    if not rows:
        return None
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point={"size": 14}, strokeWidth=1.5)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("loss:Q", title="loss (nats per token)", scale=alt.Scale(zero=False)),
            color=_colour("stage"),
            tooltip=["stage:N", "step:Q", _number("loss", ".3f")],
        )
    )
    return spec(chart.properties(height=260))


def weight_text(weight: float | str) -> str:
    """A merge weight for people: a number, or the text of one that differs between modules."""
    return weight if isinstance(weight, str) else f"{weight:g}"


def overlap_charts(overlap: Mapping[str, Any]) -> tuple[Spec, Spec]:
    """Layer by module type: cosine of the two deltas (centred at 0), and their energy ratio (centred at 1)."""
    w1, w2 = map(weight_text, overlap["weights"])
    ratio = f"‖{w1} {overlap['first']}‖² / ‖{w2} {overlap['second']}‖²"
    cosine = heat_map(overlap["modules"], "cosine", "cosine")
    return spec(cosine), spec(heat_map(overlap["modules"], "energy_ratio", ratio, centre=1.0, log=True))


def _number(field: str, form: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", format=form, title=title or field.replace("_", " "))


def _colour(field: str) -> alt.Color:
    legend = alt.Legend(orient="top", title=None)
    return alt.Color(f"{field}:N", scale=alt.Scale(range=list(COLOURS)), legend=legend)
