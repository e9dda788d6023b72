"""Messages of a dialogue in anybody's form, checked, and under the names that chat templates know."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossmatch.data.json_list import object_of
from crossmatch.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
_ROLES = {
    **{role: role for role in ROLES},
    **dict.fromkeys(("developer",), "system"),
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "ai", "bot"), "assistant"),
    **dict.fromkeys(("function", "observation", "ipython"), "tool"),
    **dict.fromkeys(("tool_response", "tool_result", "tool_output", "function_response", "function_result"), "tool"),
    # Of ShareGPT and others: a message that is a tool call.
    **dict.fromkeys(("function_call", "tool_call", "tool_calls"), "call"),
}
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""Names that data and templates have for the thought before an answer."""
# Names that data have for the arguments of a call: OpenAI's, Llama's, Anthropic's.
_ARGUMENTS = ("arguments", "parameters", "input", "args")
_OF_CALL = ("id", "type", "index", "function", "name", *_ARGUMENTS)
_REFUSED_IN_MESSAGE = {
    "function_call": "write it as tool_calls",
    **dict.fromkeys(
        ("train", "training", "trainable", "mask", "masked", "loss", "loss_weight"),
        "say what is learnt by weight: 0 or 1",
    ),
    **dict.fromkeys(("image", "images", "audio", "refusal"), "models are trained on text alone"),
}


