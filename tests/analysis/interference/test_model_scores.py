"""Scores that take passes of the model, against models whose weights are changed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crossmatch import Adapter, Checkpoint
from crossmatch.analysis.interference.model_scores import ModelScores
from crossmatch.causal import open_model, parameter_names
from crossmatch.cli import run
from crossmatch.data.chat_templates import open_tokenizer
from crossmatch.data.suites import load_suite
from crossmatch.data.token_classes import Text, read_texts
from crossmatch.delta import dense
from crossmatch.rules import Weight, Weights, weight_at


@pytest.fixture(scope="module")
def texts(searched: Path) -> list[Text]:
    suite = load_suite(searched / "ask.yaml")
    answers = [[*suite.messages(i), {"role": "assistant", "content": i.reference}] for i in suite.items[:5]]
    return [t for t in read_texts(open_tokenizer(searched / "base"), answers) if not t.is_probe]


def merged(searched: Path, weights: dict[str, Weight]) -> Any:
    """The model with these weights in its parameters."""
    base = Checkpoint(searched / "base")
    model = open_model(base.path, torch.float32)
    names = parameter_names(model, base.tensors)
    parameters = dict(model.named_parameters())
    for adapter, weight in weights.items():
        for name, delta in Adapter(searched / adapter).items():
            parameters[names.get(name, name)].data += weight_at(weight, name) * dense(delta)
    return model.eval()


def loss_and_states(model: Any, texts: list[Text]) -> tuple[float, torch.Tensor]:
    total, count, states = 0.0, 0, []
    for text in texts:
        ids = torch.tensor([text.ids])
        with torch.inference_mode():
            found = model(input_ids=ids)
            log_p = torch.log_softmax(found.logits.double(), -1)
            states.append(model.base_model(input_ids=ids).last_hidden_state[0, text.start - 1].double())
        places = range(text.start, len(text.ids))
        total -= sum(float(log_p[0, place - 1, text.ids[place]]) for place in places)
        count += len(places)
    return total / count, torch.stack(states)


def test_scores_are_those_of_changed_models(searched: Path, texts: list[Text]) -> None:
    adapters = {name: Adapter(searched / name) for name in ("pt", "sft")}
    scores = ModelScores(Checkpoint(searched / "base"), adapters, "sft", texts)
    assert scores.scores({"sft": 1.0}) == {"hidden": 0.0, "gates": 0.0}
    before, own = loss_and_states(merged(searched, {"sft": 1.0}), texts)
    weights: dict[str, Weight] = {"pt": Weights(0.5, (("mlp", 0.1),)), "sft": 0.8}
    _, moved = loss_and_states(merged(searched, weights), texts)
    away = float(((moved - own).norm(dim=1) / own.norm(dim=1)).mean())
    assert scores.scores(weights)["hidden"] == pytest.approx(away, rel=1e-3)
    # A first-order change is that of a small step.
    small: dict[str, Weight] = {"pt": 0.01, "sft": 0.99}
    after, _ = loss_and_states(merged(searched, small), texts)
    assert scores.scores(small)["gates"] == pytest.approx(after - before, rel=0.1)


def test_predict_by_passes_comes_with_what_it_was_worth(
    searched: Path, study: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from crossmatch import sweep

    small = {**study, "suites": study["suites"][1:], "constraints": [], "halving": [], "finalists": 1}
    small["space"] = {"pt": "0,0.5", "sft": "0.5,1"}
    sweep(small, tmp_path / "swept")
    capsys.readouterr()
    pair = [word for n in ("pt", "sft") for word in ("-a", f"{n}={searched / n}", "-w", f"{n}=0.5")]
    known = ["--sweep", str(tmp_path / "swept"), "--suite", str(searched / "ask.yaml"), "--items", "3"]
    assert run(["predict", study["base"], *pair, *known, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["texts"] == {"suite": "ask", "items": 3}
    assert facts["scores"]["hidden"] > 0
    assert [row["score"] for row in facts["agreement"]["scores"]] == [
        "size",
        "added",
        "away",
        "prism",
        "hidden",
        "gates",
    ]
    assert len({row["n"] for row in facts["agreement"]["scores"]}) == 1
    # Items that the search asked are not taken.
    assert run(["predict", study["base"], *pair, *known[:2], "--suite", str(searched / "pick.yaml")]) == 2
    assert "give a suite of kind generation" in capsys.readouterr().err
    renamed = [word.replace("pt=", "other=") for word in pair]
    assert run(["predict", study["base"], *renamed, *known]) == 2
    assert "the sweep is of another base" in capsys.readouterr().err
