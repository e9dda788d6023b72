"""Dialogues as a chat template renders them, checked row by row before anything is trained or measured on them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crossmatch.data.lost_messages import lost_message
from crossmatch.data.messages import THOUGHTS, Dialogue
from crossmatch.errors import DataError

# A word that no data have.
_ELSE = "zqxj"


@dataclass(frozen=True)
class Checked:
    """Dialogues whose fields have the names that the template reads, and notes for the user."""

    dialogues: tuple[Dialogue, ...]
    notes: tuple[str, ...]


def check_dialogues(
    tokenizer: Any, dialogues: Sequence[Dialogue], switches: Mapping[str, Any] | None = None
) -> Checked:
    """Render every dialogue with the tokenizer's template.

    Refused, with file and line: what the template cannot render; a system, user or tool message, tools, any tool call,
    or of the answer its text beside calls or its thought, that the template leaves out. Noted: what it leaves out of
    earlier answers, and names. A thought may have any of the names in THOUGHTS; it is given the one that the template
    reads. Raises DataError for the first bad row, with the number of others.
    """
    found: list[Dialogue] = []
    problems: list[str] = []
    earlier, silent = 0, Counter[str]()
    for number, dialogue in enumerate(dialogues, 1):
        try:
            checked = _check(tokenizer, dialogue, switches or {})
            silent.update(_left_out(tokenizer, checked, switches or {}))
        except DataError as error:
            problems.append(f"{dialogue.place or f'example {number}'}: {error}")
            continue
        found.append(checked)
        earlier += any(set(THOUGHTS) & set(fields) for i, fields in checked.more.items() if i < len(checked.turns) - 1)
    if problems:
        more = f" (and {len(problems) - 1} more bad rows)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    notes = [f"note: {earlier:,} dialogues have thoughts before earlier answers; the template shows them or not"]
    notes = notes if earlier else []
    notes += [f"note: {what} are left out by the chat template ({times:,} dialogues)" for what, times in silent.items()]
    return Checked(tuple(found), tuple(notes))


def readable(tokenizer: Any, dialogue: Dialogue, switches: Mapping[str, Any] | None = None) -> Dialogue:
    """One dialogue for what reads messages alone. Raises DataError as `check_dialogues` does, and for tools."""
    if dialogue.tools:
        raise DataError("tools are only read in training; leave the row out")
    return dialogue if dialogue.plain else _check(tokenizer, dialogue, switches or {})


def render_dialogue(tokenizer: Any, dialogue: Dialogue, switches: Mapping[str, Any] | None = None) -> str:
    """The text of a whole dialogue. Raises DataError with the template's own reason."""
    return _render(tokenizer, dialogue.messages(), dialogue, switches or {})


def _check(tokenizer: Any, dialogue: Dialogue, switches: Mapping[str, Any]) -> Dialogue:
    text = render_dialogue(tokenizer, dialogue, switches)
    # Some templates change the text of tools and earlier answers on purpose; a user's words are not theirs to change.
    lost = lost_message(dialogue.messages(), lambda messages: _both_ways(tokenizer, messages, dialogue, switches))
    if lost is not None:
        raise DataError(
            f"the chat template leaves out or changes message {lost + 1}, of role {dialogue.turns[lost][0]}; put its "
            "text into another message, or give another template"
        )
    if dialogue.tools and text == render_dialogue(tokenizer, replace(dialogue, tools=()), switches):
        raise DataError("the chat template leaves out the tools; give a template that shows them, or leave the row out")
    for number, (role, _) in enumerate(dialogue.turns):
        if role == "tool" and text == _altered(tokenizer, dialogue, number, switches):
            raise DataError(
                f"the chat template leaves out message {number + 1}, what a tool gave; give a template that shows it, "
                "or put its text into another message"
            )
    for number, fields in dialogue.more.items():
        calls = fields.get("tool_calls", [])
        for count, call in enumerate(calls):
            other = {**call, "function": {"name": f"{call['function']['name']}_", "arguments": {_ELSE: _ELSE}}}
            changed = [*calls[:count], other, *calls[count + 1 :]]
            if text == _with_field(tokenizer, dialogue, number, {"tool_calls": changed}, switches):
                what = "the tool calls" if len(calls) == 1 else f"tool call {count + 1}"
                raise DataError(
                    f"the chat template leaves out {what} of message {number + 1}; give a template that shows "
                    "them, or leave the row out"
                )
    last = len(dialogue.turns) - 1
    beside = dialogue.turns[-1][1].strip() and dialogue.more.get(last, {}).get("tool_calls")
    if beside and text == _altered(tokenizer, dialogue, last, switches):
        raise DataError(
            "the chat template leaves out the answer's text beside its tool calls; give a template that shows it, or "
            "take the text out"
        )
    return _with_thought(tokenizer, dialogue, text, switches)


