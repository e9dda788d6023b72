"""Interference as the page shows it: what was predicted against what was measured. No number is made here.

Facts are those of `predict_and_measure`, plain JSON.
"""

from collections.abc import Mapping
from typing import Any

import altair as alt

from crossmatch.report.pictures import COLOURS, GREY, Spec, heat_map, order_of, spec
from crossmatch.report.words import plain

_UNITS = {"loss": "nats per token", "odds": "nats"}
_PREDICTORS = {
    "gradient": "gradient of the gates",
    "integrated": "integrated gradients of the gates",
    "activation_ratio": "guest's activations over the host's, ratio of energies",
    "activation_size": "guest's activations over the base's, ratio of energies",
    "activation_reversed": "share of the host's activations taken back",
    "overlap_cosine": "cosine of the deltas",
    "overlap_energy": "energy ratio of the deltas",
}
# These predict the change itself, in its own units: the diagonal is a perfect prediction.
_SAME_UNITS = ("gradient", "integrated")
_WAYS = {"off": "switching it off", "on": "switching it on", "mean": "mean of switching it off and on"}


def agreement_chart(
    facts: Mapping[str, Any], target: str = "loss", predictor: str = "integrated", way: str = "mean"
) -> Spec | None:
    """Predicted against measured change of a target, a point for each unit; the rank correlation in the title.

    None without the target, the predictor or a unit for which it is defined.
    """
    if target not in facts["measured"] or predictor not in facts["agreement"][target]:
        return None
    rows = []
    for unit in facts["measured"][target]["units"]:
        measured, predicted = unit[way], unit["predicted"][predictor][way]
        value = measured if way == "mean" else measured["value"]
        if value is None or predicted is None:
            continue
        error = None if way == "mean" else measured["stderr"]
        bar = {"low": value - error, "high": value + error} if error is not None else {"low": value, "high": value}
        facets = {"unit": plain(unit["name"]), "module": plain(unit["module"])}
        rows.append({**facets, "predicted": predicted, "measured": value, **bar})
    if not rows:
        return None
    found = facts["agreement"][target][predictor][way]["change"]
    guest = plain(facts["guest"])
    unit = _UNITS.get(target, "")
    x = alt.X("predicted:Q", title=_PREDICTORS.get(predictor, predictor), axis=alt.Axis(format="~g"))
    y = alt.Y("measured:Q", title=f"{target} due to {guest}, {unit}: {_WAYS[way]}", axis=alt.Axis(format="~g"))
    order = order_of(rows)
    # Seven types of modules: grey joins the six colours; the shape helps where colours do not.
    colours = alt.Scale(range=[*COLOURS, GREY])
    colour = alt.Color("module:N", sort=order, scale=colours, legend=alt.Legend(title=None))
    shape = alt.Shape("module:N", sort=order, legend=None)
    tooltip = ["unit:N", _number("predicted"), _number("measured")]
    shared = alt.Chart(alt.Data(values=rows))
    points = shared.mark_point(filled=True, size=70, opacity=0.85).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=tooltip
    )
    bars = shared.mark_rule(strokeWidth=1, opacity=0.5).encode(
        x=x, y=alt.Y("low:Q", title=y["title"]), y2="high:Q", color=colour
    )
    layers = [bars, points] if way != "mean" else [points]
    if predictor in _SAME_UNITS:
        layers.insert(0, _diagonal([row["predicted"] for row in rows]))
    return spec(alt.layer(*layers).properties(height=320, title=_correlation(found)))


