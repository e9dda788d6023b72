"""Gates on every delta of a fine-tune: against merged weights, finite differences and deltas that are left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossmatch.adapter import Adapter
from crossmatch.analysis.attribution.batches import batches
from crossmatch.analysis.attribution.gate_gradients import gate_path, gradients, score
from crossmatch.analysis.attribution.gated_model import Instrumented
from crossmatch.analysis.attribution.integrated_gradients import AttributionScope, attribute
from crossmatch.analysis.checkpoint_difference import Difference
from crossmatch.checkpoint import Checkpoint
from crossmatch.data.log_odds_items import Contrasts, Question, read_contrasts, read_openers
from crossmatch.data.token_classes import Text
from crossmatch.delta import Dense, TuningVector, norm
from crossmatch.errors import DataError, EqualError, InputError
from helpers import copy, make_adapter, make_chat_model, make_gpt2

QUESTIONS = [
    Question("<|user|> what is anaemia ? <|end|> <|assistant|>", " low blood level", " high blood level"),
    Question("<|user|> what is bone ? <|end|> <|assistant|>", " the old system", " the old lung disease"),
    Question("<|user|> pick : kidney heart <|end|> <|assistant|>", " kidney", " heart"),
    Question("<|user|> is pressure high ? <|end|> <|assistant|>", " high pressure", " low pressure system"),
]
DOWN, NORM, EMBED = (
    "model.layers.1.mlp.down_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.embed_tokens.weight",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model with tied embeddings, an adapter on it, and a full fine-tune that changes every tensor but one."""
    root = tmp_path_factory.mktemp("attribution")
    make_chat_model(root / "base", initializer_range=0.15, tied=True)
    make_adapter(root / "base", root / "sft", seed=2, size=0.3)
    copy(root / "base", root / "full")
    generator = torch.Generator().manual_seed(4)
    tensors = load_file(root / "base" / "model.safetensors")
    for name, tensor in tensors.items():
        if name != "model.norm.weight":
            size = 0.15 * tensor.norm() / tensor.numel() ** 0.5
            tensors[name] = tensor + size * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, root / "full" / "model.safetensors", {"format": "pt"})
    return root


@pytest.fixture(scope="module")
def tokenizer(root: Path) -> Any:
    return AutoTokenizer.from_pretrained(root / "base")


@pytest.fixture(scope="module")
def full(root: Path) -> Instrumented:
    base = Checkpoint(root / "base")
    vector = Difference(base, Checkpoint(root / "full"))
    vector = TuningVector({name: delta for name, delta in vector.items() if norm(delta) > 0})
    return Instrumented(base, {"tuned": vector}, {"tuned": 1.0}, everything=True)


def plain(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval().requires_grad_(False)


def log_p(model: Any, ids: tuple[int, ...]) -> Tensor:
    return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)


def numbers(text: Text, model: Any) -> float:
    """A text's score from the plain model."""
    table = log_p(model, text.ids)
    total = sum(float(table[place - 1, text.ids[place]]) for place in range(text.start, len(text.ids)))
    return total - float(table[text.start - 1, text.rival]) if text.rival is not None else -total


def test_log_odds_are_those_of_the_plain_model(root: Path, tokenizer: Any, full: Instrumented) -> None:
    model = plain(root / "base")
    first, whole = (read_contrasts(tokenizer, QUESTIONS, form) for form in ("first", "full"))
    assert (first.count, len(first.texts), whole.count, len(whole.texts)) == (4, 4, 4, 8)
    for form in (first, whole):
        found = form.of(score(full, form.texts, {"tuned": 0.0}))
        for number, question in enumerate(QUESTIONS):
            prompt = tokenizer(question.prompt)["input_ids"]
            right, wrong = (tokenizer(option)["input_ids"] for option in (question.right, question.wrong))
            place = next(n for n, pair in enumerate(zip(right, wrong, strict=False)) if len(set(pair)) == 2)
            if form is first:
                row = log_p(model, (*prompt, *right[:place]))[-1]
                expected = float(row[right[place]] - row[wrong[place]])
            else:
                sums = []
                for option in (right, wrong):
                    table = log_p(model, (*prompt, *option))
                    sums.append(sum(float(table[len(prompt) - 1 + n, token]) for n, token in enumerate(option)))
                expected = sums[0] - sums[1]
            assert found[number] == pytest.approx(expected, abs=1e-4)
    # In the second question the two differ at the third token.
    assert tokenizer.decode(first.texts[1].ids[-1:]) == "system"


def test_log_odds_of_an_opener(tokenizer: Any) -> None:
    ask = {"role": "user", "content": "what is bone ?"}
    dialogues = [
        [ask, {"role": "assistant", "content": "the old heart"}],
        [ask, {"role": "assistant", "content": "<think> let me"}],
    ]
    found = read_openers(tokenizer, dialogues)
    assert (found.count, found.metric) == (1, "<think> over the answer's first token")
    assert tokenizer.decode(found.texts[0].ids[-1:]) == "<think>"
    assert found.texts[0].rival == tokenizer("the")["input_ids"][0]
    with pytest.raises(DataError, match="begins otherwise"):
        read_openers(tokenizer, dialogues[1:])


