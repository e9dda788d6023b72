"""Tokens that an adapter's tokenizer adds to the base's: whose tokenizer must go with the rows that were trained."""

from collections.abc import Mapping
from pathlib import Path

from crossmatch.adapter import Fit
from crossmatch.adapter.token_rows import changed_rows, token_rows
from crossmatch.checkpoint import input_embedding, read_vocabulary
from crossmatch.errors import AdapterError

_SHOWN = 3


def added_tokens(base: Path, adapters: Mapping[str, Path]) -> dict[str, dict[str, int]]:
    """Adapter -> the tokens, with their ids, that its tokenizer has and the base's has not, or numbers otherwise.

    Empty for an adapter without a tokenizer, and for all where the base's cannot be read as data.
    """
    ours = read_vocabulary(base) if adapters else None
    if ours is None:
        return {}
    found = {}
    for name, path in adapters.items():
        theirs = read_vocabulary(path) or {}
        more = {token: number for token, number in theirs.items() if ours.get(token) != number}
        # One that shares nothing is another tokenizer, which is no addition.
        if more and len(more) < len(theirs):
            found[name] = more
    return found


def token_owner(added: Mapping[str, Mapping[str, int]]) -> str | None:
    """The adapter whose tokenizer holds all the added tokens; None if none were added.

    Raises AdapterError if no tokenizer holds them all.
    """
    for name, tokens in added.items():
        if all(other.items() <= tokens.items() for other in added.values()):
            return name
    if added:
        raise AdapterError(f"adapters {', '.join(added)} added different tokens; choose one with --tokenizer NAME")
    return None


def check_tokens(fit: Fit, base: Path, added: Mapping[str, Mapping[str, int]], chosen: str) -> None:
    """Raise AdapterError if the chosen tokenizer has an added token without a row, or if the row of a token was trained
    that the chosen tokenizer lacks."""
    name = input_embedding(fit.base.tensors)
    if name is None or not fit.base.tensors[name].shape:
        return
    rows = fit.base.tensors[name].shape[0]
    beyond = {token: number for token, number in added.get(chosen, {}).items() if number >= rows}
    if beyond:
        raise AdapterError(
            f"adapter {chosen}: its tokenizer adds {_some(beyond)}, and neither the base nor the adapter has a row for "
            f"it (the embedding has {rows}); resize the embedding and train it, or take --tokenizer base"
        )
    ours = read_vocabulary(base)
    if ours is None:
        return
    taken = {**ours, **added.get(chosen, {})}
    numbers = set(taken.values())
    for label, vector in fit.vectors.items():
        theirs = {t: i for t, i in added.get(label, {}).items() if taken.get(t) != i and i < rows}
        trained = changed_rows(vector, fit.base, theirs.values())
        lost = [f"{token!r} ({number})" for token, number in theirs.items() if number in trained]
        if label != fit.grown_by:
            lost += [
                f"row {number}" for number in sorted(token_rows(vector, fit.base) - numbers - set(theirs.values()))
            ]
        if lost:
            raise AdapterError(
                f"adapter {label} trained {', '.join(lost[:_SHOWN])}"
                f"{f' and {len(lost) - _SHOWN} more' if len(lost) > _SHOWN else ''}, and {chosen}'s tokenizer has no "
                f"such token; take --tokenizer {label}, with the tokenizer saved beside the adapter"
            )


def _some(tokens: Mapping[str, int]) -> str:
    shown = ", ".join(f"{token!r} ({number})" for token, number in list(tokens.items())[:_SHOWN])
    return shown + (f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else "")
