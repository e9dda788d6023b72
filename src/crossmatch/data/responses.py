"""Dialogues as token ids for training: which of them are the response, whatever the chat template does.

A template may render a prompt otherwise once its answer follows: the generation prompt opens a think block that a
whole dialogue does not have (DeepSeek-R1), the system message moves with the last turn (Mistral), thoughts of earlier
turns are dropped. Token ids with and without the answer are compared, so that no word of the prompt is taken for the
response.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossmatch.data.chat_templates import apply_template, probe_of, switch_of
from crossmatch.data.messages import THOUGHTS, Dialogue
from crossmatch.data.thinking_switches import OFF, Switch
from crossmatch.data.token_ids import encode
from crossmatch.data.turn_ends import TurnEnd, special_ids, turn_end
from crossmatch.errors import DataError

# No real answer begins with it.
_OTHER = "\u2042another answer"
_TAGS = re.compile(r"</?think(?:ing)?>")
_BLANK = re.compile(r"\s+")
_SHOWN = 40

Messages = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Learnt:
    """A dialogue as training reads it.

    ids: token ids; first: index of the first one that is learnt; asked: ids of the prompt that a model is given when it
    is asked for this answer. Where `ids[:first]` are others, training and use differ.
    """

    ids: tuple[int, ...]
    first: int
    asked: tuple[int, ...]

    @property
    def as_asked(self) -> bool:
        """Whether what stands before the response is the prompt of an evaluation."""
        return self.ids[: self.first] == self.asked


@dataclass(frozen=True)
class Reading:
    """How dialogues are read.

    tokenizer: with its chat template; thinking: whether thoughts are turned on or off in it (None: as the template has
    it); source: another template's Jinja text (None: the tokenizer's); ending: ids put after a response that does not
    end with them.
    """

    tokenizer: Any
    thinking: bool | None = None
    source: str | None = None
    ending: tuple[int, ...] = ()

    def switch(self, messages: Messages = ()) -> Switch:
        """What turns thinking on or off in a dialogue. Raises DataError if nothing does: it may act on dialogues
        without a system message alone."""
        if self.thinking is None:
            return OFF
        system = any(message["role"] == "system" for message in messages)
        return switch_of(self.tokenizer, self.thinking, self.source, system)

    def read(self, messages: Messages, tools: Sequence[Mapping[str, Any]] = ()) -> Learnt:
        """Token ids of a dialogue and where its last message begins. Raises DataError with the reason where the
        template cannot render it, leaves out a part of the answer, or hides where the answer begins."""
        prompt, whole = self._render(messages[:-1], True, tools), self._render(messages, False, tools)
        asked = self._ids(prompt)
        if whole.startswith(prompt):
            before, response = prompt, whole[len(prompt) :]
        else:
            before, response = self._parted(messages, tools, prompt, whole)
        _check_answer(messages[-1], response)
        first = asked if before == prompt else self._ids(before)
        ids = self._ids(before + response)
        if ids[: len(first)] != first:
            # A token would hold the end of the prompt and the beginning of the response: they are read apart, as they
            # are when a model is asked.
            ids = first + tuple(self.tokenizer(response, add_special_tokens=False)["input_ids"])
        if self.ending and ids[-len(self.ending) :] != self.ending:
            ids += self.ending
        if len(ids) == len(first):
            raise DataError("the chat template puts nothing where the answer should be; give another template")
        return Learnt(ids, len(first), asked)

    def _parted(
        self, messages: Messages, tools: Sequence[Mapping[str, Any]], prompt: str, whole: str
    ) -> tuple[str, str]:
        """What stands before the response, and the response, where the whole dialogue does not begin with the prompt.

        The same dialogue with another answer, and another thought before it, tells them apart: both renderings are
        alike up to where the assistant's message begins. If that begins as it does behind the prompt, white space
        aside, the prompt itself stands before the response, since a model will be asked with that; else it is what the
        template puts there. Raises DataError where what stands there leaves out a message.
        """
        changed = {name: _OTHER for name in ("content", *THOUGHTS) if name in messages[-1]}
        other = self._render([*messages[:-1], {**messages[-1], **changed}], False, tools)
        start = _shared(whole, other)
        before, response = whole[:start], whole[start:]
        last = next((text for text in map(_text, reversed(messages[:-1])) if text), "")
        place = before.rfind(last)
        if not last or place < 0:
            raise DataError(
                "the chat template renders the prompt otherwise once the answer follows, and where the answer begins "
                "cannot be told; give another template (`template: FILE.jinja`)"
            )
        rest = whole[place + len(last) :]
        behind = _behind(rest, before[place + len(last) :], prompt[prompt.rfind(last) + len(last) :])
        if behind is not None:
            before, response = prompt, behind
        for message in messages[:-1]:
            text = _text(message)
            if message["role"] in ("system", "user") and text not in before and text in prompt + whole:
                when = "once the answer follows" if text in prompt else "where a model is asked for the answer"
                raise DataError(
                    f"the chat template leaves out the {message['role']}'s {_short(text)} {when}, and begins the "
                    "answer otherwise; give another template (`template: FILE.jinja`)"
                )
        return before, response

    def _render(self, messages: Messages, prompt: bool, tools: Sequence[Mapping[str, Any]]) -> str:
        given = {"tools": [dict(tool) for tool in tools]} if tools else {}
        switch = self.switch(messages)
        try:
            return self.tokenizer.apply_chat_template(
                switch.apply(messages),
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=prompt,
                **given,
                **switch.variables,
            )
        except Exception as error:  # Jinja's own errors, and whatever a template raises
            why = " ".join(str(error).split())
            raise DataError(f"the chat template cannot render the dialogue: {why}") from error

    def _ids(self, text: str) -> tuple[int, ...]:
        """With exactly one beginning of sequence, as an evaluation reads it."""
        return tuple(encode(self.tokenizer, [text])[0])


def read_as(tokenizer: Any, template: str | None, thinking: bool | None, wanted_end: str) -> tuple[Reading, str | None]:
    """How dialogues are read in training, and a note on where their answers end (None: nothing to say); gives the
    tokenizer the template (a file, `own:NAME`, or None: its own). wanted_end: as `ending_of` takes it."""
    apply_template(tokenizer, template)
    variables = switch_of(tokenizer, thinking).variables
    ending, note = ending_of(tokenizer, wanted_end, turn_end(tokenizer, switches=variables))
    return Reading(tokenizer, thinking, ending=ending), note


def ending_of(tokenizer: Any, wanted: str, end: TurnEnd) -> tuple[tuple[int, ...], str | None]:
    """Ids that training puts after a response, and a note for the user (None: all is as the template has it).

    wanted: `auto` (the end of sequence where the template ends an answer with nothing), `template` (never anything),
    `eos`, or the text of one token. Raises DataError for a text that is no such token, or where none is known.
    """
    none = "the chat template ends an answer with nothing that generation could stop at"
    if wanted == "template":
        told = f"note: {none}; a model does not learn from it where to end (turn_end: template)"
        return (), None if end.taught else told
    if wanted == "auto" and end.taught:
        return (), None
    if wanted in ("auto", "eos"):
        if tokenizer.eos_token_id is None:
            raise DataError(f"{none}, and the tokenizer has no end of sequence; name a token with `turn_end: TOKEN`")
        told = f"note: {none}; training adds the end of sequence {tokenizer.eos_token!r} (turn_end: eos)"
        return (int(tokenizer.eos_token_id),), None if end.taught else told
    ids = tokenizer(wanted, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] not in special_ids(tokenizer):
        raise DataError(
            f"turn_end: {wanted!r} is not a special token of the tokenizer; give one, or auto, eos, template"
        )
    return (int(ids[0]),), None


def read_responses(
    reading: Reading, dialogues: Iterable[Dialogue], room: tuple[int, int | None], place: Callable[[int], str]
) -> tuple[dict[str, list[Any]], str | None]:
    """Columns `input_ids` and `labels` (-100 but on the response) of all dialogues, and a note where training does not
    see what an evaluation asks with (None: it does everywhere).

    room: tokens that a dialogue may have, by `max_length` and by the model's positions (None: no limit); place: what
    the dialogue of a number, from 0, is called. Raises DataError, with place and reason, for the first one that cannot
    be learnt, or is longer.
    """
    columns: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    problems, lengths, other = [], [], []
    for number, dialogue in enumerate(dialogues):
        try:
            found = reading.read(dialogue.messages(), dialogue.tools)
        except DataError as error:
            problems.append((number, str(error)))
            continue
        ids = np.array(found.ids, dtype=np.int64)
        columns["input_ids"].append(ids)
        columns["labels"].append(np.where(np.arange(len(ids)) < found.first, -100, ids))
        lengths.append(len(ids))
        if not found.as_asked:
            other.append(found)
    if problems:
        number, reason = problems[0]
        raise DataError(f"{place(number)}: {reason}" + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))
    _check_lengths(lengths, room, place)
    return columns, _differing(reading.tokenizer, other, len(lengths)) if other else None


def before_response(reading: Reading) -> Learnt:
    """The probe question with an answer, as training reads it; in the form in which it is asked (`probe_of`)."""
    probe, _ = probe_of(reading.tokenizer, reading.thinking, reading.source)
    refused: DataError | None = None
    for dialogue in probe.answered("A lack of red cells."):
        try:
            return reading.read(dialogue.messages, dialogue.tools)
        except DataError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _check_lengths(lengths: Sequence[int], room: tuple[int, int | None], place: Callable[[int], str]) -> None:
    """Raise DataError for what the trainer would cut, or drop, without a word, and for what the model cannot read."""
    max_length, most = room
    longest = max(lengths, default=0)
    if most is not None and longest > most:
        limit, stated, advice = most, f"the model has {most} positions", "shorten"
    else:
        limit, stated, advice = max_length, f"max_length is {max_length}", f"raise max_length to {longest}, or shorten"
    long = [number for number, length in enumerate(lengths) if length > limit]
    if long:
        more = f", and {len(long) - 1} more are too long" if len(long) > 1 else ""
        raise DataError(
            f"{place(long[0])} has {lengths[long[0]]} tokens with its template, {stated}{more}; {advice} or leave "
            "them out"
        )


def _differing(tokenizer: Any, found: Sequence[Learnt], count: int) -> str:
    one = found[0]
    shared = _shared(one.ids[: one.first], one.asked)
    seen, asked = (tokenizer.decode(list(ids[max(0, shared - 1) :])) for ids in (one.ids[: one.first], one.asked))
    return (
        f"note: in {len(found)} of {count} dialogues the chat template puts {_short(seen)} before the answer, and "
        f"{_short(asked)} where a model is asked for one; training sees the former (evaluate tells the difference)"
    )


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many of the first elements are the same."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _behind(rest: str, opening: str, asked: str) -> str | None:
    """The response as it goes on from a prompt; None where the message begins otherwise than behind the prompt.

    rest: what follows the last question in the whole dialogue; opening: its part before the answer; asked: what follows
    the question in the prompt. White space may differ: Mistral's templates write "[/INST]" and "[/INST] answer".
    """
    mark = asked.strip()
    if not mark or mark != opening.strip():
        return None
    response, blank = rest[rest.find(mark) + len(mark) :], asked[len(asked.rstrip()) :]
    return response[len(blank) :] if response.startswith(blank) else response.lstrip()


def _check_answer(message: Mapping[str, Any], response: str) -> None:
    """Raise DataError if a part of the answer is not in the response; blanks and tags of thoughts may be others."""
    left = _BLANK.sub("", response)
    for part in _TAGS.split(_text(message)):
        bare = _BLANK.sub("", part)
        place = left.find(bare)
        if place < 0:
            raise DataError(
                f"the chat template leaves out, or alters, a part of the answer: {_short(part.strip())}; give another "
                "template (`template: FILE.jinja`), or take that part out of the data"
            )
        left = left[place + len(bare) :]


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content.strip() if isinstance(content, str) else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
