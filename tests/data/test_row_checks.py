"""Rows as a chat template takes them: checked before training, with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from crossmatch import Checkpoint
from crossmatch.data.messages import Dialogue
from crossmatch.data.row_checks import check_dialogues
from crossmatch.errors import DataError
from crossmatch.training import TrainSettings, train_stage
from crossmatch.training.trainer import build_trainer
from helpers import make_chat_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
PLAIN = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + PLAIN
)
DROPS_SYSTEM = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + PLAIN
THINKS = (
    "{% for m in messages %}<|{{ m.role }}|> {% if m.reasoning %}<think> {{ m.reasoning }} </think> {% endif %}{{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CALLS = (
    "{% if tools %}{{ tools | tojson }} {% endif %}{% for m in messages %}<|{{ m.role }}|> {{ m.content }} "
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }} {% endfor %}<|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# Of calls it shows the first alone, and text only where there is none.
FIRST_CALL = (
    "{% for m in messages %}<|{{ m.role }}|> {% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}"
    "{% else %}{{ m.content }}{% endif %} <|end|> {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_TOOL = "{% set messages = messages | rejectattr('role', 'equalto', 'tool') | list %}" + PLAIN
QUOTES_TOOL = PLAIN.replace("{{ m.content }}", "{{ m.content | tojson if m.role == 'tool' else m.content }}")
QA = (("user", "what is blood"), ("assistant", "bone"))
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TWO = {"tool_calls": [CALL, {"type": "function", "function": {"name": "g", "arguments": {"y": 2}}}]}
ASKED = (("user", "what is blood"), ("assistant", "I look it up"), ("tool", 'the "cell"'), ("assistant", "a cell"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("rows") / "base")


@pytest.fixture
def tokenizer(base: Path) -> Any:
    return AutoTokenizer.from_pretrained(base)


@pytest.mark.parametrize(
    ("template", "dialogue", "message"),
    [
        (NO_SYSTEM, Dialogue((("system", "s"), *QA)), "cannot render this dialogue of system, user, assistant: System role not"),
        (ALTERNATE, Dialogue((QA[0], *QA)), "of user, user, assistant: roles must alternate"),
        (DROPS_SYSTEM, Dialogue((("system", "be brief"), *QA)), "leaves out or changes message 1, of role system"),
        (PLAIN, Dialogue(QA, {1: {"reasoning_content": "hm"}}), r"leaves out the thought of the answer \(reasoning_content\)"),
        (PLAIN, Dialogue(QA, {1: {"tool_calls": [CALL]}}), "leaves out the tool calls of message 2"),
        (PLAIN, Dialogue(QA, {}, (CALL,)), "leaves out the tools"),
        (NO_TOOL, Dialogue(ASKED), "leaves out message 3, what a tool gave"),
        (FIRST_CALL, Dialogue((QA[0], ("assistant", "")), {1: TWO}), "leaves out tool call 2 of message 2"),
        (FIRST_CALL, Dialogue(QA, {1: {"tool_calls": [CALL]}}), "leaves out the answer's text beside its tool calls"),
    ],
)  # fmt: skip
def test_rows_that_a_template_cannot_take(tokenizer: Any, template: str, dialogue: Dialogue, message: str) -> None:
    tokenizer.chat_template = template
    fine, wrong = (
        Dialogue(QA, place="f.jsonl, line 1"),
        Dialogue(dialogue.turns, dialogue.more, dialogue.tools, "f.jsonl, line 7"),
    )
    with pytest.raises(DataError, match=message) as caught:
        check_dialogues(tokenizer, [fine, wrong])
    assert str(caught.value).startswith("f.jsonl, line 7")
    assert "\n" not in str(caught.value)


def test_what_is_shown_in_another_form_is_there(tokenizer: Any) -> None:
    tokenizer.chat_template = QUOTES_TOOL
    assert check_dialogues(tokenizer, [Dialogue(ASKED)]).notes == ()


def test_what_reaches_no_model_is_said(tokenizer: Any) -> None:
    tokenizer.chat_template = FIRST_CALL
    more = {0: {"name": "Bob"}, 1: {"tool_calls": [CALL]}, 2: {"name": "f"}}
    assert sorted(check_dialogues(tokenizer, [Dialogue(ASKED, more)]).notes) == [
        "note: names of messages are left out by the chat template (1 dialogues)",
        "note: texts of earlier answers beside tool calls are left out by the chat template (1 dialogues)",
    ]


def test_a_thought_gets_the_name_that_the_template_reads(tokenizer: Any) -> None:
    tokenizer.chat_template = THINKS
    checked = check_dialogues(tokenizer, [Dialogue(QA, {1: {"reasoning_content": "hm"}}), Dialogue(QA)])
    assert checked.dialogues[0].more == {1: {"reasoning": "hm"}}
    assert checked.notes == ()
    earlier = Dialogue((*QA, *QA), {1: {"reasoning": "hm"}})
    assert "thoughts before earlier answers" in check_dialogues(tokenizer, [earlier]).notes[0]


def test_a_template_that_needs_a_call_before_its_result(tokenizer: Any) -> None:
    """The look at what it renders without the call is no fault of the row."""
    strict = "{% for m in messages %}{% if m.role == 'tool' and not messages[loop.index0 - 1].tool_calls %}"
    tokenizer.chat_template = strict + "{{ raise_exception('no call before') }}{% endif %}{% endfor %}" + CALLS
    turns = (QA[0], ("assistant", ""), ("tool", "bone"), QA[1])
    called = Dialogue(turns, {1: {"tool_calls": [CALL]}}, (CALL,))
    assert check_dialogues(tokenizer, [called]).dialogues == (called,)


def test_tools_reach_the_model_as_they_are(base: Path, tmp_path: Path) -> None:
    """No row gets the argument names of another, as columns of Arrow would give them."""
    (tmp_path / "t.jinja").write_text(CALLS)
    other = {"type": "function", "function": {"name": "g", "arguments": {"y": "z"}}}
    rows = [
        Dialogue(QA, {1: {"tool_calls": [call]}}, (tool,)) for call, tool in ((CALL, {"a": 1}), (other, {"b": "c"}))
    ]
    settings = TrainSettings.model_validate({"rank": 2, "template": str(tmp_path / "t.jinja")})
    trainer = build_trainer(base, "sft", [*rows, Dialogue(QA)], settings, tmp_path / "work")
    tokenizer: Any = trainer.processing_class
    found: Any = trainer.train_dataset
    for dialogue, ids in zip([*rows, Dialogue(QA)], found["input_ids"], strict=True):
        tools = {"tools": list(dialogue.tools)} if dialogue.tools else {}
        text = tokenizer.apply_chat_template(dialogue.messages(), tokenize=False, **tools)
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "row", [{"messages": [{"role": "system", "content": "s"}]}, {"prompt": "q \ud83d", "completion": "a"}]
)
def test_training_stops_before_anything_is_loaded(base: Path, tmp_path: Path, row: dict[str, Any]) -> None:
    fine = [{"role": role, "content": content} for role, content in QA]
    bad = {"messages": row["messages"] + fine} if "messages" in row else row
    (tmp_path / "d.jsonl").write_text(json.dumps({"messages": fine}) + "\n" + json.dumps(bad) + "\n")
    (tmp_path / "t.jinja").write_text(NO_SYSTEM)
    settings = TrainSettings.model_validate({"rank": 2, "max_steps": 1, "template": str(tmp_path / "t.jinja")})
    with pytest.raises(DataError, match="d.jsonl, line 2: "):
        train_stage(Checkpoint(base), "sft", tmp_path / "d.jsonl", tmp_path / "out", settings=settings)
    assert not (tmp_path / "out.work").exists()
