"""Chat templates: two are the same if the probe dialogues reach the model as the same token ids."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crossmatch.verification.files.sandbox import Rendered, render
from crossmatch.verification.files.side_files import Side

# Words that no template contains, so that what a template puts after them can be found.
_ASKED, _ANSWERED = "What is anaemia in zebrafish?", "Too few red cells, say haematologists."
_REASON = "Red cells carry oxygen."
_USER = {"role": "user", "content": _ASKED}
_ASSISTANT = {"role": "assistant", "content": _ANSWERED}
_SYSTEM = {"role": "system", "content": "Answer in one sentence. 请用中文回答。"}
_THOUGHT = {"role": "assistant", "content": f"<think>\n{_REASON}\n</think>\n\n{_ANSWERED}"}
_REASONED = {**_ASSISTANT, "reasoning_content": _REASON, "thinking": _REASON}
_TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Find a term",
        "parameters": {"type": "object", "properties": {"term": {"type": "string"}}, "required": ["term"]},
    },
}
_TALKS: Mapping[str, tuple[dict[str, str], ...]] = {
    "a question": (_USER,),
    "a question under a system prompt": (_SYSTEM, _USER),
    "several turns": (_SYSTEM, _USER, _ASSISTANT, _USER, _ASSISTANT, _USER),
    "many turns": (_SYSTEM, *(_USER, _ASSISTANT) * 12, _USER),
    "a reasoning block in the history": (_USER, _THOUGHT, _USER),
    "reasoning_content in the history": (_USER, _REASONED, _USER),
    "empty contents": ({**_USER, "content": ""}, {**_ASSISTANT, "content": ""}, _USER),
    "a question with tools": (_USER,),
    "an answer": (_USER, _ASSISTANT, _USER, _ASSISTANT),
    "an answer with reasoning": (_USER, _REASONED),
}
# Words that templates hold, and of those that one alone holds, how many are said to both.
_WORDS = re.compile(r"""'((?:[^'\\]|\\.){1,200})'|"((?:[^"\\]|\\.){1,200})\"""")
_MOST_WORDS = 64
_SWITCH: tuple[bool | None, ...] = (None, True, False)
_NAMES = r"(?:seed:)?(?:think(?:ing)?|thought|reason(?:ing)?)"
_OPEN = re.compile(rf"<\|?\s*{_NAMES}\s*\|?>|\[THINK\]|◁think▷|<\|begin_of_thought\|>", re.IGNORECASE)
_CLOSE = re.compile(rf"<\|?\s*/\s*{_NAMES}\s*\|?>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>", re.IGNORECASE)

_BLOCK = re.compile(f"{_OPEN.pattern}|{_CLOSE.pattern}", re.IGNORECASE)


@dataclass(frozen=True)
class Probe:
    """One dialogue: its kind, whether the assistant is to begin, the thinking switch (None: not passed), and what the
    user says, where that is no question of ours."""

    talk: str
    begin: bool
    thinking: bool | None
    said: str | None = None

    @property
    def asked(self) -> str:
        """What the user says last."""
        return _ASKED if self.said is None else self.said

    @property
    def variables(self) -> dict[str, Any]:
        """What a template is given."""
        switch = {} if self.thinking is None else {"enable_thinking": self.thinking}
        tools = [_TOOL] if self.talk == "a question with tools" else None
        talk = _TALKS[self.talk] if self.said is None else [{**_USER, "content": self.said}]
        return {"messages": talk, "tools": tools, "add_generation_prompt": self.begin, **switch}

    def __str__(self) -> str:
        begin = ", the assistant to begin" if self.begin else ""
        return self.talk + begin + ("" if self.thinking is None else f", enable_thinking={self.thinking}")


# The assistant begins after a question alone.
PROBES = tuple(
    Probe(talk, begin, switch)
    for talk, messages in _TALKS.items()
    for begin in ((False, True) if messages[-1] is _USER else (False,))
    for switch in _SWITCH
)
_ANSWER = PROBES.index(Probe("an answer", False, None))


def probes_of(first: str, second: str | None) -> tuple[Probe, ...]:
    """The probes of two templates; where these differ, users who say the words that either holds."""
    if second is None or first.strip() == second.strip():
        return PROBES
    ours, theirs = (
        {word for found in _WORDS.findall(text) if not _BLOCK.search(word := "".join(found))}
        for text in sorted((first, second))
    )
    said = [*sorted(ours ^ theirs)[:_MOST_WORDS], " ".join(sorted(ours | theirs))]
    return (*PROBES, *(Probe(f"a user who says {word[:20]!r}", True, None, word) for word in said))