def test_a_gated_full_vector_is_the_fine_tune(root: Path, tokenizer: Any, full: Instrumented) -> None:
    texts = read_contrasts(tokenizer, QUESTIONS, "full").texts
    assert "model.norm.weight" not in {site.name for site in full.sites}
    assert {NORM, EMBED, DOWN} < {site.name for site in full.sites}
    for path, gate in (("base", 0.0), ("full", 1.0)):
        model = plain(root / path)
        expected = [numbers(text, model) for text in texts]
        assert score(full, texts, {"tuned": gate}, tokens=40) == pytest.approx(np.array(expected), abs=2e-4)


def test_taking_a_delta_out_is_taking_it_out_of_the_weights(root: Path, tokenizer: Any) -> None:
    base, tuned = Checkpoint(root / "base"), Checkpoint(root / "full")
    contrasts = read_contrasts(tokenizer, QUESTIONS)
    out = attribute(base, tuned, contrasts, AttributionScope(nodes=4, top=6, controls=20))
    json.dumps(out, allow_nan=False)
    rows = {row["name"]: row for row in out["removed"]["modules"] + out["removed"]["controls"]}
    assert {NORM, EMBED, DOWN} < set(rows)
    whole = plain(root / "full")
    with_all = np.array([numbers(text, whole) for text in contrasts.texts])
    assert out["tuned"]["value"] == pytest.approx(with_all.mean(), abs=1e-4)
    for name in (NORM, EMBED, DOWN):
        model = plain(root / "full")
        model.get_parameter(name).data.copy_(base[name])
        without = np.array([numbers(text, model) for text in contrasts.texts])
        assert rows[name]["removed"]["value"] == pytest.approx((with_all - without).mean(), abs=1e-4), name
        spread = np.std(with_all - without, ddof=1) / 2
        assert rows[name]["removed"]["stderr"] == pytest.approx(spread, abs=1e-4)


def test_gradients_are_finite_differences(tokenizer: Any, full: Instrumented) -> None:
    texts = read_contrasts(tokenizer, QUESTIONS, "full").texts
    step = 1e-2
    for at in (0.0, 0.6):
        _, slopes = gradients(full, texts, {"tuned": at})
        for name in (NORM, EMBED, DOWN):
            site = next(n for n, site in enumerate(full.sites) if site.name == name)
            values = []
            for gate in (at + step, at - step):
                gates = full.gates({"tuned": at})
                gates[0, site] = gate
                found = np.zeros(len(texts))
                for batch in batches(texts, 1000):
                    with torch.inference_mode(), full.gated(gates):
                        found[list(batch.numbers)] = full.scores(batch).double().numpy()
                values.append(found)
            assert slopes[0, site] == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-2, rel=2e-2), name


@pytest.mark.parametrize("tuned", ["sft", "full"])
@pytest.mark.parametrize("form", ["first", "full"])
def test_attributions_add_up_to_the_change(root: Path, tokenizer: Any, tuned: str, form: Any) -> None:
    base = Checkpoint(root / "base")
    vector = Adapter(root / "sft") if tuned == "sft" else Checkpoint(root / "full")
    contrasts = read_contrasts(tokenizer, QUESTIONS, form)
    out = attribute(base, vector, contrasts, AttributionScope(controls=3))
    assert out["complete"]
    assert out["completeness"] == pytest.approx(1, abs=0.05)
    assert out["change"]["value"] == pytest.approx(out["tuned"]["value"] - out["base"]["value"], abs=1e-5)
    values = [row["integrated"]["value"] for row in out["modules"]]
    assert sum(values) == pytest.approx(out["integrated"]["value"], abs=1e-6)
    assert sum(row["value"] for row in out["types"].values()) == pytest.approx(sum(values), abs=1e-6)
    assert [abs(v) for v in values] == sorted(map(abs, values), reverse=True)
    found = out["removed"]
    assert [row["name"] for row in found["modules"]] == [row["name"] for row in out["modules"][:10]]
    assert len(found["controls"]) == 3
    assert found["spearman"]["integrated"]["top"]["n"] == 10
    assert found["spearman"]["integrated"]["all"]["n"] == 13
    # Of random deltas this large the ranks agree at least roughly.
    assert found["spearman"]["integrated"]["all"]["value"] > 0.3


