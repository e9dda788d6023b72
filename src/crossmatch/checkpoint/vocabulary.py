"""The tokens of a tokenizer with their ids, read as data: no library is loaded, no code is run."""

from pathlib import Path
from typing import Any

from crossmatch.checkpoint.untrusted import parse_json, read_text
from crossmatch.errors import CheckpointError

_LARGEST = 200_000_000


def read_vocabulary(directory: Path) -> dict[str, int] | None:
    """Token -> id of tokenizer.json, or vocab.json, with the tokens that other files add; None where there is neither.

    Raises CheckpointError for a file that cannot be read.
    """
    whole = _object(directory / "tokenizer.json")
    plain = _object(directory / "vocab.json")
    if whole is not None:
        found = _model(whole.get("model"))
        found |= _numbered(whole.get("added_tokens"))
    elif plain is not None:
        found = {token: number for token, number in plain.items() if isinstance(number, int)}
    else:
        return None
    more = _object(directory / "added_tokens.json") or {}
    found |= {token: number for token, number in more.items() if isinstance(number, int) and token not in found}
    decoder = (_object(directory / "tokenizer_config.json") or {}).get("added_tokens_decoder")
    entries = decoder.items() if isinstance(decoder, dict) else ()
    listed = [{**e, "id": int(i)} for i, e in entries if isinstance(e, dict) and i.isdecimal() and len(i) < 10]
    return {**_numbered(listed), **found}


def _model(model: Any) -> dict[str, int]:
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):
        return {entry[0]: number for number, entry in enumerate(vocab) if isinstance(entry, list) and entry}
    return {t: i for t, i in vocab.items() if isinstance(i, int)} if isinstance(vocab, dict) else {}


def _numbered(entries: Any) -> dict[str, int]:
    pairs = [(e.get("content"), e.get("id")) for e in entries or () if isinstance(e, dict)]
    return {token: number for token, number in pairs if isinstance(token, str) and isinstance(number, int)}


def _object(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        value = parse_json(read_text(file, _LARGEST))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON: {error}") from error
    return value if isinstance(value, dict) else None
