"""Log-likelihoods of options from a completions server, in whichever of three ways it knows.

echo       the text comes back with the log-probabilities of its tokens (`echo`): vLLM, SGLang, llama-cpp-python
listed     they come beside the answer (`prompt_logprobs`): vLLM
forced     the option's tokens are forced one after the other by `logit_bias`, and the server gives what each had
           without the bias: llama-server, which scores nothing but what it generates

No way is trusted before it gave the server's own greedy answer the values that it had when it was generated, each the
greatest at its place, and the same when asked twice.
"""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

from crossmatch.data.token_ids import encode_pairs
from crossmatch.errors import InputError
from crossmatch.evaluation.inference.served.endpoint import Server
from crossmatch.evaluation.inference.served.http import ServerError
from crossmatch.evaluation.inference.served.option_tokens import by_prompt, by_text, cut
from crossmatch.evaluation.inference.served.replies import (
    Echo,
    Token,
    check_exclusive,
    check_greedy,
    check_same,
    echo_of,
    entries_of,
    listed_of,
    text_of,
    the_choice,
    tokens_of,
)

Way = Callable[[str, Sequence[str]], list[tuple[Token, ...]]]

_GREEDY = {"temperature": 0.0, "logprobs": 1}
_PROBED = 8
_UNLIKE = (" a", " the", " is", " of", " in", " what")
# Far above any logit, and exact in float32.
_FORCE = 1e6
# More tokens than any vocabulary holds.
_EVERY = 1 << 20


