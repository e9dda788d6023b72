"""What a user is told: right at the stated error rates, in words that are computed, and the same everywhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossmatch.answers import answers_of
from crossmatch.answers.answer import change_text, joined
from crossmatch.answers.decisions import as_good, better, more_traces
from crossmatch.evaluation.comparison.summary import _adjust_family
from crossmatch.merging.card_answers import write_answers
from crossmatch.statistics.estimates import mean_of
from crossmatch.statistics.proportions import mcnemar, proportion
from crossmatch.statistics.resampling import paired_difference

DRAWS, MARGIN = 100, 0.02


def found(mine: Any, other: Any) -> dict[str, Any]:
    """A paired difference as a summary has it, in a family of one."""
    share = mine.dtype == bool
    one = mcnemar(mine, other) if share else paired_difference(mine[:, None], other[:, None], mean_of)
    assert one is not None
    facts = one.to_dict()
    _adjust_family([facts])
    return facts


def scores(rng: Any, shift: float, n: int = 60) -> dict[str, Any]:
    """Scores of two variants on the same items, of which one is better by `shift`."""
    item = rng.normal(0.3, 0.1, n)
    return found(item + shift + rng.normal(0, 0.025, n), item + rng.normal(0, 0.025, n))


def share(outcomes: list[str], outcome: str) -> float:
    return outcomes.count(outcome) / len(outcomes)


# 2.5% or 5% of the draws, and three standard deviations of that count.
RARE, FAMILY = 0.025 + 3 * (0.025 / DRAWS) ** 0.5, 0.05 + 3 * (0.0475 / DRAWS) ** 0.5


@pytest.fixture(scope="module")
def planted() -> dict[str, list[dict[str, Any]]]:
    """Differences of variants that are equal, worse by the margin, much worse, and better."""
    rng = np.random.default_rng(5)
    shifts = {"equal": 0.0, "at the margin": -MARGIN, "worse": -2.2 * MARGIN, "better": MARGIN}
    return {name: [scores(rng, shift) for _ in range(DRAWS)] for name, shift in shifts.items()}


def test_as_good_is_said_of_a_variant_that_is_worse_by_the_margin_in_few_cases(planted: Any) -> None:
    outcomes = {name: [as_good(d, MARGIN).outcome for d in ds] for name, ds in planted.items()}
    assert share(outcomes["at the margin"], "yes") <= RARE
    assert share(outcomes["at the margin"], "no") <= RARE
    assert share(outcomes["worse"], "yes") == 0
    assert share(outcomes["worse"], "no") > 0.9
    assert share(outcomes["equal"], "yes") > 0.8
    assert share(outcomes["equal"], "no") == 0
    assert share(outcomes["better"], "yes") == 1


def test_better_is_said_of_an_equal_variant_in_few_cases(planted: Any) -> None:
    outcomes = {name: [better(d, MARGIN).outcome for d in ds] for name, ds in planted.items()}
    assert share(outcomes["equal"], "yes") <= FAMILY
    assert share(outcomes["better"], "yes") > 0.8
    # A gain of the margin is denied in one case of forty.
    assert share(outcomes["better"], "no") <= RARE
    assert share(outcomes["worse"], "no") == 1


def test_as_many_items_as_are_asked_for_decide_in_four_cases_of_five() -> None:
    rng = np.random.default_rng(11)
    few = [as_good(scores(rng, 0.0, 12), MARGIN) for _ in range(60)]
    needed = [d.needed for d in few if d.needed]
    assert len(needed) > 30
    n = int(np.median(needed))
    decided = [as_good(scores(rng, 0.0, n), MARGIN).outcome for _ in range(60)]
    assert 0.65 < share(decided, "yes") < 0.95


def test_traces_return_only_beyond_chance_and_are_excluded_only_with_items_enough() -> None:
    rng = np.random.default_rng(3)

    def outcome(rate: float, n: int) -> str:
        mine, other = rng.random(n) < rate, np.zeros(n, bool)
        return more_traces(proportion(int(mine.sum()), n).to_dict(), found(mine, other)).outcome

    assert share([outcome(0.05, 150) for _ in range(DRAWS)], "no") <= RARE
    assert share([outcome(0.15, 150) for _ in range(DRAWS)], "yes") > 0.9
    assert {outcome(0.0, 150) for _ in range(3)} == {"no"}
    few = more_traces(proportion(0, 40).to_dict(), found(np.zeros(40, bool), np.zeros(40, bool)))
    assert (few.outcome, few.needed) == ("cannot tell", 73)
    enough = proportion(0, 73).to_dict()
    assert more_traces(enough, None).outcome == "no"


def entry(value: float, difference: Any = None, control: Any = None, n: int = 40) -> dict[str, Any]:
    base = {"value": value, "low": value * 0.9, "high": value * 1.1, "n": n}
    return {**base, "difference": difference, "difference_base": None, "difference_control": control}


def change(value: float, half: float, p: float = 0.5, n: int = 40) -> dict[str, Any]:
    bounds = {"value": value, "low": value - half, "high": value + half, "n": n, "p": p, "p_holm": p}
    return {**bounds, "test": "randomisation", "gained": None, "lost": None, "mde": 1.43 * half}


def suite(kind: str, metric: str, merge: dict[str, Any], sft: float, control: float, **more: Any) -> dict[str, Any]:
    table = {"base": entry(sft / 2), "sft": entry(sft), "pt0.3+sft0.7": merge, "sft0.7": entry(control)}
    return {"kind": kind, "n": 40, "asked": 40, "incomplete": None, "metrics": {metric: table}, **more}


def summary() -> dict[str, Any]:
    kinds = {"base": "base", "sft": "adapter", "pt0.3+sft0.7": "merge", "sft0.7": "control"}
    weights = {"sft": {"sft": 1.0}, "pt0.3+sft0.7": {"pt": 0.3, "sft": 0.7}, "sft0.7": {"sft": 0.7}}
    suites = {
        "define": suite("generation", "rougeL", entry(29.0, change(-0.4, 1.1), change(0.1, 1.0)), 30.0, 29.0),
        "name": suite("choice", "acc", entry(0.7, change(0.0, 0.1), change(-0.2, 0.1, 0.001)), 0.7, 0.9),
        "docs": suite("text", "perplexity", entry(20.0, change(-3.0, 1.0, 0.001), change(-0.1, 2.0)), 23.0, 20.1),
    }
    variants = {name: {"kind": kind, "weights": weights.get(name, {})} for name, kind in kinds.items()}
    conditions = {"own.greedy": {"template": "own", "decoding": "greedy", "seeds": 1, "suites": suites}}
    return {"reference": "sft", "variants": variants, "conditions": conditions}


def told(facts: dict[str, Any], margin: float = 2.0) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(a["id"], a["against"]): a for a in answers_of(facts, margin)}


def test_questions_are_answered_from_the_summary_each_with_its_figures() -> None:
    answers = told({"summary": summary()})
    outcomes = {key: answer["outcome"] for key, answer in answers.items()}
    assert outcomes == {
        ("answers-as-well", "sft"): "yes",
        ("knows-more", "sft"): "yes",
        ("chooses-as-well", "sft"): "cannot tell",
        ("answers-as-well", "sft0.7"): "yes",
        ("knows-more", "sft0.7"): "cannot tell",
        ("chooses-as-well", "sft0.7"): "no",
    }
    first = answers["answers-as-well", "sft"]
    assert first["sentence"] == "Yes: pt0.3+sft0.7 answers as well as sft within 2 points (ROUGE-L -0.4, -1.5 to +0.7)."
    place = "summary.json: conditions/own.greedy/suites/define/metrics/rougeL/pt0.3+sft0.7/difference"
    assert first["evidence"] == [{"where": place, "text": "ROUGE-L -0.4, -1.5 to +0.7", "n": 40, "needed": None}]
    open_ = answers["chooses-as-well", "sft"]
    assert open_["sentence"].startswith("Cannot tell: a loss of 2 points is neither shown nor excluded")
    assert open_["needed"] > 1000
    assert open_["next"] == f"ask about {open_['needed']:,} questions of “name”"
    assert "worse than sft0.7 by more than 2 points (accuracy -20.0" in answers["chooses-as-well", "sft0.7"]["sentence"]


def test_the_margin_decides_what_is_as_good() -> None:
    assert told({"summary": summary()}, 1.0)["answers-as-well", "sft"]["outcome"] == "cannot tell"
    assert told({"summary": summary()}, 15.0)["chooses-as-well", "sft"]["outcome"] == "yes"


def test_documents_are_unseen_only_if_an_audit_found_none_of_them() -> None:
    audit = {"held_out": {"docs": {"n": 20, "found": 0}, "define": {"n": 40, "found": 3}}}
    answers = told({"summary": summary(), "audit": audit})
    assert "unseen documents" in answers["knows-more", "sft"]["sentence"]
    assert "held-out documents" in told({"summary": summary()})["knows-more", "sft"]["sentence"]
    clean = answers["test-set-clean", None]
    assert (clean["outcome"], clean["sentence"]) == ("no", "Training data hold text of test items: define (3 of 40).")
    as_well = answers["answers-as-well", "sft"]
    figures = "(ROUGE-L -0.4, -1.5 to +0.7; 3 of 40 items are in training data)"
    assert as_well["sentence"] == f"Yes: pt0.3+sft0.7 answers as well as sft within 2 points {figures}."
    assert as_well["short"].endswith(figures)
    assert "training data" not in answers["knows-more", "sft"]["sentence"]
    audit["held_out"]["define"]["found"] = 0
    assert told({"audit": audit})["test-set-clean", None]["outcome"] == "yes"


def test_missing_answers_are_no_decision() -> None:
    facts = summary()
    define = facts["conditions"]["own.greedy"]["suites"]["define"]
    define["incomplete"] = {"sft": {"failed": 3, "reason": "HTTP 503"}}
    for one in define["metrics"]["rougeL"].values():
        one["difference"] = one["difference_control"] = None
    answer = told({"summary": facts})["answers-as-well", "sft"]
    assert answer["outcome"] == "cannot tell"
    assert answer["sentence"] == "Cannot tell: define was not compared, as sft has no answer to 3 items (HTTP 503)."


def test_where_nobody_gets_anything_right_nothing_is_as_good() -> None:
    facts = summary()
    define = facts["conditions"]["own.greedy"]["suites"]["define"]
    for one in define["metrics"]["rougeL"].values():
        one["value"] = 0.0
    define["metrics"]["rougeL"]["pt0.3+sft0.7"]["difference"] = change(0.0, 0.0)
    answer = told({"summary": facts})["answers-as-well", "sft"]
    assert answer["outcome"] == "cannot tell"
    assert answer["sentence"] == "Cannot tell: define was not compared, as no variant gets anything right."
    assert answer["next"] == "read what was answered to “define” (samples.json), and how it is asked"


def test_without_a_merge_the_adapters_are_asked_about_and_the_reference_against_the_base() -> None:
    facts = summary()
    for name in ("pt0.3+sft0.7", "sft0.7"):
        del facts["variants"][name]
    for one in facts["conditions"]["own.greedy"]["suites"].values():
        for table in one["metrics"].values():
            table["sft"]["difference_base"] = change(10.0, 1.0, 0.001)
    answers = told({"summary": facts})
    assert {key[1] for key in answers} == {"base"}
    assert answers["answers-as-well", "base"]["sentence"].startswith("Yes: sft answers better than base")


@pytest.mark.parametrize(
    ("verdict", "outcome"), [("verified", "yes"), ("failed", "no"), ("inconclusive", "cannot tell")]
)
def test_a_verdict_is_an_answer(verdict: str, outcome: str) -> None:
    facts = {
        "verdict": verdict,
        "faults": [],
        "notes": [],
        "findings": [{"consequence": "the weights are squared", "remedy": "merge again"}] * (verdict == "failed"),
        "weights": {"pt": {"recovered": 0.3, "claimed": 0.3, "stderr": 0.0}},
        "modules": {"agree": 2, "adapted": 2, "undecided": 0},
    }
    (answer,) = answers_of({"verdicts": {"m": facts}})
    assert (answer["id"], answer["outcome"]) == ("is-as-claimed", outcome)
    assert (answer["next"] == "merge again") == (outcome == "no")


def test_interference_is_answered_by_its_interval() -> None:
    def outcome(value: float, stderr: float | None) -> str:
        loss = {"change": {"value": value, "stderr": stderr}}
        facts = {"guest": "pt", "host": "sft", "attribution": {"loss": loss}}
        return answers_of({"interference": facts})[0]["outcome"]

    assert [outcome(*c) for c in ((0.1, 0.02), (0.0, 0.005), (0.0, 0.05), (0.1, None))] == [
        *("yes", "no", "cannot tell", "cannot tell")
    ]


def test_answers_stand_in_the_model_card_once(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# card\n\ntext\n")
    answers = answers_of({"summary": summary()})
    write_answers(tmp_path, "pt0.3+sft0.7", answers)
    once = card.read_text()
    assert answers[0]["sentence"] in once
    write_answers(tmp_path, "pt0.3+sft0.7", json.loads(json.dumps(answers)))
    assert card.read_text() == once
    write_answers(tmp_path, "pt0.3+sft0.7", [])
    assert card.read_text() == "# card\n\ntext\n"


def test_numbers_and_lists_in_words() -> None:
    assert change_text({"value": 0.0, "low": -0.047, "high": 0.047}, 100) == "0.0, -4.7 to +4.7"
    assert change_text({"value": 0.001, "low": -0.002, "high": 0.004}) == "+0.001, -0.002 to +0.004"
    assert joined(["a", "b", "c"]) == "a, b and c"


def claim_of(low: float, high: float, verdict: str) -> dict[str, Any]:
    """The answer to a statement whose one part has these bounds."""
    part = {"what": "MLP less attention", "value": 0.0, "low": low, "high": high, "ceiling": high, "null": 0.0}
    part |= {"effect": 0.05, "layers": 8, "test": "layers", "holds": None}
    claim = {"id": "mlp-writes", "vector": "sft", "statement": "s", "k_label": "64", "primary": True, "why": None}
    (answer,) = answers_of({"analysis": {"overlap": [], "claims": [{**claim, "verdict": verdict, "parts": [part]}]}})
    return dict(answer)


@pytest.mark.parametrize("verdict", ["no difference that matters", "not decided at this size", "undecided"])
def test_a_statement_whose_interval_lies_within_the_margin_is_answered(verdict: str) -> None:
    answer = claim_of(-0.026, 0.014, verdict)
    assert answer["outcome"] == "no"
    words = "makes no difference that matters (MLP less attention 0 (-0.026 to 0.014), within 0.05 of 0)."
    assert answer["sentence"] == f"No: in sft, “MLPs write new directions” {words}"
    wide = claim_of(-0.06, 0.014, "not decided at this size")
    assert wide["outcome"] == "cannot tell"
    assert "is not decided at this size" in wide["sentence"]
    assert "no difference" not in wide["sentence"]
