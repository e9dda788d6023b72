"""What a vector does inside the model, as the page shows it. No number is made here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossmatch.report.charts import charts as pictures
from crossmatch.report.statements import answer
from crossmatch.report.text import plain

Json = Mapping[str, Any]
Drawn = dict[str, tuple[Any, str]]
# View of the positions and dimensions: without first tokens and massive dimensions, where all variance may lie.
_VIEW = "without"


def inside_charts(facts: Json) -> Drawn:
    """Charts of representations and attributions with their captions, by name."""
    found: Drawn = {}
    layers: dict[str, list[Json]] = {}
    for name, one in (facts.get("representations") or {}).items():
        layers[name] = [row for row in one["layers"] if row["part"] == "residual"]
    if any(layers.values()):
        found |= _representations(layers)
    for name, metrics in (facts.get("attribution") or {}).items():
        for number, one in enumerate(metrics.values()):
            found |= {f"{name}-odds{number}.{key}": drawn for key, drawn in _attribution(one).items()}
    return found


def inside_sentences(facts: Json) -> Iterator[str]:
    """What these numbers say, in words."""
    for name, one in (facts.get("representations") or {}).items():
        claim = one["claim"]
        if claim is None:
            # Without random vectors beside it nothing is judged.
            continue
        why = f": {plain(claim['reason'])}" if claim["reason"] else ""
        yield (
            f"That {plain(name)} changes a small part of the representational subspace is "
            f"{answer(claim['verdict'])} on {one['positions']} tokens of {one['texts']} texts{why}."
        )
    for name, metrics in (facts.get("attribution") or {}).items():
        for one in metrics.values():
            yield _odds(name, one)


def inside_groups(facts: Json) -> list[dict[str, str]]:
    """Sections of the page: the first part of the charts' names, a title, a lead."""
    groups = []
    if facts.get("representations"):
        lead = "Without the first token of every text and massive dimensions. Bands: 95%, by text."
        groups.append({"group": "layers", "title": "Representations, layer by layer", "text": lead})
    for name, metrics in (facts.get("attribution") or {}).items():
        for number, one in enumerate(metrics.values()):
            title = f"Where {plain(name)}'s change of the log-odds comes from: {plain(one['metric'])}"
            groups.append({"group": f"{name}-odds{number}", "title": title, "text": ""})
    return groups


def _odds(name: str, one: Json) -> str:
    change = one["change"]
    top = max(one["modules"], key=lambda row: abs(row["integrated"]["value"] or 0.0), default=None)
    most = f"; most of it in {plain(top['name'])} ({top['integrated']['value']:+.3g})" if top else ""
    share = "an unknown part" if one["completeness"] is None else f"{one['completeness']:.1%}"
    removed = one["removed"]
    confirmed = f"{removed['confirmed']} of the {len(removed['modules'])} largest confirmed by taking them out"
    return (
        f"{plain(name)} changes the log-odds ({plain(one['metric'])}) by {change['value']:+.3g} ± "
        f"{change['stderr']:.2g} nats over {one['items']} items; its modules' parts add up to {share} of that{most}; "
        f"{confirmed}."
    )


def _representations(layers: Mapping[str, Sequence[Json]]) -> Drawn:
    def rows(value: Any, null: Any = None) -> list[dict[str, Any]]:
        points = []
        for name, members in layers.items():
            for row in members:
                figure = value(row[_VIEW])
                if figure is None or figure["value"] is None:
                    continue
                bounds = {key: figure.get(key) for key in ("value", "low", "high")}
                more = {"null": null(row[_VIEW])} if null else {}
                points.append({"series": name, "layer": row["layer"], **bounds, **more})
        return points

    wanted = {
        "cka": (rows(lambda v: v["cka"]), "debiased CKA", "How alike base and tuned model are (1: the same)."),
        "turned": (
            rows(lambda v: v["subspaces"][-1]["cosine2"], lambda v: _mean(v["subspaces"][-1]["rotated"])),
            "mean squared cosine",
            "Principal angles of the largest subspace; dashed: the same shift in random directions.",
        ),
        "rank": (
            rows(lambda v: v["effective_rank"], lambda v: _mean([r["effective_rank"] for r in v["random"]])),
            "effective rank of the shift",
            "Directions that the shift takes; dashed: random vectors of the same spectrum.",
        ),
    }
    found: Drawn = {}
    for key, (points, title, text) in wanted.items():
        if points:
            null = "null" if any(p.get("null") is not None for p in points) else None
            chart = pictures.curves(points, "layer", x_title="layer", y_title=title, null=null)
            found[f"layers.{key}"] = (chart, text)
    return found


def _attribution(one: Json) -> Drawn:
    modules = [{**_place(row), **row["integrated"]} for row in one["modules"]]
    title = f"{plain(one['metric'])}, nats"
    found: Drawn = {}
    if any(row["layer"] is not None for row in modules):
        chart = pictures.heat_map(modules, "value", "nats")
        found["map"] = (chart, "Integrated gradients of a gate on every module, summing to the change.")
    tried = [*one["removed"]["modules"], *one["removed"]["controls"]]
    points = [
        {**_place(row), "predicted": row["integrated"]["value"], "measured": row["removed"]["value"]}
        for row in tried
        if row.get("removed")
    ]
    if points:
        chart = pictures.scatter(
            points,
            "predicted",
            "measured",
            x_title=f"attributed: {title}",
            y_title="taken out: change undone, nats",
            diagonal=True,
        )
        text = "Predicted against measured: the largest modules, and others at random, taken out one at a time."
        found["confirmed"] = (chart, text)
    return found


def _place(row: Json) -> dict[str, Any]:
    return {"name": row["name"], "layer": row["layer"], "module": row["module"]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
