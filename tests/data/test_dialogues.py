"""Rows of training data in the forms in which they are published: used, or refused with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from crossmatch.data.dialogues import parse_row
from crossmatch.data.messages import Dialogue, Document
from crossmatch.data.training_sets import documents, examples_digest, load_examples, load_sets, notes, parse_example
from crossmatch.errors import DataError
from crossmatch.evaluation.audit import open_corpus

U, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
QA = (("user", "q"), ("assistant", "a"))
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, QA),
        ({"conversations": [{"from": "Human", "value": "q"}, {"from": "model", "value": "a"}]}, QA),
        ({"conversations": [U, A], "system": "s"}, (("system", "s"), *QA)),
        ({"messages": json.dumps([U, A])}, QA),
        ({"messages": [{"role": "developer", "content": "s"}, U, A]}, (("system", "s"), *QA)),
        ({"messages": [{**U, "content": parts("q")}, {**A, "content": parts("a", " b")}]}, (QA[0], ("assistant", "a b"))),
        ({"messages": None, "text": "", "prompt": "q", "completion": "a"}, QA),
        ({"prompt": [U], "completion": [A]}, QA),
        ({"prompt": [{"role": "system", "content": "s"}, U], "completion": "a"}, (("system", "s"), *QA)),
        ({"prompt": "q", "completion": "a", "system": "s", "history": None}, (("system", "s"), *QA)),
        ({"instruction": "q", "input": "", "output": "a", "history": [["p", "b"]]}, (("user", "p"), ("assistant", "b"), *QA)),
        ({"instruction": "q", "input": "", "output": "a", "history": '[["p", "b"]]'}, (("user", "p"), ("assistant", "b"), *QA)),
        ({"prompt": "x", "messages": [U, A]}, QA),
        ({"messages": [U, U, A]}, (QA[0], *QA)),
    ],
)  # fmt: skip
def test_forms_that_are_read(row: dict[str, Any], turns: Any) -> None:
    assert parse_example(row, {}) == Dialogue(turns)


@pytest.mark.parametrize("name", ["arguments", "parameters", "input", "args"])
def test_arguments_of_calls_have_several_names(name: str) -> None:
    call = {"function": {"name": "f", name: {"x": 1}}} if name == "parameters" else {"name": "f", name: '{"x": 1}'}
    row = {"messages": [U, {"role": "assistant", "tool_calls": [call]}]}
    read: Any = parse_row(row, {})[0]
    assert read.more[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}


def test_lists_of_messages_as_json_text() -> None:
    row = {"prompt": json.dumps([{"role": "system", "content": "s"}, U]), "completion": json.dumps([A])}
    assert parse_row(row, {}) == [Dialogue((("system", "s"), *QA))]
    # Other JSON is what the texts say.
    plain = {"prompt": '[{"bp": 120}]', "completion": '{"role": "nurse"}'}
    assert parse_row(plain, {}) == [Dialogue((("user", '[{"bp": 120}]'), ("assistant", '{"role": "nurse"}')))]


def test_an_answer_of_weight_1_is_learnt_in_a_prompt_too() -> None:
    row = {"prompt": [U, {**A, "weight": 1}, U], "completion": [A]}
    read: list[Any] = parse_row(row, {})
    assert [len(example.turns) for example in read] == [2, 4]


def test_documents_of_dialogues(tmp_path: Path) -> None:
    """A row is one document, however many of its answers are learnt; weights mean nothing to PT."""
    data = tmp_path / "x.jsonl"
    data.write_text(json.dumps({"prompt": [U], "completion": [A, U, A]}) + "\n" + json.dumps({"messages": [U, A]}))
    assert documents(load_examples(data)) == ["q\na\nq\na", "q\na"]
    data.write_text(json.dumps({"messages": [U, {**A, "weight": 0}, U, {**A, "weight": 1}]}))
    with pytest.raises(DataError, match="line 1: an answer has weight 0, and PT learns every token"):
        documents(load_examples(data))


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_are_kept_wherever_they_are(name: str) -> None:
    expected = Dialogue(QA, {1: {name: "hm"}})
    assert parse_example({"messages": [U, {**A, name: "hm"}]}, {}) == expected
    assert parse_example({"prompt": "q", "completion": "a", name: "hm"}, {}) == expected
    assert parse_example({"Q": "q", "A": "a", "T": "hm"}, {"instruction": "Q", "output": "A", name: "T"}) == expected
    in_parts = {**A, "content": [{"type": "thinking", "thinking": "hm"}, *parts("a")]}
    assert parse_example({"messages": [U, in_parts]}, {}) == Dialogue(QA, {1: {"reasoning_content": "hm"}})
    assert expected.messages()[1] == {**A, name: "hm"}
    assert examples_digest([expected]) != examples_digest([Dialogue(QA)])
    with pytest.raises(DataError, match="a thought or tools would be lost in plain text"):
        documents([expected])


def test_tools_and_calls() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    turns = (("user", "q"), ("assistant", ""), ("tool", "r"), ("assistant", "a"))
    expected = Dialogue(turns, {1: {"tool_calls": [CALL]}}, (tool,))
    as_text = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    called = {"role": "assistant", "content": None, "tool_calls": [as_text]}
    result = {"role": "tool", "content": "r"}
    assert parse_example({"messages": [U, called, result, A], "tools": json.dumps([tool])}, {}) == expected
    share = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "r"},
        {"from": "gpt", "value": "a"},
    ]
    assert parse_example({"conversations": share, "tools": [tool]}, {}) == expected
    ending = parse_example({"messages": [U, called]}, {})
    assert ending == Dialogue(turns[:2], {1: {"tool_calls": [CALL]}})


def test_weights_choose_the_answers_that_are_learnt(tmp_path: Path) -> None:
    many = [U, {**A, "weight": 1}, U, {**A, "weight": 0}, U, {**A, "content": "c"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": many}) + "\n")
    found = load_examples(tmp_path / "a.jsonl")
    assert found == [Dialogue(QA), Dialogue((*QA, *QA, ("user", "q"), ("assistant", "c")))]
    assert all(example.place.endswith("line 1") for example in found)
    with pytest.raises(DataError, match="all have weight 0"):
        parse_example({"messages": [U, {**A, "weight": 0}]}, {})
    with pytest.raises(DataError, match="must be 0 or 1, not 0.5"):
        parse_example({"messages": [U, {**A, "weight": 0.5}]}, {})
    with pytest.raises(DataError, match="only the assistant's messages are learnt"):
        parse_example({"messages": [{**U, "weight": 1}, A]}, {})
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": [U], "completion": [A, U, A]}) + "\n")
    assert [len(e.turns) for e in load_examples(tmp_path / "b.jsonl")] == [2, 4]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "q", "context": "c", "response": "a"}, r"'output' .* fields \['context', 'instruction', 'resp.*--column output="),
        ({"instruction": "q", "context": "c", "output": "a"}, "'context' would be lost: name it input"),
        ({"question": "q", "answer": "a"}, "--column prompt=question --column completion=answer"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "'completion' must be a text"),
        ({"prompt": "q", "completion": "a", "label": False}, "label is False"),
        ({"prompt": "q", "input": "i", "completion": "a"}, "'input' has no place"),
        ({"prompt": "q", "completion": 4}, "'completion' must be a text that is not empty, not int"),
        ({"prompt": "q", "completion": "a", "images": ["x.png"]}, "'images' would be lost"),
        ({"text": "q", "images": ["x.png"]}, "'images' would be lost"),
        ({"messages": [U, A], "functions": [{}]}, "name it tools"),
        ({"messages": [U, A], "weight": 0}, "weight of a whole row"),
        ({"messages": [U, A], "chat_template_kwargs": {"a": 1}}, "in the settings of training"),
        ({"messages": [U, {**A, "function_call": {"name": "f"}}]}, "write it as tool_calls"),
        ({"messages": [{**U, "content": [{"type": "image"}]}, A]}, "part of type 'image'"),
        ({"messages": [{"role": "critic", "content": "x"}, A]}, "role among system, user, assistant, tool, not 'critic'"),
        ({"messages": [U, {"role": "system", "content": "s"}, A]}, "message 2: a system message must come first"),
        ({"messages": [{"role": "system", "content": "s"}, U, A], "system": "t"}, "two system messages"),
        ({"messages": [U, A, U]}, "not one of role user; leave out the message behind the last answer"),
        ({"messages": [U, A, U, U]}, "leave out the 2 messages behind the last answer"),
        ({"messages": [U]}, "there is no answer"),
        ({"messages": [A]}, "there is no answer"),
        ({"messages": [U, {"role": "assistant", "content": " "}]}, "'content' must be a text that is not empty, in message 2"),
        ({"messages": [U, {"role": "assistant", "content": None}]}, "'content' must be a text that is not empty"),
        ({"messages": [{**U, "thinking": "t"}, A]}, "thought of a message must be a text, of the assistant's"),
        ({"messages": [U, {**A, "tool_calls": [{"x": 1}]}]}, "a tool call must be an object with the name"),
        ({"messages": [U, {**A, "tool_calls": [{"name": "f", "kwargs": {"x": 1}}]}]}, "a tool call has kwargs; it is read"),
        ({"messages": [U, {**A, "tool_calls": [{"name": "f", "input": {"x": 1}, "args": {"x": 2}}]}]}, "has input and args"),
        ({"messages": [U, {**A, "trainable": False}]}, "say what is learnt by weight"),
        ({"messages": [U, {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, "a"], "reasoning": "u"}]}, "its thought twice"),
        ({"prompt": "q", "completion": "a", "tools": '[{"name": "f", "name": "g"}]'}, "'tools' must be a list"),
        ({"prompt": "q", "completion": "a", "label": 0}, "label is 0"),
        ({"prompt": "q", "completion": "a", "label": "False"}, "label is 'False'"),
        ({"instruction": "q", "output": "a", "history": ["p"]}, "list of .question, answer."),
        ({"prompt": "q \ud83d", "completion": "a"}, "lone surrogate"),
        ({"messages": [U, {**A, "thinking": "\ud83d"}]}, "lone surrogate"),
    ],
)  # fmt: skip
def test_what_would_be_lost_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_example(row, {})


def test_other_fields_are_said(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "source": "x", "prompt": "q", "completion": "a", "empty": None},
        {"messages": [U, A, {**U, "lang": "en"}, A]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = notes(load_examples(tmp_path / "a.jsonl"))
    assert said[0] == "note: fields that are not used: id (1 rows), source (1 rows), lang of a message (1 rows)"
    assert said[1].startswith("note: 1 dialogues have earlier answers, which are read and not learnt")
    assert notes([Dialogue(QA), Document("x")]) == []


def test_speakers_who_do_not_take_turns_are_said(tmp_path: Path) -> None:
    rows = [[U, A], [U, U, A], [A, U, A], [U, A, A], [U, U, A, A]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    said = [note for note in notes(load_examples(tmp_path / "a.jsonl")) if "earlier answers" not in note]
    assert [note.replace(str(tmp_path), "") for note in said] == [
        "note: 2 dialogues have two messages of role user in a row, /a.jsonl, line 2 first",
        "note: 1 dialogues begin with a message of role assistant, /a.jsonl, line 3 first",
        "note: 2 dialogues have two messages of role assistant in a row, /a.jsonl, line 4 first",
    ]


@pytest.mark.parametrize(
    ("call", "result"),
    [("function_call", "observation"), ("tool_call", "tool_response"), ("tool_calls", "function_response")],
)
def test_tools_may_be_roles(call: str, result: str) -> None:
    asked = {"from": call, "value": '{"name": "f", "arguments": {"x": 1}}'}
    found = parse_example({"conversations": [U, asked, {"from": result, "value": "2"}, A]}, {})
    assert isinstance(found, Dialogue)
    assert [role for role, _ in found.turns] == ["user", "assistant", "tool", "assistant"]
    assert found.more[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}


def test_columns_that_no_row_has_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "q", "hint": "c", "answer": "a"}\n')
    names = {"instruction": "question", "output": "answer"}
    assert load_sets([tmp_path / "a.jsonl"], {**names, "input": "hint"}, 0) == [Dialogue((("user", "q\nc"), QA[1]))]
    with pytest.raises(DataError, match="no row of .*a.jsonl has 'hnt'; did you mean hint"):
        load_sets([tmp_path / "a.jsonl"], {**names, "input": "hnt"}, 0)
    with pytest.raises(DataError, match="'anwser' is no known field"):
        load_examples(tmp_path / "a.jsonl", {"anwser": "answer"})


def test_the_audit_reads_what_training_reads(tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"messages": [U, {**A, "reasoning_content": "hm"}]},
        {"prompt": [U], "completion": [A]},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [(d.question, d.answer) for d in open_corpus(tmp_path / "a.jsonl")] == [
        ("q", "a"),
        ("q", "hm\na"),
        ("q", "a"),
    ]


def test_a_field_that_another_column_takes_the_place_of_is_not_lost() -> None:
    row = {"prompt": "You are a doctor.", "question": "q", "completion": "a"}
    with pytest.raises(DataError, match="'prompt' would be lost, since 'question' is .*--column system=prompt"):
        parse_row(row, {"prompt": "question"})
    both = {"prompt": "question", "system": "prompt"}
    assert parse_row(row, both) == [Dialogue((("system", "You are a doctor."), *QA))]
