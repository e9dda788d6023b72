"""Plain documents: every token scored once behind what comes before it, whatever the batch, the window, the model."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from crossmatch import Adapter, Checkpoint
from crossmatch.errors import DataError
from crossmatch.evaluation import load_suite, standard_variants
from crossmatch.evaluation.audit import SuiteCorpus
from crossmatch.evaluation.comparison.side_by_side import side_by_side
from crossmatch.evaluation.comparison.summary import summarise
from crossmatch.evaluation.conditions import Plan, conditions_of
from crossmatch.evaluation.inference.batch_memory import Memory
from crossmatch.evaluation.inference.hidden_states import head_of, logits_of
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import DocumentScore, Failed, Windows
from crossmatch.evaluation.inference.served.model import ServedModel
from crossmatch.evaluation.metrics.perplexity import bits_per_byte, perplexity
from crossmatch.evaluation.runner.runner import Elsewhere, evaluate, evaluate_served
from crossmatch.study.sample import SampleSize, write_data
from helpers import make_adapter, make_chat_model, make_tokenizer

WORDS = "blood heart cell disease lung kidney bone system".split()
TEXTS = [" ".join(WORDS[(i * k) % 8] for i in range(1, 3 + 7 * k)) for k in range(1, 7)]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    make_chat_model(root / "base")
    for seed, name in enumerate(("pt", "sft"), 1):
        make_adapter(root / "base", root / name, seed=seed, size=0.5)
    rows = [{"id": str(i), "text": text} for i, text in enumerate(TEXTS)]
    (root / "read.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "read.yaml").write_text(
        "name: read\nversion: 1\nkind: text\ndata: read.jsonl\nwindow: 12\noverlap: 5\nlimit: 6\n"
    )
    return root


def scored(engine: Engine, texts: list[str], windows: Windows) -> list[DocumentScore]:
    found: dict[int, DocumentScore] = {}
    engine.documents(texts, windows, found.__setitem__)
    return [found[i] for i in range(len(texts))]


def expected(engine: Engine, text: str, windows: Windows) -> float:
    """Token by token, each behind exactly the tokens that its window shows."""
    ids = engine.tokenizer(text, add_special_tokens=False)["input_ids"]
    whole, total = [engine.tokenizer.eos_token_id, *ids], 0.0
    for begin, first, end in windows.spans(len(ids)):
        for place in range(first, end):
            with torch.inference_mode():
                logits = engine.model(torch.tensor([whole[begin : place + 1]])).logits[0, -1].double()
            total -= float(torch.log_softmax(logits, -1)[whole[place + 1]])
    return total


@given(st.integers(1, 200), st.integers(2, 50), st.data())
def test_every_token_is_scored_once_with_enough_before_it(tokens: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    at = 0
    for begin, first, end in Windows(size, overlap).spans(tokens):
        assert first == at
        assert first < end
        assert end - begin <= size
        assert first - begin >= (overlap if first else 0)
        at = end
    assert at == tokens


@pytest.mark.parametrize("windows", [Windows(1024, 256), Windows(12, 5), Windows(2, 1), Windows(3, 0)])
def test_documents_score_as_single_tokens_do(room: Path, windows: Windows) -> None:
    engine = Engine(Checkpoint(room / "base"))
    found = scored(engine, TEXTS, windows)
    for text, score in zip(TEXTS, found, strict=True):
        assert score.nats == pytest.approx(expected(engine, text, windows), abs=1e-4)
        assert score.tokens == len(text.split())
        assert score.windows == len(list(windows.spans(score.tokens)))
    assert windows.size > 100 or max(s.windows for s in found) > 1


@pytest.mark.parametrize("nbytes", [1, 40_000, 200_000, 1 << 30])
def test_no_score_depends_on_the_memory(room: Path, nbytes: int) -> None:
    engine = Engine(Checkpoint(room / "base"))
    engine.memory = Memory(nbytes)
    for one, other in zip(
        scored(engine, TEXTS[::-1], Windows(16, 4)),
        scored(Engine(Checkpoint(room / "base")), TEXTS, Windows(16, 4))[::-1],
        strict=True,
    ):
        assert one.nats == pytest.approx(other.nats, abs=1e-4)
        assert (one.tokens, one.windows) == (other.tokens, other.windows)


def special(family: str) -> Any:
    shape: dict[str, Any] = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None, "sliding_window": 6,
    }  # fmt: skip
    torch.manual_seed(0)
    if family == "sliding":
        return MistralForCausalLM(MistralConfig(**shape))
    return Gemma2ForCausalLM(Gemma2Config(**shape, head_dim=8, final_logit_softcapping=0.05))


@pytest.mark.parametrize("family", ["sliding", "capped"])
def test_other_kinds_of_model(tmp_path: Path, family: str) -> None:
    """Layers that see a window only; logits that are capped after the vocabulary."""
    special(family).save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    engine = Engine(Checkpoint(tmp_path))
    assert engine.ways.stem.module is engine.model.base_model
    for text, score in zip(TEXTS, scored(engine, TEXTS, Windows(12, 5)), strict=True):
        assert score.nats == pytest.approx(expected(engine, text, Windows(12, 5)), abs=1e-4)


def test_a_model_is_left_as_it_was(room: Path) -> None:
    engine = Engine(Checkpoint(room / "base"))
    model, stem = engine.model, engine.ways.stem
    ids = torch.tensor([[3, 4, 5]])
    with torch.inference_mode():
        before, states = model(ids).logits, model.base_model(ids).last_hidden_state[0]
    own = model.get_output_embeddings().weight.data
    place = own.data_ptr()
    with head_of(model, stem, [2 * own]):
        torch.testing.assert_close(logits_of(model, stem, states), 2 * before[0])
    assert model.get_output_embeddings().weight.data_ptr() == place
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, before)


def test_where_logits_come_from_elsewhere_they_are_taken_whole(room: Path) -> None:
    engine = Engine(Checkpoint(room / "base"))
    # Logits that depend on more than the last states: as with a second head on the input.
    weight = engine.model.get_input_embeddings().weight

    def shift(_: Any, args: Any, given: dict[str, Any], out: Any) -> None:
        out.logits = out.logits + 100 * weight[given["input_ids"] if given else args[0]] @ weight.T

    engine.model.register_forward_hook(shift, with_kwargs=True)
    assert engine.ways.stem.module is None
    assert "KL keeps whole distributions" in str(engine.ways.note("llama"))
    for text, score in zip(TEXTS, scored(engine, TEXTS, Windows(8, 2)), strict=True):
        assert score.nats == pytest.approx(expected(engine, text, Windows(8, 2)), abs=1e-3)


def test_figures_of_a_suite(room: Path, tmp_path: Path) -> None:
    base, adapters = Checkpoint(room / "base"), {"pt": Adapter(room / "pt"), "sft": Adapter(room / "sft")}
    variants, suites = standard_variants(adapters, [{"pt": 0.3, "sft": 0.7}], "sft"), [load_suite(room / "read.yaml")]
    conditions = conditions_of(["own", "chatml"], ["greedy", "T1x2"])
    records = evaluate(base, adapters, variants, suites, tmp_path, plan=Plan(conditions))
    # Neither template nor decoding is asked for by a text: one file a variant.
    assert {key[2] for key in records} == {"own.greedy"}
    rows = records["pt", "read", "own.greedy"]
    assert [row["bytes"] for row in rows] == [len(text) for text in TEXTS]
    assert len({row["prompt_digest"] for row in rows}) == 6
    assert all(len(row["question"]) <= 123 for row in rows)
    summary = summarise(records, variants, suites, "sft", conditions=conditions)["conditions"]
    facts = summary["own.greedy"]["suites"]["read"]
    assert summary["own.T1"]["suites"] == {}
    entry = facts["metrics"]["perplexity"]["pt"]
    assert entry["value"] == pytest.approx(math.exp(sum(r["nats"] for r in rows) / sum(r["tokens"] for r in rows)))
    assert entry["low"] < entry["value"] < entry["high"]
    assert entry["difference"]["test"] == entry["difference_base"]["test"] == "randomisation"
    assert facts["metrics"]["bits_per_byte"]["pt"]["value"] == pytest.approx(
        sum(r["nats"] for r in rows) / math.log(2) / sum(map(len, TEXTS))
    )
    assert facts["signatures"] == {"perplexity": "window:12|overlap:5|first:bos-or-eos|mean:tokens"}
    assert side_by_side(records, variants, suites, conditions=conditions)["conditions"]["own.greedy"] == {}
    assert evaluate(base, adapters, variants, suites, tmp_path, plan=Plan(conditions)) == records
    assert [d.text for d in SuiteCorpus(suites[0])] == TEXTS


def test_perplexity_weighs_by_tokens() -> None:
    table = np.array([[3.0, 1.0, 4.0], [9.0, 9.0, 50.0]])
    assert float(perplexity(table.mean(0, keepdims=True))[0]) == pytest.approx(math.exp(12 / 10))
    assert float(bits_per_byte(table.mean(0, keepdims=True))[0]) == pytest.approx(12 / 54 / math.log(2))


def test_a_server_is_not_asked_for_perplexity(room: Path, tmp_path: Path) -> None:
    suites = [load_suite(room / "read.yaml")]
    tokenizer = Engine(Checkpoint(room / "base")).tokenizer
    served = ServedModel("http://127.0.0.1:9", "m")
    with pytest.raises(DataError, match="suite read: plain texts are not asked of a server"):
        evaluate_served(Elsewhere(served, tokenizer, "d"), suites, tmp_path)
    found: dict[int, Any] = {}
    served.documents(["a"], Windows(8, 2), found.__setitem__)
    assert isinstance(found[0], Failed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prompt: '{question}?'", "prompt is for questions"),
        ("fewshot: 2", "fewshot is for questions"),
        ("window: 5", r"overlap 5 must be less than window 5"),
        ("generative: true", "generative is for choice suites, not for text"),
        ("fields: {text: document}", "there is no field 'document'"),
    ],
)
def test_suites_that_cannot_be(room: Path, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "read.jsonl").write_bytes((room / "read.jsonl").read_bytes())
    settings = (room / "read.yaml").read_text().replace("window: 12\n" if "window" in line else "\n\n", "")
    (tmp_path / "read.yaml").write_text(f"{settings}{line}\n")
    with pytest.raises(DataError, match=message):
        load_suite(tmp_path / "read.yaml")


def test_documents_of_the_sample_are_in_nothing_else(tmp_path: Path) -> None:
    card = write_data(tmp_path, SampleSize(pt_terms=60, sft_terms=80, define=10, name=20, seed=3))
    suite = load_suite(tmp_path / "documents.yaml")
    assert [item.id for item in suite.items] == card["unread"]
    assert len(suite.items) == 20
    assert not set(card["unread"]) & {name for part in card["terms"].values() for name in part}
