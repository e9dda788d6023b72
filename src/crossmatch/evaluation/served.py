"""A model behind an OpenAI-compatible completions endpoint: vLLM, SGLang, llama-server and others.

Prompts go as rendered text (llama-server gets its own token ids of it), so that the chat template is ours and its
digest is known. Nothing that goes wrong becomes a score: it is a `Failed` with one line.
"""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from crossmatch.errors import InputError
from crossmatch.evaluation.model import (
    Decoding,
    DocumentScore,
    Failed,
    FirstToken,
    Generated,
    Model,
    Windows,
)
from crossmatch.evaluation.served_replies import text_of, the_choice, used
from crossmatch.evaluation.served_scoring import Scorer
from crossmatch.evaluation.served_server import Server
from crossmatch.evaluation.served_transport import ServerError, Transport, one_line

T = TypeVar("T")

PROBES = (
    "The most common cause of iron deficiency anaemia in adults is",
    "Question: Which organ makes insulin?\nAnswer:",
    "1, 1, 2, 3, 5, 8, 13,",
    "Once upon a time there was a",
    "高血压的常见原因包括",
    "def fibonacci(n):\n",
)
# One model of 135M parameters, in 4 bits by llama-server and in float32 here, agrees in 0.85; with noise of a twentieth
# of its weights' spread in 0.62, of a tenth in 0.29.
SAME, OTHER = 0.8, 0.5
# Places of one answer from which the server goes on, and characters that must be left to compare with.
CUTS, REST = 6, 24


@dataclass(frozen=True)
class Identity:
    """Whether a server runs the model that it is said to run.

    verdict: `same`, `other`, or `unknown` (no local model to compare with, or answers neither alike nor unlike);
    names: models that the server lists; agreement: mean share of the characters of its greedy continuations up to the
    first difference, over `probes` of them (None: nothing compared); line: the finding in one line.

    Near relatives (a base and a light merge on it) can give the same greedy answers: `same` excludes another model,
    not another weight.
    """

    verdict: Literal["same", "other", "unknown"]
    names: tuple[str, ...]
    agreement: float | None
    probes: int
    line: str


class ServedModel:
    """A model on a server that speaks the completions API, at `url` (with or without /v1) under the name `model`.

    key: sent as bearer token; timeout: seconds for one request; retries: further tries after a fault that may pass
    (no connection, a drop, a time-out, 408, 425, 429, 5xx, a reply that cannot be); parallel: requests at once; pause:
    seconds before the first further try, doubled each time, with jitter, unless the server names its own (Retry-After).
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        timeout: float = 120.0,
        retries: int = 5,
        parallel: int = 8,
        pause: float = 0.5,
    ) -> None:
        if timeout <= 0 or retries < 0 or parallel < 1 or pause < 0:
            raise InputError("a served model needs timeout > 0, retries >= 0, parallel >= 1 and pause >= 0")
        self.model, self.parallel = model, parallel
        self._transport = Transport(url, key, timeout, retries, pause)
        self._server = Server(self._transport, model)
        self._scorer = Scorer(self._server)
        self._caution: str | None = None

    @property
    def notes(self) -> list[str]:
        """What a reader of the results must know: how options were scored, and where a token straddles."""
        lines = [f"log-likelihoods by {self._scorer.way}"] if self._scorer.way else []
        if self._caution:
            lines.append(self._caution)
        if self._scorer.straddled:
            count = len(self._scorer.straddled)
            lines.append(f"{count} prompts whose last token also begins an option; their options are scored from it on")
        return lines

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        decoding: Decoding,
        seeds: Sequence[int],
        done: Callable[[int, Generated | Failed], None],
    ) -> None:
        """Answers to rendered prompts; answer i is drawn with seeds[i].

        The same seed gives the same answer of this server, not that of another. Raises InputError if the server cannot
        be reached at first, or does not list the model.
        """
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
        if not prompts:
            return
        self._server.require()

        def work(index: int) -> Generated:
            fields: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": decoding.temperature}
            if decoding.temperature > 0:
                fields |= {"top_p": decoding.top_p, "seed": seeds[index]}
            return self._server.complete(prompts[index], fields, lambda reply: self._generated(reply, max_new_tokens))

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
        del windows
        for index in range(len(texts)):
            done(index, Failed("text suites need the weights here; a server is not asked for them"))

    def identify(
        self, local: Callable[[str], str] | None = None, prompts: Sequence[str] = PROBES, tokens: int = 4
    ) -> Identity:
        """Compare the server with the name it was asked for, and with a local model's greedy answers.

        local: prompt -> greedy answer of some tens of tokens. The server is asked for `tokens` tokens after the prompt,
        and after some beginnings of that answer. Raises InputError if it cannot be reached or does not answer.
        """
        try:
            facts = self._server.facts
        except ServerError as error:
            raise InputError(str(error)) from error
        where, listed = self._transport.url, ", ".join(facts.names)
        if facts.names and not facts.same.intersection(facts.names):
            return Identity("other", facts.names, None, 0, f"{where} serves {listed}, not {self.model}")
        named = f"lists {self.model}" if facts.names else "lists no models"
        if local is None:
            return Identity("unknown", facts.names, None, 0, f"{where} {named}; its weights were compared with nothing")
        asked = [(prompt + start, rest) for prompt in prompts for start, rest in _cuts(local(prompt))]
        found: list[float] = []

        def done(index: int, value: float | Failed) -> None:
            if isinstance(value, Failed):
                raise InputError(f"{where} does not answer a probe: {value.reason}")
            found.append(value)

        def work(index: int) -> float:
            prompt, rest = asked[index]
            fields = {"temperature": 0.0, "max_tokens": tokens}
            return _share(self._server.complete(prompt, fields, lambda r: self._generated(r, tokens)), rest)

        self._each(len(asked), work, done)
        agreement = sum(found) / len(found) if found else None
        verdict, said = _verdict(agreement, self.model)
        return Identity(verdict, facts.names, agreement, len(found), f"{where} {named} and {said}")

    def _generated(self, reply: Any, max_new_tokens: int) -> Generated:
        choice = the_choice(reply, self._server.facts.same)
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


class _Unreached(Failed):
    """Failed because the server was not there."""


if TYPE_CHECKING:
    _conforms: type[Model] = ServedModel


def _cuts(answer: str) -> list[tuple[str, str]]:
    """An answer cut before some of its words, (start, rest): the server goes on from places where both still agree.

    Answers compared only from their beginning differ throughout after the first near tie.
    """
    places = [0, *(m.start() for m in re.finditer(r"(?<=\w) (?=\w)", answer) if len(answer) - m.start() >= REST)]
    return [(answer[:place], answer[place:]) for place in places[:: max(1, len(places) // CUTS)][:CUTS]]


def _share(served: Generated, local: str) -> float:
    """Share of the served answer up to its first difference from the local one, which may go on where this was cut."""
    # Whether a continuation shows the space that it begins with depends on the tokenizer.
    ours, theirs = served.text.lstrip(), local.lstrip()
    alike = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
    whole = len(ours) if served.truncated else max(len(ours), len(theirs))
    return alike / whole if whole else 1.0


def _verdict(agreement: float | None, model: str) -> tuple[Literal["same", "other", "unknown"], str]:
    if agreement is None:
        return "unknown", "was asked nothing"
    told = f"agrees with the local greedy answers in {agreement:.0%} of their characters"
    if agreement >= SAME:
        return "same", told
    if agreement < OTHER:
        return "other", f"{told}: it runs another model than {model}"
    return "unknown", f"{told}: too little for the same model, too much for another"
