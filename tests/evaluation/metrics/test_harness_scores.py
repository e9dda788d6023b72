"""Scores beside those of lm-evaluation-harness 0.4.13, which harness/scores.py has stored."""

import json
from typing import Any

import pytest

from crossmatch.checkpoint import Checkpoint
from crossmatch.evaluation import load_suite, standard_variants
from crossmatch.evaluation.comparison.paired import figure
from crossmatch.evaluation.metrics.metrics import measure
from crossmatch.evaluation.record import Record
from crossmatch.evaluation.runner.runner import evaluate
from harness.scores import DOCUMENTS, FORMS, ITEMS, SCORES, WINDOW, write_model

STORED = json.loads(SCORES.read_text(encoding="utf-8"))
BY_BOS = {False: STORED, True: STORED["adds_bos"]}


@pytest.fixture(scope="module", params=BY_BOS, ids=["no BOS", "adds BOS"])
def adds_bos(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def ours(adds_bos: bool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, list[Record]]]:
    """Suite -> itself and its records, of the same model, items and documents."""
    root = tmp_path_factory.mktemp("scores")
    (root / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    texts = [{"id": str(i), "text": text} for i, text in enumerate(DOCUMENTS)]
    (root / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    settings: dict[str, dict[str, Any]] = {
        name: {"kind": "choice", "form": form, "prompt": prompt, "delimiter": delimiter, "chat": False}
        for name, (form, prompt, _, delimiter) in FORMS.items()
    }
    settings["documents"] = {"kind": "text", "data": "texts.jsonl", "window": WINDOW, "overlap": 0}
    suites = []
    for name, more in settings.items():
        # What is JSON is YAML.
        (root / f"{name}.yaml").write_text(json.dumps({"name": name, "version": 1, "data": "items.jsonl", **more}))
        suites.append(load_suite(root / f"{name}.yaml"))
    base = Checkpoint(write_model(root / "model", adds_bos=adds_bos))
    records = evaluate(base, {}, standard_variants({}, [], None), suites, root / "answers")
    return {suite.settings.name: (suite, records["base", suite.settings.name, "own.greedy"]) for suite in suites}


@pytest.mark.parametrize("name", FORMS)
def test_options_score_as_in_the_harness(ours: dict[str, tuple[Any, list[Record]]], adds_bos: bool, name: str) -> None:
    suite, rows = ours[name]
    stored = BY_BOS[adds_bos]["suites"][name]
    assert len(rows) == len(stored["acc"]) == len(ITEMS)
    for row, scores in zip(rows, stored["loglikelihoods"], strict=True):
        assert row["loglikelihoods"] == pytest.approx(scores, abs=1e-4)
        assert row["chosen"] == scores.index(max(scores))
    assert [float(row["chosen"] == row["right"]) for row in rows] == stored["acc"]
    assert [float(row["chosen_norm"] == row["right"]) for row in rows] == stored["acc_norm"]
    found = measure(rows, suite)
    assert [figure(metric, found).value for metric in ("acc", "acc_norm")] == pytest.approx(stored["means"])


def test_documents_score_as_in_the_harness(ours: dict[str, tuple[Any, list[Record]]], adds_bos: bool) -> None:
    rows = ours["documents"][1]
    assert all(row["windows"] > 1 for row in rows)
    assert [-row["nats"] for row in rows] == pytest.approx(BY_BOS[adds_bos]["documents"], rel=1e-6, abs=1e-3)


def test_what_is_compared_could_differ() -> None:
    """No length and another length choose otherwise in some items, and the harness knows right and wrong ones."""
    assert STORED["lm_eval"] == "0.4.13"
    by_whole = 0
    for name, (form, _, _, delimiter) in FORMS.items():
        stored = STORED["suites"][name]
        assert 0 < sum(stored["acc"]) < len(ITEMS)
        for item, scores, right in zip(ITEMS, stored["loglikelihoods"], stored["acc_norm"], strict=True):
            texts = item["options"] if form == "texts" else ["A"] * len(scores)
            longer = [score / len((delimiter + text).strip()) for score, text in zip(scores, texts, strict=True)]
            by_whole += float(longer.index(max(longer)) == item["answer"]) != right
    assert by_whole
    assert STORED["suites"]["texts"]["acc"] != STORED["suites"]["texts"]["acc_norm"]
    for name in FORMS:
        plain, begun = (BY_BOS[adds]["suites"][name]["loglikelihoods"] for adds in (False, True))
        assert plain != begun
