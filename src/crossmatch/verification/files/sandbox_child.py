"""A program of its own: renders templates and loads tokenizers that nobody vouches for, under limits of CPU and memory.

Started by `probing` as a child process, because neither a template that loops nor a library that fills the memory can
be stopped in a thread. Reads one request as JSON from standard input, answers in JSON; of the package it imports what
limits it alone, which keeps its start short.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from crossmatch.limits import confine

LONGEST = 400_000
# A text for each added token; a tokenizer with more of them has its further ones compared as data alone.
_MOST_ADDED = 2000
# What a tokenizer does beside its model; words in these parts that are tried, and tokens of one text of them.
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_MOST_WORDS, _TOGETHER = 500, 2000


def main() -> None:
    """Answer one request, within the limits that it gives."""
    request = json.load(sys.stdin)
    confine(request["cpu"], request["memory"])
    answer = render(request) if request["kind"] == "render" else tokenize(request)
    json.dump(answer, sys.stdout)


def render(request: dict[str, Any]) -> list[dict[str, str]]:
    """Every dialogue as the template renders it: its text, or the kind of error."""
    try:
        template = _environment().from_string(request["template"])
    except Exception as error:  # whatever a template can make the compiler raise
        return [{"error": type(error).__name__}] * len(request["dialogues"])
    return [_rendered(template, {**request["variables"], **dialogue}) for dialogue in request["dialogues"]]


def _rendered(template: Any, variables: dict[str, Any]) -> dict[str, str]:
    pieces, length = [], 0
    try:
        for piece in template.generate(**variables):
            pieces.append(piece)
            length += len(piece)
            if length > LONGEST:
                return {"error": "TooLong"}
    except Exception as error:  # Jinja's own errors, and whatever a template raises
        return {"error": type(error).__name__}
    return {"text": "".join(pieces)}


def _environment() -> Any:
    """Jinja as transformers sets it up for chat templates, with a clock that stands still."""
    from jinja2 import ext, nodes, utils
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    class Namespace(utils.Namespace):
        def __init__(*arguments: Any, **values: Any) -> None:
            self, *rest = arguments
            attributes = dict(*rest, **values)
            if any(str(name).startswith("_") for name in attributes):
                raise SecurityError("no underscores in a namespace")
            utils.Namespace.__init__(self, attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            if str(name).startswith("_"):
                raise SecurityError("no underscores in a namespace")
            utils.Namespace.__setitem__(self, name, value)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def fail(message: Any) -> None:
        raise TemplateError(str(message)[:200])

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    # One day for all, so that two templates that print it are compared by all else.
    environment.globals |= {"raise_exception": fail, "strftime_now": lambda _: "2024-07-26", "namespace": Namespace}
    return environment


def tokenize(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Facts and token ids of several tokenizers; the probes for each added token are those of all of them together."""
    loaded = [_load(entry) for entry in request["tokenizers"]]
    added = sorted({token for entry in loaded for token in entry.get("added", ())})[:_MOST_ADDED]
    parts = [entry["parts"] for entry in loaded if "error" not in entry]
    differing = [part for part in _PARTS if len({each[part] for each in parts}) > 1]
    said = sorted({word for each in parts for part in differing for word in _words(json.loads(each[part]))})
    tried = [*added, *said[:_MOST_WORDS]]
    texts = request["texts"] + [f"a {token} b{token}c\n{token}" for token in tried]
    every = _vocabulary_texts(loaded) if differing else []
    answers = []
    for entry in loaded:
        if "error" in entry:
            answers.append(entry)
            continue
        tokenizer, vocabulary = entry["tokenizer"], entry["vocabulary"]
        others = [e["vocabulary"] for e in loaded if "error" not in e]
        answers.append(
            {
                "largest": max(vocabulary.values(), default=-1),
                "vocabulary": _digest(f"{token}\0{i}" for token, i in sorted(vocabulary.items())),
                "model": entry["model"],
                "flags": entry["flags"],
                "strange": _strange(vocabulary, others[0]),
                "added": {token: vocabulary[token] for token in entry["added"][:_MOST_ADDED]},
                "special": {token: vocabulary.get(token) for token in (*request["lookup"], *added)},
                "texts": texts,
                "ids": [_ids(tokenizer, text) for text in texts],
                "framed": _ids(tokenizer, "What is anaemia?", framed=True),
                "parts": entry["parts"],
                "words": _digest(str(_ids(tokenizer, text)) for text in every),
                "decoded": _decoded(tokenizer, vocabulary) if "decoder" in differing else "",
            }
        )
    return answers


