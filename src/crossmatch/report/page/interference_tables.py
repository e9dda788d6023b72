"""What was predicted of interference against what was measured: a table of rank correlations, a picture of the points,
and what the tokens' classes and the layers say. No number is made here.

Facts are those of `predict_and_measure`, plain JSON.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt

from crossmatch.report.charts import charts as pictures
from crossmatch.report.charts.charts import COLOURS, GREY, Spec, filtered, order_of, selectable, spec
from crossmatch.report.text import plain

Json = Mapping[str, Any]
UNITS = {"loss": "nats per token", "odds": "nats"}
# The last two are made of the same gates as what they are compared with: they check it more than they foresee it.
PREDICTORS = {
    "activation_ratio": "guest's activations over the host's, ratio of energies",
    "activation_size": "guest's activations over the base's, ratio of energies",
    "activation_reversed": "share of the host's activations taken back",
    "overlap_cosine": "cosine of the deltas",
    "overlap_energy": "energy ratio of the deltas",
    "integrated": "integrated gradients of the gates",
    "gradient": "gradient of the gates",
}
# These predict the change itself, in its own units: the diagonal is a perfect prediction.
_SAME_UNITS = ("integrated", "gradient")
WAYS = {"mean": "mean of off and on", "off": "switching it off in the merge", "on": "switching it on beside the host"}
_TARGETS = {"loss": "loss, nats per token", "odds": "log-odds of a trace, nats"}
_OUTCOMES = {"change": "change of the {}", "size": "size of that change"}
_GROUPS = {True: "from gradients of the same gates", False: "from factors and inputs alone"}
_CLASSES = {"prompt": "prompt", "opener": "end of the prompt", "think": "think", "answer": "answer"}
_SHORT = {"loss": "loss", "odds": "log-odds of a trace"}
_FAR = 1.96


def agreement_tables(facts: Json) -> list[dict[str, Any]]:
    """Predictor by outcome, one table for each way of switching: Spearman with its interval, n, and what it says."""
    targets = facts["agreement"]
    tables = []
    for way, title in WAYS.items():
        rows = []
        for predictor in _predictors(facts):
            group = _GROUPS[predictor in _SAME_UNITS]
            cells = [_ranks(targets[t].get(predictor, {}).get(way, {}).get(o)) for t in targets for o in _OUTCOMES]
            rows.append({"predictor": PREDICTORS.get(predictor, predictor), "group": group, "cells": cells})
        heads = [outcome.format(_SHORT.get(t, t)) for t in targets for outcome in _OUTCOMES.values()]
        if rows:
            tables.append({"way": title, "heads": heads, "rows": rows})
    return tables


def _predictors(facts: Json) -> list[str]:
    present = dict.fromkeys(name for found in facts["agreement"].values() for name in found)
    return [*(p for p in PREDICTORS if p in present), *(p for p in present if p not in PREDICTORS)]


def _ranks(found: Json | None) -> dict[str, str]:
    if not found:
        return {"value": "–", "interval": "", "n": "", "verdict": "not measured"}
    n = f"n = {found['n']}"
    if found["value"] is None:
        return {"value": "–", "interval": "", "n": n, "verdict": "not defined"}
    low, high = found["low"], found["high"]
    verdict = "orders it" if low > 0 else "orders it in reverse" if high < 0 else "fails"
    return {"value": f"{found['value']:+.2f}", "interval": f"{low:+.2f} to {high:+.2f}", "n": n, "verdict": verdict}


def classes_table(facts: Json) -> dict[str, Any] | None:
    """Activation interference by class of tokens, and the non-additivity at the last layer; None in older facts."""
    rows = facts.get("classes")
    if not rows:
        return None
    last = {row["kind"]: row for row in sorted(facts["residual"], key=lambda row: row["layer"])}
    heads = [
        ("guest over host", "energy of the guest's effect over that of the host's, all modules together"),
        ("single modules", "lowest, median and highest of the same"),
        ("cosine", "mean cosine of the two effects"),
        ("taken back %", "share of the host's effect that the guest takes back along its own direction"),
        ("obscured %", "tokens at which the guest's effect across the host's direction is the larger one"),
        ("inside %", "share of the guest's energy in the host's output space"),
        ("non-additivity", "of the residual stream behind the last layer"),
    ]
    return {
        "modules": rows[0]["modules"],
        "heads": [{"title": title, "help": text} for title, text in heads],
        "rows": [
            {
                "kind": _CLASSES.get(row["kind"], row["kind"]),
                "n": row["n"],
                "texts": row["texts"],
                "cells": [
                    _with_error(row["ratio"]),
                    "–" if row["spread"] is None else ", ".join(f"{value:.2g}" for value in row["spread"]),
                    _with_error(row["cosine"], "+"),
                    *(_with_error(row[name], "", 100.0) for name in ("reversed", "obscured", "inside")),
                    _with_error(last[row["kind"]]["ratio"]) if row["kind"] in last else "–",
                ],
            }
            for row in rows
        ],
    }


def _with_error(found: Json, sign: str = "", scale: float = 1.0) -> str:
    if found["value"] is None:
        return "–"
    error = "–" if found["stderr"] is None else f"{found['stderr'] * scale:.1g}"
    return f"{found['value'] * scale:{sign}.2g} ± {error}"


def predicted_chart(facts: Json) -> Spec | None:
    """Predicted against measured change, a point for each unit, by predictor, target and way of switching, which are
    chosen from menus; the rank correlation stands in the corner.

    None where nothing was measured.
    """
    rows = list(_points(facts))
    if not rows:
        return None
    titles = {"predictor": "predicted from", "target": "measured", "way": "by"}
    params, filters = selectable(rows, titles)
    order = order_of(rows)
    x = alt.X("predicted:Q", title="predicted", axis=alt.Axis(format="~g"), scale=alt.Scale(zero=False))
    y = alt.Y("measured:Q", title=f"change due to {plain(facts['guest'])}, measured", axis=alt.Axis(format="~g"))
    # Seven types of modules: grey joins the six colours; the shape helps where colours do not.
    scale = alt.Scale(range=[*COLOURS, GREY])
    colour = alt.Color("module:N", sort=order, scale=scale, legend=alt.Legend(title=None))
    tooltip = ["unit:N", *(alt.Tooltip(f"{name}:Q", format=".4g") for name in ("predicted", "measured"))]
    shared = filtered(rows, filters)
    bars = shared.mark_rule(strokeWidth=1, opacity=0.5).encode(
        x=x, y=alt.Y("low:Q", title=y["title"]), y2="high:Q", color=colour
    )
    shape = alt.Shape("module:N", sort=order, legend=None)
    points = shared.mark_point(filled=True, size=70, opacity=0.85)
    points = points.encode(x=x, y=y, color=colour, shape=shape, tooltip=tooltip)
    corner = filtered(_corners(facts, rows), filters).mark_text(
        align="left", baseline="top", fontSize=12, fontWeight=600
    )
    corner = corner.encode(x=alt.value(6), y=alt.value(2), text="said:N")
    line = filtered(_diagonals(rows), filters).mark_line(strokeDash=[4, 4], strokeWidth=1, color=GREY)
    line = line.encode(x="predicted:Q", y="measured:Q")
    drawn = alt.layer(line, bars, points, corner).properties(height=340)
    return spec(drawn.add_params(*params) if params else drawn)


def _points(facts: Json) -> Iterator[dict[str, Any]]:
    for predictor in _predictors(facts):
        for target, measured in facts["measured"].items():
            for way in WAYS:
                for unit in measured["units"]:
                    value = unit[way] if way == "mean" else unit[way]["value"]
                    predicted = unit["predicted"].get(predictor, {}).get(way)
                    if value is None or predicted is None:
                        continue
                    error = 0.0 if way == "mean" else unit[way]["stderr"] or 0.0
                    yield {
                        **_named(predictor, target, way),
                        "unit": plain(unit["name"]),
                        "module": plain(unit["module"]),
                        "predicted": predicted,
                        "measured": value,
                        "low": value - error,
                        "high": value + error,
                    }


def _named(predictor: str, target: str, way: str) -> dict[str, str]:
    return {
        "predictor": PREDICTORS.get(predictor, predictor),
        "target": _TARGETS.get(target, target),
        "way": WAYS[way],
    }


def _corners(facts: Json, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What stands in the corner of each choice: the rank correlation."""
    drawn = {(row["predictor"], row["target"], row["way"]) for row in rows}
    found = []
    for predictor in _predictors(facts):
        for target, agreed in facts["agreement"].items():
            for way in WAYS:
                named = _named(predictor, target, way)
                if tuple(named.values()) in drawn:
                    found.append({**named, "said": correlation(agreed[predictor][way]["change"])})
                else:
                    found.append({**named, "said": "not defined for any module"})
    return found


