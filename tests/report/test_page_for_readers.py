"""The page as a reader meets it: answers first, folded parts, no table too wide, files to save, keys and landmarks."""

import csv
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from test_report import EVIL, facts

from crossmatch.report.page.analysis import within_chance
from crossmatch.report.page.first_screen import slug
from crossmatch.report.page.render import render_report


def answer(kind: str, outcome: str, **more: Any) -> dict[str, Any]:
    about = {"about": "pt0.3+sft0.7", "against": "sft", "condition": "own.greedy", "good": "yes", "margin": 2.0}
    short = "answers as well (BLEU -0.1, -0.2 to +0.3)"
    found = {"id": kind, "question": f"Is it so? {EVIL}", "outcome": outcome, "short": short, "needed": None}
    evidence = [{"where": "summary.json: conditions", "text": "BLEU -0.1", "n": 9, "needed": None}]
    return {**found, **about, "sentence": "Yes: it answers as well.", "evidence": evidence, "next": None, **more}


def told() -> dict[str, Any]:
    found = facts()
    wide = "a-name-of-a-variant-that-is-longer-than-any-column-of-a-table"
    table = found["summary"]["variants"]
    table[wide] = {"kind": "checkpoint", "weights": {}}
    for condition in found["summary"]["conditions"].values():
        for suite in condition["suites"].values():
            for metric in suite["metrics"].values():
                metric[wide] = metric["pt"]
    found["answers"] = [answer("answers-as-well", "yes"), answer("chooses-as-well", "cannot tell", next="ask more")]
    return found


@pytest.fixture
def opened(show: Any) -> Any:
    return show(render_report(told()), folded=True)


def test_the_page_is_small_and_says_the_answer_before_anything_else() -> None:
    page = render_report(told())
    assert len(page.encode()) < 1_500_000
    assert EVIL not in page
    first = page.index("Against sft it answers as well (BLEU -0.1, -0.2 to +0.3).")
    assert first < page.index('class="compact"') < page.index('id="proof"') < page.index('id="measured"')
    assert "<strong>What to do next:</strong> ask more." in page


def test_cosines_within_chance_are_a_sentence() -> None:
    rows = [{"cosine": 0.001 * i, "cosine_null": 0.002} for i in range(-3, 4)]
    assert within_chance(rows) == "No cosine of the 7 modules is beyond chance; the largest is 0.003 in size."
    assert within_chance([*rows, {"cosine": 0.02, "cosine_null": 0.002}]) is None
    assert within_chance([{"cosine": 0.0, "cosine_null": None}]) is None


def test_names_of_files_are_safe() -> None:
    assert slug("../a b/c\x1b") == "a-b-c-x1b"
    assert slug("..") == "report"


@pytest.mark.browser
def test_nothing_is_wider_than_the_page_at_any_width(opened: Any) -> None:
    opened.click("#unfold")
    for width in (1280, 768, 390):
        opened.set_viewport_size({"width": width, "height": 900})
        opened.wait_for_timeout(400)
        wide = "[...document.querySelectorAll('main table, main figure, main p, main td')]"
        beyond = f"{wide}.filter((n) => n.getBoundingClientRect().right > innerWidth + 1).length"
        assert (width, opened.evaluate("document.documentElement.scrollWidth"), opened.evaluate(beyond)) == (
            width,
            width,
            0,
        )
    # What was a table is one still, for those who hear it.
    assert opened.locator("table.figures.stacked").count() > 0
    assert opened.locator("table.figures.stacked td").first.get_attribute("data-label") == "BLEU"
    assert opened.locator("table.figures.stacked").first.get_attribute("role") == "table"
    assert opened.complaints == []


@pytest.mark.browser
def test_parts_are_folded_and_open_by_keys(opened: Any) -> None:
    assert opened.locator("[data-chart=cosine]").is_visible() is False
    fold = opened.locator("#weights summary").first
    fold.focus()
    opened.keyboard.press("Enter")
    opened.wait_for_selector("[data-chart=cosine] svg")
    # The first key leads past the contents, and the contents lead to sections.
    opened.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    opened.locator(".skip").focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.id") == "main"
    opened.locator(".contents a", has_text="Training").click()
    assert opened.evaluate("location.hash") == "#training"
    assert opened.complaints == []


@pytest.mark.browser
def test_landmarks_headings_and_captions_are_in_order(opened: Any) -> None:
    opened.click("#unfold")
    assert opened.locator("main").count() == opened.locator("header").count() == opened.locator("h1").count() == 1
    assert opened.get_by_role("navigation", name="Contents").count() == 1
    levels = opened.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])")
    assert all(after - before <= 1 for before, after in pairwise(levels)), levels
    assert opened.evaluate("[...document.querySelectorAll('main table')].every((t) => t.caption)")
    unnamed = "[...document.querySelectorAll('main > section')].filter((s) => !s.getAttribute('aria-labelledby'))"
    assert opened.evaluate(f"{unnamed}.length") == 0
    assert opened.evaluate("[...document.querySelectorAll('[data-chart]')].every((c) => c.getAttribute('aria-label'))")
    assert opened.evaluate(
        "[...document.querySelectorAll('input, select')].every((i) => i.labels.length || i.ariaLabel)"
    )


@pytest.mark.browser
def test_figures_and_tables_can_be_saved(opened: Any, tmp_path: Path) -> None:
    opened.click("#unfold")
    opened.wait_for_selector("figure:has([data-chart=loss]) .save")

    def saved(selector: str) -> bytes:
        with opened.expect_download() as download:
            opened.locator(selector).first.click()
        file = tmp_path / download.value.suggested_filename
        download.value.save_as(file)
        assert file.name.startswith("fixture-")
        return file.read_bytes()

    figure = "figure:has([data-chart=loss]) .save button"
    assert saved(f"{figure}:text('SVG')").startswith(b"<svg")
    assert saved(f"{figure}:text('PNG')").startswith(b"\x89PNG")
    text = saved("#answer .save button:text('CSV')").decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0][:2] == ["variant", "BLEU; ask; n = 9"]
    assert rows[1][:2] == ["base", "5.0"]
    assert opened.complaints == []


@pytest.mark.browser
def test_a_section_begins_a_page_of_print(opened: Any) -> None:
    opened.emulate_media(media="print")
    style = "getComputedStyle(document.getElementById('{}'))"
    assert opened.evaluate(style.format("measured") + ".breakBefore") == "page"
    assert opened.evaluate(style.format("answer") + ".breakBefore") == "auto"
    assert opened.locator(".contents").is_visible() is False