@dataclass(frozen=True)
class Document:
    """One text, for the PT stage. place: file and line, for messages; unused: fields of its row that were not used."""

    text: str
    place: str = field(default="", compare=False)
    unused: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Dialogue:
    """A conversation as (role, content) pairs whose last turn, the assistant's, is learnt in the SFT stage.

    more: number of a turn -> further fields of its message, as templates take them (`reasoning_content`, `tool_calls`,
    `tool_call_id`, `name`); tools: what the model may call, as JSON schemas; place, unused: as of a Document; unlearnt:
    earlier answers that have weight 0.
    """

    turns: tuple[tuple[str, str], ...]
    more: Mapping[int, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    place: str = field(default="", compare=False)
    unused: tuple[str, ...] = field(default=(), compare=False)
    unlearnt: int = field(default=0, compare=False)

    def messages(self) -> list[dict[str, Any]]:
        """As a chat template takes them."""
        return [
            {"role": role, "content": content, **self.more.get(number, {})}
            for number, (role, content) in enumerate(self.turns)
        ]

    def thought(self, number: int) -> str:
        """The thought before the answer of a turn; empty where there is none."""
        return next(
            (fields[name] for fields in (self.more.get(number, {}),) for name in THOUGHTS if name in fields), ""
        )

    @property
    def characters(self) -> int:
        """Of all contents and thoughts."""
        return sum(len(content) + len(self.thought(i)) for i, (_, content) in enumerate(self.turns))

    @property
    def plain(self) -> bool:
        """Whether roles and contents are all there is."""
        return not self.more and not self.tools


Example = Document | Dialogue


def refuse_fields(given: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    """Raise DataError for a field that holds something and would be lost."""
    for name, advice in refused.items():
        if name in given:
            raise DataError(f"field {name!r} would be lost: {advice}")


def json_text(value: Any) -> Any:
    """A list or an object; in CSV and in some sets it is a JSON text. What is no JSON, or would lose one of two
    values of one name, stays a text.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value, object_pairs_hook=object_of)
        except (ValueError, RecursionError):
            return value
    return value


class Turns:
    """Messages, checked and under the names that templates know."""

    def __init__(self, messages: Sequence[Any]) -> None:
        self.turns: list[tuple[str, str]] = []
        self.more: dict[int, dict[str, Any]] = {}
        self.weights: dict[int, bool] = {}
        self.unused: dict[str, None] = {}
        for message in messages:
            self._add(message)
        last = next((n for n, (role, _) in enumerate(reversed(self.turns)) if role == "assistant"), None)
        if last is None or len(self.turns) - last < 2:
            raise DataError("there is no answer: the last message must be the assistant's, behind at least one other")
        if last:
            raise DataError(
                f"the last message must be the assistant's, not one of role {self.turns[-1][0]}; leave out the "
                f"{'message' if last == 1 else f'{last} messages'} behind the last answer, which nothing learns from"
            )
        if sum(role == "system" for role, _ in self.turns) > 1:
            raise DataError("there are two system messages; make one of them")

    def learnt(self, among: range | None = None) -> list[int]:
        """Numbers of the answers to be learnt; among: of a completion of several messages. Raises DataError."""
        if among is None and not self.weights:
            return [len(self.turns) - 1]
        # What has a weight of its own is learnt wherever it stands.
        numbers = sorted({*among, *self.weights}) if among else range(len(self.turns))
        found = [i for i in numbers if self.turns[i][0] == "assistant" and self.weights.get(i, True)]
        if not found:
            raise DataError("no answer is learnt: all have weight 0; leave the row out")
        return found

    def dialogues(
        self, learnt: Sequence[int], tools: tuple[Mapping[str, Any], ...], place: str, unused: tuple[str, ...]
    ) -> list[Dialogue]:
        """A dialogue for each answer, which ends with it."""
        rest = (*unused, *(f"{name} of a message" for name in self.unused))
        return [
            Dialogue(
                tuple(self.turns[: last + 1]),
                {i: dict(fields) for i, fields in self.more.items() if i <= last},
                tools,
                place,
                rest,
                sum(not weight for i, weight in self.weights.items() if i < last),
            )
            for last in learnt
        ]

    def _add(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise DataError(f"every message must be an object, not {type(message).__name__}")
        given = {name: value for name, value in message.items() if value not in (None, "", [], {})}
        refuse_fields(given, _REFUSED_IN_MESSAGE)
        name = given.pop("role", None) or given.pop("from", None)
        role = _ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise DataError(f"every message needs a role among {', '.join(ROLES)}, not {name!r}")
        content, more = _content(given.pop("content", None) or given.pop("value", None))
        if "weight" in given:
            self._weigh(given.pop("weight"), role)
        thought = next((name for name in THOUGHTS if name in given), None)
        if thought is not None:
            if more:
                raise DataError(
                    f"the message has its thought twice, as a part of its content and as {thought}; keep one"
                )
            more[thought] = given.pop(thought)
        if role == "call":
            role, content, more["tool_calls"] = "assistant", "", _calls(content)
        elif "tool_calls" in given:
            more["tool_calls"] = _calls(given.pop("tool_calls"))
        more |= {name: given.pop(name) for name in ("tool_call_id", "name") if name in given}
        self._check(role, content, more)
        if more:
            self.more[len(self.turns)] = more
        self.turns.append((role, content))
        self.unused |= dict.fromkeys(given)

    def _weigh(self, weight: Any, role: str) -> None:
        if weight not in (0, 1):
            raise DataError(f"the weight of a message must be 0 or 1, not {weight!r}; others are not supported")
        if role not in ("assistant", "call"):
            if weight:
                raise DataError(f"a message of role {role} has weight 1; only the assistant's messages are learnt")
            return
        self.weights[len(self.turns)] = bool(weight)

    def _check(self, role: str, content: str, more: Mapping[str, Any]) -> None:
        thought = next((more[name] for name in THOUGHTS if name in more), None)
        if thought is not None and (role != "assistant" or not isinstance(thought, str)):
            raise DataError("the thought of a message must be a text, of the assistant's message")
        if "tool_calls" in more and role != "assistant":
            raise DataError(f"a message of role {role} has tool_calls, which only the assistant's can have")
        if not content.strip() and "tool_calls" not in more:
            raise DataError(f"field 'content' must be a text that is not empty, in message {len(self.turns) + 1}")
        if role == "system" and any(known != "system" for known, _ in self.turns):
            raise DataError(f"message {len(self.turns) + 1}: a system message must come first")


def _content(content: Any) -> tuple[str, dict[str, Any]]:
    """The text of a message, and its thought where that is one of the parts. Raises DataError for parts of no text."""
    if content is None or isinstance(content, str):
        return content or "", {}
    if not isinstance(content, list):
        raise DataError(f"field 'content' must be a text that is not empty, not {type(content).__name__}")
    texts, thoughts = [], []
    for part in content:
        kind = "text" if isinstance(part, str) else part.get("type") if isinstance(part, dict) else None
        inner = part if isinstance(part, str) else part.get(kind) if isinstance(part, dict) else None
        if kind == "thinking" and isinstance(inner, list):
            inner = _content(inner)[0]
        if kind not in ("text", "thinking") or not isinstance(inner, str):
            raise DataError(f"content has a part of type {kind!r}, which is no text; models are trained on text alone")
        (texts if kind == "text" else thoughts).append(inner)
    return "".join(texts), {"reasoning_content": "".join(thoughts)} if thoughts else {}


def _calls(value: Any) -> list[dict[str, Any]]:
    """Tool calls as templates take them: arguments as an object. Raises DataError."""
    calls = json_text(value)
    calls = [calls] if isinstance(calls, dict) else calls
    found = []
    for call in calls if isinstance(calls, list) else [None]:
        call = call if isinstance(call, dict) else {}
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError("a tool call must be an object with the name and the arguments of a function")
        given = [name for name, value in {**call, **function}.items() if value not in (None, "", [], {})]
        held = [name for name in _ARGUMENTS if function.get(name) not in (None, "")]
        if len(held) > 1 or not set(given) <= set(_OF_CALL):
            names = ", ".join(name for name in given if name not in _OF_CALL) or " and ".join(held)
            raise DataError(f"a tool call has {names}; it is read by its name and one of {', '.join(_ARGUMENTS)}")
        arguments = json_text(function[held[0]]) if held else {}
        if not isinstance(arguments, dict):
            raise DataError(f"the arguments of the call of {function['name']} must be an object, or one as JSON text")
        found.append({**({"id": call["id"]} if "id" in call else {}), "type": "function"})
        found[-1]["function"] = {"name": function["name"], "arguments": arguments}
    return found
