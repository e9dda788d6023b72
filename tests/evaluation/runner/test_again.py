"""The probe of SustainScore in a suite: what was answered is asked again, with constraints that the answer meets."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from crossmatch import Adapter, Checkpoint
from crossmatch.errors import DataError
from crossmatch.evaluation import load_suite, standard_variants
from crossmatch.evaluation.comparison.summary import summarise
from crossmatch.evaluation.conditions import Condition, Plan, conditions_of
from crossmatch.evaluation.inference.protocol import Failed, Generated
from crossmatch.evaluation.metrics.bleu_rouge import rouge_f
from crossmatch.evaluation.metrics.ifeval import check, describe
from crossmatch.evaluation.runner.runner import Elsewhere, evaluate, evaluate_served
from crossmatch.evaluation.variants.variants import SERVED
from crossmatch.report.page.evaluation import measured_view
from crossmatch.report.terminal.evaluation import print_summary
from helpers import WORDS, generated_texts, make_adapter, make_chat_model

CHOICES = "prompt: 'pick: {question} {options}'\ngenerative: true\n"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the references hold every word, so that any answer has a score; the others none."""
    root = tmp_path_factory.mktemp("again")
    make_chat_model(root / "base")
    make_adapter(root / "base", root / "sft", seed=2, size=0.5)
    rows: list[dict[str, Any]] = [
        {"id": str(i), "question": f"what is {'very ' * i}old blood", "reference": " ".join(WORDS) if i % 2 else "qqq"}
        for i in range(6)
    ]
    (root / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "ask.yaml").write_text(
        "name: ask\nversion: 1\nkind: generation\ndata: ask.jsonl\nmax_new_tokens: 9\nsustain: 2\n"
    )
    return root


def test_what_was_answered_is_asked_again(room: Path, tmp_path: Path) -> None:
    base, adapters = Checkpoint(room / "base"), {"sft": Adapter(room / "sft")}
    variants, suites = standard_variants(adapters, [], "sft"), [load_suite(room / "ask.yaml")]
    records = evaluate(base, adapters, variants, suites, tmp_path)
    from crossmatch.evaluation.inference.local_model import Engine

    engine, template = Engine(base), Condition().template
    rows = records["base", "ask", "own.greedy"]
    for row, item in zip(rows, suites[0].items, strict=True):
        probe = row["sustain"]
        assert probe["before"] == pytest.approx(rouge_f([row["answer"]], [row["reference"]])["rougeL"][0, 0] / 100)
        if row["reference"] == "qqq":
            assert probe == {"before": 0.0, "after": None}
            continue
        assert 1 <= len(probe["constraints"]) <= 2
        lines = [describe(kind, arguments) for kind, arguments in probe["constraints"]]
        assert all(check(kind, arguments, "", row["answer"]) for kind, arguments in probe["constraints"])
        turns = [{"role": "user", "content": "\n".join([item.question + "\n", *lines])}]
        prompt = template.prompt(engine.tokenizer, turns)
        assert probe["output"] == generated_texts(engine, [prompt], 9)[0]
        assert probe["after"] == pytest.approx(rouge_f([probe["output"]], [row["reference"]])["rougeL"][0, 0] / 100)
        met = [check(k, a, prompt, probe["output"]) for k, a in probe["constraints"]]
        assert probe["met"] == sum(met)
    assert any(row["sustain"].get("prompt_digest") for row in rows)
    summary = summarise(records, variants, suites, "sft")["conditions"]["own.greedy"]["suites"]["ask"]
    entry = summary["metrics"]["sustained"]["base"]
    solved = [row["sustain"] for row in rows if row["sustain"]["after"] is not None]
    assert entry["value"] == pytest.approx(sum(p["after"] for p in solved) / sum(p["before"] for p in solved))
    assert entry["low"] <= entry["value"] <= entry["high"]
    assert (entry["n"], entry["difference"]["test"]) == (len(solved), "randomisation")
    assert evaluate(base, adapters, variants, suites, tmp_path) == records


def test_choices_and_several_seeds(room: Path, tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "question": "name the disease", "options": list(WORDS[i : i + 3]), "answer": i % 3}
        for i in range(9)
    ]
    (tmp_path / "pick.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "pick.yaml").write_text(
        f"name: pick\nversion: 1\nkind: choice\ndata: pick.jsonl\n{CHOICES}sustain: 1\nmax_new_tokens: 5\n"
    )
    shutil.copy(room / "ask.jsonl", tmp_path)
    shutil.copy(room / "ask.yaml", tmp_path)
    base, suites = Checkpoint(room / "base"), [load_suite(tmp_path / f"{name}.yaml") for name in ("pick", "ask")]
    variants, conditions = standard_variants({}, [], None), conditions_of((), ["T2x3"])
    records = evaluate(base, {}, variants, suites, tmp_path / "out", plan=Plan(conditions))
    for row in records["base", "pick", "own.T2"]:
        first = row["generated"][0]
        assert row["sustain"]["before"] == (first["chosen"] == row["right"])
        assert (row["sustain"]["after"] is None) == (first["chosen"] != row["right"])
    drawn = records["base", "ask", "own.T2"]
    assert ["sustain" in row for row in drawn] == [True, False, False] * 6
    found = summarise(records, variants, suites, "base", conditions=conditions)["conditions"]["own.T2"]["suites"]
    solved = sum(bool(row["sustain"]["before"]) for row in drawn if "sustain" in row)
    assert found["ask"]["metrics"]["sustained"]["base"]["n"] == solved
    # Nothing was right: there was nothing to lose, which is not a loss of nothing.
    right = [row for row in records["base", "pick", "own.T2"] if row["sustain"]["before"]]
    entry = found["pick"]["metrics"]["sustained"]["base"]
    assert (entry["n"], entry["value"] is None) == (len(right), not right)


