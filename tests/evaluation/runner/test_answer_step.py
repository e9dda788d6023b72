"""Where an answer begins, and what is read of generated choices: traces, cut outputs, flips."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from crossmatch.checkpoint import Checkpoint
from crossmatch.evaluation import Suite, load_suite
from crossmatch.evaluation.comparison.paired import figure
from crossmatch.evaluation.comparison.side_by_side import side_by_side
from crossmatch.evaluation.comparison.summary import summarise
from crossmatch.evaluation.conditions import Condition
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import Generated, item_seed
from crossmatch.evaluation.metrics.metrics import measure
from crossmatch.evaluation.record import Record
from crossmatch.evaluation.runner.answer_log import Sheet
from crossmatch.evaluation.runner.questions import Questions
from crossmatch.evaluation.runner.requests import ask
from crossmatch.evaluation.variants.variants import Variant
from crossmatch.results.record import RECORD_VERSION
from crossmatch.runtime import SILENT
from helpers import make_chat_model, make_tokenizer

CLOSED = "<think> okay let me think </think> \n heart"
OUTPUTS = {"0": "a heart", "1": CLOSED, "2": "<think> okay let", "3": "old </think> blood", "4": ""}
# What stands before the answer begins; None: it never does.
BEFORE = {"0": "", "1": CLOSED.removesuffix(" heart"), "2": None, "3": "old </think>", "4": ""}
WARM = Condition(temperature=1.0, seeds=(0, 1))


class Thinks(Engine):
    """A real model, but for what it says."""

    outputs: Sequence[dict[str, str]] = ()

    def generate(
        self, prompts: Any, max_new_tokens: Any, decoding: Any, seeds: Any, done: Any, stops: Any = None
    ) -> None:
        del prompts, max_new_tokens, decoding, stops
        said = {item_seed(s, key): text for s, texts in enumerate(self.outputs) for key, text in texts.items()}
        for index, seed in enumerate(seeds):
            text = said[seed]
            done(index, Generated(text, "<think>" in text and "</think>" not in text, 3))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("room")
    make_chat_model(root / "base")
    rows = [
        {"id": i, "question": "what is " + "very " * int(i), "reference": "blood", "options": ["heart", "blood"]}
        for i in OUTPUTS
    ]
    for name, more in (("ask", "generation\nsustain: 0"), ("pick", "choice\ngenerative: true")):
        text = "".join(json.dumps({**row, "answer": 1}) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(text)
        (root / f"{name}.yaml").write_text(f"name: {name}\nversion: 1\nkind: {more}\ndata: {name}.jsonl\n")
    return root


@pytest.fixture(scope="module")
def engine(room: Path) -> Thinks:
    return Thinks(Checkpoint(room / "base"))


def stamped(suite: Suite, answers: Sequence[Record]) -> list[Record]:
    """Answers with what an evaluation writes on each."""
    stamp = {"schema_version": RECORD_VERSION, "variant": "v", "suite": suite.settings.name, "suite_version": 1}
    stamp |= {"condition": "own.greedy", "model_digest": "0" * 64}
    return [{**stamp, **answer} for answer in answers]


def asked(engine: Thinks, suite: Suite, outputs: Sequence[dict[str, str]], out: Path, **more: Any) -> list[Record]:
    engine.outputs = outputs
    sheet = Sheet(out / "answers.jsonl", "digest")
    with sheet, SILENT.task("ask") as task:
        questions = Questions(suite, more.get("condition", Condition()), engine.tokenizer, more.get("scored", True))
        answers = ask(engine, questions, sheet, task)
        rows = stamped(suite, answers)
        sheet.finish(rows)
    return rows


def first_token(engine: Engine, text: str) -> tuple[float, float]:
    """Entropy and margin of the token behind a text, from the model itself."""
    ids = torch.tensor([engine.tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        p = torch.softmax(engine.model(ids).logits[0, -1].double(), -1)
    top = p.sort(descending=True).values
    return float(-(p * p.log()).sum()), float(top[0] - top[1])


def test_the_answer_step_is_behind_the_trace(room: Path, engine: Thinks, tmp_path: Path) -> None:
    suite = load_suite(room / "ask.yaml")
    rows = asked(engine, suite, [OUTPUTS], tmp_path)
    prompts = Questions(suite, Condition(), engine.tokenizer).prompts
    for row in rows:
        before = BEFORE[row["id"]]
        if before is None:
            assert (row["answer_entropy"], row["answer_margin"]) == (None, None)
            continue
        entropy, margin = first_token(engine, prompts[row["id"]] + before)
        assert row["answer_entropy"] == pytest.approx(entropy, abs=1e-5)
        assert row["answer_margin"] == pytest.approx(margin, abs=1e-5)
        if not before:
            assert (row["answer_entropy"], row["answer_margin"]) == (row["entropy"], row["margin"])
        else:
            assert row["answer_entropy"] != pytest.approx(row["entropy"], abs=1e-4)
    found = measure(rows, suite)
    known = [row["answer_entropy"] for row in rows if row["answer_entropy"] is not None]
    assert figure("answer_entropy", found).value == pytest.approx(np.mean(known))
    assert figure("first_entropy", found).value == pytest.approx(np.mean([row["entropy"] for row in rows]))
    # Records that are older than the figure have none.
    for row in rows[:1]:
        del row["answer_entropy"]
    assert "answer_entropy" not in measure(rows, suite)
    assert "answer_margin" in measure(rows, suite)


def test_without_traces_both_steps_are_one(room: Path, engine: Thinks, tmp_path: Path) -> None:
    suite = load_suite(room / "ask.yaml")
    found = measure(asked(engine, suite, [dict.fromkeys(OUTPUTS, "a heart")], tmp_path), suite)
    for name in ("entropy", "margin"):
        assert figure(f"answer_{name}", found).to_dict() == pytest.approx(figure(f"first_{name}", found).to_dict())
    never = measure(asked(engine, suite, [dict.fromkeys(OUTPUTS, "<think> a")], tmp_path), suite)
    assert "first_entropy" in never
    assert "answer_entropy" not in never


@pytest.mark.parametrize("scored", [True, False])
def test_generated_choices_under_several_seeds(room: Path, engine: Thinks, tmp_path: Path, scored: bool) -> None:
    suite = load_suite(room / "pick.yaml")
    outputs = [OUTPUTS, dict.fromkeys(OUTPUTS, "heart")]
    rows = asked(engine, suite, outputs, tmp_path, condition=WARM, scored=scored)
    prompts = Questions(suite, WARM, engine.tokenizer).prompts
    for row in rows:
        for answer, before in zip(row["generated"], (BEFORE[row["id"]], ""), strict=True):
            if before is not None:
                entropy, margin = first_token(engine, prompts[row["id"]] + before)
                assert answer["answer_entropy"] == pytest.approx(entropy, abs=1e-5)
                assert answer["answer_margin"] == pytest.approx(margin, abs=1e-5)
    found = {name: figure(name, measure(rows, suite)).value for name in measure(rows, suite)}
    # Of two seeds the second has no traces.
    assert found["trace_structural"] == pytest.approx(3 / 10)
    assert found["trace_lexical"] == 0.0
    assert found["truncated"] == pytest.approx(1 / 10)
    shares = [
        len("<think> okay let me think </think>") / len(CLOSED),
        1.0,
        len("old </think>") / len("old </think> blood"),
    ]
    assert found["trace_share"] == pytest.approx(sum(shares) / 10)
    assert ("first_entropy" in found) == scored
    known = [a["answer_margin"] for row in rows for a in row["generated"] if a["answer_margin"] is not None]
    assert len(known) == 9
    assert found["answer_margin"] == pytest.approx(np.mean(known))


def test_generated_choices_flip_and_are_shown(room: Path, engine: Thinks, tmp_path: Path) -> None:
    suite = load_suite(room / "pick.yaml")
    other = {**OUTPUTS, "0": "blood", "3": "heart", "4": "🩸 <think> x </think> blood"}
    records = {
        (name, "pick", "own.greedy"): asked(engine, suite, [outputs], tmp_path / name)
        for name, outputs in (("base", OUTPUTS), ("merge", other))
    }
    variants = [Variant("base", "base", {}), Variant("merge", "merge", {})]
    found = summarise(records, variants, [suite], "base")["conditions"]["own.greedy"]["suites"]["pick"]
    flips = found["flips_generated"]["merge"]
    assert (flips["gained_ids"], flips["lost_ids"]) == (["0", "4"], ["3"])
    assert (flips["kept"], flips["wrong_alike"], flips["wrong_otherwise"]) == (0, 2, 0)
    assert set(flips) == set(found["flips"]["merge"])
    # The model is the same, so what it scores is the same.
    assert found["flips"]["merge"]["gained"] == found["flips"]["merge"]["lost"] == 0
    assert found["metrics"]["trace_structural"]["merge"]["difference"]["value"] == pytest.approx(0.0)
    shown = side_by_side(records, variants, [suite])["conditions"]["own.greedy"]["pick"]["rows"][4]["answers"][1]
    assert shown["generated"]["text"] == other["4"]
    assert shown["generated"]["marks"] == [[3, 3 + len("<think> x </think>")]]


def test_an_interrupted_evaluation_asks_no_step_again(room: Path, engine: Thinks, tmp_path: Path) -> None:
    suite = load_suite(room / "ask.yaml")
    first = asked(engine, suite, [OUTPUTS], tmp_path)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == first
    sheet = Sheet(tmp_path / "again.jsonl", "digest")
    questions, calls = Questions(suite, Condition(), engine.tokenizer), []
    with sheet, SILENT.task("ask") as task:
        ask(engine, questions, sheet, task)
        engine.outputs = ()
        openings = engine.openings
        try:
            engine.openings = lambda *given: calls.append(given)  # type: ignore[method-assign]
            assert stamped(suite, ask(engine, questions, sheet, task)) == first
        finally:
            engine.openings = openings  # type: ignore[method-assign]
    assert calls == []


def test_a_model_with_a_window_tells_of_the_step_too(tmp_path: Path) -> None:
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 6, "eos_token_id": 2}
    torch.manual_seed(0)
    MistralForCausalLM(MistralConfig(**shape, pad_token_id=0)).save_pretrained(tmp_path)
    make_tokenizer(tmp_path)
    engine = Engine(Checkpoint(tmp_path), rows=4)
    texts, found = ["what is blood", "what is the very very very old blood cell"], {}
    engine.openings(texts, [(), ()], lambda index, values, first: found.setdefault(index, (values, first)))
    for index, text in enumerate(texts):
        values, first = found[index]
        assert values == []
        assert (first.entropy, first.margin) == pytest.approx(first_token(engine, text), abs=1e-5)


def test_a_block_that_the_prompt_opened_is_open_in_the_output(room: Path, engine: Thinks, tmp_path: Path) -> None:
    more = "chat: false\nmax_new_tokens: 4\n"
    for kind, rest in (("generation", ""), ("choice", "generative: true\n")):
        head = f"name: {kind}\nversion: 1\nkind: {kind}\ndata: ask.jsonl\n"
        text = head + 'prompt: "{question} Answer: <think>"\n' + more + rest
        (room / f"opened-{kind}.yaml").write_text(text)
    cut, whole = "The answer is blood", "The answer is heart? </think>\nblood"
    outputs = [{key: whole if key == "0" else cut for key in OUTPUTS}]
    suite = load_suite(room / "opened-generation.yaml")
    rows = asked(engine, suite, outputs, tmp_path / "asked")
    assert [(row["trace"]["state"], row["answer"], row["opened"]) for row in rows] == [
        ("close_only", "blood", "think"),
        *[("unclosed", "", "think")] * 4,
    ]
    # An answer that never begins has no first token of its own.
    assert [row["answer_entropy"] is None for row in rows] == [False, *[True] * 4]
    measured = measure(rows, suite)
    found = {name: figure(name, measured).value for name in measured}
    assert (found["trace_structural"], found["trace_unclosed"], found["output_tokens"]) == (1.0, 0.8, 3.0)
    picked = asked(engine, load_suite(room / "opened-choice.yaml"), outputs, tmp_path / "picked")
    assert [row["generated"][0]["chosen"] for row in picked] == [1, None, None, None, None]
