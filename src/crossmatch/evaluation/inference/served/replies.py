"""What a completions server replied, read with suspicion: every field may be missing, short, or untrue.

Two shapes of log-probabilities are known: parallel lists (`tokens`, `token_logprobs`, `top_logprobs`: vLLM, SGLang,
llama-cpp-python) and a list of objects (`content`: llama-server). `text_offset` is not used: SGLang gives -1
throughout, and elsewhere it counts the characters of tokens that may be parts of one.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossmatch.evaluation.inference.served.http import ServerError, one_line

# Beyond rounding: float32 sums and the last digits of JSON.
SLACK = 1e-2
# Mean difference, in nats a token, between two readings of one text. Batches of 16-bit servers differ by some 0.01.
AGREE = 0.1
# ln of the smallest positive float32; servers write "no probability left" as -9999, as -3.4e38 or so.
FLOOR = -103.28


@dataclass(frozen=True)
class Token:
    """One token of a reply; value: its ln probability (None: a text's first); top: the greatest at its place."""

    text: str
    value: float | None
    top: float | None


@dataclass(frozen=True)
class Echo:
    """A text that came back with its tokens; asked: how many tokens the server counted in it."""

    text: str
    tokens: tuple[Token, ...]
    asked: int


def the_choice(reply: Any, names: Collection[str]) -> Mapping[str, Any]:
    """The one choice of a completion, made by a model of one of these names (none: any name).

    Raises ServerError if there is not exactly one, or another model made it.
    """
    if not isinstance(reply, Mapping):
        raise ServerError("the reply is no JSON object")
    choices = reply.get("choices")
    if not isinstance(choices, list):
        raise ServerError(f"the reply holds no choices: {one_line(str(reply.get('error') or sorted(reply)))}")
    if len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise ServerError(f"{len(choices)} choices came for one prompt")
    made_by = reply.get("model")
    if names and isinstance(made_by, str) and made_by not in names:
        wanted = " or ".join(sorted(names))
        raise ServerError(f"model {made_by!r} answered, {wanted} was asked", again=False)
    return choices[0]


def used(reply: Any, name: str) -> int | None:
    """A count of the reply's `usage`, or None."""
    usage = reply.get("usage") if isinstance(reply, Mapping) else None
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


def text_of(choice: Mapping[str, Any]) -> str:
    """The choice's text. Raises ServerError if it has none."""
    text = choice.get("text")
    if not isinstance(text, str):
        raise ServerError("a choice without text came")
    return text


def echo_of(reply: Any, text: str | None, names: Collection[str]) -> Echo:
    """The tokens of `text`, from a reply to `echo` with one token generated, which must be the likeliest at its place.

    text: None for a prompt of token ids, which comes back in the server's own spelling; its tokens are counted.

    Raises ServerError if the text did not come back, its log-probabilities are missing, or they are impossible.
    """
    choice = the_choice(reply, names)
    if text is not None and text not in text_of(choice):
        raise ServerError("the server does not echo the text that it was asked to score")
    made, asked = used(reply, "completion_tokens"), used(reply, "prompt_tokens")
    if made is None or asked is None:
        raise ServerError("the reply does not say how many tokens were asked and made (usage)", again=False)
    tokens = tokens_of(choice)
    if len(tokens) <= made:
        raise ServerError("the server gives no log-probabilities of the prompt's tokens", again=False)
    prompt, rest = tokens[: len(tokens) - made], tokens[len(tokens) - made :]
    for token in rest:
        check_greedy(token)
    if len(prompt) > asked:
        raise ServerError(f"{len(prompt)} log-probabilities came for {asked} tokens")
    joined = "".join(token.text for token in prompt)
    if text is not None and len(prompt) == asked and len(joined) < len(text) and text.endswith(joined):
        raise ServerError(f"the server cut the prompt to its last {asked} tokens", again=False)
    return Echo(text or "", tuple(prompt), asked)


def listed_of(reply: Any, text: str | None, names: Collection[str]) -> Echo:
    """The tokens of `text`, from vLLM's `prompt_logprobs`: for each place the token's own entry, then the likeliest's.

    Raises ServerError if they are missing or impossible.
    """
    choice = the_choice(reply, names)
    asked = used(reply, "prompt_tokens")
    places = choice.get("prompt_logprobs")
    if not isinstance(places, list) or len(places) < 2 or not all(isinstance(p, Mapping) and p for p in places[1:]):
        raise ServerError("the server gives no log-probabilities of the prompt's tokens", again=False)
    if asked is not None and len(places) != asked:
        raise ServerError(f"{len(places)} log-probabilities came for {asked} tokens")
    tokens = [Token("", None, None)]
    for place in places[1:]:
        entries = list(place.values())
        if not all(isinstance(entry, Mapping) for entry in entries):
            raise ServerError("prompt_logprobs are not what vLLM gives")
        values = [_number(entry.get("logprob")) for entry in entries]
        others = [i for i, entry in enumerate(entries) if entry.get("rank") != 1]
        own = others[0] if len(others) == 1 else 0
        tokens.append(_token(str(entries[own].get("decoded_token") or ""), values[own], values))
    return Echo(text or "", tuple(tokens), len(places))


def tokens_of(choice: Mapping[str, Any]) -> list[Token]:
    """The tokens of a choice, in either shape; empty if it has no log-probabilities.

    Raises ServerError if their lists differ in length, or a value is missing, no number, not finite, positive, or
    greater than the greatest at its place, or if those named at a place sum to more than one.
    """
    found = choice.get("logprobs")
    if not isinstance(found, Mapping):
        return []
    if "content" in found:
        return [_object(entry) for entry in entries_of(choice)]
    texts, values = found.get("tokens"), found.get("token_logprobs")
    tops: Any = found.get("top_logprobs")
    if not isinstance(texts, list) or not isinstance(values, list):
        raise ServerError("log-probabilities came in an unknown shape", again=False)
    if not isinstance(tops, list) or not tops:
        tops = [None] * len(texts)
    if not len(texts) == len(values) == len(tops):
        raise ServerError(f"{len(values)} log-probabilities and {len(tops)} alternatives came for {len(texts)} tokens")
    tokens = []
    for i, (text, value, top) in enumerate(zip(texts, values, tops, strict=True)):
        if value is None and i == 0:
            tokens.append(Token(str(text), None, None))
        else:
            named = [_number(v) for v in top.values()] if isinstance(top, Mapping) else []
            tokens.append(_token(str(text), _number(value), named))
    return tokens


def entries_of(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The objects of the second shape as they came; empty if there are none."""
    found = choice.get("logprobs")
    entries = found.get("content") if isinstance(found, Mapping) else None
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def check_greedy(token: Token) -> None:
    """Raise ServerError if a token that was chosen greedily is not the likeliest at its place."""
    if token.value is not None and token.top is not None and token.value < token.top - SLACK:
        raise ServerError(
            f"log-probabilities that cannot be: the server chose {token.text!r} greedily and gives it "
            f"{token.value:.3f}, another token {token.top:.3f}"
        )


def check_same(first: Sequence[Token], second: Sequence[Token], what: str) -> None:
    """Raise ServerError if two readings of the same tokens differ, by AGREE nats a token or in their number."""
    if len(first) != len(second):
        raise ServerError(f"{what} had {len(first)} tokens, then {len(second)}")
    pairs = [(a.value, b.value) for a, b in zip(first, second, strict=True)]
    gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    if gaps and sum(gaps) / len(gaps) > AGREE:
        raise ServerError(
            f"log-probabilities that cannot be: {what} had others when asked again "
            f"(mean difference {sum(gaps) / len(gaps):.2f} nats a token)"
        )


def check_exclusive(tokens: Sequence[Token]) -> None:
    """Raise ServerError if different tokens at one place have more than probability one together."""
    total = sum(math.exp(value) for value in {t.text: t.value for t in tokens}.values() if value is not None)
    if total > 1 + SLACK:
        raise ServerError(f"log-probabilities that cannot be: different tokens at one place sum to {total:.3f}")


def _object(entry: Mapping[str, Any]) -> Token:
    top = entry.get("top_logprobs")
    named = [_number(t.get("logprob")) for t in top if isinstance(t, Mapping)] if isinstance(top, list) else []
    return _token(str(entry.get("token")), _number(entry.get("logprob")), named)


def _token(text: str, value: float, named: Sequence[float]) -> Token:
    total = sum(map(math.exp, named))
    if total > 1 + SLACK:
        raise ServerError(f"log-probabilities that cannot be: those at the place of {text!r} sum to {total:.3f}")
    top = max(named) if named else None
    if top is not None and value > top + SLACK:
        raise ServerError(
            f"log-probabilities that cannot be: {value:.3f} for {text!r}, {top:.3f} for the likeliest token there"
        )
    return Token(text, value, top)


def _number(value: Any) -> float:
    if value is None:
        raise ServerError("a log-probability is missing")
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value) or value == math.inf:
        raise ServerError(f"{one_line(str(value), 40)!r} is no log-probability")
    if value > SLACK:
        raise ServerError(f"log-probabilities that cannot be: {value:.3f} is positive")
    return max(min(float(value), 0.0), FLOOR)
