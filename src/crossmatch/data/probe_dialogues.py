"""Dialogues on which it is seen what a chat template does, whatever it demands of one.

Some templates render no dialogue without a system message, a name of the user, tools, a greeting, or a thought before
an answer. A probe has several forms; the first one that a template renders is taken.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from crossmatch.data.messages import THOUGHTS

QUESTION = "What is anaemia?"


@dataclass(frozen=True)
class Probe:
    """What a template is given: messages, of which the last one asks the question, and tools."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def has_system(self) -> bool:
        """Whether it begins with a system message."""
        return self.messages[0]["role"] == "system"

    @property
    def given(self) -> dict[str, Any]:
        """What a template is given beside the messages."""
        return {"tools": [dict(tool) for tool in self.tools]} if self.tools else {}

    def answered(self, answer: str) -> Iterator["Probe"]:
        """With an answer behind it: without a thought before that, then with one under each of its names."""
        for thought in ({}, *({name: "They ask about blood."} for name in THOUGHTS)):
            yield replace(self, messages=(*self.messages, {"role": "assistant", "content": answer, **thought}))


def probes(system: bool = False) -> list[Probe]:
    """All forms in the order in which they are tried; system: those with a system message first."""
    return sorted(_FORMS, key=lambda form: form.has_system is not system) if system else list(_FORMS)


_USER = {"role": "user", "content": QUESTION}
_NAMED = {**_USER, "name": "Kim"}
_SYSTEM = {"role": "system", "content": "Answer in one sentence."}
_GREETING = {"role": "assistant", "content": "Good morning."}
_TOPIC = {"type": "object", "properties": {"topic": {"type": "string", "description": "Topic."}}, "required": ["topic"]}
_TOOLS = ({"type": "function", "function": {"name": "look_up", "description": "Looks it up.", "parameters": _TOPIC}},)
_FORMS = (
    *(Probe(messages) for messages in ((_USER,), (_SYSTEM, _USER), (_NAMED,), (_SYSTEM, _NAMED))),
    *(Probe(messages) for messages in ((_GREETING, _USER), (_SYSTEM, _GREETING, _USER))),
    *(Probe(messages, _TOOLS) for messages in ((_USER,), (_SYSTEM, _USER))),
)
