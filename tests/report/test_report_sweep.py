"""The page of a sweep and its charts, from facts alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from crossmatch.export.files import charts_of, write_figures
from crossmatch.report.page.render import render_sweep
from crossmatch.report.page.sweep import sweep_view
from crossmatch.report.terminal.sweep import sweep_lines


def figure(value: float, gain: float | None) -> dict[str, Any]:
    known = None if gain is None else {"value": gain, "low": gain - 1, "high": gain + 1, "n": 20}
    return {"value": value, "low": value - 1, "high": value + 1, "n": 20, "gain": known}


@pytest.fixture
def facts() -> dict[str, Any]:
    goal = {"suite": "define", "metric": "rougeL", "higher_is_better": True}
    other = {"suite": "name", "metric": "acc", "higher_is_better": True}
    points = []
    for number, (pt, sft) in enumerate([(0, 1), (0.5, 1), (0.5, 0.5)], 1):
        found = {"define.rougeL": figure(20 + number, None if number == 1 else 2.0), "name.acc": figure(0.5, None)}
        point = {"number": number, "name": f"pt{pt}+sft{sft}", "kind": "merge", "weights": {"pt": pt, "sft": sft}}
        point |= {"rule": "linear", "template": "own", "items": 40, "dropped": "behind x" if number == 3 else None}
        points.append({**point, "search": found, "holds": number < 3})
    gain = {"value": 2.0, "low": 1.0, "high": 3.0, "n": 20}
    row = {"goal": "define.rougeL", "claimed": gain, "confirmed": gain, "together": {"low": 0.5, "high": 3.5}}
    finalist = {"number": 2, "name": "pt0.5+sft1", "gains": [{**row, "optimism": 0.4}]}
    finalist["constraints"] = [{"constraint": "acc not below sft", "holds": True}]
    places = [{**{k: p[k] for k in ("number", "name", "dropped")}, "x": p["weights"]["pt"], "y": p["weights"]["sft"]} for p in points]  # fmt: skip
    for place, point in zip(places, points, strict=True):
        value = point["search"]["define.rougeL"]
        place |= {key: value[key] for key in ("value", "low", "high", "n")}
        place |= {f"gain_{key}": (value["gain"] or {}).get(key) for key in ("value", "low", "high")}
    score = {"score": "size", "title": "size alone", "what": "<norm>", "value": 0.5, "low": 0.1, "high": 0.8, "n": 20}
    return {
        "name": "s<1>",
        "study": {"constraints": ["acc not below sft"]},
        "reference": "sft",
        "goals": [goal],
        "measures": [goal, other],
        "parts": {"search": {"define": 20, "name": 20}, "confirmation": {"define": 20, "name": 20}},
        "points": points,
        "front": [2],
        "knee": None,
        "ranked": [2, 1],
        "confirmation": {
            "points": [{"number": 2, "name": "pt0.5+sft1", "figures": points[1]["search"]}],
            "finalists": [finalist],
        },
        "questions": {"candidates": 2, "asked": 50, "without_halving": 80, "saved": 0.375},
        "recommendation": {
            "number": 2,
            "sentence": "Ship 0.5 pt + 1 sft: ROUGE-L higher by 2.0 (1.0 to 3.0) than sft on 20 items that no trial saw.",
            "reasons": ["3 points were tried"],
            "confirmed": True,
            "against": {"base": {"define.rougeL": gain, "name.acc": None}},
        },
        "map": {
            "x": "pt",
            "y": "sft",
            "measure": "define.rougeL",
            "points": places,
            "steps": [0.5, 0.5],
            "surface": [],
        },
        "prediction": {"agreement": [score]},
        "digest": "2" * 64,
    }


def test_the_page_says_the_recommendation_and_escapes_names(facts: dict[str, Any]) -> None:
    page = render_sweep(facts)
    assert f"<h1>{facts['recommendation']['sentence']}</h1>" in page
    assert "s&lt;1&gt;" in page
    assert "&lt;norm&gt;" in page
    assert "halving saved 38%" in page
    assert "dropped: behind x" in page
    assert page == render_sweep(facts)
    surface = [{"x": 0.0, "x2": 0.5, "y": 0.5, "y2": 1.0, "value": 20.0}]
    bands = {**facts, "map": {**facts["map"], "steps": [None, None], "surface": surface}}
    assert '"bin":' in json.dumps(sweep_view(bands)["charts"]).replace(" ", "")
    render_sweep(bands)
    assert 'data-chart="map"' not in render_sweep({**facts, "map": None})


def test_values_of_fewer_items_are_no_colours_of_the_map(facts: dict[str, Any], tmp_path: Path) -> None:
    """A dropped point's value is of other items: on easier ones it would look better than what is recommended."""
    facts["map"]["points"][2] |= {"n": 5, "value": 99.0}
    (layers,) = [chart["layer"] for name, chart in charts_of(facts).items() if name == "map"]
    grounds = [layer for layer in layers if "x2" in layer["encoding"]]
    cells = {tuple(row["name"] for row in g["data"]["values"]): "color" in g["encoding"] for g in grounds}
    assert cells == {("pt0+sft1", "pt0.5+sft1"): True, ("pt0.5+sft0.5",): False}
    assert {f.suffix for f in write_figures(charts_of(facts), tmp_path)} == {".svg", ".pdf", ".png"}


def test_the_terminal_says_it_in_15_lines_of_80_columns(facts: dict[str, Any]) -> None:
    facts["recommendation"]["reasons"] = ["a long reason " * 20] * 9
    lines = sweep_lines(facts)
    assert lines[0].startswith("Ship 0.5 pt + 1 sft")
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 80


@pytest.mark.browser
def test_the_charts_are_drawn(facts: dict[str, Any], show: Any) -> None:
    page = show(render_sweep(facts))
    assert page.complaints == []
    assert page.locator("[data-chart] svg").count() == 3
