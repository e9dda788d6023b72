"""How a question reaches the model: chat templates as data. Every metric of a condition is taken under one of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from crossmatch.checkpoint import value_digest
from crossmatch.data.chat_templates import DAY, OWN, is_dated, own_template, probe_of, render
from crossmatch.errors import DataError

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EMPTY_BLOCK = "<think>\n\n</think>\n\n"
_OPEN_BLOCK = "<think>\n"
_STRICT = "Give the final answer only: no reasoning, no steps, no explanation, no tags."


@dataclass(frozen=True)
class Template:
    """One way to render a dialogue.

    source: Jinja text (None: the tokenizer's own, of several named ones that called `named`, else `default`); thinking:
    its switch; prefill: text with which the answer is made to begin; instruction: added to the system message.
    """

    name: str
    source: str | None = None
    thinking: bool | None = None
    prefill: str = ""
    instruction: str = ""
    named: str | None = None

    @property
    def digest(self) -> str:
        """Digest of all that can change a prompt."""
        return value_digest([self.source, self.thinking, self.prefill, self.instruction, self.named])

    def prompt(
        self, tokenizer: Any, messages: Sequence[dict[str, Any]], given: Mapping[str, Any] = MappingProxyType({})
    ) -> str:
        """A dialogue up to where the model goes on; given: what the template is given beside the messages. Raises
        DataError if it cannot be rendered."""
        turns = list(messages)
        if self.instruction:
            head = turns.pop(0)["content"] + "\n\n" if turns and turns[0]["role"] == "system" else ""
            turns.insert(0, {"role": "system", "content": head + self.instruction})
        try:
            return render(tokenizer, turns, self.thinking, self.text(tokenizer), given) + self.prefill
        except DataError as error:
            raise DataError(f"template {self.name}: {error}") from error

    def text(self, tokenizer: Any) -> str:
        """Its Jinja text. Raises DataError if it is the tokenizer's own, and there is none."""
        return self.source if self.source is not None else own_template(tokenizer, self.named)

    def day(self, tokenizer: Any) -> str | None:
        """The day that it is given as today; None if it writes none."""
        return DAY.date().isoformat() if is_dated(self.text(tokenizer)) else None

    def probe(self, tokenizer: Any) -> str:
        """The probe question as it reaches the model; training leaves the same of its own template. Raises DataError
        if it cannot be rendered in any form."""
        form, _ = probe_of(tokenizer, self.thinking, self.text(tokenizer))
        return self.prompt(tokenizer, form.messages, form.given)


TEMPLATES = {
    "own": Template("own"),
    "think": Template("think", thinking=True),
    "nothink": Template("nothink", thinking=False),
    "chatml": Template("chatml", _CHATML),
    "chatml-empty": Template("chatml-empty", _CHATML, prefill=EMPTY_BLOCK),
    "chatml-open": Template("chatml-open", _CHATML, prefill=_OPEN_BLOCK),
    "strict": Template("strict", instruction=_STRICT),
}


def find_template(name: str) -> Template:
    """A template by its name (`own:NAME`: one of the tokenizer's several), or from a Jinja file, which is called as the
    file is. Raises DataError."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    if name.startswith(OWN):
        named = name.removeprefix(OWN)
        if not re.fullmatch(r"\w[\w-]*", named):
            raise DataError(f"template {name}: give a template's name, as in own:tool_use")
        return Template(f"own-{named}", named=named)
    path = Path(name)
    if not path.is_file():
        raise DataError(f"template {name} is no file, and none of {', '.join(TEMPLATES)}, own:NAME")
    try:
        return Template(path.stem, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"template {name} cannot be read: {error}") from error