def attribution_chart(facts: Mapping[str, Any], target: str = "loss", adapter: str | None = None) -> Spec | None:
    """Layer by module type: what an adapter (None: the guest) adds to a target, in colours centred at 0.

    Integrated gradients for the guest, the gradient in the merge for the host. None without modules in layers.
    """
    name: str = adapter or facts["guest"]
    found = facts["attribution"].get(target)
    rows = []
    for module in found["modules"] if found else ():
        if module["adapter"] != name or module["layer"] is None:
            continue
        estimate = module["integrated"] or module["gradient"]
        row = {"name": plain(module["name"]), "layer": module["layer"], "module": plain(module["module"])}
        rows.append({**row, "value": estimate["value"], "stderr": estimate["stderr"]})
    if not rows:
        return None
    drawn = heat_map(rows, "value", _UNITS.get(target, ""))
    return spec(drawn.properties(title=_added(found, name, facts)))


def weights_chart(facts: Mapping[str, Any], target: str = "loss", order: str = "second_order") -> Spec | None:
    """Target over merge weights: expanded about the merge against measured; the merge itself is not among the points.

    None without the target or without another point.
    """
    grid = facts["weights_grid"].get(target)
    w1, w2 = facts["weights"][facts["guest"]], facts["weights"][facts["host"]]
    rows = [
        {**point, "predicted": point[order], "weights": f"{point['guest']:g} x {w1}, {point['host']:g} x {w2}"}
        for point in (grid["points"] if grid else ())
        if (point["guest"], point["host"]) != (1.0, 1.0)
    ]
    if not grid or not rows:
        return None
    name = order.replace("_", " ")
    points = (
        alt.Chart(alt.Data(values=rows))
        .mark_point(filled=True, size=70, opacity=0.85)
        .encode(
            x=alt.X("predicted:Q", title=f"{target}, {name} about the merge", scale=alt.Scale(zero=False)),
            y=alt.Y("measured:Q", title=f"{target} measured, {_UNITS.get(target, '')}", scale=alt.Scale(zero=False)),
            color=alt.Color("guest:O", title=f"{plain(facts['guest'])} x", scale=alt.Scale(scheme="viridis")),
            tooltip=["weights:N", _number("predicted"), _number("measured")],
        )
    )
    diagonal = _diagonal([row["predicted"] for row in rows])
    return spec(alt.layer(diagonal, points).properties(height=300, title=_correlation(grid["agreement"][order])))


def _correlation(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return f"Spearman: not defined, n = {found['n']}"
    return f"Spearman {found['value']:.2f} (95% {found['low']:.2f} to {found['high']:.2f}), n = {found['n']}"


def _added(found: Mapping[str, Any], adapter: str, facts: Mapping[str, Any]) -> str:
    if adapter != facts["guest"]:
        return f"gradient of {plain(adapter)}'s gates in the merge"
    change, share = found["change"]["value"], found["completeness"]
    known = "not defined" if share is None else f"{share:.1%}"
    return f"{plain(adapter)} adds {change:+.3g} in all; the modules' sum is {known} of it"


def _diagonal(values: list[float]) -> Any:
    ends = [{"predicted": value, "measured": value} for value in (min(values), max(values))]
    line = alt.Chart(alt.Data(values=ends)).mark_line(strokeDash=[4, 4], strokeWidth=1, color=GREY)
    return line.encode(x="predicted:Q", y="measured:Q")


def _number(field: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", format=".4g", title=title or field)


def interference_charts(facts: Mapping[str, Any] | None) -> dict[str, Spec]:
    """The charts of the page, by name; none without facts."""
    if not facts:
        return {}
    drawn = {
        "agreement": agreement_chart(facts),
        "attribution": attribution_chart(facts),
        "merge_weights": weights_chart(facts),
    }
    return {f"interference_{name}": chart for name, chart in drawn.items() if chart is not None}


def interference_view(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page says in words: who, on how many texts, the change of the loss, whether the parts add up."""
    if not facts:
        return None
    found = facts["attribution"]["loss"]
    change = found["change"]
    return {
        "guest": plain(facts["guest"]),
        "host": plain(facts["host"]),
        "count": facts["texts"]["measured_items"],
        "change": f"{change['value']:+.4f} ± {change['stderr']:.4f}",
        "completeness": f"{found['completeness']:.3f}",
    }
