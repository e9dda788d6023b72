"""Traces: what counts as one, where it stands, and that the page marks what was counted."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmatch.data.reasoning_formats import FORMATS
from crossmatch.evaluation.comparison.side_by_side import side_by_side
from crossmatch.evaluation.conditions import OWN
from crossmatch.evaluation.metrics.reasoning_traces import OPENERS, parse_trace, utf16_spans
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.report.page.render import render_report
from openings import HELD_OUT, SEEN

# Counted, each of them: whoever reads a report must see why.
COUNTED = (
    *("首先我需要回忆。", "首先，我要看看。", "让我来想一下。", "让我先看题目。", "让我思考。", "让我们考虑选项。"),
    *("让我们来分析。", "First, I need to recall it.", "So, we need to decide.", "Okay, let me see."),
    "嗯，贫血。",
)
# Not counted: a tag that is shown, not used.
SHOWN = ("Use it so:\n```\n<think>x</think>\n```\nas above", "> <think>quoted</think>\nAnaemia.", "`<think>` opens it.")


@pytest.mark.parametrize("part", [SEEN, HELD_OUT], ids=["seen", "held out"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_openings_are_told_apart(part: dict[str, dict[str, tuple[str, ...]]], language: str) -> None:
    traces, answers = part[language]["trace"], part[language]["answer"]
    missed = [text for text in traces if not parse_trace(text).lexical]
    assert [text for text in answers if parse_trace(text).lexical] == []
    assert len(missed) <= 0.05 * len(traces), missed


def test_there_are_enough_openings_of_both_classes() -> None:
    for language in ("en", "zh"):
        for kind in ("trace", "answer"):
            texts = SEEN[language][kind] + HELD_OUT[language][kind]
            assert len(set(texts)) == len(texts) >= 40


def test_every_opener_that_is_probed_is_one_that_is_counted() -> None:
    for openers in OPENERS.values():
        assert [o for o in openers if not (parse_trace(o).lexical or parse_trace(o).structural)] == []


@pytest.mark.parametrize("text", COUNTED)
def test_what_is_counted_has_a_place(text: str) -> None:
    (begin, end), *_ = parse_trace(text).lexical_spans
    assert begin == 0
    assert 0 < end <= len(text)


@pytest.mark.parametrize("text", SHOWN)
def test_a_tag_that_is_shown_has_none(text: str) -> None:
    trace = parse_trace(text)
    assert (trace.state, trace.structural_spans, trace.lexical_spans) == ("none", (), ())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("<think>ab</think>cd<think>ef</think>gh", ["<think>ab</think>", "<think>ef</think>"]),
        ("thought</think>\nAnaemia.", ["thought</think>"]),
        ("Blood. <think>endless", ["<think>endless"]),
        ("<think> </think>Anaemia.", []),
        ("<think>Hm.</think>Okay, let me see. Let me think.", ["<think>Hm.</think>", "Okay, let", "Let me think"]),
        # A trace in the middle of an opener: both of its ends are marked.
        ("Okay, <think>x</think>let me", ["<think>x</think>", "Okay, ", "let"]),
        ("a" * 200 + " Okay, let me see", []),
    ],
)
def test_spans_are_what_is_counted(text: str, pieces: list[str]) -> None:
    trace = parse_trace(text)
    assert [text[begin:end] for begin, end in trace.structural_spans + trace.lexical_spans] == pieces


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Anaemia.", "Anaemia."),
        ("<think>a</think>\n\nAnaemia.", "Anaemia."),
        ("<think>a</think> Anaemia.", " Anaemia."),
        ("<think>\n\n</think>\n\nAnaemia.", "Anaemia."),
        ("a</think>\n <think>b</think>B", "B"),
        ("Anaemia. <think>a</think>", "Anaemia. <think>a</think>"),
        ("<think>a</think>", ""),
        ("", ""),
        ("<think>a", None),
        ("<think>a</think><think>b", None),
    ],
)
def test_the_answer_begins_behind_its_trace(text: str, rest: str | None) -> None:
    step = parse_trace(text).step
    assert (None if step is None else text[step:]) == rest


@given(st.text("ab <>/`\n🩸", max_size=20), st.sampled_from(["<think>", "</think>", "Okay, let", "```", "让我想"]))
def test_spans_lie_in_order_and_make_the_share(text: str, piece: str) -> None:
    whole = text + piece + text
    trace = parse_trace(whole)
    assert sum(end - begin for begin, end in trace.structural_spans) == pytest.approx(trace.share * len(whole))
    for spans in (trace.structural_spans, trace.lexical_spans):
        edges = [edge for span in spans for edge in span]
        assert edges == sorted(edges)
        assert all(begin < end for begin, end in spans)
    units = whole.encode("utf-16-le")
    for (begin, end), (first, last) in zip(trace.lexical_spans, utf16_spans(whole, trace.lexical_spans), strict=True):
        assert units[2 * first : 2 * last].decode("utf-16-le") == whole[begin:end]


ANSWERS = (
    "🩸🩸 x <think>Blut 🩸</think>Anaemia.",
    "🩸 Okay, let me see.",
    *COUNTED,
    *SHOWN,
    "<script>window.hacked = 1</script><think>y</think>",
)


def samples() -> dict[str, Any]:
    """Records of one variant, as an evaluation keeps them, and a choice that is both scored and written."""
    asked = [
        {"id": str(i), "question": "q", "reference": "r", "seed": 0, "output": text, "truncated": False}
        for i, text in enumerate(ANSWERS)
    ]
    written = {"seed": 0, "output": "🩸<think>hm</think>B", "truncated": True, "tokens": 3, "chosen": 1}
    pick = {"id": "0", "question": "q", "options": ["a", "b"], "right": 1, "chosen": 0, "generated": [written]}
    suites = [SimpleNamespace(settings=SimpleNamespace(name=n, kind=k, reasoning_formats=FORMATS)) for n, k in KINDS]
    records = {("base", name, OWN[0].name): rows for (name, _), rows in zip(KINDS, (asked, [pick]), strict=True)}
    return side_by_side(records, [Variant("base", "base", {})], suites)  # type: ignore[arg-type]


KINDS = (("ask", "generation"), ("pick", "choice"))


def test_a_generated_choice_is_shown_beside_the_scored_one() -> None:
    row = samples()["conditions"]["own.greedy"]["pick"]["rows"][0]
    (answer,) = row["answers"]
    assert (answer["text"], answer["right"]) == ("a", False)
    assert answer["generated"] == {
        "text": "🩸<think>hm</think>B",
        "trace": "closed",
        "lexical": False,
        "marks": [[2, 19]],
        "right": True,
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Iterator[Any]:
    condition = {"template": "own", "decoding": "greedy", "seeds": 1, "suites": {}, "divergence": []}
    summary = {"reference": "base", "variants": {}, "conditions": {"own.greedy": condition}}
    facts: dict[str, Any] = {"study": "s", "question": "q", "base": {"name": "b", "digest": "2" * 64, "parameters": 1}}
    facts |= {"data": None, "adapters": {}, "verdicts": {}, "summary": summary, "samples": samples()}
    facts |= {"overlap": None, "seconds": {}, "versions": {}}
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(render_report(json.loads(json.dumps(facts))))
    opened = browser.new_page(viewport={"width": 900, "height": 900})
    opened.goto(file.as_uri())
    yield opened
    opened.close()


@pytest.mark.browser
def test_the_page_marks_what_was_counted(page: Any) -> None:
    page.locator("#more").wait_for()
    while page.locator("#more").is_visible():
        page.click("#more")
    cards = page.locator(".sample").all()
    assert len(cards) == len(ANSWERS)
    for text, card in zip(ANSWERS, cards, strict=True):
        trace = parse_trace(text)
        spans = sorted(trace.structural_spans + trace.lexical_spans)
        assert card.locator("mark").all_text_contents() == [text[begin:end] for begin, end in spans]
        assert text in card.locator(".answer").text_content()
    page.check("#traced")
    assert page.locator("#count").inner_text() == f"{len(ANSWERS) - len(SHOWN)} of {len(ANSWERS)}"
    assert page.evaluate("window.hacked") is None


@pytest.mark.browser
def test_the_page_shows_and_searches_generated_choices(page: Any) -> None:
    page.select_option("#suite", "pick")
    assert page.locator(".generated.right mark").all_text_contents() == ["<think>hm</think>"]
    assert page.locator(".answer.wrong").count() == 1
    page.fill("#search", "think>hm")
    assert page.locator("#count").inner_text() == "1 of 1"