class Scorer:
    """The way in which one server scores options, found and checked with the first prompts."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.way = ""
        self.straddled: set[str] = set()
        self._ways: dict[str, Way] = {"echo": self._by_echo, "listed": self._by_list, "forced": self._by_force}

    def settle(self, prompts: Sequence[str]) -> str | None:
        """Find a way and check it with the greedy answers to the first prompts; return a caution, or None.

        Raises InputError if the server cannot be reached, gives no log-probabilities, or gives impossible ones.
        """
        self.server.require()
        names = ["forced"] if self.server.facts.owner == "llamacpp" else ["echo", "listed"]
        reasons = []
        for name in names:
            try:
                checked = self._check(self._ways[name], prompts)
            except ServerError as error:
                if not error.reached:
                    raise InputError(str(error)) from error
                reasons.append(f"{name}: {error}")
                continue
            self.way = name
            return None if checked else "the log-probabilities could not be checked against the server's greedy answers"
        where = f"{self.server.model} at {self.server.transport.url}"
        raise InputError(f"{where} gives no log-likelihoods that can be used; {'; '.join(reasons)}")

    def score(self, prompt: str, options: Sequence[str]) -> list[float]:
        """ln P(option | prompt) for every option. Raises ServerError."""
        scored = self._ways[self.way](prompt, options)
        return [sum(token.value for token in tokens if token.value is not None) for tokens in scored]

    def _check(self, way: Way, prompts: Sequence[str]) -> bool:
        for prompt in prompts:
            made, text = self.server.complete(prompt, {**_GREEDY, "max_tokens": _PROBED}, self._answer)
            # Without an answer there is nothing to compare, but whether this way is open at all shows.
            # For what it finds impossible: the first tokens of these exclude each other.
            way(prompt, _UNLIKE)
            (once,), (again,) = way(prompt, [text or " a"]), way(prompt, [text or " a"])
            check_same(once, again, "one text")
            # The answer's text may be made of other tokens than those that it was generated with.
            pairs = zip(once, made, strict=False)
            alike = len(list(takewhile(lambda pair: pair[0].text == pair[1].text, pairs)))
            for token in once[:alike]:
                check_greedy(token)
            check_same(made[:alike], once[:alike], "the server's own answer")
            if alike:
                return True
        return False

    def _answer(self, reply: Any) -> tuple[list[Token], str]:
        choice = the_choice(reply, self.server.facts.same)
        tokens = tokens_of(choice)
        for token in tokens:
            check_greedy(token)
        return tokens, text_of(choice)

    def _by_echo(self, prompt: str, options: Sequence[str]) -> list[tuple[Token, ...]]:
        return self._read(prompt, options, {**_GREEDY, "max_tokens": 1, "echo": True}, echo_of)

    def _by_list(self, prompt: str, options: Sequence[str]) -> list[tuple[Token, ...]]:
        fields = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 1}
        return self._read(prompt, options, fields, listed_of)

    def _read(
        self, prompt: str, options: Sequence[str], fields: dict[str, Any], read: Callable[..., Echo]
    ) -> list[tuple[Token, ...]]:
        names = self.server.facts.same
        if self.server.reads_ids:
            return self._read_ids(prompt, options, fields, read)

        def ask(text: str) -> Echo:
            spelled = self.server.spelled(text)
            return self.server.complete(text, fields, lambda reply: read(reply, spelled, names))

        echoes = [ask(prompt + option) for option in options]
        starts = by_text(echoes, options)
        if starts is None:
            alone = ask(prompt)
            starts = by_prompt(echoes, alone)
            straddles = starts[0] < len(alone.tokens)
        else:
            reached = "".join(token.text for token in echoes[0].tokens[starts[0] :])
            straddles = len(reached) > len(options[0])
        if straddles:
            self.straddled.add(prompt)
        return cut(echoes, starts)

    def _read_ids(
        self, prompt: str, options: Sequence[str], fields: dict[str, Any], read: Callable[..., Echo]
    ) -> list[tuple[Token, ...]]:
        """Of ids made here it is known which are the option's."""
        names = self.server.facts.same
        (before,), (found,) = encode_pairs(self.server.tokenizer, [prompt], [options])
        echoes = []
        for after in found:
            ids = [*before, *after]
            echo = self.server.complete(ids, fields, lambda reply: read(reply, None, names))
            if not len(echo.tokens) == echo.asked == len(ids):
                raise ServerError(f"{len(echo.tokens)} log-probabilities came for {len(ids)} tokens", again=False)
            echoes.append(echo)
        return cut(echoes, [len(before)] * len(echoes))

    def _by_force(self, prompt: str, options: Sequence[str]) -> list[tuple[Token, ...]]:
        begun = self.server.spelled(prompt)
        before = self.server.encode(begun)
        scored = []
        for option in options:
            both = self.server.encode(begun + option)
            if both[: len(before)] != before or len(both) == len(before):
                both = before + self.server.encode(option)
            steps = range(len(before), len(both))
            scored.append(tuple(self._forced(both[:step], both[step]) for step in steps))
        check_exclusive([tokens[0] for tokens in scored])
        return scored

    def _forced(self, before: list[int], token: int) -> Token:
        """A token's log-probability after others, from forcing it.

        llama-server tells nothing of a token that ends inside a character. Then another token is forced, and the wanted
        one is looked up in the list of all tokens at that place (megabytes, but rare).
        """

        def read(reply: Any) -> Token | None:
            choice = the_choice(reply, self.server.facts.same)
            entries, made = entries_of(choice), tokens_of(choice)
            if entries and (len(entries) != 1 or entries[0].get("id") != token):
                raise ServerError("the server does not generate the token that logit_bias forces", again=False)
            return made[0] if made else None

        def look_up(reply: Any) -> Token:
            entries = entries_of(the_choice(reply, self.server.facts.same))
            named = entries[0].get("top_logprobs") if entries else None
            every = [{"token": "", "logprob": row.get("logprob"), "id": row.get("id")} for row in named or []]
            found = [row for row in every if row["id"] == token]
            if len(found) != 1:
                raise ServerError(f"the server gives no log-probability of token {token}", again=False)
            return tokens_of({"logprobs": {"content": [{**found[0], "top_logprobs": every}]}})[0]

        fields = {**_GREEDY, "max_tokens": 1}
        known = self.server.complete(before, {**fields, "logit_bias": {str(token): _FORCE}}, read)
        if known is not None:
            return known
        other = self.server.encode("a")[-1]
        fields |= {"logprobs": _EVERY, "logit_bias": {str(other): _FORCE}}
        return self.server.complete(before, fields, look_up)
