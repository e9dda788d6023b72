"""One server and what is particular to it: its models' names, and the fields that switch its own defaults off.

A server fills whatever a request leaves out from its own settings or the model's (penalties, top_k, a token put before
the prompt). Only what was asked for may act, so each known server is told so in its own words; `owned_by` in
`/v1/models` tells which one it is.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from crossmatch.data.token_ids import encode, opening_ids, with_opening, without_opening
from crossmatch.data.turn_ends import Stops
from crossmatch.errors import InputError
from crossmatch.evaluation.inference.served.http import ServerError, Transport, one_line
from crossmatch.evaluation.inference.served.replies import the_choice, tokens_of, used

T = TypeVar("T")

_SAMPLING = {"presence_penalty": 0.0, "frequency_penalty": 0.0}
_NEUTRAL: dict[str, dict[str, Any]] = {
    "vllm": {
        "repetition_penalty": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "add_special_tokens": False,
        "skip_special_tokens": False,
    },
    "sglang": {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0, "skip_special_tokens": False},
    "llamacpp": {"repeat_penalty": 1.0, "top_k": 0, "min_p": 0.0},
    # llama-cpp-python: it takes no negative top_k.
    "me": {"repeat_penalty": 1.0, "top_k": 0, "min_p": 0.0},
}


# A text whose tokens a server counts.
_COUNTED = "What is anaemia?"
# They stop at token ids; others are told the texts of these, which not all of them find in special tokens.
_BY_ID = ("vllm", "sglang")
# As many texts as the API takes, and servers that take more.
STOPS = 4
_TAKE_ALL = ("vllm", "sglang", "llamacpp", "me")


# Where a server tells its version, and under what name.
_VERSION = {
    "vllm": ("/version", "version"),
    "sglang": ("/get_server_info", "version"),
    "llamacpp": ("/props", "build_info"),
}


@dataclass(frozen=True)
class Facts:
    """What a server says of itself; owner: which software it is; names: ids of its models (none: it does not say).

    same: names by which the model that was asked for may answer, itself among them.
    """

    owner: str = ""
    names: tuple[str, ...] = ()
    same: frozenset[str] = field(default_factory=frozenset)


class Server:
    """The endpoints of one server that an evaluation uses.

    tokenizer: of the model, which tells what stands before a text; None: only what a server echoes tells it. untold:
    ends of answers that a request has no room for.
    """

    def __init__(self, transport: Transport, model: str, tokenizer: Any = None) -> None:
        self.transport, self.model, self.tokenizer = transport, model, tokenizer
        self.caution: str | None = None
        self.untold: tuple[str, ...] = ()
        self._facts: Facts | None = None
        self._adds: bool | None = None
        self._opening: str | None = None
        self._lock = threading.Lock()

    @property
    def facts(self) -> Facts:
        """What the server says of itself, asked once. Raises ServerError if it does not answer at all."""
        if self._facts is None:
            try:
                self._facts = self.transport.ask("/v1/models", None, lambda reply: _facts(reply, self.model))
            except ServerError as error:
                if not error.reached:
                    raise
                # A server may well have no such list; it has said nothing of itself then.
                self._facts = Facts(same=frozenset({self.model}))
        return self._facts

    @property
    def version(self) -> str | None:
        """Version of the server's software, from where each tells it; None if this one does not."""
        path, name = _VERSION.get(self.facts.owner, (None, ""))
        if path is None:
            return None
        try:
            return self.transport.ask(path, None, lambda reply: _text(reply, name))
        except ServerError:
            return None

    def require(self) -> None:
        """Raise InputError if the server cannot be reached, or does not list the model."""
        try:
            facts = self.facts
        except ServerError as error:
            raise InputError(str(error)) from error
        if facts.names and not facts.same.intersection(facts.names):
            raise InputError(
                f"{self.transport.url} serves {', '.join(facts.names)}, not {self.model}; name one of these"
            )

    @property
    def reads_ids(self) -> bool:
        """Whether prompts go as token ids made here: SGLang puts a beginning of sequence before every text."""
        return self.tokenizer is not None and self.facts.owner == "sglang"

    def spelled(self, prompt: str) -> str:
        """A prompt as the text that this server reads with exactly one beginning of sequence."""
        if self.tokenizer is None:
            return prompt.removeprefix(self._echoed_opening())
        adds = self.facts.owner not in ("vllm", "llamacpp") and self._adds_opening()
        return without_opening(self.tokenizer, prompt) if adds else with_opening(self.tokenizer, prompt)

    def stop_fields(self, stops: Stops) -> dict[str, Any]:
        """How a request says where an answer ends. Raises ServerError if the server does not answer at all."""
        by_id = self.facts.owner in _BY_ID
        ids = [number for number, _ in stops.tokens] if by_id else []
        texts = [*stops.texts, *(() if by_id else (text for _, text in stops.tokens if text.strip()))]
        told = texts if self.facts.owner in _TAKE_ALL else texts[:STOPS]
        self.untold = tuple(texts[len(told) :])
        return {**({"stop_token_ids": ids} if ids else {}), **({"stop": told} if told else {})}

    def complete(self, prompt: str | Sequence[int], fields: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        """One completion of one prompt, given as text or token ids, read by `read`. Raises ServerError."""
        asked = prompt
        if isinstance(prompt, str) and self.reads_ids:
            (asked,) = encode(self.tokenizer, [prompt])
        elif isinstance(prompt, str):
            asked = self.spelled(prompt)
            # llama-server would put a first token before a text, too, and takes ids.
            asked = self.encode(asked) if self.facts.owner == "llamacpp" else asked
        return self._ask(asked, fields, read)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without any token put before it, as llama-server gives them. Raises ServerError."""
        return self.transport.ask("/tokenize", {"content": text, "add_special": False, "parse_special": True}, _ids)

    def _ask(self, prompt: str | Sequence[int], fields: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        neutral = _NEUTRAL.get(self.facts.owner, {})
        payload = {"model": self.model, "prompt": prompt, "top_p": 1.0, **_SAMPLING, **neutral, **fields}
        return self.transport.ask("/v1/completions", payload, read)

    def _echoed_opening(self) -> str:
        """What a server puts before a text, by its echo of one; "" where it is told to add none, or echoes nothing."""
        if self.facts.owner in ("vllm", "llamacpp"):
            return ""
        with self._lock:
            if self._opening is None:
                fields = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "echo": True}
                try:
                    self._opening = self._ask(_COUNTED, fields, _before_echo)
                except ServerError:
                    self._opening = ""
            return self._opening

    def _adds_opening(self) -> bool:
        """Whether a server of another kind puts a beginning of sequence before a text: by how many tokens it counts."""
        opening = len(opening_ids(self.tokenizer))
        if not opening:
            return False
        with self._lock:
            if self._adds is None:
                text = with_opening(self.tokenizer, _COUNTED)
                (ids,) = encode(self.tokenizer, [text])
                counted = self._ask(text, {"max_tokens": 1, "temperature": 0.0}, lambda r: used(r, "prompt_tokens"))
                if counted not in (len(ids), len(ids) + opening):
                    self.caution = (
                        f"the server counts {'no' if counted is None else counted} tokens in a text of {len(ids)}, so "
                        "that it cannot be told whether it adds a beginning of sequence; it was taken to add one"
                    )
                self._adds = counted != len(ids)
            return self._adds


def _before_echo(reply: Any) -> str:
    """The text of the tokens that stand before the echoed text."""
    whole = "".join(token.text for token in tokens_of(the_choice(reply, ())))
    return whole.partition(_COUNTED)[0] if _COUNTED in whole else ""


def _ids(reply: Any) -> list[int]:
    ids = reply.get("tokens") if isinstance(reply, Mapping) else None
    if not isinstance(ids, list) or not ids or not all(isinstance(i, int) for i in ids):
        raise ServerError("the server did not tokenise a text")
    return ids


def _facts(reply: Any, model: str) -> Facts:
    rows = reply.get("data") if isinstance(reply, Mapping) else None
    known = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    if not known:
        raise ServerError("the server lists no models", again=False)
    groups = [{str(row.get("id")), *_texts(row.get("aliases"))} for row in known]
    # vLLM gives one model several names, and answers by the first of them.
    roots = [row.get("root") for row, group in zip(known, groups, strict=True) if model in group]
    for row, group in zip(known, groups, strict=True):
        if row.get("root") is not None and row.get("root") in roots:
            group.add(model)
    same = {model}.union(*(group for group in groups if model in group))
    return Facts(str(known[0].get("owned_by") or ""), tuple(str(row.get("id")) for row in known), frozenset(same))


def _texts(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _text(reply: Any, name: str) -> str | None:
    value = reply.get(name) if isinstance(reply, Mapping) else None
    return one_line(value, 80) if isinstance(value, str) and value else None
