"""LLaMA-Factory's scores of the whole output, and of the answer without its trace."""

import pytest

from crossmatch.data.suites import Item
from crossmatch.evaluation import Suite, SuiteSettings
from crossmatch.evaluation.metrics.llamafactory import factory_scores
from crossmatch.evaluation.metrics.metrics import measure


def rows(outputs: list[str], answers: list[str]) -> list[dict[str, object]]:
    trace = {"state": "none", "lexical": False, "share": 0.0}
    return [
        {"seed": 0, "reference": "a disease of blood", "output": o, "answer": a, "trace": trace, "truncated": False}
        for o, a in zip(outputs, answers, strict=True)
    ]


@pytest.mark.parametrize("think", ["<think>so blood, let me see</think>", ""])
def test_both_are_there(think: str) -> None:
    settings = SuiteSettings(name="ask", version=1, kind="generation", data="x.jsonl")
    suite = Suite(settings, (Item("1", "q"), Item("2", "q")), "")
    answers = ["a disease of the heart", "blood disease"]
    found = measure(rows([think + a for a in answers], answers), suite)
    for texts, end in (([think + a for a in answers], ""), (answers, "_stripped")):
        expected = factory_scores(texts, ["a disease of blood"] * 2)
        for name, table in expected.items():
            assert found[f"{name}{end}"][0].tolist() == table.tolist()
    differs = found["lf_rougeL"][0].tolist() != found["lf_rougeL_stripped"][0].tolist()
    assert differs == bool(think)