@dataclass
class Templates:
    """Templates under the probes; each is rendered once with the same special tokens."""

    done: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Rendered, ...]] = field(default_factory=dict)

    def of(self, side: Side, other: Side, name: str = "default") -> tuple[Rendered, ...] | None:
        """A side's template under the probes, or None without one; see `Side.variables` for `other`."""
        text = side.templates.get(name)
        if text is None:
            return None
        variables = side.variables(other)
        probes = probes_of(text, other.templates.get(name))
        key = (text, (*sorted(variables.items()), *((probe.talk, probe.said or "") for probe in probes)))
        if key not in self.done:
            self.done[key] = render(text, variables, [probe.variables for probe in probes])
        return self.done[key]

    def texts(self) -> list[str]:
        """All texts that were rendered, and what follows the answers in them."""
        texts = [r.text for rendered in self.done.values() for r in rendered if r.text is not None]
        return list(dict.fromkeys([*texts, *(end for rendered in self.done.values() for end in endings(rendered))]))


@dataclass(frozen=True)
class TemplateChange:
    """Where two templates differ: whether one is gone, in which dialogues, and how their reasoning blocks begin;
    rewritten: the number of dialogues that were tried, where their texts differ."""

    lost: bool = False
    turns: tuple[str, ...] = ()
    think: tuple[str, ...] = ()
    rewritten: int = 0

    @property
    def size(self) -> int:
        """Zero for none."""
        return 1000 * self.lost + len(self.turns) + len(self.think)


def compare_templates(
    merged: Side, source: Side, templates: Templates, same: Callable[[str, str], bool]
) -> TemplateChange:
    """How the merged templates differ from a source's; `same`: whether two texts have the same token ids."""
    turns: list[str] = []
    think: list[str] = []
    rewritten = 0
    for name in source.templates:
        ours, theirs = templates.of(merged, source, name), templates.of(source, merged, name)
        if ours is None or theirs is None:
            if name == "default":
                return TemplateChange(lost=True)
            turns.append(f"the template {name[:40]!r} is gone")
            continue
        if ours is theirs:
            continue
        label = "" if name == "default" else f" of the template {name[:40]!r}"
        probes = probes_of(merged.templates[name], source.templates[name])
        if merged.templates[name].strip() != source.templates[name].strip():
            rewritten += len(probes)
        index = {probe: i for i, probe in enumerate(probes)}
        for probe, mine, other in zip(probes, ours, theirs, strict=True):
            unset = index[replace(probe, thinking=None)]
            if probe.thinking is not None and (mine, other) == (ours[unset], theirs[unset]):
                continue
            states = (thinking(probe, mine.text), thinking(probe, other.text))
            if None not in states and states[0] != states[1]:
                think.append(f"{probe}{label}: {states[0]} here, {states[1]} in {source.name}")
                mine, other = (Rendered(_bare(probe, r.text or "")) for r in (mine, other))
            if not _alike(mine, other, same):
                turns.append(f"{probe}{label}" + (f" ({mine.error})" if mine.error else ""))
    return TemplateChange(turns=tuple(turns), think=tuple(think), rewritten=rewritten)


def thinking(probe: Probe, text: str | None) -> str | None:
    """How the assistant's turn begins: with `no reasoning block`, an `open` or a `closed` one; None: not to be said."""
    if text is None or not probe.begin or probe.asked not in text:
        return None
    tail = text.rpartition(probe.asked)[2]
    opened, closed = _last(_OPEN, tail), _last(_CLOSE, tail)
    if opened < 0 and closed < 0:
        return "no reasoning block"
    return "an open reasoning block" if opened > closed else "a closed reasoning block"


def endings(rendered: Iterable[Rendered]) -> tuple[str, ...]:
    """What the template puts after the assistant's answers: up to the next question, and at the end."""
    text = tuple(rendered)[_ANSWER].text
    if text is None or _ANSWERED not in text:
        return ()
    parts = text.split(_ANSWERED)[1:]
    return tuple(part.partition(_ASKED)[0] for part in parts)


def _alike(mine: Rendered, other: Rendered, same: Callable[[str, str], bool]) -> bool:
    if mine.text is None or other.text is None:
        # One error is as good as another, but not as good as a text.
        return mine.text is None and other.text is None and mine.error == other.error
    return mine.text == other.text or same(mine.text, other.text)


def _bare(probe: Probe, text: str) -> str:
    """The text without the reasoning block in which it ends."""
    head, asked, tail = text.rpartition(probe.asked)
    found = [match.start() for pattern in (_OPEN, _CLOSE) if (match := pattern.search(tail))]
    return head + asked + tail[: min(found, default=len(tail))].rstrip()


def _last(pattern: re.Pattern[str], text: str) -> int:
    return max((match.start() for match in pattern.finditer(text)), default=-1)