def _diagonals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where both would be equal; of a predictor in units of its own, where nothing is measured."""
    same = {PREDICTORS[name] for name in _SAME_UNITS}
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row["predictor"], row["target"], row["way"]), []).append(row["predicted"])
    return [
        {"predictor": predictor, "target": target, "way": way, "predicted": end, "measured": end * (predictor in same)}
        for (predictor, target, way), values in groups.items()
        for end in (min(values), max(values))
    ]


def correlation(found: Json) -> str:
    """A rank correlation with its interval and n."""
    if found["value"] is None:
        return f"Spearman: not defined, n = {found['n']}"
    return f"Spearman {found['value']:.2f} (95% {found['low']:.2f} to {found['high']:.2f}), n = {found['n']}"


def layers_chart(facts: Json) -> Spec | None:
    """Non-additivity of the residual stream behind every layer, a line a class of tokens, with 95% bands by text; None
    without a layer for which it is defined."""
    rows = []
    for row in facts["residual"]:
        value, error = row["ratio"]["value"], row["ratio"]["stderr"] or 0.0
        if value is not None:
            bounds = {"value": value, "low": max(0.0, value - _FAR * error), "high": value + _FAR * error}
            rows.append({"layer": row["layer"], "series": _CLASSES.get(row["kind"], row["kind"]), **bounds})
    if not rows:
        return None
    title = "non-additivity, ratio of energies"
    return spec(pictures.curves(rows, "layer", x_title="behind layer", y_title=title))
