"""Questions to templates and tokenizers that nobody vouches for, asked in a child process with limits."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PROGRAM, _RESOLVER, _LOADER = (
    Path(__file__).with_name(name) for name in ("sandbox_child.py", "config_child.py", "tokenizer_child.py")
)
# Seconds of CPU and bytes; an honest template needs hundredths of a second and a few MB.
_RENDER_CPU, _RENDER_MEMORY = 4, 1 << 29
_TOKENIZE_CPU, _TOKENIZE_MEMORY = 60, 2 << 30
# Nearly all of it is the loading of transformers; its memory limit is set by the child, beyond what the libraries take.
_RESOLVE_CPU = 60
# A parsed tokenizer takes some 20 times the size of its file.
_MEMORY_PER_BYTE, _CPU_PER_BYTE = 40, 1e-6


@dataclass(frozen=True)
class Rendered:
    """A dialogue under a template: its text, or the kind of error."""

    text: str | None
    error: str | None = None


@dataclass(frozen=True)
class Encoder:
    """What a tokenizer did.

    largest: the largest token id; vocabulary, model, flags: digests of all tokens with their ids, of merges or scores,
    and of added tokens with all that is set for each; strange: tokens that the first one asked numbers differently;
    added, special: ids of added tokens and of those asked for; ids: token ids of every text; framed: of a question with
    what the tokenizer puts around it; parts: what it does beside its model, as JSON by name; words, decoded: digests of
    the ids of all vocabularies' tokens as words, and of the text of every token, where these parts differ; error: why
    it could not be loaded.
    """

    largest: int = -1
    vocabulary: str = ""
    model: str = ""
    flags: str = ""
    strange: tuple[str, ...] = ()
    added: Mapping[str, int] = field(default_factory=dict)
    special: Mapping[str, int | None] = field(default_factory=dict)
    ids: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    framed: tuple[int, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)
    words: str = ""
    decoded: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Resolution:
    """What transformers makes of a config: its fields; dotted names of those that its class does not declare; error:
    why it cannot be read; known: whether there is a class for this type of model."""

    fields: Mapping[str, Any] | None = None
    unread: tuple[str, ...] = ()
    error: str | None = None
    known: bool = False


@dataclass(frozen=True)
class LoadedTokenizer:
    """What transformers makes of a tokenizer's directory, for each of some texts.

    framed, plain: token ids with and without what is put around a text; shown, whole: the text of the plain ids without
    and with special tokens; ends: tokens that begin and end a sequence, by name; error: why it cannot be loaded.
    """

    framed: tuple[tuple[int, ...], ...] = ()
    plain: tuple[tuple[int, ...], ...] = ()
    shown: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    ends: Mapping[str, str | None] = field(default_factory=dict)
    error: str | None = None


def render(template: str, variables: Mapping[str, Any], dialogues: Sequence[Mapping[str, Any]]) -> tuple[Rendered, ...]:
    """Every dialogue under a template. One that takes more time or memory than an honest one fails with `Limit`."""
    request = {"kind": "render", "template": template, "variables": dict(variables), "dialogues": list(dialogues)}
    answer = _ask(request, _RENDER_CPU, _RENDER_MEMORY)
    if answer is None:
        return (Rendered(None, "Limit"),) * len(dialogues)
    return tuple(Rendered(entry.get("text"), entry.get("error")) for entry in answer)


def tokenize(
    files: Sequence[tuple[Path, Sequence[str]]], texts: Sequence[str], lookup: Sequence[str]
) -> tuple[Encoder, ...]:
    """What each tokenizer.json, with the tokens that other files add to it, makes of some texts."""
    if not files:
        return ()
    entries = [{"path": str(path.resolve()), "more": list(more)} for path, more in files]
    nbytes = sum(path.stat().st_size for path, _ in files)
    request = {"kind": "tokenize", "tokenizers": entries, "texts": list(texts), "lookup": list(lookup)}
    answer = _ask(
        request, _TOKENIZE_CPU + int(_CPU_PER_BYTE * nbytes), _TOKENIZE_MEMORY + int(_MEMORY_PER_BYTE * nbytes)
    )
    if answer is not None:
        return tuple(_encoder(entry) for entry in answer)
    if len(files) == 1:
        return (Encoder(error="it takes more time or memory than a tokenizer may"),)
    # One of them broke the child: alone, each shows which.
    alone = [tokenize([file], texts, lookup)[0] for file in files]
    whole = [file for file, encoder in zip(files, alone, strict=True) if encoder.error is None]
    again = iter(tokenize(whole, texts, lookup) if len(whole) < len(files) else alone)
    return tuple(encoder if encoder.error is not None else next(again) for encoder in alone)


def _encoder(entry: Mapping[str, Any]) -> Encoder:
    if "error" in entry:
        return Encoder(error=str(entry["error"]))
    ids = (None if found is None else tuple(found) for found in entry["ids"])
    return Encoder(
        largest=entry["largest"],
        vocabulary=entry["vocabulary"],
        model=entry["model"],
        flags=entry["flags"],
        strange=tuple(entry["strange"]),
        added=entry["added"],
        special=entry["special"],
        ids=dict(zip(entry["texts"], ids, strict=True)),
        framed=tuple(entry["framed"] or ()),
        parts=entry["parts"],
        words=entry["words"],
        decoded=entry["decoded"],
    )


def resolve(configs: Sequence[Mapping[str, Any]]) -> tuple[Resolution, ...]:
    """What transformers makes of each parsed config.json: all fields under their present names, defaults filled in."""
    request = {"configs": list(configs)}
    answer = _ask(request, _RESOLVE_CPU, 0, program=_RESOLVER)
    if answer is not None:
        return tuple(
            Resolution(e.get("fields"), tuple(e.get("unread", ())), e.get("error"), e.get("known", True))
            for e in answer
        )
    if len(configs) == 1:
        return (Resolution(error="it takes more time or memory than a config may, or transformers cannot be loaded"),)
    return tuple(resolve([config])[0] for config in configs)


def load_tokenizers(directories: Sequence[Path], texts: Sequence[str]) -> tuple[LoadedTokenizer, ...]:
    """What transformers makes of the tokenizer's files in each directory; none of its code is run."""
    files = [file for path in directories for file in path.glob("*token*") if file.is_file()]
    nbytes = sum(file.stat().st_size for file in files)
    request = {
        "directories": [str(path.resolve()) for path in directories],
        "texts": list(texts),
        "memory": int(_MEMORY_PER_BYTE * nbytes),
    }
    answer = _ask(request, _RESOLVE_CPU, 0, program=_LOADER)
    if answer is not None:
        return tuple(_loaded(entry) for entry in answer)
    if len(directories) == 1:
        return (LoadedTokenizer(error="it takes more time or memory than it may, or transformers cannot be loaded"),)
    return tuple(load_tokenizers([path], texts)[0] for path in directories)


def _loaded(entry: Mapping[str, Any]) -> LoadedTokenizer:
    if "error" in entry:
        return LoadedTokenizer(error=str(entry["error"]))
    framed, plain = (tuple(map(tuple, entry[way])) for way in ("framed", "plain"))
    return LoadedTokenizer(framed, plain, tuple(entry["shown"]), tuple(entry["whole"]), entry["ends"])


def _ask(request: Mapping[str, Any], cpu: int, memory: int, program: Path = _PROGRAM) -> Any:
    """The child's answer, or None if it was stopped."""
    # Only what the interpreter needs: no tokens, no proxies. -P: the program's neighbours are not importable.
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONIOENCODING": "utf-8",
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "critical",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(program)],
            input=json.dumps({**request, "cpu": cpu, "memory": memory}).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=20 * cpu,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        return None
