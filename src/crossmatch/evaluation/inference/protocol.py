"""What an evaluation asks of a model, wherever it runs: answers, and log-likelihoods of options."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from crossmatch.data.turn_ends import Stops
from crossmatch.positions import TooLong


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: greedy at temperature 0, else drawn."""

    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Generated:
    """One answer: its text without the end of the turn, whether it was cut at the limit, its tokens (None: unknown),
    and the token or text at which it ended (None: cut, or unknown)."""

    text: str
    truncated: bool
    tokens: int | None
    ended: str | None = None


EOS = Stops()
"""At the model's own ends of sequence alone."""


@dataclass(frozen=True)
class Failed:
    """An item that was asked and not answered; reason: one line. It has no score, which is not a score of zero."""

    reason: str


@dataclass(frozen=True)
class FirstToken:
    """The distribution of an answer's first token: entropy in nats, and how far the most probable is ahead of the next
    in probability."""

    entropy: float
    margin: float


@dataclass(frozen=True)
class DocumentScore:
    """One document: summed negative log-likelihood of its tokens in nats, how many there are, in how many windows."""

    nats: float
    tokens: int
    windows: int


@dataclass(frozen=True)
class Windows:
    """How a long document is read: `size` tokens at a time at most, of which the first `overlap` were seen before."""

    size: int
    overlap: int

    def spans(self, tokens: int) -> Iterator[tuple[int, int, int]]:
        """(begin, first, end) for each window of a document of so many tokens: what stands in [begin, end) is read,
        what follows each of [first, end) is scored. Every token is scored once, the first behind a token that stands
        before the document; each of a later window sees at least `overlap` tokens before it."""
        first = 0
        while first < tokens:
            end = min(tokens, first + self.size if first == 0 else first + self.size - self.overlap)
            yield max(0, end - self.size), first, end
            first = end


class Model(Protocol):
    """A model that answers. Its methods call `done(index, value)` as results come, from the calling thread.

    A model in this process gives no `Failed`: what goes wrong there is raised. tells_distributions: whether it says
    what a first token is like. too_long: what it does with a prompt that its positions do not hold; a server refuses it
    whatever is set, and the item is `Failed`.
    """

    tells_distributions: bool
    too_long: TooLong

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        decoding: Decoding,
        seeds: Sequence[int],
        done: Callable[[int, Generated | Failed], None],
        stops: Stops = EOS,
    ) -> None:
        """Answers to rendered prompts; where tokens are drawn, seeds[i] is the seed of answer i (`item_seed`). A prompt
        may come several times, with other seeds. stops: where an answer ends, besides at any end of sequence."""
        ...

    def loglikelihoods(
        self,
        prompts: Sequence[str],
        options: Sequence[Sequence[str]],
        done: Callable[[int, list[float] | Failed], None],
    ) -> None:
        """ln P(option | prompt), summed over the option's tokens, for every option of every prompt."""
        ...

    def openings(
        self,
        prompts: Sequence[str],
        options: Sequence[Sequence[str]],
        done: Callable[[int, list[float] | Failed, FirstToken | None], None],
    ) -> None:
        """The same, with what the answer's first token is like (None: the model does not tell)."""
        ...

    def documents(
        self, texts: Sequence[str], windows: Windows, done: Callable[[int, DocumentScore | Failed], None]
    ) -> None:
        """Log-likelihood of plain texts, long ones in windows."""
        ...


def item_seed(seed: int, key: str) -> int:
    """A seed of 31 bits from (seed, key): the same item is drawn alike in any order, batch and process."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4]) >> 1
