"""Interference as the page shows it: what was predicted against what was measured. No number is made here.

Facts are those of `predict_and_measure`, plain JSON.
"""

from collections.abc import Mapping
from typing import Any

import altair as alt

from crossmatch.report.charts.charts import GREY, Spec, heat_map, spec
from crossmatch.report.page.interference_tables import (
    UNITS,
    agreement_tables,
    classes_table,
    correlation,
    layers_chart,
    predicted_chart,
)
from crossmatch.report.text import plain


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
    drawn = heat_map(rows, "value", UNITS.get(target, ""))
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
            y=alt.Y("measured:Q", title=f"{target} measured, {UNITS.get(target, '')}", scale=alt.Scale(zero=False)),
            color=alt.Color("guest:O", title=f"{plain(facts['guest'])} x", scale=alt.Scale(scheme="viridis")),
            tooltip=["weights:N", _number("predicted"), _number("measured")],
        )
    )
    diagonal = _diagonal([row["predicted"] for row in rows])
    return spec(alt.layer(diagonal, points).properties(height=300, title=correlation(grid["agreement"][order])))


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


def interference_view(facts: Mapping[str, Any] | None) -> tuple[dict[str, Any] | None, dict[str, Spec]]:
    """What the page says in words and tables, with its charts by name; None, and none, without facts."""
    if not facts:
        return None, {}
    guest, host = plain(facts["guest"]), plain(facts["host"])
    drawn = {
        "predicted": predicted_chart(facts),
        "layers": layers_chart(facts),
        "attribution": attribution_chart(facts),
        "merge_weights": weights_chart(facts),
    }
    words = {
        "predicted": "Predicted against measured, a point for each module or band of modules. The line: both are "
        "equal; of a predictor in units of its own: no change.",
        "layers": "How far the network is from adding the two adapters' effects: energy of what both together do to "
        "the residual stream, less what each does alone, over that of the sum of the two. 0: they just add. Bands: "
        "95%, texts as clusters.",
        "attribution": f"Where {guest} changes the loss: integrated gradients of a gate on each module.",
        "merge_weights": "The loss at other merge weights, expanded to second order about the merge, against measured.",
    }
    missing = {
        "predicted": "no module could be switched apart",
        "layers": "non-additivity is not defined behind any layer",
        "attribution": "no module of it lies in a layer",
        "merge_weights": "no other weights were measured",
    }
    charts = {f"interference_{name}": chart for name, chart in drawn.items() if chart is not None}
    view = {
        "guest": guest,
        "host": host,
        "sentences": _sentences(facts, guest, host),
        "tables": agreement_tables(facts),
        "classes": classes_table(facts),
        "charts": [{"chart": f"interference_{k}", "text": words[k]} for k, chart in drawn.items() if chart is not None],
        "left_out": [f"No picture: {missing[name]}." for name, chart in drawn.items() if chart is None],
    }
    return view, charts


def _sentences(facts: Mapping[str, Any], guest: str, host: str) -> list[str]:
    texts = facts["texts"]
    found = facts["attribution"].get("loss")
    counted = f"{texts['measured_items']} held-out answers"
    lines = []
    if found:
        share = found["completeness"]
        change = _estimate(found["change"])
        ends = " to ".join(_estimate(found[name], sign="") for name in ("host_alone", "merge"))
        whole = "–" if share is None else f"{share:.3f}"
        lines.append(
            f"Switching {guest} on beside {host} changes the loss on {counted} by {change} nats per token, "
            f"from {ends}. Integrated gradients of a gate on each module account for {whole} of it (1: all)."
        )
    else:
        lines.append("No loss was measured: there is no item with an answer.")
    odds = facts["attribution"].get("odds")
    if odds:
        change = _estimate(odds["change"])
        lines.append(
            f"The log-odds of a trace's opener against the answer's first token change by {change} nats, on "
            f"{texts['measured_probes']} probes."
        )
    else:
        lines.append("No log-odds of a trace: there are no probes.")
    far = facts["divergence"]
    lines.append(
        f"KL(merge || {host} alone) is {_estimate(far['first_token'], sign='')} nats at an answer's first token and "
        f"{_estimate(far['per_token'], sign='')} nats per token of it."
    )
    lines.append(f"± is one standard error, texts as clusters; activations were taken on {texts['items']} answers.")
    return lines


def _estimate(found: Mapping[str, Any], sign: str = "+") -> str:
    if found["value"] is None:
        return "–"
    error = "–" if found["stderr"] is None else f"{found['stderr']:.2g}"
    return f"{found['value']:{sign}.4g} ± {error}"
