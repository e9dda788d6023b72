"""Where an assistant's turn ends: found by rendering a dialogue with the chat template, not read from one field.

A tokenizer's end of sequence is often not what its template ends a turn with: Qwen's base models have the end of
sequence `<|endoftext|>` and turns that end with `<|im_end|>`. Generation that stops at the former alone runs on behind
every answer of a model that has learnt the latter.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import read_json
from crossmatch.data.probe_dialogues import Probe, probes
from crossmatch.results.summary import StopsJson

# Stands in for an answer and for the question after it. No template treats such text in a way of its own, and no real
# answer begins with it.
_ANSWER, _NEXT = "\u2042crossmatch answer\u2042", "\u2042crossmatch question\u2042"
# Characters of markup: a text without one ("End.") may well be part of an answer, and is no place to stop.
_MARKUP = frozenset("<>[]{}|#_")
_SHORTEST = 3


@dataclass(frozen=True)
class Stops:
    """Where generation stops: at any of these tokens (id, text), or before any of these texts."""

    tokens: tuple[tuple[int, str], ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def ids(self) -> frozenset[int]:
        """Ids of the tokens."""
        return frozenset(number for number, _ in self.tokens)

    def to_dict(self) -> StopsJson:
        """As plain JSON."""
        return {"tokens": [{"id": number, "text": text} for number, text in self.tokens], "texts": list(self.texts)}


@dataclass(frozen=True)
class TurnEnd:
    """How a chat template ends the assistant's turn.

    closing: what it puts after the last answer of a dialogue (None: it has no template, or the answer was not found in
    what it renders); ids: the special tokens in there; texts: the whole closing where it is plain text that can be told
    from an answer; following: the first special token between an answer and the next question, where the closing has
    none: models that were trained on whole dialogues end their turns with it.
    """

    closing: str | None
    ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    following: tuple[int, ...] = ()

    @property
    def taught(self) -> bool:
        """Whether a dialogue that ends with an answer teaches where that answer ends."""
        return bool(self.ids or self.texts)

    def stops(self, tokenizer: Any, eos: Iterable[int]) -> Stops:
        """This end, and every end of sequence, as the places at which generation stops; the turn's own end first."""
        ids = dict.fromkeys([*self.ids, *self.following, *sorted(eos)])
        return Stops(tuple((number, tokenizer.decode([number])) for number in ids), self.texts)


def turn_end(tokenizer: Any, template: str | None = None, switches: Mapping[str, Any] | None = None) -> TurnEnd:
    """How a template ends the assistant's turn; template: Jinja text (None: the tokenizer's own).

    Tokens count that the tokenizer adds to its vocabulary or calls special: no text of an answer gives these.
    """
    dialogue, closing = _closed(tokenizer, template, switches)
    if closing is None:
        return TurnEnd(None)
    special = special_ids(tokenizer)
    ids = _special_in(tokenizer, closing, special)
    texts = (closing.strip(),) if not ids and _distinct(closing.strip()) else ()
    following: tuple[int, ...] = ()
    if not ids and not texts:
        longer = replace(dialogue, messages=(*dialogue.messages, {"role": "user", "content": _NEXT}))
        between = (_after(_rendered(tokenizer, longer, template, switches), _ANSWER) or "").partition(_NEXT)[0]
        following = _special_in(tokenizer, between, special)[:1]
    return TurnEnd(closing, ids, texts, following)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that a tokenizer adds to its vocabulary or calls special."""
    added = getattr(tokenizer, "get_added_vocab", dict)()
    return frozenset((*tokenizer.all_special_ids, *added.values()))


def declared_eos(directory: Path, tokenizer: Any) -> frozenset[int]:
    """Every end of sequence that a model's directory declares: of its tokenizer, config and generation config."""
    found = [getattr(tokenizer, "eos_token_id", None)]
    for name in ("config.json", "generation_config.json"):
        file = directory / name
        config = read_json(file) if file.is_file() else {}
        nested = [value for key, value in config.items() if key in ("text_config", "llm_config", "language_config")]
        for part in (config, *nested):
            value = part.get("eos_token_id") if isinstance(part, Mapping) else None
            found += value if isinstance(value, list) else [value]
    return frozenset(value for value in found if isinstance(value, int) and not isinstance(value, bool))


def _closed(tokenizer: Any, template: str | None, switches: Mapping[str, Any] | None) -> tuple[Probe, str | None]:
    """The first probe that a template renders with its answer, and what is put after that; None where it renders none,
    which is said where prompts are."""
    dialogues = [dialogue for probe in probes() for dialogue in probe.answered(_ANSWER)]
    for dialogue in dialogues:
        closing = _after(_rendered(tokenizer, dialogue, template, switches), _ANSWER)
        if closing is not None:
            return dialogue, closing
    return dialogues[0], None


def _rendered(tokenizer: Any, dialogue: Probe, template: str | None, switches: Mapping[str, Any] | None) -> str:
    """A whole dialogue as text; empty where it cannot be rendered."""
    try:
        return tokenizer.apply_chat_template(
            list(dialogue.messages),
            chat_template=template,
            tokenize=False,
            add_generation_prompt=False,
            **dialogue.given,
            **(switches or {}),
        )
    except Exception:  # Jinja's own errors, and whatever a template raises
        return ""


def _after(text: str, mark: str) -> str | None:
    place = text.rfind(mark)
    return text[place + len(mark) :] if place >= 0 else None


def _special_in(tokenizer: Any, text: str, special: frozenset[int]) -> tuple[int, ...]:
    """Those of a text's tokens, each once. Left out: an unknown piece, and blanks that a tokenizer adds (Gemma)."""
    found = tokenizer(text, add_special_tokens=False)["input_ids"] if text.strip() else []
    texts = {number: tokenizer.decode([number]).strip() for number in found if number in special}
    return tuple(number for number, own in texts.items() if own and own in text)


def _distinct(text: str) -> bool:
    return len(text) >= _SHORTEST and not _MARKUP.isdisjoint(text)
