"""Log-odds of a right answer over a wrong one, as sums of the scores of texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from crossmatch.data.token_classes import OPENER, Text, read_item, read_probe
from crossmatch.data.token_ids import encode_pairs
from crossmatch.errors import DataError
from crossmatch.statistics.influence import Array

Form = Literal["first", "full"]


@dataclass(frozen=True)
class Question:
    """A rendered prompt with the continuation that is right and one that is not."""

    prompt: str
    right: str
    wrong: str


@dataclass(frozen=True, eq=False)
class Contrasts:
    """Items, each with its log-odds M in nats: the sum of the scores (`Instrumented.scores`) of its texts, with signs.

    items, signs: for each text the number of its item, and +1 or -1; count: of items; metric: M in words.
    """

    texts: tuple[Text, ...]
    items: tuple[int, ...]
    signs: tuple[float, ...]
    count: int
    metric: str

    def of(self, scores: Array) -> Array:
        """(..., items) from scores (..., texts), or from what adds up like them."""
        found = np.zeros((*scores.shape[:-1], self.count))
        for text, (item, sign) in enumerate(zip(self.items, self.signs, strict=True)):
            found[..., item] += sign * scores[..., text]
        return found


def read_contrasts(
    tokenizer: Any, questions: Sequence[Question], form: Form = "first", *, max_length: int = 1024
) -> Contrasts:
    """M of each question.

    first: log P(right's token) - log P(wrong's token), both after the prompt and what the two have in common, at the
    first place where they differ. full: log P(right | prompt) - log P(wrong | prompt), summed over the tokens of each;
    a longer option has more to lose. Raises DataError with the question's number if one option begins with the other
    (`first`), if either has no tokens, or if it is too long.
    """
    if not questions:
        raise DataError("there are no questions; give some with a right and a wrong answer")
    texts: list[Text] = []
    for number, question in enumerate(questions, 1):
        (before,), (options,) = encode_pairs(tokenizer, [question.prompt], [(question.right, question.wrong)])
        place = f"question {number}"
        if not before or not all(options):
            raise DataError(f"{place}: a prompt and two options of one token at least are needed")
        if len(before) + max(map(len, options)) > max_length:
            raise DataError(f"{place}: more than {max_length} tokens; raise max_length, as far as the context goes")
        if form == "full":
            if options[0] == options[1]:
                raise DataError(f"{place}: {question.right!r} and {question.wrong!r} are the same tokens")
            texts += [_text(before, option) for option in options]
        else:
            texts.append(_fork(before, options, question, place))
    if form == "first":
        every = tuple(range(len(texts)))
        return Contrasts(tuple(texts), every, (1.0,) * len(texts), len(texts), "right over wrong, where they differ")
    # The score of an option is -log P.
    items = tuple(number for number in range(len(questions)) for _ in range(2))
    return Contrasts(tuple(texts), items, (-1.0, 1.0) * len(questions), len(questions), "right over wrong, in full")


def read_openers(
    tokenizer: Any,
    dialogues: Sequence[Sequence[dict[str, str]]],
    *,
    thinking: bool | None = None,
    opener: str = OPENER,
    max_length: int = 1024,
) -> Contrasts:
    """M = log P(opener | prompt) - log P(first token of the answer | prompt) for each dialogue.

    Dialogues whose answer begins with the opener are left out. Raises DataError if that leaves none.
    """
    texts = []
    for number, messages in enumerate(dialogues, 1):
        try:
            probe = read_probe(tokenizer, read_item(tokenizer, messages, thinking, max_length), opener)
        except DataError as error:
            raise DataError(f"dialogue {number}: {error}") from error
        texts += [] if probe is None else [probe]
    if not texts:
        raise DataError(f"there is no dialogue whose answer begins otherwise than with {opener!r}; give some")
    every = tuple(range(len(texts)))
    return Contrasts(tuple(texts), every, (1.0,) * len(texts), len(texts), f"{opener} over the answer's first token")


def _fork(before: Sequence[int], options: Sequence[Sequence[int]], question: Question, place: str) -> Text:
    right, wrong = options
    differ = (n for n, (one, other) in enumerate(zip(right, wrong, strict=False)) if one != other)
    first = next(differ, None)
    if first is None:
        raise DataError(
            f"{place}: {question.right!r} and {question.wrong!r} have no token in which they differ, one begins with "
            "the other; give another wrong answer, or compare them in full"
        )
    return _text([*before, *right[:first]], [right[first]], wrong[first])


def _text(prompt: Sequence[int], response: Sequence[int], rival: int | None = None) -> Text:
    kinds = (*["prompt"] * (len(prompt) - 1), "opener", *["answer"] * len(response))
    return Text((*prompt, *response), kinds, rival)
