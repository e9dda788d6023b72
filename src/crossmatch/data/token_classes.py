"""Texts whose tokens have classes, and probes that ask how near a trace is.

prompt    a token of the prompt but the last
opener    the last token of the prompt: what the model puts out there decides whether a trace opens
think     a token of a trace, its tags among them
answer    any other token of the response
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.data.passages import Passage, read_dialogue
from crossmatch.data.trace_blocks import find_blocks
from crossmatch.errors import DataError

KINDS = ("prompt", "opener", "think", "answer")
OPENER = "<think>"


@dataclass(frozen=True)
class Text:
    """Token ids of a sequence and the class of each token.

    rival: None for an item, whose response is scored by its likelihood. For a probe, whose response is an opener that
    was put there, the first token of the true answer: the one that the opener competes with.
    Raises DataError for a class of an unknown name, and where there is no prompt or no response.
    """

    ids: tuple[int, ...]
    kinds: tuple[str, ...]
    rival: int | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.kinds):
            raise DataError(f"a text of {len(self.ids)} tokens has {len(self.kinds)} classes; give one for each")
        if unknown := set(self.kinds) - set(KINDS):
            raise DataError(f"tokens of the class {min(unknown)!r}: give one of {', '.join(KINDS)}")
        if "opener" not in self.kinds or self.kinds.index("opener") != self.start - 1 or self.start == len(self.ids):
            raise DataError("a text needs a prompt that ends with one token of the class 'opener', then a response")

    @property
    def start(self) -> int:
        """Where the response begins."""
        return sum(kind in ("prompt", "opener") for kind in self.kinds)

    @property
    def is_probe(self) -> bool:
        """Whether an opener stands in the answer's place."""
        return self.rival is not None

    def classes(self) -> list[int]:
        """Numbers of the classes in `KINDS`, -1 where a probe repeats its item and is not counted again."""
        return [KINDS.index(k) if not self.is_probe or k == "think" else -1 for k in self.kinds]


def read_item(tokenizer: Any, messages: Sequence[dict[str, str]], thinking: bool | None, max_length: int) -> Text:
    """A dialogue with its template as a text; a think block in its answer, closed or not, is of the class `think`."""
    passage = read_dialogue(tokenizer, messages, thinking, max_length)
    response = list(passage.ids[passage.prompt :])
    return Text(passage.ids, (*_prompt(passage), *_response(tokenizer, response)))


def read_probe(tokenizer: Any, item: Text, opener: str = OPENER) -> Text | None:
    """An item's prompt with `opener` as its response; None where the answer itself begins with the opener's token."""
    ids = tokenizer(opener, add_special_tokens=False)["input_ids"]
    if not ids:
        raise DataError(f"the opener {opener!r} has no tokens; give another")
    rival = item.ids[item.start]
    if rival == ids[0]:
        return None
    return Text((*item.ids[: item.start], *ids), (*item.kinds[: item.start], *["think"] * len(ids)), rival)


def read_texts(
    tokenizer: Any,
    dialogues: Sequence[Sequence[dict[str, str]]],
    *,
    thinking: bool | None = None,
    opener: str = OPENER,
    max_length: int = 1024,
) -> list[Text]:
    """An item for every dialogue, each followed by its probe if it has one. Raises DataError with the dialogue."""
    texts: list[Text] = []
    for number, messages in enumerate(dialogues, 1):
        try:
            item = read_item(tokenizer, messages, thinking, max_length)
        except DataError as error:
            raise DataError(f"dialogue {number}: {error}") from error
        probe = read_probe(tokenizer, item, opener)
        texts += [item] if probe is None else [item, probe]
    return texts


def _prompt(passage: Passage) -> list[str]:
    return [*["prompt"] * (passage.prompt - 1), "opener"]


def _response(tokenizer: Any, ids: list[int]) -> list[str]:
    blocks = find_blocks(tokenizer.decode(ids)).blocks
    if not blocks:
        return ["answer"] * len(ids)
    ends = [len(tokenizer.decode(ids[: n + 1])) for n in range(len(ids))]
    starts = [0, *ends[:-1]]
    spans = zip(starts, ends, strict=True)
    return ["think" if any(a < last and b > first for first, last in blocks) else "answer" for a, b in spans]
