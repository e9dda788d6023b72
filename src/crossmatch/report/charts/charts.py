"""Pictures of what a fine-tune changed: altair charts of plain rows, for notebooks, pages and SVG files.

A row is a mapping; those of one tensor carry its `name`, `layer` (None outside of layers) and `module` (its type). A
click on a tensor picks it: charts that stand together mark it in all.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from crossmatch.report.text import plain

Row = Mapping[str, Any]
Spec = dict[str, Any]
# Okabe and Ito's palette, told apart with any colour vision; it holds on light and dark grounds.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
GREY = "#999999"
# One object for all charts: those that stand together share it.
PICKED = alt.selection_point(name="picked", fields=["name"], on="click", empty=False)
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def heat_map(rows: Iterable[Row], field: str, title: str, *, centre: float = 0.0, log: bool = False) -> Any:
    """Layer by module type: `field` of every tensor in colours that diverge from `centre`.

    log: the scale is that of ratios, as far above the centre as below. Numbers of which none is negative have a scale
    from zero. Where several tensors share a cell, as experts
    do, the one furthest from the centre speaks; a cell without a number is grey. Tensors outside of layers are left
    out. Other fields of a row that are numbers stand in its tooltip.
    """
    cells = _cells(rows, field, centre, log=log)
    numbers = [row[field] for row in cells if row[field] is not None]
    if log:
        widest = max((max(n / centre, centre / n) for n in numbers if n > 0), default=1.0) * 1.0001
        scale = alt.Scale(type="log", scheme="blueorange", domain=[centre / widest, centre * widest])
    elif centre == 0 and min(numbers, default=-1.0) >= 0:
        scale = alt.Scale(scheme="oranges", domain=[0, max(numbers) or 1.0])
    else:
        limit = max((abs(n - centre) for n in numbers), default=0.0) or 1.0
        scale = alt.Scale(scheme="blueorange", domain=[centre - limit, centre + limit])
    x = alt.X("module:N", title=None, sort=order_of(cells), axis=alt.Axis(labelAngle=-40))
    y = alt.Y("layer:O", title="layer")
    colour = alt.Color(f"{field}:Q", scale=scale, title=title, legend=alt.Legend(format=".2~g", titleLimit=240))
    shared = alt.Chart(alt.Data(values=cells))
    ground = shared.mark_rect(color=GREY, opacity=0.25).encode(x=x, y=y, tooltip=["name:N"])
    ground = ground.transform_filter(f"!isValid(datum['{field}'])")
    filled = (
        shared.mark_rect()
        .encode(
            x=x,
            y=y,
            color=colour,
            stroke=alt.condition(PICKED, alt.value("#d62728"), alt.value(None), empty=False),
            strokeWidth=alt.condition(PICKED, alt.value(2.5), alt.value(0), empty=False),
            tooltip=_tooltip(cells),
        )
        .transform_filter(f"isValid(datum['{field}'])")
        .add_params(PICKED)
    )
    return alt.layer(ground, filled).properties(height=max(160, 14 * len({row["layer"] for row in cells})))


def spectra(rows: Iterable[Row]) -> alt.Chart:
    """Singular values over their index, a line a tensor, relative to its first; rows carry `singular_values`."""
    points = [
        {**_facets(row), "index": place, "share": value / row["singular_values"][0]}
        for row in rows
        if row["singular_values"] and row["singular_values"][0] > 0
        for place, value in enumerate(row["singular_values"], 1)
        if value > 0
    ]
    return (
        alt.Chart(alt.Data(values=points))
        .mark_line()
        .encode(
            x=alt.X("index:Q", title="singular value", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("share:Q", title="relative to the first", scale=alt.Scale(type="log"), axis=alt.Axis(format="~g")),
            detail="name:N",
            color=_by_module(points),
            opacity=alt.condition(PICKED, alt.value(1.0), alt.value(0.25), empty=False),
            strokeWidth=alt.condition(PICKED, alt.value(3.5), alt.value(1.0), empty=False),
            tooltip=["name:N", "index:Q", alt.Tooltip("share:Q", format=".4g")],
        )
        .add_params(PICKED)
        .properties(height=300)
    )


def angles(rows: Iterable[Row]) -> Any:
    """Principal angles of two vectors in degrees, by module type and side, a tick an angle; a line where those of
    random subspaces lie on average.

    Rows carry `side` (what it is an angle of), `degrees` (a list) and `null_degrees`.
    """
    ticks, nulls = [], {}
    for row in rows:
        facets = {**_facets(row), "side": plain(row["side"])}
        ticks += [{**facets, "degrees": degrees} for degrees in row["degrees"]]
        nulls[facets["module"], facets["side"]] = {**facets, "null": row["null_degrees"]}
    order = order_of(ticks)
    y, offset = alt.Y("module:N", title=None, sort=order), alt.YOffset("side:N")
    drawn = (
        alt.Chart(alt.Data(values=ticks))
        .mark_tick(size=12)
        .encode(
            x=alt.X("degrees:Q", title="principal angle, degrees", scale=alt.Scale(domain=[0, 90])),
            y=y,
            yOffset=offset,
            color=_legend("side"),
            opacity=alt.condition(PICKED, alt.value(1.0), alt.value(0.18), empty=False),
            tooltip=["name:N", "side:N", alt.Tooltip("degrees:Q", format=".1f")],
        )
        .add_params(PICKED)
    )
    expected = (
        alt.Chart(alt.Data(values=list(nulls.values())))
        .mark_tick(thickness=2, size=14, color="#d62728")
        .encode(
            x="null:Q",
            y=y,
            yOffset=offset,
            tooltip=["module:N", "side:N", alt.Tooltip("null:Q", format=".1f", title="random subspaces")],
        )
    )
    return alt.layer(drawn, expected).properties(height=36 * max(1, len({t["module"] for t in ticks})))


def curves(
    rows: Sequence[Row], x: str, *, x_title: str, y_title: str, marks: Sequence[Row] = (), null: str | None = None
) -> Any:
    """Lines with their intervals: `value`, `low` and `high` over the field `x`, one line a `series`.

    marks: further points of the same fields, with their intervals, as nulls are; null: a field of the rows that is
    drawn as a dashed line of the same colour.
    """
    data = [{**row, "series": plain(row["series"])} for row in rows]
    shared = alt.Chart(alt.Data(values=data))
    whole = all(isinstance(row[x], int) for row in rows)
    axis = alt.Axis(tickMinStep=1, format="d") if whole else alt.Axis()
    across, up = alt.X(f"{x}:Q", title=x_title, axis=axis), alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=False))
    colour = _legend("series")
    tooltip = ["series:N", f"{x}:Q", *(alt.Tooltip(f"{k}:Q", format=".4g") for k in ("value", "low", "high"))]
    layers: list[Any] = [
        shared.mark_area(opacity=0.18).encode(x=across, y=alt.Y("low:Q", title=y_title), y2="high:Q", color=colour),
        shared.mark_line(point={"size": 26}).encode(x=across, y=up, color=colour, tooltip=tooltip),
    ]
    if null is not None:
        layers.append(shared.mark_line(strokeDash=[4, 4]).encode(x=across, y=f"{null}:Q", color=colour))
    if marks:
        points = alt.Chart(alt.Data(values=[{**row, "series": plain(row["series"])} for row in marks]))
        layers.append(points.mark_rule().encode(x=across, y="low:Q", y2="high:Q", color=colour))
        shape = alt.Shape("kind:N", legend=alt.Legend(orient="top", title=None))
        drawn = points.mark_point(filled=True, size=80)
        layers.append(drawn.encode(x=across, y=up, color=colour, shape=shape, tooltip=["kind:N", *tooltip]))
    return alt.layer(*layers).properties(height=280)


def scatter(rows: Sequence[Row], x: str, y: str, *, x_title: str, y_title: str, diagonal: bool = False) -> Any:
    """Field `y` over field `x`, a point a tensor; diagonal: where both would be equal."""
    data = [{**row, **_facets(row)} for row in rows if row[x] is not None and row[y] is not None]
    points = (
        alt.Chart(alt.Data(values=data))
        .mark_point(filled=True, opacity=0.85)
        .encode(
            x=alt.X(f"{x}:Q", title=x_title, axis=alt.Axis(format="~g")),
            y=alt.Y(f"{y}:Q", title=y_title, axis=alt.Axis(format="~g")),
            color=_by_module(data),
            size=alt.condition(PICKED, alt.value(260), alt.value(60), empty=False),
            stroke=alt.condition(PICKED, alt.value("#d62728"), alt.value(None), empty=False),
            tooltip=["name:N", alt.Tooltip(f"{x}:Q", format=".4g"), alt.Tooltip(f"{y}:Q", format=".4g")],
        )
        .add_params(PICKED)
    )
    layers = [points]
    if diagonal and data:
        ends = [end(row[x] for row in data) for end in (min, max)]
        line = alt.Chart(alt.Data(values=[{x: end, y: end} for end in ends]))
        layers.insert(0, line.mark_line(strokeDash=[4, 4], strokeWidth=1, color=GREY).encode(x=f"{x}:Q", y=f"{y}:Q"))
    return alt.layer(*layers).properties(height=300)


def selectable(rows: Sequence[Row], titles: Mapping[str, str]) -> tuple[list[Any], list[str]]:
    """Parameters with a menu each, and the filters that they stand for: of every field that has several values.

    titles: field -> what stands before its menu. The first value is chosen. Filters, not opacity: axes follow them.
    """
    params, filters = [], []
    for field, title in titles.items():
        options = list(dict.fromkeys(row[field] for row in rows))
        if len(options) > 1:
            params.append(
                alt.param(name=field, value=options[0], bind=alt.binding_select(options=options, name=f"{title} "))
            )
            filters.append(f"datum.{field} == {field}")
    return params, filters


def filtered(rows: Sequence[Row], filters: Iterable[str]) -> alt.Chart:
    """A chart of rows that pass all filters."""
    chart = alt.Chart(alt.Data(values=list(rows)))
    for text in filters:
        chart = chart.transform_filter(text)
    return chart


def spec(chart: Any, width: int | str = "container") -> Spec:
    """A chart as Vega-Lite JSON. The page sets colours and fonts of its own, for light and dark."""
    found: Spec = chart.properties(width=width).to_dict(validate=False)
    found.pop("config", None)
    return found


def svg(chart: Any, width: int = 640) -> str:
    """A chart as an SVG file's text."""
    import vl_convert

    return vl_convert.vegalite_to_svg(spec(chart, width))


