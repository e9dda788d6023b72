"""What fine-tunes changed, as the page shows it: words first, then tables and pictures. No number is made here.

Facts are those of `crossmatch analyse`, plain JSON.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from crossmatch.report.charts import charts as pictures
from crossmatch.report.charts.charts import Spec
from crossmatch.report.page.representations import inside_charts, inside_groups, inside_sentences
from crossmatch.report.statements import answer_of, side, style
from crossmatch.report.text import plain

Json = Mapping[str, Any]
# Of the k at which alignment was measured, the first of these that is there is drawn.
_DRAWN = ("64", "r", "256", "90%")
_TAIL = 0.05


def changed_view(facts: Json | None, without: Collection[str] = ()) -> tuple[dict[str, Any] | None, dict[str, Spec]]:
    """The section's texts and tables, and its charts by name; None without facts.

    without: kinds of charts that the page has elsewhere.
    """
    if not facts:
        return None, {}
    # A map on which nothing is beyond chance becomes a sentence.
    alike = {f"{_both(pair)}.cosine" for pair in facts["overlap"] if within_chance(_cosines(pair))}
    drawn = {name: chart for name, chart in analysis_charts(facts).items() if name.rpartition(".")[2] not in without}
    drawn = {name: chart for name, chart in drawn.items() if name not in alike}

    def shown(group: str) -> list[dict[str, str]]:
        return [{"chart": name, "text": text} for name, (_, text) in drawn.items() if name.rpartition(".")[0] == group]

    view = {
        "sentences": sentences(facts),
        "claims": _claims(facts["claims"]) if facts["claims"] else None,
        "vectors": [
            {"name": plain(n), "types": _types(facts, n), "charts": shown(n), "alike": []} for n in facts["size"]
        ],
        "pairs": [
            {
                "first": plain(pair["first"]),
                "second": plain(pair["second"]),
                "charts": shown(_both(pair)),
                "alike": [text] if "cosine" not in without and (text := within_chance(_cosines(pair))) else [],
            }
            for pair in facts["overlap"]
        ],
        "more": [{**group, "charts": shown(group["group"])} for group in inside_groups(facts)],
        "left_out": [_left_out(row) for row in facts["left_out"]],
    }
    return view, {name: pictures.spec(chart) for name, (chart, _) in drawn.items()}


def analysis_charts(facts: Json) -> dict[str, tuple[Any, str]]:
    """Every picture of an analysis as an altair chart with its caption, by name: `sft.spectra`, `pt-sft.angles`."""
    found: dict[str, tuple[Any, str]] = {}
    for name in facts["size"]:
        found |= {f"{name}.{key}": drawn for key, drawn in _vector_charts(facts, name).items()}
    for pair in facts["overlap"]:
        found |= {f"{_both(pair)}.{key}": drawn for key, drawn in _pair_charts(pair).items()}
    return found | inside_charts(facts)


def within_chance(rows: Sequence[Json]) -> str | None:
    """Of cosines that are all within what chance makes of so many modules a sentence in place of a map; None where one
    is beyond it, or the null is not known. rows: `cosine`, and `cosine_null`, one standard deviation of its null."""
    known = [row for row in rows if row["cosine"] is not None]
    if not known or any(not row.get("cosine_null") for row in known):
        return None
    # The largest of so many normal deviates exceeds this in one case of twenty.
    limit = NormalDist().inv_cdf(1 - _TAIL / (2 * len(known)))
    if max(abs(row["cosine"]) / row["cosine_null"] for row in known) > limit:
        return None
    size = max(abs(row["cosine"]) for row in known)
    return f"No cosine of the {len(known)} modules is beyond chance; the largest is {size:.2g} in size."


def _cosines(pair: Json) -> list[Json]:
    return [
        {"cosine": row["cosine"]["value"], "cosine_null": row["cosine"]["null_sd"]}
        for row in modules(pair["rows"])
        if row["layer"] is not None
    ]


def _both(pair: Json) -> str:
    return f"{pair['first']}-{pair['second']}"


def sentences(facts: Json) -> list[str]:
    """What the numbers say, in words, each with its number and its null: where a fine-tune writes, what it amplifies,
    how it meets the other one."""
    found: list[str] = []
    for name in facts["size"]:
        found += [s for s in (_how_large(facts, name), _where(facts, name), _amplifies(facts, name)) if s]
    for pair in facts["overlap"]:
        found += _meets(pair)
    return [*found, *inside_sentences(facts)]


def modules(rows: Iterable[Json]) -> list[Json]:
    """The rows of single modules."""
    return [row for row in rows if row["level"] == "module"]


def _group(rows: Iterable[Json], level: str, key: Any = None) -> Json | None:
    return next((row for row in rows if row["level"] == level and (key is None or row["key"] == key)), None)


def _drawn_k(rows: Sequence[Json]) -> str | None:
    labels = {row["k_label"] for row in rows}
    return next((label for label in _DRAWN if label in labels), min(labels, default=None))


def _aligned(facts: Json, name: str) -> list[Json]:
    rows = facts["alignment"].get(name, [])
    label = _drawn_k(rows)
    return [row for row in rows if row["k_label"] == label]


def _how_large(facts: Json, name: str) -> str | None:
    whole = _group(facts["size"][name], "all")
    if whole is None:
        return None
    share = f", {_percent(whole['share'])} of the base's norm there" if whole["share"] is not None else ""
    rank = f"; its energy lies in {whole['effective_rank']:.1f} directions a module" if whole["effective_rank"] else ""
    return (
        f"{plain(name)} changes {whole['n']} tensors by {whole['frobenius']:.3g} in all{share}{rank} (effective rank)."
    )


def _where(facts: Json, name: str) -> str | None:
    rows = _aligned(facts, name)
    types = [row for row in rows if row["level"] == "type" and row["write_new"]["value"] is not None]
    if not types:
        return None
    k = rows[0]["k_label"]
    most = max(types, key=lambda row: row["write_new"]["lift"] or 0.0)
    least = min(types, key=lambda row: row["write_new"]["lift"] or math.inf)
    return (
        f"Of {plain(name)}'s energy, the share written outside the base's {k} leading output directions is largest "
        f"against its null in {plain(str(most['key']))} ({_figure(most['write_new'])}) and smallest in "
        f"{plain(str(least['key']))} ({_figure(least['write_new'])})."
    )


def _amplifies(facts: Json, name: str) -> str | None:
    rows = _aligned(facts, name)
    types = [row for row in rows if row["level"] == "type" and row["diagonal"]["lift"] is not None]
    if not types:
        return None
    most = max(types, key=lambda row: row["diagonal"]["lift"])
    gain = _percent(most["gain"]["value"], "+")
    return (
        f"{plain(name)} meets the base's own {rows[0]['k_label']} leading pairs of directions most in "
        f"{plain(str(most['key']))}: {_figure(most['diagonal'])}; their singular values change by {gain}."
    )


def _meets(pair: Json) -> list[str]:
    first, second = plain(pair["first"]), plain(pair["second"])
    whole = _group(pair["rows"], "all")
    if whole is None:
        return []
    cosine = whole["cosine"]
    found = []
    if cosine["value"] is not None:
        sd = f", one standard deviation of its null is {cosine['null_sd']:.4f}" if cosine["null_sd"] else ""
        found.append(f"The cosine of {first} and {second} is {cosine['value']:+.4f} over all modules together{sd}.")
    if whole["columns"] and whole["rows"]:
        found.append(
            f"Their output spaces overlap by {_figure(whole['columns']['overlap'])}, their input spaces by "
            f"{_figure(whole['rows']['overlap'])}; of {second}'s energy {_figure(whole['second_in_columns'])} lies in "
            f"{first}'s output space and {_figure(whole['second_in_rows'])} in its input space."
        )
    return found


def _figure(figure: Json) -> str:
    """A number beside its null: 12% against 3%, 4.0 times."""
    if figure["value"] is None:
        return "not known"
    if figure["null"] is None:
        return _percent(figure["value"])
    lift = f", {figure['lift']:.3g} times" if figure["lift"] is not None else ""
    return f"{_percent(figure['value'])} against {_percent(figure['null'])} by chance{lift}"


def _vector_charts(facts: Json, name: str) -> dict[str, tuple[Any, str]]:
    """Charts of one vector with their captions."""
    sizes = [row for row in modules(facts["size"][name]) if row["layer"] is not None]
    charts: dict[str, tuple[Any, str]] = {}
    if any(row["share"] is not None for row in sizes):
        flat = [{**_facets(row), "share": row["share"]} for row in sizes]
        charts["share"] = (pictures.heat_map(flat, "share", "share of the base"), "Norm of the change over the base's.")
    rows = modules(_aligned(facts, name))
    if rows:
        k = rows[0]["k_label"]
        for part, title, text in (
            ("write_new", "new directions", f"Energy outside the base's {k} leading output directions"),
            ("diagonal", "existing pairs", f"Energy on the base's {k} leading pairs of directions"),
        ):
            flat = [{**_facets(row), "lift": row[part]["lift"], **_numbers(row[part])} for row in rows]
            chart = pictures.heat_map(flat, "lift", f"{title}: times a random change", centre=1.0, log=True)
            charts[part] = (
                chart,
                f"{text}, over that of a random change with the same singular values (1: as random).",
            )
    spectra = [row for row in sizes if row["singular_values"]]
    if spectra:
        charts["spectra"] = (pictures.spectra(spectra), "Singular values of every module's change.")
    return charts


def _pair_charts(pair: Json) -> dict[str, tuple[Any, str]]:
    rows = [row for row in modules(pair["rows"]) if row["layer"] is not None]
    if not rows:
        return {}
    cosines = [{**_facets(row), "cosine": row["cosine"]["value"], "null_sd": row["cosine"]["null_sd"]} for row in rows]
    ratios = [{**_facets(row), "ratio": row["energy_ratio"]} for row in rows]
    charts = {
        "cosine": (pictures.heat_map(cosines, "cosine", "cosine"), "Cosine of the two updates."),
        "ratio": (
            pictures.heat_map(ratios, "ratio", "energy ratio", centre=1.0, log=True),
            f"Energy of {plain(pair['first'])} over that of {plain(pair['second'])}.",
        ),
    }
    turned = [
        {
            **_facets(row),
            "side": side,
            "degrees": [math.degrees(math.acos(min(1.0, c))) for c in row[space]["cosines"]],
            "null_degrees": math.degrees(math.acos(min(1.0, math.sqrt(row[space]["overlap"]["null"])))),
        }
        for row in rows
        for side, space in (("output side", "columns"), ("input side", "rows"))
        if row[space]
    ]
    if turned:
        charts["angles"] = (
            pictures.angles(turned),
            "Principal angles; the long tick: random spaces, root mean square.",
        )
    return charts


def _facets(row: Json) -> dict[str, Any]:
    return {"name": row["name"], "layer": row["layer"], "module": row["module"]}


def _numbers(figure: Json) -> dict[str, Any]:
    return {key: figure[key] for key in ("value", "null", "z")}


def _types(facts: Json, name: str) -> list[dict[str, Any]]:
    """By module type: size, alignment and readings, each beside its null."""
    aligned, read = _aligned(facts, name), facts["readings"].get(name, [])
    found = []
    for row in facts["size"][name]:
        if row["level"] not in ("type", "all"):
            continue
        key = row["key"] if row["level"] == "type" else None
        there = _group(aligned, row["level"], key)
        seen = _group(read, row["level"], key)
        cells = [str(row["n"]), _percent(row["share"]), _plain(row["stable_rank"]), _plain(row["effective_rank"])]
        cells += [_beside(there[part]) if there else "–" for part in ("write_new", "diagonal")]
        cells.append(_percent(there["gain"]["value"], "+") if there else "–")
        cells += [_beside(seen[part]) if seen else "–" for part in ("intruders", "amplified", "turned")]
        found.append({"name": plain(str(row["key"])) if key is not None else "all", "cells": cells})
    order = pictures.MODULES
    return sorted(found, key=lambda row: order.index(row["name"]) if row["name"] in order else len(order))


def _beside(figure: Json) -> str:
    if figure["value"] is None:
        return "–"
    value = _percent(figure["value"])
    return f"{value} / {_percent(figure['null'])}" if figure["null"] is not None else value


def _percent(value: float | None, sign: str = "") -> str:
    return "–" if value is None else format(100 * value, f"{sign}.3g") + "%"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _claims(claims: Sequence[Json]) -> dict[str, Any]:
    """One row a statement and vector, one cell for each k at which it was put to the numbers."""
    labels = list(dict.fromkeys(claim.get("k_label") for claim in claims))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for claim in claims:
        key = claim["statement"], plain(claim["vector"])
        row = rows.setdefault(key, {"statement": key[0], "vector": key[1], "cells": dict.fromkeys(labels)})
        row["cells"][claim.get("k_label")] = {
            "verdict": answer_of(claim),
            "style": style(answer_of(claim)),
            "lines": [claim["why"]] if claim["why"] else [_part(part) for part in claim["parts"]],
        }
    heads = [f"k = {label}" if label else "" for label in labels]
    return {"heads": heads, "rows": [{**row, "cells": list(row["cells"].values())} for row in rows.values()]}


def _part(part: Json) -> str:
    value = "not known" if part["value"] is None else f"{part['value']:.3g}"
    bounds = f" ({part['low']:.3g} to {part['high']:.3g})" if part["low"] is not None else ""
    return f"{part['what']}: {value}{bounds}, {side(part)}"


def _left_out(row: Json) -> str:
    of = ", ".join(plain(str(row[key])) for key in ("vector", "name") if row[key] is not None)
    return f"{row['measure']}{f' of {of}' if of else ''}: {row['why']}"
