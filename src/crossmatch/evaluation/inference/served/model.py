"""A model behind an OpenAI-compatible completions endpoint: vLLM, SGLang, llama-server and others.

Prompts are rendered here, so that the chat template is ours and its digest is known, and reach the model with exactly
one beginning of sequence: as token ids (SGLang; llama-server gets its own ids), as text where the server is told to add
none (vLLM), else as text without it where the server was seen to add one. Nothing that goes wrong becomes a score: it
is a `Failed` with one line.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from crossmatch.data.turn_ends import Stops
from crossmatch.errors import InputError
from crossmatch.evaluation.inference.protocol import (
    EOS,
    Decoding,
    DocumentScore,
    Failed,
    FirstToken,
    Generated,
    Model,
    Windows,
)
from crossmatch.evaluation.inference.served.endpoint import STOPS, Server
from crossmatch.evaluation.inference.served.http import ServerError, Transport, one_line
from crossmatch.evaluation.inference.served.option_scores import Scorer
from crossmatch.evaluation.inference.served.replies import text_of, the_choice, tokens_of, used
from crossmatch.positions import TooLong
from crossmatch.results.study import SpokenJson

T = TypeVar("T")


@dataclass(frozen=True)
class Spoken:
    """A greedy answer: its text, whether it was cut at the limit, and (text, ln P) of its tokens (empty: not told)."""

    text: str
    truncated: bool
    tokens: tuple[tuple[str, float], ...]

    def to_dict(self) -> SpokenJson:
        """As plain JSON."""
        return {
            "text": self.text,
            "truncated": self.truncated,
            "tokens": [[text, value] for text, value in self.tokens],
        }


@dataclass(frozen=True)
class Connection:
    """How a server is asked.

    timeout: seconds for one request; retries: further tries after a fault that may pass (no connection, a drop, a
    time-out, 408, 425, 429, 5xx, a reply that cannot be); parallel: requests at once; pause: seconds before the first
    further try, doubled each time, with jitter, unless the server names its own (Retry-After). Raises InputError.
    """

    timeout: float = 120.0
    retries: int = 5
    parallel: int = 8
    pause: float = 0.5

    def __post_init__(self) -> None:
        if self.timeout <= 0 or self.retries < 0 or self.parallel < 1 or self.pause < 0:
            raise InputError("a served model needs timeout > 0, retries >= 0, parallel >= 1 and pause >= 0")


USUAL = Connection()


class ServedModel:
    """A model on a server that speaks the completions API, at `url` (with or without /v1) under the name `model`.

    key: sent as bearer token; tokenizer: tells its beginning of sequence (None: a server's echo does); server: what it
    says of itself.
    """

    tells_distributions = False
    too_long: TooLong = "refuse"

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        connection: Connection = USUAL,
        tokenizer: Any = None,
    ) -> None:
        self.model, self.parallel = model, connection.parallel
        self._transport = Transport(url, key, connection.timeout, connection.retries, connection.pause)
        self.url = self._transport.url
        self.server = Server(self._transport, model, tokenizer)
        self._scorer = Scorer(self.server)
        self._caution: str | None = None

    @property
    def notes(self) -> list[str]:
        """What a reader of the results must know: how options were scored, and where a token straddles."""
        found = [f"log-likelihoods by {self._scorer.way}" if self._scorer.way else None]
        lines = [line for line in (*found, self._caution, self.server.caution) if line]
        if self._scorer.straddled:
            count = len(self._scorer.straddled)
            lines.append(f"{count} prompts whose last token also begins an option; their options are scored from it on")
        if self.server.untold:
            lines.append(
                f"a request takes {STOPS} stop texts: the server runs past {', '.join(map(repr, self.server.untold))}, "
                "where answers are cut off here"
            )
        return lines

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        decoding: Decoding,
        seeds: Sequence[int],
        done: Callable[[int, Generated | Failed], None],
        stops: Stops = EOS,
    ) -> None:
        """Answers to rendered prompts, cut off behind an end that the server was told and ran past; answer i is drawn
        with seeds[i], which gives the same answer of this server, not that of another. Raises InputError if the server
        cannot be reached at first, or does not list the model."""
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
        if not prompts:
            return
        self.server.require()

        def work(index: int) -> Generated:
            fields: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": decoding.temperature}
            if decoding.temperature > 0:
                fields |= {"top_p": decoding.top_p, "seed": seeds[index]}
            fields |= self.server.stop_fields(stops)
            found = self.server.complete(prompts[index], fields, lambda reply: self._generated(reply, max_new_tokens))
            return _ended(found, stops)

        self._each(len(prompts), work, done)

    def loglikelihoods(
        self,
        prompts: Sequence[str],
        options: Sequence[Sequence[str]],
        done: Callable[[int, list[float] | Failed], None],
    ) -> None:
        """ln P(option | prompt), summed over the option's tokens, for every option of every prompt.

        Raises InputError if the server cannot be reached at first, does not list the model, or gives no
        log-probabilities that stand up to a check against its own greedy answers.
        """
        if len(options) != len(prompts):
            raise ValueError(f"options for {len(options)} of {len(prompts)} prompts")
        if not prompts:
            return
        if not self._scorer.way:
            self._caution = self._scorer.settle(sorted(set(prompts), key=lambda p: (len(p), p))[:3])
        self._each(len(prompts), lambda index: self._scorer.score(prompts[index], options[index]), done)

    def openings(
        self,
        prompts: Sequence[str],
        options: Sequence[Sequence[str]],
        done: Callable[[int, list[float] | Failed, FirstToken | None], None],
    ) -> None:
        """Log-likelihoods; no server tells a whole distribution."""
        self.loglikelihoods(prompts, options, lambda index, values: done(index, values, None))

    def documents(
        self, texts: Sequence[str], windows: Windows, done: Callable[[int, DocumentScore | Failed], None]
    ) -> None:
        """No server is asked for whole documents: every one is `Failed`, and its figures are none."""
        for index in range(len(texts)):
            done(index, Failed("text suites need the weights here; a server is not asked for them"))

    def greedy(self, prompt: str, tokens: int) -> Spoken:
        """A greedy answer of so many tokens, asked alone: others at that time move the last digits. Or InputError."""

        def ask(more: dict[str, Any]) -> Spoken:
            fields = {"temperature": 0.0, "max_tokens": tokens, **more}
            return self.server.complete(prompt, fields, lambda reply: self._spoken(reply, tokens))

        try:
            try:
                return ask({"logprobs": 1})
            except ServerError as error:
                if not error.reached:
                    raise
                # It may have no log-probabilities to give.
                return ask({})
        except ServerError as error:
            raise InputError(f"{self.url} does not answer a probe: {error}") from error

    def _spoken(self, reply: Any, limit: int) -> Spoken:
        found = self._generated(reply, limit)
        try:
            tokens = tokens_of(the_choice(reply, self.server.facts.same))
        except ServerError:
            tokens = []
        return Spoken(found.text, found.truncated, tuple((t.text, t.value) for t in tokens if t.value is not None))

    def _generated(self, reply: Any, max_new_tokens: int) -> Generated:
        choice = the_choice(reply, self.server.facts.same)
        text, reason, tokens = text_of(choice), choice.get("finish_reason"), used(reply, "completion_tokens")
        if reason not in ("stop", "length"):
            raise ServerError(f"the server ended an answer by {one_line(str(reason), 40)!r}")
        if reason == "length" and tokens is not None and tokens < max_new_tokens:
            raise ServerError(f"the server's context was full after {tokens} of {max_new_tokens} tokens", again=False)
        if tokens is not None and tokens > max_new_tokens:
            raise ServerError(f"the server made {tokens} tokens, {max_new_tokens} were asked", again=False)
        if text and tokens == 0:
            raise ServerError("the server counts no tokens in an answer that has text")
        return Generated(text, reason == "length", tokens)

    def _each(self, count: int, work: Callable[[int], T], done: Callable[[int, T | Failed], None]) -> None:
        """Do `work` for every index in threads, and `done` in this one, in the order in which results come."""
        results: SimpleQueue[tuple[int, T | Failed | BaseException]] = SimpleQueue()
        indices, lock = iter(range(count)), threading.Lock()
        patience, silent, closed = 2 * self.parallel + 1, 0, False

        def labour() -> None:
            """Take one index after the other, until all are taken, or the server is given up."""
            nonlocal silent
            while True:
                with lock:
                    index = None if closed else next(indices, None)
                    gone = silent >= patience
                if index is None:
                    return
                value = Failed("not asked: the server answered none of the items before") if gone else attempt(index)
                with lock:
                    if not gone:
                        silent = silent + 1 if isinstance(value, _Unreached) else 0
                results.put((index, Failed(value.reason) if isinstance(value, _Unreached) else value))

        def attempt(index: int) -> T | Failed | BaseException:
            try:
                return work(index)
            except ServerError as error:
                return Failed(str(error)) if error.reached else _Unreached(str(error))
            except BaseException as error:  # ours to raise, but in the calling thread
                return error

        # Daemons: an interrupted evaluation does not wait for what a server may still say.
        for _ in range(min(self.parallel, count)):
            threading.Thread(target=labour, daemon=True).start()
        try:
            for _ in range(count):
                index, value = results.get()
                if isinstance(value, BaseException):
                    raise value
                done(index, value)
        finally:
            closed = True
            self._transport.abandon()


def _ended(found: Generated, stops: Stops) -> Generated:
    """An answer up to its first end; how many tokens that are is not known if more came."""
    ends = [*stops.texts, *(text for _, text in stops.tokens if text.strip())]
    said = [(place, text) for text in ends if (place := found.text.find(text)) >= 0]
    if not said:
        return found
    place, text = min(said)
    return Generated(found.text[:place], False, None, text)


class _Unreached(Failed):
    """Failed because the server was not there."""


if TYPE_CHECKING:
    _conforms: type[Model] = ServedModel