class Fails:
    """A server that answers, and is gone when it is asked again."""

    tells_distributions = False

    def __init__(self) -> None:
        self.calls = 0

    def generate(self, prompts: Any, limit: int, decoding: Any, seeds: Any, done: Any, stops: Any) -> None:
        del limit, decoding, seeds, stops
        self.calls += 1
        for index in range(len(prompts)):
            done(index, Generated("the old blood", False, 3) if self.calls == 1 else Failed("gone"))

    def openings(self, prompts: Any, options: Any, done: Any) -> None:
        for index, group in enumerate(options):
            done(index, [-1.0] * len(group), None)


def test_a_probe_without_an_answer_is_no_zero(room: Path, tmp_path: Path) -> None:
    suites, tokenizer = [load_suite(room / "ask.yaml")], AutoTokenizer.from_pretrained(room / "base")
    records = evaluate_served(Elsewhere(Fails(), tokenizer, "d"), suites, tmp_path)  # type: ignore[arg-type]
    rows = records["served", "ask", "own.greedy"]
    assert [row.get("failed") for row in rows] == [None, "gone"] * 3
    facts = summarise(records, [SERVED], suites, "served")["conditions"]["own.greedy"]["suites"]["ask"]
    assert (facts["n"], facts["incomplete"]["served"]["failed"]) == (3, 3)


@pytest.mark.parametrize("lines", ["sustain: 4", "chat: false\nsustain: 1", "kind: choice\nsustain: 1"])
def test_where_it_cannot_be(room: Path, tmp_path: Path, lines: str) -> None:
    shutil.copy(room / "ask.jsonl", tmp_path)
    text = (room / "ask.yaml").read_text().replace("sustain: 2\n", "")
    if "choice" in lines:
        text = text.replace("kind: generation\n", "")
    (tmp_path / "ask.yaml").write_text(f"{text}{lines}\n")
    with pytest.raises(DataError, match="sustain"):
        load_suite(tmp_path / "ask.yaml")


def test_what_is_shown_says_that_one_seed_was_probed(
    room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, suites = Checkpoint(room / "base"), [load_suite(room / "ask.yaml")]
    variants = standard_variants({}, [], None)
    for asked, said in (("T2x3", True), ("greedy", False)):
        conditions = conditions_of((), [asked])
        records = evaluate(base, {}, variants, suites, tmp_path / asked, plan=Plan(conditions))
        summary = summarise(records, variants, suites, "base", conditions=conditions)
        print_summary(summary)
        assert ("first of 3 seeds)" in capsys.readouterr().out) is said
        (name,) = summary["conditions"]
        heads = measured_view(0, name, summary)[0]["tables"][0]["heads"]
        assert {h["title"]: h["note"] for h in heads if h["note"]} == (
            {"sustained %": "first of 3 seeds"} if said else {}
        )


def test_rows_of_small_numbers_keep_to_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    tiny = {"value": 1.234e-12, "low": -1.234e-12, "high": 1.234e-12, "n": 9}
    difference = {**tiny, "value": -1.234e-12, "p": 1.2e-5, "p_holm": 1.2e-5, "test": "randomisation"}
    entry = {**tiny, "difference": difference}
    facts = {"n": 9, "left_out": 0, "incomplete": None, "metrics": {"kl_answer": {"null0-pt0.3+sft0.7": entry}}}
    null = {"seeds": 2, "drop": difference, "beyond": difference}
    critical = {"n": 9, "verdict": "undecided", "removed": difference, "nulls": {"norm": null, "shuffled": null}}
    best = {**tiny, "verdict": "undecided", "variant": "pt0.3+sft0.7"}
    point = {"other": "sft", "differences": {"pt0.3+sft0.7": difference}, "best": best}
    table = {"domain": "pt", "suite": "ask", "metric": "acc", "figures": {"pt0.3+sft0.7": tiny}}
    table |= {"against_single": point, "against_joint": point}
    condition = {
        "seeds": 1,
        "suites": {"ask": facts},
        "divergence": [],
        "critical": {"pt": {"ask": {"acc": critical}}},
        "combination": {"joint": "both", "suites": [table], "mean": {"figures": None, "why": "no gain"}},
    }
    variants = {"null0-pt0.3+sft0.7": {"kind": "null"}}
    print_summary({"reference": "sft", "variants": variants, "conditions": {"own.greedy": condition}})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 80
    assert sum("p=1.2e-05" in line or "p<0.001" in line for line in lines) == 4
