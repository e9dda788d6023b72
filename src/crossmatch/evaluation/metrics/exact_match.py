"""Exact answers: whether a generated text is the reference, or ends at the number that the reference is."""

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from crossmatch.statistics.estimates import Array

_NUMBER = re.compile(r"(?<![\w.,])[-+]?\d+(?:,\d{3})+(?:\.\d+)?(?![\w,]*\d)|[-+]?\d+(?:\.\d+)?")
_TOKENS = re.compile(r"<\|[^|<>]*\|>|</?s>")
_LONGEST = 40


def plain(text: str) -> str:
    """A text for comparison: NFKC, case folded, single spaces, without special tokens and a final full stop."""
    folded = unicodedata.normalize("NFKC", _TOKENS.sub("", text)).casefold()
    return " ".join(folded.split()).rstrip(".。").rstrip()


def last_number(text: str) -> Fraction | None:
    """The last number that a text holds, `1,024` and `0.5` among them; None without one.

    A sign belongs to the number behind it unless a number or a bracket stands before: `is -5` ends at -5, `7 -5` at 5.
    """
    found = [m for m in _NUMBER.finditer(unicodedata.normalize("NFKC", _TOKENS.sub("", text))) if len(m[0]) <= _LONGEST]
    if not found:
        return None
    match = found[-1]
    signed = match[0][0] in "+-" and re.search(r"[\d)]\s*$|\w$", match.string[: match.start()]) is not None
    return Fraction((match[0][1:] if signed else match[0]).replace(",", ""))


def exact_matches(texts: Sequence[str], references: Sequence[str]) -> Array:
    """Whether each text is its reference, both as `plain` has them; (n, 1) of 0 and 1."""
    return _column([plain(t) == plain(r) for t, r in zip(texts, references, strict=True)])


def number_matches(texts: Sequence[str], references: Sequence[str]) -> Array:
    """Whether the last number of each text is the last one of its reference, (n, 1) of 0 and 1."""
    pairs = [(last_number(t), last_number(r)) for t, r in zip(texts, references, strict=True)]
    return _column([found is not None and found == wanted for found, wanted in pairs])


def _column(values: Sequence[bool]) -> Array:
    return np.array(values, dtype=float).reshape(-1, 1)
