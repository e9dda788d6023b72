"""From a row of anybody's training data to what is learnt: documents and dialogues.

Forms are known by their fields, in this order; roles, messages and their parts may have any of the names in use:

    messages, conversations       [{"role" or "from": ..., "content" or "value": ...}, ...]; tools, system beside them
    prompt, completion            two texts, or two lists of messages
    instruction[, input], output  alpaca
    text                          one document

Beside prompt/completion and alpaca: system, history ([[question, answer], ...]), tools and the thought of the answer.
No field is dropped without a word: one that would change what is learnt is used or refused, any other is kept in
`unused`, for a note.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crossmatch.data.messages import THOUGHTS, Dialogue, Document, Example, Turns, json_text, refuse_fields
from crossmatch.errors import DataError

LISTS = ("messages", "conversations", "conversation")
_PAIRS = (("prompt", "completion"), ("instruction", "output"), ("text", "text"))
KNOWN = (
    *LISTS,
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "tools",
    *THOUGHTS,
    "text",
)
"""Fields that `columns` can name."""
# Labels of answers that are not wanted, as sets for preferences have them, in JSON and in cells of CSV.
_UNWANTED = ("false", "0", "0.0")
_FORMS = "messages, conversations, prompt/completion, instruction/output, text"
# A row that has one of these means more than its texts. Field -> what to do.
_REFUSED = {
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), "models are trained on text alone"),
    "functions": "name it tools",
    "documents": "put the documents into the question",
    "chat_template_kwargs": "give switches of the template in the settings of training",
}
# The same, where prompt and answer are fields of their own.
_REFUSED_BESIDE = {
    "context": "name it input beside instruction/output, else put it into the prompt",
    "query": "name it prompt or input",
}


@dataclass(frozen=True)
class _Spoken:
    """A row of messages, read. learnt: numbers of the answers that are learnt; unused: fields that were not used."""

    turns: Turns
    learnt: Sequence[int]
    tools: tuple[Mapping[str, Any], ...]
    unused: tuple[str, ...]

    def dialogues(self, learnt: Sequence[int], place: str = "") -> list[Dialogue]:
        """A dialogue for each of these answers, which ends with it."""
        return self.turns.dialogues(learnt, self.tools, place, self.unused)


def parse_row(row: Any, columns: Mapping[str, str], place: str = "") -> list[Example]:
    """What one row teaches: a document, or a dialogue for every answer in it that is to be learnt.

    Learnt is the last answer; with weights, every answer whose weight is not 0; of a completion of several messages,
    each answer. columns: known field -> its name in the row. Raises DataError with the reason.
    """
    read = _read(renamed(row, columns))
    return [replace(read, place=place)] if isinstance(read, Document) else [*read.dialogues(read.learnt, place)]


def whole_row(row: Mapping[str, Any]) -> Example:
    """All that stands in one row whose fields have the known names, whatever of it is learnt: a document, or a dialogue
    with all messages. Raises DataError with the reason."""
    read = _read(row)
    return read if isinstance(read, Document) else read.dialogues([len(read.turns.turns) - 1])[0]


def renamed(row: Any, columns: Mapping[str, str]) -> dict[str, Any]:
    """A row under the known names of its fields. Raises DataError for what is no row, and where a field would be lost.

    columns: known field -> its name in the row.
    """
    if not isinstance(row, dict):
        raise DataError(f"an object is needed, not {type(row).__name__}")
    for known, theirs in columns.items():
        if theirs in row and known != theirs and known not in columns.values() and held(row.get(known)):
            raise DataError(
                f"field {known!r} would be lost, since {theirs!r} is to be read in its place; name what it is, as in "
                f"--column system={known}, or leave it out"
            )
    return {key: value for key, value in row.items() if key not in columns.values()} | {
        known: row[theirs] for known, theirs in columns.items() if theirs in row
    }


def held(value: Any) -> bool:
    """Whether a field holds something."""
    return value not in (None, "", [], {})


def whole_form(row: Mapping[str, Any]) -> str | None:
    """The form of training data of which a row has all fields, by the name of the first; None where it has of none."""
    lists = next((name for name in LISTS if held(row.get(name))), None)
    return lists or next((pair[0] for pair in _PAIRS if all(held(row.get(name)) for name in pair)), None)


def _read(row: Mapping[str, Any]) -> Document | _Spoken:
    given = {key: value for key, value in row.items() if held(value)}
    # A form whose fields hold something comes before one whose fields are there and empty.
    form = _form(given) or _form(row)
    refuse_fields(given, _REFUSED if form else {})
    if form in ("text", None):
        if form is None:
            names = sorted(map(str, row))
            advice = "rename them, as in --column prompt=question --column completion=answer (columns: in a study)"
            raise DataError(f"none of {_FORMS} among its fields {names}; {advice}")
        return Document(_text(row, "text"), "", _rest(given, {"text"}))
    if str(given.get("label", "")).strip().lower() in _UNWANTED and form not in LISTS:
        raise DataError(
            f"label is {row['label']!r}: an answer that is not wanted would be learnt; leave the row out, or the field "
            "if it means something else"
        )
    if given.get("weight") not in (None, 1):
        raise DataError("the weight of a whole row is not used; leave out rows of weight 0, and this field")
    tools = _tools(given.get("tools"))
    if form in LISTS:
        reader = Turns([*_system(given), *_messages(row[form], form)])
        return _Spoken(reader, reader.learnt(), tools, _rest(given, {form, "system", "tools"}))
    messages, answer = _before(row, given, form), "completion" if form == "prompt" else "output"
    after = _as_messages(row, answer, "assistant")
    refuse_fields(given, _REFUSED_BESIDE)
    thought = next((name for name in THOUGHTS if name in given), None)
    if thought is not None:
        after = [*after[:-1], {**after[-1], thought: given[thought]}]
    reader = Turns([*messages, *after])
    learnt = reader.learnt(range(len(messages), len(messages) + len(after)))
    used = {"prompt", "completion"} if answer == "completion" else {"instruction", "input", "output"}
    return _Spoken(reader, learnt, tools, _rest(given, {*used, "system", "history", "tools", thought or ""}))


def _form(fields: Mapping[str, Any]) -> str | None:
    """The form that fields have, by the name of its first one."""
    found = next((name for name in LISTS if name in fields), None)
    return found or next((first for first, second in _PAIRS if first in fields or second in fields), None)


def _before(row: Mapping[str, Any], given: Mapping[str, Any], form: str | None) -> list[Any]:
    """Messages before the answer of a row of prompt/completion or alpaca."""
    messages = [*_system(given), *_history(given.get("history"))]
    if form == "prompt":
        if "input" in given:
            raise DataError("field 'input' has no place beside prompt/completion; put it into the prompt")
        return [*messages, *_as_messages(row, "prompt", "user")]
    question = _text(row, "instruction")
    if "input" in given:
        question = f"{question}\n{_text(row, 'input')}"
    return [*messages, {"role": "user", "content": question}]


def _rest(given: Mapping[str, Any], used: set[str]) -> tuple[str, ...]:
    return tuple(str(name) for name in given if name not in used)


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise DataError(
            f"field {name!r} must be a text that is not empty; it is not among the fields {sorted(map(str, row))}: "
            f"rename one, as in --column {name}=THEIRS (columns: in a study)"
        )
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        kind = "" if isinstance(value, str) else f", not {type(value).__name__}"
        raise DataError(f"field {name!r} must be a text that is not empty{kind}")
    return value


def _system(given: Mapping[str, Any]) -> list[Any]:
    return [{"role": "system", "content": _text(given, "system")}] if "system" in given else []


def _history(history: Any) -> list[Any]:
    if history is None:
        return []
    turns = json_text(history)
    if not isinstance(turns, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in turns):
        raise DataError("field 'history' must be a list of [question, answer]")
    return [{"role": role, "content": c} for pair in turns for role, c in zip(("user", "assistant"), pair, strict=True)]


def _as_messages(row: Mapping[str, Any], name: str, role: str) -> list[Any]:
    """A field that is a text, or a list of messages, which may be JSON text."""
    value = json_text(row.get(name))
    if isinstance(row.get(name), list) or (isinstance(value, list) and value and all(map(_is_message, value))):
        return _messages(value, name)
    return [{"role": role, "content": _text(row, name)}]


def _is_message(value: Any) -> bool:
    """Whether an element of a list is a message, and no other JSON that a text may hold."""
    return isinstance(value, dict) and bool({"role", "from"} & set(value)) and bool({"content", "value"} & set(value))


def _messages(value: Any, name: str) -> list[Any]:
    value = json_text(value)
    if not isinstance(value, list) or not value:
        raise DataError(f"field {name!r} must be a list that is not empty")
    return value


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    tools = json_text(value)
    if tools is None:
        return ()
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError("field 'tools' must be a list of objects, JSON schemas of functions")
    return tuple(tools)


def refuse_half_characters(examples: Iterable[Example]) -> None:
    """Raise DataError for lone surrogates, which no tokenizer takes, and for tools that are no JSON."""
    try:
        for example in examples:
            if isinstance(example, Document):
                example.text.encode()
                continue
            for _, content in example.turns:
                content.encode()
            if not example.plain:
                json.dumps([list(example.more.values()), example.tools], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"half a character (a lone surrogate) behind {error.object[max(0, error.start - 20) : error.start]!r}, as "
            "cut texts have it; remove it, or repair the text"
        ) from error
    except (TypeError, ValueError) as error:
        raise DataError(f"tools or tool calls are no plain JSON: {error}") from error
