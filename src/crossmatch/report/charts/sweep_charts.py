"""Charts of a sweep: the map of a goal over two weights, the front of two goals, and the path of the search."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from crossmatch.report.charts.charts import COLOURS, GREY, Spec, spec
from crossmatch.report.text import plain
from crossmatch.results.metrics import metric_of

Json = Mapping[str, Any]
_RECOMMENDED, _OTHER = "recommended", "tried"
# Of cells whose points were asked fewer items than others, so that their values cannot be compared with theirs.
_FEWER = "#d9d6d0"
# Weights that an axis has room to name.
_TICKS = 12
# Of points in the chart of two measures.
_STATES = {"recommended": COLOURS[1], "front": COLOURS[0], "finalist": COLOURS[2], "other": GREY}


def map_chart(found: Json, recommended: int) -> Spec:
    """The measured values in the place of their weights: cells where the weights lie on a grid, else a surface in
    bands (a contour map) with the points on it. A ring marks the recommended point. Grey, with an open point: asked
    fewer items than others before it was dropped, so that its value is one of other items."""
    metric = found["measure"].partition(".")[2]
    known = metric_of(metric)
    title, form, scale = known.title, known.form, known.unit.scale
    rows = [_map_row(row, scale, form, recommended) for row in found["points"] if row["value"] is not None]
    across, up = found["steps"]
    colour = alt.Color(
        "shown:Q",
        title=title,
        scale=alt.Scale(scheme="viridis", zero=False),
        bin=alt.Bin(maxbins=9) if found["surface"] else False,
    )
    most = max((row["n"] for row in rows), default=0)
    x = alt.X("x:Q", **_weight_axis(found, "x", rows, across))
    y = alt.Y("y:Q", **_weight_axis(found, "y", rows, up))
    tooltip = ["name:N", alt.Tooltip("text:N", title=title), alt.Tooltip("gain:N", title="gain"), "n:Q", "state:N"]
    layers = []
    if found["surface"]:
        cells = [{**cell, "shown": cell["value"] * scale} for cell in found["surface"]]
        layers.append(
            alt.Chart(alt.Data(values=cells)).mark_rect().encode(x=x, x2="x2:Q", y=y, y2="y2:Q", color=colour)
        )
    elif across and up:
        cells = [
            {
                **row,
                "x": row["x"] - across / 2,
                "x2": row["x"] + across / 2,
                "y": row["y"] - up / 2,
                "y2": row["y"] + up / 2,
            }
            for row in rows
        ]
        for fill, part in ((colour, [c for c in cells if c["n"] == most]), (None, [c for c in cells if c["n"] < most])):
            ground = alt.Chart(alt.Data(values=part)).mark_rect(stroke="#fff", strokeWidth=1, color=_FEWER)
            ground = ground.encode(x=x, x2="x2:Q", y=y, y2="y2:Q", tooltip=tooltip)
            layers += [ground.encode(color=fill) if fill is not None else ground] if part else []
    for whole, inside, edge in ((True, "#1c1b1a", "#fff"), (False, "#fff", "#777")):
        some = [row for row in rows if (row["n"] == most) is whole]
        points = alt.Chart(alt.Data(values=some)).mark_point(
            filled=True, fill=inside, size=46, stroke=edge, strokeWidth=1, opacity=1
        )
        layers += [points.encode(x=x, y=y, tooltip=tooltip)] if some else []
    shared = alt.Chart(alt.Data(values=rows))
    ring = shared.transform_filter(f"datum.state == '{_RECOMMENDED}'").mark_point(size=420, strokeWidth=4, opacity=1)
    layers.append(ring.encode(x=x, y=y, color=alt.value(COLOURS[1]), tooltip=tooltip))
    return spec(alt.layer(*layers).properties(height=420))


def _weight_axis(found: Json, axis: str, rows: Sequence[Json], step: float | None) -> dict[str, Any]:
    """Of an axis of weights, with ticks at those that were tried where these lie on a grid."""
    ticks = sorted({row[axis] for row in rows}) if step else None
    shown = alt.Axis(values=ticks, format=".4~g") if ticks is not None and len(ticks) <= _TICKS else alt.Axis()
    return {"title": f"weight of {plain(found[axis])}", "axis": shown, "scale": alt.Scale(zero=False, nice=False)}


def _map_row(row: Json, scale: float, form: str, recommended: int) -> dict[str, Any]:
    state = _RECOMMENDED if row["number"] == recommended else row["dropped"] or _OTHER
    return {
        "name": plain(row["name"]),
        "x": row["x"],
        "y": row["y"],
        "shown": row["value"] * scale,
        "text": _interval(row, "", scale, form),
        "gain": _interval(row, "gain_", scale, f"+{form}"),
        "n": row["n"],
        "state": plain(state),
    }


def _interval(row: Json, prefix: str, scale: float, form: str) -> str:
    value, low, high = (row[f"{prefix}{key}"] for key in ("value", "low", "high"))
    if value is None:
        return "–"
    bounds = f" ({low * scale:{form}} to {high * scale:{form}})" if low is not None else ""
    return f"{value * scale:{form}}{bounds}"


def front_chart(rows: Sequence[Json], titles: tuple[str, str]) -> Spec:
    """Two goals against each other with their intervals, the front in colour; rows: name, x, x_low, x_high, y, y_low,
    y_high, and state (`front`, `recommended`, `finalist` or `other`)."""
    data = [{**row, "name": plain(row["name"])} for row in rows]
    shared = alt.Chart(alt.Data(values=data))
    states = [state for state in _STATES if any(row["state"] == state for row in data)]
    scale = alt.Scale(domain=states, range=[_STATES[state] for state in states])
    colour = alt.Color("state:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    x = alt.X("x:Q", title=titles[0], scale=alt.Scale(zero=False))
    y = alt.Y("y:Q", title=titles[1], scale=alt.Scale(zero=False))
    on_front = "datum.state != 'other'"
    across = (
        shared.transform_filter(on_front).mark_rule(opacity=0.55).encode(x="x_low:Q", x2="x_high:Q", y=y, color=colour)
    )
    up = shared.transform_filter(on_front).mark_rule(opacity=0.55).encode(x=x, y="y_low:Q", y2="y_high:Q", color=colour)
    points = shared.mark_point(filled=True, size=70, opacity=1).encode(
        x=x, y=y, color=colour, tooltip=["name:N", "x:Q", "y:Q"]
    )
    names = shared.transform_filter(on_front).mark_text(align="left", dx=8, dy=-6).encode(x=x, y=y, text="name:N")
    return spec(alt.layer(across, up, points, names).properties(height=340))


def path_chart(rows: Sequence[Json], title: str) -> Spec:
    """The gain of every point in the order in which it was tried, with its interval, and the best so far; rows: number,
    name, value, low, high, best, dropped."""
    data = [
        {**row, "name": plain(row["name"]), "state": "dropped" if row["dropped"] else "asked everything"}
        for row in rows
    ]
    shared = alt.Chart(alt.Data(values=data))
    scale = alt.Scale(domain=["asked everything", "dropped"], range=[COLOURS[0], GREY])
    colour = alt.Color("state:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    x = alt.X("number:Q", title="point, in the order in which it was tried", axis=alt.Axis(tickMinStep=1))
    bars = shared.mark_rule(opacity=0.5).encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=colour)
    points = shared.mark_point(filled=True, size=50).encode(
        x=x, y="value:Q", color=colour, tooltip=["name:N", alt.Tooltip("value:Q", format="+.3g"), "dropped:N"]
    )
    best = shared.mark_line(interpolate="step-after", color=COLOURS[1]).encode(x=x, y="best:Q")
    null = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(strokeDash=[4, 4]).encode(y="zero:Q")
    return spec(alt.layer(null, bars, best, points).properties(height=280))
