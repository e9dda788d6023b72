"""The page: self-contained, escaped, and working in a real browser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from crossmatch.report.charts.study_charts import recovered_chart
from crossmatch.report.page.render import render_report
from crossmatch.report.page.study import build_view

VARIANTS = ("base", "pt", "sft", "pt0.3+sft0.7", "sft0.7")
EVIL = "<script>window.hacked = 1</script>"


def entry(value: float, difference: bool = True) -> dict[str, Any]:
    d = {"value": -0.1, "low": -0.2, "high": 0.3, "n": 9, "p": 0.4, "test": "mcnemar-exact", "gained": 1, "lost": 2}
    d |= {"mde": 0.2, "p_holm": 0.8}
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9, "difference": d if difference else None}


def suite(metrics: dict[str, float], **more: Any) -> dict[str, Any]:
    part = {"value": -0.5, "low": -1.5, "high": 0.5}
    return {
        "kind": "generation",
        "n": 9,
        "left_out": 0,
        "incomplete": None,
        "signatures": {"bleu": "nrefs:1|tok:13a"},
        "metrics": {m: {v: entry(x, v != "sft") for v in VARIANTS} for m, x in metrics.items()},
        "fall": {v: dict.fromkeys(("total", "dilution", "content", "length"), part) for v in VARIANTS if v != "sft"},
        **more,
    }


def picked() -> dict[str, Any]:
    flip = {"kept": 3, "gained": 1, "lost": 1, "wrong_alike": 2, "wrong_otherwise": 1}
    flip |= {"gained_ids": ["1"], "lost_ids": []}
    table = suite({"acc": 0.5}, kind="choice", signatures={}, flips={v: flip for v in VARIANTS if v != "sft"})
    return {k: v for k, v in table.items() if k != "fall"}


def facts() -> dict[str, Any]:
    answers = [[f"answer {i % 3} of {v}" if i % 4 else "all the same" for v in VARIANTS] for i in range(20)]
    answers[5][3] = "<think>Let me see.</think>Blood " + EVIL
    rows = [
        {
            "id": str(i),
            "question": f"question number {i}",
            "reference": "reference",
            "answers": [{"text": t, "marks": [[0, 26]] if "think" in t else []} for t in given],
        }
        for i, given in enumerate(answers)
    ]
    picks = [{"id": "1", "question": "pick", "reference": "a", "answers": [{"text": "a", "right": True}] * 5}]
    modules = [
        {
            "name": f"model.layers.{layer}.{m}.weight",
            "layer": layer,
            "module": m,
            "cosine": 0.01 * layer,
            "cosine_null": 0.002,
            "energy_ratio": 0.1 + layer,
            "first_norm": 1.0,
            "second_norm": 2.0,
        }
        for layer in range(4)
        for m in ("q_proj", "up_proj")
    ]
    weights = {n: {"claimed": c, "recovered": c + 1e-4, "stderr": 2e-5} for n, c in (("pt", 0.3), ("sft", 0.7))}
    verdict = {
        "verdict": "verified",
        "faults": [],
        "notes": ["rounded-twice"],
        "explained": {"rounded-twice": "the weights were rounded more than once on the way"},
        "findings": [],
        "thresholds": {"weight": 0.01, "sigmas": 4.0},
        "evidence": {"checked": ["config", "generation_config"], "not_checked": ["eos: no end is declared"]},
        "weights": weights,
        "modules": {"adapted": 8, "agree": 8, "disagree": 0, "undecided": 0},
        "tensors": {"total": 10, "untouched_identical": 2},
        "rounding": {"route": "twice", "violations": 0.00002, "replay": {"route": "delta-rounded", "mismatch": 0.0}},
        "digests": {"merged": "0" * 64},
        "details": [
            {"name": m["name"], "layer": m["layer"], "module": m["module"], "state": "agree", "weights": weights}
            for m in modules
        ],
    }
    training = {
        "stage": "sft",
        "digest": "1" * 64,
        "data": {"examples": 3},
        "tokens_seen": 5,
        "steps": 2,
        "seconds": 1.5,
        "loss": [[1, 3.0], [2, 2.0]],
    }
    metrics = {"bleu": 5.0, "rougeL": 20.0, "trace_structural": 0.1}
    return {
        "study": "fixture",
        "question": "Is it safe? " + EVIL,
        "base": {"name": "base", "digest": "2" * 64, "parameters": 1234567},
        "data": None,
        "adapters": {"pt": {**training, "stage": "pt"}, "sft": training},
        "verdicts": {"pt0.3+sft0.7": verdict},
        "summary": {
            "reference": "sft",
            "variants": {
                v: {"kind": k, "weights": {}}
                for v, k in zip(VARIANTS, ("base", "adapter", "adapter", "merge", "control"), strict=True)
            },
            "trained_with": {"own.greedy": {"pt": None, "sft": True}, "chatml.T0.6p0.8": {"pt": None, "sft": False}},
            "conditions": {
                name: {
                    "template": name.split(".")[0],
                    "decoding": name.split(".", 1)[1],
                    "seeds": seeds,
                    "suites": {"ask": suite(metrics), **({"pick": picked()} if seeds == 1 else {})},
                    "divergence": [
                        {"surface": "ask", "choices": "pick", "variant": v, "value": -1.0, "low": -3.0, "high": 1.0}
                        | {"surface_metric": "bleu", "choices_metric": "acc", "against": "reference", "other": "sft"}
                        for v in VARIANTS[1:]
                        if seeds == 1
                    ],
                }
                for name, seeds in (("own.greedy", 1), ("chatml.T0.6p0.8", 5))
            },
        },
        "samples": {
            "variants": list(VARIANTS),
            "conditions": {
                "own.greedy": {"ask": {"kind": "generation", "rows": rows}, "pick": {"kind": "choice", "rows": picks}},
                "chatml.T0.6p0.8": {"ask": {"kind": "generation", "rows": rows[:3]}},
            },
        },
        "overlap": {"first": "pt", "second": "sft", "weights": [0.3, 0.7], "cosine": 0.01, "modules": modules},
        "seconds": {"train": 3.0},
    }


def test_page_is_self_contained_and_escaped() -> None:
    page = render_report(facts())
    assert EVIL not in page
    # References to anything outside: sources, links, imports, fetches of the page's own code.
    body = page.replace(page[page.index("</main>") : page.index('<script id="view"')], "")
    assert not re.search(
        r"""(src|href)\s*=\s*["'](?!#)|@import|url\(|fetch\(|https?://(?!vega\.github\.io/schema)""", body
    )
    assert page == render_report(json.loads(json.dumps(facts())))


