"""Answers end where the template ends a turn: locally, on servers, in records and summaries."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossmatch import Checkpoint
from crossmatch.cli import run
from crossmatch.data.turn_ends import Stops
from crossmatch.evaluation.conditions import conditions_of
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import Decoding, Failed, Generated
from crossmatch.evaluation.inference.served.model import Connection, ServedModel
from crossmatch.evaluation.runner.template_check import trained_with
from helpers import WORDS, make_adapter, make_chat_model
from local_server import LocalServer, make_bytes_model

# The end of sequence is <pad>; a turn ends with <|end|>.
END = 2
ANSWER = ["blood", "heart", "<|end|>", "cell", "bone", "a", "<pad>"]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose every token is followed by one of its own: what stands in ANSWER comes after `<|assistant|>`."""
    root = tmp_path_factory.mktemp("ends")
    base = make_chat_model(root / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.eos_token = "<pad>"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.save_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    ids = tokenizer.convert_tokens_to_ids(["<|assistant|>", *ANSWER])
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.zero_()
        # Layers add nothing; a token's state is its own direction, which the head sends to the next token.
        for place, (here, after) in enumerate(pairwise(ids)):
            model.model.embed_tokens.weight[here, place] = 1.0
            model.lm_head.weight[after, place] = 1.0
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    model.save_pretrained(base)
    rows = [{"id": "1", "question": "what is blood", "reference": "blood heart"}]
    (root / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "s.yaml").write_text("name: s\nversion: 1\nkind: generation\ndata: s.jsonl\nmax_new_tokens: 9\n")
    return root


def said(model: Any, prompt: str, stops: Stops, limit: int = 9) -> Generated | Failed:
    found: list[Any] = []
    model.generate([prompt], limit, Decoding(), [0], lambda _, value: found.append(value), stops)
    return found[0]


def test_an_answer_ends_at_a_token_a_text_or_the_end_of_sequence(room: Path) -> None:
    engine, prompt = Engine(Checkpoint(room / "base")), "<|user|> blood <|assistant|>"
    whole = "blood heart <|end|> cell bone a"
    assert said(engine, prompt, Stops()) == Generated(whole, False, 6, "<pad>")
    assert said(engine, prompt, Stops(((END, "<|end|>"),))) == Generated("blood heart", False, 2, "<|end|>")
    text = Stops(texts=("cell bone",))
    assert said(engine, prompt, text) == Generated("blood heart <|end|> ", False, 3, "cell bone")
    # A text that is not complete at the limit, and one that is.
    assert said(engine, prompt, text, 4) == Generated("blood heart <|end|> cell", True, 4)
    assert said(engine, prompt, text, 5) == Generated("blood heart <|end|> ", False, 3, "cell bone")
    assert said(engine, prompt, Stops(), 2) == Generated("blood heart", True, 2)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_every_declared_end_of_sequence_stops(room: Path, tmp_path: Path, file: str) -> None:
    for source in (room / "base").iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    config = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps({**config, "eos_token_id": [0, 8 + WORDS.index("cell")]}))
    found = said(Engine(Checkpoint(tmp_path)), "<|user|> blood <|assistant|>", Stops())
    assert found == Generated("blood heart <|end|>", False, 3, "cell")


def test_evaluation_stops_at_the_templates_end_and_says_so(room: Path, tmp_path: Path) -> None:
    make_adapter(room / "base", tmp_path / "sft", seed=1, size=0.0, target_modules=["q_proj"])
    # Its training put another end there than the template has.
    taught = {"template": {"text": "x", "turn_end": {"added": [{"id": 8 + WORDS.index("bone"), "text": "bone"}]}}}
    (tmp_path / "sft" / "crossmatch.json").write_text(json.dumps(taught))
    out = tmp_path / "out"
    command = ["evaluate", str(room / "base"), "-a", f"sft={tmp_path / 'sft'}", "-w", "sft=1", "-o", str(out)]
    assert run([*command, "--suite", str(room / "s.yaml"), "--kl", "0"]) == 0
    (row,) = map(json.loads, (out / "sft" / "s.own.greedy.jsonl").read_text().splitlines())
    assert (row["output"], row["truncated"], row["tokens"], row["ended"]) == ("blood heart", False, 2, "<|end|>")
    summary = json.loads((out / "summary.json").read_text())
    ends = summary["turn_ends"]["own.greedy"]
    assert [token["text"] for token in ends["tokens"]] == ["<|end|>", "<pad>", "bone"]
    assert (ends["texts"], ends["closing"]) == ([], " <|end|> ")
    assert summary["conditions"]["own.greedy"]["suites"]["s"]["metrics"]["length_ratio"]["sft"]["value"] == 1.0


