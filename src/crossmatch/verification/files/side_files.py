"""The small files of a directory, read as files that nobody vouches for: what a loader would take from them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmatch.checkpoint import file_digest
from crossmatch.errors import CheckpointError

LARGEST, LARGEST_TOKENIZER = 10_000_000, 200_000_000
_DEEPEST, _MOST_TEMPLATES = 64, 16
VOCABULARIES = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tekken.json",
    "tiktoken.model",
)
_SPECIALS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Classes that have no special tokens of their own: what is not declared is not there.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


class UnreadableError(Exception):
    """A small file that cannot be read, or is none."""


@dataclass(frozen=True)
class Side:
    """What one directory says about text.

    config, generation, tokenizer: config.json, generation_config.json (None: absent) and tokenizer_config.json;
    specials: special tokens by name (None: declared to be none; absent: left to the class); more: tokens that other
    files than tokenizer.json declare; beside: special_tokens_map.json and added_tokens.json, as far as they are there;
    templates: by name, as a loader would take them; hidden: template texts that it passes over; broken: file -> why it
    cannot be read; encoder_file: tokenizer.json, if it may be loaded.
    """

    name: str
    path: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] | None = None
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    specials: Mapping[str, str | None] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    broken: Mapping[str, str] = field(default_factory=dict)
    encoder_file: Path | None = None
    encoder_digest: str = ""

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer, in any form."""
        return any((self.path / name).is_file() for name in ("tokenizer.json", *VOCABULARIES))

    @property
    def encoder_key(self) -> tuple[str, tuple[str, ...]] | None:
        """Equal for two tokenizers that are the same bytes with the same additions; None without tokenizer.json."""
        return (self.encoder_digest, self.more) if self.encoder_file is not None else None

    def slow_digests(self) -> dict[str, str]:
        """Digests of the files of a tokenizer that has no tokenizer.json."""
        found = {name: _digest(self.path / name) for name in VOCABULARIES if (self.path / name).is_file()}
        return {name: digest for name, digest in found.items() if digest is not None}

    def variables(self, other: "Side") -> dict[str, str]:
        """The special tokens that a template sees. What this side leaves to the tokenizer's class is taken from the
        other one: exports write it out, and which class has which is not known here."""
        own = dict(self.specials)
        if str(self.tokenizer.get("tokenizer_class")) not in _PLAIN_CLASSES:
            own = {**other.specials, **own}
        return {name: token for name, token in own.items() if token is not None}


def read_side(name: str, path: Path, config: Mapping[str, Any] | None = None) -> Side:
    """Read a directory's small files; what cannot be read is noted in `broken`, nothing is raised."""
    broken: dict[str, str] = {}
    tokenizer = _object(path, "tokenizer_config.json", broken) or {}
    beside = {name: _object(path, name, broken) or {} for name in ("special_tokens_map.json", "added_tokens.json")}
    declared = {**beside["special_tokens_map.json"], **tokenizer}
    templates, hidden = _templates(path, tokenizer, broken)
    specials = {key: _content(declared[key]) for key in _SPECIALS if key in declared}
    encoder = path / "tokenizer.json"
    if encoder.is_file() and encoder.stat().st_size > LARGEST_TOKENIZER:
        broken["tokenizer.json"] = f"it is larger than {LARGEST_TOKENIZER} bytes"
    digest = _digest(encoder) if encoder.is_file() and encoder.name not in broken else None
    if encoder.is_file() and digest is None:
        broken.setdefault("tokenizer.json", "it cannot be opened")
    return Side(
        name=name,
        path=path,
        config=config or {},
        generation=_object(path, "generation_config.json", broken),
        tokenizer=tokenizer,
        specials=specials,
        more=_more(tokenizer, beside["added_tokens.json"], specials),
        beside=beside,
        templates=templates,
        hidden=hidden,
        broken=broken,
        encoder_file=encoder if digest is not None else None,
        encoder_digest=digest or "",
    )


def _digest(file: Path) -> str | None:
    try:
        return file_digest(file)
    except CheckpointError:
        return None


def too_deep(value: Any) -> bool:
    """Whether a parsed value is nested more than a config ever is."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _text(file: Path) -> str:
    """Raises UnreadableError for what is too large, or no text."""
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UnreadableError(f"it is larger than {LARGEST} bytes")
        return data.decode("utf-8")
    except (OSError, ValueError) as error:
        raise UnreadableError(str(error)) from error


def _object(path: Path, name: str, broken: dict[str, str]) -> dict[str, Any] | None:
    """A JSON object, or None: there is none, or it is broken."""
    file = path / name
    # A pipe or a device is no file; it would be waited for.
    if not file.is_file():
        return None
    try:
        value = json.loads(_text(file))
        if not isinstance(value, dict):
            raise UnreadableError("it holds no JSON object")
        if too_deep(value):
            raise UnreadableError("it is nested too deep")
    except (UnreadableError, ValueError, RecursionError) as error:
        broken[name] = f"{error or type(error).__name__}"[:200]
        return None
    return value


def _templates(path: Path, config: Mapping[str, Any], broken: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Templates as transformers 5 takes them: if there are files, those alone; else the field of the config."""
    files = {"default": path / "chat_template.jinja"}
    folder = path / "additional_chat_templates"
    if folder.is_dir():
        files |= {file.stem: file for file in sorted(folder.glob("*.jinja"))[:_MOST_TEMPLATES]}
    found: dict[str, str] = {}
    for name, file in files.items():
        if file.is_file():
            try:
                found[name] = _text(file)
            except UnreadableError as error:
                broken[file.name if name == "default" else f"{folder.name}/{file.name}"] = str(error)[:200]
    declared = _declared(config.get("chat_template"))
    if not found and "chat_template.jinja" not in broken:
        return declared, ()
    return found, tuple(text for name, text in declared.items() if found.get(name) != text)


def _declared(value: Any) -> dict[str, str]:
    """The field chat_template: one text, a list of {name, template}, or an object by name."""
    if isinstance(value, str):
        return {"default": value}
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [(entry.get("name"), entry.get("template")) for entry in value if isinstance(entry, dict)]
    return {name: text for name, text in pairs[:_MOST_TEMPLATES] if isinstance(name, str) and isinstance(text, str)}


def _content(value: Any) -> str | None:
    """A token's text, written plainly or as an object."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _more(
    tokenizer: Mapping[str, Any], added: Mapping[str, Any], specials: Mapping[str, str | None]
) -> tuple[str, ...]:
    """Tokens that loaders add if tokenizer.json lacks them: by id, then the special ones."""
    decoder = tokenizer.get("added_tokens_decoder")
    numbered = (
        {int(i): _content(t) for i, t in decoder.items() if i.isdecimal() and len(i) < 10}
        if isinstance(decoder, dict)
        else {}
    )
    numbered |= {i: token for token, i in added.items() if isinstance(i, int)}
    tokens = [token for _, token in sorted(numbered.items())] + list(specials.values())
    return tuple(dict.fromkeys(token for token in tokens if token))