def test_verdict_and_numbers_are_shown_as_they_are() -> None:
    view = build_view(facts())
    assert view["verdicts"][0]["word"] == "Verified"
    assert view["verdicts"][0]["weights"][0]["recovered"] == "0.300100 ± 0.000020"
    row = view["conditions"][0]["tables"][0]["rows"][0]
    assert row["cells"][0]["value"] == "5.0"
    assert row["cells"][2]["value"] == "10"
    assert not row["cells"][0]["diffs"][0]["stands_out"]


def test_what_is_left_over_and_what_could_hide_stand_on_the_page_of_a_verified_merge() -> None:
    made = facts()
    verdict = made["verdicts"]["pt0.3+sft0.7"]
    verdict["evidence"] = {**verdict.get("evidence", {}), "left_over": 0.0034, "unseen": 0.012}
    lines = ("left over beside it: at most 0.34% of the claimed delta", "a further delta of 1.2%, spread over a module")
    page = render_report(made)
    assert all(line in page for line in lines)
    verdict["verdict"] = "failed"
    page = render_report(made)
    assert not any(line in page for line in lines)


def failing() -> dict[str, Any]:
    """The same merge with two faults, in two modules of which nothing is known, and a name made to do harm."""
    failed = facts()
    verdict = failed["verdicts"]["pt0.3+sft0.7"]
    finding = {
        "fault": "weights-uneven",
        "where": [f"model.layers.3.{EVIL}\x1b[31m\ud800.weight", *(f"t{i}" for i in range(20))],
        "evidence": "the weights here are pt 0.5",
        "consequence": "modules carry different weights",
        "remedy": "merge again, or claim the weights by module",
    }
    verdict |= {"verdict": "failed", "faults": ["weights-uneven"], "findings": [finding]}
    verdict["modules"] = {"adapted": 8, "agree": 6, "disagree": 1, "undecided": 1}
    last, other = verdict["details"][-1], verdict["details"][0]
    last |= {"state": "disagree", "weights": {**last["weights"], "pt": {"recovered": 0.5, "stderr": 1e-4}}}
    other |= {"state": "undecided", "weights": {}, "layer": None, "module": "lm_head"}
    return failed


def test_a_failed_proof_is_shown_in_words() -> None:
    page = render_report(failing())
    assert EVIL not in page
    page.encode()
    for text in (
        "Failed",
        "Fault: weights-uneven",
        "Modules carry different weights.",
        "Seen: the weights here are pt 0.5.",
        "What to do:",
        "Merge again, or claim the weights by module.",
        "and 13 more",
        "6 of 8 adapted modules agree with the claim, 1 disagree, 1 hold no evidence either way",
        "rounded more than once, an honest route (bit for bit: delta-rounded), 0.00% of the elements outside it",
        "The weights were rounded more than once on the way.",
        "eos: no end is declared",
        "compared beside the weights: config, generation config",
    ):
        assert text in page, text
    assert "\x1b" not in page
    assert "\\x1b[31m\\ud800.weight" in page


def test_the_map_of_weights_marks_what_contradicts_the_claim() -> None:
    verdict = failing()["verdicts"]["pt0.3+sft0.7"]
    spec = recovered_chart(verdict, "pt")
    assert spec is not None
    marks = [row["mark"] for row in spec["data"]["values"]]
    assert (marks.count("×"), marks.count("?"), len(marks)) == (1, 1, 8)
    domain = spec["layer"][1]["encoding"]["color"]["scale"]["domain"]
    assert domain == pytest.approx([0.1, 0.5])
    # Rounding noise is not blown up to a difference.
    calm = recovered_chart(facts()["verdicts"]["pt0.3+sft0.7"], "pt")
    assert calm is not None
    assert calm["layer"][1]["encoding"]["color"]["scale"]["domain"] == pytest.approx([0.29, 0.31])
    # A report of an earlier version has no layers.
    del verdict["details"][0]["layer"]
    assert recovered_chart(verdict, "pt") is None


