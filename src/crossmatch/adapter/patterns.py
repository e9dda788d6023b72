"""Regular expressions from files of strangers, matched in bounded time.

The keys of rank_pattern and the targets of an adapter are regular expressions, which Python's matcher may try for
longer than the universe lasts: (a+)+$ on thirty letters. The `regex` library reads the same expressions and gives up
after a time; Python's own compiler says before that what is one.
"""

import re
import warnings
from functools import lru_cache
from typing import Any

import regex

from crossmatch.errors import AdapterError

MAX_LENGTH = 20_000
# Processor seconds for one expression on one name; those of real adapters take microseconds.
LONGEST = 0.5
_PLAIN = re.compile(r"[\w.-]*", re.ASCII)
# Flags of a part alone that decide what a letter is: `regex` looks for (?a:\w)*\w as if all of it had them.
_PARTLY_ASCII = re.compile(r"\(\?[A-Za-z]*[aLu][A-Za-z]*(-[A-Za-z]+)?:")


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text matches. Raises AdapterError for no regular expression, or one that takes too long."""
    if _PLAIN.fullmatch(pattern):
        # Dots stand for any character; nothing else has a meaning.
        return len(pattern) == len(text) and all(p in (".", t) for p, t in zip(pattern, text, strict=True))
    if not text.isascii() and _PARTLY_ASCII.search(pattern):
        raise AdapterError(
            f"pattern {_shown(pattern)} has flags for a part of it, and {text[:60]!r} has other letters than a-z: "
            "write the pattern without these flags"
        )
    try:
        return _compiled(pattern).fullmatch(text, timeout=LONGEST) is not None
    except TimeoutError as error:
        raise AdapterError(f"pattern {_shown(pattern)} takes too long on {text[:60]!r}; write it simpler") from error


def ends_in(pattern: str, text: str) -> bool:
    """Whether the text, or what follows one of its dots, matches as a whole."""
    if _PLAIN.fullmatch(pattern):
        cut = len(text) - len(pattern)
        return (cut == 0 or (cut > 0 and text[cut - 1] == ".")) and matches(pattern, text[cut:])
    return matches(rf"(?:.*\.)?(?:{pattern})", text)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> Any:
    if len(pattern) > MAX_LENGTH:
        raise AdapterError(f"pattern {pattern[:60]!r}… has {len(pattern)} characters; at most {MAX_LENGTH} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
            return regex.compile(pattern, regex.VERSION0)
    except (re.error, regex.error, RecursionError, OverflowError, ValueError) as error:
        raise AdapterError(f"pattern {_shown(pattern)} is no regular expression: {error}") from error


def _shown(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else pattern[:80] + "…")
