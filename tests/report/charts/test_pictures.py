"""Pictures of an analysis: as charts, as SVG files, on the page, linked in a real browser."""

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from crossmatch.cli import run
from crossmatch.report.charts.charts import angles, beside, curves, heat_map, scatter, spec, spectra, svg
from crossmatch.report.page.analysis import analysis_charts, changed_view, sentences


@pytest.fixture(scope="module")
def analysed(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("analysis")
    command = ["analyse", str(models / "base"), str(models / "pt"), str(models / "sft"), "--k", "r", "--k", "16"]
    assert run([*command, "--cache", str(out / "cache"), "-o", str(out / "found"), "--svg"]) == 0
    return out / "found"


@pytest.fixture(scope="module")
def facts(analysed: Path) -> dict[str, Any]:
    return json.loads((analysed / "analysis.json").read_text())


def test_every_picture_is_an_svg_file(analysed: Path, facts: dict[str, Any]) -> None:
    names = set(analysis_charts(facts))
    assert {"pt.share", "pt.write_new", "pt.diagonal", "pt.spectra", "sft.share", "pt-sft.cosine"} <= names
    files = list((analysed / "pictures").iterdir())
    assert {file.stem for file in files} == names
    for file in files:
        root = ElementTree.parse(file).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        # What it shows, not an empty frame.
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10


def test_a_cell_shows_its_number(facts: dict[str, Any]) -> None:
    rows = [row for row in facts["size"]["pt"] if row["level"] == "module"]
    shown = {cell["name"]: cell["share"] for cell in spec(analysis_charts(facts)["pt.share"][0])["data"]["values"]}
    assert shown == {row["name"]: row["share"] for row in rows if row["layer"] is not None}


def test_ratios_have_a_scale_with_one_in_the_middle() -> None:
    rows = [{"name": f"n{i}", "layer": i, "module": "q_proj", "lift": lift} for i, lift in enumerate((0.5, 8.0, None))]
    found = spec(heat_map(rows, "lift", "lift", centre=1.0, log=True))["layer"][1]["encoding"]["color"]["scale"]
    low, high = found["domain"]
    assert found["type"] == "log"
    assert low * high == pytest.approx(1.0)
    assert high == pytest.approx(8.0, rel=1e-3)


def test_of_experts_in_one_cell_the_furthest_speaks() -> None:
    rows = [{"name": f"e{i}", "layer": 0, "module": "up_proj", "x": x} for i, x in enumerate((0.1, -3.0, 2.0))]
    (cell,) = spec(heat_map(rows, "x", "x"))["data"]["values"]
    assert (cell["name"], cell["x"]) == ("e1", -3.0)


def test_words_carry_their_numbers_and_nulls(facts: dict[str, Any]) -> None:
    lines = sentences(facts)
    assert sum("by chance" in line for line in lines) >= 3
    whole = next(row for row in facts["size"]["pt"] if row["level"] == "all")
    assert f"pt changes {whole['n']} tensors by {whole['frobenius']:.3g}" in lines[0]
    view, _ = changed_view(facts)
    assert view is not None
    cells = [cell["verdict"] for row in view["claims"]["rows"] for cell in row["cells"] if cell]
    assert sorted(cells) == sorted(claim["verdict"] for claim in facts["claims"])


def test_charts_stand_beside_each_other_in_a_notebook(facts: dict[str, Any]) -> None:
    charts = analysis_charts(facts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = beside(charts["pt.share"][0], charts["pt.spectra"][0]).to_dict()
    (picked,) = both["params"]
    assert picked["select"]["fields"] == ["name"]
    assert len(picked["views"]) >= 2


def test_curves_and_scatters_are_drawn() -> None:
    rows = [{"series": "bleu", "strength": x, "value": x * x, "low": x * x - 1, "high": x * x + 1} for x in range(5)]
    marks = [{**rows[0], "kind": "shuffled", "value": 3.0}]
    drawn = svg(curves(rows, "strength", x_title="strength", y_title="BLEU", marks=marks))
    assert {"strength", "BLEU", "shuffled"} <= set(re.findall(r">([^<>]+)</text>", drawn))
    points = [{"name": f"m{i}", "layer": i, "module": "q_proj", "x": i, "y": 2 * i} for i in range(4)]
    drawn = svg(scatter(points, "x", "y", x_title="predicted", y_title="measured", diagonal=True))
    assert drawn.count('aria-roledescription="point"') == 4
    lines = [{**p, "singular_values": [2.0, 1.0, 0.0]} for p in points]
    assert svg(spectra(lines)).count('aria-roledescription="line mark"') == 4
    turned = [{**p, "side": "input", "degrees": [10.0, 80.0], "null_degrees": 75.0} for p in points]
    assert svg(angles(turned)).count('aria-roledescription="tick"') == 4 * 2 + 1


@pytest.fixture(scope="module")
def opened(analysed: Path, browser: Any) -> Iterator[Any]:
    page: Any = browser.new_page(viewport={"width": 1100, "height": 900})
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto((analysed / "analysis.html").as_uri())
    page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
    page.click("#unfold")
    charts = page.locator("[data-chart]").count()
    page.wait_for_function(f"document.querySelectorAll('[data-drawn=yes]').length === {charts}")
    yield page
    page.close()


def marked(page: Any, chart: str) -> int:
    return page.locator(f"[data-chart='{chart}'] path[stroke='#d62728']").count()


@pytest.mark.browser
def test_what_is_picked_in_one_picture_is_marked_in_the_others(opened: Any) -> None:
    assert marked(opened, "pt.share") == 0
    opened.locator("[data-chart='pt.share'] path[aria-roledescription='rect mark']").first.click()
    opened.wait_for_function(
        "document.querySelectorAll(\"[data-chart='sft.share'] path[stroke='#d62728']\").length === 1"
    )
    for chart in ("pt.share", "pt.write_new", "sft.diagonal", "pt-sft.ratio"):
        assert marked(opened, chart) == 1, chart
    thick = opened.locator("[data-chart='sft.spectra'] path[stroke-width='3.5']")
    assert thick.count() == 1
    assert opened.complaints == []


@pytest.mark.browser
def test_the_page_fits_a_phone(opened: Any) -> None:
    opened.set_viewport_size({"width": 375, "height": 800})
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 375
    assert opened.complaints == []


def test_the_page_is_made_again(analysed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(analysed / "analysis.json", tmp_path)
    assert run(["report", str(tmp_path)]) == 0
    assert (tmp_path / "analysis.html").read_bytes() == (analysed / "analysis.html").read_bytes()
    said = capsys.readouterr().out
    assert 1 < said.count("\n") <= 15
    # A long path is broken over lines.
    assert f"page:{tmp_path / 'analysis.html'}" in "".join(said.split())
    assert run(["report", str(tmp_path), "--detail"]) == 0
    assert capsys.readouterr().out.count("\n") > 15
    (tmp_path / "analysis.json").write_text("{}")
    assert run(["report", str(tmp_path)]) == 2
    assert "is no analysis" in capsys.readouterr().err
