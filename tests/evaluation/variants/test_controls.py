"""A merge against its own control and its own nulls, from records of which the answers are made up."""

import json
from typing import Any

import numpy as np
import pytest

from crossmatch.evaluation import Suite, Variant, load_suite, standard_variants
from crossmatch.evaluation.comparison.summary import rows_of, summarise
from crossmatch.evaluation.conditions import Condition, conditions_of
from crossmatch.evaluation.variants.variants import control_of, nulls_of
from crossmatch.results.summary import FALL_PARTS

N = 30
MERGE, CONTROL = "pt0.3+sft0.7", "sft0.7"
# How many items a variant has right; those before them, too.
RIGHT = {"base": 5, "pt": 8, "sft": 25, MERGE: 10, CONTROL: 20, f"null0-{MERGE}": 21, f"null1-{MERGE}": 18}
WEIGHTS = {"pt": 0.3, "sft": 0.7}


@pytest.fixture(scope="module")
def variants() -> list[Variant]:
    return standard_variants({"pt": None, "sft": None}, [WEIGHTS], "sft", nulls=2)


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> list[Suite]:
    root = tmp_path_factory.mktemp("suites")
    for name, kind, more in (("ask", "generation", {"reference": "a"}), ("pick", "choice", {"options": ["a", "b"]})):
        rows = [
            {"id": str(i), "question": f"q{i}", **more} | ({"answer": 0} if "pick" in name else {}) for i in range(N)
        ]
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (root / f"{name}.yaml").write_text(f"name: {name}\nversion: 1\nkind: {kind}\ndata: {name}.jsonl\n")
    return [load_suite(root / f"{name}.yaml") for name in ("ask", "pick")]


def asked(variant: str, item: int, trace: str = "") -> dict[str, Any]:
    """A record of a generation: the whole reference, or its first words and some of no use."""
    reference = f"a disease of organ {item} that raises pressure in small vessels"
    answer = reference if item < RIGHT[variant] else " ".join([*reference.split()[:7], "one", "two", "three"])
    return {
        "id": str(item),
        "prompt_digest": "",
        "seed": 0,
        "question": f"q{item}",
        "reference": reference,
        "output": trace + answer,
        "answer": answer,
        "trace": {"state": "closed" if trace else "none", "lexical": False, "share": 0.1 if trace else 0.0},
        "truncated": False,
    }


def picked(variant: str, item: int) -> dict[str, Any]:
    chosen = int(item >= RIGHT[variant])
    generated = [{"seed": 0, "chosen": chosen, "output": "A", "truncated": False}]
    record = {"id": str(item), "prompt_digest": "", "right": 0, "chosen": chosen, "chosen_norm": chosen}
    return record | {"generated": generated}


def summary_of(variants: list[Variant], suites: list[Suite]) -> dict[str, Any]:
    records: Any = {}
    for variant in variants:
        trace = "<think>the user wants a short one</think> " if variant.name == MERGE else ""
        records[variant.name, "ask", "own.greedy"] = [asked(variant.name, i, trace) for i in range(N)]
        records[variant.name, "pick", "own.greedy"] = [picked(variant.name, i) for i in range(N)]
    found = summarise(records, variants, suites, "sft")
    json.dumps(found, allow_nan=False)
    return found["conditions"]["own.greedy"]


@pytest.fixture(scope="module")
def found(variants: list[Variant], suites: list[Suite]) -> dict[str, Any]:
    return summary_of(variants, suites)


def test_a_merge_is_tested_against_its_control_and_its_nulls(found: dict[str, Any]) -> None:
    table = found["suites"]["pick"]["metrics"]["acc"]
    control, null = table[MERGE]["difference_control"], table[MERGE]["difference_null"]
    assert control["value"] == pytest.approx(-10 / N)
    assert (control["gained"], control["lost"], control["test"]) == (0, 10, "mcnemar-exact")
    assert control["p"] == pytest.approx(2 / 2**10)
    # Items 10 to 17 that both nulls have right, and 18 to 20 that one has.
    assert null["value"] == pytest.approx(10 / N - (21 + 18) / 2 / N)
    assert (null["test"], null["n"]) == ("randomisation", N)
    assert null["p"] == pytest.approx(2 / 2**11)
    assert {"value", "low", "high", "n", "p", "p_holm", "mde", "test"} <= set(control) == set(null)
    assert control["p"] <= control["p_holm"]
    for name in set(RIGHT) - {MERGE}:
        assert (table[name]["difference_control"], table[name]["difference_null"]) == (None, None)
    # The merge is as far from its control as its own figure is.
    bleu = found["suites"]["ask"]["metrics"]["bleu"]
    expected = bleu[MERGE]["value"] - bleu[CONTROL]["value"]
    assert bleu[MERGE]["difference_control"]["value"] == pytest.approx(expected)
    assert bleu[MERGE]["difference_control"]["high"] < 0
    assert bleu[MERGE]["difference_null"]["value"] < 0


