"""One catalogue of metrics: whatever is measured is in it, and nothing else."""

from typing import Any

import pytest

from crossmatch.data.suites import Suite, SuiteSettings
from crossmatch.evaluation.comparison.foreign_metrics import direction
from crossmatch.evaluation.comparison.paired import primary
from crossmatch.evaluation.metrics.metrics import CHOICES, SURFACES, measure
from crossmatch.evaluation.metrics.reasoning_traces import OPENERS
from crossmatch.results.metrics import CATALOGUE, STANDING, better_is_more, metric_of


def suite(kind: str, **more: Any) -> Suite:
    fields = {"name": "s", "version": 1, "kind": kind, "language": "en", "data": "x.jsonl", **more}
    return Suite(SuiteSettings.model_validate(fields), (), "digest")


def spoken(place: int) -> dict[str, Any]:
    """All fields that an answer in words can have."""
    kl = {"first": 0.1, "nats": 0.4, "tokens": 3}
    return {
        "id": str(place),
        "seed": 0,
        "question": "what is blood",
        "output": f"<think>so</think>blood {place}",
        "answer": f"blood {place}",
        "truncated": False,
        "tokens": 4,
        "entropy": 1.0,
        "margin": 0.1,
        "answer_entropy": 1.0,
        "answer_margin": 0.1,
        "opener_loglikelihoods": dict.fromkeys(OPENERS["en"], -3.0),
        "sustain": {"before": 1.0, "after": 0.5},
        "kl": {"reference": kl, "base": kl},
    }


def rows(kind: str) -> list[Any]:
    if kind == "text":
        return [{"id": str(i), "nats": 9.0, "tokens": 3, "bytes": 12} for i in range(3)]
    if kind == "choice":
        written = {k: v for k, v in spoken(0).items() if k not in ("id", "kl", "sustain", "question")}
        scored = {"chosen": 0, "chosen_norm": 1, "right": 0, "orders": [0, 1], "entropy": 1.0, "margin": 0.5}
        return [
            {"id": str(i), **scored, "generated": [{**written, "chosen": 0}], "sustain": {"before": 1.0, "after": 1.0}}
            for i in range(3)
        ]
    if kind == "instructions":
        return [{**spoken(i), "checks": [["change_case:english_lowercase", {}]]} for i in range(3)]
    return [{**spoken(i), "reference": f"blood {i}"} for i in range(3)]


@pytest.mark.parametrize("kind", ["generation", "choice", "instructions", "text"])
def test_what_is_measured_is_what_the_catalogue_says_of_a_suite(kind: str) -> None:
    found = set(measure(rows(kind), suite(kind, **({"match": "text"} if kind == "generation" else {}))))
    if kind == "generation":
        found |= set(measure(rows(kind), suite(kind, match="number")))
    if kind == "instructions":
        # References are needed to compare distributions along them: no record of this kind has any.
        found = {name for name in found if not name.startswith("kl_")}
    assert found == {metric.name for metric in CATALOGUE.values() if kind in metric.suites}


def test_rows_are_whole() -> None:
    for metric in CATALOGUE.values():
        assert metric.says.endswith("."), metric.name
        assert metric.says[0].isupper(), metric.name
        assert metric.says.count(". ") == 0, metric.name
        assert format(metric.unit.scale * 0.5, metric.form), metric.name
        assert ("%" in metric.title) == (metric.unit.scale == 100.0), metric.name
    titles = [metric.title for metric in CATALOGUE.values()]
    assert len(set(titles)) == len(titles)


def test_metrics_that_stand_for_a_suite() -> None:
    assert STANDING[:6] == ("number", "exact", "acc", "followed_strict", "rougeL", "bleu")
    assert all(better_is_more(name) for name in STANDING)
    assert primary(["bleu", "acc", "rougeL"]) == "acc"
    assert all(name in CATALOGUE for name in (*SURFACES, *CHOICES))


def test_directions_of_runs_come_from_the_catalogue() -> None:
    assert direction("trace_unclosed", (), (), ()) == (False, "known")
    assert direction("instructions_strict", (), (), ()) == (True, "known")
    assert direction("first_entropy", (), (), ()) == (None, "unknown")
    assert direction("wer", (), (), ()) == (False, "known")
    assert metric_of("my_metric").title == "my metric"
