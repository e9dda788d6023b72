"""The figures of the items that no training data touch, and the number of items where a figure has fewer."""

import re

import pytest
from test_report import EVIL, VARIANTS, entry, facts, suite

from crossmatch.report.page.render import render_report


def test_the_clean_part_has_its_table_on_the_page() -> None:
    found = facts()
    condition = next(iter(found["summary"]["conditions"].values()))
    name = next(iter(condition["suites"]))
    whole = {"bleu": 0.5, "kl_answer": 0.25}
    condition["suites"][name] = suite(whole, clean={**suite({"bleu": 0.75}), "n": 4})
    kl = condition["suites"][name]["metrics"]["kl_answer"]
    for variant in VARIANTS:
        kl[variant]["n"] = 3
    # The reference has no divergence from itself.
    kl["sft"] = {**entry(0, False), "value": None, "low": None, "high": None, "n": 0}
    found["summary"]["variants"]["pt"]["note"] = EVIL
    page = render_report(found)
    assert page.startswith("<!doctype html>")
    assert EVIL not in page
    (part,) = re.findall(rf"<details><summary>{name}: the same for the 4 clean items.*?</details>", page, re.DOTALL)
    assert part.count("<tr>") == 2
    assert part.count("<td") == len(VARIANTS)
    assert "0.8<small>0.7 to 0.8</small>" in part.replace("0.75", "0.8")
    heads = re.findall(r"<th scope=\"col\"[^>]*>KL answer(.*?)</th>", page)
    assert heads == ["<small>n = 3</small><small>McNemar exact</small>"]
    assert "–<small></small>" in page
    assert "– to –" not in page
    assert "4 of them clean (no training data)" in page


def test_without_a_clean_part_there_is_none() -> None:
    assert "clean items" not in render_report(facts())


@pytest.mark.parametrize("kind", ["checkpoint", "null", "served"])
def test_every_kind_of_variant_has_words(kind: str) -> None:
    found = facts()
    found["summary"]["variants"]["pt"]["kind"] = kind
    assert render_report(found)
