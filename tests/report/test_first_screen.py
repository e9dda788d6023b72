"""The first screen of a terminal: 15 lines at 80 columns, whatever the names and however many variants."""

import json
from functools import partial
from typing import Any

import pytest

from crossmatch.report.answer_sentences import WIDTH
from crossmatch.report.terminal.answers import HEIGHT, Rest, screen, summary_table
from crossmatch.report.text import columns, padded, shortened, wrapped

REST = Rest({"page": "runs/sample/report.html", "json": "runs/sample/report.json"})


def difference(value: float, p: float) -> dict[str, Any]:
    return {"value": value, "low": value - 1, "high": value + 1, "n": 40, "p": p, "p_holm": p, "test": "randomisation"}


def summary(merges: int = 1, suites: tuple[str, ...] = ("define", "name", "documents")) -> dict[str, Any]:
    names = [f"pt0.{i}+sft0.7" for i in range(1, merges + 1)]
    kinds = {"base": "base", "pt": "adapter", "sft": "adapter", **dict.fromkeys(names, "merge"), "sft0.7": "control"}
    metrics = {
        "define": ("generation", ("bleu", "rougeL", "trace_structural")),
        "name": ("choice", ("acc",)),
        "documents": ("text", ("perplexity",)),
    }

    def entry(variant: str, place: int) -> dict[str, Any]:
        clear = difference(-2.0, 0.001 if variant == "base" else 0.4)
        return {
            "value": 0.1 * place,
            "low": 0.0,
            "high": 1.0,
            "n": 40,
            "difference": None if variant == "sft" else clear,
        }

    found = {
        name: {
            "kind": metrics[name][0],
            "n": 40,
            "incomplete": None,
            "metrics": {m: {v: entry(v, i) for i, v in enumerate(kinds)} for m in metrics[name][1]},
        }
        for name in suites
    }
    condition = {"template": "own", "decoding": "greedy", "seeds": 1, "suites": found}
    variants = {name: {"kind": kind, "weights": {}} for name, kind in kinds.items()}
    return {"reference": "sft", "variants": variants, "conditions": {"own.greedy": condition}}


def answer(kind: str, outcome: str, about: str, against: str, **more: Any) -> dict[str, Any]:
    short = {"answers-as-well": "answers as well", "knows-more": "knows more of unseen documents"}[kind]
    facts = {"id": kind, "question": f"{kind}?", "outcome": outcome, "good": "yes", "about": about, "against": against}
    facts |= {"sentence": f"{outcome}: {short}.", "short": f"{short} (BLEU -1.0, -2.0 to +0.5)", "margin": 2.0}
    return {**facts, "condition": "own.greedy", "needed": 350, "evidence": [], "next": None, **more}


def answers(merges: int = 1) -> list[dict[str, Any]]:
    found = []
    for i in range(1, merges + 1):
        name = f"pt0.{i}+sft0.7"
        claim = {"id": "is-as-claimed", "about": name, "against": None, "condition": None, "good": "yes"}
        claim |= {"question": "?", "outcome": "yes", "sentence": f"{name} is what it claims to be (pt 0.3, sft 0.7)."}
        found.append({**claim, "short": "", "next": None, "needed": None})
    for i in range(1, merges + 1):
        for other in ("sft", "sft0.7"):
            found.append(answer("knows-more", "yes", f"pt0.{i}+sft0.7", other))
            step = {"next": "ask about 350 items of define"}
            found.append(answer("answers-as-well", "cannot tell", f"pt0.{i}+sft0.7", other, **step))
    return found


def shown(facts: dict[str, Any], told: list[dict[str, Any]]) -> list[str]:
    lines = screen(told, partial(summary_table, facts, told), REST)
    assert len(lines) <= HEIGHT
    assert all(columns(line) <= WIDTH for line in lines), lines
    return lines


def test_the_screen_says_what_is_asked_first() -> None:
    lines = shown(summary(), answers())
    assert lines[0] == "pt0.1+sft0.7 is what it claims to be (pt 0.3, sft 0.7)."
    assert lines[1] == "Against sft it knows more of unseen documents (BLEU -1.0, -2.0 to +0.5)."
    assert "Too few items (asked of needed) to tell whether, against sft, it answers as well" in lines[2]
    first = [line.split()[0] for line in lines[4:] if line]
    assert [name for name in first if name in summary()["variants"]] == ["base", "sft", "pt0.1+sft0.7", "sft0.7"]
    base, sft = (next(line for line in lines if line.strip().startswith(name)) for name in ("base", "sft "))
    assert ("*" in base, "*" in sft) == (True, False)
    assert any("n = 40, 40, 40, 40, 40" in line for line in lines)
    assert lines[-2] == "next: ask about 350 items of define"
    assert lines[-1].startswith("page: runs/sample/report.html  json: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pt0.1+sft0.7", "医学预训练模型很长的名字0.3+指令微调数据集也很长的名字0.7"),
        ("pt0.1+sft0.7", "a-very-long-name-of-continued-pretraining0.3+another-long-name-of-instruction-tuning0.7"),
        ("define", "一个很长的测试集的名字用来定义"),
    ],
)
def test_long_and_wide_names_fit(old: str, new: str) -> None:
    renamed = json.dumps([summary(), answers()], ensure_ascii=False).replace(old, new)
    lines = shown(*json.loads(renamed))
    assert any("…" in line for line in lines) or old == "define"


def test_many_variants_are_counted_and_rows_that_have_no_room_are_told() -> None:
    lines = shown(summary(8), answers(8))
    assert lines[0] == "All 8 merges are what they claim to be."
    assert "Against sft: knows more of unseen documents 8 of 8." in lines
    assert any("rows left out" in line for line in lines)


@pytest.mark.parametrize("suites", [("define",), ("name",), ("documents",)])
def test_one_suite_and_no_merge(suites: tuple[str, ...]) -> None:
    assert shown(summary(0, suites), [answer("knows-more", "no", "pt", "sft")])
    assert shown(summary(0, suites), [])


def test_suites_of_one_kind_are_told_apart_in_the_heads() -> None:
    facts = summary()
    suites = facts["conditions"]["own.greedy"]["suites"]
    suites["second"] = suites["define"]
    lines = shown(facts, answers())
    heads = next(line for line in lines if "BLEU  " in line)
    assert "define" in lines[lines.index(heads) - 1]


def test_answers_under_other_conditions_are_told_where_they_differ() -> None:
    told = answers()
    told += [{**a, "condition": "think.greedy"} for a in told if a["condition"]]
    assert "under 1 other condition the answers are the same" in " ".join(shown(summary(), told))
    told[-1]["outcome"] = "no"
    assert "answers differ under think.greedy" in " ".join(shown(summary(), told))


def test_texts_are_measured_in_columns() -> None:
    assert columns("模型ab") == 6
    assert padded("模型", 6) == "模型  "
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert columns(shortened("一二三四五六七八", 9)) <= 9
    assert wrapped("aa bb cc", 5, 1) == ["aa bb", " cc"]
    assert all(columns(line) <= 10 for line in wrapped("一二三四五六七八九十", 10, 2))