def _load(entry: dict[str, Any]) -> dict[str, Any]:
    from tokenizers import AddedToken, Tokenizer

    try:
        text = Path(entry["path"]).read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
        model = json.loads(text)["model"]
        # Loaders cut and pad as they are told, not as the file happens to say.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        known = tokenizer.get_vocab(with_added_tokens=True)
        for token in entry["more"]:
            # What the other files add, loaders add too.
            if token not in known:
                tokenizer.add_tokens([AddedToken(token, normalized=False, special=True)])
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        decoder = sorted(tokenizer.get_added_tokens_decoder().items())
        added, flags = [token.content for _, token in decoder], _digest(f"{i} {token!r}" for i, token in decoder)
        pieces = _model(model)
        parts = {part: _state(getattr(tokenizer, part)) for part in _PARTS}
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are no Exception
        return {"error": f"{type(error).__name__}: {str(error)[:160]}"}
    facts = {"tokenizer": tokenizer, "vocabulary": vocabulary, "added": added, "flags": flags}
    return {**facts, "model": pieces, "parts": parts}


def _state(part: Any) -> str:
    """A part of a tokenizer as JSON with its defaults filled in."""
    return "null" if part is None else json.dumps(json.loads(part.__getstate__()), sort_keys=True)


def _words(state: Any) -> set[str]:
    """Strings in a part of a tokenizer: what it looks for, and what it puts there."""
    if isinstance(state, str):
        return {state} if 0 < len(state) <= 100 else set()
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return {word for value in inner for word in _words(value)}


def _vocabulary_texts(loaded: list[dict[str, Any]]) -> list[str]:
    """Texts that hold the tokens of all vocabularies."""
    words = sorted({token for entry in loaded for token in entry.get("vocabulary", ())})
    return [
        " ".join(words[first : first + _TOGETHER]).replace("\u0120", "").replace("\u2581", "")
        for first in range(0, len(words), _TOGETHER)
    ]


def _decoded(tokenizer: Any, vocabulary: dict[str, int]) -> str:
    """Digest of the text of every token, without spaces around it: forms of one decoder differ in these for a token
    that stands alone."""
    decode: Callable[..., str] = tokenizer.decode
    return _digest(decode([i], skip_special_tokens=False).strip() for i in sorted(vocabulary.values()))


def _model(model: dict[str, Any]) -> str:
    """Digest of what turns text into pieces: merges (both ways in which they are written), or scores."""
    merges = model.get("merges") or ()
    lines = ["\0".join(m) if isinstance(m, list) else str(m).replace(" ", "\0") for m in merges]
    scores = model.get("vocab")
    if isinstance(scores, list):
        lines += [f"{piece}\0{score!r}" for piece, score in scores]
    return _digest(lines)


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _strange(ours: dict[str, int], theirs: dict[str, int]) -> list[str]:
    """Some tokens that two vocabularies do not share, or number differently."""
    differing = (
        t for first, second in ((theirs, ours), (ours, theirs)) for t, i in first.items() if second.get(t) != i
    )
    return sorted({token for token, _ in zip(differing, range(4), strict=False)})


def _ids(tokenizer: Any, text: str, *, framed: bool = False) -> list[int] | None:
    encode: Callable[..., Any] = tokenizer.encode
    try:
        return encode(text, add_special_tokens=framed).ids
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # as above
        return None


if __name__ == "__main__":
    main()
