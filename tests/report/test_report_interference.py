"""Interference on the page and in the terminal, from facts that were really measured on a tiny model."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_report import facts as study
from typer.testing import CliRunner

from crossmatch.cli import app
from crossmatch.errors import RecipeError
from crossmatch.report.page.interference import interference_view
from crossmatch.report.page.interference_tables import PREDICTORS, agreement_tables, layers_chart, predicted_chart
from crossmatch.report.page.render import render_report
from crossmatch.study.recipe import load_recipe
from helpers import make_interfering

QUESTIONS = (("anaemia", "low blood cell level"), ("bone", "the old heart ."), ("lung", "high pressure in the lung"))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("interfering")
    make_interfering(root)
    rows = [{"id": str(n), "question": f"what is {a} ?", "reference": b} for n, (a, b) in enumerate(QUESTIONS)]
    (root / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {"name": "ask", "version": 1, "kind": "generation", "language": "en", "data": "ask.jsonl"}
    (root / "ask.yaml").write_text(yaml.safe_dump({**suite, "max_new_tokens": 3}))
    return root


def command(room: Path, out: Path, *more: str) -> list[str]:
    pair = [f"-a{name}={room / name}" for name in ("pt", "sft")]
    given = ["evaluate", str(room / "base"), "--suite", str(room / "ask.yaml"), "-o", str(out), "--kl", "0"]
    return [*given, *pair, "-wpt=0.3", "-wsft=0.7", *more]


@pytest.fixture(scope="module")
def answers(room: Path) -> tuple[Path, str]:
    """What `evaluate --interference` left, and what it printed."""
    result = CliRunner().invoke(app, command(room, room / "answers", "--interference", "2", "--detail"))
    assert result.exit_code == 0, result.output
    return room / "answers", result.stdout


@pytest.fixture
def found(answers: tuple[Path, str]) -> dict[str, Any]:
    return json.loads((answers[0] / "interference.json").read_text())


def test_evaluate_measures_and_shows_it(answers: tuple[Path, str], found: dict[str, Any]) -> None:
    out, printed = answers
    assert found["scope"]["measured"] == found["texts"]["measured_items"] == 2
    assert (found["guest"], found["host"]) == ("pt", "sft")
    tail = printed[printed.index("pt interferes with sft") :]
    tail = tail[: tail.index("\n\n")]
    assert all(len(line) <= 80 for line in tail.splitlines())
    assert len([line for line in tail.splitlines() if line.startswith("    ")]) == len(PREDICTORS)
    result = CliRunner().invoke(app, ["report", str(out), "--detail"])
    assert result.exit_code == 0, result.output
    assert result.stdout == printed
    page = (out / "summary.html").read_text()
    assert "Interference, predicted and measured" in page
    assert "What it gains and loses" in page
    assert "How it was made" not in page


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--interference", "1"), "one item has no standard error"),
        (("--interference", "2", "--reference", "base"), "it takes a merge of the reference, base, with one other"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_asked(
    room: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(app, command(room, tmp_path / "out", *more))
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_recipe_asks_for_two_items_at_least(tmp_path: Path) -> None:
    recipe = {"name": "x", "base": "b", "adapters": {"a": {"path": "p"}}, "merges": [{"a": 1.0}]}
    (tmp_path / "r.yaml").write_text(
        yaml.safe_dump({**recipe, "evaluation": {"suites": ["s"], "reference": "a", "interference": 1}})
    )
    with pytest.raises(RecipeError, match="one item has no standard error"):
        load_recipe(tmp_path / "r.yaml")


def test_every_predictor_has_a_row_and_a_verdict(found: dict[str, Any]) -> None:
    for target in found["agreement"].values():
        target["overlap_cosine"]["mean"]["change"] = {"value": -0.9, "low": -0.95, "high": -0.5, "n": 6}
        target["overlap_energy"]["mean"]["change"] = {"value": None, "low": None, "high": None, "n": 2}
        target["activation_size"]["mean"]["change"] = {"value": 0.6, "low": -0.1, "high": 0.8, "n": 6}
        target["integrated"]["mean"]["change"] = {"value": 0.6, "low": 0.1, "high": 0.8, "n": 6}
    table = agreement_tables(found)[0]
    assert table["heads"] == [
        *("change of the loss", "size of that change"),
        *("change of the log-odds of a trace", "size of that change"),
    ]
    rows = {row["predictor"]: row for row in table["rows"]}
    assert set(rows) == set(PREDICTORS.values())
    cells = {name: rows[PREDICTORS[name]]["cells"][0] for name in PREDICTORS}
    assert cells["overlap_cosine"] == {
        "value": "-0.90",
        "interval": "-0.95 to -0.50",
        "n": "n = 6",
        "verdict": "orders it in reverse",
    }
    assert [cells[n]["verdict"] for n in ("overlap_energy", "activation_size", "integrated")] == [
        *("not defined", "fails", "orders it"),
    ]
    assert rows[PREDICTORS["integrated"]]["group"] == "from gradients of the same gates"


def test_unknown_numbers_are_dashes(found: dict[str, Any]) -> None:
    """One item has no standard error; a guest of weight 0 changes nothing, so that nothing can be complete."""
    loss = found["attribution"]["loss"]
    loss |= {"change": {"value": 0.0, "stderr": None}, "completeness": None}
    found["divergence"]["first_token"] = {"value": None, "stderr": None}
    for row in found["residual"]:
        row["ratio"] = {"value": None, "stderr": None}
    found["classes"] = []
    for target in found["measured"].values():
        target["units"] = []
    view, charts = interference_view(found)
    assert view is not None
    assert "by +0 ± – nats per token" in view["sentences"][0]
    assert "account for – of it" in view["sentences"][0]
    assert "KL(merge || sft alone) is – nats" in view["sentences"][2]
    assert view["left_out"] == [
        "No picture: no module could be switched apart.",
        "No picture: non-additivity is not defined behind any layer.",
    ]
    assert set(charts) == {"interference_attribution", "interference_merge_weights"}
    assert "By class of tokens" in render_report({**study(), "interference": found})


def test_the_layers_have_their_spread(found: dict[str, Any]) -> None:
    chart = layers_chart(found)
    assert chart is not None
    rows = chart["layer"][1]["data"]["values"] if "data" in chart["layer"][1] else chart["data"]["values"]
    known = {(r["layer"], r["kind"]): r["ratio"] for r in found["residual"]}
    assert len(rows) == len(known) == 2 * len({kind for _, kind in known})
    named = {"prompt": "prompt", "end of the prompt": "opener", "think": "think", "answer": "answer"}
    for row in rows:
        ratio = known[row["layer"], named[row["series"]]]
        assert row["value"] == ratio["value"]
        assert row["high"] == pytest.approx(ratio["value"] + 1.96 * (ratio["stderr"] or 0))
        assert 0 <= row["low"] <= row["value"]


@pytest.mark.browser
def test_another_predictor_can_be_chosen(show: Any, found: dict[str, Any]) -> None:
    page = show(render_report({**study(), "interference": copy.deepcopy(found)}))
    plot = page.locator("[data-chart=interference_predicted]")
    said = {}
    for name in ("activation_ratio", "integrated"):
        plot.locator("select").first.select_option(PREDICTORS[name])
        page.wait_for_timeout(200)
        (said[name],) = [t for t in plot.locator("svg text").all_text_contents() if "Spearman" in t]
        change = found["agreement"]["loss"][name]["mean"]["change"]
        assert said[name].startswith(f"Spearman {change['value']:.2f} (95% ")
        assert said[name].endswith(f"n = {change['n']}")
    assert said["activation_ratio"] != said["integrated"]
    assert page.locator("#interference .ranks").first.locator("tbody tr").count() == len(PREDICTORS)
    assert page.locator("#interference h3", has_text="By class of tokens").count() == 1
    assert page.complaints == []


def test_the_picture_has_every_predictor(found: dict[str, Any]) -> None:
    chart = predicted_chart(found)
    assert chart is not None
    points = chart["layer"][2]["data"]["values"]
    assert {p["predictor"] for p in points} == set(PREDICTORS.values())