def test_an_inconclusive_proof_says_why() -> None:
    open_question = facts()
    verdict = open_question["verdicts"]["pt0.3+sft0.7"]
    verdict |= {"verdict": "inconclusive", "notes": ["not-identifiable"]}
    verdict["explained"] = {"not-identifiable": "the file does not hold the evidence"}
    for weight in verdict["weights"].values():
        weight |= {"recovered": None, "stderr": None}
    for detail in verdict["details"]:
        detail["weights"] = {}
    page = render_report(open_question)
    assert "Inconclusive" in page
    assert "The file does not hold the evidence." in page
    assert "Verified" not in page


def test_page_without_evaluation_or_training() -> None:
    few = facts()
    few |= {"summary": None, "samples": None, "overlap": None}
    few["adapters"] = {"pt": {"digest": "1" * 64, "loss": None, "stage": None, "data": None}}
    few["verdicts"]["pt0.3+sft0.7"]["weights"]["pt"] |= {"recovered": None, "stderr": None}
    page = render_report(few)
    assert "not identifiable" in page
    assert "Answers side by side" not in page


@pytest.fixture
def opened(show: Any) -> Any:
    return show(render_report(facts()))


@pytest.mark.browser
def test_page_renders_without_a_complaint(opened: Any, tmp_path: Path) -> None:
    assert opened.complaints == []
    assert opened.locator(".word").inner_text() == "Verified"
    assert opened.locator("[data-chart] svg").count() == 6
    # Two maps of weights on which all modules agree are sentences.
    assert "pt: all 8 modules agree with the claim of 0.3; recovered 0.30010." in opened.locator("#proof").inner_text()
    assert opened.evaluate("window.hacked") is None
    opened.screenshot(path=tmp_path / "page.png", full_page=True)
    assert (tmp_path / "page.png").stat().st_size > 50_000


@pytest.mark.browser
def test_samples_can_be_searched_and_filtered(opened: Any) -> None:
    cards, count = opened.locator(".sample"), opened.locator("#count")
    assert count.inner_text() == "20 of 20"
    assert cards.count() == 6
    opened.click("#more")
    assert cards.count() == 12
    opened.check("#differs")
    # Every fourth question has one answer for all variants.
    assert count.inner_text() == "15 of 20"
    opened.fill("#search", "number 17")
    assert count.inner_text() == "1 of 20"
    assert "number 17" in cards.first.inner_text()
    opened.fill("#search", "")
    opened.uncheck("#differs")
    opened.check("#traced")
    assert count.inner_text() == "1 of 20"
    assert opened.locator("mark").first.inner_text() == "<think>Let me see.</think>"
    assert EVIL in cards.first.inner_text()
    opened.uncheck("#traced")
    opened.select_option("#suite", "pick")
    assert count.inner_text() == "1 of 1"
    assert opened.locator(".answer.right").count() == 5
    assert opened.complaints == []


@pytest.mark.browser
def test_conditions_are_tabs_and_flips_lead_to_their_items(opened: Any) -> None:
    first, second = opened.locator(".condition").all()
    assert (first.is_visible(), second.is_visible()) == (True, False)
    # SFT was trained with another template than this.
    assert "untrained" in (opened.locator("#tab1").get_attribute("class") or "")
    opened.click("#tab1")
    assert (first.is_visible(), second.is_visible()) == (False, True)
    assert "was trained with a different template" in second.inner_text()
    assert "Unknown: the template that pt was trained with." in second.inner_text()
    opened.locator("#tab1").press("ArrowRight")
    assert first.is_visible()
    assert opened.locator("[data-chart=divergence0] svg").bounding_box()["width"] > 300
    opened.locator("button.items").first.click()
    assert opened.locator("#suite").input_value() == "pick"
    assert opened.locator("#count").inner_text() == "1 of 1"
    opened.click("#all")
    opened.select_option("#condition", "chatml.T0.6p0.8")
    assert opened.locator("#count").inner_text() == "3 of 3"
    assert opened.complaints == []


@pytest.mark.browser
def test_tooltips_show_numbers(opened: Any) -> None:
    opened.locator(
        "[data-chart=cosine] path[aria-roledescription='rect mark'], [data-chart=cosine] g.mark-rect path"
    ).first.hover()
    opened.wait_for_selector("#vg-tooltip-element.visible")
    assert "cosine" in opened.locator("#vg-tooltip-element").inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width_and_dark_mode(opened: Any, scheme: str) -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": 375, "height": 800})
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 375
    ground, ink = (opened.evaluate(f"getComputedStyle(document.body).{p}") for p in ("backgroundColor", "color"))
    light = [sum(map(int, re.findall(r"\d+", c)[:3])) for c in (ground, ink)]
    assert (light[0] > light[1]) == (scheme == "light")
    assert opened.complaints == []