def order_of(rows: Iterable[Row]) -> list[str] | None:
    """Module types in the order of a block, others behind by name; None without rows."""
    present = {row["module"] for row in rows}
    return [*(m for m in MODULES if m in present), *sorted(present.difference(MODULES))] or None


def _cells(rows: Iterable[Row], field: str, centre: float, *, log: bool) -> list[dict[str, Any]]:
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for row in rows:
        if row["layer"] is None:
            continue
        value = row[field]
        if log and value is not None and value <= 0:
            value = None
        kept = {k: v for k, v in row.items() if isinstance(v, int | float) or v is None}
        cell = {**kept, **_facets(row), field: value}
        away = 0.0 if value is None else max(value / centre, centre / value) if log else abs(value - centre)
        key = row["layer"], row["module"]
        if key not in found or away > found[key]["away"]:
            found[key] = {**cell, "away": away}
    return [{k: v for k, v in cell.items() if k != "away"} for cell in found.values()]


def _facets(row: Row) -> dict[str, Any]:
    return {"name": plain(row["name"]), "layer": row["layer"], "module": plain(row["module"])}


def _tooltip(cells: Sequence[Row]) -> list[Any]:
    fields = [k for k in (cells[0] if cells else ()) if k not in ("name", "layer", "module")]
    shown = [alt.Tooltip(f"{k}:Q", format=".4g", title=k.replace("_", " ")) for k in fields]
    return [alt.Tooltip("name:N"), *shown]


def _by_module(rows: Sequence[Row]) -> alt.Color:
    scale = alt.Scale(range=[*COLOURS, GREY])
    return alt.Color("module:N", sort=order_of(rows), scale=scale, legend=alt.Legend(orient="top", title=None))


def _legend(field: str) -> alt.Color:
    return alt.Color(
        f"{field}:N", sort=None, scale=alt.Scale(range=list(COLOURS)), legend=alt.Legend(orient="top", title=None)
    )


def beside(*charts: Any) -> alt.HConcatChart:
    """Charts in a row that share what is picked; for notebooks."""
    with warnings.catch_warnings():
        # altair warns of what is meant here: one selection for all.
        warnings.filterwarnings("ignore", message="Automatically deduplicated selection parameter")
        return alt.hconcat(*charts)
