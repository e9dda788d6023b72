"""The charts of the report, as Vega-Lite specifications made with altair. Colours and fonts come from the page."""

from collections.abc import Mapping
from typing import Any

import altair as alt

Spec = dict[str, Any]
# Okabe and Ito's palette, told apart with any colour vision; it holds on light and dark grounds.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def weights_chart(verdicts: Mapping[str, Mapping[str, Any]]) -> Spec:
    """Claimed weights as ticks, recovered ones with 95% bars, and the recovered weight of every module behind."""
    pooled, modules = [], []
    for merge, verdict in verdicts.items():
        for name, weight in verdict["weights"].items():
            label = f"{name} in {merge}"
            if weight["recovered"] is not None:
                bar = 1.96 * weight["stderr"]
                low, high = weight["recovered"] - bar, weight["recovered"] + bar
                pooled.append({"adapter": label, **weight, "low": low, "high": high})
        for module in verdict.get("details", ()):
            for name, found in module["weights"].items():
                modules.append({"adapter": f"{name} in {merge}", "module": module["name"], **found})
    y = alt.Y("adapter:N", title=None)
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
    return _spec(alt.layer(behind, claimed, bars, points), height=60 * max(1, len(pooled)))


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
    return _spec(chart, height=260)


def weight_text(weight: float | str) -> str:
    """A merge weight for people: a number, or the text of one that differs between modules."""
    return weight if isinstance(weight, str) else f"{weight:g}"


def overlap_charts(overlap: Mapping[str, Any]) -> tuple[Spec, Spec]:
    """Layer by module type: cosine of the two deltas (centred at 0), and their energy ratio (centred at 1)."""
    rows = [row for row in overlap["modules"] if row["layer"] is not None]
    limit = max((abs(row["cosine"] or 0.0) for row in rows), default=1.0) or 1.0
    ratios = [row["energy_ratio"] for row in rows if row["energy_ratio"]]
    widest = max((max(r, 1 / r) for r in ratios), default=1.0) * 1.0001
    w1, w2 = map(weight_text, overlap["weights"])
    ratio = f"||{w1} {overlap['first']}||² / ||{w2} {overlap['second']}||²"
    tooltip = [
        "name:N",
        _number("cosine", ".4f"),
        _number("cosine_null", ".4f", "null (1 sd)"),
        _number("energy_ratio", ".3g", ratio),
        _number("first_norm", ".3f", f"norm of {overlap['first']}"),
        _number("second_norm", ".3f", f"norm of {overlap['second']}"),
    ]
    order = [m for m in MODULES if any(row["module"] == m for row in rows)] or None
    shared = alt.Chart(alt.Data(values=rows)).mark_rect()
    x = alt.X("module:N", title=None, sort=order, axis=alt.Axis(labelAngle=-40))
    y = alt.Y("layer:O", title="layer")
    cosine = shared.encode(
        x=x,
        y=y,
        color=alt.Color("cosine:Q", scale=alt.Scale(scheme="blueorange", domain=[-limit, limit]), title="cosine"),
        tooltip=tooltip,
    )
    energy = shared.encode(
        x=x,
        y=y,
        color=alt.Color(
            "energy_ratio:Q",
            scale=alt.Scale(type="log", scheme="purplegreen", domain=[1 / widest, widest]),
            title="energy ratio",
            legend=alt.Legend(format=".2~g"),
        ),
        tooltip=tooltip,
    )
    height = max(160, 14 * len({row["layer"] for row in rows}))
    return _spec(cosine, height=height), _spec(energy, height=height)


def _number(field: str, form: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", format=form, title=title or field.replace("_", " "))


def _colour(field: str) -> alt.Color:
    legend = alt.Legend(orient="top", title=None)
    return alt.Color(f"{field}:N", scale=alt.Scale(range=list(COLOURS)), legend=legend)


def _spec(chart: Any, *, height: int) -> Spec:
    spec: Spec = chart.properties(width="container", height=height).to_dict(validate=True)
    # The page sets its own, for light and dark.
    spec.pop("config", None)
    return spec
