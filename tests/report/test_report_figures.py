"""The tables of the measurement on the page and in the terminal, and the picture of the divergence."""

from typing import Any

import pytest
from test_report import VARIANTS, entry, facts, suite

from crossmatch.report.metric_text import telling
from crossmatch.report.page.render import render_report
from crossmatch.report.page.study import build_view
from crossmatch.report.terminal.evaluation import print_summary

MERGE = "pt0.3+sft0.7"


def difference(value: float, p_holm: float | None, **more: Any) -> dict[str, Any]:
    bounds = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9, "p": 0.01, "p_holm": p_holm}
    return {**bounds, "test": "paired-bootstrap", "gained": None, "lost": None, "mde": 0.25, **more}


def told() -> dict[str, Any]:
    """Differences from all four, of which only those from the base are significant after adjustment."""
    found = facts()
    for condition in found["summary"]["conditions"].values():
        for table in condition["suites"].values():
            for entries in table["metrics"].values():
                for variant, figure in entries.items():
                    figure["difference"] = None if variant == "sft" else difference(-0.3, 0.5)
                    figure["difference_base"] = None if variant == "base" else difference(1.5, 0.01)
                    figure["difference_control"] = difference(-0.7, 0.049) if variant == MERGE else None
                    figure["difference_null"] = difference(-0.9, None) if variant == MERGE else None
    return found


def test_only_an_adjusted_p_below_5_percent_stands_out() -> None:
    cells = build_view(told())["conditions"][0]["tables"][0]["rows"][3]["cells"]
    diffs = {d["key"]: d for d in cells[0]["diffs"]}
    # Each of their intervals excludes zero.
    assert {key: d["stands_out"] for key, d in diffs.items()} == {
        "difference": False,
        "difference_base": True,
        "difference_control": True,
        "difference_null": False,
    }
    assert diffs["difference_null"]["p"] == "p = 0.01 (not adjusted)"
    assert diffs["difference"] | {"test": ""} == {
        "key": "difference",
        "other": "sft",
        "text": "-0.3 (-0.4 to -0.2)",
        "p": "p = 0.5",
        "mde": "mde 0.2",
        "n": "",
        "test": "",
        "stands_out": False,
    }


def test_heads_have_n_and_test_and_an_odd_n_is_said() -> None:
    found = told()
    bleu = found["summary"]["conditions"]["own.greedy"]["suites"]["ask"]["metrics"]["bleu"]
    bleu[MERGE]["difference_base"]["n"] = 4
    table = build_view(found)["conditions"][0]["tables"][0]
    assert table["heads"][0] | {"help": ""} == {
        "title": "BLEU",
        "help": "",
        "n": 9,
        "test": "paired bootstrap",
        "note": "",
    }
    assert [d["n"] for d in table["rows"][3]["cells"][0]["diffs"]] == ["", "n = 4", "", ""]


def test_every_figure_of_the_summary_is_on_the_page() -> None:
    found = told()
    metrics = ("chrf_raw", "sentence_bleu", "rouge1_raw", "lf_rouge2_stripped", "acc_mean", "trace_share", "new_one")
    asked = found["summary"]["conditions"]["own.greedy"]["suites"]["ask"]
    asked["metrics"] |= {metric: {v: entry(0.5, v != "sft") for v in VARIANTS} for metric in metrics}
    table = build_view(found)["conditions"][0]["tables"][0]
    assert {row["metric"] for row in table["all"]["rows"]} == set(asked["metrics"])
    assert {head["title"] for head in table["heads"]} == {"BLEU", "ROUGE-L", "traces %"}
    assert all(len(row["cells"]) == len(VARIANTS) for row in table["all"]["rows"])


def test_what_has_nothing_to_tell_is_said_in_a_line() -> None:
    same = {v: entry(5.0) for v in VARIANTS}
    none = {v: {**entry(0.0), "high": 0.08} for v in VARIANTS}
    rare = {v: {**entry(1e-9), "high": 3e-9} for v in VARIANTS}
    metrics = {"bleu": same, "bleu_raw": same, "trace_structural": none, "think_probability": rare}
    shown, lines = telling(metrics, VARIANTS)
    assert shown == ["bleu"]
    assert lines == [
        "BLEU raw: the same, no output has a trace",
        "traces %: 0 for all (the intervals end at 8 at most)",
        "P(<think>): 3e-09 at most, for all",
    ]
    assert telling(metrics | {"bleu_raw": {**same, "pt": entry(4.0)}}, VARIANTS)[0] == ["bleu", "bleu_raw"]