def test_nodes_are_doubled_until_attributions_add_up(root: Path, tokenizer: Any) -> None:
    base, adapter = Checkpoint(root / "base"), Adapter(root / "sft")
    contrasts = read_contrasts(tokenizer, QUESTIONS)
    strict = AttributionScope(nodes=2, limit=24, tolerance=1e-3, top=1, controls=0)
    out = attribute(base, 3 * TuningVector(dict(adapter)), contrasts, strict)
    assert out["nodes"] in (8, 16, 24)
    assert out["removed"]["larger"] is None
    never = AttributionScope(nodes=2, limit=4, tolerance=1e-9, top=1, controls=0)
    short = attribute(base, 3 * TuningVector(dict(adapter)), contrasts, never)
    assert (short["nodes"], short["complete"]) == (4, False)
    assert short["completeness"] is not None


def test_a_planted_module_is_named_and_confirmed(root: Path, tokenizer: Any) -> None:
    base = Checkpoint(root / "base")
    contrasts = read_contrasts(tokenizer, QUESTIONS[:1] * 3)
    text = contrasts.texts[0]
    # A delta on the last layer that writes the right token's output row minus the wrong one's, at every position.
    rows = base[EMBED].float()
    away = rows[text.ids[-1]] - rows[text.rival or 0]
    shape = base.tensors[DOWN].shape
    planted = Dense(4.0 * torch.outer(away, torch.ones(shape[1])) / shape[1])
    noise = {
        name: Dense(1e-4 * torch.randn(base.tensors[name].shape, generator=torch.Generator().manual_seed(1)))
        for name in (NORM, "model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight")
    }
    out = attribute(base, TuningVector({DOWN: planted, **noise}), contrasts, AttributionScope(top=1))
    assert out["modules"][0]["name"] == DOWN
    assert out["removed"]["modules"][0]["confirmed"]
    assert out["removed"]["larger"] == 1
    assert out["modules"][0]["integrated"]["value"] == pytest.approx(out["change"]["value"], rel=0.02)


def test_one_adapter_among_two_is_the_path_of_both(root: Path, tokenizer: Any) -> None:
    """`gate_path` of the second adapter keeps the first where it is."""
    base = Checkpoint(root / "base")
    two = Instrumented(base, {n: Adapter(root / "sft") for n in ("a", "b")}, {"a": 0.5, "b": 0.5})
    texts = read_contrasts(tokenizer, QUESTIONS).texts
    path = gate_path(two, texts, 1, nodes=3)
    assert path.scores[0] == pytest.approx(score(two, texts, {"b": 0.0}))
    assert path.scores[-1] == pytest.approx(score(two, texts, {}))


def test_bad_input_is_refused(root: Path, tokenizer: Any, tmp_path: Path) -> None:
    prompt = QUESTIONS[0].prompt
    with pytest.raises(DataError, match="question 2: ' low' and ' low blood' have no token in which they differ"):
        read_contrasts(tokenizer, [QUESTIONS[0], Question(prompt, " low", " low blood")])
    with pytest.raises(DataError, match="no token in which they differ"):
        read_contrasts(tokenizer, [Question(prompt, " low", " low")])
    with pytest.raises(DataError, match="are the same tokens"):
        read_contrasts(tokenizer, [Question(prompt, " low", " low")], "full")
    with pytest.raises(DataError, match="options of one token"):
        read_contrasts(tokenizer, [Question(prompt, "", " low")])
    with pytest.raises(DataError, match="more than 4 tokens"):
        read_contrasts(tokenizer, QUESTIONS, max_length=4)
    with pytest.raises(DataError, match="no questions"):
        read_contrasts(tokenizer, [])
    base, contrasts = Checkpoint(root / "base"), read_contrasts(tokenizer, QUESTIONS)
    with pytest.raises(EqualError, match="changes no tensor"):
        attribute(base, base, contrasts)
    with pytest.raises(DataError, match="different architectures"):
        attribute(base, Checkpoint(make_gpt2(tmp_path / "gpt2")), contrasts)
    with pytest.raises(InputError, match="2 nodes at least"):
        AttributionScope(nodes=1)


def test_a_parameter_that_a_module_is_not_affine_in_has_no_gate(root: Path) -> None:
    class Decay(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(64))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight.exp()

    base = Checkpoint(root / "base")
    model = Instrumented(base, {"tuned": TuningVector({NORM: Dense(torch.ones(64))})}, {"tuned": 1.0}, everything=True)
    assert model.sites[0].name == NORM
    with pytest.raises(InputError, match="not affine"):
        model._affine(base, NORM, Dense(torch.ones(64)), Decay())
    with pytest.raises(InputError, match="no linear module's weight"):
        Instrumented(base, {"tuned": TuningVector({NORM: Dense(torch.ones(64))})}, {"tuned": 1.0})


def test_contrasts_add_the_scores_of_their_texts(tokenizer: Any) -> None:
    whole = read_contrasts(tokenizer, QUESTIONS, "full")
    scores = np.arange(16.0).reshape(2, 8)
    assert isinstance(whole, Contrasts)
    assert whole.of(scores).tolist() == [[1.0] * 4, [1.0] * 4]
