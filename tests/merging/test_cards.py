"""Model cards, read as the Hub's own library reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import crossmatch
from crossmatch.merging.model_card import add_results, metadata


def summary(value: float) -> dict[str, Any]:
    def entry(value: float) -> dict[str, Any]:
        return {"value": value, "low": value / 2, "high": value * 2, "n": 40, "difference": None}

    metrics = {"acc": {"pt0.5": entry(value)}, "think_probability": {"pt0.5": entry(1e-3)}}
    suite = {"kind": "choice", "incomplete": None, "digest": "ab", "metrics": metrics}
    gone = {**suite, "incomplete": {"pt0.5": {"failed": 1, "reason": "x"}}}
    return {"variants": {"pt0.5": {}}, "conditions": {"own.greedy": {"suites": {"name": suite, "gone": gone}}}}


@pytest.fixture
def merged(models: Path, tmp_path: Path) -> Path:
    base, pt = crossmatch.Checkpoint(models / "base"), crossmatch.Adapter(models / "pt")
    crossmatch.merge(base, {"pt": (pt, 0.5)}, tmp_path / "merged")
    return tmp_path / "merged"


def test_results_are_read_by_the_hub(merged: Path) -> None:
    assert add_results(merged, summary(0.25), "pt0.5")
    card = ModelCard.load(merged / "README.md")
    assert card.data.tags == ["merge", "lora", "crossmatch"]
    assert card.data.library_name == "transformers"
    second, first = card.data.eval_results
    assert (first.metric_type, first.metric_name, first.metric_value) == ("accuracy", "accuracy %", 25.0)
    assert first.metric_args == {"n": 40, "low_95": 12.5, "high_95": 50.0}
    assert (first.dataset_type, card.data.model_name) == ("name", "pt0.5")
    assert second.metric_value == 1e-3
    assert "# 0.5 pt" in card.text


def test_results_replace_earlier_ones_and_not_a_users_words(merged: Path) -> None:
    assert add_results(merged, summary(0.25), "pt0.5")
    assert add_results(merged, summary(0.75), "pt0.5")
    (_, value) = (r.metric_value for r in ModelCard.load(merged / "README.md").data.eval_results)
    assert value == 75.0
    file = merged / "README.md"
    file.write_text(file.read_text() + "Ours.\n")
    assert not add_results(merged, summary(0.1), "pt0.5")
    assert file.read_text().endswith("Ours.\n")


def test_bases_on_the_hub_are_named(merged: Path) -> None:
    manifest = json.loads((merged / "crossmatch.json").read_text())
    assert ModelCard.load(merged / "README.md").data.base_model is None
    manifest["predicate"]["base"]["hub_id"] = "org/base"
    manifest["predicate"]["adapters"]["pt"]["hub_id"] = "org/pt"
    data = ModelCard(metadata(manifest, "A checkpoint merged")).data
    assert data.base_model == ["org/base", "org/pt"]
    assert data.to_dict()["base_model_relation"] == "merge"
    data = ModelCard(metadata(manifest, "An adapter merged")).data
    assert (data.to_dict()["base_model_relation"], data.library_name) == ("adapter", "peft")