def _with_thought(tokenizer: Any, dialogue: Dialogue, text: str, switches: Mapping[str, Any]) -> Dialogue:
    """The dialogue with its thoughts under the name that the template reads. Raises DataError if it reads none."""
    last = len(dialogue.turns) - 1
    own = next((name for name in THOUGHTS if name in dialogue.more.get(last, {})), None)
    if own is None:
        return dialogue
    for name in (own, *(other for other in THOUGHTS if other != own)):
        more = {i: {name if key == own else key: v for key, v in f.items()} for i, f in dialogue.more.items()}
        renamed = replace(dialogue, more=more)
        shown = render_dialogue(tokenizer, renamed, switches)
        if more[last][name].strip() in shown and shown != _without(tokenizer, renamed, last, name, switches):
            return renamed
    raise DataError(
        f"the chat template leaves out the thought of the answer ({own}); give a template that shows it, or write it "
        "into the content as the model is to write it, as in <think>...</think>"
    )


def _left_out(tokenizer: Any, dialogue: Dialogue, switches: Mapping[str, Any]) -> set[str]:
    """What is not learnt, and does not reach the model either: texts of earlier answers beside calls, and names."""
    if not dialogue.more:
        return set()
    text, found = render_dialogue(tokenizer, dialogue, switches), set()
    for number, fields in dialogue.more.items():
        role, content = dialogue.turns[number]
        if fields.get("tool_calls") and content.strip() and text == _altered(tokenizer, dialogue, number, switches):
            found.add("texts of earlier answers beside tool calls")
        named = fields.get("name") and role != "tool"
        if named and text == _with_field(tokenizer, dialogue, number, {"name": f"{named}{_ELSE}"}, switches):
            found.add("names of messages")
    return found


def _altered(tokenizer: Any, dialogue: Dialogue, number: int, switches: Mapping[str, Any]) -> str:
    """The text of a dialogue with other words in one message; empty where the template does not take them."""
    turns = list(dialogue.turns)
    turns[number] = (turns[number][0], f"{turns[number][1]} {_ELSE}")
    try:
        return render_dialogue(tokenizer, replace(dialogue, turns=tuple(turns)), switches)
    except DataError:
        return ""


def _with_field(
    tokenizer: Any, dialogue: Dialogue, number: int, fields: Mapping[str, Any], switches: Mapping[str, Any]
) -> str:
    """The text of a dialogue with other fields of one message; empty where the template does not take them."""
    more = {**dialogue.more, number: {**dialogue.more[number], **fields}}
    try:
        return render_dialogue(tokenizer, replace(dialogue, more=more), switches)
    except DataError:
        return ""


def _both_ways(
    tokenizer: Any, messages: Sequence[dict[str, Any]], dialogue: Dialogue, switches: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """A whole dialogue, and the prompt for its answer; None where the template does not take these messages."""
    try:
        prompt = _render(tokenizer, messages[:-1], dialogue, switches, prompt=True)
        return _render(tokenizer, messages, dialogue, switches), prompt
    except DataError:
        return None


def _without(tokenizer: Any, dialogue: Dialogue, number: int, name: str, switches: Mapping[str, Any]) -> str:
    """The text of a dialogue without one field of one message; empty where the template does not go without it."""
    fields = {key: value for key, value in dialogue.more[number].items() if key != name}
    try:
        return render_dialogue(tokenizer, replace(dialogue, more={**dialogue.more, number: fields}), switches)
    except DataError:
        return ""


def _render(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    dialogue: Dialogue,
    switches: Mapping[str, Any],
    prompt: bool = False,
) -> str:
    tools = {"tools": [dict(tool) for tool in dialogue.tools]} if dialogue.tools else {}
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=prompt, **tools, **switches
        )
    except Exception as error:  # Jinja's own errors, and whatever a template raises
        roles = ", ".join(role for role, _ in dialogue.turns[:6])
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(
            f"the chat template cannot render this dialogue of {roles}: {reason}; change the row, or give another "
            "template"
        ) from error
