"""Texts and dialogues as token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.data.chat_templates import render
from crossmatch.data.responses import Reading
from crossmatch.data.token_ids import encode
from crossmatch.errors import DataError


@dataclass(frozen=True)
class Passage:
    """Token ids of one sequence; the first `prompt` of them are a dialogue's prompt, none in a plain text."""

    ids: tuple[int, ...]
    prompt: int = 0

    def positions(self, which: str) -> range:
        """all: every token; prompt-end: the last of the generation prompt; response: those after it.

        Raises DataError where a plain text is asked for its prompt or response.
        """
        if which == "all":
            return range(len(self.ids))
        if not self.prompt:
            raise DataError(f"a plain text has no prompt and no response; positions {which!r} need dialogues")
        return range(self.prompt - 1, self.prompt) if which == "prompt-end" else range(self.prompt, len(self.ids))


def read_text(tokenizer: Any, text: str, max_length: int, *, ended: bool = True) -> list[Passage]:
    """A document in blocks of `max_length` tokens; ended: as the PT stage learns it, with the end-of-sequence token."""
    end = (tokenizer.eos_token or "") if ended else ""
    (ids,) = encode(tokenizer, [text if text.endswith(end) else text + end])
    return [Passage(tuple(ids[start : start + max_length])) for start in range(0, len(ids), max_length)]


def read_dialogue(
    tokenizer: Any,
    messages: Sequence[dict[str, str]],
    thinking: bool | None,
    max_length: int,
    ending: tuple[int, ...] = (),
) -> Passage:
    """A dialogue with its template, read as SFT reads it (`Reading`); the prompt is everything before the last answer.

    ending: ids that training puts after a response which does not end with them. Raises DataError if it is too long, or
    if the template cannot render it, leaves out a message, or hides where the answer begins.
    """
    render(tokenizer, messages[:-1], thinking)
    found = Reading(tokenizer, thinking, ending=ending).read(messages)
    if len(found.ids) > max_length:
        raise DataError(
            f"{len(found.ids)} tokens with the template, more than {max_length}: raise max_length, as far as the "
            "model's context goes, or leave the dialogue out"
        )
    return Passage(found.ids, found.first)
