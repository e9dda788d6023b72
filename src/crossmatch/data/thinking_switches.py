"""What turns thinking on and off in a chat template: a variable, or words in a message, as models have it.

A switch counts only if the template acts on it: the token ids of a probe dialogue differ between on and off. A
variable's name in a template's text says nothing (Nemotron Nano v2 sets an `enable_thinking` of its own), and words
that a template merely copies into the prompt are no switch of the template; a suite's `system` can hold them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from crossmatch.data.probe_dialogues import Probe, probes
from crossmatch.errors import DataError


@dataclass(frozen=True)
class Switch:
    """One position of a switch. variables: given to the template; words: put at the end of the last user message, or
    of the system message (`role`)."""

    name: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    role: str = "user"

    def apply(self, messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """A dialogue with the words in it."""
        turns = [dict(turn) for turn in messages]
        if not self.words:
            return turns
        places = [place for place, turn in enumerate(turns) if turn["role"] == self.role]
        if not places:
            return [{"role": self.role, "content": self.words}, *turns] if self.role == "system" else turns
        turns[places[-1]]["content"] += f" {self.words}"
        return turns


OFF = Switch()
# (on, off), in the order in which they are tried.
SWITCHES = (
    # Qwen 3, GLM 4.5 and later, SmolLM 3, Gemma 4, Nemotron 3
    (Switch("enable_thinking", {"enable_thinking": True}), Switch("enable_thinking", {"enable_thinking": False})),
    # DeepSeek V3.1, Granite 3, Kimi K2
    (Switch("thinking", {"thinking": True}), Switch("thinking", {"thinking": False})),
    # Seed-OSS
    (Switch("thinking_budget"), Switch("thinking_budget", {"thinking_budget": 0})),
    # Hunyuan 3
    (
        Switch("reasoning_effort", {"reasoning_effort": "high"}),
        Switch("reasoning_effort", {"reasoning_effort": "no_think"}),
    ),
    # Nemotron Nano v2, Qwen 3; SmolLM 3 in the system message
    (Switch("/no_think", words="/think"), Switch("/no_think", words="/no_think")),
    (Switch("/no_think", words="/think", role="system"), Switch("/no_think", words="/no_think", role="system")),
    # Llama-Nemotron
    (
        Switch("detailed thinking", words="detailed thinking on", role="system"),
        Switch("detailed thinking", words="detailed thinking off", role="system"),
    ),
)


@lru_cache(maxsize=64)
def find_switch(tokenizer: Any, source: str, thinking: bool | None, system: bool = False) -> Switch:
    """The switch of a template (its Jinja text) in the position asked for; one that does nothing for None.

    system: whether the dialogues have a system message.

    Raises DataError if the template has none that changes the token ids.
    """
    if thinking is None:
        return OFF
    for on, off in SWITCHES:
        named = [value for value in off.variables.values() if isinstance(value, str)]
        if all(value in source for value in named) and _acts(tokenizer, source, system, (on, off)):
            return on if thinking else off
    tried, where = ", ".join(dict.fromkeys(on.name for on, _ in SWITCHES)), " with a system message" if system else ""
    raise DataError(
        f"this chat template has no switch for thinking that changes a prompt{where} (tried: {tried}); leave it out, "
        "or give a Jinja file that writes what is wanted"
    )


def _acts(tokenizer: Any, source: str, system: bool, positions: tuple[Switch, Switch]) -> bool:
    """Whether the two positions give other token ids, beyond the words themselves. Asked of a dialogue with a system
    message or without, as said: some templates (Granite 3) switch only what the latter shows."""
    words = [position.words for position in reversed(positions) if position.words]
    for probe in probes(system):
        texts = [_rendered(tokenizer, source, probe, position) for position in positions]
        if None in texts:
            continue
        for word in words:
            texts = [text.replace(word, "") for text in texts if text is not None]
        on, off = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return on != off
    return False


def _rendered(tokenizer: Any, source: str, probe: Probe, switch: Switch) -> str | None:
    """None where the template does not take such a dialogue, or such a value of the switch."""
    try:
        return tokenizer.apply_chat_template(
            switch.apply(probe.messages),
            chat_template=source,
            tokenize=False,
            add_generation_prompt=True,
            **probe.given,
            **switch.variables,
        )
    except Exception:  # Jinja's own errors, and whatever a template raises
        return None