def test_flips_and_falls_have_a_row_against_the_control(found: dict[str, Any]) -> None:
    first, second = found["suites"]["pick"]["flips"][MERGE]
    assert "against" not in first
    assert (first["lost"], second["lost"], second["against"], second["other"]) == (15, 10, "control", CONTROL)
    assert second["lost_ids"] == [str(i) for i in range(10, 20)]
    assert not isinstance(found["suites"]["pick"]["flips"]["pt"], list)
    fall, raw = found["suites"]["ask"]["fall"], found["suites"]["ask"]["metrics"]["bleu_raw"][MERGE]
    for row, key in zip(fall[MERGE], ("difference", "difference_control"), strict=True):
        assert row["total"]["value"] == pytest.approx(raw[key]["value"])
        assert row["total"]["value"] == pytest.approx(row["dilution"]["value"] + row["content"]["value"])
        assert row["total"]["value"] == pytest.approx(row["length"]["value"] + row["rest"]["value"])
    for value in fall.values():
        for part in (row[name] for row in rows_of(value) for name in FALL_PARTS):
            assert part["n"] == N
            assert 0 < part["p"] <= part["p_holm"] <= 1
    # Six variants are compared with the reference in one suite, and one with its control.
    own = [rows_of(value)[0]["content"] for value in fall.values()]
    least = min(own, key=lambda part: part["p"])
    assert least["p_holm"] == pytest.approx(min(1.0, 6 * least["p"]))
    assert fall[MERGE][1]["content"]["p_holm"] == fall[MERGE][1]["content"]["p"]


def test_every_surface_diverges_from_every_choice(found: dict[str, Any]) -> None:
    rows = found["divergence"]
    metrics = {(row["surface_metric"], row["choices_metric"]) for row in rows}
    assert metrics == {(s, c) for s in ("bleu", "bleu_raw") for c in ("acc", "acc_generated")}
    assert len(rows) == 4 * (len(RIGHT) - 1 + 1)
    own = [row for row in rows if row["against"] == "control"]
    assert {(row["variant"], row["other"]) for row in own} == {(MERGE, CONTROL)}
    by_metric = {row["surface_metric"]: row["value"] for row in own if row["choices_metric"] == "acc"}
    # Only the whole output has the trace.
    assert by_metric["bleu_raw"] < by_metric["bleu"]


def test_choices_that_are_alike_leave_the_surface(variants: list[Variant], suites: list[Suite]) -> None:
    records: Any = {}
    for variant in variants:
        records[variant.name, "ask", "own.greedy"] = [asked(variant.name, i) for i in range(N)]
        records[variant.name, "ask", "own.T1"] = [asked(variant.name, i) for i in range(N)]
        records[variant.name, "pick", "own.greedy"] = [picked("base", i) for i in range(N)]
    conditions: tuple[Condition, ...] = conditions_of((), ["greedy", "T1x1"])
    both = summarise(records, variants, suites, "sft", conditions=conditions)["conditions"]
    for name in ("own.greedy", "own.T1"):
        row = next(r for r in both[name]["divergence"] if r["variant"] == MERGE and r["choices_metric"] == "acc")
        assert row["value"] < -2
        assert row["low"] < row["value"] < row["high"] < 0


def test_whose_control_and_whose_nulls(variants: list[Variant]) -> None:
    named = {v.name: v for v in variants}
    found = control_of(named[MERGE], variants, "sft")
    assert found is not None
    assert found.name == CONTROL
    assert [v.name for v in nulls_of(named[MERGE], variants)] == [f"null0-{MERGE}", f"null1-{MERGE}"]
    assert control_of(named["sft"], variants, "sft") is None
    assert control_of(named[MERGE], [v for v in variants if v.name != CONTROL], "sft") is None
    assert control_of(named[MERGE], variants, "base") is None
    several = standard_variants(
        {"pt": None, "sft": None}, [{"pt": 1.0, "sft": 1.0}, WEIGHTS, {"pt": 1.0}], "sft", nulls=1
    )
    names = {v.name: v for v in several}
    # At weight 1 the reference is its own control.
    whole = control_of(names["pt1+sft1"], several, "sft")
    assert whole is not None
    assert whole.name == "sft"
    assert [v.name for v in nulls_of(names["pt1+sft1"], several)] == ["null0-pt1+sft1"]
    assert [v.name for v in nulls_of(names[MERGE], several)] == [f"null0-{MERGE}"]


def test_the_pooled_null_is_the_mean_over_seeds(found: dict[str, Any]) -> None:
    table = found["suites"]["ask"]["metrics"]["rougeL"]
    nulls = np.mean([table[f"null{seed}-{MERGE}"]["value"] for seed in range(2)])
    assert table[MERGE]["difference_null"]["value"] == pytest.approx(table[MERGE]["value"] - nulls)
