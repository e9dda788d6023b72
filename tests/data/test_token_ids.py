"""Exactly one beginning of sequence, and prompts with their continuations as one sequence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossmatch.checkpoint import Checkpoint
from crossmatch.data.chat_templates import open_tokenizer, probe
from crossmatch.data.passages import read_dialogue, read_text
from crossmatch.data.token_ids import (
    encode,
    encode_pair,
    encode_pairs,
    move_spaces,
    opening_ids,
    with_opening,
    without_opening,
)
from crossmatch.errors import DataError
from crossmatch.evaluation.inference.local_model import Engine
from crossmatch.evaluation.inference.protocol import Windows
from helpers import generate, loglikelihoods, make_chat_model
from local_server import make_bytes_model

BODY = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer puts <s> before every text."""
    return make_bytes_model(tmp_path_factory.mktemp("bos") / "model")


@pytest.fixture
def tokenizer(path: Path) -> Any:
    return AutoTokenizer.from_pretrained(path)


def beginnings(ids: Any) -> int:
    return list(ids).count(0)


def test_what_a_tokenizer_puts_before_a_text_is_measured(tokenizer: Any, tmp_path: Path) -> None:
    assert opening_ids(tokenizer) == (0,)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<pad> <s> $A <|end|>", special_tokens=[("<pad>", 4), ("<s>", 0), ("<|end|>", 1)]
    )
    assert opening_ids(tokenizer) == (4, 0)
    make_chat_model(tmp_path / "none")
    assert opening_ids(open_tokenizer(tmp_path / "none")) == ()


@pytest.mark.parametrize("text", ["what is blood", "<s>what is blood", "\n<s>what is blood", "", " <"])
def test_one_beginning_whatever_the_text(tokenizer: Any, text: str) -> None:
    (ids,) = encode(tokenizer, [text])
    assert beginnings(ids) == 1
    assert 1 not in ids
    written = with_opening(tokenizer, text)
    assert tokenizer(written, add_special_tokens=False)["input_ids"] == ids
    assert beginnings(tokenizer(without_opening(tokenizer, written))["input_ids"]) == 1


def test_chat_prompts_and_training_sequences_begin_once(tokenizer: Any) -> None:
    dialogue = [{"role": "user", "content": "what is blood"}, {"role": "assistant", "content": "a cell"}]
    found = []
    for template in (BODY, "{{ bos_token }}" + BODY):
        tokenizer.chat_template = template
        passage = read_dialogue(tokenizer, dialogue, None, 100)
        found.append((passage.ids, passage.prompt, probe(tokenizer, None)["token_ids"]))
    assert found[0] == found[1]
    assert beginnings(found[0][0]) == beginnings(found[0][2]) == 1
    for text in ("the old cell", "<s>the old cell"):
        (passage,) = read_text(tokenizer, text, 100)
        assert beginnings(passage.ids) == 1
        assert passage.ids[-1] == 1


def test_prompt_and_option_are_one_sequence(tokenizer: Any) -> None:
    before, after = encode_pair(tokenizer, "what is", " blood")
    assert before + after == tokenizer("what is blood")["input_ids"]
    prompts, options = ["what is", "<s>high"], [[" blood", " the"], [" blood"]]
    ids, found = encode_pairs(tokenizer, prompts, options)
    pairs = [[encode_pair(tokenizer, p, o) for o in group] for p, group in zip(prompts, options, strict=True)]
    assert [[(ids[i], f) for f in group] for i, group in enumerate(found)] == pairs
    assert encode_pairs(tokenizer, [], []) == ([], [])


def test_white_space_at_a_prompts_end_belongs_to_what_follows(tokenizer: Any) -> None:
    assert move_spaces("Answer: ", chat=False) == ("Answer:", " ")
    assert move_spaces("Answer:\n\n", chat=False) == ("Answer:", "\n\n")
    assert move_spaces("<|assistant|>\n", chat=True) == ("<|assistant|>\n", "")
    assert move_spaces("ASSISTANT: ", chat=True) == ("ASSISTANT:", " ")
    prompt, moved = move_spaces("what is ", chat=False)
    before, after = encode_pair(tokenizer, prompt, moved + "blood")
    assert before + after == tokenizer("what is blood")["input_ids"]


def test_what_the_positions_do_not_hold_is_refused_or_cut(path: Path) -> None:
    engine = Engine(Checkpoint(path))
    engine.model.config.max_position_embeddings = 12
    long, short = "the old cell in the kidney is very new " * 3 + "what is", "what is"
    (ids,) = encode(engine.tokenizer, [long])
    with pytest.raises(DataError, match=rf"a prompt has {len(ids)} tokens, with up to 1 to follow; the model has 12"):
        loglikelihoods(engine, [long], [[" blood"]])
    with pytest.raises(DataError, match="to follow; the model has 12 positions"):
        generate(engine, [short], 12)
    engine.too_long = "cut"
    kept = engine.tokenizer.decode([0, *ids[-11:]])
    assert loglikelihoods(engine, [long], [[" blood"]]) == loglikelihoods(engine, [kept], [[" blood"]])
    with pytest.raises(DataError, match="12 positions"):
        generate(engine, [short], 14)


def test_figures_are_those_of_plain_transformers(path: Path) -> None:
    engine, tokenizer = Engine(Checkpoint(path)), AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def scored(text: str, of: int) -> float:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        values = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        return float(values[-of:].double().sum().detach())

    prompts, options = ["what is", "high blood"], [[" blood", " the heart"], [" pressure", " a"]]
    wanted = [
        [scored(p + o, len(tokenizer(o, add_special_tokens=False)["input_ids"])) for o in group]
        for p, group in zip(prompts, options, strict=True)
    ]
    begun = ["<s>" + prompt for prompt in prompts]
    for asked in (prompts, begun):
        for found, right in zip(loglikelihoods(engine, asked, options), wanted, strict=True):
            assert found == pytest.approx(right, abs=1e-4)
    answers = [generate(engine, asked, 6)[0] for asked in (prompts, begun)]
    ids = torch.tensor([tokenizer(prompts[0])["input_ids"]])
    right = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=1, pad_token_id=4)[0, ids.shape[1] :]
    assert {answer.text for answer in answers} == {tokenizer.decode(right).replace("<|end|>", "")}
    documents: dict[int, Any] = {}
    texts = ["the old cell in the kidney", "<s>the old cell in the kidney"]
    engine.documents(texts, Windows(64, 8), documents.__setitem__)
    size = len(tokenizer(texts[0])["input_ids"]) - 1
    assert documents[0] == documents[1]
    assert documents[0].tokens == size
    assert -documents[0].nats == pytest.approx(scored(texts[0], size), abs=1e-3)
