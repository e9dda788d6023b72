"""Exact answers: whether a generated text is the reference, or ends at the number that the reference is."""

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from crossmatch.data.trace_blocks import SPECIAL_TOKENS
from crossmatch.statistics.estimates import Array

# Digits with thousands in groups (also 1,00,000), plain ones, and a decimal without a leading zero.
_DIGITS = (
    r"(?:(?<![\w.,])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!,?\d)|(?<![\w.,])\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?(?!,?\d)"
    r"|\d+(?:\.\d+)?|(?<![\w.)\]])\.\d+)"
)
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)(?P<digits>{_DIGITS})"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})(?!\d)|\s*[×xX*·⋅]\s*10(?:\^|\*\*)\(?(?P<ten>[-+]?\d{1,3})\)?"
    r"|(?:\^|\*\*)\(?(?P<power>[-+]?\d{1,3})\)?(?!\d)|(?:\s+(?P<part>\d+))?\s?/\s?(?P<below>\d+)(?![\d.]|\s?/))?"
)
# Languages with a decimal comma -> what they put between thousands in plain text, beside what all may have.
_COMMA = {"de": ".", "es": ".", "it": ".", "nl": ".", "pt": ".", "fr": " ", "pl": " ", "ru": " "}
_GROUPED = {mark: re.compile(rf"(?<![\w.,])[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+(?![\w]|\.\d)") for mark in ". "}
# Of a list ("1,2,3") no comma is a decimal one.
_DECIMAL = re.compile(r"(?<![\d,])(\d+),(\d+)(?!,?\d)")
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
# Minus signs and dashes that are written for them, and slashes of fractions.
_SIGNS = str.maketrans({**dict.fromkeys("−﹣－–‒‐‑", "-"), **dict.fromkeys("⁄∕", "/")})
_VULGAR = re.compile(r"[¼-¾⅐-⅞↉]")
_LATEX = (
    (re.compile(r"\\[dtc]?frac\s*\{\s*([-+]?[\d.,]+)\s*\}\s*\{\s*(\d+)\s*\}"), r" \1/\2"),
    (re.compile(r"\\[dtc]?frac\s*\{\s*([\d.,]+)\s*\}\s*\{\s*-\s*(\d+)\s*\}"), r" -\1/\2"),
    (re.compile(r"\\[dtc]?frac\s*(\d)\s*(\d)"), r" \1/\2"),
    (re.compile(r"\\(?:times|cdot)\b"), "×"),
    (re.compile(r"(?<=\d)(?:\{,\}|\\[,;:! ])(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\^\s*\{\s*([-+]?\d+)\s*\}"), r"^\1"),
)
# Other separators of thousands: thin and fixed spaces, apostrophes, underscores.
_SEPARATOR = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'’_](?=\d{3}(?!\d))")
# An exponent of a letter or a bracket is no number of its own: x^2.
_OF_A_SYMBOL = re.compile(r"(?<=[^\W\d_]|[)\]}])(?:\^|\*\*)\(?[-+]?\d+\)?")
# A number that is part of a name or a unit: vitamin B12, SpO2, kg/m2.
_IN_A_NAME = re.compile(r"[A-Za-zµμ]\Z")
_SIGN_GAP = re.compile(r"(?<=[-+]) (?=\d+/)")
_TOKENS = re.compile(SPECIAL_TOKENS)
_LONGEST = 40


def plain(text: str) -> str:
    """A text for comparison: NFKC, case folded, single spaces, without special tokens and a final full stop."""
    folded = unicodedata.normalize("NFKC", _TOKENS.sub("", text)).casefold()
    return " ".join(folded.split()).rstrip(".。").rstrip()


def last_number(text: str, language: str = "en") -> Fraction | None:
    """The last number that a text holds; None without one.

    language: where it has a decimal comma, `0,5` is a half, and `1.024` (German) or `1 024` (French) are thousands.

    Read are `1,024` (also with thin spaces, apostrophes or underscores between thousands), `0.5` and `.5`, `-5` with
    any minus sign, `1.5e-3`, `2 × 10^3`, `10⁶`, `3/4`, `1 1/2`, `½` and LaTeX's `\\frac{3}{4}`; of a date the last
    part. A comma before other than three digits is no decimal point, but in such a language. A sign belongs to the
    number behind it unless a number, a letter or a bracket stands before: `is -5` ends at -5, `7 -5` at 5. Digits right
    behind a letter belong to a name or a unit (`B12`, `SpO2`, `kg/m2`): they count if there is no other number.
    """
    plain_text = _written_out(_TOKENS.sub("", text), language)
    found = [m for m in _NUMBER.finditer(plain_text) if len(m["digits"]) <= _LONGEST]
    free = [m for m in found if m["sign"] or not _IN_A_NAME.search(plain_text, max(0, m.start() - 1), m.start())]
    return _value((free or found)[-1]) if found else None


def _written_out(text: str, language: str) -> str:
    """Fractions, powers, signs and thousands in one way of writing."""
    comma = _COMMA.get(language)
    text = _SEPARATOR.sub("" if comma else ",", text.translate(_SIGNS))
    if comma:
        text = _GROUPED[comma].sub(lambda m: m[0].replace(comma, ""), text)
        text = _DECIMAL.sub(r"\1.\2", text.replace("{,}", ","))
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]).replace("⁄", "/"), text)
    text = re.sub(r"[⁻⁺]?[⁰¹²³⁴-⁹]+", lambda m: "^" + m[0].translate(_POWERS), text)
    text = unicodedata.normalize("NFKC", text)
    for pattern, plain_form in _LATEX:
        text = pattern.sub(plain_form, text)
    return _OF_A_SYMBOL.sub("", _SIGN_GAP.sub("", text))


def _value(match: re.Match[str]) -> Fraction:
    """What a match of `_NUMBER` is worth."""
    before = match.string[: match.start()]
    value = Fraction(match["digits"].replace(",", ""))
    below = int(match["below"] or 0)
    if match["below"]:
        # Of a date, or over nothing, the last part alone.
        if before.endswith("/") or not below:
            return Fraction(below)
        part = int(match["part"]) if match["part"] else None
        if part is None:
            value /= below
        elif part < below and value.denominator == 1:
            value += Fraction(part, below)
        else:
            return Fraction(part, below)
    exponent = int(match["exponent"] or match["ten"] or 0)
    value *= Fraction(10) ** exponent
    power = int(match["power"] or 1)
    if value or power > 0:
        value **= power
    signed = match["sign"] == "-" and re.search(r"[\d)\]]\s*$|\w$", before[-_LONGEST:]) is None
    return -value if signed else value


def exact_matches(texts: Sequence[str], references: Sequence[str]) -> Array:
    """Whether each text is its reference, both as `plain` has them; (n, 1) of 0 and 1."""
    return _column([plain(t) == plain(r) for t, r in zip(texts, references, strict=True)])


def number_matches(texts: Sequence[str], references: Sequence[str], language: str = "en") -> Array:
    """Whether the last number of each text is the last one of its reference, (n, 1) of 0 and 1."""
    pairs = [(last_number(t, language), last_number(r, language)) for t, r in zip(texts, references, strict=True)]
    return _column([found is not None and found == wanted for found, wanted in pairs])


def _column(values: Sequence[bool]) -> Array:
    return np.array(values, dtype=float).reshape(-1, 1)