@pytest.mark.parametrize(("asked", "alike"), [("own", True), ("nothink", False)])
def test_trained_as_asked_compares_token_ids(room: Path, tmp_path: Path, asked: str, alike: bool) -> None:
    base, condition = Checkpoint(room / "base"), conditions_of([asked])
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    prompt = conditions_of()[0].template.probe(tokenizer)
    adapter: Any = type("Recorded", (), {"path": tmp_path})()
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    # Now what stood before the response; before, the evaluation's own prompt, which training may not have seen.
    records = [
        ({"text": prompt, "token_ids": ids, "asked": {}}, alike),
        ({"text": prompt, "token_ids": ids}, alike),
        ({"text": prompt}, alike),
        ({"text": prompt, "token_ids": [*ids, 3], "asked": {}}, False),
        ({"text": conditions_of(["nothink"])[0].template.probe(tokenizer)}, False),
        ({}, None),
    ]
    for template, expected in records:
        (tmp_path / "crossmatch.json").write_text(json.dumps({"template": template}))
        found = trained_with(base, {"a": adapter}, condition)
        assert found == {condition[0].name: {"a": expected}}, template


def test_a_template_that_demands_a_system_message(room: Path, tmp_path: Path, capsys: Any) -> None:
    """Trained and asked with one, it ends where it says, and was trained as it is asked; without one it is refused."""
    base = tmp_path / "base"
    base.mkdir()
    for source in (room / "base").iterdir():
        (base / source.name).write_bytes(source.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(base)
    demand = "{% if messages[0].role != 'system' %}{{ raise_exception('a system message is needed') }}{% endif %}"
    tokenizer.chat_template = demand + tokenizer.chat_template
    tokenizer.save_pretrained(base)
    row = {"system": "answer low", "prompt": "what is blood", "completion": "blood heart"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    train = ["train", str(base), "--stage", "sft", "--data", str(tmp_path / "t.jsonl"), "-o", str(tmp_path / "sft")]
    assert run([*train, "--set", "max_steps=1", "--set", "batch_size=1", "--set", "learning_rate=1e-9"]) == 0
    (tmp_path / "s.jsonl").write_text((room / "s.jsonl").read_text())
    suite = (room / "s.yaml").read_text()
    (tmp_path / "without.yaml").write_text(suite)
    (tmp_path / "with.yaml").write_text(suite + "system: answer low\n")
    command = ["evaluate", str(base), "-a", f"sft={tmp_path / 'sft'}", "-w", "sft=1", "--kl", "0", "--suite"]
    assert run([*command, str(tmp_path / "with.yaml"), "-o", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["trained_with"] == {"own.greedy": {"sft": True}}
    assert [token["text"] for token in summary["turn_ends"]["own.greedy"]["tokens"]] == ["<|end|>", "<pad>"]
    capsys.readouterr()
    assert run([*command, str(tmp_path / "without.yaml"), "-o", str(tmp_path / "none")]) == 2
    assert (
        "s.jsonl, line 1: template own: the chat template cannot render a dialogue: a system" in capsys.readouterr().err
    )


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bytes_model(tmp_path_factory.mktemp("served") / "pieces")


@pytest.fixture
def server(pieces: Path, request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    with LocalServer(pieces, request.param) as local:
        yield local


@pytest.mark.parametrize("server", ["vllm", "sglang", "llamacpp"], indirect=True)
def test_a_server_is_told_where_answers_end_and_what_it_adds_is_cut(server: LocalServer) -> None:
    served, prompt = (
        ServedModel(server.url, "tiny", connection=Connection(timeout=5.0, retries=0, pause=0.01)),
        "what is blood",
    )
    whole = said(served, prompt, Stops())
    assert isinstance(whole, Generated)
    assert not {"stop", "stop_token_ids"} & set(server.asked[-1])
    cut = whole.text[3:6]
    stops = Stops(((2, "<|user|>"), (1, "<|end|>")), (cut,))
    # This server knows no stops of a request; what it wrote behind one is cut off here.
    assert said(served, prompt, stops) == Generated(whole.text[: whole.text.index(cut)], False, None, cut)
    by_id = server.kind != "llamacpp"
    assert server.asked[-1].get("stop_token_ids") == ([2, 1] if by_id else None)
    assert server.asked[-1]["stop"] == ([cut] if by_id else [cut, "<|user|>", "<|end|>"])


@pytest.mark.parametrize("server", ["other", "llamacpp"], indirect=True)
def test_ends_that_a_request_has_no_room_for_are_cut_here_and_said(server: LocalServer) -> None:
    served = ServedModel(server.url, "tiny", connection=Connection(timeout=5.0, retries=0, pause=0.01))
    whole = said(served, "what is blood", Stops())
    assert isinstance(whole, Generated)
    ends = ("<1>", "<2>", "<3>", "<4>", whole.text[3:6])
    assert said(served, "what is blood", Stops((), ends)) == Generated(whole.text[:3], False, None, ends[4])
    room = server.kind == "llamacpp"
    assert server.asked[-1]["stop"] == list(ends if room else ends[:4])
    assert any(f"runs past {ends[4]!r}, where answers are cut off here" in note for note in served.notes) != room
