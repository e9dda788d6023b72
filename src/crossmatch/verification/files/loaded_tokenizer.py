"""What transformers makes of a tokenizer's files together: two directories may hold one tokenizer.json and give other
ids, since other files say which tokens are special, what is added to it, and by which class it is loaded."""

from typing import Any

from crossmatch.verification.files.sandbox import Encoder, LoadedTokenizer, load_tokenizers
from crossmatch.verification.files.side_files import Side
from crossmatch.verification.files.tokenizer import TEXTS, Encoders

# What a tokenizer_config.json says of other things than of ids: templates are compared by themselves; padding and
# cutting are the caller's; a name and a version change nothing.
_OTHERS = (
    *("chat_template", "name_or_path", "transformers_version", "tokenizer_file", "padding_side", "truncation_side"),
    *("pad_token", "model_max_length", "processor_class", "backend", "is_local", "local_files_only"),
)
# Added tokens of which a text each is tried.
_MOST = 300


def settings_of(side: Side, encoder: Encoder | None) -> tuple[Any, ...]:
    """All that says what becomes of a tokenizer.json, beside it and of its added tokens."""
    config = {key: value for key, value in side.tokenizer.items() if key not in _OTHERS}
    special = {key: value for key, value in side.beside["special_tokens_map.json"].items() if key not in _OTHERS}
    return config, special, side.beside["added_tokens.json"], encoder.flags if encoder is not None else ""


def loaded_differences(merged: Side, source: Side, encoders: Encoders) -> tuple[list[str], str | None]:
    """How the merged tokenizer differs from the source's as transformers loads them; and, where that cannot be told,
    why. encoders: what tokenizer.json alone makes of texts."""
    known = encoders.of(merged)
    if settings_of(merged, known) == settings_of(source, encoders.of(source)):
        return [], None
    added = list(known.added)[:_MOST] if known is not None else []
    texts = [*TEXTS, *(f"a {token} b{token}c\n{token}" for token in added)]
    ours, theirs = load_tokenizers([merged.path, source.path], texts)
    if theirs.error is not None:
        return [], f"transformers cannot load the source's: {theirs.error}"
    if ours.error is not None:
        return [f"transformers cannot load it: {ours.error}"], None
    return [*_texts(ours, theirs, texts), *_ends(ours, theirs, merged, source)], None


def _texts(ours: LoadedTokenizer, theirs: LoadedTokenizer, texts: list[str]) -> list[str]:
    ways = {
        "plain": "get other ids by AutoTokenizer",
        "framed": "get other tokens around them by AutoTokenizer",
        "whole": "are decoded to another text",
        "shown": "are decoded to another text without special tokens",
    }
    for way, words in ways.items():
        pairs = zip(texts, getattr(ours, way), getattr(theirs, way), strict=True)
        unlike = [text for text, mine, source in pairs if mine != source]
        if unlike:
            return [f"{len(unlike)} of {len(texts)} texts {words}, such as {min(unlike, key=len)!r}"[:300]]
    return []


def _ends(ours: LoadedTokenizer, theirs: LoadedTokenizer, merged: Side, source: Side) -> list[str]:
    """Tokens at the ends of a sequence, where the files' own words do not show that they are others."""
    return [
        f"its {name} is {ours.ends.get(name)!r} as AutoTokenizer loads it, the source's {token!r}"
        for name, token in theirs.ends.items()
        if ours.ends.get(name) != token and merged.specials.get(name) == source.specials.get(name)
    ]