def test_the_terminal_shows_all_differences_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(told()["summary"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for line in (
        "  bleu (n = 9, paired bootstrap)",
        "      vs sft           -0.3 (-0.4 to -0.2)          p=0.5     mde 0.25",
        "      vs base          +1.5 (+1.4 to +1.6)          p=0.01*   mde 0.25",
        "      vs control       -0.7 (-0.8 to -0.6)          p=0.049*  mde 0.25",
        "      vs nulls         -0.9 (-1 to -0.8)            p=0.01 (raw) mde 0.25",
    ):
        assert line in [shown.rstrip() for shown in out.splitlines()], line


def test_detail_leaves_no_figure_out(capsys: pytest.CaptureFixture[str]) -> None:
    summary = told()["summary"]
    suite = next(iter(next(iter(summary["conditions"].values()))["suites"].values()))
    figure = {v: {"value": 7.5, "low": 7.25, "high": 7.75, "n": 9} for v in summary["variants"]}
    suite["metrics"] |= {"sentence_bleu": figure, "chrf": figure, "chrf_raw": figure}
    print_summary(summary)
    out = capsys.readouterr().out
    assert "  sentence_bleu (n = 9)" in out
    assert "7.5 (7.25 to 7.75)" in out
    assert "  chrF raw: the same, no output has a trace" in out
    assert "more: --json" not in out


def test_a_suite_that_is_not_here_says_why() -> None:
    first, second = build_view(facts())["conditions"]
    assert first["elsewhere"] == []
    assert second["elsewhere"] == [
        "pick is not asked again here because decoding has no effect on scored options; see own.greedy."
    ]
    assert second["divergence"] == {
        "plane": None,
        "index": None,
        "lines": ["No picture of the divergence: there is no choice suite under this condition."],
    }


def test_the_plane_has_a_cross_for_each_variant() -> None:
    found = told()
    metrics = found["summary"]["conditions"]["own.greedy"]["suites"]["ask"]["metrics"]
    metrics["bleu_raw"] = {v: {**entry(1.0), "difference": difference(-4.0, 0.5)} for v in VARIANTS if v != "sft"}
    metrics["bleu_raw"]["sft"] = entry(1.0, False)
    chart = build_view(found)["charts"]["plane0"]
    rows = {tuple(r[k] for k in ("variant", "output", "against")): r for r in chart["layer"][4]["data"]["values"]}
    assert set(rows) == {
        *((v, o, "sft") for v in VARIANTS if v != "sft" for o in ("answer without its trace", "whole output")),
        (MERGE, "answer without its trace", "its own control"),
    }
    one = rows["pt", "whole output", "sft"]
    assert [one[k] for k in ("x", "x1", "x2")] == pytest.approx([-30, -40, -20])
    assert [one[k] for k in ("y", "y1", "y2")] == pytest.approx([-4, -4.1, -3.9])
    assert [p["name"] for p in chart["params"]] == ["output", "against"]


def test_nothing_is_dropped_from_the_divergence_without_a_word() -> None:
    found = told()
    condition = found["summary"]["conditions"]["own.greedy"]
    condition["divergence"][0] |= {"value": None, "low": None, "high": None, "n": 9}
    condition["divergence"][1] |= {"value": None, "low": None, "high": None, "n": 1}
    flat = condition["suites"]["pick"]["metrics"]["acc"]["pt"]["difference"]
    flat |= {"value": 0.0, "low": 0.0, "high": 0.0}
    condition["suites"]["ask"]["metrics"]["bleu"][MERGE]["difference"] = None
    shown = build_view(found)["conditions"][0]["divergence"]
    assert shown["lines"] == [
        f"{MERGE} is not in the picture: no difference is known for ask.",
        "No index for pt, ask: BLEU less pick: accuracy: every item of pick has the same acc in both, so that its "
        "difference has no error.",
        "No index for sft, ask: BLEU less pick: accuracy: n = 1, and one item has no standard error.",
    ]
    condition["suites"]["ask"]["incomplete"] = {"pt": {"failed": 1, "reason": "timeout"}}
    lines = build_view(found)["conditions"][0]["divergence"]["lines"]
    assert lines[0] == "ask is incomplete, so it is not compared and not in the picture."


def test_the_choices_of_another_decoding_are_used_and_named() -> None:
    found = told()
    conditions = found["summary"]["conditions"]
    conditions["chatml.T0.6p0.8"]["template"] = "own"
    shown = build_view(found)["conditions"][1]["divergence"]
    assert (shown["plane"], shown["index"]) == ("plane1", None)
    assert shown["lines"] == [
        "Choices are scored once for each template: theirs are those under own.greedy.",
        "No index was computed.",
    ]


def test_falls_and_flips_have_n_and_a_test() -> None:
    found = told()
    condition = found["summary"]["conditions"]["own.greedy"]
    fall = condition["suites"]["ask"]["fall"]
    part = {"value": -0.5, "low": -1.5, "high": 0.5, "n": 9, "p": 0.2, "p_holm": 0.4, "test": "paired-bootstrap"}
    fall[MERGE] = [{**fall[MERGE], "total": part}, {"against": "control", "total": {**part, "p_holm": 0.03}}]
    view = build_view(found)["conditions"][0]
    rows = [(r["variant"], r["other"], r["cells"][0]["p"]) for r in view["falls"][0]["rows"] if r["variant"] == MERGE]
    assert rows == [(MERGE, "sft", "p = 0.4, n = 9"), (MERGE, "its own control", "p = 0.03, n = 9")]
    assert [c["text"] for c in view["falls"][0]["rows"][3]["cells"]][1:] == ["–"] * 3
    assert view["flips"][0]["rows"][0]["change"] == "-30.0 (-40.0 to -20.0), p = 0.5"
    assert view["flips"][0]["rows"][0]["n"] == 8


@pytest.mark.browser
def test_a_reader_chooses_what_differences_are_from(show: Any) -> None:
    found = told()
    ask = found["summary"]["conditions"]["own.greedy"]["suites"]["ask"]
    ask["clean"] = {**suite({"bleu": 4.0}), "n": 3}
    page = show(render_report(found))
    cell = page.locator("#condition0 table.figures tbody tr").nth(3).locator("td").first
    assert "-0.3 (-0.4 to -0.2)" in cell.inner_text()
    assert "vs" not in cell.inner_text()
    assert cell.locator(".diff.clear:visible").count() == 0
    page.select_option("#against", "difference_base")
    assert "+1.5 (+1.4 to +1.6)" in cell.inner_text()
    assert "-0.3" not in cell.inner_text()
    assert "mde 0.2" in cell.inner_text()
    assert cell.locator(".diff.clear:visible").count() == 1
    page.select_option("#against", "all")
    assert [cell.inner_text().count(f"vs {name}") for name in ("sft", "base", "its own control", "its random")] == [
        1
    ] * 4
    assert page.locator("#condition0 table.whole").first.locator("tbody tr:visible").count() == 3
    assert page.complaints == []


@pytest.mark.browser
def test_the_plane_can_show_the_whole_output(show: Any) -> None:
    found = told()
    metrics = found["summary"]["conditions"]["own.greedy"]["suites"]["ask"]["metrics"]
    metrics["bleu_raw"] = {v: {**entry(1.0), "difference": difference(-40.0, 0.5)} for v in VARIANTS if v != "sft"}
    metrics["bleu_raw"]["sft"] = entry(1.0, False)
    page = show(render_report(found))
    plane = page.locator("[data-chart=plane0]")
    labels = [label for label in plane.locator("svg text").all_text_contents() if label in VARIANTS]
    assert sorted(labels) == sorted(v for v in VARIANTS if v != "sft")
    before = plane.locator("svg").inner_html()
    plane.locator("select").first.select_option("whole output")
    page.wait_for_timeout(200)
    after = plane.locator("svg").inner_html()
    assert before != after
    assert "40" in after
    assert page.complaints == []
